"""Ten times the pictures, captions or gallery: ten times the time, and no more memory than the answer takes?

Each step is measured at n, 3 n and 10 n, by turns, in one process; a plot shows seconds per row against rows. Memory is
the peak of a process of its own at each size, less what it holds before the step, less the answer.

    python tests/benchmarks/bench_growth.py --turns 5 --out growth.json --plot growth.svg
"""

import multiprocessing
import resource
import statistics
import sys
import threading
import time
from pathlib import Path

import bench
import numpy as np
from torch import nn

from sklearn_mm.datasets import make_captioned_shapes
from sklearn_mm.features import FullNetworkEmbedding
from sklearn_mm.index import ExactIndex
from sklearn_mm.metrics import retrieval_report
from sklearn_mm.retrieval import JointEmbeddingRanker

GROWTH = (1, 3, 10)
MOST_OVER_LINEAR = 1.1
MIB = 2**20
WIDTH = 64
SMALLEST = 200  # rows: the pictures of a report are as many


def small_network():
    layers = [nn.Conv2d(3, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64, 10)).eval()


def pictures(n_rows):
    """Embed n pictures, by a network that was fitted on a few."""
    drawn = make_captioned_shapes(50, image_size=96, random_state=0).images
    images = [drawn[row % len(drawn)] for row in range(n_rows)]
    embedding = FullNetworkEmbedding(small_network(), image_size=96).fit(images[:50])
    return lambda: embedding.transform(images)


def captions(n_rows):
    """Embed n captions by a fitted ranker."""
    texts = [f"a {row % 97} near a {row % 89} under the {row % 83}" for row in range(n_rows)]
    X = np.random.default_rng(0).normal(size=(100, WIDTH)).astype(np.float32)
    ranker = JointEmbeddingRanker(n_components=WIDTH, max_epochs=1).fit(X, texts[:100])
    return lambda: ranker.transform_text(texts)


def training(n_rows):
    """Fit a ranker to n rows of features, one epoch."""
    X = np.random.default_rng(0).normal(size=(n_rows, WIDTH)).astype(np.float32)
    texts = [f"a {row % 97} near a {row % 89} under the {row % 83}" for row in range(n_rows)]
    ranker = JointEmbeddingRanker(n_components=WIDTH, max_epochs=1, hubness=None)
    return lambda: ranker.fit(X, texts) and None


def gallery(n_rows):
    """Find the ten nearest of n vectors for 200 queries."""
    rng = np.random.default_rng(0)
    index = ExactIndex().add(rng.normal(size=(n_rows, WIDTH)).astype(np.float32))
    query = rng.normal(size=(200, WIDTH)).astype(np.float32)
    return lambda: index.search(query, 10)


def report(n_rows):
    """Rank n captions against 200 pictures, both ways."""
    rng = np.random.default_rng(0)
    image = rng.normal(size=(SMALLEST, WIDTH)).astype(np.float32)
    text, owner = rng.normal(size=(n_rows, WIDTH)).astype(np.float32), np.arange(n_rows) % SMALLEST
    return lambda: retrieval_report(image, text, owner) and None


STEPS = {step.__name__: step for step in (pictures, captions, training, gallery, report)}
AT_FIRST = {"pictures": 400, "captions": 20_000, "training": 5_000, "gallery": 50_000, "report": 5_000}  # rows


def peak_beyond_answer(step, n_rows, queue):
    """Put what a step takes at its peak, beyond what was there before and its answer, in bytes."""
    run = step(n_rows)
    step(SMALLEST)()  # libraries loaded on first use are not its memory
    before, most, done = resident(), [0], threading.Event()

    def watch():
        while not done.wait(0.005):
            most[0] = max(most[0], resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    answer = run()
    done.set()
    watcher.join()
    parts = answer if isinstance(answer, tuple) else (answer,)
    queue.put(max(0, most[0] - before - sum(part.nbytes for part in parts if part is not None)))


def resident():
    """Return how much memory the process holds, in bytes."""
    file = Path("/proc/self/statm")
    if file.exists():
        return int(file.read_text().split()[1]) * resource.getpagesize()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # elsewhere only its peak is known
    return peak if sys.platform == "darwin" else peak * 1024


def memory(step, n_rows):
    """Return `peak_beyond_answer` of a process of its own."""
    context = multiprocessing.get_context("forkserver")  # one of them imports what all need
    context.set_forkserver_preload(["sklearn_mm.features", "sklearn_mm.retrieval"])
    queue = context.Queue()
    process = context.Process(target=peak_beyond_answer, args=(step, n_rows, queue))
    process.start()
    taken = queue.get(timeout=600)
    process.join()
    return taken


def draw(records, file):
    """Draw the seconds per row of each step against its rows."""
    from matplotlib.figure import Figure

    axes = Figure(figsize=(6, 4), layout="constrained").subplots()
    for record in records:
        n_rows = record["facts"]["n_rows"]
        seconds = [row["median_s"] for row in record["results"].values()]
        each = np.divide(seconds, n_rows)
        axes.plot(np.divide(n_rows, n_rows[0]), each / each[0], marker="o", label=record["title"])
    axes.axhspan(1 / MOST_OVER_LINEAR, MOST_OVER_LINEAR, alpha=0.15, color="grey")
    axes.set(xscale="log", xlabel="rows, times the smallest number", ylabel="seconds a row, times those at first")
    axes.set_xticks(GROWTH, [str(times) for times in GROWTH])
    axes.set_ylim(bottom=0)
    axes.legend()
    axes.figure.savefig(file)


def main():
    parser = bench.parser(__doc__)
    parser.add_argument("--plot", type=Path, help="a file to draw the seconds per row to (SVG, PNG, ...)")
    parser.add_argument("--share", type=float, default=1.0, help="of the rows, to try the script quickly")
    parser.add_argument("--steps", nargs="+", default=list(STEPS), choices=list(STEPS))
    options = parser.parse_args()
    records = []
    for name in options.steps:
        step = STEPS[name]
        n_rows = [round(AT_FIRST[name] * times * options.share) for times in GROWTH]
        runs = {f"{n} rows": step(n) for n in n_rows}
        seconds = bench.interleave(runs, options.turns)
        names = list(runs)
        turns = zip(seconds[names[-1]], seconds[names[0]], strict=True)
        over = statistics.median(long / short for long, short in turns) / (n_rows[-1] / n_rows[0])
        beyond = [round(memory(step, n) / MIB, 1) for n in n_rows]
        facts = {"n_rows": n_rows, "time_over_linear": round(over, 3), "mib_beyond_answer": beyond}
        facts["met"] = over <= MOST_OVER_LINEAR
        records.append(bench.report(name, seconds, against=names[0], **facts))
    if options.plot:
        draw(records, options.plot)
    bench.save(records, options.out)


if __name__ == "__main__":
    start = time.perf_counter()
    main()
    print(f"{time.perf_counter() - start:.0f} s in all")
