"""Search through any index that faiss can build."""

from numbers import Integral
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from sklearn_mm._checks import check_k
from sklearn_mm.index._files import read_facts, write_folder
from sklearn_mm.index._vectors import check_rows, check_vectors
from sklearn_mm.registry import stored_as

__all__ = ["FaissIndex"]

_FAISS, _KEPT = "index.faiss", "kept.npy"


@stored_as("index.FaissIndex")
class FaissIndex:
    """Find items of large inner product through faiss, exactly or nearly so.

    Needs the package ``faiss-cpu`` (``pip install sklearn-mm[faiss]``), or a build of faiss for GPUs.

    Parameters
    ----------
    factory : str, default="Flat"
        What faiss is to build, in its own language: "Flat" (exact), "IVF1024,Flat", "HNSW32",
        "OPQ16,IVF4096,PQ16", ... An index that needs training is trained on the first items added.
    nprobe : int, default=None
        How many of the lists of an index by inverted files ("IVF...") a query looks into: the more, the more
        neighbours are found, and the longer it takes. None leaves faiss' own number, 1. May be set anew at any time,
        as may the next.
    ef_search : int, default=None
        How many candidates a graph ("HNSW...") keeps while it searches, as the index or as that which finds the lists
        of another; None leaves faiss' own number, 16.

    Attributes
    ----------
    n_components : int or None
        Length of the vectors; None before the first are added.

    See Also
    --------
    ExactIndex : The same interface, exact, without faiss.
    recall_against_exact : How many of the neighbours this one finds.

    Notes
    -----
    The order of items with equal scores is faiss's. An approximate index may find fewer than k items: the
    places left over hold index -1 and score minus infinity. Pickles hold the index as faiss serialises it,
    and need faiss to be opened.

    Any number of threads may search at the same time; `add` and `remove` take an index that no other thread uses.

    References
    ----------
    .. [1] "The index factory", https://github.com/facebookresearch/faiss/wiki/The-index-factory

    Examples
    --------
    >>> from sklearn_mm.index import FaissIndex
    >>> index = FaissIndex("IVF256,Flat")  # built by faiss when the first items are added
    >>> len(index)
    0
    """

    def __init__(self, factory: str = "Flat", *, nprobe: int | None = None, ef_search: int | None = None) -> None:
        self.factory = factory
        self.nprobe = nprobe
        self.ef_search = ef_search
        self._index: Any = None
        self._kept: np.ndarray | None = None  # what faiss calls the items that are left; None is all

    def __len__(self) -> int:
        if self._kept is not None:
            return len(self._kept)
        return 0 if self._index is None else int(self._index.ntotal)

    @property
    def n_components(self) -> int | None:
        """Length of the vectors; None before the first are added."""
        return None if self._index is None else int(self._index.d)

    def add(self, X: Any) -> "FaissIndex":
        """Add items; the first call builds the index, and trains it on X.

        Parameters
        ----------
        X : array-like of shape (n, n_components)
            Vectors; stored as the index stores them.

        Returns
        -------
        FaissIndex
            The index itself.

        Raises
        ------
        ValueError
            X is empty, of another width than what is there, or holds NaN or infinity; or faiss cannot build
            what `factory` says, or not train it on X, or `nprobe` or `ef_search` is of no meaning for it.
        ImportError
            faiss is not installed.
        """
        faiss = _import_faiss()
        vectors = check_vectors(X, "X", self.n_components)
        if self._index is None:
            index = self._build(faiss, vectors)
            self._tune(faiss, index)
            self._index = index
        if self._kept is not None:
            n_items = int(self._index.ntotal)
            self._kept = np.append(self._kept, np.arange(n_items, n_items + len(vectors)))
        self._index.add(vectors)
        return self

    def remove(self, rows: Any) -> "FaissIndex":
        """Take items out; those behind them move up.

        faiss keeps their vectors, which no search finds any more: few of its indexes can give them up.

        Parameters
        ----------
        rows : array-like of shape (n_rows,), int, or mask of shape (n_items,), bool
            Places of the items.

        Returns
        -------
        FaissIndex
            The index itself.

        Raises
        ------
        ValueError
            `rows` names no items of the index.
        """
        removed = check_rows(rows, len(self))
        if len(removed):
            kept = np.arange(len(self)) if self._kept is None else self._kept
            self._kept = np.delete(kept, removed)
        return self

    def _build(self, faiss: ModuleType, vectors: np.ndarray) -> Any:
        try:
            index = faiss.index_factory(vectors.shape[1], self.factory, faiss.METRIC_INNER_PRODUCT)
            # k-means of inverted lists, codebooks of quantisers; flat and graph indexes need none
            if not index.is_trained:
                index.train(vectors)
        except RuntimeError as error:
            raise ValueError(
                f"faiss cannot build factory={self.factory!r} from {len(vectors)} vectors of "
                f"{vectors.shape[1]} components: {error}"
            ) from error
        return index

    def _tune(self, faiss: ModuleType, index: Any) -> None:
        """Bring the parameters of the search into an index, whatever it is wrapped in."""
        asked: tuple[tuple[str, Any, tuple[str, ...]], ...] = (
            ("nprobe", self.nprobe, ("nprobe",)),
            ("ef_search", self.ef_search, ("efSearch", "quantizer_efSearch")),  # of a graph which finds the lists
        )
        for name, value, theirs in asked:
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
                raise ValueError(f"{name} must be an int of at least 1, or None, got {value!r}")
            if not any(_is_set(faiss, index, each, int(value)) for each in theirs):
                raise ValueError(
                    f"{name}={value}, but factory={self.factory!r} builds an index that has no such number"
                )

    def search(self, Q: Any, k: int, *, rows: Any = None) -> tuple[np.ndarray, np.ndarray]:
        """Find k items of large inner product with each query.

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
            Inner products, or what a quantised index makes of them, largest first.
        indices : ndarray of shape (n_query, k), int64
            Places of the items in the order in which they were added, -1 where none was found.

        Raises
        ------
        ValueError
            k is no int between 1 and the number of items, or Q is of another width than the items or holds
            NaN or infinity, or `rows` names no items of the index; or faiss cannot search some of the items of what
            `factory` builds.
        """
        searched = None if rows is None else check_rows(rows, len(self))
        k = check_k(k, len(self) if searched is None else len(searched))
        if self.nprobe is not None or self.ef_search is not None:  # which may have been set since
            self._tune(_import_faiss(), self._index)
        queries = check_vectors(Q, "Q", self.n_components)
        if searched is None and self._kept is None:
            scores, indices = self._index.search(queries, k)
        else:
            scores, indices = self._search_some(queries, k, searched)
        scores[indices < 0] = -np.inf
        return scores, indices

    def _search_some(self, queries: np.ndarray, k: int, rows: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Search among some rows of what is left."""
        faiss, kept = _import_faiss(), self._kept
        theirs = kept if rows is None else rows if kept is None else kept[rows]
        mask = np.zeros(int(self._index.ntotal), dtype=bool)
        mask[theirs] = True
        bits = np.packbits(mask, bitorder="little")  # faiss looks into it as long as it searches
        selector = faiss.IDSelectorBitmap(bits)
        try:
            scores, indices = self._index.search(queries, k, params=_search_parameters(faiss, self._index, selector))
        except RuntimeError as error:
            raise ValueError(
                f"faiss cannot search some items alone, or without those removed, of an index of "
                f"factory={self.factory!r}; use ExactIndex, or another factory such as 'IVF1024,Flat' ({error})"
            ) from error
        if kept is not None:
            indices = np.where(indices < 0, -1, np.searchsorted(kept, indices))
        return scores, indices

    def save(self, path: Any) -> None:
        """Write the index into a folder, which then appears whole, in faiss' own format.

        Parameters
        ----------
        path : path
            The folder. An index that was saved there before is replaced.

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
            _import_faiss().write_index(self._index, str(folder / _FAISS))
            if self._kept is not None:
                np.save(folder / _KEPT, self._kept)

        facts = {"factory": self.factory, "nprobe": self.nprobe, "ef_search": self.ef_search}
        write_folder(path, "FaissIndex", {**facts, "removed": self._kept is not None}, write)

    @classmethod
    def load(cls, path: Any, *, mmap: bool = True) -> "FaissIndex":
        """Open an index that `save` has written.

        Parameters
        ----------
        path : path
            The folder.
        mmap : bool, default=True
            Leave what faiss can in its file, mapped into memory; False reads all, as is needed to add more.

        Returns
        -------
        FaissIndex

        Raises
        ------
        FileNotFoundError, ValueError
            The folder holds no index, or one of another kind or version.
        """
        faiss = _import_faiss()
        folder, facts = read_facts(path, cls.__name__)
        index = cls(facts["factory"], nprobe=facts["nprobe"], ef_search=facts["ef_search"])
        flags = getattr(faiss, "IO_FLAG_MMAP_IFC", faiss.IO_FLAG_MMAP) if mmap else 0
        index._index = faiss.read_index(str(folder / _FAISS), flags)
        index._kept = np.load(folder / _KEPT, allow_pickle=False) if facts["removed"] else None
        return index

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        if self._index is not None:
            # faiss' objects are C++ behind a pointer, which no pickle can follow
            state["_index"] = _import_faiss().serialize_index(self._index).tobytes()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({"nprobe": None, "ef_search": None, "_kept": None, **state})  # older ones lack these
        if self._index is not None:
            self._index = _import_faiss().deserialize_index(np.frombuffer(state["_index"], dtype=np.uint8))


def _search_parameters(faiss: ModuleType, index: Any, selector: Any) -> Any:
    """Return parameters of a search among some items, which have to be of the kind of the index."""
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexPreTransform):
        own = faiss.SearchParametersPreTransform()
        own.index_params = _search_parameters(faiss, index.index, selector)
        own.kept_alive = own.index_params  # C++ holds a bare pointer
        return own
    if isinstance(index, faiss.IndexIVF):
        return faiss.SearchParametersIVF(sel=selector, nprobe=index.nprobe)
    if isinstance(index, faiss.IndexHNSW):
        return faiss.SearchParametersHNSW(sel=selector, efSearch=index.hnsw.efSearch)
    return faiss.SearchParameters(sel=selector)


def _is_set(faiss: ModuleType, index: Any, name: str, value: int) -> bool:
    """Set a parameter of a search; return whether the index has it."""
    try:
        faiss.ParameterSpace().set_index_parameter(index, name, value)
    except RuntimeError:
        return False
    return True


def _import_faiss() -> ModuleType:
    try:
        import faiss
    except ImportError as error:
        raise ImportError(
            "FaissIndex needs faiss: pip install faiss-cpu, or use ExactIndex, which needs no more than is installed"
        ) from error
    return faiss
