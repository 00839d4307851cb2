"""What a ranker finds: embedded items, searched exactly."""

import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from sklearn_mm._checks import check_k
from sklearn_mm._device import shared
from sklearn_mm.index import ExactIndex, check_rows
from sklearn_mm.losses import SIMILARITIES
from sklearn_mm.registry import FieldsAlone, stored_as
from sklearn_mm.retrieval._hubness import NearestNeighborNormalization

__all__ = ["Gallery"]

_SHOWN = 10  # items found for who does not say how many
_QUERY_BLOCK = 256  # queries whose scores over all items are held at once


@stored_as("retrieval.Gallery")
@dataclass(frozen=True)
class Gallery(FieldsAlone):
    """Items of one modality in the joint space.

    Attributes
    ----------
    embedding : ndarray of shape (n_items, n_components), float32
        Unit vectors.
    similarity : {"cosine", "order", "order-root"}
    rows : ndarray of shape (n_items,), int64, or None
        Where each item stood in what it was made of, where pictures that could not be read are no items; they are
        never found, and the others keep their numbers.
    hubness : NearestNeighborNormalization or None
        Fitted; what takes off the scores of items that are near every query.
    holds_images : bool
        Whether the items are images; texts otherwise.
    index : ExactIndex, FaissIndex or another with `add` and `search`, or None
        Empty: the kind of index that finds items by their cosine. None is an `ExactIndex`.
    offsets : ndarray of shape (n_items,), float32, or None
        What `hubness` takes off, where it is known already.
    """

    embedding: np.ndarray
    similarity: str
    rows: np.ndarray | None = None
    hubness: NearestNeighborNormalization | None = None
    holds_images: bool = False
    index: Any = None
    offsets: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.embedding)

    def __getstate__(self) -> dict[str, Any]:
        # The index is made anew. Offsets travel instead of the banks, which are the estimator's.
        return super().__getstate__() | {"hubness": None, "offsets": self._offsets}

    # Made by the first search, and once. cached_property writes to __dict__, which a frozen dataclass allows.
    @cached_property
    def _offsets(self) -> np.ndarray | None:
        """What is taken off each item's score, (n_items,) float32."""
        if self.hubness is None:
            return self.offsets
        return (self.hubness.image_offsets if self.holds_images else self.hubness.text_offsets)(self.embedding)

    @cached_property
    def _index(self) -> Any:
        vectors = self.embedding
        if self._offsets is not None:
            # One component more makes a plain inner product of a score with something taken off.
            vectors = np.column_stack([self.embedding, -self._offsets])
            # The items are held once: the embedding is a part of what the index holds.
            object.__setattr__(self, "embedding", vectors[:, :-1])
        if self.index is None:
            # No copy: the embedding is a gallery's own, and is replaced with it, never written to.
            return ExactIndex().add(vectors, copy=False)
        return copy.deepcopy(self.index).add(vectors)

    def search(
        self, query: np.ndarray, k: int | None, *, query_is_image: bool, rows: Any = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Find the k nearest items, best first: scores (float32) and indices (int64), each (n_query, k).

        None takes 10, or all of fewer. `query_is_image` says which side is which, where the similarity is not
        symmetric. `rows`, a mask or numbers, are those that are searched.
        """
        among = None if rows is None else self._items_of(rows)
        n_items = len(self) if among is None else len(among)
        k = check_k(max(min(_SHOWN, n_items), 1) if k is None else k, n_items)
        scores, items = self._search_items(query, k, query_is_image, among)
        if self.rows is not None:
            # -1 is an item that an approximate index has not found.
            items = np.where(items < 0, -1, self.rows[items])
        return scores, items

    def _items_of(self, rows: Any) -> np.ndarray:
        """Return the items that have these numbers, ascending."""
        if self.rows is None:
            return check_rows(rows, len(self))
        # Numbers of pictures that could not be read are of no item.
        last = int(self.rows.max(initial=-1))
        asked = np.asarray(rows)
        n_rows = max(len(asked) if asked.dtype == bool else int(asked.max(initial=0)) + 1, last + 1)
        return np.flatnonzero(np.isin(self.rows, check_rows(rows, n_rows)))

    def best(self, query: np.ndarray, *, query_is_image: bool) -> np.ndarray:
        """Find the place (n_query,) of each query's nearest item, also where an approximate index finds none."""
        items = self._search_items(query, check_k(1, len(self)), query_is_image)[1][:, 0]
        missed = np.flatnonzero(items < 0)
        if len(missed):
            items[missed] = self.scores(query[missed], query_is_image=query_is_image).argmax(axis=1)
        return items

    def _search_items(
        self, query: np.ndarray, k: int, query_is_image: bool, among: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        # Of unit vectors the cosine is the inner product, for which the index knows a way that does not hold all
        # scores. The violation of an order is none: each item is scored.
        if self.similarity == "cosine":
            index = self._index
            if self._offsets is not None:
                query = np.column_stack([query, np.ones(len(query), dtype=np.float32)])
            # An index of another library need not know of rows.
            return index.search(query, k) if among is None else index.search(query, k, rows=among)
        scores, indices = np.empty((len(query), k), np.float32), np.empty((len(query), k), np.int64)
        for start in range(0, len(query), _QUERY_BLOCK):
            block = slice(start, start + _QUERY_BLOCK)
            table = self.scores(query[block], query_is_image=query_is_image)  # (n_block, n_items)
            if among is not None:
                table = table[:, among]
            indices[block] = np.argsort(-table, axis=1, kind="stable")[:, :k]  # of equals the first, as in the index
            scores[block] = np.take_along_axis(table, indices[block], axis=1)
        return scores, indices if among is None else among[indices]

    def scores(self, query: np.ndarray, *, query_is_image: bool) -> np.ndarray:
        """Score every item: (n_query, n_items) float32."""
        score, offsets = SIMILARITIES[self.similarity], self._offsets
        items = shared(self.embedding)
        out = np.empty((len(query), len(self)), dtype=np.float32)
        with torch.inference_mode():
            for start in range(0, len(query), _QUERY_BLOCK):
                rows = torch.from_numpy(query[start : start + _QUERY_BLOCK])
                # A similarity takes images first; that of order is another one with the sides exchanged.
                block = score(rows, items) if query_is_image else score(items, rows).T
                out[start : start + _QUERY_BLOCK] = block.numpy() if offsets is None else block.numpy() - offsets
        return out
