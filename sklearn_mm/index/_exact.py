"""Exact search by the largest inner product, block by block, in all threads."""

from typing import Any

import numpy as np

from sklearn_mm._checks import check_k
from sklearn_mm.index._scan import Items, lengths_of, scan
from sklearn_mm.index._vectors import check_rows, check_vectors
from sklearn_mm.registry import stored_as

__all__ = ["ExactIndex"]

_DTYPES = ("float32", "float16", "int8")


@stored_as("index.ExactIndex")
class ExactIndex:
    """Find the items of largest inner product by comparing with every one of them.

    Vectors are taken as they are: of unit length, the inner product is the cosine.

    Parameters
    ----------
    dtype : {"float32", "float16", "int8"}, default="float32"
        What items are kept as: 4, 2 or 1 bytes a component. "float16" rounds them (of unit vectors, scores change by
        0.0005 at most); "int8" takes whole numbers from -128 to 127, such as ternary features, and changes nothing.
        Answers are exact for the items as they are kept. Queries are never rounded.

    Attributes
    ----------
    n_components : int or None
        Length of the vectors; None before the first are added.

    See Also
    --------
    FaissIndex : The same interface over any index of faiss.
    recall_against_exact : How many of the neighbours an approximate index finds.

    Notes
    -----
    Time is that of the product of queries and items, plus about a tenth; with 16 queries or more on a processor that
    multiplies bfloat16 (AMX, AVX-512 BF16) the product is in it, and takes a fraction. Memory beyond the items, which
    are copied, is a block of scores (some 10 MB) for each thread. Threads are as many as BLAS and torch have been
    given. The fast product only picks candidates: whatever its rounding could have kept out of the first k is scored
    again in float64. The answer does not depend on blocks, threads, the processor or the BLAS.

    Any number of threads may search at the same time; `add` and `remove` take an index that no other thread uses.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_mm.index import ExactIndex
    >>> index = ExactIndex().add(np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]))
    >>> scores, indices = index.search(np.array([[0.0, 2.0]]), k=2)
    >>> indices
    array([[1, 2]])
    >>> scores
    array([[2. , 1.6]], dtype=float32)
    >>> index.search(np.array([[0.0, 2.0]]), k=1, rows=[0, 2])[1]
    array([[2]])
    """

    def __init__(self, *, dtype: str = "float32") -> None:
        self.dtype = dtype
        self._parts: list[np.ndarray] = []
        self._longest = 0.0

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({"dtype": "float32", **state})  # older ones lack it

    def __len__(self) -> int:
        return sum(len(part) for part in self._parts)

    @property
    def n_components(self) -> int | None:
        """Length of the vectors; None before the first are added."""
        return self._parts[0].shape[1] if self._parts else None

    def add(self, X: Any, *, copy: bool = True) -> "ExactIndex":
        """Add items after those that are there.

        Parameters
        ----------
        X : array-like of shape (n, n_components)
            Vectors; kept as `dtype`.
        copy : bool, default=True
            False keeps X itself where it is of that dtype: then it must not be changed any more.

        Returns
        -------
        ExactIndex
            The index itself.

        Raises
        ------
        ValueError
            X is empty, of another width than what is there, or holds NaN, infinity or what `dtype` cannot hold; or
            `dtype` is none of its options.
        """
        if self.dtype not in _DTYPES:
            raise ValueError(f"dtype must be one of {_DTYPES}, got {self.dtype!r}")
        part = check_vectors(X, "X", self.n_components, self.dtype)
        # already a copy where the dtype or the layout had to change
        self._parts.append(part.copy() if copy and np.may_share_memory(part, X) else part)
        self._longest = max(self._longest, float(lengths_of(part).max()))
        return self

    def remove(self, rows: Any) -> "ExactIndex":
        """Take items out; those behind them move up.

        Parameters
        ----------
        rows : array-like of shape (n_rows,), int, or mask of shape (n_items,), bool
            Places of the items.

        Returns
        -------
        ExactIndex
            The index itself.

        Raises
        ------
        ValueError
            `rows` names no items of the index.
        """
        removed = check_rows(rows, len(self))
        parts, first = [], 0
        for part in self._parts:
            low, high = np.searchsorted(removed, [first, first + len(part)])
            first += len(part)
            # Parts that stay as they are are not copied; the first one also tells the width when nothing is left.
            left = part if low == high else np.delete(part, removed[low:high] - (first - len(part)), axis=0)
            parts.append(left)
        self._parts = [part for part in parts if len(part)] or parts[:1]
        return self

    def search(self, Q: Any, k: int, *, rows: Any = None) -> tuple[np.ndarray, np.ndarray]:
        """Find the k items of largest inner product with each query.

        Parameters
        ----------
        Q : array-like of shape (n_query, n_components)
            Queries.
        k : int
            How many items to find, at most as many as there are.
        rows : array-like of shape (n_rows,), int, or mask of shape (n_items,), bool, optional
            Search among these items alone; their places stay what they are.

        Returns
        -------
        scores : ndarray of shape (n_query, k), float32
            Inner products, largest first.
        indices : ndarray of shape (n_query, k), int64
            Places of the items in the order in which they were added; among equal scores the lower first.

        Raises
        ------
        ValueError
            k is no int between 1 and the number of items, or Q is of another width than the items or holds
            NaN or infinity, or `rows` names no items of the index.
        """
        searched = None if rows is None else check_rows(rows, len(self))
        k = check_k(k, len(self) if searched is None else len(searched))
        queries = check_vectors(Q, "Q", self.n_components)
        return scan(Items(self._parts, self._longest, searched), queries, k)
