"""Products in float32 of sums that are kept short: rounding takes less of them than of one long sum.

numpy has no product that adds to what is there. BLAS has, and scipy hands out the address of the one it brings along.
"""

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from scipy.linalg import cython_blas

__all__ = ["longest_sum", "product_of_rows"]

_PART = 256  # terms that are summed at a time: BLAS itself goes through memory in about such steps
_ALIGNED = 16  # numbers in a line of the cache
_SMALL = 64  # rows; with fewer BLAS has other ways, some of which begin their sums with what is there
_SIGNATURE = [b"void (char", *[b"char"], *[b"int"] * 3, b"_s", b"_s", b"int", b"_s", b"int", b"_s", b"_s", b"int"]


def longest_sum(n_components: int) -> int:
    """Return how many roundings a term of `product_of_rows` goes through at most."""
    parts = _parts(n_components)
    return max(part.stop - part.start for part in parts) + len(parts)


def product_of_rows(left: np.ndarray, right: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Return the inner products (n_left, n_right) of rows, float32, as sums of sums of some 256 terms.

    Parameters
    ----------
    left : ndarray of shape (n_left, n_components), float32
    right : ndarray of shape (n_right, n_components), float32
    out : contiguous ndarray of shape (n_left, n_right), float32, optional
        Where to write them.
    """
    first, *others = _parts(left.shape[1])
    product: np.ndarray = np.matmul(left[:, first], right[:, first].T, out=out)
    for part in others:
        _add_product(left[:, part], right[:, part], product)
    return product


def _parts(n_components: int) -> list[slice]:
    number = max(round(n_components / _PART), 1)
    width = -(-n_components // (number * _ALIGNED)) * _ALIGNED
    return [slice(start, min(start + width, n_components)) for start in range(0, n_components, width)]


def _add_product(left: np.ndarray, right: np.ndarray, out: np.ndarray) -> None:
    step = out.itemsize
    fits = min(out.shape) >= _SMALL and out.flags.c_contiguous
    fits = fits and all(a.dtype == np.float32 and a.strides[1] == step for a in (left, right, out))
    sgemm = _sgemm() if fits else None
    if sgemm is None or any(a.strides[0] % step or a.strides[0] < a.shape[1] * step for a in (left, right)):
        out += left @ right.T
    else:
        _call(sgemm, left, right, out)


def _call(sgemm: Callable[..., None], left: np.ndarray, right: np.ndarray, out: np.ndarray) -> None:
    # BLAS counts along columns first: to it `out` is its transpose, right times left transposed.
    numbers = [right.shape[0], left.shape[0], left.shape[1], *(a.strides[0] // a.itemsize for a in (right, left, out))]
    n_right, n_left, n_terms, right_step, left_step, out_step = (ctypes.byref(ctypes.c_int(n)) for n in numbers)
    one = ctypes.byref(ctypes.c_float(1))
    yes, no = ctypes.c_char(b"T"), ctypes.c_char(b"N")
    sgemm(
        *(ctypes.byref(yes), ctypes.byref(no), n_right, n_left, n_terms),
        *(one, right.ctypes.data, right_step, left.ctypes.data, left_step),
        *(one, out.ctypes.data, out_step),
    )


@cache
def _sgemm() -> Callable[..., None] | None:
    """Return the product of scipy's BLAS if it is what it should be; it releases the lock of Python."""
    capsule: Any = cython_blas.__pyx_capi__["sgemm"]
    name_of, pointer_to = ctypes.pythonapi.PyCapsule_GetName, ctypes.pythonapi.PyCapsule_GetPointer
    name_of.restype, name_of.argtypes = ctypes.c_char_p, [ctypes.py_object]
    pointer_to.restype, pointer_to.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    name = name_of(capsule)
    types = [each.strip() for each in name.removesuffix(b" *)").split(b" *,")]
    if len(types) != len(_SIGNATURE) or not all(a.endswith(b) for a, b in zip(types, _SIGNATURE, strict=True)):
        return None
    sgemm = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * len(types))(pointer_to(capsule, name))
    return sgemm if _sums_apart(sgemm) else None


def _sums_apart(sgemm: Callable[..., None]) -> bool:
    """Return whether terms are summed before they are added to what is there."""
    for n_left, n_right in [(_SMALL, _SMALL), (_SMALL + 7, 3 * _SMALL + 5), (5 * _SMALL + 3, 4 * _SMALL + 1)]:
        out = np.full((n_left, n_right), 2.0**24, dtype=np.float32)
        left, right = (np.ones((n, _PART), dtype=np.float32) for n in out.shape)
        _call(sgemm, left, right, out)
        if (out != 2.0**24 + _PART).any():  # one by one none of them would change it
            return False
    return True
