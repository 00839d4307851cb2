"""Rows of pictures that stay unread until a batch of them is wanted."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from sklearn_mm.exceptions import ImageReadError
from sklearn_mm.images._augment import Augmentation
from sklearn_mm.images._reading import PictureReader, describe
from sklearn_mm.images._rows import Pictures, ReadFailure

__all__ = ["PictureRows", "read_crops"]


Answer = TypeVar("Answer")


class _Readers:
    """The threads that read for all batches of some rows, started with the first of them.

    They end when nobody holds the rows any more.
    """

    def __init__(self, n_threads: int) -> None:
        self.n_threads = n_threads
        self._pool: ThreadPoolExecutor | None = None

    def map(self, read: Callable[[int], Answer], positions: Iterable[int]) -> Iterator[Answer]:
        if self.n_threads == 1:
            return map(read, positions)
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.n_threads, thread_name_prefix="pictures")
        return self._pool.map(read, positions)


class PictureRows:
    """Some rows of a container of pictures, none of them read.

    Parameters
    ----------
    pictures : Pictures
    rows : ndarray of int64, optional
        Which rows, in which order; all by default.
    n_threads : int
        That read a batch. Slices of these rows share them.
    """

    def __init__(self, pictures: Pictures, rows: np.ndarray | None = None, *, n_threads: int = 1) -> None:
        self.pictures = pictures
        self.rows = np.arange(len(pictures)) if rows is None else rows
        self.readers = _Readers(n_threads)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: slice | np.ndarray) -> "PictureRows":
        """Return the rows that a slice or an int64 array chooses; they keep the numbers of the container."""
        chosen = PictureRows(self.pictures, self.rows[index])
        chosen.readers = self.readers
        return chosen


def read_crops(
    rows: PictureRows,
    reader: PictureReader,
    augmentation: Augmentation | None = None,
    rng: np.random.Generator | None = None,
) -> tuple[np.ndarray, list[ReadFailure]]:
    """Read pictures, in the threads of their rows.

    Parameters
    ----------
    rows : PictureRows
    reader : PictureReader
        That looks at the centre.
    augmentation : Augmentation, optional
        How they are changed, if `rng` is given.
    rng : numpy.random.Generator, optional

    Returns
    -------
    crops : ndarray of shape (n_rows, image_size, image_size, 3), uint8
        0 for what could not be read.
    failures : list of ReadFailure
        With rows counted in the container.
    """
    side = reader.image_size
    crops = np.zeros((len(rows), side, side, 3), dtype=np.uint8)
    read: Callable[[Any, int], np.ndarray] = lambda source, _: reader.read(source)[0]  # noqa: E731  one of two
    if augmentation is not None and augmentation.is_on and rng is not None:
        # drawn here for all rows at once: in the threads, chance would depend on which of them comes first
        changes, drawn = augmentation, augmentation.draw(len(rows), rng)
        read = lambda source, position: changes.read(reader, source, drawn[position])  # noqa: E731  the other

    def attempt(position: int) -> ReadFailure | None:
        row = int(rows.rows[position])
        source = rows.pictures.fetch(row)
        if isinstance(source, ReadFailure):
            return source
        try:
            # each thread writes rows of its own: no lock
            crops[position] = read(source, position)
        except ImageReadError as error:
            return ReadFailure(row, describe(source), str(error))
        return None

    answers = list(rows.readers.map(attempt, range(len(rows))))
    return crops, [failure for failure in answers if failure is not None]
