"""Means and variances of columns, gathered block by block."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from sklearn_mm.registry import stored_as

__all__ = ["RunningMoments", "column_statistics", "discretise", "inverse", "standardise", "ternary_limits"]

_STATISTICS_BLOCK = 1024  # rows held as float64 at once
_LEAST_SCALE = 0.1  # of the median scale, under a head


@stored_as("towers.RunningMoments")
@dataclass
class RunningMoments:
    """Mean and sum of squared deviations of each column, merged exactly in float64.

    Attributes
    ----------
    n_rows : int
        Rows seen.
    mean : ndarray of shape (d,), float64
        Their mean.
    squares : ndarray of shape (d,), float64
        Sum of their squared deviations from it.
    resolution : float
        Relative spacing of the coarsest floats seen.

    Notes
    -----
    Rows are taken relative to the mean so far (the first row, to begin with), so that a constant column has
    squared deviations of exactly 0, and large means cost no digits.

    References
    ----------
    T. F. Chan, G. H. Golub and R. J. LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample
    Variances", COMPSTAT 1982.
    """

    n_rows: int = 0
    mean: np.ndarray = field(default_factory=lambda: np.zeros(0))
    squares: np.ndarray = field(default_factory=lambda: np.zeros(0))
    resolution: float = 0.0

    def update(self, rows: np.ndarray, dtype: Any = None) -> None:
        """Take in rows of shape (n, d), float32 or float64; `dtype` is the coarser one that they were rounded to."""
        if len(rows) == 0:
            return
        if self.n_rows == 0:
            self.mean = rows[0].astype(np.float64)
            self.squares = np.zeros_like(self.mean)
        # The pairwise formula of the reference: a block about its own mean, then n_a * n_b / (n_a + n_b) times the
        # squared distance of both means.
        offsets = rows - self.mean  # (n, d), float64
        shift = offsets.mean(axis=0)
        offsets -= shift
        n_all = self.n_rows + len(rows)
        self.squares += np.einsum("ij,ij->j", offsets, offsets)
        self.squares += shift**2 * (self.n_rows * len(rows) / n_all)
        self.mean = self.mean + shift * (len(rows) / n_all)
        self.n_rows = n_all
        # eps of the dtype that came in: a float32 column is rounded to float32, however it is summed.
        self.resolution = max(self.resolution, float(np.finfo(dtype or rows.dtype).eps))

    def merge(self, other: "RunningMoments") -> None:
        """Take in the rows that another has seen, of the same columns."""
        if other.n_rows == 0:
            return
        if self.n_rows == 0:
            self.mean, self.squares = other.mean.copy(), other.squares.copy()
        else:
            shift = other.mean - self.mean
            n_all = self.n_rows + other.n_rows
            self.squares = self.squares + other.squares + shift**2 * (self.n_rows * other.n_rows / n_all)
            self.mean = self.mean + shift * (other.n_rows / n_all)
        self.n_rows += other.n_rows
        self.resolution = max(self.resolution, other.resolution)

    @property
    def scale(self) -> np.ndarray:
        """Standard deviations (of the population), float64; 0 where a column varies less than its floats do."""
        scale = np.sqrt(self.squares / self.n_rows)
        # What is left of a constant is rounding, a few units of its last place; divided by that it would be noise of
        # size 1.
        scale[scale <= 4 * self.resolution * np.abs(self.mean)] = 0.0
        return scale

    def for_head(self) -> tuple[Tensor, Tensor]:
        """Return the mean and the scale that a head on top standardises by, float32, where rows were a sample.

        Columns that hardly vary in the sample are not blown up to noise.
        """
        mean, scale = torch.from_numpy(self.mean), torch.from_numpy(self.scale)
        # The median is 0 where half of the columns are constant; then the largest scale is the least, and 1 where all
        # are.
        least = _LEAST_SCALE * float(scale.median()) or float(scale.max()) or 1.0
        return mean.float(), scale.clamp(min=least).float()


def standardise(rows: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return ``(rows - mean) / scale``, float32, 0 where the scale is 0."""
    return ((rows - mean) * inverse(scale)).astype(np.float32)


def inverse(scale: np.ndarray) -> np.ndarray:
    """Return ``1 / scale``, 0 where the scale is 0."""
    # `where` leaves out the division by 0; what it leaves out is not set, but by `out`.
    return np.divide(1.0, scale, out=np.zeros_like(scale), where=scale > 0)


def ternary_limits(
    mean: np.ndarray, scale: np.ndarray, thresholds: tuple[float, float], dtype: np.dtype
) -> tuple[np.ndarray, np.ndarray]:
    """Return the values of `dtype` below which a column is -1 and above which it is +1.

    The limits, float64, are rounded outwards of the interval that is 0, so that comparing values of a coarser
    `dtype` with them answers as comparing with the exact limits would.
    """
    low, high = (np.where(scale > 0, mean + threshold * scale, np.nan) for threshold in thresholds)
    coarse_low, coarse_high = low.astype(dtype), high.astype(dtype)
    coarse_low = np.where(coarse_low < low, np.nextafter(coarse_low, dtype.type(np.inf)), coarse_low)
    coarse_high = np.where(coarse_high > high, np.nextafter(coarse_high, dtype.type(-np.inf)), coarse_high)
    return coarse_low, coarse_high


def discretise(rows: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return +1 above `high`, -1 below `low`, 0 between and where the limits are NaN: int8."""
    # A bool is a byte of 0 or 1, so that the view is free. Comparing with NaN is false on both sides: 0.
    return np.subtract((rows > high).view(np.int8), (rows < low).view(np.int8))


def column_statistics(X: Any, index: np.ndarray) -> tuple[Tensor, Tensor]:
    """Compute what standardises some rows' features: mean and scale, two float32 tensors of shape (n_features,).

    Dense features get each its own mean and scale, in blocks without a float copy of the whole. Sparse ones are
    divided by one number, their root mean square, so that rare terms are not blown up.
    """
    n_features = X.shape[1]
    blocks = (index[start : start + _STATISTICS_BLOCK] for start in range(0, len(index), _STATISTICS_BLOCK))
    if sparse.issparse(X):
        squares = sum(float((X[block].data.astype(np.float64) ** 2).sum()) for block in blocks)
        # The root mean square over all entries, those that are 0 too. No mean is taken off, or no entry would be 0.
        scale = np.sqrt(squares / (len(index) * n_features))
        return torch.zeros(n_features), torch.full((n_features,), float(scale))
    moments = RunningMoments()
    for block in blocks:
        moments.update(X[block].astype(np.float32, copy=False))  # int8 has no resolution of its own
    return torch.from_numpy(moments.mean).float(), torch.from_numpy(moments.scale).float()
