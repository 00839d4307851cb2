"""What the folders of captioned photographs have in common: rows of a picture, its captions and its split."""

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.utils import Bunch

from sklearn_mm._unicode import normal_form
from sklearn_mm.datasets._files import PictureFolder, keep_found, load_json, read_lines

__all__ = [
    "CaptionRow",
    "choose",
    "make_bunch",
    "read_karpathy",
    "read_lists",
    "read_table",
    "read_tokens",
]

# as the tables of Flickr8k and Flickr30k that go round call them
_IMAGE_COLUMNS = ("image", "image_name", "filename", "file")
_CAPTION_COLUMNS = ("caption", "comment", "sentence")


@dataclass(frozen=True)
class CaptionRow:
    """One picture.

    Attributes
    ----------
    file : str
        Its path below the folder of pictures.
    captions : list of str
        What its authors wrote.
    split : str
        The part it belongs to.
    """

    file: str
    captions: list[str]
    split: str


# Files of captions ------------------------------------------------------------------------------------------------


def read_karpathy(path: Path, splits: Sequence[str]) -> list[CaptionRow]:
    """Read a ``dataset_*.json`` in Karpathy's form: pictures with sentences, their split, at times their folder."""
    content = load_json(path)
    match content:
        case {"images": [*pictures]}:
            return [_read_karpathy_row(picture, number, path, splits) for number, picture in enumerate(pictures)]
    raise ValueError(f"{path}: expected an object with a list of 'images', got {content!s:.80}")


def _read_karpathy_row(picture: Any, number: int, path: Path, splits: Sequence[str]) -> CaptionRow:
    match picture:
        case {"filename": str(file), "sentences": [*sentences], "split": str(split)} if sentences:
            # as written; the "tokens" beside it are lower-cased and without punctuation
            raw = [sentence.get("raw") if isinstance(sentence, dict) else None for sentence in sentences]
            captions = [caption for caption in raw if isinstance(caption, str) and caption.strip()]
            if len(captions) == len(raw):
                if split not in splits:
                    raise ValueError(
                        f"{path}: expected a split of {', '.join(splits)} in entry {number}, got {split!r}"
                    )
                # COCO's entries name their folder, Flickr's do not
                return CaptionRow(Path(str(picture.get("filepath") or ""), file).as_posix(), captions, split)
    raise ValueError(
        f"{path}: expected a 'filename', a 'split' and 'sentences' with their 'raw' text in entry {number}, "
        f"got {picture!s:.80}"
    )


def read_lists(paths: dict[str, Path], suffix: str = "", encoding: str = "utf-8") -> dict[str, str]:
    """Return the split of each picture that a list names, a name a line."""
    split_of: dict[str, str] = {}
    for split, path in paths.items():
        for number, line in read_lines(path, encoding):
            name = line.strip()  # names of files may have blanks inside
            # Flickr30k Entities lists names without .jpg
            name = normal_form(name if name.endswith(suffix) else name + suffix)
            if split_of.setdefault(name, split) != split:
                raise ValueError(
                    f"{path}, line {number}: {name} is in the {split_of[name]} list too; a picture is of one part"
                )
    return split_of


def read_tokens(path: Path, split_of: dict[str, str], encoding: str = "utf-8") -> list[CaptionRow]:
    """Read lines of ``file.jpg#0``, a tab and a caption; what has no split is of the rest."""

    def pairs() -> Iterable[tuple[str, str]]:
        for number, line in read_lines(path, encoding):
            key, tab, caption = line.partition("\t")
            if not tab or "#" not in key or not caption.strip():
                raise ValueError(f"{path}, line {number}: expected 'file.jpg#0', a tab and a caption, got {line!r:.80}")
            # from the right: names of files may hold a # of their own
            yield key.rsplit("#", 1)[0], caption.strip()

    return _gather(pairs(), split_of, path)


def read_table(path: Path, split_of: dict[str, str], encoding: str = "utf-8") -> list[CaptionRow]:
    """Read a table with a picture and a caption in each line, between commas or bars, under names of its columns."""

    def pairs() -> Iterable[tuple[str, str]]:
        lines = read_lines(path, encoding)
        number, header = next(lines, (1, ""))
        separator = "|" if "|" in header else ","
        names = [name.strip().lower() for name in header.split(separator)]
        image = next((names.index(name) for name in _IMAGE_COLUMNS if name in names), None)
        text = next((names.index(name) for name in _CAPTION_COLUMNS if name in names), None)
        if image is None or text is None:
            raise ValueError(
                f"{path}, line {number}: expected names of columns, such as 'image,caption', got {header!r:.80}"
            )
        for number, line in lines:
            cells = _cells_of(line, separator, len(names), path, number)
            if len(cells) != len(names) or not cells[image].strip() or not cells[text].strip():
                raise ValueError(f"{path}, line {number}: expected {header!r}, got {line!r:.80}")
            yield cells[image].strip(), cells[text].strip()

    return _gather(pairs(), split_of, path)


def _cells_of(line: str, separator: str, n_columns: int, path: Path, number: int) -> list[str]:
    """Take a line apart; what is too much belongs to the last cell, as captions have commas that nobody quoted."""
    if separator == "|":
        cells = line.split("|", n_columns - 1)
        # of "2199200615.jpg| 4   A dog runs", one line of Flickr30k's table, the bar behind the number is lost
        if len(cells) == n_columns - 1 and (lost := re.fullmatch(r"\s*(\d+)\s+(.*)", cells[-1])):
            return [*cells[:-1], *lost.groups()]
        return cells
    try:
        # line by line: a quote that is never closed would make one caption of all that follows
        cells = next(csv.reader([line], strict=True))
    except csv.Error as error:
        raise ValueError(f"{path}, line {number}: {error}, got {line!r:.80}") from error
    return [*cells[: n_columns - 1], ",".join(cells[n_columns - 1 :])] if len(cells) > n_columns else cells


def _gather(pairs: Iterable[tuple[str, str]], split_of: dict[str, str], path: Path) -> list[CaptionRow]:
    """Put the captions of each picture together, and look its split up."""
    captions: dict[str, list[str]] = {}
    for file, caption in pairs:
        captions.setdefault(file, []).append(caption)
    rows = [CaptionRow(file, texts, split_of.get(normal_form(file), "rest")) for file, texts in captions.items()]
    if without := sorted(split_of.keys() - map(normal_form, captions)):
        raise ValueError(f"{path}: {without[0]} is in the {split_of[without[0]]} list, but has no captions")
    return rows


# Parts and pictures -----------------------------------------------------------------------------------------------


def choose(rows: list[CaptionRow], split: str | None, folder: Path) -> list[CaptionRow]:
    """Take the rows of a part, before any of their pictures is looked for.

    Raises
    ------
    ValueError
        There are none.
    """
    chosen = [row for row in rows if split in (None, row.split)]
    if not chosen:
        counts = dict(Counter(row.split for row in rows))
        raise ValueError(f"found no pictures of split={split!r} in {folder}; it has {counts or 'none at all'}")
    return chosen


def make_bunch(
    rows: list[CaptionRow],
    image_folder: Path,
    missing_images: str,
    descr: str,
    *,
    optional: str | None = None,
    other_names: Callable[[CaptionRow], Sequence[str]] = lambda row: (),
) -> Bunch:
    """Look for the pictures of rows, and lay the rows out by file.

    Parameters
    ----------
    rows : list of CaptionRow
    image_folder : Path
    missing_images : {"raise", "drop", "keep"}
        What to do about rows without a file.
    descr : str
    optional : str or None
        Of this part rows without a file are left out by "raise" too.
    other_names : callable
        From a row to other files that are its picture.

    Raises
    ------
    FileNotFoundError
        A picture is missing.
    """
    if missing_images != "keep":
        there = PictureFolder(image_folder)
        found = [next(filter(None, map(there.find, (row.file, *other_names(row)))), None) for row in rows]
        if any(found):
            due = [place for place, row in enumerate(rows) if found[place] or row.split != optional]
            rows, found = [rows[place] for place in due], [found[place] for place in due]
        kept = keep_found([row.file for row in rows], found, image_folder, missing_images)
        rows = [replace(rows[place], file=found[place] or rows[place].file) for place in kept]
    # by file: the order does not depend on which of the layouts was read
    rows = sorted(rows, key=lambda row: row.file)
    return Bunch(
        images=[str(image_folder / row.file) for row in rows],
        captions=[row.captions for row in rows],
        split=np.array([row.split for row in rows]),
        DESCR=descr,
    )
