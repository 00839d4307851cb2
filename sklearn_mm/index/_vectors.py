"""What both indexes ask of the vectors they are given."""

from typing import Any

import numpy as np

from sklearn_mm._unreadable import refuse_unreadable

__all__ = ["check_vectors"]

# Of two vectors of this length the inner product, and every sum on the way to it, is well within float32 (3e38).
_LONGEST = 1e18


def check_vectors(X: Any, name: str, n_components: int | None) -> np.ndarray:
    """Return X as a contiguous float32 array of shape (n, n_components), finite and so short that products are too."""
    refuse_unreadable(X)
    with np.errstate(over="ignore"):  # float64 beyond float32 is reported below, with its row
        array = np.ascontiguousarray(np.asarray(X), dtype=np.float32)
    if array.ndim != 2 or not array.size:
        raise ValueError(f"{name} must be a non-empty array of shape (n, n_components), got shape {array.shape}")
    if n_components is not None and array.shape[1] != n_components:
        raise ValueError(f"{name} has {array.shape[1]} components, but the index holds vectors of {n_components}")
    finite = np.isfinite(array).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"{name} holds NaN, infinity or a value beyond float32 in row {int(np.argmin(finite))} "
            f"and {np.count_nonzero(~finite) - 1} other rows"
        )
    # The largest entry alone first: lengths cost a float64 copy.
    if max(array.max(), -array.min()) * np.sqrt(array.shape[1]) > _LONGEST:
        too_long = np.linalg.norm(array.astype(np.float64), axis=1) > _LONGEST
        if too_long.any():
            raise ValueError(
                f"{name} holds a vector longer than {_LONGEST:g} in row {int(np.argmax(too_long))} and "
                f"{np.count_nonzero(too_long) - 1} other rows: its inner products would leave float32; scale all "
                "vectors down"
            )
    return array
