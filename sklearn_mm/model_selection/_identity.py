"""What makes two rows of images the same: a key to compare and hash."""

import hashlib
import os
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sklearn_mm._tables import frame_column, frame_names, is_frame, is_missing, require_rows, to_list
from sklearn_mm._unicode import normal_form, same_texts

__all__ = ["image_keys", "pictures_in"]


def image_keys(X: Any, *, read_files: bool) -> list[Hashable]:
    """Return one key per row, equal for rows of the same image and no others.

    Arrays and PIL images are known by their pixels, bytes by their content, anything else that can be hashed
    (ids) by its value, a row of a table by all its cells. A path is known by its name or, with `read_files`,
    by the content of the file, where there is one. What is missing is the same as nothing else, missing or not.

    Raises
    ------
    TypeError
        X is a single string, a mapping, a set or an open file.
    """
    require_rows(X, "images")
    return [_key(row, read_files) for row in _rows(X)]


def pictures_in(X: Any) -> Iterator[tuple[int, Any]]:
    """Give the rows that may be pictures, and what each holds: a path that leads to a file, its bytes, or pixels.

    Features are none, and neither are ids, nor rows of several cells.
    """
    if hasattr(X, "tocsr"):
        return
    for number, row in enumerate(_rows(X)):
        if isinstance(row, str | os.PathLike):
            if (path := _file_of(os.fspath(row))) is not None:
                yield number, path
        elif isinstance(row, bytes | Image.Image) or getattr(row, "ndim", 0) >= 2:
            yield number, row


def _file_of(name: str | bytes) -> Path | None:
    paths = map(Path, same_texts(os.fsdecode(name)))  # macOS and lists of files spell accents otherwise
    return next(filter(Path.is_file, paths), None)


def _rows(X: Any) -> Iterator[Any]:
    if is_frame(X):  # iterating a frame gives its columns
        columns = [to_list(frame_column(X, number)) for number in range(len(frame_names(X)))]
        return iter(columns[0]) if len(columns) == 1 else zip(*columns, strict=True)
    if hasattr(X, "tocsr"):
        return (row.toarray() for row in X.tocsr())
    return iter(X) if hasattr(type(X), "__iter__") else iter(to_list(X))


def _key(row: Any, read_files: bool) -> Hashable:
    if isinstance(row, str | os.PathLike):
        name = os.fspath(row)
        if read_files:
            path = _file_of(name)
            if path is not None:
                return _digest("file", path.read_bytes())
        return ("name", normal_form(name) if isinstance(name, str) else name)
    # The kind of a file's content too: a picture as bytes is the picture in the file.
    if isinstance(row, bytes):
        return _digest("file", row)
    if isinstance(row, tuple):  # a row of a frame
        if all(map(is_missing, row)):
            return object()
        # one cell that is missing does not make a row unlike all others
        return tuple(("missing",) if is_missing(cell) else _key(cell, read_files) for cell in row)
    if is_missing(row):
        return object()
    if isinstance(row, Image.Image):
        row = row.convert("RGBA") if row.mode == "P" else row  # pixels of mode P mean nothing without the palette
    elif not hasattr(row, "__array__") and not isinstance(row, list):
        return ("id", row)
    array = np.asarray(row)
    if array.ndim == 0:
        return ("id", array.item())
    # Shape and dtype with the bytes: a row of zeros is the same bytes in many shapes.
    return _digest(f"pixels {array.shape} {array.dtype.str}", np.ascontiguousarray(array).tobytes())


def _digest(kind: str, content: bytes) -> tuple[str, bytes]:
    # A digest and not the content, so that files and pixels of a whole data set are not held.
    return kind, hashlib.blake2b(content, digest_size=16).digest()
