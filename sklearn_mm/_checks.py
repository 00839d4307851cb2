"""The border: what users hand over becomes clean lists and arrays here, or a clear error.

Everything below this layer trusts its input.
"""

import difflib
import io
import os
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from numbers import Number
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.utils import assert_all_finite, check_array, column_or_1d
from sklearn.utils.validation import _check_sample_weight, validate_data

from sklearn_mm._joined import split_joined
from sklearn_mm._tables import as_column, frame_column, frame_names, is_frame, is_missing, require_rows, shown, to_list

__all__ = [
    "Captions",
    "as_features",
    "check_captions",
    "check_features",
    "check_finite_rows",
    "check_groups",
    "check_k",
    "check_labels",
    "check_texts",
    "check_weights",
    "did_you_mean",
    "label_matrix",
    "refuse_text_columns",
    "within_sums",
]

_LARGE_WEIGHT = 1e150  # their squares and sums still fit into float64
_MOST_LOOKED_AT = 20  # columns of a frame, for texts among them
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

    def take(self, images: np.ndarray) -> "Captions":
        """Keep the captions of some images, (n_kept,) int64, in the order given."""
        starts = self.starts
        texts = [text for row in images for text in self.texts[starts[row] : starts[row + 1]]]
        owner = np.repeat(np.arange(len(images)), np.diff(starts)[images])
        return Captions(texts, owner, len(images), None if self.numbers is None else self.numbers[images])

    def merge(self, image_of_row: np.ndarray, n_images: int) -> "Captions":
        """Put the captions of rows that are one image together, in the order of their rows.

        Parameters
        ----------
        image_of_row : ndarray of shape (n_images before,), int64
        n_images : int
            How many are left.
        """
        owner = image_of_row[self.image_index]
        order = np.argsort(owner, kind="stable")
        return Captions([self.texts[place] for place in order.tolist()], owner[order], n_images)


def _n_rows(X: Any) -> int:
    # len() of a sparse matrix is an error
    shape = getattr(X, "shape", None)
    if shape is not None and len(shape):
        return int(shape[0])
    if not hasattr(type(X), "__len__"):
        raise TypeError(f"expected images with a length, got a {type(X).__name__}; make it a list")
    return len(X)


def check_captions(y: Any, X: Any = None) -> Captions:
    """Flatten captions given one entry per image: a str, or a sequence of str.

    Parameters
    ----------
    y : sequence of (str or sequence of str), length n_images
        Lists, tuples, object arrays, string arrays, and Series of pandas or polars are accepted. A frame of one column
        is that column; the columns of a wider one, or of an array, are several captions each, and those missing in a
        row are left out as long as one is left. The captions of a set are sorted. A sequence of numbers is taken as
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
        y is one str, a mapping, a set or a file, or an entry is neither a str nor a sequence of str; the message names
        the row.
    """
    if y is None:
        raise ValueError("requires y to be passed, but the target y is None; y holds the captions, one entry per image")
    require_rows(y, "captions")
    # scikit-learn's own checks pass numbers as y, to every estimator
    numbers = _as_numbers(y)
    entries = _caption_entries(y) if numbers is None else [str(number) for number in numbers.tolist()]
    if numbers is None and entries and all(isinstance(entry, Number) for entry in entries):
        numbers = _as_numbers(entries)
        entries = [str(number) for number in ([] if numbers is None else numbers.tolist())]
    if X is not None and len(entries) != _n_rows(X):
        raise ValueError(
            f"expected one caption entry per image, got {len(entries)} caption entries for {_n_rows(X)} images; "
            "group several captions of one image with sklearn_mm.model_selection.group_captions(...); where on_error="
            "'skip' has left pictures out before a step that does not pass on which, drop them and their captions "
            "first: sklearn_mm.features.find_unreadable lists them"
        )
    texts: list[str] = []
    image_index: list[int] = []
    for row, entry in enumerate(entries):
        captions = [entry] if isinstance(entry, str) else _as_caption_list(entry, row)
        if not captions:
            raise ValueError(f"row {row} has no captions; drop the image or give it at least one caption")
        for caption in captions:
            if not isinstance(caption, str):
                raise TypeError(
                    f"expected a str or a list of str as the captions of row {row}, "
                    f"got a {type(caption).__name__} in it: {shown(caption)}"
                )
            if not caption.strip():
                raise ValueError(f"row {row} has an empty caption; drop it or drop the image")
            # numpy's str_ is a str, but no plain one: it would be pickled as numpy's
            texts.append(str(caption))
            image_index.append(row)
    return Captions(texts, np.asarray(image_index, dtype=np.int64), len(entries), numbers)


def _as_numbers(y: Any) -> np.ndarray | None:
    """Return y as a 1-D array of numbers, or None where it holds anything else."""
    if isinstance(y, list | tuple) or (isinstance(y, np.ndarray) and y.dtype.kind == "O" and y.ndim == 1):
        # never np.asarray(y) first: lists of equally many captions would become a two-dimensional array of str
        if not len(y) or not all(isinstance(entry, Number) for entry in y):
            return None
        y = np.asarray(list(y))
    elif not hasattr(y, "dtype") and hasattr(type(y), "__array__") and not is_frame(y):
        y = np.asarray(y)
    if getattr(getattr(y, "dtype", None), "kind", "O") not in "iufb":
        return None
    numbers = column_or_1d(np.asarray(y), warn=True)
    assert_all_finite(numbers, input_name="y")
    return numbers


def _caption_entries(y: Any) -> list[Any]:
    """Return what stands in each row: a str, or several of them, or what is refused there."""
    if is_frame(y):
        names = frame_names(y).tolist()
        columns = [to_list(frame_column(y, number)) for number in range(len(names))]
    elif isinstance(y, np.ndarray) and y.ndim == 2:
        names = list(range(y.shape[1]))
        columns = y.T.tolist()
    else:
        return to_list(y)
    if len(columns) == 1:
        return columns[0]
    for name, column in zip(names, columns, strict=True):
        for row, cell in enumerate(column):
            if not isinstance(cell, str) and not is_missing(cell):
                raise TypeError(
                    f"expected columns of captions, got {type(cell).__name__} in row {row} of the column {name!r}: "
                    f"{shown(cell)}; select the columns that hold captions"
                )
    return [[cell for cell in cells if not is_missing(cell)] for cells in zip(*columns, strict=True)]


def _as_caption_list(entry: Any, row: int) -> Sequence[Any]:
    if isinstance(entry, list | tuple):  # as nearly all are, and the questions below take longer
        return entry
    expected = f"expected a str or a list of str as the captions of row {row}"
    if is_missing(entry):
        raise TypeError(f"{expected}, got {entry!r}, which is missing; drop the image or give it a caption")
    if isinstance(entry, bytes | bytearray):
        raise TypeError(f"{expected}, got {type(entry).__name__}: {shown(entry)}; decode it: entry.decode()")
    if isinstance(entry, Mapping | io.IOBase) or not isinstance(entry, Iterable):
        raise TypeError(f"{expected}, got {type(entry).__name__}: {shown(entry)}")
    # a set of str comes in another order in every process
    return sorted(entry, key=str) if isinstance(entry, set | frozenset) else to_list(entry)


def check_texts(texts: Any) -> list[str]:
    """Return `texts` as a list of str; the empty string is allowed (it embeds as unknown).

    A frame, or an array of two dimensions, of one column is that column.

    Raises
    ------
    TypeError
        `texts` is one str, a mapping, a set or a file, or an entry is not a str; the message names the row.
    ValueError
        There are no texts, or several columns of them.
    """
    listed = texts if isinstance(texts, list) else as_column(texts, "texts")
    if not listed:
        raise ValueError("expected at least one text, got an empty sequence (0 sample(s))")
    for row, text in enumerate(listed):
        if not isinstance(text, str):
            raise TypeError(
                f"expected a str in every row, got {type(text).__name__} in row {row}: {shown(text)}{_mend(text)}"
            )
    return [str(text) for text in listed]


def _mend(text: Any) -> str:
    """Return the end of a message: how what is no text may become one."""
    if is_missing(text):
        return "; drop what is missing, or make it ''"
    if isinstance(text, bytes | bytearray):
        return "; decode it: text.decode()"
    if isinstance(text, Iterable):
        return "; one text a row: join several, or give each a row of its own"
    return ""


def check_labels(Y: Any, separator: str | None = None) -> Any:
    """Return the labels of rows in a container that is read by rows, or by named columns.

    Parameters
    ----------
    Y : sparse matrix, array, frame, or sequence of labels or of sequences of labels
        A frame of one column is that column, unless it holds nothing but numbers: then it is an indicator of one label.
    separator : str, optional
        What stands between labels that are given as one str a row.

    Returns
    -------
    sparse matrix, ndarray, frame, Series of pandas or list
        With a separator, a list of lists in the place of a column of str.

    Raises
    ------
    TypeError
        Y is one str, a mapping, a set or a file.
    ValueError
        With a separator, a row is missing; the message names it.
    """
    if sparse.issparse(Y):
        return Y
    require_rows(Y, "the labels of each image")
    if is_frame(Y):
        if len(frame_names(Y)) != 1:
            return Y
        column = to_list(frame_column(Y, 0))
        if all(isinstance(entry, Number) or is_missing(entry) for entry in column):
            return Y
        Y = column
    elif not hasattr(type(Y), "__array__") or hasattr(type(Y), "to_pylist"):
        Y = Y if isinstance(Y, list | tuple) else to_list(Y)
    elif hasattr(type(Y), "to_list") and not hasattr(type(Y), "iloc"):  # of polars: its lists within would be Series
        Y = Y.to_list()
    if separator is None or getattr(Y, "ndim", 1) != 1 or not any(isinstance(entry, str) for entry in Y):
        return Y
    return [_split_row(entry, row, separator) for row, entry in enumerate(Y)]


def _split_row(entry: Any, row: int, separator: str) -> Any:
    if is_missing(entry):
        raise ValueError(
            f"row {row} has no labels: {entry!r}; leave it out where they are not known, or make it '' where there are "
            "none"
        )
    return split_joined(entry, separator) if isinstance(entry, str) else entry


def check_groups(groups: Any, n_rows: int) -> np.ndarray | None:
    """Return the groups of rows as an array of shape (n_rows,), or None where there are none.

    Parameters
    ----------
    groups : array-like of shape (n_rows,), or frame of one column, or None
        Of any one type that can be sorted.

    Raises
    ------
    ValueError
        The length is another one, or a row has no group (None, NaN or NA); the message names it.
    TypeError
        `groups` is a mapping, a set or a single value, or some groups are str and others not.
    """
    if groups is None:
        return None
    known = isinstance(groups, np.ndarray) and groups.ndim == 1 and groups.dtype.kind in "biuSU"  # none is missing
    listed = groups if known else as_column(groups, "groups")
    if len(listed) != n_rows:
        raise ValueError(f"groups must hold one entry for each of the {n_rows} rows, got {len(listed)}")
    missing = [] if known else [row for row, group in enumerate(listed) if is_missing(group)]
    if missing:
        raise ValueError(
            f"{len(missing)} rows have no group, the first is row {missing[0]}: {listed[missing[0]]!r}; they would all "
            "be of one group: give each of them one of its own, or leave them out"
        )
    is_str = set() if known else {isinstance(group, str) for group in listed}
    if len(is_str) > 1:  # np.asarray would make "3" and 3 one group
        kinds = sorted({type(group).__name__ for group in listed})
        raise TypeError(f"expected groups of one type, got {' and '.join(kinds)}")
    column: np.ndarray = column_or_1d(np.asarray(listed))
    return column


def refuse_text_columns(X: Any) -> None:
    """Refuse a frame of pictures and their captions where pictures alone, or their features, are expected.

    Raises
    ------
    ValueError
        Some of several columns hold str.
    """
    if not is_frame(X) or len(X) == 0:
        return
    names = frame_names(X).tolist()
    first = [next(iter(to_list(frame_column(X[:1], number)))) for number in range(min(len(names), _MOST_LOOKED_AT))]
    texts = [name for name, cell in zip(names, first, strict=False) if isinstance(cell, str | os.PathLike)]
    if len(names) > 1 and texts:
        raise ValueError(
            f"expected one column of pictures, or columns of numbers, got {len(names)} columns, of which "
            f"{', '.join(map(shown, texts[:5]))} hold str; pass them apart, fit(frame['image'], "
            "frame['caption']), or let sklearn_mm.datasets.load_folder(folder, frame) do so"
        )


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
    TypeError
        X is a mapping or a generator.
    """
    refuse_text_columns(X)
    if isinstance(X, list | tuple) and X and isinstance(X[0], str | os.PathLike):
        raise ValueError(
            f"expected a matrix of features, got a list that begins with {shown(X[0])}; of pictures pass what steps "
            "before make of them, model[:-1].transform(pictures), or give an image_encoder"
        )
    if isinstance(X, Mapping) and not sparse.issparse(X):  # a dok_array of scipy is a dict
        raise TypeError(
            f"expected a matrix of features, got a {type(X).__name__}; make it a frame: pandas.DataFrame(X)"
        )
    if isinstance(X, Iterator):
        raise TypeError(
            f"expected a matrix of features, got a {type(X).__name__}; stack its rows: numpy.stack(list(X))"
        )
    # what is not finite is left to the check below, which names the rows
    if _is_plain_frame(X):
        # scikit-learn looks at each column's type: of 20,000 columns ten times as long as a network takes for a picture
        validate_data(estimator, X, reset=reset, skip_check_array=True)
        X = check_array(X.to_numpy(), ensure_all_finite=False, estimator=estimator, input_name="X")
    else:
        X = validate_data(estimator, X, reset=reset, accept_sparse="csr", dtype="numeric", ensure_all_finite=False)
    with np.errstate(over="ignore"):  # what is too large for float32 is reported with its row
        X = as_features(X)
    check_finite_rows(X)
    return X


def _is_plain_frame(X: Any) -> bool:
    """Whether X is a pandas frame of which each column is an array of numbers."""
    if not hasattr(X, "iloc") or X.ndim != 2 or not X.shape[1]:
        return False
    return all(isinstance(dtype, np.dtype) and dtype.kind in "biuf" for dtype in X.dtypes.unique())


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
    rows = ", ".join(map(str, bad[:5])) + (", ..." if len(bad) > 5 else "")
    raise ValueError(
        f"{name} holds NaN, infinity or a number too large in {len(bad)} of {X.shape[0]} rows: {rows}; {way_out}"
    )


def check_weights(sample_weight: Any, n_rows: int) -> np.ndarray | None:
    """Return the weights of rows as an array of shape (n_rows,), float64, or None where there are none.

    Raises
    ------
    ValueError
        They are not one for each row, not finite, negative, or all 0.
    """
    if sample_weight is None:
        return None
    # scikit-learn's check wants X for its length alone, and X may be a list of pictures
    rows = np.empty((n_rows, 0))
    return within_sums(_check_sample_weight(sample_weight, rows, dtype=np.float64, ensure_non_negative=True))


def within_sums(weight: np.ndarray) -> np.ndarray:
    """Return weights, or where their sums would leave float64 a share of them: averages are the same."""
    return weight if weight.max(initial=0) < _LARGE_WEIGHT else weight / weight.max()


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
    name = name[:100]  # whoever has it may have passed a file's content: the comparison takes its square
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        return "did you mean " + " or ".join(map(shown, near)) + "?"
    return f"known are {', '.join(map(shown, known[:12]))}" + (", ..." if len(known) > 12 else "")


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
