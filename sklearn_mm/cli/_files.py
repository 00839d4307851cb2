"""Outputs that are there as a whole or not at all."""

import os
import re
import shutil
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from sklearn_mm.cli._errors import CommandError

if sys.platform != "win32":
    import fcntl

__all__ = ["check_free", "new_file", "new_folder"]

_UNIQUE_DIGITS = 12


def check_free(path: Path, force: bool) -> bool:
    """Ask whether what is there may be replaced; to be called before any long work.

    Returns
    -------
    bool
        Whether it may be replaced, now or when it is written.

    Raises
    ------
    CommandError
        It may not; or the folder that is to hold it cannot be written to.
    """
    # A link to what is not there (yet) is something too.
    if os.path.lexists(path) and not force:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise CommandError(f"{path} exists; --force replaces it, or name another with -o")
        if not click.confirm(f"{path} exists. Replace it?", err=True):
            raise CommandError(f"{path} is left as it is")
        force = True
    parent = path.absolute().parent
    existing = next(folder for folder in (parent, *parent.parents) if folder.exists())
    if not existing.is_dir():
        raise CommandError(f"{path} cannot be made: {existing} is a file")
    if not os.access(existing, os.W_OK):
        raise CommandError(f"{path} cannot be written: no permission to write to {existing}")
    return force


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Give a path to write to, beside `path`; at the end it takes its place."""
    path = path.absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    made = _beside(path, "new")
    try:
        yield made
        made.replace(path)
    finally:
        made.unlink(missing_ok=True)  # an interrupt, too


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder to write into, beside `path`; at the end it takes its place.

    What was there before stays whole until the new one is. What a process has left beside it that was killed, so that
    it could not clean up, is removed first.
    """
    path = path.absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    _clean_up_after_others(path)
    made = _beside(path, "new")
    old = made.with_suffix(".old")
    made.mkdir()
    try:
        with _held(made):
            yield made
            if os.path.lexists(path):
                path.rename(old)
            try:
                made.rename(path)
            except BaseException:
                if os.path.lexists(old):
                    old.rename(path)
                raise
    finally:
        _remove(made)
        _remove(old)


def _beside(path: Path, what: str) -> Path:
    """Return a name beside `path`, where a rename is atomic, which no other process has."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:_UNIQUE_DIGITS]}.{what}")


def _clean_up_after_others(path: Path) -> None:
    """Remove the folders beside `path` of processes that run no more; what was its content, and has no other, stays."""
    name = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{{_UNIQUE_DIGITS}}}\.(new|old)")
    for left in [each for each in path.parent.iterdir() if name.fullmatch(each.name) and each.is_dir()]:
        with _held(left.with_suffix(".new")) as nobody_has_it:
            if not nobody_has_it:
                continue
            if left.suffix == ".old" and not os.path.lexists(path):  # killed between two renames
                left.rename(path)
            else:
                _remove(left)


@contextmanager
def _held(folder: Path) -> Iterator[bool]:
    """Hold a folder until the end, which the system sees to if this process is killed; tell whether it was free.

    One that is not there is. On Windows, where folders cannot be held, none ever is.
    """
    opened, free = None, False
    if sys.platform != "win32":
        try:
            opened = os.open(folder, os.O_RDONLY)
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = True
        except FileNotFoundError:
            free = True
        except OSError:  # held, or another user's; or the file system has no locks, and nobody can tell
            free = False
    try:
        yield free
    finally:
        if opened is not None:
            os.close(opened)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
