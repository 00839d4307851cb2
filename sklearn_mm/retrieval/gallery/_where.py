"""Which pictures of a gallery a search is among."""

from typing import Any

import numpy as np

from sklearn_mm._tables import shown
from sklearn_mm.retrieval.gallery._items import Items

__all__ = ["rows_where"]


def rows_where(where: Any, items: Items) -> np.ndarray:
    """Return the places, ascending, that a mask, a function of the metadata or an expression chooses.

    Raises
    ------
    ValueError
        A mask is of another length, or an expression makes no sense; the message names the columns there are.
    TypeError
        What comes is no mask.
    """
    if isinstance(where, str):
        return _places(_evaluated(where, items), items, f"where={where!r}")
    if callable(where):
        frame = items.frame().copy()  # whatever the function does to it
        return _places(where(frame), items, "the function where")
    return _places(where, items, "where")


def _evaluated(expression: str, items: Items) -> Any:
    frame = items.frame()
    try:
        return frame.eval(expression)
    except Exception as error:  # a parser of another library, which raises what it likes
        names = ", ".join(map(repr, frame.columns)) or "none"
        raise ValueError(
            f"where={expression!r} is no expression about the metadata: {error}; its columns are {names}, and text "
            "stands in quotes: \"city == 'Rome'\""
        ) from error


def _places(mask: Any, items: Items, what: str) -> np.ndarray:
    if hasattr(mask, "fillna") and str(getattr(mask, "dtype", "")) in ("boolean", "object"):
        mask = mask.fillna(False).astype(bool)  # what is missing is not among them
    array = np.asarray(mask)
    if array.dtype != bool:
        raise TypeError(f"expected a mask of bool from {what}, got {array.dtype}: {shown(mask)}")
    if array.shape != (len(items),):
        raise ValueError(
            f"expected a mask of {len(items)} entries, one for each picture, from {what}, got shape {array.shape}"
        )
    return np.flatnonzero(array)
