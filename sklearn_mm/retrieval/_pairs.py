"""From a row a caption to a row a picture, before anything is read or learnt."""

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from scipy import sparse
from sklearn.utils import _safe_indexing

from sklearn_mm._checks import Captions
from sklearn_mm._repeated import first_rows, pictures_of, warn_merged
from sklearn_mm._unreadable import MarkedFeatures, n_pictures_of, take_readable
from sklearn_mm.towers import row_digests

__all__ = ["GivenRows", "distinct_pictures"]


@dataclass(frozen=True)
class GivenRows:
    """What `fit` is given, each picture in one row.

    Attributes
    ----------
    X : images or features
        Of the pictures that could be read.
    captions : Captions
        Of all pictures.
    place : ndarray of shape (n_readable,), int64, or None
        Where the rows of X stand among all pictures; None where they are these.
    weight : ndarray of shape (n_pictures,), float64, or None
    groups : ndarray of shape (n_pictures,) or None
    rows : ndarray of shape (n_pictures,), int64, or None
        The row in which each picture was given first; None where each has one row.
    """

    X: Any
    captions: Captions
    place: np.ndarray | None
    weight: np.ndarray | None
    groups: np.ndarray | None
    rows: np.ndarray | None = None

    def merged(self, first: np.ndarray | None, stacklevel: int) -> Self:
        """Take the rows of one picture together: their captions are joined, their weights added.

        Rows of different groups are different images, and a row of weight 0 is not put to one that counts.

        Parameters
        ----------
        first : ndarray of shape (n_rows,), int64, or None
            The first row of each row's picture, as far as it is known.
        stacklevel : int
            From here to whoever called.
        """
        if first is None and self.place is None:
            first = _first_equal(self.X, self.captions)
        if first is None:
            return self
        rows, picture = pictures_of(first, self.groups, None if self.weight is None else self.weight > 0)
        if len(rows) == len(first):
            return self
        warn_merged(len(first), len(rows), stacklevel + 1)
        given = np.arange(len(first)) if self.place is None else self.place
        kept = np.flatnonzero(np.isin(given, rows))
        place = None if len(kept) == len(rows) else np.searchsorted(rows, given[kept])
        weight = np.ones(len(first)) if self.weight is None else self.weight
        return replace(
            self,
            X=_safe_indexing(self.X, kept),
            captions=self.captions.merge(picture, len(rows)),
            place=place,
            weight=np.bincount(picture, weight, minlength=len(rows)),
            groups=None if self.groups is None else self.groups[rows],
            rows=rows,
        )

    @property
    def parts(self) -> tuple[Any, Captions, np.ndarray | None, np.ndarray | None, np.ndarray | None]:
        """X, captions, place, weight and groups."""
        return self.X, self.captions, self.place, self.weight, self.groups

    def rows_of(self, place: np.ndarray | None) -> np.ndarray | None:
        """Return in which rows pictures were given, by their places among all; None where all are their own places."""
        return place if self.rows is None else self.rows if place is None else self.rows[place]


def _first_equal(X: Any, captions: Captions) -> np.ndarray | None:
    """Return the first row of equal ones of a matrix that has a caption in each row."""
    is_matrix = sparse.issparse(X) or (isinstance(X, np.ndarray) and X.ndim == 2 and X.dtype.kind in "biuf")
    # Where a row has several captions it is that of a picture; numbers are scikit-learn's own checks.
    if not is_matrix or captions.numbers is not None or len(captions.texts) != captions.n_images:
        return None
    seen: dict[bytes, int] = {}
    first = np.array([seen.setdefault(digest, row) for row, digest in enumerate(row_digests(X))], dtype=np.int64)
    return None if len(seen) == len(first) else first


def distinct_pictures(images: Any, stacklevel: int) -> tuple[Any, np.ndarray | None]:
    """Return images without those that stood in a row before, and the row of each; None where all are kept."""
    first = first_rows(images)
    if first is None:
        return images, None
    rows = np.unique(first)
    warn_merged(len(first), len(rows), stacklevel + 1)
    if not isinstance(images, MarkedFeatures):
        return _safe_indexing(images, rows), rows
    readable, place = take_readable(images)
    given = np.arange(n_pictures_of(images)) if place is None else place
    kept = np.flatnonzero(np.isin(given, rows))
    return readable[kept], given[kept]
