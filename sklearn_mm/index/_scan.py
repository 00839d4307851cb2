"""The scan of an exact search: a fast product of queries and items picks candidates, which are scored again in float64.

Every fast score is off by a bound that is known. What it could have kept out of the best is a candidate too, so that
the answer does not depend on which product picked it, nor on blocks, threads or the BLAS. Threads take blocks, one by
one, and share the best found so far: what no longer can be among them is left out by one comparison.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from threading import Lock
from typing import Any

import numpy as np

from sklearn_mm._threads import in_threads

__all__ = ["Best", "Items", "as_torch", "exact_scores", "lengths_of", "scan"]

_N_QUERY = 512  # queries and items in a block of scores: 4 MB of float32
_N_ITEMS = 2048
_N_SCORES = 2**20  # with few queries a block has more items
_MOST_ITEMS = 2**14
_TILE = 2**18  # scores that are compared while they are in a core's own cache
_DENSE = 1 / 32  # above this share of candidates a tile is thinned out before they are scored again
_ROWS_AT_ONCE = 64  # float64 copies of that many vectors stay in the cache
_WORTH_A_THREAD = 10**7  # multiplications; fewer take less time than a thread takes to start
_WORTH_BFLOAT16 = 16  # queries; with fewer, reading the items is what takes the time
_WORTH_ROWS = 64  # queries; with so many, rows of their scores with one item are long enough to be compared at once
_UNIT_ROUNDOFF = float(np.finfo(np.float32).eps) / 2
_BFLOAT16_ROUNDOFF = 2.0**-8
_TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Items:
    """Vectors that are searched.

    Attributes
    ----------
    parts : sequence of ndarray of shape (n, n_components), float32, float16 or int8
    longest : float
        The length of the longest.
    rows : ndarray of shape (n_rows,), int64, or None
        The places of those that are searched, ascending, each once; None is all.
    """

    parts: Any
    longest: float
    rows: np.ndarray | None = None

    def blocks(self, size: int) -> list[tuple[Any, int, Any]]:
        """Return part, place of its first vector, and which vectors of it (a slice or places), block by block."""
        found: list[tuple[Any, int, Any]] = []
        first = 0
        for part in self.parts:
            if self.rows is None:
                found += [
                    (part, first, slice(start, min(start + size, len(part)))) for start in range(0, len(part), size)
                ]
            else:
                low, high = np.searchsorted(self.rows, [first, first + len(part)])
                places = self.rows[low:high] - first
                found += [(part, first, places[start : start + size]) for start in range(0, len(places), size)]
            first += len(part)
        return found


class Best:
    """The k best items seen so far of each query, best first; several threads bring theirs."""

    def __init__(self, n_query: int, k: int):
        self.scores = np.full((n_query, k), -np.inf, dtype=np.float32)
        self.indices = np.full((n_query, k), np.iinfo(np.int64).max, dtype=np.int64)
        self._lock = Lock()

    def merge(self, query: np.ndarray, index: np.ndarray, score: np.ndarray) -> None:
        """Take in candidates (n,): queries, indices and scores, in any order."""
        # Most are below what was found since: sorting them costs more than to leave them out.
        gains = score >= self.scores[query, -1]
        query, index, score = query[gains], index[gains], score[gains]
        if not query.size:
            return
        k = self.scores.shape[1]
        rows, row = np.unique(query, return_inverse=True)
        row = np.concatenate([np.repeat(np.arange(len(rows)), k), row])
        with self._lock:
            index = np.concatenate([self.indices[rows].ravel(), index])
            score = np.concatenate([self.scores[rows].ravel(), score])
            # the last key counts most: by query, then falling score, then place
            order = np.lexsort((index, -score, row))
            start = np.searchsorted(row[order], np.arange(len(rows)))
            taken = order[start[:, None] + np.arange(k)]  # (n_rows, k)
            self.scores[rows], self.indices[rows] = score[taken], index[taken]


def scan(items: Items, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the k best items of each query (n_query, d): scores (float32) and places (int64), each (n_query, k)."""
    n_query = min(len(queries), _N_QUERY)
    n_items = min(max(_N_SCORES // n_query, _N_ITEMS), _MOST_ITEMS)
    blocks = items.blocks(n_items)
    n_all = sum(len(part) for part in items.parts) if items.rows is None else len(items.rows)
    n_most = n_all * queries.size // _WORTH_A_THREAD
    with_torch = n_most > 0  # a small search does not wait for its import
    in_bfloat16 = with_torch and len(queries) >= _WORTH_BFLOAT16 and _has_bfloat16()
    tasks = []
    best = []
    for start in range(0, len(queries), n_query):
        block = _Queries(queries[start : start + n_query], items.longest, k, in_bfloat16)
        best.append(block.best)
        tasks += [(block, *each) for each in blocks]

    def search(tasks: Iterator[tuple["_Queries", np.ndarray, int, Any]]) -> None:
        thread = _Thread(n_query, n_items, queries.shape[1], with_torch)
        with _one_torch_thread() if with_torch else nullcontext():
            for block, part, first, places in tasks:
                vectors = part[places]
                query, item = thread.candidates(block, vectors)
                if not query.size:  # as of most blocks once the first are through
                    continue
                index = item + (first + places.start) if isinstance(places, slice) else places[item] + first
                block.best.merge(query, index, exact_scores(block.vectors, vectors, query, item))

    in_threads(search, tasks, n_most)
    return np.concatenate([each.scores for each in best]), np.concatenate([each.indices for each in best])


class _Queries:
    """A block of queries, how far its fast scores may be off, and the best items so far.

    `error` is of the float32 product and `bfloat16_error` of the other, (n_query,) each.
    """

    def __init__(self, vectors: np.ndarray, longest: float, k: int, in_bfloat16: bool):
        self.vectors, self.k = vectors, k
        self.best = Best(len(vectors), k)
        d = vectors.shape[1]
        # A float32 sum of d products is off by at most d units of roundoff of the product of the lengths.
        self.error = (d + 8) * _UNIT_ROUNDOFF * longest * lengths_of(vectors)
        self.bfloat16 = None
        if in_bfloat16:
            import torch

            self.bfloat16 = as_torch(vectors).to(torch.bfloat16)
            rounded = self.bfloat16.float().numpy()
            # By Cauchy and Schwarz: what the queries lose, then what items do at most. Numbers below the normal ones
            # may count as 0.
            self.bfloat16_error = longest * lengths_of(rounded - vectors) + 1.01 * lengths_of(rounded) * longest * (
                _BFLOAT16_ROUNDOFF + (d + 8) * _UNIT_ROUNDOFF
            )
            self.bfloat16_error += d * _TINY * (longest + lengths_of(vectors))


class _Thread:
    """The buffers of a thread, and the products in them."""

    def __init__(self, n_query: int, n_items: int, d: int, with_torch: bool):
        self._shape, self._with_torch = (n_query, n_items, d), with_torch
        self._buffers: dict[Any, Any] = {}

    def _buffer(self, kind: str, n: int, width: int) -> Any:
        """Return memory of shape (n, width) that is there already: new pages cost as much as to compare scores."""
        if kind not in self._buffers:
            n_query, n_items, d = self._shape
            size = n_items * d if kind.startswith("items") else n_query * n_items
            if kind == "marks":
                size = min(size, max(_TILE, n_query))  # of a tile
            if kind.endswith("bfloat16"):
                import torch

                self._buffers[kind] = torch.empty(size, dtype=torch.bfloat16)
            else:
                self._buffers[kind] = np.empty(size, dtype=bool if kind == "marks" else np.float32)
        return self._buffers[kind][: n * width].reshape(n, width)

    def candidates(self, queries: _Queries, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (query, item) pairs that may belong to the best, and few more."""
        if queries.bfloat16 is not None and len(items) > 1:
            found = self._by_bfloat16(queries, items)
            if found is not None:
                return found
        return self._by_float32(queries, items)

    def _by_bfloat16(self, queries: _Queries, items: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """Return such pairs, or None where bfloat16 tells too few scores apart, or nothing is known to compare with."""
        import torch

        assert queries.bfloat16 is not None
        lowest = queries.best.scores[:, -1] - queries.bfloat16_error  # (n_query,) float64
        if not (lowest > _TINY).all():
            return None
        # Positive numbers of bfloat16 are in the order of their bits as integers, and above those with a sign. Without
        # its last 16 bits a number is rounded down; the product rounds as the scores would be, which keeps their order.
        bits = np.nextafter(lowest.astype(np.float32), np.float32(0)).view(np.int32) >> 16
        bits = bits.astype(np.int16)[:, None]
        rounded = self._buffer("items in bfloat16", *items.shape)
        rounded.copy_(as_torch(items))
        scores = self._buffer("scores in bfloat16", len(queries.vectors), len(items))
        torch.mm(queries.bfloat16, rounded.T, out=scores)
        found = []
        for rows, tile in _tiles(scores.view(torch.int16).numpy(), 2 * _TILE):
            candidate = tile >= bits[rows]
            number = np.count_nonzero(candidate)
            if number > _DENSE * candidate.size:
                return None
            if number:
                query, item = np.divmod(np.flatnonzero(candidate), len(items))
                found.append((query + rows.start, item))
        return _joined(found)

    def _by_float32(self, queries: _Queries, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        vectors = items
        if items.dtype != np.float32:
            vectors = self._buffer("items", *items.shape)
            if self._with_torch and items.dtype == np.float16:
                as_torch(vectors).copy_(as_torch(items))  # numpy takes four times as long
            else:
                vectors[...] = items
        if len(queries.vectors) >= _WORTH_ROWS and len(items) > 1:
            settled = self._by_rows(queries, vectors)
            if settled is not None:
                return settled
        scores = np.matmul(
            queries.vectors, vectors.T, out=self._buffer("scores", len(queries.vectors), len(items))
        )  # (n_query, n_items)
        found = []
        for rows, tile in _tiles(scores, _TILE):
            found.append(_candidates(queries, vectors, tile, rows, self._with_torch))
        return _joined(found)

    def _by_rows(self, queries: _Queries, items: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """Return such pairs, or None where nothing is known to compare with, or too many are candidates.

        Items come first in these scores: a row is compared with the row of what the queries have found, which takes
        half the time of as many rows with a number each.
        """
        lowest = _lowest(queries, slice(None))
        if not (lowest > -np.inf).all():
            return None
        scores = self._buffer("scores", len(items), len(queries.vectors))
        np.matmul(items, queries.vectors.T, out=scores)
        found = []
        for rows, tile in _tiles(scores, _TILE):
            candidate = np.greater_equal(tile, lowest, out=self._buffer("marks", *tile.shape))
            at = np.flatnonzero(candidate)
            if len(at) > _DENSE * candidate.size:
                return None
            item, query = np.divmod(at, len(lowest))
            found.append((query, item + rows.start))
        return _joined(found)


def _lowest(queries: _Queries, rows: slice) -> np.ndarray:
    """Return what a float32 score has to reach to belong to the best, float32."""
    # items that float32 puts below the worst by less than its rounding may belong above it
    lowest: np.ndarray = queries.best.scores[rows, -1] - queries.error[rows]
    return np.nextafter(lowest.astype(np.float32), np.float32(-np.inf))


def _tiles(scores: np.ndarray, size: int) -> Iterator[tuple[slice, np.ndarray]]:
    n_rows = max(size // scores.shape[1], 1)
    for start in range(0, len(scores), n_rows):
        rows = slice(start, min(start + n_rows, len(scores)))
        yield rows, scores[rows]


def _joined(found: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    if not found:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    return np.concatenate([query for query, _ in found]), np.concatenate([item for _, item in found])


def _candidates(
    queries: _Queries, items: np.ndarray, scores: np.ndarray, rows: slice, with_torch: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return the candidates of some rows of queries, by their float32 scores (n_rows, n_items)."""
    error = queries.error[rows]
    lowest = _lowest(queries, rows)
    if with_torch:
        # Later blocks hold something for few queries, and maxima cost a third of the comparisons.
        hopeful = np.flatnonzero(as_torch(scores).amax(1).numpy() >= lowest)
        if not len(hopeful):
            return hopeful, hopeful
        if len(hopeful) <= len(scores) // 4:
            query, item = np.nonzero(scores[hopeful] >= lowest[hopeful, None])
            return hopeful[query] + rows.start, item
    candidate = scores >= lowest[:, None]
    if np.count_nonzero(candidate) > _DENSE * candidate.size and queries.k < len(items):
        # The first block, or items that get ever better: only the k best of the block itself can count.
        kth = np.partition(scores, len(items) - queries.k, axis=1)[:, -queries.k]
        # twice: the k-th score may be off by it as well
        candidate &= scores >= (kth - 2 * error)[:, None]
        if np.count_nonzero(candidate) > _DENSE * candidate.size:
            return _candidates_among_equals(queries, items, rows)
    # eight times as fast as np.nonzero of two dimensions, where few are candidates
    query, item = np.divmod(np.flatnonzero(candidate), len(items))
    return query + rows.start, item


def _candidates_among_equals(queries: _Queries, items: np.ndarray, rows: slice) -> tuple[np.ndarray, np.ndarray]:
    """Return such pairs where float32 cannot tell most scores apart."""
    scores = (queries.vectors[rows].astype(np.float64) @ items.astype(np.float64).T).astype(np.float32)
    item = np.argsort(-scores, axis=1, kind="stable")[:, : queries.k]  # the lower index first among equals
    # Also those that are as good as the worst: another thread may have been here before with items of higher index.
    # By a margin, since a product does not give equal vectors equal scores.
    lowest = queries.best.scores[rows, -1].astype(np.float64) - queries.error[rows]
    beats = np.take_along_axis(scores, item, axis=1) >= lowest[:, None]
    return np.nonzero(beats)[0] + rows.start, item[beats]


def exact_scores(queries: np.ndarray, items: np.ndarray, query: np.ndarray, item: np.ndarray) -> np.ndarray:
    """Return inner products (n,) of pairs, alike for equal vectors in any place."""
    scores = np.empty(len(query), dtype=np.float32)
    for start in range(0, len(query), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        # pair by pair: a matrix product may add one pair's terms in another order in another place of the block
        scores[part] = np.einsum(
            "ij,ij->i", queries[query[part]].astype(np.float64), items[item[part]].astype(np.float64)
        )
    return scores


def lengths_of(vectors: np.ndarray) -> np.ndarray:
    """Return the lengths (n,) of vectors, in float64."""
    lengths = np.empty(len(vectors))
    for start in range(0, len(vectors), _ROWS_AT_ONCE):
        part = vectors[start : start + _ROWS_AT_ONCE].astype(np.float64)
        lengths[start : start + _ROWS_AT_ONCE] = np.sqrt(np.einsum("ij,ij->i", part, part))
    return lengths


@cache
def _has_bfloat16() -> bool:
    """Return whether this processor multiplies bfloat16 natively; elsewhere it is slower than float32."""
    try:
        import torch
    except ImportError:  # numpy alone does
        return False
    return bool(torch.cpu._is_avx512_bf16_supported())


def _one_torch_thread() -> Any:
    from sklearn_mm._device import torch_threads

    return torch_threads(1)


def as_torch(array: np.ndarray) -> Any:
    """Share an array with torch without a copy, a memory map that cannot be written to as well: it is only read."""
    from sklearn_mm._device import shared

    return shared(array)
