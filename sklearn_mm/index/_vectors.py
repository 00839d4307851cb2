"""What both indexes ask of the vectors and rows they are given."""

from typing import Any

import numpy as np

from sklearn_mm._unreadable import refuse_unreadable

__all__ = ["check_rows", "check_vectors"]

# Of two vectors of this length the inner product, and every sum on the way to it, is well within float32 (3e38).
_LONGEST = 1e18


def check_vectors(X: Any, name: str, n_components: int | None, dtype: str = "float32") -> np.ndarray:
    """Return X as a contiguous array of shape (n, n_components), finite and so short that products are too."""
    refuse_unreadable(X)
    given = np.asarray(X)
    if dtype == "int8":
        given = _whole(given, name)
    with np.errstate(over="ignore"):  # float64 beyond float32 is reported below, with its row
        array = np.ascontiguousarray(given, dtype=dtype)
    if array.ndim != 2 or not array.size:
        raise ValueError(f"{name} must be a non-empty array of shape (n, n_components), got shape {array.shape}")
    if n_components is not None and array.shape[1] != n_components:
        raise ValueError(f"{name} has {array.shape[1]} components, but the index holds vectors of {n_components}")
    if dtype == "int8":
        return array
    finite = np.isfinite(array).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"{name} holds NaN, infinity or a value beyond {dtype} in row {int(np.argmin(finite))} "
            f"and {np.count_nonzero(~finite) - 1} other rows"
        )
    # The largest entry alone first: lengths cost a float64 copy.
    if max(float(array.max()), -float(array.min())) * np.sqrt(array.shape[1]) > _LONGEST:
        too_long = np.linalg.norm(array.astype(np.float64), axis=1) > _LONGEST
        if too_long.any():
            raise ValueError(
                f"{name} holds a vector longer than {_LONGEST:g} in row {int(np.argmax(too_long))} and "
                f"{np.count_nonzero(too_long) - 1} other rows: its inner products would leave float32; scale all "
                "vectors down"
            )
    return array


def _whole(array: np.ndarray, name: str) -> np.ndarray:
    """Return numbers as int8, if they are whole and small enough."""
    if array.dtype == np.int8:
        return array
    with np.errstate(invalid="ignore"):  # NaN is no whole number either
        whole = array.astype(np.int8)
    wrong = np.flatnonzero((whole != array).reshape(len(array), -1).any(axis=1)) if array.ndim else np.empty(0)
    if len(wrong):
        raise ValueError(
            f"{name} must hold whole numbers from -128 to 127 for an index of dtype='int8', such as ternary features, "
            f"which row {int(wrong[0])} and {len(wrong) - 1} other rows do not; use dtype='float16' or 'float32'"
        )
    return whole


def check_rows(rows: Any, n_items: int) -> np.ndarray:
    """Return the places of items, ascending and each once, that a mask or places stand for."""
    array = np.asarray(rows)
    if array.ndim != 1:
        raise ValueError(f"rows must be a mask or places of items, one-dimensional, got shape {array.shape}")
    if array.dtype == bool:
        if len(array) != n_items:
            raise ValueError(f"rows is a mask of {len(array)} items, but the index holds {n_items}")
        return np.flatnonzero(array)
    if array.size and not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"rows must be a mask (bool) or places of items (int), got dtype {array.dtype}")
    outside = np.flatnonzero((array < 0) | (array >= n_items))
    if outside.size:
        raise ValueError(
            f"rows must be places from 0 to {n_items - 1}, got {array[outside[0]]} in row {outside[0]} and "
            f"{outside.size - 1} others outside"
        )
    return np.unique(array.astype(np.int64))
