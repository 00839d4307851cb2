"""The pictures of a folder, and which of them a table means."""

import os
import re
from collections import defaultdict
from functools import cached_property
from pathlib import Path
from typing import Any

from sklearn_mm._picture_files import names_picture
from sklearn_mm._unicode import normal_form
from sklearn_mm.datasets._files import PictureFolder

__all__ = ["NamedPictures", "list_pictures"]

_ADDRESS = re.compile(r"[a-zA-Z][\w+.-]+://")
_LONGEST = 1000  # characters of a path
_SHOWN = 3  # files of one name


def list_pictures(folder: Path) -> list[str]:
    """Return the paths below a folder of all files that are called as pictures are, sorted; hidden ones left out."""
    found = []
    for here, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        # a Mac writes "._photo.jpg" beside "photo.jpg"
        names = [name for name in files if names_picture(name) and not name.startswith(".")]
        below = Path(here).relative_to(folder)
        found += [(below / name).as_posix() for name in names]
    return sorted(found)


class NamedPictures:
    """Finds the files that the cells of a table name.

    Parameters
    ----------
    folder : Path
        Where the pictures are, or are in folders below.
    table_folder : Path or None
        The folder of the table: paths in it may start there.
    """

    def __init__(self, folder: Path, table_folder: Path | None) -> None:
        self.folder = folder
        self._own = PictureFolder(folder)
        self._beside = PictureFolder(folder.parent)
        self._by_table = None if table_folder is None else PictureFolder(table_folder)
        self._known: dict[Any, tuple[str | None, str]] = {}

    def find(self, cell: Any) -> tuple[str | None, str]:
        """Return the path of a picture, and why there is none."""
        key = cell if isinstance(cell, str) else repr(cell)  # what stands there need not be a name
        if key not in self._known:
            self._known[key] = self._look_for(cell)
        return self._known[key]

    def is_there(self, cell: Any) -> bool:
        """Whether a cell names a picture that is there, for a guess: what only a whole search finds is not."""
        if not isinstance(cell, str | os.PathLike) or not str(cell).strip():
            return False
        return self._by_path(_plain_path(str(cell))) is not None

    def _look_for(self, cell: Any) -> tuple[str | None, str]:
        if isinstance(cell, bool | float) or not isinstance(cell, str | int | os.PathLike):
            return None, f"expected the name of a file, got {type(cell).__name__}: {cell!r:.60}"
        name = str(cell)
        if _ADDRESS.match(name):
            return None, "an address, not a file: download it, and name the file"
        name = _plain_path(name)
        found = self._by_path(name)
        if found is None and re.search(r"#\d+$", name):  # "1.jpg#0", as lists of captions number them
            name = re.sub(r"#\d+$", "", name)
            found = self._by_path(name)
        if found is not None:
            return found, ""
        return self._by_last_part(name)

    def _by_path(self, name: str) -> str | None:
        if len(name) > _LONGEST:  # no system has such paths, and some raise
            return None
        bases = [self._own]
        if "/" in name:  # a bare name is one of the folder's; paths begin where the table is, or at the folder itself
            bases += [self._beside] if name.startswith(f"{self.folder.name}/") else []
            bases += [self._by_table] if self._by_table else []
        for base in bases:
            file = base.find(name)
            if file is not None and (base.path / file).is_file():
                return os.path.normpath(base.path / file)
        return None

    def _by_last_part(self, name: str) -> tuple[str | None, str]:
        """Look through the folders below, as lists are often made elsewhere, and for numbers without a suffix."""
        key = normal_form(name.rpartition("/")[2]).lower()
        files = self._by_name.get(key) or self._by_stem.get(key, [])
        if len(files) == 1:
            return os.path.normpath(self.folder / files[0]), ""
        if files:
            more = ", ..." if len(files) > _SHOWN else ""
            return None, f"{len(files)} files may be meant: {', '.join(files[:_SHOWN])}{more}"
        return None, "no such file"

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        named: dict[str, list[str]] = defaultdict(list)
        for file in list_pictures(self.folder):
            named[normal_form(file.rpartition("/")[2]).lower()].append(file)
        return dict(named)

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        named: dict[str, list[str]] = defaultdict(list)
        for name, files in self._by_name.items():
            named[name.rpartition(".")[0]] += files
        return dict(named)


def _plain_path(name: str) -> str:
    """Return a path with the slashes that all systems read, without a leading "./"."""
    name = name.strip()
    if os.sep == "/" and "\\" in name:
        name = re.sub(r"^[a-zA-Z]:", "", name).replace("\\", "/")  # a table that was made on Windows
    return name.removeprefix("./")
