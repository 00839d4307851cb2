"""Files that people have: lines of text in any of their encodings, JSON, and which pictures are there."""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sklearn_mm._unicode import normal_form, same_texts

__all__ = [
    "PictureFolder",
    "check_folder",
    "check_missing_images",
    "check_split",
    "find",
    "keep_found",
    "load_json",
    "read_lines",
]


def check_folder(folder: str | os.PathLike[str], name: str) -> Path:
    """Return the folder of a data set, or say that it is none."""
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise FileNotFoundError(f"expected the folder of {name}, but {path} is not a folder")
    return path


def check_split(split: str | None, options: Sequence[str]) -> None:
    """Check the part that was asked for."""
    if split is not None and split not in options:
        raise ValueError(f"split must be None or one of {', '.join(map(repr, options))}, got {split!r}")


def check_missing_images(missing_images: str) -> None:
    """Check what is to be done about pictures that are listed, but not there."""
    if missing_images not in ("raise", "drop", "keep"):
        raise ValueError(f"missing_images must be 'raise', 'drop' or 'keep', got {missing_images!r}")


def find(folder: Path, candidates: Sequence[Path], what: str) -> Path:
    """Return the first candidate that exists, or say what was looked for."""
    for candidate in candidates:
        if candidate.exists():
            return candidate
    looked = ", ".join(str(candidate.relative_to(folder)) for candidate in candidates)
    raise FileNotFoundError(f"found no {what} in {folder}; looked for {looked}")


# Texts ------------------------------------------------------------------------------------------------------------


def read_lines(path: Path, encoding: str = "utf-8") -> Iterator[tuple[int, str]]:
    r"""Read the lines of a file that hold anything, with their numbers.

    A line ends at "\n" or "\r\n" alone: `str.splitlines` ends one at a form feed, U+0085 and U+2028 too, which stand
    inside of captions. A byte order mark is no part of the first line.

    Raises
    ------
    ValueError
        A line is not in that encoding; the message names it.
    """
    # opened as bytes: a decoder that reads ahead could not tell in which line it failed
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            try:
                line = raw.decode(encoding)
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{path}, line {number}: byte 0x{raw[error.start]:02x} is no {encoding}; if the file is of another "
                    "encoding, name it: encoding='latin-1'"
                ) from error
            line = line.removesuffix("\n").removesuffix("\r")
            if number == 1:
                line = line.removeprefix("\ufeff")
            if line.strip():
                yield number, line


def load_json(path: Path) -> Any:
    """Read a file of JSON; a broken one is named."""
    raw = path.read_bytes()
    try:
        return json.loads(raw)  # of bytes: it knows byte order marks, and UTF-16
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path} is no JSON: byte 0x{raw[error.start]:02x} in line {line} is no {error.encoding}; "
            "write the file anew as UTF-8"
        ) from error
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error


# Pictures ---------------------------------------------------------------------------------------------------------


class PictureFolder:
    """Which pictures there are below a folder; each folder is listed once, instead of a question for every file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._listed: dict[str, dict[str, str]] = {}

    def find(self, file: str) -> str | None:
        """Return the name a file has on the disk: as given, or spelt in another form of Unicode; None if it has none.

        macOS writes accents as signs of their own behind their letters, lists of files mostly do not.
        """
        below, _, name = file.rpartition("/")
        names = self._listed.get(below)
        if names is None:
            names = self._listed[below] = self._list(below)
        return names.get(name) or names.get(normal_form(name))

    def _list(self, below: str) -> dict[str, str]:
        """Map the names in a folder to the files they are of, each name also in its composed form."""
        folder = next((form for form in same_texts(below) if (self.path / form).is_dir()), None)
        if folder is None:
            return {}
        there = [entry.name for entry in os.scandir(self.path / folder)]
        names = {name: f"{folder}/{name}" if folder else name for name in there}
        for name in there:
            names.setdefault(normal_form(name), names[name])  # a file that is called so goes first
        return names


def keep_found(files: Sequence[str], found: Sequence[str | None], folder: Path, missing_images: str) -> list[int]:
    """Return the rows of pictures that are there.

    Parameters
    ----------
    files : sequence of str, length n_images
        As they are listed.
    found : sequence of (str or None), length n_images
        Where they are, or None.
    folder : Path
        Where they were looked for.
    missing_images : {"raise", "drop"}

    Raises
    ------
    FileNotFoundError
        None is there; or, with "raise", one is missing.
    """
    rows = [row for row, name in enumerate(found) if name is not None]
    if len(rows) < len(files) and (missing_images == "raise" or not rows):
        lost = next(file for file, name in zip(files, found, strict=True) if name is None)
        way_out = "missing_images='drop' leaves them out" if rows else "missing_images='keep' does without"
        raise FileNotFoundError(
            f"{len(files) - len(rows)} of {len(files)} pictures are missing in {folder}, the first is {lost}; {way_out}"
        )
    return rows
