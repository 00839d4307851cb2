"""Containers of pictures: which are tables of numbers after all, and how to get at a row."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import numpy as np
from PIL import Image
from scipy import sparse

from sklearn_mm.exceptions import ImageReadError
from sklearn_mm.images._reading import describe, is_its_own, is_open_file, reason_for
from sklearn_mm.registry import stored_as

__all__ = ["Pictures", "ReadFailure", "check_sequence", "is_table", "read_ahead"]

Answer = TypeVar("Answer")
_STORED = {"bytes", "path"}
_ONE_PICTURE = (str, os.PathLike, bytes, bytearray, memoryview, Image.Image)


@stored_as("images.ReadFailure")
class ReadFailure(NamedTuple):
    """A row whose picture could not be read.

    Attributes
    ----------
    row : int
        Its position in what was passed.
    source : str
        The path, or a description of what stood there.
    reason : str
        Why it could not be read.
    """

    row: int
    source: str
    reason: str


class Pictures(Sequence[Any]):
    """Rows of pictures, whatever holds them.

    Parameters
    ----------
    X : sequence, array, tensor, Series, DataFrame of one column, or anything with a length and ``X[row]``
        See `PictureReader` for what a picture may be. Of a pair of a picture and its label, as data sets of torchvision
        give them, the picture is taken, and of a mapping of "bytes" and "path", as those of Hugging Face store them,
        what is there.

    Attributes
    ----------
    container : str
        Name of the type of X.
    is_lazy : bool
        Whether getting at a row may cost as much as reading a picture.

    Raises
    ------
    TypeError
        X is one picture, a mapping or a set, or has no length; the message says what to pass.
    ValueError
        X is empty.
    """

    def __init__(self, X: Any) -> None:
        self.container = type(X).__name__
        check_sequence(X)
        if not (hasattr(X, "__getitem__") and hasattr(X, "__len__")):
            what_to_do = "pass its dataset" if hasattr(X, "dataset") else "make it a list"
            raise TypeError(f"expected a sequence of pictures, got {self.container}; {what_to_do}")
        if _is_polars_frame(X):
            X = X.to_series(0)
        self.is_lazy = not (isinstance(X, list | tuple | np.ndarray) or hasattr(X, "iloc") or hasattr(X, "to_frame"))
        if hasattr(X, "iloc"):
            X = X.iloc[:, 0] if X.ndim == 2 else X
            # by position: an index after a split or a shuffle has other numbers
            self._get: Callable[[int], Any] = X.iloc.__getitem__
        elif isinstance(X, np.ndarray) and X.ndim == 2:  # of objects: is_table() has seen to that
            self._get = X[:, 0].__getitem__
        else:
            self._get = X.__getitem__
        self._n = len(X)
        if self._n == 0:
            raise ValueError("expected at least one picture, got an empty sequence (0 sample(s))")

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, row: Any) -> Any:
        entry = self._get(row)
        if isinstance(entry, tuple) and _is_labeled(entry):
            entry = entry[0]
        if isinstance(entry, Mapping) and entry and entry.keys() <= _STORED:
            return entry.get("path") if entry.get("bytes") is None else entry["bytes"]
        return entry

    def fetch(self, row: int) -> Any:
        """Return the picture of a row, or a ReadFailure where the container cannot give it."""
        try:
            return self[row]
        except Exception as error:  # a container that reads pictures itself may raise anything
            if not is_its_own(error):
                raise
            return ReadFailure(row, f"row of a {self.container}", reason_for(error))


def check_sequence(X: Any) -> None:
    """Refuse what is one picture, has no order, or can be read once only.

    Raises
    ------
    TypeError
        It is; the message says what to pass.
    """
    if isinstance(X, _ONE_PICTURE) or is_open_file(X):
        raise TypeError(f"expected a sequence of pictures, got one ({describe(X)}); wrap it in a list")
    name = type(X).__name__
    if isinstance(X, Mapping):
        raise TypeError(f"expected a sequence of pictures, got a {name}; pass its values or its keys as a list")
    if isinstance(X, Set):
        raise TypeError(f"expected a sequence of pictures, got a {name}, whose order means nothing; make it a list")
    if isinstance(X, Iterator):
        raise TypeError(f"expected a sequence of pictures, got a {name}, which can be read once; make it a list")


def _is_polars_frame(X: Any) -> bool:
    return hasattr(X, "to_series") and hasattr(X, "get_columns")  # a pandas Index has the first


def _is_labeled(pair: tuple[Any, ...]) -> bool:
    """Whether a row is a picture and what stands for it, and not a row of a table or two pictures."""
    if len(pair) != 2:
        return False
    picture, label = pair
    is_picture = isinstance(picture, _ONE_PICTURE) or is_open_file(picture) or _n_dimensions(picture) > 1
    return is_picture and not isinstance(label, Image.Image) and _n_dimensions(label) < 2


def _n_dimensions(entry: Any) -> int:
    return len(getattr(entry, "shape", ()))


def is_table(X: Any) -> bool:
    """Whether X is numbers in rows and columns (or would be, but for an error), and so no pictures."""
    if sparse.issparse(X):
        return True
    if isinstance(X, Mapping | Set | Iterator) or is_open_file(X):
        return False  # nor a sequence of pictures, which is said by whoever wants one
    if _is_polars_frame(X):
        return X.shape[1] != 1 or _is_numeric(X.dtypes[0])
    if hasattr(X, "iloc") and X.ndim == 2:
        return X.shape[1] != 1 or _is_numeric(X.dtypes.iloc[0])
    if hasattr(X, "shape") and hasattr(X, "dtype"):
        if _is_numeric(X.dtype):
            # one row of numbers too, so that the table's own check can say what is wrong with it
            return len(X.shape) < 3
        return len(X.shape) != 1 and not (len(X.shape) == 2 and X.shape[1] == 1 and _is_picture(X[0, 0]))
    if isinstance(X, list | tuple):
        # one picture is enough: what is wrong with the others is said row by row
        return not any(_is_picture(entry) for entry in X)
    if isinstance(X, _ONE_PICTURE):
        return False
    if not (hasattr(X, "__len__") and hasattr(X, "__getitem__")):
        return hasattr(X, "__array__") or not hasattr(X, "__iter__")
    try:
        # one row alone: of a lazy container each may cost the reading of a picture
        return len(X) > 0 and not _is_picture(X[0])
    except Exception as error:
        if not is_its_own(error):
            raise
        return False  # a row that cannot be read, which is reported with its number


def _is_numeric(dtype: Any) -> bool:
    if hasattr(dtype, "is_numeric"):  # of polars
        return bool(dtype.is_numeric())
    return getattr(dtype, "kind", "O") in "biufc" or str(dtype).startswith("torch.")


def _is_picture(entry: Any) -> bool:
    """Whether an entry of a sequence is a picture, good or bad, and no number or row of numbers."""
    if isinstance(entry, tuple) and _is_labeled(entry):
        return True
    if isinstance(entry, list | tuple):
        # nested lists may be pixels; a flat one is a row of a table
        return len(entry) > 0 and isinstance(entry[0], list | tuple)
    if entry is None or isinstance(entry, _ONE_PICTURE) or is_open_file(entry):
        return True
    # a mapping is no number either, and is refused with its row if it holds no file
    return isinstance(entry, Mapping) or _n_dimensions(entry) > 1


def read_ahead(
    read: Callable[[Any], Answer],
    pictures: Pictures,
    rows: Iterable[int],
    n_threads: int,
    n_ahead: int,
    n_together: int = 1,
) -> Generator[tuple[int, Answer | ReadFailure], None, None]:
    """Apply `read` to the pictures of some rows in threads, a few rows ahead of the caller.

    Parameters
    ----------
    read : callable
        Takes a picture; an ImageReadError it raises becomes a ReadFailure.
    pictures : Pictures
        The container; its rows are fetched in the threads too.
    rows : iterable of int
        Which rows, in the order wanted.
    n_threads : int
        How many threads.
    n_ahead : int
        How many pictures may be read and not yet asked for: what is read while the caller is busy.
    n_together : int, default=1
        How many a thread is handed at once. Handing over takes some 50 us: as much as what takes no longer itself.

    Yields
    ------
    row : int
        As in `rows`.
    answer : Answer or ReadFailure
        What `read` returned for it.
    """

    def attempt(row: int) -> Answer | ReadFailure:
        source = pictures.fetch(row)
        if isinstance(source, ReadFailure):
            return source
        try:
            return read(source)
        except ImageReadError as error:
            return ReadFailure(row, describe(source), str(error))

    def attempt_all(those: Sequence[int]) -> list[tuple[int, Answer | ReadFailure]]:
        return [(row, attempt(row)) for row in those]

    pool = ThreadPoolExecutor(n_threads, thread_name_prefix="pictures")
    waiting: deque[Future[list[tuple[int, Answer | ReadFailure]]]] = deque()
    left = iter(rows)
    try:
        while those := list(islice(left, n_together)):
            waiting.append(pool.submit(attempt_all, those))
            if len(waiting) * n_together > n_ahead:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        # also where the caller stops in the middle: nothing is read that nobody wants
        pool.shutdown(wait=True, cancel_futures=True)
