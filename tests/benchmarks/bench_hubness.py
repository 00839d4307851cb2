"""Searches with what is near every query taken off, against the same searches by plain scores.

Both galleries hold the same items, and take turns, with all threads and with one. Ratios of the turns and their median
are printed; what it costs to know what is taken off, once for a gallery, stands beside it.

    python tests/benchmarks/bench_hubness.py --items 100000 --components 256 1024
"""

import argparse
import statistics
import time

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from sklearn_mm.retrieval import NearestNeighborNormalization
from sklearn_mm.retrieval._gallery import Gallery


def unit_rows(rng, n_rows, n_components):
    rows = rng.standard_normal((n_rows, n_components), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def seconds_of(gallery, query):
    start = time.perf_counter()
    gallery.search(query, 10, query_is_image=False)
    return time.perf_counter() - start


def compare(n_items, n_queries, n_components, n_turns):
    rng = np.random.default_rng(0)
    items, query = unit_rows(rng, n_items, n_components), unit_rows(rng, n_queries, n_components)
    hubness = NearestNeighborNormalization().fit(unit_rows(rng, 4096, n_components), unit_rows(rng, 4096, n_components))
    plain, corrected = Gallery(items, "cosine"), Gallery(items, "cosine", hubness=hubness, holds_images=True)
    start = time.perf_counter()
    offsets = corrected._offsets
    print(
        f"{n_items} items of {n_components}: {time.perf_counter() - start:.1f} s to know {len(offsets)} numbers, once"
    )
    for gallery in (plain, corrected):
        seconds_of(gallery, query)  # makes the index
    ratios = []
    for turn in range(n_turns):
        # Who goes first takes turns too.
        pair = (plain, corrected) if turn % 2 else (corrected, plain)
        seconds = {id(gallery): seconds_of(gallery, query) for gallery in pair}
        ratios.append(seconds[id(corrected)] / seconds[id(plain)])
    print(
        f"  {n_queries} queries: {statistics.median(ratios):.3f} times the plain search "
        f"(per turn {min(ratios):.3f} to {max(ratios):.3f})"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--components", type=int, nargs="+", default=[256, 1024])
    parser.add_argument("--turns", type=int, default=9)
    args = parser.parse_args()
    for n_threads in (torch.get_num_threads(), 1):
        print(f"{n_threads} threads")
        with threadpool_limits(n_threads):
            for n_components in args.components:
                compare(args.items, args.queries, n_components, args.turns)


if __name__ == "__main__":
    main()
