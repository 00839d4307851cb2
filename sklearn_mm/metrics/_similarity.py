"""Scores between images and texts: fast in float32, exact where it matters.

Both kinds answer to the same embeddings, rounded once to float32. `block` computes them with the fastest
kernel there is and knows a bound on its rounding error, `exact` in float64 row by row, so that equal
embeddings have equal scores wherever they stand.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from sklearn_mm._blas import longest_sum, product_of_rows
from sklearn_mm._threads import for_blocks

__all__ = [
    "SIMILARITIES",
    "TIE_TOLERANCE",
    "Similarity",
    "check_embedding",
    "exact_unit_rows",
    "resolve_similarity",
    "unit_rows",
]

# 16 units in the last place of a float32 score near 1. The same sentence embedded in two batches differs
# by one to a few of them (other kernels for other shapes); scores that mean something differ by far more.
TIE_TOLERANCE = 16 * float(np.finfo(np.float32).eps)

_UNIT_ROUNDOFF = float(np.finfo(np.float32).eps) / 2
_ROWS_AT_ONCE = 32  # float64 copies of that many embeddings stay in a core's own cache: a quarter of the time of 256
_WORTH_A_THREAD = 2**20  # numbers; fewer take less time than a thread takes to start
_TEXTS_PER_TILE = 64  # a tile of texts stays in the L2 cache: 256 kB at 1,024 dimensions


def check_embedding(embedding: Any, name: str) -> np.ndarray:
    """Return `embedding` as a finite float32 array of shape (n, n_components)."""
    with np.errstate(over="ignore"):  # float64 beyond float32 is reported below, with its row
        array = np.asarray(embedding).astype(np.float32, copy=False)
    if array.ndim != 2 or not array.size:
        raise ValueError(f"{name} must be a non-empty array of shape (n, n_components), got shape {array.shape}")
    finite = np.empty(len(array), dtype=bool)

    def look(part: slice) -> None:
        finite[part] = np.isfinite(array[part]).all(axis=1)

    for_blocks(look, len(array), _ROWS_AT_ONCE, array.size // _WORTH_A_THREAD)
    if not finite.all():
        raise ValueError(
            f"{name} holds NaN, infinity or a value beyond float32 in row {int(np.argmin(finite))} "
            f"and {np.count_nonzero(~finite) - 1} other rows"
        )
    return array


class Similarity(ABC):
    """Scores of every image with every text; larger is closer.

    Attributes
    ----------
    image, text : ndarray of shape (n_images, d) and (n_texts, d), float32
        The embeddings, scaled as the similarity wants them.
    tie_tolerance : ndarray of shape (n_texts,), float64
        Scores this close to that of a pair with text j count as tied with it.
    """

    image: np.ndarray
    text: np.ndarray
    tie_tolerance: np.ndarray

    @abstractmethod
    def block(self, images: slice, texts: slice, out: np.ndarray | None = None) -> np.ndarray:
        """Return float32 scores of shape (n_images, n_texts) of the slices, in `out` if it is given."""

    @abstractmethod
    def exact_block(self, images: slice, texts: slice) -> np.ndarray:
        """Return float64 scores of shape (n_images, n_texts) of the slices."""

    @abstractmethod
    def block_error(self, score: np.ndarray) -> np.ndarray:
        """Bound how far an entry of `block` is from its exact score near `score`."""

    @abstractmethod
    def _pair_scores(self, image: np.ndarray, text: np.ndarray) -> np.ndarray:
        """Return the scores (n,) of n float64 image rows with n float64 text rows."""

    def exact(self, images: np.ndarray, texts: np.ndarray) -> np.ndarray:
        """Return the float64 scores (n,) of n pairs of row numbers."""
        scores = np.empty(len(images))

        def score(part: slice) -> None:
            scores[part] = self._pair_scores(
                self.image[images[part]].astype(np.float64), self.text[texts[part]].astype(np.float64)
            )

        for_blocks(score, len(images), _ROWS_AT_ONCE, len(images) * self.image.shape[1] // _WORTH_A_THREAD)
        return scores


class CosineSimilarity(Similarity):
    """The cosine between image and text; a zero vector scores 0 with everything."""

    def __init__(self, image: np.ndarray, text: np.ndarray):
        self.image = unit_rows(image)
        self.text = unit_rows(text)
        self.tie_tolerance = np.full(len(text), TIE_TOLERANCE)

    def block(self, images: slice, texts: slice, out: np.ndarray | None = None) -> np.ndarray:
        # In memory that is there already: the pages of a new block cost as much as to count its scores.
        return product_of_rows(self.image[images], self.text[texts], out)

    def exact_block(self, images: slice, texts: slice) -> np.ndarray:
        return self.image[images].astype(np.float64) @ self.text[texts].astype(np.float64).T

    def block_error(self, score: np.ndarray) -> np.ndarray:
        # Sums of n terms in any order: at most n units of roundoff, as the magnitudes of all sum to at most 1.
        return np.full_like(score, (longest_sum(self.image.shape[1]) + 8) * _UNIT_ROUNDOFF)

    def _pair_scores(self, image: np.ndarray, text: np.ndarray) -> np.ndarray:
        return np.einsum("ij,ij->i", image, text)


class OrderSimilarity(Similarity):
    """Minus the violation of "the text is above the image", squared and summed."""

    def __init__(self, image: np.ndarray, text: np.ndarray):
        # The order of the scores does not depend on the unit; a power of two changes no bit of a mantissa.
        largest = max(float(np.abs(image).max()), float(np.abs(text).max()))
        unit = np.ldexp(np.float32(1), -max(int(np.frexp(largest)[1]), -100))
        self.image = image * unit
        self.text = text * unit
        self.tie_tolerance = TIE_TOLERANCE * np.einsum("ij,ij->i", self.text, self.text).astype(np.float64)

    def block(self, images: slice, texts: slice, out: np.ndarray | None = None) -> np.ndarray:
        return self._block(self.image[images], self.text[texts], out)

    def exact_block(self, images: slice, texts: slice) -> np.ndarray:
        return self._block(self.image[images].astype(np.float64), self.text[texts].astype(np.float64))

    @staticmethod
    def _block(image: np.ndarray, text: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        scores = np.empty((len(image), len(text)), dtype=image.dtype) if out is None else out
        for start in range(0, len(text), _TEXTS_PER_TILE):
            tile = text[start : start + _TEXTS_PER_TILE]
            violation = np.empty_like(tile)
            for row, one_image in enumerate(image):
                np.maximum(tile, one_image, out=violation)  # faster than a maximum with the scalar 0
                np.subtract(violation, one_image, out=violation)
                np.vecdot(violation, violation, out=scores[row, start : start + len(tile)])
        return np.negative(scores, out=scores)

    def block_error(self, score: np.ndarray) -> np.ndarray:
        # Nothing cancels in a sum of squares: the error is relative, but for squares that underflow.
        d = self.image.shape[1]
        return (d + 8) * _UNIT_ROUNDOFF * np.abs(score) + d * float(np.finfo(np.float32).tiny)

    def _pair_scores(self, image: np.ndarray, text: np.ndarray) -> np.ndarray:
        violation = np.maximum(text - image, 0)
        return -np.einsum("ij,ij->i", violation, violation)


def unit_rows(array: np.ndarray) -> np.ndarray:
    """Scale rows to unit length, in their own dtype; a zero vector stays one, and scores 0 with everything."""
    unit = np.empty_like(array)

    def scale(part: slice) -> None:
        unit[part] = exact_unit_rows(array[part])

    for_blocks(scale, len(array), _ROWS_AT_ONCE, array.size // _WORTH_A_THREAD)
    return unit


def exact_unit_rows(array: np.ndarray) -> np.ndarray:
    """Do as `unit_rows` in float64, all rows at once."""
    rows = array.astype(np.float64)
    # Row by row in one order of summing: equal rows have equal lengths wherever they stand, which BLAS does not
    # promise.
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    norms[norms == 0] = 1
    unit: np.ndarray = rows / norms[:, None]
    return unit


SIMILARITIES: dict[str, Callable[[np.ndarray, np.ndarray], Similarity]] = {
    "cosine": CosineSimilarity,
    "order": OrderSimilarity,
    "order-root": OrderSimilarity,  # a root changes no rank
}


def resolve_similarity(similarity: str, image: np.ndarray, text: np.ndarray) -> Similarity:
    """Turn the public name of a similarity into the scores of these embeddings."""
    if similarity not in SIMILARITIES:
        raise ValueError(f"similarity must be one of {sorted(SIMILARITIES)}, got {similarity!r}")
    return SIMILARITIES[similarity](image, text)
