"""Exact search against faiss' `IndexFlatIP`, with all threads and with one: many queries, sixteen, and one.

Both search the same float32 unit vectors, and neighbours are compared: faiss takes the order of scores that differ
by its own rounding, so that a neighbour it has and we have not must score as the last of ours does, in float64.

    python tests/benchmarks/bench_index.py --items 1000000 --queries 1000 --components 256 --out index.json
"""

from functools import partial

import bench
import numpy as np

from sklearn_mm.index import ExactIndex, _scan

BLOCK = 4096  # items of the bare product at a time
ROUNDING = 1e-5  # of sums of products in float32, between unit vectors


def unit_rows(rng, n_rows, n_components):
    rows = rng.standard_normal((n_rows, n_components), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def bare_product(queries, items, buffer):
    for start in range(0, len(items), BLOCK):
        block = items[start : start + BLOCK]
        np.matmul(queries, block.T, out=buffer[:, : len(block)] if len(block) == BLOCK else None)


def without_bfloat16(index, queries, k):
    """Search as on a processor that has no bfloat16."""
    has = _scan._has_bfloat16
    _scan._has_bfloat16 = lambda: False
    try:
        return index.search(queries, k)
    finally:
        _scan._has_bfloat16 = has


def n_differing(items, queries, ours, theirs):
    """Count neighbours of faiss that are not among ours, though they score higher than the last of ours."""
    differing = 0
    for query, mine, other in zip(queries.astype(np.float64), ours, theirs, strict=True):
        missed = np.setdiff1d(other, mine)
        differing += np.count_nonzero(items[missed] @ query > (items[mine] @ query).min() + ROUNDING)
    return differing


def main():
    parser = bench.parser(__doc__)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, nargs="+", default=[1000, 16, 1])
    parser.add_argument("--components", type=int, default=256)
    parser.add_argument("-k", type=int, default=10)
    parser.add_argument("--dtypes", nargs="*", default=[], help="float16, int8: other indexes to time beside")
    options = parser.parse_args()
    import faiss

    rng = np.random.default_rng(0)
    items = unit_rows(rng, options.items, options.components)
    flat = faiss.IndexFlatIP(options.components)
    flat.add(items)
    index = ExactIndex().add(items, copy=False)
    others = {}
    for dtype in options.dtypes:
        vectors = np.sign(items).astype(np.int8) if dtype == "int8" else items
        others[dtype] = ExactIndex(dtype=dtype).add(vectors)
    records = []
    for n_threads in bench.thread_counts():
        for n_queries in options.queries:
            queries = unit_rows(rng, n_queries, options.components)
            buffer = np.empty((n_queries, BLOCK), dtype=np.float32)
            runs = {
                "faiss": partial(flat.search, queries, options.k),
                "product": partial(bare_product, queries, items, buffer),
                "ExactIndex": partial(index.search, queries, options.k),
                "ExactIndex, float32 product": partial(without_bfloat16, index, queries, options.k),
            }
            runs |= {
                f"ExactIndex, {dtype}": partial(other.search, queries, options.k) for dtype, other in others.items()
            }
            fast = _scan._has_bfloat16() and n_queries >= 100
            targets = {
                "ExactIndex": (">=", 1.3 if fast else 1.0),
                "ExactIndex, float32 product": (">=", 1.0),
            }
            with bench.threads(n_threads):
                faiss.omp_set_num_threads(n_threads)
                seconds = bench.interleave(runs, options.turns)
                ours, theirs = index.search(queries, options.k)[1], flat.search(queries, options.k)[1]
                same = bool((ours == without_bfloat16(index, queries, options.k)[1]).all())
                records.append(
                    bench.report(
                        f"Top {options.k} of {n_queries} queries in {options.items} x {options.components}",
                        seconds,
                        against="faiss",
                        targets=targets,
                        compare="rate",
                        n_neighbours_missed=int(n_differing(items, queries, ours, theirs)),
                        n_places_that_differ=int((ours != theirs).sum()),
                        same_with_bfloat16=same,
                    )
                )
    bench.save(records, options.out)


if __name__ == "__main__":
    main()
