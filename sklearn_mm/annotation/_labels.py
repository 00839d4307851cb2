"""The border of annotation: labels in any form become one sparse matrix, and predictions take that form again."""

import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import check_classification_targets

from sklearn_mm._checks import check_labels, did_you_mean, label_matrix
from sklearn_mm._joined import joined_by
from sklearn_mm._tables import as_number_table, frame_names, is_frame, is_missing, shown
from sklearn_mm._unicode import normal_label
from sklearn_mm.exceptions import LabelWarning
from sklearn_mm.registry import stored_as

__all__ = [
    "GivenLabels",
    "LabelForm",
    "label_weights",
    "overall_f1",
    "read_labels",
    "warn_of_joined",
    "warn_of_labels",
]

_N_NAMED = 5  # labels that a warning names
_BLOCK = 1 << 22  # entries of a dense Y that are looked at in one go: 32 MB of float64


@stored_as("annotation.LabelForm")
@dataclass(frozen=True)
class LabelForm:
    """What labels look like.

    Attributes
    ----------
    kind : {"indicator", "sparse", "lists", "single"}
        A dense or a sparse matrix of 0 and 1, several labels for each row, or one label for each row.
    dtype : str
        Of the matrix.
    container : str
        Class of the sparse matrix.
    """

    kind: str
    dtype: str = "int64"
    container: str = "csr_array"

    def write(self, indicator: Any, classes: np.ndarray) -> Any:
        """Bring predictions into this form.

        Parameters
        ----------
        indicator : csr_array of shape (n_rows, n_labels)
            Its stored entries are the labels predicted; the order within a row is that of lists.
        classes : ndarray of shape (n_labels,)
        """
        if self.kind == "single":
            return classes[indicator.indices]
        if self.kind == "lists":
            lists = np.empty(indicator.shape[0], dtype=object)  # lists of one length must not become a matrix
            lists[:] = [labels.tolist() for labels in np.split(classes[indicator.indices], indicator.indptr[1:-1])]
            return lists
        indicator = indicator.astype(self.dtype)
        if self.kind == "sparse":
            indicator.sort_indices()  # they were in the order of lists, which scipy does not expect
            return getattr(sparse, self.container)(indicator)
        return indicator.toarray()


@dataclass(frozen=True)
class GivenLabels:
    """The labels of some rows, as they were given.

    Attributes
    ----------
    form : LabelForm
    classes : ndarray of shape (n_labels,)
        All labels there are: of a matrix the names or numbers of its columns, otherwise sorted.
    matrix : csr_array of shape (n_rows, n_labels), float32
        1 where a label is true, NaN where that is not known; nothing else is stored.
    named : bool
        Whether the labels are told by name, and not by their place in a matrix.
    """

    form: LabelForm
    classes: np.ndarray
    matrix: Any
    named: bool = True

    def among(self, classes: np.ndarray) -> tuple[Any, np.ndarray]:
        """Bring the labels into the columns of other classes.

        Returns
        -------
        matrix : csr_array of shape (n_rows, n_classes), float32
        unknown : ndarray of int64
            The columns of `matrix` whose labels are not among the classes, and that are left out.

        Raises
        ------
        ValueError
            Two matrices do not have as many columns.
        """
        # classes of older models may be in another form; labels that were given are in NFC
        place = {normal_label(label): column for column, label in enumerate(classes.tolist())}
        named = self.named and (self.form.kind != "indicator" or not place.keys().isdisjoint(self.classes.tolist()))
        if not named:  # of a DataFrame that has not one of these names, columns are taken as they stand
            if len(classes) != len(self.classes):
                raise ValueError(
                    f"expected an indicator of {len(classes)} labels, got one of {len(self.classes)} columns"
                )
            return self.matrix, np.empty(0, np.int64)
        target = np.array([place.get(label, -1) for label in self.classes.tolist()], dtype=np.int64)
        known = np.flatnonzero(target >= 0)
        moved = sparse.csr_array(
            (np.ones(len(known), np.float32), (known, target[known])), shape=(len(target), len(classes))
        )
        return sparse.csr_array(self.matrix @ moved), np.flatnonzero(target < 0)

    def require(self, classes: np.ndarray) -> Any:
        """Bring the labels into the columns of other classes, or name the first that they do not have."""
        matrix, unknown = self.among(classes)
        if len(unknown):
            column = self.matrix[:, unknown].tocoo()
            first = int(np.argmin(column.row))  # the entries stand by columns
            label = self.classes[unknown[column.col[first]]]
            hint = did_you_mean(str(label), map(str, classes))
            raise ValueError(
                f"row {column.row[first]} has the label {shown(label)}, which was not there before; {hint}"
            )
        return matrix


def read_labels(Y: Any, n_rows: int, separator: str | None = None, *, may_be_empty: bool = False) -> GivenLabels:
    """Read the labels of images in any form; what is refused says `MultiLabelAnnotator.fit`.

    Parameters
    ----------
    Y : labels
    n_rows : int
        How many images there are.
    separator : str, optional
        What stands between labels that are given as one str a row.
    may_be_empty : bool
        Whether there may be no label at all: what is measured may have none, what is learnt from may not.
    """
    if Y is None:
        raise ValueError("requires y to be passed, but the target y is None; Y holds the labels of each image")
    Y = check_labels(Y, separator)
    names = frame_names(Y) if is_frame(Y) else None
    Y = _as_matrix_or_rows(Y)
    n_given = Y.shape[0] if hasattr(Y, "shape") else len(Y)
    if n_given != n_rows:
        raise ValueError(f"expected one entry of Y for each row of X, got {n_given} for {n_rows} rows of X")
    if sparse.issparse(Y):
        return GivenLabels(_form_of_sparse(Y), np.arange(Y.shape[1]), _from_sparse(Y), named=False)
    if isinstance(Y, np.ndarray) and Y.ndim == 2:
        Y = as_number_table(Y)
        classes = np.arange(Y.shape[1]) if names is None else normal_labels(np.asarray(names))
        return GivenLabels(LabelForm("indicator", Y.dtype.str), classes, _from_dense(Y), named=names is not None)
    if isinstance(Y, np.ndarray) and not (Y.dtype.kind == "O" and any(map(_is_several, Y))):
        return _from_single(Y)
    return _from_lists(list(Y), may_be_empty)


def normal_labels(labels: np.ndarray) -> np.ndarray:
    """Return labels with their texts in a normal form of Unicode; the array itself where nothing changes."""
    if labels.dtype.kind not in "OU":
        return labels
    listed = labels.tolist()
    normal = [normal_label(label) for label in listed]
    if normal == listed:
        return labels
    return np.array(normal, dtype=object if labels.dtype.kind == "O" else None)


def warn_of_joined(given: GivenLabels, way_out: str) -> None:
    """Warn of labels that look like several in one str, with `way_out` (that takes the separator) to split them."""
    if given.form.kind != "single" or not all(isinstance(label, str) for label in given.classes):
        return
    separator = joined_by(given.classes)
    if separator is not None:
        longest = max(given.classes, key=lambda label: label.count(separator))
        warnings.warn(
            f"the labels of y look like several in one str, {shown(str(longest))} for one, and each is learnt as one "
            f"label; {way_out.format(separator=repr(separator))}",
            LabelWarning,
            stacklevel=4,
        )


def warn_of_labels(matrix: Any, classes: np.ndarray, *, by_name: bool = False) -> np.ndarray:
    """Warn of labels that are true of no row or of all, and return the columns of those never to be predicted.

    With `by_name` there are none of these: labels that are true of no row are known by what they are called.
    """
    n_known = matrix.shape[0] - _count(matrix, np.isnan)
    n_true = _count(matrix, lambda data: data == 1)
    never, always = np.flatnonzero((n_true == 0) & (not by_name)), np.flatnonzero((n_true == n_known) & (n_true > 0))
    parts = []
    if len(never):
        parts.append(f"true of no image, and will never be predicted: {_name(classes[never])}")
    if len(always):
        parts.append(f"true of every image, which teaches nothing: {_name(classes[always])}")
    if parts:
        warnings.warn(f"some labels are {'; some are '.join(parts)}", LabelWarning, stacklevel=4)
    return never


def _count(matrix: Any, test: Any) -> np.ndarray:
    """Count the stored entries of each column that pass a test."""
    return np.bincount(matrix.indices[test(matrix.data)], minlength=matrix.shape[1])


def _name(labels: np.ndarray) -> str:
    """Name some labels, and say how many more there are."""
    named = ", ".join(shown(label) for label in labels[:_N_NAMED].tolist())
    return named + (f" and {len(labels) - _N_NAMED} more" if len(labels) > _N_NAMED else "")


# Telling forms apart --------------------------------------------------------------------------------------------


def _as_matrix_or_rows(Y: Any) -> Any:
    """Return Y as a sparse matrix, an array of one or two dimensions, or a list of rows."""
    if sparse.issparse(Y):
        if Y.ndim != 2:
            raise ValueError("expected a sparse indicator of 2 dimensions, one row for each image")
        return Y
    if isinstance(Y, Sequence):
        if any(map(_is_several, Y)):
            indicator = _nested_indicator(Y)
            return list(Y) if indicator is None else indicator
        # np.asarray makes a str of NaN among others
        return np.asarray(Y, dtype=object if any(map(is_missing, Y)) else None)
    array = as_number_table(Y) if is_frame(Y) else np.asarray(Y)
    if array.ndim not in (1, 2):
        raise ValueError(f"expected Y of 1 or 2 dimensions, got {array.ndim}")
    if array.ndim == 2 and array.shape[1] == 1 and not _is_indicator(array):  # a column of single labels
        return column_or_1d(array, warn=True)
    return array


def _is_several(entry: Any) -> bool:
    """Tell the labels of a row from one label."""
    return isinstance(entry, list | tuple | set | frozenset | np.ndarray) or hasattr(entry, "to_list")


def _nested_indicator(rows: Sequence[Any]) -> np.ndarray | None:
    """Return rows of one length with nothing but 0, 1 and NaN in them as an indicator."""
    if not all(isinstance(row, list | tuple | np.ndarray) for row in rows):
        return None
    lengths = {len(row) for row in rows}
    # Labels by name are told before numpy would copy them all.
    if len(lengths) != 1 or 0 in lengths or any(isinstance(entry, str | bytes) for entry in rows[0]):
        return None
    array = as_number_table(rows)
    return array if array.ndim == 2 and _is_indicator(array) else None


def _is_indicator(array: np.ndarray) -> bool:
    return array.dtype.kind in "biuf" and bool(((array == 0) | (array == 1) | (array != array)).all())


# Matrices -------------------------------------------------------------------------------------------------------


def _form_of_sparse(Y: Any) -> LabelForm:
    name = type(Y).__name__
    kind = "csr_array" if name.endswith("array") else "csr_matrix"
    return LabelForm("sparse", Y.dtype.str, kind)


def _from_sparse(Y: Any) -> Any:
    matrix = sparse.csr_array(Y, copy=True)
    if matrix.dtype.kind not in "biuf":
        raise ValueError(f"expected a sparse indicator of numbers, got one of dtype {matrix.dtype}")
    matrix.sum_duplicates()  # an entry stored twice is 2, which is refused below
    matrix.eliminate_zeros()
    wrong = np.flatnonzero(~((matrix.data == 1) | (matrix.data != matrix.data)))
    if len(wrong):
        row = int(np.searchsorted(matrix.indptr, wrong[0], side="right")) - 1
        raise ValueError(_not_an_indicator(row, int(matrix.indices[wrong[0]]), matrix.data[wrong[0]]))
    return matrix.astype(np.float32)


def _from_dense(Y: np.ndarray) -> Any:
    if Y.dtype.kind not in "biuf":
        raise ValueError(
            f"expected an indicator of 0 and 1, got a table of dtype {Y.dtype}; labels by name are given as a list for "
            "each row"
        )
    step = max(1, _BLOCK // max(1, Y.shape[1]))  # comparing the whole takes several times its memory
    blocks = []
    for start in range(0, len(Y), step):
        block = Y[start : start + step]
        wrong = np.argwhere(~((block == 0) | (block == 1) | (block != block)))
        if len(wrong):
            row, column = wrong[0].tolist()
            raise ValueError(_not_an_indicator(start + row, column, block[row, column]))
        blocks.append(sparse.csr_array(block, dtype=np.float32))
    return sparse.csr_array(sparse.vstack(blocks, format="csr")) if blocks else sparse.csr_array(Y.shape, dtype="f4")


def _not_an_indicator(row: int, column: int, value: Any) -> str:
    return (
        f"expected an indicator of 0 and 1 (NaN where it is not known), got {value} in row {row}, column {column}; "
        "labels by name or number are given as lists"
    )


# Labels by name -------------------------------------------------------------------------------------------------


def _from_single(y: np.ndarray) -> GivenLabels:
    if y.dtype.kind == "f" and not np.isfinite(y).all():
        row = int(np.argmin(np.isfinite(y)))
        raise ValueError(f"Input y contains NaN or infinity in row {row}; a label is a str or an int")
    missing = [row for row, label in enumerate(y) if is_missing(label)] if y.dtype.kind == "O" else []
    if missing:
        raise ValueError(
            f"Input y contains NaN or None in {len(missing)} rows, the first is row {missing[0]}; leave them out, or "
            "give lists of labels, with [] where there is none"
        )
    check_classification_targets(y)  # floats that are no whole numbers are a regression's
    classes, column = np.unique(y, return_inverse=True)
    normal = normal_labels(classes)
    if normal is not classes:  # of one label there were two forms, or the order is another
        classes, merged = np.unique(normal, return_inverse=True)
        column = merged[column]
    matrix = sparse.csr_array(
        (np.ones(len(y), np.float32), column.astype(np.int64), np.arange(len(y) + 1)), shape=(len(y), len(classes))
    )
    return GivenLabels(LabelForm("single"), classes, matrix)


def _from_lists(rows: list[Any], may_be_empty: bool) -> GivenLabels:
    listed = [_labels_of(entry, row) for row, entry in enumerate(rows)]
    labels = {label for own in listed for label in own}
    try:
        ordered: list[Any] = sorted(labels)
    except TypeError as error:
        kinds = sorted({type(label).__name__ for label in labels})
        raise TypeError(f"expected labels of one type, got {' and '.join(kinds)}") from error
    if not ordered and not may_be_empty:
        raise ValueError(f"no row has a label: expected lists with labels in them, got {len(rows)} empty ones")
    # As objects, str come back as they were given, and not as numpy's.
    classes = np.empty(len(ordered), dtype=int if all(type(label) is int for label in ordered) else object)
    classes[:] = ordered
    place = {label: column for column, label in enumerate(ordered)}
    return GivenLabels(LabelForm("lists"), classes, label_matrix(listed, place, np.float32))


def _labels_of(entry: Any, row: int) -> list[Hashable]:
    if not _is_several(entry):
        raise TypeError(
            f"expected a list of labels in every row, got {type(entry).__name__} in row {row}: {shown(entry)}; "
            "[] where there is none"
        )
    labels = entry.tolist() if hasattr(entry, "tolist") else list(entry)
    for label in labels:
        if is_missing(label) or not isinstance(label, Hashable):
            raise TypeError(f"expected labels of type str or int, got {shown(label)} in row {row}")
    # Numbers of numpy would not be told for int where the dtype of all labels is chosen.
    return [normal_label(label.item() if isinstance(label, np.generic) else label) for label in labels]


# What is done with labels ---------------------------------------------------------------------------------------


def label_weights(class_weight: Any, classes: np.ndarray, prevalence: np.ndarray) -> np.ndarray | None:
    """Return what a true label counts in the loss, shape (n_labels,) float32; None for 1.

    Parameters
    ----------
    class_weight : dict, "balanced" or None
    classes : ndarray of shape (n_labels,)
    prevalence : ndarray of shape (n_labels,), float64
        Of which share of the images each label is true.

    Raises
    ------
    ValueError
        A label is not there, or its weight is no finite number, 0 or more; the message names it.
    """
    if class_weight is None:
        return None
    if isinstance(class_weight, str):
        mean = prevalence.sum() / max(np.count_nonzero(prevalence), 1)  # of the labels that are true somewhere
        return np.where(prevalence > 0, mean / np.maximum(prevalence, 1e-12), 1.0).astype(np.float32)
    labels = [normal_label(label) for label in classes.tolist()]
    known = set(labels)
    class_weight = {normal_label(label): weight for label, weight in class_weight.items()}
    for label, weight in class_weight.items():
        if label not in known:
            hint = did_you_mean(str(label), map(str, labels))
            raise ValueError(f"class_weight names the label {shown(label)}, which is not there; {hint}")
        if not isinstance(weight, Real) or not 0 <= float(weight) < np.inf:
            raise ValueError(
                f"class_weight must be a finite number, 0 or more, got {shown(weight)} for the label {shown(label)}"
            )
    return np.array([float(class_weight.get(label, 1.0)) for label in labels], dtype=np.float32)


def overall_f1(chosen: Any, given: GivenLabels, classes: np.ndarray, weight: np.ndarray) -> float:
    """Compute the overall F1 of predicted labels; 0 where there are none, neither predicted nor true.

    Parameters
    ----------
    chosen : csr_array of shape (n_images, n_classes), float64
        1 where a label is predicted.
    given : GivenLabels
        What is true. A label that is none of the classes counts as missed, with a `LabelWarning`.
    classes : ndarray of shape (n_classes,)
    weight : ndarray of shape (n_images,), float64
    """
    truth, unknown = given.among(classes)
    if len(unknown):
        warnings.warn(
            f"{len(unknown)} labels of y were not there in training and count as missed: "
            f"{_name(given.classes[unknown])}",
            LabelWarning,
            stacklevel=3,
        )
    not_known = np.isnan(truth.data)
    true, missing = (
        sparse.csr_array((data, truth.indices, truth.indptr), shape=truth.shape) for data in (~not_known, not_known)
    )
    n_correct = (chosen * true).sum(axis=1)
    n_chosen = (chosen - chosen * missing).sum(axis=1)  # what is not known is neither right nor wrong
    n_true = (given.matrix == 1).sum(axis=1)
    total = weight @ (n_chosen + n_true)
    return float(2 * weight @ n_correct / total) if total > 0 else 0.0
