"""Rows of one picture: told by its name, or as one object, before anything is read."""

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from sklearn_mm._tables import frame_column, is_frame, to_list
from sklearn_mm._unicode import normal_form
from sklearn_mm._unreadable import MarkedFeatures
from sklearn_mm.exceptions import MergedRowsWarning

__all__ = ["Repeats", "first_rows", "pictures_of", "warn_merged"]


def first_rows(X: Any) -> np.ndarray | None:
    """Return the first row of each row's picture, (n_rows,) int64; None where no picture is known to be repeated.

    Paths and contents of files are one picture if they are equal, PIL images and arrays in a list if they are one
    object. Features tell it where what made them has noted it. Of anything else, a matrix too, nothing is known: equal
    features need not be of one picture.
    """
    if isinstance(X, MarkedFeatures):
        return X.first_rows
    entries = _entries(X)
    if entries is None:
        return None
    first: dict[Any, int] = {}
    rows = np.empty(len(entries), dtype=np.int64)
    for row, entry in enumerate(entries):
        key = _key(entry)
        if key is None:
            return None
        rows[row] = first.setdefault(key, row)
    return None if len(first) == len(rows) else rows


@dataclass(frozen=True)
class Repeats:
    """Rows of which several are of one picture, of which one is looked at.

    Attributes
    ----------
    rows : ndarray of shape (n_pictures,), int64
        The first row of each picture.
    place : ndarray of shape (n_rows,), int64
        The picture of each row.
    """

    rows: np.ndarray
    place: np.ndarray

    @classmethod
    def of(cls, X: Any) -> "Repeats | None":
        """Return the rows that are repeated, or None where none is known to be."""
        first = first_rows(X)
        return None if first is None else cls(*np.unique(first, return_inverse=True))

    @property
    def first(self) -> np.ndarray:
        """The first row of each row's picture, (n_rows,) int64."""
        return self.rows[self.place]

    def in_all_rows(self, failures: Mapping[int, Any]) -> list[Any]:
        """Return the failures of pictures for each of their rows."""
        return [failures[place]._replace(row=row) for row, place in enumerate(self.place.tolist()) if place in failures]

    def places_in(self, n_embedded: int, failures: Mapping[int, Any]) -> np.ndarray:
        """Return which of the embedded pictures each row is of; rows of pictures left out are left out."""
        if n_embedded == len(self.rows):
            return self.place
        is_kept = ~np.isin(np.arange(len(self.rows)), list(failures))
        return (np.cumsum(is_kept) - 1)[self.place[is_kept[self.place]]]


def _entries(X: Any) -> list[Any] | None:
    """Return rows that are there already; None for a matrix, and for what would have to be read for it."""
    if isinstance(X, list | tuple):
        return list(X)
    if isinstance(X, np.ndarray):
        return X.tolist() if X.ndim == 1 and X.dtype.kind in "OSU" else None
    if is_frame(X):
        return to_list(frame_column(X, 0)) if X.shape[1] == 1 else None
    is_column = hasattr(type(X), "to_list") and getattr(X, "ndim", 1) == 1  # a Series
    return to_list(X) if is_column else None


def _key(entry: Any) -> Any:
    if isinstance(entry, str):
        return normal_form(entry)
    if isinstance(entry, os.PathLike):
        return os.fspath(entry)
    if isinstance(entry, bytes):
        return entry
    if isinstance(entry, Image.Image) or (isinstance(entry, np.ndarray) and entry.ndim > 1):
        return ("object", id(entry))  # X holds it, so that no other comes to have its number
    return None


def pictures_of(first: np.ndarray, *apart: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Number pictures as they are met: those of equal entries are one.

    Parameters
    ----------
    first : ndarray of shape (n_rows,), int64
        As `first_rows` returns it.
    *apart : ndarray of shape (n_rows,), or None
        What rows of one picture have to have in common, such as their group.

    Returns
    -------
    rows : ndarray of shape (n_pictures,), int64
        The first row of each, ascending.
    picture : ndarray of shape (n_rows,), int64
        The number of each row's picture.
    """
    parts = [first, *(np.unique(own, return_inverse=True)[1] for own in apart if own is not None)]
    _, rows, picture = np.unique(np.stack(parts, axis=1), axis=0, return_index=True, return_inverse=True)
    order = np.argsort(rows)
    return rows[order], np.argsort(order)[picture.ravel()]


def warn_merged(n_rows: int, n_pictures: int, stacklevel: int) -> None:
    """Say that rows were put together."""
    warnings.warn(
        f"{n_rows} rows are {n_pictures} pictures: the rows of one picture are taken together, with all of its "
        "captions, and are found by its first row; sklearn_mm.model_selection.group_captions does so beforehand, and "
        "splits want it so, or groups",
        MergedRowsWarning,
        stacklevel=stacklevel + 1,
    )
