"""A folder of pictures and a table of what is known of them, as one data set."""

import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.utils import Bunch
from tqdm.auto import tqdm

from sklearn_mm._joined import joined_by, split_joined, split_printed
from sklearn_mm._unreadable import summarise
from sklearn_mm.datasets._column_roles import Roles, find_roles, is_text_name
from sklearn_mm.datasets._files import check_folder, read_lines
from sklearn_mm.datasets._named_pictures import NamedPictures, list_pictures
from sklearn_mm.datasets._tables_of_files import Table, table_of
from sklearn_mm.exceptions import ImageReadWarning

__all__ = ["load_folder"]

_SIDECARS = (".txt", ".caption")
# what cameras and programs call pictures
_SAY_NOTHING = {
    "img", "image", "images", "dsc", "dscn", "dscf", "pxl", "pict", "photo", "picture", "pic", "foto", "scan", "mvimg",
    "screenshot", "whatsapp", "signal", "snapchat", "untitled", "unnamed", "copy", "file", "frame",
}  # fmt: skip
_INDICATORS = {0, 1, "0", "1", "0.0", "1.0", None}


def load_folder(
    folder: str | os.PathLike[str],
    table: Any = None,
    *,
    image: str | None = None,
    text: str | Sequence[str] | bool | None = None,
    labels: str | Sequence[str] | bool | None = None,
    tags: str | Sequence[str] | bool | None = None,
    sep: str | None = "auto",
    check: bool | str = True,
    verbose: int = 1,
) -> Bunch:
    r"""Load a folder of pictures of yours, with their captions or labels.

    Parameters
    ----------
    folder : path-like
        Where the pictures are, or are in folders below.
    table : path, DataFrame or None, default=None
        What is known of them: CSV, TSV or other lines with a delimiter, JSONL, Parquet, JSON in the form of COCO, of
        Karpathy, of a list of objects or of an object from pictures to captions; or a frame of pandas, polars or
        pyarrow. A path is looked for as it stands, and then in `folder`. A picture may have one row, or a row for each
        caption. None takes all pictures below the folder, and for the text of each "photo.txt" beside "photo.jpg", a
        caption a line, or else the words in its name.
    image : str, default=None
        The column of pictures: paths in `folder`, or from where the table is. None guesses by names ("image", "file",
        "path", ...) and by what is there.
    text : str, list of str or False, default=None
        The column of captions, or several. None guesses by names ("caption", "text", "sentence", ...), and then by what
        reads as sentences; False takes none.
    labels : str, list of str or False, default=None
        The column of labels, or several; several columns of 0 and 1 are labels by their names. None guesses by names
        ("label", "category", "tags", ...) where there are no captions; False takes none.
    tags : str, list of str or False, default=None
        The column of tags, for `MultiLabelAnnotator`, where there are labels as well. It is not guessed.
    sep : str or None, default="auto"
        What stands between labels, or tags, in one cell: "dog, grass". "auto" tells by whether the parts recur; None is
        for cells that hold one each.
    check : bool or "headers", default=True
        Whether to decode each picture, which alone tells a damaged one; "headers" opens each, and tells what is no
        picture; False only looks whether files are there.
    verbose : int, default=1
        Whether to say which columns were taken, on standard error, and to show a progress bar.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        images : list of str, length n_images
            Paths of the pictures, each once, in the order of their first rows: X of `fit`, of splits and of scorers.
        captions : list of list of str
            The captions of each picture, if there are any.
        target : list of list of labels
            The labels of each picture, if there are any; some may have none.
        tags : list of list of str
            The tags of each picture, if they were asked for.
        ids : list of str
            The paths below `folder`, with slashes; of a picture elsewhere its path.
        metadata : DataFrame of n_images rows
            The other columns, one row a picture; those are left out of which the rows of one picture differ. Numbers in
            files of text are numbers. Without pandas a dict of lists.
        split : ndarray of shape (n_images,), str
            The part of each picture, where a column "split" tells it.
        dropped : list of (row, path, reason)
            Pictures that are left out: missing, broken, or without a caption; with their first row, counted from 0.
        columns : dict of str to str, or list of str
            The column that each role was given: "image", "text", "labels", "tags", "split".
        DESCR : str
            What was read, and how.

    Raises
    ------
    FileNotFoundError
        There is no such folder or table, or none of the pictures is there; the message says where they were looked for.
    ValueError
        There is no column, or more than one, that may be what is needed; a file is malformed (the message names the
        line), or no picture is left.
    TypeError
        `table` is neither a path nor a frame, or a parameter is no name of a column.

    Warns
    -----
    ImageReadWarning
        Pictures are left out. Their captions and labels go with them.

    See Also
    --------
    sklearn_mm.retrieval.make_search_pipeline : What may be fitted on it.
    load_flickr8k, load_coco_captions : Data sets by their names.

    Notes
    -----
    A path that is not there is looked for by its last part in all folders below, as many tables were made on another
    machine; so is a name without a suffix. Where several files may be meant, the picture is left out.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from PIL import Image
    >>> from sklearn_mm.datasets import load_folder
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> for name in ("1.jpg", "2.jpg"):
    ...     Image.new("RGB", (8, 8)).save(folder / name)
    >>> _ = (folder / "captions.csv").write_text("file,caption\n1.jpg,a dog\n2.jpg,a cat\n1.jpg,it barks\n")
    >>> data = load_folder(folder, "captions.csv", verbose=0)
    >>> data.ids, data.captions
    (['1.jpg', '2.jpg'], [['a dog', 'it barks'], ['a cat']])
    """
    _check_parameters(sep, check)
    path = check_folder(folder, "pictures")
    if table is None:
        if given := [name for name, value in (("image", image), ("labels", labels), ("tags", tags)) if value]:
            raise ValueError(f"{given[0]} names a column, and there is no table; pass one, or leave it out")
        read, roles = _read_names(path, text is not False), None
        names = NamedPictures(path, None)
    else:
        told = [text] if isinstance(text, str) else [] if text is None or isinstance(text, bool) else list(text)
        found = _find_table(path, table)
        names = NamedPictures(path, found.parent if isinstance(found, Path) else None)
        read = table_of(found, lambda name: name in told or (text is None and is_text_name(name)))
        roles = find_roles(read, image, text, labels, tags, names.is_there)
    pictures = _Gathered(
        read, roles or Roles("image", [*(["text"] if "text" in read.columns else [])], [], [], None, [])
    )
    pictures.look_for(names)
    if check:
        pictures.check(decode=check is True, verbose=verbose)
    return pictures.as_bunch(path, sep, verbose, by_names=roles is None)


def _check_parameters(sep: Any, check: Any) -> None:
    if sep is not None and (not isinstance(sep, str) or not sep):
        raise ValueError(f"sep must be 'auto', None or what stands between labels, got {sep!r}")
    if not isinstance(check, bool) and check != "headers":
        raise ValueError(f"check must be True, False or 'headers', got {check!r}")


def _find_table(folder: Path, table: Any) -> Any:
    """Return a table that is a path as one that exists: as it stands, or in the folder."""
    if not isinstance(table, str | os.PathLike):
        return table
    candidates = [Path(table).expanduser(), folder / table]
    found = next(filter(Path.is_file, candidates), None)
    if found is None:
        raise FileNotFoundError(f"found no table {os.fspath(table)!r}, neither here ({Path.cwd()}) nor in {folder}")
    return found


# A folder alone ---------------------------------------------------------------------------------------------------


def _read_names(folder: Path, is_read: bool) -> Table:
    """Return the pictures below a folder, with the text of each: of the file beside it, or in its name."""
    files = list_pictures(folder)
    if not files:
        raise FileNotFoundError(f"found no pictures in {folder.absolute()}, nor in folders below")
    if not is_read:
        return Table({"image": files}, str(folder), len(files))
    texts = [_beside(folder / file) or _words_of(Path(file).stem) for file in files]
    if not any(texts):
        raise ValueError(
            f"the names of the pictures in {folder} say nothing ({', '.join(files[:3])}, ...), and no .txt files stand "
            "beside them; pass a table of captions, or text=False for the pictures alone"
        )
    return Table({"image": files, "text": texts}, str(folder), len(files))


def _beside(picture: Path) -> list[str] | None:
    """Return the captions in the file beside a picture."""
    # "photo.jpg.txt" as well as "photo.txt"
    for name in (picture.with_suffix(suffix) for suffix in _SIDECARS):
        for file in (name, picture.with_name(picture.name + name.suffix)):
            if file.is_file():
                return [line.strip() for _, line in read_lines(file)] or None
    return None


def _words_of(stem: str) -> str | None:
    """Return the words of a file's name, or None where it says nothing: "IMG_2041", "3f9c01a2"."""
    words = [word for word in re.split(r"[\W_]+", stem) if word]
    told = [word for word in words if word.isalpha() and len(word) > 2 and word.lower() not in _SAY_NOTHING]
    return " ".join(words) if told else None


# Rows of a table --------------------------------------------------------------------------------------------------


class _Gathered:
    """The rows of each picture of a table."""

    def __init__(self, table: Table, roles: Roles) -> None:
        self.table, self.roles = table, roles
        self.rows_of: dict[str, list[int]] = {}  # by path, in the order of first rows
        self.dropped: list[tuple[int, str, str]] = []
        self._searched = ""

    def look_for(self, names: NamedPictures) -> None:
        """Find the file of each row."""
        unknown: dict[Any, tuple[int, str, str]] = {}
        for row, cell in enumerate(self.table.columns[self.roles.image]):
            path, reason = names.find(cell) if cell is not None else (None, "names no picture")
            if path is not None:
                self.rows_of.setdefault(path, []).append(row)
            else:
                unknown.setdefault(
                    row if cell is None else repr(cell), (row, "" if cell is None else str(cell), reason)
                )
        self.dropped += unknown.values()
        self._searched = str(names.folder.absolute())
        if not self.rows_of and unknown:
            row, file, reason = self.dropped[0]
            raise FileNotFoundError(
                f"none of the {len(unknown)} pictures that {self.table.name} names is in {self._searched}, nor in "
                f"folders below; the first is {file!r} ({self.table.where(row)}): {reason}; pass the folder that holds "
                f"them, or the column that names them (image={self.roles.image!r} was taken)"
            )

    def check(self, *, decode: bool, verbose: int) -> None:
        """Leave out the pictures that cannot be read."""
        from sklearn_mm.images import find_unreadable  # with torch, which a list of files does not need

        paths = list(self.rows_of)
        for failure in find_unreadable(paths, decode=decode, verbose=verbose) if paths else ():
            self._drop(paths[failure.row], failure.reason)

    def _drop(self, path: str, reason: str) -> None:
        self.dropped.append((self.rows_of.pop(path)[0], path, reason))

    def as_bunch(self, folder: Path, sep: str | None, verbose: int, *, by_names: bool) -> Bunch:
        """Put together what the rows of each picture hold."""
        roles, found = self.roles, Bunch()
        if roles.text:
            captions = self._gather(roles.text, _captions_in)
            for path in [path for path, own in captions.items() if not own]:
                self._drop(path, "neither a file beside it nor its name says anything" if by_names else "no caption")
            found["captions"] = [captions[path] for path in self.rows_of]
        said = []
        for role, key in (("labels", "target"), ("tags", "tags")):
            names = getattr(roles, role)
            if not names:
                continue
            if self._are_indicators(names):
                found[key] = self._from_indicators(names)
                continue
            taken = self._separator(names) if sep == "auto" else sep
            own = self._gather(names, partial(_labels_in, separator=taken))
            found[key] = [own[path] for path in self.rows_of]
            if taken is not None:
                said.append(f"{role} are separated by {taken!r}")
        self.dropped.sort()
        if not self.rows_of:
            raise ValueError(f"no picture of {self.table.name} is left: {summarise(self._placed())}")
        if roles.split is not None:
            found["split"] = np.array([self._one_split(path) for path in self.rows_of])
        metadata, differing = self._metadata()
        if differing:
            said.append(f"left out, as rows of one picture differ: {', '.join(map(repr, differing))}")
        images = list(self.rows_of)
        found.update(
            images=images,
            ids=[_id_of(path, folder) for path in images],
            metadata=_as_frame(metadata, len(images)),
            dropped=self.dropped,
            columns={} if by_names else roles.columns,
        )
        found["DESCR"] = self._describe(folder, said, by_names=by_names)
        if verbose:
            tqdm.write(found["DESCR"], file=sys.stderr)
        if self.dropped:
            n_all = len(images) + len(self.dropped)
            warnings.warn(
                f"{len(self.dropped)} of {n_all} pictures are left out, looked for in {self._searched}: "
                f"{summarise(self._placed())}",
                ImageReadWarning,
                stacklevel=3,
            )
        return found

    def _placed(self) -> list[tuple[Any, str, str]]:
        """Return what is left out with its line, in files that have lines."""
        lines = self.table.lines
        return [(row if lines is None else f"of line {lines[row]}", path, why) for row, path, why in self.dropped]

    def _gather(self, names: Sequence[str], parts_of: Callable[[Any], Iterable[Any]]) -> dict[str, list[Any]]:
        """Join what the cells of each picture hold, each once, in the order of rows and columns."""
        columns = [self.table.columns[name] for name in names]
        return {
            path: list(dict.fromkeys(part for row in rows for column in columns for part in parts_of(column[row])))
            for path, rows in self.rows_of.items()
        }

    def _separator(self, names: Sequence[str]) -> str | None:
        cells = (self.table.columns[name][rows[0]] for rows in self.rows_of.values() for name in names)
        return joined_by([cell for cell in cells if isinstance(cell, str)])

    def _are_indicators(self, names: Sequence[str]) -> bool:
        return len(names) > 1 and all(
            isinstance(cell, str | int | float | None) and cell in _INDICATORS
            for name in names
            for cell in self.table.columns[name]
        )

    def _from_indicators(self, names: Sequence[str]) -> list[list[str]]:
        columns = {name: self.table.columns[name] for name in names}
        is_on = {name: [float(cell or 0) == 1 for cell in column] for name, column in columns.items()}
        return [[name for name in names if any(is_on[name][row] for row in rows)] for rows in self.rows_of.values()]

    def _one_split(self, path: str) -> str:
        column, rows = self.table.columns[str(self.roles.split)], self.rows_of[path]
        parts: dict[str, int] = {}
        for row in rows:
            parts.setdefault(str(column[row]), row)
        if len(parts) > 1:
            places = " and ".join(f"{part!r} ({self.table.where(row)})" for part, row in parts.items())
            raise ValueError(f"{path} is in the parts {places} of {self.table.name}; a picture is of one part")
        return next(iter(parts))

    def _metadata(self) -> tuple[dict[str, list[Any]], list[str]]:
        """Return the other columns, one value a picture, and the names of those that differ among its rows."""
        roles = self.roles
        used = {roles.image, roles.split, *roles.text, *roles.labels, *roles.tags}
        kept: dict[str, list[Any]] = {}
        differing = []
        for name, column in self.table.columns.items():
            if name in used:
                continue
            if any(column[row] != column[rows[0]] for rows in self.rows_of.values() for row in rows[1:]):
                differing.append(name)
                continue
            values = [column[rows[0]] for rows in self.rows_of.values()]
            kept[name] = values if self.table.lines is None else _as_numbers(values)
        return kept, differing

    def _describe(self, folder: Path, said: list[str], *, by_names: bool) -> str:
        n_rows, n_images = self.table.n_rows, len(self.rows_of)
        lines = [f"{n_images} pictures of {folder}"]
        if by_names:
            lines[0] += "; their texts from files beside them, or from their names" if self.roles.text else ""
        else:
            taken = [
                f"{role}={column!r}{', guessed' if role in self.roles.guessed else ''}"
                for role, column in self.roles.columns.items()
            ]
            lines[0] += f", of {n_rows} rows of {self.table.name}: {'; '.join(taken)}"
        if self.dropped:
            lines.append(f"{len(self.dropped)} pictures are left out, see `dropped`")
        return "\n".join(lines + said)


def _captions_in(cell: Any) -> list[str]:
    if isinstance(cell, str):
        printed = split_printed(cell)  # a list that was written to a CSV file
        parts: Iterable[Any] = [cell] if printed is None else printed
    else:
        parts = [] if cell is None else cell if isinstance(cell, list | tuple | np.ndarray) else [cell]
    return [text for text in (str(part).strip() for part in parts if part is not None) if text]


def _labels_in(cell: Any, separator: str | None) -> list[Any]:
    if cell is None:
        return []
    if isinstance(cell, str):
        if separator is None:
            return [cell.strip()] if cell.strip() else []
        return split_joined(cell, None if separator == " " else separator)
    return list(cell) if isinstance(cell, list | tuple | np.ndarray) else [cell]


def _id_of(path: str, folder: Path) -> str:
    try:
        return Path(path).relative_to(os.path.normpath(folder)).as_posix()
    except ValueError:  # not below the folder
        return Path(path).as_posix()


def _as_numbers(values: list[Any]) -> list[Any]:
    """Return a column of a file of text as numbers, where all of its cells are; numbers that begin with 0 are names."""
    told = [value for value in values if value is not None]
    if not told or not all(isinstance(value, str) and not re.match(r"[+-]?0\d", value) for value in told):
        return values
    for kind in (int, float):
        try:
            numbers = {value: kind(value) for value in told}
        except ValueError:
            continue
        return [None if value is None else numbers[value] for value in values]
    return values


def _as_frame(columns: dict[str, list[Any]], n_rows: int) -> Any:
    try:
        import pandas as pd
    except ImportError:
        return columns
    return pd.DataFrame(columns, index=range(n_rows))
