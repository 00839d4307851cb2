"""Pictures in tar archives, as WebDataset lays them out."""

import lzma
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import Any

from sklearn_mm._picture_files import names_picture
from sklearn_mm.scaling._sources import FileRows

__all__ = ["TarRows"]

_N_COUNTING = 8  # archives counted at once: most of it is waiting for the disk


class TarRows(FileRows):
    """A row for each picture in the archives, whose id is its key: its name up to the first dot."""

    kind = "tar"

    def _count(self, paths: Sequence[str]) -> Iterable[int]:
        with ThreadPoolExecutor(_N_COUNTING, thread_name_prefix="archives") as pool:
            return list(pool.map(lambda path: sum(1 for _ in _pictures(path)), paths))

    def _read(self, path: str, start: int, stop: int) -> Iterator[tuple[str, bytes]]:
        for place, (archive, member) in enumerate(_pictures(path)):
            if place >= stop:
                return
            if place >= start:
                file = archive.extractfile(member)
                yield _key(member.name), b"" if file is None else file.read()


def _pictures(path: str) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """Yield the pictures of an archive; of the others the headers alone are read, where it is not compressed."""
    try:
        with tarfile.open(path) as archive:
            while (member := archive.next()) is not None:
                # it keeps them all, for looking up by name; typeshed does not know the list
                archive.members = []  # type: ignore[attr-defined]
                name = PurePosixPath(member.name)
                if member.isreg() and not name.name.startswith(".") and names_picture(name.name):
                    yield archive, member
            _check_end(archive)
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise OSError(f"cannot read the archive {path!r}: {error}; is it complete?") from error


def _check_end(archive: tarfile.TarFile) -> None:
    """Check that it is the end, and not a header that was cut off or damaged: tarfile stops at either without a word.

    Raises
    ------
    tarfile.TarError
        It is not.
    """
    file: Any = archive.fileobj
    file.seek(archive.offset)
    if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
        raise tarfile.ReadError("the header of a member is damaged")


def _key(name: str) -> str:
    path = PurePosixPath(name)
    return str(path.with_name(path.name.partition(".")[0]))
