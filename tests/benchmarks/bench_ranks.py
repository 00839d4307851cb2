"""Exact ranks and exact search against the bare product of the same embeddings.

Embeddings are drawn as a model leaves them that knows something (most images find a caption of theirs early), and
as one that knows nothing, for which most scores lie near the positive's: the worst case for exactness. The product
and what is compared with it take turns, so that whatever else the machine does falls on both; medians over the
turns are reported.

    python tests/benchmarks/bench_ranks.py --images 5000 --texts 25000 --components 1024
"""

import argparse
import statistics
import time
from functools import partial

import numpy as np

from sklearn_mm.index import ExactIndex
from sklearn_mm.metrics import retrieval_ranks, retrieval_report

BLOCK = 512  # rows of the bare product at a time


def unit_rows(array):
    return array / np.linalg.norm(array, axis=1, keepdims=True)


def embeddings(n_images, n_texts, n_components, knowledge, rng):
    images = unit_rows(rng.standard_normal((n_images, n_components), dtype=np.float32))
    owner = np.arange(n_texts) * n_images // n_texts
    noise = unit_rows(rng.standard_normal((n_texts, n_components), dtype=np.float32))
    return images, unit_rows(knowledge * images[owner] + noise), owner


def bare_product(rows, columns):
    for start in range(0, len(rows), BLOCK):
        np.matmul(rows[start : start + BLOCK], columns.T)


def sorted_ranks(images, texts, owner):
    """The usual loop: sort all scores of each query."""
    for i, image in enumerate(images):
        np.argmax(owner[np.argsort(-(texts @ image))] == i)


def compare(title, runs, n_turns, clock):
    seconds = {name: [] for name in runs}
    for turn in range(n_turns + 1):
        for name, run in runs.items():
            start = clock()
            run()
            if turn:  # the first one warms up
                seconds[name].append(clock() - start)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    product = medians["product"]
    print(title)
    for name, median in medians.items():
        ratios = [one / bare for one, bare in zip(seconds[name], seconds["product"], strict=True)]
        print(
            f"  {name:34s} {median:7.2f} s   {median / product:5.2f} times the product "
            f"(per turn {min(ratios):.2f} to {max(ratios):.2f})"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--texts", type=int, default=25_000)
    parser.add_argument("--components", type=int, default=1024)
    parser.add_argument("--queries", type=int, default=1000, help="of the search")
    parser.add_argument("--items", type=int, default=200_000, help="of the search")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--sort", action="store_true", help="time the loop with a sort per query too")
    parser.add_argument("--cpu-time", action="store_true", help="count processor seconds, of all threads together")
    args = parser.parse_args()
    clock = time.process_time if args.cpu_time else time.perf_counter

    rng = np.random.default_rng(0)
    for knowledge in (0.15, 0.0):
        images, texts, owner = embeddings(args.images, args.texts, args.components, knowledge, rng)
        hit = retrieval_report(images, texts, owner)["i2t_hit@1"]
        pairs = (images, texts, owner)
        runs = {
            "product": partial(bare_product, images, texts),
            "retrieval_ranks, image to text": partial(retrieval_ranks, *pairs),
            "retrieval_ranks, text to image": partial(retrieval_ranks, *pairs, direction="t2i"),
            "retrieval_report, both ways, hit": partial(retrieval_report, *pairs),
            "the same, recall": partial(retrieval_report, *pairs, definition="recall"),
        }
        if args.sort:
            runs["a sort per query, image to text"] = partial(sorted_ranks, *pairs)
        compare(f"{args.images} x {args.texts} x {args.components}, hit@1 {hit:.3f}", runs, args.turns, clock)

    items, queries, _ = embeddings(args.items, args.queries, 256, 0.3, rng)
    index = ExactIndex().add(items)
    runs = {
        "product": partial(bare_product, queries, items),
        "ExactIndex.search, k=10": partial(index.search, queries, 10),
        "ExactIndex.search, k=100": partial(index.search, queries, 100),
    }
    compare(f"{args.queries} queries in {args.items} x 256", runs, args.turns, clock)


if __name__ == "__main__":
    main()
