"""What a ranker finds: embedded items, searched exactly."""

from dataclasses import dataclass

import numpy as np

from sklearn_mm._checks import check_k
from sklearn_mm.index import ExactIndex

__all__ = ["Gallery"]

_SCORE_BLOCK = 1024


@dataclass(frozen=True)
class Gallery:
    """Items of one modality in the joint space.

    Attributes
    ----------
    embedding : ndarray of shape (n_items, n_components), float32
        Unit vectors.
    """

    embedding: np.ndarray

    def __len__(self) -> int:
        return len(self.embedding)

    def search(self, query: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Find the k nearest items, best first: scores (float32) and indices (int64), each (n_query, k)."""
        check_k(k, len(self))
        return ExactIndex().add(self.embedding).search(query, k)

    def scores(self, query: np.ndarray) -> np.ndarray:
        """Score every item: (n_query, n_items) float32."""
        out = np.empty((len(query), len(self)), dtype=np.float32)
        for start in range(0, len(query), _SCORE_BLOCK):
            np.matmul(query[start : start + _SCORE_BLOCK], self.embedding.T, out=out[start : start + _SCORE_BLOCK])
        return out
