"""Exact search by the largest inner product, block by block, in all threads."""

import sys
from pathlib import Path
from typing import Any

import numpy as np

from sklearn_mm._checks import check_k
from sklearn_mm.index._files import read_facts, write_folder
from sklearn_mm.index._scan import Items, lengths_of, scan
from sklearn_mm.index._vectors import check_rows, check_vectors
from sklearn_mm.registry import stored_as

__all__ = ["ExactIndex"]

_VECTORS = "vectors.npy"
_DTYPES = ("float32", "float16", "int8")
_SMALL_PART = 2**14  # items, as many as a search takes at once


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
        self._parts: list[Any] = []  # of arrays, or of tensors on a GPU
        self._longest = 0.0

    def __getstate__(self) -> dict[str, Any]:
        # What was on a GPU opens where there is none.
        return {**self.__dict__, "_parts": [_in_memory(part) for part in self._parts]}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({"dtype": "float32", **state})  # older ones lack it

    def __len__(self) -> int:
        return sum(len(part) for part in self._parts)

    @property
    def n_components(self) -> int | None:
        """Length of the vectors; None before the first are added."""
        return int(self._parts[0].shape[1]) if self._parts else None

    def add(self, X: Any, *, copy: bool = True) -> "ExactIndex":
        """Add items after those that are there.

        Parameters
        ----------
        X : array-like of shape (n, n_components)
            Vectors; kept as `dtype`. A tensor of torch on a GPU stays there, where it is then searched; all items are
            on one device.
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
        if self._parts and _is_elsewhere(X) != _is_elsewhere(self._parts[0]):
            raise ValueError("all items must be on one device, got some in memory and some on a GPU; move them first")
        if _is_elsewhere(X):
            self._add_on_device(X, copy)
            return self
        part = check_vectors(X, "X", self.n_components, self.dtype)
        # already a copy where the dtype or the layout had to change
        self._parts.append(part.copy() if copy and np.may_share_memory(part, X) else part)
        self._longest = max(self._longest, float(lengths_of(part).max()))
        self._join_small_parts()
        return self

    def _join_small_parts(self) -> None:
        """Join the last parts while they are small and of about one size: a search takes a step for each part.

        Each vector is copied as often as the number of parts is halved, however many calls bring one item each.
        """
        while (
            len(self._parts) > 1
            and len(self._parts[-2]) <= 2 * len(self._parts[-1])
            and len(self._parts[-2]) + len(self._parts[-1]) <= _SMALL_PART
        ):
            self._parts[-2:] = [np.concatenate(self._parts[-2:])]

    def _add_on_device(self, X: Any, copy: bool) -> None:
        from sklearn_mm.index._device_scan import check_tensor, longest_of

        if self._parts and X.device != self._parts[0].device:
            raise ValueError(f"all items must be on one device, got {X.device} and {self._parts[0].device}")
        part = check_tensor(X, self.n_components, self.dtype)
        self._parts.append(part.clone() if copy and part.data_ptr() == X.data_ptr() else part)
        self._longest = max(self._longest, longest_of(part))

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
            left = part
            if low < high:
                kept = np.ones(len(part), dtype=bool)
                kept[removed[low:high] - (first - len(part))] = False
                left = part[kept] if isinstance(part, np.ndarray) else part[np.flatnonzero(kept)]
            parts.append(left)
        self._parts = [part for part in parts if len(part)] or parts[:1]
        return self

    def take(self, rows: Any) -> np.ndarray:
        """Return the vectors of some items as they are kept.

        Parameters
        ----------
        rows : array-like of shape (n_rows,), int, or mask of shape (n_items,), bool
            Places of the items.

        Returns
        -------
        ndarray of shape (n_rows, n_components), `dtype`
            A copy, in the order of `rows`; of a mask in that of the items.

        Raises
        ------
        ValueError
            `rows` names no items of the index.
        """
        wanted = check_rows(rows, len(self))  # ascending, each once
        taken = np.empty((len(wanted), self.n_components or 0), dtype=self.dtype)
        first = 0
        for part in self._parts:
            low, high = np.searchsorted(wanted, [first, first + len(part)])
            if low < high:
                places = wanted[low:high] - first
                whole = high - low == len(part)
                taken[low:high] = _in_memory(part if whole else part[places])
            first += len(part)
        asked = np.asarray(rows)
        if asked.dtype == bool or np.array_equal(asked, wanted):
            return taken
        return taken[np.searchsorted(wanted, asked)]

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
        queries = check_vectors(Q.cpu() if _is_elsewhere(Q) else Q, "Q", self.n_components)
        if _is_elsewhere(self._parts[0]):
            from sklearn_mm.index._device_scan import scan_on_device

            return scan_on_device(Items(self._parts, self._longest, searched), queries, k)
        return scan(Items(self._parts, self._longest, searched), queries, k)

    def save(self, path: Any) -> None:
        """Write the index into a folder, which then appears whole: vectors as ``.npy``, and what they are as JSON.

        Parameters
        ----------
        path : path
            The folder. An index that was saved there before is replaced; one that is mapped from there goes on.

        Raises
        ------
        ValueError
            The index holds no items.
        FileExistsError
            There is something else.
        """
        if not len(self):
            raise ValueError("expected an index that holds items, got an empty one; add items before saving it")

        def write(folder: Path) -> None:
            # part by part: no second copy of all
            out = np.lib.format.open_memmap(folder / _VECTORS, mode="w+", dtype=self.dtype, shape=self._shape)
            first = 0
            for part in self._parts:
                out[first : first + len(part)] = _in_memory(part)
                first += len(part)
            out.flush()

        write_folder(
            path, "ExactIndex", {"dtype": self.dtype, "shape": [*self._shape], "longest": self._longest}, write
        )

    @property
    def _shape(self) -> tuple[int, int]:
        return len(self), self._parts[0].shape[1]

    @classmethod
    def load(cls, path: Any, *, mmap: bool = True) -> "ExactIndex":
        """Open an index that `save` has written.

        Parameters
        ----------
        path : path
            The folder.
        mmap : bool, default=True
            Leave the vectors in their file, mapped into memory: opening takes no time, processes share them, and they
            may be more than fits into memory. False reads them.

        Returns
        -------
        ExactIndex
            More items can be added to it: in memory, not in the file.

        Raises
        ------
        FileNotFoundError, ValueError
            The folder holds no index, or one of another kind or version, or its vectors are not what it says.
        """
        folder, facts = read_facts(path, cls.__name__)
        vectors = np.load(folder / _VECTORS, mmap_mode="r" if mmap else None, allow_pickle=False)
        index = cls(dtype=facts["dtype"])
        if [*vectors.shape] != facts["shape"] or vectors.dtype != index.dtype:
            raise ValueError(
                f"{folder / _VECTORS} must hold {facts['shape']} numbers of {index.dtype}, as {folder} says, got "
                f"{[*vectors.shape]} of {vectors.dtype}; save the index again"
            )
        index._parts, index._longest = [np.asarray(vectors)], facts["longest"]
        return index


def _is_elsewhere(X: Any) -> bool:
    """Return whether X is a tensor that numpy cannot see."""
    if "torch" not in sys.modules:  # then it is none
        return False
    from sklearn_mm.index._device_scan import is_elsewhere

    return is_elsewhere(X)


def _in_memory(part: Any) -> np.ndarray:
    return part if isinstance(part, np.ndarray) else part.cpu().numpy()
