"""What is embedded: rows in one order, of which any range can be read without those before it being held."""

import glob
import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import accumulate, islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from sklearn_mm._params import check_path

__all__ = ["Block", "FileRows", "PathRows", "Rows", "blocks_of", "is_tar", "list_files"]

_TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_SIGNS = frozenset("*?[")


class Block(NamedTuple):
    """Some rows that follow each other.

    Attributes
    ----------
    start : int
        The number of the first.
    ids : list of str
        What the source calls them.
    items : list
        Pictures (paths or the bytes of files), or texts.
    """

    start: int
    ids: list[str]
    items: list[Any]


class Rows(Protocol):
    """Rows of a source; pickled for the processes that read them."""

    kind: str
    n_rows: int

    def identity(self) -> str:
        """Digest what would change the rows: names, and sizes of the files that hold many."""
        ...

    def items(self, start: int, stop: int) -> Iterator[tuple[str, Any]]:
        """Yield the id and the picture, or text, of each row of a range."""
        ...


def blocks_of(rows: Rows, start: int, stop: int, size: int) -> Iterator[Block]:
    """Yield the rows of a range, `size` at a time."""
    items = rows.items(start, stop)
    for first in range(start, stop, size):
        taken = list(islice(items, min(size, stop - first)))
        if len(taken) < min(size, stop - first):
            raise OSError(f"the source ended at row {first + len(taken)} of {rows.n_rows}: has it changed meanwhile?")
        yield Block(first, [name for name, _ in taken], [item for _, item in taken])


class PathRows:
    """A row for each path, or for each text.

    Parameters
    ----------
    paths : list of str
    folder : str, optional
        What the paths are relative to; they are their own ids.
    """

    kind = "paths"

    def __init__(self, paths: list[str], folder: str | None = None) -> None:
        self._paths, self._folder = paths, folder
        self.n_rows = len(paths)

    def identity(self) -> str:
        """Digest the paths."""
        return digest_of(self._paths)

    def items(self, start: int, stop: int) -> Iterator[tuple[str, Any]]:
        """Yield the id and the path of each row of a range."""
        for path in self._paths[start:stop]:
            yield path, path if self._folder is None else os.path.join(self._folder, path)  # noqa: PTH118  for each row


@dataclass(frozen=True)
class _File:
    path: str
    n_bytes: int
    n_rows: int


class FileRows:
    """Rows in files that hold many; the file names its kind by how it is counted and read."""

    kind: str

    def __init__(self, paths: Sequence[str]) -> None:
        self._files = [
            _File(path, Path(path).stat().st_size, n) for path, n in zip(paths, self._count(paths), strict=True)
        ]
        self._ends = list(accumulate(file.n_rows for file in self._files))
        self.n_rows = self._ends[-1] if self._ends else 0

    def identity(self) -> str:
        """Digest the names, sizes and numbers of rows of the files, wherever they lie."""
        return digest_of(f"{Path(file.path).name}\n{file.n_bytes}\n{file.n_rows}" for file in self._files)

    def items(self, start: int, stop: int) -> Iterator[tuple[str, Any]]:
        """Yield the id and the picture of each row of a range."""
        place = bisect_right(self._ends, start)
        while start < stop:
            file = self._files[place]
            first = self._ends[place] - file.n_rows  # of this file, among all rows
            last = min(stop, self._ends[place])
            yield from self._read(file.path, start - first, last - first)
            start, place = last, place + 1

    def _count(self, paths: Sequence[str]) -> Iterable[int]:
        raise NotImplementedError

    def _read(self, path: str, start: int, stop: int) -> Iterator[tuple[str, Any]]:
        raise NotImplementedError


def digest_of(texts: Iterable[str]) -> str:
    """Digest texts in their order: 64 hexadecimal digits."""
    digest = sha256()
    for text in texts:
        # surrogatepass: names of files may hold bytes that are no text; NUL is in no path
        digest.update(text.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()


def is_tar(path: str) -> bool:
    """Whether a file is an archive, by its name."""
    return path.lower().endswith(_TAR_SUFFIXES)


def list_files(source: Any, suffixes: tuple[str, ...]) -> tuple[list[str], str | None]:
    """List the files of a folder, recursively, or those that a pattern stands for, in the order of their names.

    Returns
    -------
    paths : list of str
        Relative to the folder, if it is one.
    folder : str or None

    Raises
    ------
    FileNotFoundError
        There is no such file or folder, or nothing fits the pattern.
    """
    check_path(source, "source")
    path = os.fspath(source)
    if Path(path).is_dir():
        return sorted(_below(Path(path), suffixes)), path
    if Path(path).exists():
        return [path], None
    if not _SIGNS & set(path):
        raise FileNotFoundError(f"no such file or folder: {path!r}")
    found = sorted(name for name in glob.glob(path, recursive=True) if not Path(name).is_dir())  # noqa: PTH207  a whole path
    if not found:
        raise FileNotFoundError(f"no file fits the pattern {path!r}")
    return found, None


def _below(folder: Path, suffixes: tuple[str, ...]) -> Iterator[str]:
    for parent, _, names in os.walk(folder):
        for name in names:
            # "._photo.jpg" lies beside "photo.jpg" on what a Mac wrote, and is no picture
            if not name.startswith(".") and name.lower().endswith(suffixes):
                yield (Path(parent) / name).relative_to(folder).as_posix()
