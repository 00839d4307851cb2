"""Exact search by the largest inner product, in numpy, block by block."""

from typing import Any

import numpy as np

from sklearn_mm._checks import check_k
from sklearn_mm.index._vectors import check_vectors
from sklearn_mm.registry import stored_as

__all__ = ["ExactIndex"]

_N_QUERY = 512  # queries and items in a block of scores: 8 MB of float32, which stays in the cache
_N_ITEMS = 4096
_DENSE = 1 / 32  # above this share of candidates a block is thinned out before they are scored again
_ROWS_AT_ONCE = 256  # float64 copies of that many vectors stay in the cache
_UNIT_ROUNDOFF = float(np.finfo(np.float32).eps) / 2


@stored_as("index.ExactIndex")
class ExactIndex:
    """Find the items of largest inner product by comparing with every one of them.

    Vectors are taken as they are: of unit length, the inner product is the cosine.

    Attributes
    ----------
    n_components : int or None
        Length of the vectors; None before the first are added.

    See Also
    --------
    FaissIndex : The same interface over any index of faiss.

    Notes
    -----
    Time is that of the product of queries and items, plus about a fifth; memory beyond the items, which are
    copied, is a block of scores (some 20 MB). The float32 product only picks candidates: whatever its
    rounding could have kept out of the first k is scored again in float64. The answer does not depend on
    blocks, threads or the BLAS.

    Any number of threads may search at the same time; `add` takes an index that no other thread uses.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_mm.index import ExactIndex
    >>> index = ExactIndex().add(np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]))
    >>> scores, indices = index.search(np.array([[0.0, 2.0]]), k=2)
    >>> indices
    array([[1, 2]])
    >>> scores
    array([[2. , 1.6]], dtype=float32)
    """

    def __init__(self) -> None:
        self._parts: list[np.ndarray] = []
        self._longest = 0.0

    def __len__(self) -> int:
        return sum(len(part) for part in self._parts)

    @property
    def n_components(self) -> int | None:
        """Length of the vectors; None before the first are added."""
        return self._parts[0].shape[1] if self._parts else None

    def add(self, X: Any, *, copy: bool = True) -> "ExactIndex":
        """Add items after those that are there.

        Parameters
        ----------
        X : array-like of shape (n, n_components)
            Vectors; kept as float32.
        copy : bool, default=True
            False keeps X itself where it is of that dtype: then it must not be changed any more.

        Returns
        -------
        ExactIndex
            The index itself.

        Raises
        ------
        ValueError
            X is empty, of another width than what is there, or holds NaN or infinity.
        """
        part = check_vectors(X, "X", self.n_components)
        # already a copy where the dtype or the layout had to change
        self._parts.append(part.copy() if copy and np.may_share_memory(part, X) else part)
        self._longest = max(self._longest, float(_lengths(part).max()))
        return self

    def search(self, Q: Any, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Find the k items of largest inner product with each query.

        Parameters
        ----------
        Q : array-like of shape (n_query, n_components)
            Queries.
        k : int
            How many items to find, at most as many as there are.

        Returns
        -------
        scores : ndarray of shape (n_query, k), float32
            Inner products, largest first.
        indices : ndarray of shape (n_query, k), int64
            Places of the items in the order in which they were added; among equal scores the lower first.

        Raises
        ------
        ValueError
            k is no int between 1 and the number of items, or Q is of another width than the items or holds
            NaN or infinity.
        """
        k = check_k(k, len(self))
        queries = check_vectors(Q, "Q", self.n_components)
        scores = np.empty((len(queries), k), dtype=np.float32)
        indices = np.empty((len(queries), k), dtype=np.int64)
        for start in range(0, len(queries), _N_QUERY):
            rows = slice(start, start + _N_QUERY)
            scores[rows], indices[rows] = self._search_block(queries[rows], k)
        return scores, indices

    def _search_block(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        best = _Best(len(queries), k)
        # A float32 sum of d products is off by at most d units of roundoff of the product of the lengths.
        error = (queries.shape[1] + 8) * _UNIT_ROUNDOFF * self._longest * _lengths(queries)  # (n_query,)
        first = 0
        for part in self._parts:
            for start in range(0, len(part), _N_ITEMS):
                items = part[start : start + _N_ITEMS]
                query, item = _candidates(queries, items, error, best)
                best.merge(query, item + first, _exact_scores(queries, items, query, item))
                first += len(items)
        return best.scores, best.indices


class _Best:
    """The k best items seen so far of each query, best first."""

    def __init__(self, n_query: int, k: int):
        self.scores = np.full((n_query, k), -np.inf, dtype=np.float32)
        self.indices = np.full((n_query, k), -1, dtype=np.int64)

    @property
    def worst(self) -> np.ndarray:
        """The score (n_query,) that a later item has to exceed."""
        return self.scores[:, -1]

    def merge(self, query: np.ndarray, index: np.ndarray, score: np.ndarray) -> None:
        """Take in candidates (n,): queries in ascending order, indices and scores."""
        if not query.size:
            return
        k = self.scores.shape[1]
        rows, row = np.unique(query, return_inverse=True)
        row = np.concatenate([np.repeat(np.arange(len(rows)), k), row])
        index = np.concatenate([self.indices[rows].ravel(), index])
        score = np.concatenate([self.scores[rows].ravel(), score])
        # the last key counts most: by query, then falling score, then place
        order = np.lexsort((index, -score, row))
        start = np.searchsorted(row[order], np.arange(len(rows)))
        taken = order[start[:, None] + np.arange(k)]  # (n_rows, k)
        self.scores[rows], self.indices[rows] = score[taken], index[taken]


def _candidates(
    queries: np.ndarray, items: np.ndarray, error: np.ndarray, best: _Best
) -> tuple[np.ndarray, np.ndarray]:
    """Return the (query, item) pairs that may belong to the best, and few more."""
    scores = queries @ items.T  # (n_query, n_items)
    k = best.scores.shape[1]
    # items that float32 puts below the worst by less than its rounding may belong above it
    candidate = scores >= (best.worst - error)[:, None]
    if np.count_nonzero(candidate) > _DENSE * candidate.size and k < len(items):
        # The first block, or items that get ever better: only the k best of the block itself can count.
        kth = np.partition(scores, len(items) - k, axis=1)[:, -k]
        # twice: the k-th score may be off by it as well
        candidate &= scores >= (kth - 2 * error)[:, None]
        if np.count_nonzero(candidate) > _DENSE * candidate.size:
            return _candidates_among_equals(queries, items, best)
    # eight times as fast as np.nonzero of two dimensions, where few are candidates
    query, item = np.divmod(np.flatnonzero(candidate), len(items))
    return query, item


def _candidates_among_equals(queries: np.ndarray, items: np.ndarray, best: _Best) -> tuple[np.ndarray, np.ndarray]:
    """Return such pairs where float32 cannot tell most scores apart."""
    scores = (queries.astype(np.float64) @ items.astype(np.float64).T).astype(np.float32)
    k = best.scores.shape[1]
    item = np.argsort(-scores, axis=1, kind="stable")[:, :k]  # the lower index first among equals
    beats = np.take_along_axis(scores, item, axis=1) > best.worst[:, None]
    return np.nonzero(beats)[0], item[beats]


def _exact_scores(queries: np.ndarray, items: np.ndarray, query: np.ndarray, item: np.ndarray) -> np.ndarray:
    """Return inner products (n,) of pairs, alike for equal vectors in any place."""
    scores = np.empty(len(query), dtype=np.float32)
    for start in range(0, len(query), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        # pair by pair: a matrix product may add one pair's terms in another order in another place of the block
        scores[part] = np.einsum(
            "ij,ij->i", queries[query[part]].astype(np.float64), items[item[part]].astype(np.float64)
        )
    return scores


def _lengths(vectors: np.ndarray) -> np.ndarray:
    lengths = np.empty(len(vectors))
    for start in range(0, len(vectors), _ROWS_AT_ONCE):
        part = vectors[start : start + _ROWS_AT_ONCE].astype(np.float64)
        lengths[start : start + _ROWS_AT_ONCE] = np.sqrt(np.einsum("ij,ij->i", part, part))
    return lengths
