"""The few coordinates of wide rows whose covariances are gathered."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from sklearn_mm.registry import stored_as
from sklearn_mm.retrieval._pair_rows import BLOCK_NUMBERS, WeightedRows
from sklearn_mm.towers import inverse, root_of_gram, span_of

__all__ = ["CoordinateRows", "Coordinates", "Drawn", "fit_coordinates"]

_KEPT_BYTES = 2**28  # of coordinates of rows: of more than these they are computed block by block, each time
_BASIS_ROWS = 20_000  # rows that the basis of sparse columns is learnt on
_BASIS_PASSES = 1  # of power iteration


@stored_as("retrieval.Coordinates")
@dataclass
class Coordinates:
    """From features to the few coordinates whose covariances are gathered.

    Attributes
    ----------
    shift : ndarray of shape (n_features,), float64
        Taken from features first: their mean when the coordinates were made.
    starts : list of int
        Where each block of columns starts, and where the last one ends.
    bases : list of (ndarray of shape (n_columns, n_coordinates), float32, or None)
        Of each block; None leaves its columns as they are.
    """

    shift: np.ndarray
    starts: list[int]
    bases: list[np.ndarray | None]

    @property
    def blocks(self) -> list[slice]:
        """The columns of each block."""
        return [slice(start, stop) for start, stop in pairwise(self.starts)]

    @property
    def block_of(self) -> np.ndarray:
        """The block of each coordinate, shape (n_coordinates,), int64."""
        widths = [
            (block.stop - block.start) if basis is None else basis.shape[1]
            for block, basis in zip(self.blocks, self.bases, strict=True)
        ]
        return np.repeat(np.arange(len(widths)), widths)

    @property
    def dtype(self) -> torch.dtype:
        """float64, or float32 where a basis has rounded to that already: sums over them take half the time."""
        return torch.float64 if all(basis is None for basis in self.bases) else torch.float32

    def of(self, rows: Any, device: torch.device) -> Tensor:
        """Return the coordinates of some rows, dense or sparse: (n, n_coordinates) `dtype`."""
        if isinstance(rows, CoordinateRows):
            return rows.table
        parts = [self._of_block(rows, *block, device) for block in zip(self.blocks, self.bases, strict=True)]
        return parts[0].to(self.dtype) if len(parts) == 1 else torch.cat([part.to(self.dtype) for part in parts], dim=1)

    def once(self, rows: Any, device: torch.device, drawn: "Drawn | None" = None) -> Any:
        """Return what stands for rows from now on: their coordinates where these are fewer and fit into memory.

        Parameters
        ----------
        rows : {ndarray, csr_array} of shape (n_rows, n_features)
        device : torch.device
        drawn : Drawn, optional
            Of which rows they are known.
        """
        width = len(self.block_of)
        if all(basis is None for basis in self.bases) or 4 * rows.shape[0] * width > _KEPT_BYTES:
            return rows
        table = torch.empty(rows.shape[0], width, dtype=self.dtype, device=device)
        left = np.ones(rows.shape[0], dtype=bool)
        if drawn is not None:
            table[torch.from_numpy(drawn.rows).to(device)] = drawn.coordinates
            left[drawn.rows] = False
        places = np.flatnonzero(left)
        step = max(1, BLOCK_NUMBERS // rows.shape[1])
        for start in range(0, len(places), step):
            own = places[start : start + step]
            table[torch.from_numpy(own).to(device)] = self.of(rows[own], device)
        return CoordinateRows(table)

    def _of_block(self, rows: Any, columns: slice, basis: np.ndarray | None, device: torch.device) -> Tensor:
        own = rows if columns == slice(0, rows.shape[1]) else rows[:, columns]
        shift = self.shift[columns]
        if sparse.issparse(own):
            if basis is None:
                return torch.from_numpy(own.toarray() - shift).to(device)
            # The zeros of rows stay what they are: it is their image that is shifted.
            return torch.from_numpy(own @ basis - (shift @ basis).astype(np.float32)).to(device)
        block = torch.from_numpy(np.require(own, requirements=["C", "W"])).to(device)
        moved = block.double() - torch.from_numpy(shift).to(device)
        return moved if basis is None else moved.float() @ torch.from_numpy(basis).to(device)

    def columns_of(self, maps: np.ndarray) -> np.ndarray:
        """Return a map of coordinates, (n_coordinates, n), as one of features: (n_features, n) float32."""
        start, parts = 0, []
        for columns, basis in zip(self.blocks, self.bases, strict=True):
            width = (columns.stop - columns.start) if basis is None else basis.shape[1]
            own = maps[start : start + width].astype(np.float32)
            parts.append(own if basis is None else basis @ own)
            start += width
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


@dataclass(frozen=True)
class CoordinateRows:
    """Rows that are given by their coordinates.

    Attributes
    ----------
    table : Tensor of shape (n_rows, n_coordinates)
    """

    table: Tensor

    def __getitem__(self, rows: np.ndarray) -> "CoordinateRows":
        return CoordinateRows(self.table[torch.from_numpy(rows).to(self.table.device)])


class Drawn(NamedTuple):
    """Rows in whose span coordinates are: `rows` of shape (n,), int64, and `coordinates` (n, n_coordinates)."""

    rows: np.ndarray
    coordinates: Tensor


def fit_coordinates(
    rows: WeightedRows,
    starts: Sequence[int],
    n_reduced: int,
    *,
    standardise: bool,
    rng: np.random.Generator,
    device: torch.device,
) -> tuple[Coordinates, Drawn | None]:
    """Choose coordinates: the columns of a block as they are, or of more than `n_reduced` a basis of as many.

    Parameters
    ----------
    rows : rows of images, or of the means of their texts
    starts : sequence of int
        Where each block starts, and where the last one ends.
    n_reduced : int
    standardise : bool
        Whether columns are divided by their deviations before a basis is chosen.
    rng : Generator
    device : torch.device

    Returns
    -------
    coordinates : Coordinates
    drawn : Drawn or None
        Of the weighted rows, those that a basis of all columns spans.
    """
    shift, scale = rows.statistics()
    bases: list[np.ndarray | None] = []
    drawn = None
    for start, stop in pairwise(starts):
        if stop - start <= n_reduced:
            bases.append(None)
            continue
        columns = slice(start, stop)
        weight = inverse(scale[columns]) if standardise else np.ones(stop - start)
        given = (rows, columns, shift[columns], weight, n_reduced, rng, device)
        if rows.is_sparse:
            bases.append(_sparse_basis(*given))
        else:
            basis, drawn = _dense_basis(*given)
            bases.append(basis)
    return Coordinates(shift, [int(start) for start in starts], bases), drawn if len(bases) == 1 else None


def _dense_basis(
    rows: WeightedRows,
    columns: slice,
    shift: np.ndarray,
    weight: np.ndarray,
    n_reduced: int,
    rng: np.random.Generator,
    device: torch.device,
) -> tuple[np.ndarray, Drawn]:
    """Return an orthonormal basis of the span of some rows, drawn at random (Nystroem), or of all; and these rows."""
    # One product of the rows drawn, where principal components take several passes over all: on Flickr8k's validation
    # part RSum 342.7 against 344.4.
    chosen = np.sort(rng.permutation(rows.n_rows)[:n_reduced])
    own = rows.take(chosen)[:, columns]
    sample = torch.from_numpy(((own - shift) * weight).astype(np.float32)).to(device)  # (n_chosen, n_columns)
    basis, coordinates = span_of(sample)
    return _numpy(basis.T * torch.from_numpy(weight.astype(np.float32)).to(device)[:, None]), Drawn(chosen, coordinates)


def _sparse_basis(
    rows: WeightedRows,
    columns: slice,
    shift: np.ndarray,
    weight: np.ndarray,
    n_reduced: int,
    rng: np.random.Generator,
    device: torch.device,
) -> np.ndarray:
    """Return a basis of about the principal directions of sparse rows: their zeros are never filled."""
    chosen = np.sort(rng.permutation(rows.n_rows)[:_BASIS_ROWS])
    own = sparse.csr_array(rows.take(chosen)[:, columns].multiply(weight[None, :]), dtype=np.float32)
    share = np.sqrt(rows.weight[chosen] / rows.weight[chosen].mean()).astype(np.float32)
    own = sparse.csr_array(own.multiply(share[:, None]))
    moved = (shift * weight).astype(np.float32)

    def onto(directions: np.ndarray) -> np.ndarray:
        return own @ directions - np.outer(share, moved @ directions)

    def back(scores: np.ndarray) -> np.ndarray:
        return own.T @ scores - np.outer(moved, share @ scores)

    n_kept = min(n_reduced, own.shape[0], own.shape[1])
    # On the side of the rows, which are mostly fewer than the columns.
    scores = onto(rng.standard_normal((own.shape[1], n_kept), dtype=np.float32))
    for _ in range(_BASIS_PASSES):
        scores = onto(back(_orthonormal(scores, device)))
    directions = _orthonormal(back(_orthonormal(scores, device)), device)
    return np.ascontiguousarray(directions * weight.astype(np.float32)[:, None])


def _orthonormal(columns: np.ndarray, device: torch.device) -> np.ndarray:
    """Return columns that span the same, by the root of their Gram matrix: a product, where a QR takes longer."""
    tall = torch.from_numpy(columns).to(device)
    root = root_of_gram((tall.T @ tall).double()).float()
    return _numpy(torch.linalg.solve_triangular(root, tall.T, upper=False).T)


def _numpy(tensor: Tensor) -> np.ndarray:
    array: np.ndarray = np.ascontiguousarray(tensor.cpu().numpy())
    return array
