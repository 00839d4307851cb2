"""What rows of features hold, told apart by digests."""

from hashlib import blake2b
from typing import Any

import numpy as np
from scipy import sparse

__all__ = ["row_digests"]


def row_digests(X: Any) -> list[bytes]:
    """Digest the rows of a dense or sparse matrix: equal rows, equal digests."""
    if sparse.issparse(X):
        # scipy lets the values of a row stand in any order, in several parts, and zeros among them; a copy, as bringing
        # them to one form would change the caller's matrix.
        X = X.tocsr(copy=True)
        X.sum_duplicates()
        X.eliminate_zeros()
        # scipy chooses between them by what else a matrix holds
        indices = X.indices.astype(np.int32 if X.shape[1] <= np.iinfo(np.int32).max else np.int64, copy=False)
        bounds = list(zip(X.indptr[:-1], X.indptr[1:], strict=True))
        return [blake2b(indices[a:b].tobytes() + X.data[a:b].tobytes(), digest_size=16).digest() for a, b in bounds]
    # 0 is added for the zeros below 0, which equal those above it, but in no byte
    signed = np.asarray(X).dtype.kind == "f"
    rows = (row + 0 if signed else row for row in X)
    return [blake2b(np.ascontiguousarray(row).tobytes(), digest_size=16).digest() for row in rows]
