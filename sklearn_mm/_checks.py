"""The border: what users hand over becomes clean lists and arrays here, or a clear error.

Everything below this layer trusts its input.
"""

import difflib
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from numbers import Number
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.utils import assert_all_finite, column_or_1d
from sklearn.utils.validation import validate_data

__all__ = [
    "Captions",
    "as_features",
    "check_captions",
    "check_features",
    "check_finite_rows",
    "check_k",
    "check_texts",
    "did_you_mean",
    "label_matrix",
]

_WAY_OUT = "drop these rows, or impute what is missing in a step before (sklearn.impute)"


@dataclass(frozen=True)
class Captions:
    """The captions of n images, flattened.

    Attributes
    ----------
    texts : list of str, length n_texts
        All captions, in the order of their images.
    image_index : ndarray of shape (n_texts,), int64
        ``image_index[j]`` is the row of the image that text j describes; never decreasing.
    n_images : int
        How many images there are.
    numbers : ndarray of shape (n_images,) or None
        The captions as they were given, where they were numbers; their text is what is read.
    """

    texts: list[str]
    image_index: np.ndarray
    n_images: int
    numbers: np.ndarray | None = None

    @property
    def starts(self) -> np.ndarray:
        """Where each image's captions start in `texts`, shape (n_images + 1,), int64."""
        # image_index never decreases: where a number would be put is where its captions start
        return np.searchsorted(self.image_index, np.arange(self.n_images + 1))


def _n_rows(X: Any) -> int:
    # len() of a sparse matrix is an error
    shape = getattr(X, "shape", None)
    return int(shape[0]) if shape is not None and len(shape) else len(X)


def check_captions(y: Any, X: Any = None) -> Captions:
    """Flatten captions given one entry per image: a str, or a sequence of str.

    Parameters
    ----------
    y : sequence of (str or sequence of str), length n_images
        Lists, tuples, object arrays, string arrays and pandas Series are accepted. A sequence of numbers is taken as
        that of their texts.
    X : sequence of length n_images, optional
        The images, to check that both have the same length.

    Returns
    -------
    Captions

    Raises
    ------
    ValueError
        Lengths differ, an image has no captions, or a caption is empty; the message names the row.
    TypeError
        y is one str, or an entry is neither a str nor a sequence of str; the message names the row.
    """
    if y is None:
        raise ValueError("requires y to be passed, but the target y is None; y holds the captions, one entry per image")
    if isinstance(y, str | bytes):
        raise TypeError("expected one caption entry per image, got a single string; wrap it in a list")
    # scikit-learn's own checks pass numbers as y, to every estimator
    numbers = _as_numbers(y)
    if numbers is not None:
        y = [str(number) for number in numbers.tolist()]
    if X is not None and len(y) != _n_rows(X):
        raise ValueError(
            f"expected one caption entry per image, got {len(y)} caption entries for {_n_rows(X)} images; "
            "group several captions of one image with sklearn_mm.model_selection.group_captions(...)"
        )
    texts: list[str] = []
    image_index: list[int] = []
    for row, entry in enumerate(y):
        captions = [entry] if isinstance(entry, str) else _as_caption_list(entry, row)
        if not captions:
            raise ValueError(f"row {row} has no captions; drop the image or give it at least one caption")
        for caption in captions:
            if not isinstance(caption, str):
                raise TypeError(
                    f"expected a str or a list of str as the captions of row {row}, "
                    f"got a {type(caption).__name__} in it"
                )
            if not caption.strip():
                raise ValueError(f"row {row} has an empty caption; drop it or drop the image")
            # numpy's str_ is a str, but no plain one: it would be pickled as numpy's
            texts.append(str(caption))
            image_index.append(row)
    return Captions(texts, np.asarray(image_index, dtype=np.int64), len(y), numbers)


def _as_numbers(y: Any) -> np.ndarray | None:
    """Return y as a 1-D array of numbers, or None where it holds anything else."""
    if isinstance(y, list | tuple) or (isinstance(y, np.ndarray) and y.dtype.kind == "O" and y.ndim == 1):
        # never np.asarray(y) first: lists of equally many captions would become a two-dimensional array of str
        if not len(y) or not all(isinstance(entry, Number) for entry in y):
            return None
        y = np.asarray(list(y))
    elif not hasattr(y, "dtype") and hasattr(y, "__array__"):
        y = np.asarray(y)
    if getattr(getattr(y, "dtype", None), "kind", "O") not in "iufb":
        return None
    numbers = column_or_1d(np.asarray(y), warn=True)
    assert_all_finite(numbers, input_name="y")
    return numbers


def _as_caption_list(entry: Any, row: int) -> Sequence[Any]:
    if isinstance(entry, bytes) or not isinstance(entry, Iterable):
        raise TypeError(
            f"expected a str or a list of str as the captions of row {row}, got {type(entry).__name__}: {entry!r:.60}"
        )
    return list(entry)


def check_texts(texts: Any) -> list[str]:
    """Return `texts` as a list of str; the empty string is allowed (it embeds as unknown).

    Raises
    ------
    TypeError
        `texts` is one str, or an entry is not a str; the message names the row.
    ValueError
        There are no texts.
    """
    if isinstance(texts, str | bytes):
        raise TypeError("expected a sequence of str, got a single string; wrap it in a list")
    listed = list(texts)
    if not listed:
        raise ValueError("expected at least one text, got an empty sequence (0 sample(s))")
    for row, text in enumerate(listed):
        if not isinstance(text, str):
            raise TypeError(f"expected a str in every row, got {type(text).__name__} in row {row}: {text!r:.60}")
    return [str(text) for text in listed]


def check_features(estimator: Any, X: Any, *, reset: bool) -> Any:
    """Check a matrix of features against what an estimator was fitted on, or remember it with `reset`.

    Parameters
    ----------
    estimator : estimator
        Gets `n_features_in_`, and `feature_names_in_` where X has names.
    X : {array-like, sparse matrix} of shape (n_rows, n_features)
    reset : bool

    Returns
    -------
    {ndarray, csr_array} of shape (n_rows, n_features), int8 or float32
        int8 stays, anything else becomes float32.

    Raises
    ------
    ValueError
        X is no matrix of numbers, has another width, or holds NaN or infinity; the message names the rows.
    """
    # what is not finite is left to the check below, which names the rows
    X = validate_data(estimator, X, reset=reset, accept_sparse="csr", dtype="numeric", ensure_all_finite=False)
    with np.errstate(over="ignore"):  # what is too large for float32 is reported with its row
        X = as_features(X)
    check_finite_rows(X)
    return X


def as_features(X: Any) -> Any:
    """Return a matrix, dense or sparse, as an int8 or float32 one, sparse by rows."""
    if sparse.issparse(X):
        return sparse.csr_array(X, dtype=np.float32)
    X = np.asarray(X)
    # int8 are ternary features: as float32 they would be four times as large
    return X if X.dtype == np.int8 else X.astype(np.float32, copy=False)


def check_finite_rows(X: Any, name: str = "X", way_out: str = _WAY_OUT) -> None:
    """Check that a matrix, dense or sparse by rows, holds neither NaN nor infinity.

    Raises
    ------
    ValueError
        It does; the message names the matrix, its rows, and the way out.
    """
    values = X.data if sparse.issparse(X) else X
    with np.errstate(invalid="ignore", over="ignore"):
        if values.dtype.kind not in "fc" or np.isfinite(np.sum(values, dtype=np.float64)):  # takes no memory
            return
    bad = np.nonzero(~np.isfinite(values))[0]
    if sparse.issparse(X):
        # of a sparse matrix, from places among the stored values to rows
        bad = np.searchsorted(X.indptr, bad, side="right") - 1
    bad = np.unique(bad)
    if not len(bad):
        return  # it was the sum alone that was too large
    shown = ", ".join(map(str, bad[:5])) + (", ..." if len(bad) > 5 else "")
    raise ValueError(
        f"{name} holds NaN, infinity or a number too large in {len(bad)} of {X.shape[0]} rows: {shown}; {way_out}"
    )


def check_k(k: int, n_gallery: int) -> int:
    """Check that `k` items can be had from a gallery of `n_gallery`."""
    # True is an int to Python
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise ValueError(f"k must be a positive int, got {k!r}")
    if k > n_gallery:
        raise ValueError(f"k={k} is larger than the gallery, which has {n_gallery} items; use k <= {n_gallery}")
    return int(k)


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """Return the end of an error message: the options nearest to `name`, or the first few."""
    known = sorted(options)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        return "did you mean " + " or ".join(repr(option) for option in near) + "?"
    shown = ", ".join(repr(option) for option in known[:12])
    return f"known are {shown}" + (", ..." if len(known) > 12 else "")


def label_matrix(
    rows: Collection[Iterable[Hashable]], column_of: Mapping[Any, int], dtype: Any = np.int64
) -> sparse.csr_array:
    """Return lists of labels as an indicator: the columns of a row in order, a label given twice once.

    Parameters
    ----------
    rows : collection of iterables of labels, length n_rows
    column_of : mapping from label to int
        The column of each label there is.
    dtype : dtype
        scikit-learn counts the labels of rows in it: int8 would end at 127.

    Returns
    -------
    csr_array of shape (n_rows, n_labels)
    """
    columns = [sorted({column_of[label] for label in own}) for own in rows]
    starts = np.concatenate([[0], np.cumsum([len(own) for own in columns], dtype=np.int64)])
    indices = np.fromiter(chain.from_iterable(columns), dtype=np.int64, count=int(starts[-1]))
    return sparse.csr_array((np.ones(len(indices), dtype), indices, starts), shape=(len(columns), len(column_of)))
