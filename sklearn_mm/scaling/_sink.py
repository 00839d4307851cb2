"""A folder of shards, each written beside its place, moved there, and only then noted as done."""

import json
import os
import shutil
import socket
import uuid
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sklearn_mm._params import check_path
from sklearn_mm.exceptions import ShardWarning
from sklearn_mm.scaling._lock import lock, unlock
from sklearn_mm.scaling._manifest import MANIFEST, Manifest, Shard, ShardFile

__all__ = ["ShardFolder", "Sink"]

_RECORDS, _LOCK, _TEMPORARY = "records", ".lock", ".writing"


class ShardFolder:
    """Where shards go; what processes that write them share.

    Parameters
    ----------
    folder : Path
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def room(self, number: int) -> Iterator[Path]:
        """Yield the stem of temporary files for a shard; they are gone when it ends.

        Raises
        ------
        OSError
            There is no room.
        """
        folder = self.folder / _TEMPORARY / uuid.uuid4().hex
        with self.writes(number):
            folder.mkdir(parents=True)
        try:
            yield folder / f"part-{number:06d}"
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def writes(self, number: int) -> Iterator[None]:
        """Say of what cannot be written that the shards before are not lost."""
        try:
            yield
        except OSError as error:
            raise OSError(
                error.errno,
                f"shard {number} cannot be written ({error.strerror or error}); those that are finished stay valid: "
                "make room, and the same call goes on from there",
                str(self.folder),
            ) from error

    def finish(self, shard: Shard, paths: Sequence[Path]) -> Shard:
        """Move the files of a shard to their places, and note it as done."""
        files = []
        for path in paths:
            _sync(path)
            files.append(ShardFile.of(path, path.name))
        for path in paths:
            path.replace(self.folder / path.name)
        done = replace(shard, files=tuple(files))
        self._write_json(f"{_RECORDS}/{shard.number:06d}.json", done.to_json())
        return done

    def _write_json(self, name: str, content: Any) -> None:
        """Write a file in one step: whoever reads it sees the old one or the new one."""
        # where a run that goes on removes it, if this one is killed before it is moved
        temporary = self.folder / _TEMPORARY / uuid.uuid4().hex
        temporary.parent.mkdir(exist_ok=True)
        try:
            # dumps writes ASCII: names of files may hold bytes that are no text, and come back as they were
            temporary.write_text(json.dumps(content, allow_nan=False), encoding="utf-8")
            _sync(temporary)
            temporary.replace(self.folder / name)
        finally:
            temporary.unlink(missing_ok=True)

    def records(self) -> list[Shard]:
        """Return the shards done since the manifest was written."""
        paths = sorted((self.folder / _RECORDS).glob("*.json"))
        return [Shard.from_json(json.loads(path.read_text(encoding="utf-8"))) for path in paths]


class Sink(ShardFolder):
    """A folder of shards that this process alone drives; a context manager.

    Parameters
    ----------
    folder : path
        Made if it is not there.
    header : dict
        Whose shards these are.
    resume : bool
        Whether to go on with what is there, or to remove it.

    Attributes
    ----------
    done : dict of int to Shard
        By number.

    Raises
    ------
    BlockingIOError
        Another run writes to it.
    FileExistsError
        The folder holds something else.
    ValueError
        What is there was written by another estimator, from another source, or in another way.
    """

    def __init__(self, folder: str | os.PathLike[str], header: dict[str, Any], resume: bool) -> None:
        check_path(folder, "sink")
        super().__init__(Path(folder).absolute())
        self._header, self._resume = header, resume
        self.done: dict[int, Shard] = {}

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._file = (self.folder / _LOCK).open("a+")
        try:
            if not lock(self._file):
                self._file.seek(0)
                owner = self._file.read().strip() or "another process"
                raise BlockingIOError(
                    f"another run ({owner}) writes to {str(self.folder)!r}; wait for it, or name another sink"
                )
            self._file.truncate(0)
            self._file.write(f"process {os.getpid()} on {socket.gethostname()}")
            self._file.flush()
            self._begin()
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.folder / _TEMPORARY, ignore_errors=True)
        # the file stays: a run that waits for it would lock one that nobody sees any more
        unlock(self._file)
        self._file.close()

    def _begin(self) -> None:
        shutil.rmtree(self.folder / _TEMPORARY, ignore_errors=True)  # of a run that was killed
        path = self.folder / MANIFEST
        if path.exists():
            if self._resume:
                self._go_on(Manifest.open(self.folder))
            else:
                self._remove()
        else:
            # a run that was killed before its manifest has left no more than these
            others = sorted({each.name for each in self.folder.iterdir()} - {_LOCK, _RECORDS})
            if others:
                raise FileExistsError(
                    f"{str(self.folder)!r} holds {others[0]!r} and no {MANIFEST}: it is no sink; name a new folder"
                )
            shutil.rmtree(self.folder / _RECORDS, ignore_errors=True)
        (self.folder / _RECORDS).mkdir(exist_ok=True)
        # one file that knows all, whatever becomes of the records
        self._write(complete=False)

    def _go_on(self, found: Manifest) -> None:
        known = {shard.number: shard for shard in [*found.shards, *self.records()]}
        if not known:
            return  # nothing would be mixed up
        for what, was, now in _differences(found.header, self._header):
            raise ValueError(
                f"the shards in {str(self.folder)!r} were written {what} ({was}, now {now}); name another sink, or "
                "begin anew with resume=False, which removes them"
            )
        for number, shard in sorted(known.items()):
            broken = [file.name for file in shard.files if not file.is_whole(self.folder, digest=False)]
            if not broken:
                self.done[number] = shard
                continue
            warnings.warn(
                f"{broken[0]!r} in {str(self.folder)!r} is missing, or not of the size that was written: shard "
                f"{number} is written again",
                ShardWarning,
                stacklevel=5,  # whoever calls the public function
            )

    def _remove(self) -> None:
        found = Manifest.open(self.folder)
        for shard in [*found.shards, *self.records()]:
            for file in shard.files:
                (self.folder / file.name).unlink(missing_ok=True)
        shutil.rmtree(self.folder / _RECORDS, ignore_errors=True)
        (self.folder / MANIFEST).unlink()

    def complete(self) -> Manifest:
        """Write the manifest of all shards, and return it."""
        manifest = self._write(complete=True)
        shutil.rmtree(self.folder / _RECORDS)  # the manifest holds them now
        return manifest

    def _write(self, *, complete: bool) -> Manifest:
        shards = tuple(self.done[number] for number in sorted(self.done))
        manifest = Manifest(self.folder, self._header, shards, complete)
        self._write_json(MANIFEST, manifest.to_json())
        return manifest


def _differences(was: dict[str, Any], now: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield what tells two runs apart, so that one cannot go on with the shards of the other."""
    parts = (
        ("for something else", "purpose"),
        ("by a transformer of another class", "transformer", "class"),
        ("by another transformer: its parameters, or what it has learnt, differ", "transformer", "fingerprint"),
        ("by another version of sklearn_mm", "versions", "sklearn_mm"),
        ("from a source of another kind", "source", "kind"),
        ("from a source of another number of rows", "source", "n_rows"),
        ("from another source: names or sizes of its files differ", "source", "identity"),
        ("with another shard_size", "shard_size"),
        ("in another format", "shard_format"),
    )
    for what, *path in parts:
        old, new = (_at(header, path) for header in (was, now))
        if old != new:
            yield what, str(old), str(new)


def _at(header: Any, path: Sequence[str]) -> Any:
    for name in path:
        header = header.get(name) if isinstance(header, dict) else None
    return header


def _sync(path: Path) -> None:
    """See to it that the content is on the disk before the name is: a loss of power would leave an empty file."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
