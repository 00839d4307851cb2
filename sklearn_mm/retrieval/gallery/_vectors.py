"""The vectors of a gallery, and how the nearest of them are found."""

import copy
from pathlib import Path
from typing import Any

import numpy as np

from sklearn_mm.index import ExactIndex, exact_scores
from sklearn_mm.losses import SIMILARITIES
from sklearn_mm.registry import name_of

__all__ = ["Vectors"]

_BLOCK = 8192  # items whose scores are computed at once, where an index has no way to
_QUERY_BLOCK = 256
_EPS = float(np.finfo(np.float32).eps)
_NOTHING = np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32)


class Vectors:
    """Unit vectors, each with what is taken off its score as one component more, where hubs are corrected.

    So a plain inner product is the score: of a query with a 1 behind it, or a 0 where nothing is to be taken off.

    Parameters
    ----------
    similarity : {"cosine", "order", "order-root"}
        Of sentences and pictures. Pictures are compared with each other by their cosine.
    index : ExactIndex, FaissIndex or another with `add` and `search`, or None
        Empty. An `ExactIndex` is what the vectors are kept in, by its `dtype`; another is searched beside them.
    """

    def __init__(self, similarity: str, index: Any) -> None:
        self.similarity = similarity
        self._empty = index
        self.clear()

    def __len__(self) -> int:
        return len(self._exact)

    def clear(self) -> None:
        """Forget all."""
        is_exact = isinstance(self._empty, ExactIndex)
        self._exact = ExactIndex(dtype=self._empty.dtype if is_exact else "float32")
        self._other = None if self._empty is None or is_exact else copy.deepcopy(self._empty)

    @property
    def exact(self) -> ExactIndex:
        """All vectors, as they are kept."""
        return self._exact

    def open(self, exact: ExactIndex, other: Any) -> None:
        """Take over vectors that were saved, and an index beside them, if one was saved with them."""
        self.clear()
        if isinstance(self._empty, ExactIndex) and self._empty.dtype != exact.dtype:
            self._exact.add(exact.take(np.arange(len(exact))), copy=False)
        else:
            self._exact = exact
        if other is not None and (self._empty is None or type(other) is type(self._empty)):
            self._other = other
        elif self._other is not None:
            self._other.add(self.take(np.arange(len(self))))

    def save_other(self, folder: Path) -> str | None:
        """Save the index beside the vectors, if there is one that can be; return the name of its kind."""
        if self._other is None or (name := name_of(type(self._other))) is None:
            return None
        self._other.save(folder)
        return name

    def add(self, vectors: np.ndarray) -> None:
        """Put vectors (n, n_columns), float32, behind those that are there; they are kept without a copy."""
        self._exact.add(vectors, copy=False)
        if self._other is not None:
            self._other.add(vectors)

    def remove(self, places: np.ndarray) -> None:
        """Take vectors out; those behind them move up."""
        if len(places) == len(self):
            self.clear()
            return
        self._exact.remove(places)
        if self._other is None:
            return
        if hasattr(self._other, "remove"):
            self._other.remove(places)
        else:
            self._other = copy.deepcopy(self._empty)
            self._other.add(self.take(np.arange(len(self))))

    def take(self, places: np.ndarray) -> np.ndarray:
        """Return some vectors, (n_places, n_columns) float32."""
        return np.asarray(self._exact.take(places), dtype=np.float32)

    def search(self, queries: np.ndarray, k: int, rows: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Find the k items of largest inner product: scores and places, (n_query, k) each; -1 is none found.

        Among some rows, (n_rows,) int64, the search is exact.
        """
        if rows is None and self._other is not None:
            found: tuple[np.ndarray, np.ndarray] = self._other.search(queries, k)
            return found
        return self._exact.search(queries, k, rows=rows)

    def search_above(
        self, queries: np.ndarray, least: np.ndarray, rows: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Find all items of at least a score of each query, (n_queries,): exactly, however many they are.

        Returns
        -------
        query, place : ndarray of shape (n_found,), int64
            By query; the best first, of equals the lower place.
        score : ndarray of shape (n_found,), float32
            To the bit what `search` gives.
        """
        places = np.arange(len(self)) if rows is None else rows
        longest = np.linalg.norm(queries.astype(np.float64), axis=1)
        found = []
        for start in range(0, len(places), _BLOCK):
            part = places[start : start + _BLOCK]
            items = self.take(part)
            # A float32 sum of d products is off by at most d units of roundoff of the product of the lengths.
            error = (items.shape[1] + 8) * _EPS * longest * np.linalg.norm(items, axis=1).max()
            query, item = np.nonzero(queries @ items.T >= (least - error)[:, None])
            found.append((query, part[item], exact_scores(queries, items, query, item)))
        query, place, score = (np.concatenate(each) for each in zip(*found, strict=True)) if found else _NOTHING
        kept = score >= least[query]
        order = np.lexsort((place[kept], -score[kept], query[kept]))
        return query[kept][order], place[kept][order], score[kept][order]

    def search_by_order(self, queries: np.ndarray, k: int, rows: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Do as `search` with embedded sentences, by a similarity that is no inner product."""
        places = np.arange(len(self)) if rows is None else rows
        starts = range(0, max(len(queries), 1), _QUERY_BLOCK)
        found = [self._search_some_by_order(queries[start : start + _QUERY_BLOCK], k, places) for start in starts]
        scores, at = (np.concatenate(each) for each in zip(*found, strict=True))
        return scores, at

    def _search_some_by_order(self, queries: np.ndarray, k: int, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        import torch

        score, asked = SIMILARITIES[self.similarity], torch.from_numpy(queries)
        best, at = np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        for start in range(0, len(places), _BLOCK):
            part = places[start : start + _BLOCK]
            with torch.inference_mode():
                table = score(torch.from_numpy(self.take(part)), asked).T.numpy()  # (n_queries, n_block)
            best = np.concatenate([best, table], axis=1)
            at = np.concatenate([at, np.broadcast_to(part, table.shape)], axis=1)
            order = np.argsort(-best, axis=1, kind="stable")[:, :k]  # of equals the first, as in an index
            best, at = np.take_along_axis(best, order, axis=1), np.take_along_axis(at, order, axis=1)
        return best, at
