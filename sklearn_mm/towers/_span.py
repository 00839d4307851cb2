"""The span of some rows: an orthonormal basis, and the coordinates in it."""

import torch
from torch import Tensor

__all__ = ["root_of_gram", "span_of"]

_GRAM_ROWS = 512


def span_of(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return an orthonormal basis of what rows span, and their coordinates in it.

    Parameters
    ----------
    rows : Tensor of shape (n, d), float32

    Returns
    -------
    basis : Tensor of shape (n, d), float32
        Orthonormal rows; less long where rows are alike.
    coordinates : Tensor of shape (n, n), float32
        ``rows @ basis.T``, without that product.
    """
    gram = _gram(rows)
    root = root_of_gram(gram.double()).float()
    coordinates = torch.linalg.solve_triangular(root, gram, upper=False).T
    return torch.linalg.solve_triangular(root, rows, upper=False), coordinates


def _gram(rows: Tensor) -> Tensor:
    """Return the products of rows with each other, (n, n): one half of them is computed."""
    gram = rows.new_empty(len(rows), len(rows))
    for start in range(0, len(rows), _GRAM_ROWS):
        stop = min(start + _GRAM_ROWS, len(rows))
        gram[start:stop, :stop] = rows[start:stop] @ rows[:stop].T
        gram[:start, start:stop] = gram[start:stop, :start].T
    return gram


def root_of_gram(gram: Tensor) -> Tensor:
    """Return the root of a Gram matrix of float32 rows, some of which may be alike."""
    jitter = 1e-5 * float(gram.diagonal().mean()) or 1.0
    while True:
        root, failed = torch.linalg.cholesky_ex(gram + jitter * torch.eye(len(gram), dtype=gram.dtype).to(gram.device))
        if not int(failed):
            return root
        jitter *= 10  # of a matrix as large as its diagonal the root exists
