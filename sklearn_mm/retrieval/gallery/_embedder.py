"""Pictures and sentences as a fitted model embeds them for a gallery."""

from typing import Any

import numpy as np
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import check_is_fitted

from sklearn_mm._content import UndigestibleError, content_digest
from sklearn_mm._unreadable import raise_unreadable
from sklearn_mm.images import ReadFailure, describe
from sklearn_mm.metrics import unit_rows, unwrap_ranker
from sklearn_mm.retrieval._hubness import as_items, as_queries
from sklearn_mm.retrieval._members import embed_readable
from sklearn_mm.retrieval._search import JointSpaceMixin
from sklearn_mm.towers import n_rows_of

__all__ = ["Embedder"]


class Embedder:
    """A fitted ranker, or a pipeline or a search that ends in one, as a gallery asks it.

    Parameters
    ----------
    model : estimator

    Raises
    ------
    TypeError
        It embeds no images and texts.
    NotFittedError
        It is not fitted.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.ranker = unwrap_ranker(model)
        check_is_fitted(self.ranker)
        self.similarity: str = getattr(self.ranker, "similarity", "cosine")
        self._hubness = getattr(self.ranker, "hubness_", None)
        self._gives_unit_rows = isinstance(self.ranker, JointSpaceMixin)

    @property
    def corrects_hubs(self) -> bool:
        """Whether something is taken off the scores of items: their vectors have one component more."""
        return self._hubness is not None

    def fingerprint(self) -> str | None:
        """Digest what decides on vectors and scores: 32 hexadecimal digits; None, where that cannot be looked into.

        Not what the model has in galleries of its own, nor by what they are searched.
        """
        try:
            return content_digest(_without_galleries(self.model))
        except UndigestibleError:
            return None

    def items(self, images: Any) -> tuple[np.ndarray, np.ndarray | None]:
        """Embed pictures as items.

        Returns
        -------
        vectors : ndarray of shape (n_kept, n_columns), float32
        kept : ndarray of shape (n_kept,), int64, or None
            Where each stood, if an encoder's `on_error` has left pictures out.
        """
        vectors, kept = self._images(images)
        return (as_items(vectors, self._hubness) if len(vectors) else vectors), kept

    def pictures(self, images: Any) -> np.ndarray:
        """Embed pictures as queries, (n_images, n_columns) float32: nothing is taken off the scores of items.

        What is taken off says how near an item is to sentences.
        """
        vectors, kept = self._images(images)
        if kept is not None:
            n_images = n_rows_of(images)
            left_out = np.setdiff1d(np.arange(n_images), kept)
            raise_unreadable(
                [
                    ReadFailure(int(row), describe(_safe_indexing(images, int(row))), "cannot be read")
                    for row in left_out
                ]
            )
        return np.column_stack([vectors, np.zeros(len(vectors), np.float32)]) if self.corrects_hubs else vectors

    def sentences(self, texts: list[str]) -> np.ndarray:
        """Embed sentences as queries, (n_texts, n_columns) float32."""
        # BLAS sums the products of one row in another order than those of several
        vectors = self._checked(self.ranker.transform_text(texts * 2 if len(texts) == 1 else texts))[: len(texts)]
        return as_queries(vectors, self._hubness)

    def warn_of_unknown(self, texts: list[str], stacklevel: int) -> None:
        """Warn of words that the training of a ranker of this library has not seen, of each once."""
        if texts and isinstance(self.ranker, JointSpaceMixin):
            self.ranker._warn_of_unknown(texts, stacklevel + 1)

    def _images(self, images: Any) -> tuple[np.ndarray, np.ndarray | None]:
        n_images = n_rows_of(images)
        if n_images == 1:
            # Two rows of it, for BLAS sums the products of one row in another order than those of several: so a picture
            # has one vector to the bit, whether it comes alone or among others.
            vectors, kept = embed_readable(self.model, _safe_indexing(images, [0, 0]))
            alone = self._checked(vectors)[:1]
            return alone, None if len(alone) else np.empty(0, dtype=np.int64)
        vectors, kept = embed_readable(self.model, images)
        return self._checked(vectors), kept

    def _checked(self, vectors: Any) -> np.ndarray:
        array = np.ascontiguousarray(vectors, dtype=np.float32)
        return array if self._gives_unit_rows else unit_rows(array)


# What a ranker keeps beside the way from pictures and texts to vectors.
_BESIDE = (
    *("_image_gallery", "_text_gallery", "gallery_texts_", "history_", "_moments", "_continued", "_told_words"),
    *("calibration_fraction", "_cutoff"),
)


def _without_galleries(model: Any) -> Any:
    """Return a model that embeds alike, without galleries: a shallow copy, for its digest alone."""
    if hasattr(model, "best_estimator_"):
        return _without_galleries(model.best_estimator_)
    if hasattr(model, "steps"):
        bare = _shallow(model)
        bare.steps = [(name, _without_galleries(step)) for name, step in model.steps]
        return bare
    if not isinstance(model, JointSpaceMixin):
        return model
    bare = _shallow(model)
    for name in _BESIDE:
        bare.__dict__.pop(name, None)
    bare.index = None
    if "estimators_" in bare.__dict__:  # of an ensemble
        bare.__dict__["estimators_"] = [_without_galleries(member) for member in bare.__dict__["estimators_"]]
    return bare


def _shallow(estimator: Any) -> Any:
    kind: Any = type(estimator)
    bare = kind.__new__(kind)
    bare.__dict__.update(estimator.__dict__)
    return bare
