"""What a ranker finds: embedded items, searched exactly."""

from dataclasses import dataclass
from functools import cached_property
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from sklearn_mm._checks import check_k
from sklearn_mm.index import ExactIndex
from sklearn_mm.losses import SIMILARITIES
from sklearn_mm.registry import stored_as

__all__ = ["Gallery"]

_SHOWN = 10  # items found for who does not say how many
_QUERY_BLOCK = 256  # queries whose scores over all items are held at once


@stored_as("retrieval.Gallery")
@dataclass(frozen=True)
class Gallery:
    """Items of one modality in the joint space.

    Attributes
    ----------
    embedding : ndarray of shape (n_items, n_components), float32
        Unit vectors.
    similarity : {"cosine", "order", "order-root"}
    rows : ndarray of shape (n_items,), int64, or None
        Where each item stood in what it was made of, where pictures that could not be read are no items; they are
        never found, and the others keep their numbers.
    """

    embedding: np.ndarray
    similarity: str
    rows: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.embedding)

    def __getstate__(self) -> dict[str, Any]:
        # The index is made anew.
        return {"embedding": self.embedding, "similarity": self.similarity, "rows": self.rows}

    # Made by the first search, and once. cached_property writes to __dict__, which a frozen dataclass allows.
    @cached_property
    def _index(self) -> ExactIndex:
        # No copy: the embedding is a gallery's own, and is replaced with it, never written to.
        return ExactIndex().add(self.embedding, copy=False)

    def search(self, query: np.ndarray, k: int | None, *, query_is_image: bool) -> tuple[np.ndarray, np.ndarray]:
        """Find the k nearest items, best first: scores (float32) and indices (int64), each (n_query, k).

        None takes 10, or all of fewer. `query_is_image` says which side is which, where the similarity is not
        symmetric.
        """
        k = min(_SHOWN, len(self)) if k is None else check_k(k, len(self))
        scores, items = self._search_items(query, k, query_is_image)
        return scores, items if self.rows is None else self.rows[items]

    def _search_items(self, query: np.ndarray, k: int, query_is_image: bool) -> tuple[np.ndarray, np.ndarray]:
        # Of unit vectors the cosine is the inner product, for which the index knows a way that does not hold all
        # scores. The violation of an order is none: each item is scored.
        if self.similarity == "cosine":
            return self._index.search(query, k)
        scores, indices = np.empty((len(query), k), np.float32), np.empty((len(query), k), np.int64)
        for start in range(0, len(query), _QUERY_BLOCK):
            block = slice(start, start + _QUERY_BLOCK)
            table = self.scores(query[block], query_is_image=query_is_image)  # (n_block, n_items)
            indices[block] = np.argsort(-table, axis=1, kind="stable")[:, :k]  # of equals the first, as in the index
            scores[block] = np.take_along_axis(table, indices[block], axis=1)
        return scores, indices

    def scores(self, query: np.ndarray, *, query_is_image: bool) -> np.ndarray:
        """Score every item: (n_query, n_items) float32."""
        score = SIMILARITIES[self.similarity]
        items = _shared(self.embedding)
        out = np.empty((len(query), len(self)), dtype=np.float32)
        with torch.inference_mode():
            for start in range(0, len(query), _QUERY_BLOCK):
                rows = torch.from_numpy(query[start : start + _QUERY_BLOCK])
                # A similarity takes images first; that of order is another one with the sides exchanged.
                block = score(rows, items) if query_is_image else score(items, rows).T
                out[start : start + _QUERY_BLOCK] = block.numpy()
        return out


def _shared(array: np.ndarray) -> torch.Tensor:
    """Share an array with torch without a copy, a memory map that cannot be written to as well: it is only read."""
    if not array.flags.writeable:
        interface = dict(array.__array_interface__)
        interface["data"] = (interface["data"][0], False)  # or torch would warn that writing to it fails
        array = np.asarray(SimpleNamespace(__array_interface__=interface, owner=array))  # which stays alive with it
    return torch.from_numpy(array)
