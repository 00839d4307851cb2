"""Rows as users have them: lists, arrays, columns and frames, known by what they offer.

No library of frames is imported: pandas, polars and pyarrow are told by their methods.
"""

import io
import os
from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np

__all__ = [
    "as_column",
    "as_number_table",
    "as_rows",
    "frame_column",
    "frame_names",
    "frame_part",
    "is_frame",
    "is_missing",
    "require_rows",
    "shown",
    "to_list",
    "with_length",
]

_MISSING = ("NAType", "NaTType")  # of pandas, whose NA is unequal to nothing and refuses to be a bool
_N_NAMED = 5  # columns that a message names


def is_frame(X: Any) -> bool:
    """Tell a table with named columns: a frame of pandas or polars, a table of pyarrow or of Hugging Face."""
    kind = type(X)  # and not X itself, of which pandas gives columns as attributes
    return hasattr(kind, "shape") and (hasattr(kind, "columns") or hasattr(kind, "column_names")) and len(X.shape) == 2


def frame_names(frame: Any) -> np.ndarray:
    """Return the names of a frame's columns, (n_columns,), as objects where the library has no array of them."""
    if hasattr(type(frame), "iloc"):
        return np.asarray(frame.columns)
    # pyarrow's `columns` are the columns themselves
    names = frame.column_names if hasattr(type(frame), "column_names") else frame.columns
    return np.array(names, dtype=object)


def frame_column(frame: Any, number: int) -> Any:
    """Return a column of a frame by its number: pandas allows two of one name."""
    if hasattr(type(frame), "iloc"):
        return frame.iloc[:, number]
    return frame[frame_names(frame)[number]]


def frame_part(frame: Any, numbers: np.ndarray) -> Any:
    """Return some columns of a frame, as a frame of the same library."""
    if hasattr(type(frame), "iloc"):
        return frame.iloc[:, numbers]
    return frame.select(frame_names(frame)[numbers].tolist())  # so do polars and pyarrow call it


def is_missing(value: Any) -> bool:
    """Tell None, NaN and the missing values of pandas from all others."""
    if isinstance(value, str | int):  # as nearly all are
        return False
    if value is None or type(value).__name__ in _MISSING:
        return True
    return isinstance(value, Real) and value != value


def shown(value: Any) -> str:
    """Return a value for a message: its repr, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def require_rows(X: Any, what: str) -> None:
    """Refuse what does not say which of its entries is which row.

    Parameters
    ----------
    X : object
    what : str
        Of what there should be one a row, for the message.

    Raises
    ------
    TypeError
        X is a single string or value, a mapping, a set or an open file; the message says what to pass instead.
    """
    kind = type(X).__name__
    expected = f"expected {what}, one entry a row"
    if isinstance(X, str | bytes | bytearray | os.PathLike):
        raise TypeError(f"{expected}, got a single string; wrap it in a list")
    if isinstance(X, Mapping) and not hasattr(X, "tocsr"):  # a sparse matrix by keys is a dict
        raise TypeError(
            f"{expected}, got a {kind}, of which the keys would be read; pass what it maps to as a list in the order "
            "of the rows: [mapping[key] for key in keys]"
        )
    if isinstance(X, set | frozenset):
        raise TypeError(f"{expected}, got a {kind}, which has no order; pass a list in the order of the rows")
    if isinstance(X, io.IOBase) or hasattr(type(X), "readline"):
        raise TypeError(f"{expected}, got an open file; pass its lines: [line.rstrip('\\n') for line in file]")
    if getattr(X, "shape", None) == ():
        raise TypeError(f"{expected}, got a single value: {shown(X)}; wrap it in a list")
    has_rows = hasattr(type(X), "__len__") and hasattr(type(X), "__getitem__")
    if not (has_rows or hasattr(type(X), "__iter__") or hasattr(type(X), "__array__")):
        raise TypeError(f"{expected}, got {kind}; make it a list, or a lazy frame a frame")


def to_list(rows: Any) -> list[Any]:
    """Return rows as a list of Python's own objects where their container knows them, taking a generator to its end."""
    for name in ("to_list", "to_pylist", "tolist"):  # of pandas and polars, pyarrow, numpy
        if hasattr(type(rows), name):
            listed: list[Any] = getattr(rows, name)()
            return listed
    if hasattr(type(rows), "__iter__"):
        return list(rows)
    if hasattr(type(rows), "__array__"):
        return to_list(np.asarray(rows))
    # list() would ask for rows until there is an IndexError, which not every container has
    return [rows[row] for row in range(len(rows))]


def with_length(X: Any) -> Any:
    """Return rows that are read more than once, or told by their number: of a generator a list, else X itself."""
    require_rows(X, "images")
    return X if hasattr(type(X), "__len__") or hasattr(type(X), "shape") else to_list(X)


def as_column(X: Any, what: str) -> list[Any]:
    """Return one column as a list: of a frame or an array of one column that column, rows out as many as rows in.

    Raises
    ------
    TypeError
        As `require_rows` does.
    ValueError
        There is more than one column, or none.
    """
    require_rows(X, what)
    if is_frame(X):
        names = frame_names(X)
        if len(names) != 1:
            listed = ", ".join(map(shown, names[:_N_NAMED].tolist())) + (", ..." if len(names) > _N_NAMED else "")
            raise ValueError(f"expected one column of {what}, got {len(names)}: {listed}; select one: frame[name]")
        return to_list(frame_column(X, 0))
    if isinstance(X, np.ndarray) and X.ndim == 2:
        if X.shape[1] != 1:
            raise ValueError(f"expected one column of {what}, got {X.shape[1]}; select one: array[:, number]")
        return to_list(X[:, 0])
    return to_list(X)


def as_rows(X: Any, what: str) -> list[Any]:
    """Return rows as a list: of a frame of one column its cells, of several columns a list of cells for each row.

    Raises
    ------
    TypeError
        As `require_rows` does.
    """
    require_rows(X, what)
    if not is_frame(X):
        return to_list(X)
    columns = [to_list(frame_column(X, number)) for number in range(len(frame_names(X)))]
    return columns[0] if len(columns) == 1 else [list(cells) for cells in zip(*columns, strict=True)]


def as_number_table(table: Any) -> np.ndarray:
    """Return a frame, an array or nested rows as an array; numbers of which some are missing as float64 with NaN.

    What is no number leaves an array of objects or str.
    """
    array = np.asarray(table)
    if array.dtype.kind != "O":
        return array
    try:
        if hasattr(type(table), "iloc"):  # pandas knows its own missing values, and many times as fast
            return np.asarray(table.to_numpy(dtype=np.float64, na_value=np.nan))
        missing = np.frompyfunc(is_missing, 1, 1)(array).astype(bool)
        return np.where(missing, np.nan, array).astype(np.float64)
    except (TypeError, ValueError):
        return array
