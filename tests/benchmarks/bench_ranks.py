"""Exact ranks against the bare product of the same embeddings, with all threads and with one.

Embeddings are drawn as a model leaves them that knows something (most images find a caption of theirs early), and
as one that knows nothing, for which most scores lie near the positive's: the worst case for exactness. The product is
that of numpy in blocks into memory that is there already, as fast as it gets.

    python tests/benchmarks/bench_ranks.py --images 5000 --texts 25000 --components 1024 --out ranks.json
"""

from functools import partial
from pathlib import Path

import bench
import numpy as np

from sklearn_mm.metrics import retrieval_ranks, retrieval_report

BLOCK = 512  # rows of the bare product at a time


def unit_rows(array):
    return array / np.linalg.norm(array, axis=1, keepdims=True)


def embeddings(n_images, n_texts, n_components, knowledge, rng):
    images = unit_rows(rng.standard_normal((n_images, n_components), dtype=np.float32))
    owner = np.arange(n_texts) * n_images // n_texts
    noise = unit_rows(rng.standard_normal((n_texts, n_components), dtype=np.float32))
    return images, unit_rows(knowledge * images[owner] + noise), owner


def bare_product(rows, columns, buffer):
    for start in range(0, len(rows), BLOCK):
        block = rows[start : start + BLOCK]
        np.matmul(block, columns.T, out=buffer[: len(block)])


def sorted_ranks(images, texts, owner):
    """The usual loop: sort all scores of each query."""
    for i, image in enumerate(images):
        np.argmax(owner[np.argsort(-(texts @ image))] == i)


def peak_mib(run):
    """Return by how much the peak of memory rises over what the process holds now; None where it is not told."""
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not (status.exists() and reset.exists()):
        return None

    def read(field):
        line = next(line for line in status.read_text().splitlines() if line.startswith(field))
        return int(line.split()[1]) / 1024

    reset.write_text("5")  # the peak is from here on
    before = read("VmRSS")
    run()
    return round(read("VmHWM") - before, 1)


def main():
    parser = bench.parser(__doc__)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--texts", type=int, default=25_000)
    parser.add_argument("--components", type=int, default=1024)
    parser.add_argument("--knowledge", type=float, nargs="+", default=[0.15, 0.0], help="0 knows nothing")
    parser.add_argument("--only-report", action="store_true", help="time neither one direction alone nor recall")
    parser.add_argument("--sort", action="store_true", help="time the loop with a sort per query too")
    options = parser.parse_args()
    records = []
    for knowledge in options.knowledge:
        images, texts, owner = embeddings(
            options.images, options.texts, options.components, knowledge, np.random.default_rng(0)
        )
        pairs = (images, texts, owner)
        buffer = np.empty((BLOCK, len(texts)), dtype=np.float32)
        runs = {
            "product": partial(bare_product, images, texts, buffer),
            "retrieval_report": partial(retrieval_report, *pairs),
            "retrieval_report, recall": partial(retrieval_report, *pairs, definition="recall"),
            "retrieval_ranks, image to text": partial(retrieval_ranks, *pairs, direction="i2t"),
            "retrieval_ranks, text to image": partial(retrieval_ranks, *pairs, direction="t2i"),
        }
        if options.only_report:
            runs = {name: runs[name] for name in ("product", "retrieval_report")}
        if options.sort:
            runs["a sort per query, image to text"] = partial(sorted_ranks, *pairs)
        for n_threads in bench.thread_counts():
            with bench.threads(n_threads):
                peak = peak_mib(runs["retrieval_report"])
                seconds = bench.interleave(runs, options.turns)
                records.append(
                    bench.report(
                        f"Ranks of {options.images} x {options.texts} x {options.components}, embeddings that know "
                        + ("something" if knowledge else "nothing"),
                        seconds,
                        against="product",
                        targets={"retrieval_report": ("<=", 1.2)},
                        hit_at_1=retrieval_report(*pairs)["i2t_hit@1"],
                        mib_beyond_inputs=peak,
                    )
                )
    bench.save(records, options.out)


if __name__ == "__main__":
    main()
