"""Searches with what is near every query taken off, against the same searches by plain scores.

Both galleries hold the same items, and take turns, with all threads and with one; what it costs to know what is taken
off, once for a gallery, stands beside it.

    python tests/benchmarks/bench_hubness.py --items 100000 --components 256 1024
"""

import time

import bench
import numpy as np

from sklearn_mm.retrieval import NearestNeighborNormalization
from sklearn_mm.retrieval._gallery import Gallery

MOST = 1.05  # times the plain search


def unit_rows(rng, n_rows, n_components):
    rows = rng.standard_normal((n_rows, n_components), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def compare(n_items, n_queries, n_components, n_turns):
    """Report the two searches."""
    rng = np.random.default_rng(0)
    items, query = unit_rows(rng, n_items, n_components), unit_rows(rng, n_queries, n_components)
    bank = [unit_rows(rng, min(n_items, 4096), n_components) for _ in range(2)]
    corrected = Gallery(items, "cosine", hubness=NearestNeighborNormalization().fit(*bank), holds_images=True)
    start = time.perf_counter()
    _ = corrected._offsets
    facts = {"n_items": n_items, "n_queries": n_queries, "seconds_once": round(time.perf_counter() - start, 2)}
    galleries = {"plain": Gallery(items, "cosine"), "corrected": corrected}
    runs = {
        name: lambda gallery=gallery: gallery.search(query, 10, query_is_image=False)
        for name, gallery in galleries.items()
    }
    title = f"search among vectors of {n_components}, hubs corrected"
    seconds = bench.interleave(runs, n_turns)
    return bench.report(title, seconds, against="plain", targets={"corrected": ("<=", MOST)}, **facts)


def main():
    parser = bench.parser(__doc__)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--components", type=int, nargs="+", default=[256, 1024])
    options = parser.parse_args()
    records = []
    for n_threads in bench.thread_counts():
        with bench.threads(n_threads):
            records += [compare(options.items, options.queries, n, options.turns) for n in options.components]
    bench.save(records, options.out)


if __name__ == "__main__":
    main()
