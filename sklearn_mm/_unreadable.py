"""Features of pictures some of which could not be read, or stand in several rows: what tells the next step so."""

from collections.abc import Collection, Sequence
from functools import partial
from itertools import islice
from typing import Any, NoReturn

import numpy as np

from sklearn_mm.exceptions import ImageReadError

__all__ = [
    "MarkedFeatures",
    "mark_features",
    "n_pictures_of",
    "raise_unreadable",
    "refuse_unreadable",
    "summarise",
    "take_readable",
]

_SHOWN_FAILURES = 5


class MarkedFeatures(np.ndarray):
    """Features of pictures of which some could not be read, or stand in several rows: an array that says which.

    Rows left out, or marked by zeros where there is no NaN, cannot be told from the array itself. What comes next in
    a pipeline is given the array alone, and would answer for the wrong pictures. Whatever is made of the array, a slice
    or a sum, is not marked: its rows are others. What is put beside other columns of the same pictures is.

    Attributes
    ----------
    failures : tuple of (row, source, reason)
        The pictures that could not be read.
    n_pictures : int
        How many pictures there were: the number of rows, where none was left out.
    first_rows : ndarray of shape (n_pictures,), int64, or None
        The first row of each row's picture, where pictures are repeated.
    """

    failures: tuple[Any, ...]
    n_pictures: int
    first_rows: np.ndarray | None

    def __array_finalize__(self, obj: Any) -> None:
        self.failures, self.n_pictures = (), len(self) if self.ndim else 0
        self.first_rows = None

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if func is np.hstack or (func is np.concatenate and _axis_of(args, kwargs) in (1, -1)):
            options = kwargs if func is np.hstack else {**kwargs, "axis": 1}
            return _put_side_by_side(list(args[0]), partial(func, **options))
        return super().__array_function__(func, types, args, kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        reduced: tuple[Any, ...] = tuple(super().__reduce__())
        return (*reduced[:2], (reduced[2], self.failures, self.n_pictures, self.first_rows))

    def __setstate__(self, state: Any) -> None:
        own, self.failures, self.n_pictures, *of_repeated = state
        self.first_rows = of_repeated[0] if of_repeated else None  # of those that were stored before
        super().__setstate__(own)


def _axis_of(args: Any, kwargs: Any) -> Any:
    return args[1] if len(args) > 1 else kwargs.get("axis", 0)


def _put_side_by_side(parts: list[Any], join: Any) -> np.ndarray:
    """Join columns of the same pictures, as a ColumnTransformer does, and mark what cannot be read in any of them."""
    marked = [part for part in parts if isinstance(part, MarkedFeatures) and part.failures]
    failures = {failure[0]: failure for part in marked for failure in part.failures}
    # Where rows are left out, each part has to lack the same ones.
    if any(len(part) < part.n_pictures for part in marked) and any(
        len(getattr(part, "failures", ())) < len(failures) for part in parts
    ):
        raise_unreadable([failures[row] for row in sorted(failures)])
    joined = join([np.asarray(part) for part in parts])
    n_pictures = marked[0].n_pictures if marked else len(joined)
    # Columns of their own, such as tags, may differ where the picture is the same.
    first: list[Any] = [getattr(part, "first_rows", None) for part in parts]
    is_alike = all(own is not None and np.array_equal(own, first[0]) for own in first)
    return mark_features(
        joined, [failures[row] for row in sorted(failures)], n_pictures, first[0] if is_alike else None
    )


def mark_features(
    X: np.ndarray, failures: Sequence[Any], n_pictures: int, first_rows: np.ndarray | None = None
) -> np.ndarray:
    """Return features with what is to be known of their pictures noted; the array itself, where there is nothing."""
    if not failures and first_rows is None:
        return X
    marked = X.view(MarkedFeatures)
    marked.failures, marked.n_pictures, marked.first_rows = tuple(failures), n_pictures, first_rows
    return marked


def take_readable(X: Any) -> tuple[Any, np.ndarray | None]:
    """Return the rows that could be read, and where they stood among the pictures: None, where X says of none."""
    if not isinstance(X, MarkedFeatures):
        return X, None
    if not X.failures:
        return X.view(np.ndarray), None
    kept = np.setdiff1d(np.arange(X.n_pictures), [failure[0] for failure in X.failures])
    plain = X.view(np.ndarray)
    return plain if len(plain) == len(kept) else plain[kept], kept


def n_pictures_of(X: Any) -> int:
    """Count the rows of features, with those left out for pictures that could not be read."""
    if isinstance(X, MarkedFeatures):
        return X.n_pictures
    return int(X.shape[0]) if hasattr(X, "shape") else len(X)  # a sparse matrix has no length


def refuse_unreadable(X: Any) -> None:
    """Check that features stand for all pictures that they were made of.

    Raises
    ------
    ImageReadError
        Some could not be read; the message names the rows and the way out.
    """
    if isinstance(X, MarkedFeatures) and X.failures:
        raise_unreadable(X.failures)


def raise_unreadable(failures: Collection[Any]) -> NoReturn:
    """Say that answers would not match the pictures, row for row."""
    raise ImageReadError(
        f"{summarise(failures)}; answers match the pictures row for row, and there is none for these: drop them, "
        "sklearn_mm.features.find_unreadable finds them all at once"
    )


def summarise(failures: Collection[Any]) -> str:
    """Return a list of the first failures, (row, source, reason) each, for a message."""
    shown = "; ".join(f"row {row} ({source}): {reason}" for row, source, reason in islice(failures, _SHOWN_FAILURES))
    n_more = len(failures) - _SHOWN_FAILURES
    return f"{shown}; and {n_more} more rows" if n_more > 0 else shown
