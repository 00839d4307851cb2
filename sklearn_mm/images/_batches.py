"""Rows of pictures that stay unread until a batch of them is wanted."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from sklearn_mm.exceptions import ImageReadError
from sklearn_mm.images._augment import Augmentation
from sklearn_mm.images._reading import PictureReader, describe, reason_for
from sklearn_mm.images._rows import Pictures, ReadFailure

__all__ = ["PictureRows", "read_squares"]


class PictureRows:
    """Some rows of a container of pictures, none of them read.

    Parameters
    ----------
    pictures : Pictures
    rows : ndarray of int64, optional
        Which rows, in which order; all by default.
    """

    def __init__(self, pictures: Pictures, rows: np.ndarray | None = None) -> None:
        self.pictures = pictures
        self.rows = np.arange(len(pictures)) if rows is None else rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: slice | np.ndarray) -> "PictureRows":
        """Return the rows that a slice or an int64 array chooses; they keep the numbers of the container."""
        return PictureRows(self.pictures, self.rows[index])


def read_squares(
    rows: PictureRows,
    reader: PictureReader,
    n_threads: int,
    augmentation: Augmentation | None = None,
    rng: np.random.Generator | None = None,
) -> tuple[np.ndarray, list[ReadFailure]]:
    """Read pictures in threads.

    Parameters
    ----------
    rows : PictureRows
    reader : PictureReader
        That looks at the centre.
    n_threads : int
    augmentation : Augmentation, optional
        How they are changed, if `rng` is given.
    rng : numpy.random.Generator, optional

    Returns
    -------
    squares : ndarray of shape (n_rows, image_size, image_size, 3), uint8
        0 for what could not be read.
    failures : list of ReadFailure
        With rows counted in the container.
    """
    side = reader.image_size
    squares = np.zeros((len(rows), side, side, 3), dtype=np.uint8)
    read: Callable[[Any, int], np.ndarray] = lambda source, _: reader.read(source)[0]  # noqa: E731  one of two
    if augmentation is not None and augmentation.is_on and rng is not None:
        changes, drawn = augmentation, augmentation.draw(len(rows), rng)
        read = lambda source, position: changes.read(reader, source, drawn[position])  # noqa: E731  the other

    def attempt(position: int) -> ReadFailure | None:
        row = int(rows.rows[position])
        try:
            source = rows.pictures[row]
        except (OSError, ValueError) as error:  # of a container that reads pictures itself
            return ReadFailure(row, f"row of a {rows.pictures.container}", reason_for(error))
        try:
            squares[position] = read(source, position)
        except ImageReadError as error:
            return ReadFailure(row, describe(source), str(error))
        return None

    answers: Sequence[ReadFailure | None]
    if n_threads == 1:
        answers = [attempt(position) for position in range(len(rows))]
    else:
        with ThreadPoolExecutor(n_threads, thread_name_prefix="pictures") as pool:
            answers = list(pool.map(attempt, range(len(rows))))
    return squares, [failure for failure in answers if failure is not None]
