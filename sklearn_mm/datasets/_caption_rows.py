"""What the folders of captioned photographs have in common: rows of a picture, its captions and its split."""

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.utils import Bunch

__all__ = [
    "CaptionRow",
    "check_folder",
    "check_split",
    "find",
    "keep_existing",
    "load_json",
    "make_bunch",
    "read_karpathy",
    "read_tokens",
]


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


def check_folder(folder: str | os.PathLike[str], name: str) -> Path:
    """Return the folder of a data set, or say that it is none."""
    path = Path(folder)
    if not path.is_dir():
        raise FileNotFoundError(f"expected the folder of {name}, but {path} is not a folder")
    return path


def check_split(split: str | None, options: Sequence[str]) -> None:
    """Check the part that was asked for."""
    if split is not None and split not in options:
        raise ValueError(f"split must be None or one of {', '.join(map(repr, options))}, got {split!r}")


def find(folder: Path, candidates: Sequence[Path], what: str) -> Path:
    """Return the first candidate that exists, or say what was looked for."""
    for candidate in candidates:
        if candidate.exists():
            return candidate
    looked = ", ".join(str(candidate.relative_to(folder)) for candidate in candidates)
    raise FileNotFoundError(f"found no {what} in {folder}; looked for {looked}")


def load_json(path: Path) -> Any:
    """Read a file of JSON; a broken one is named."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error


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
            captions = [caption for caption in raw if isinstance(caption, str)]
            if len(captions) == len(raw):
                if split not in splits:
                    raise ValueError(
                        f"{path}: expected a split of {', '.join(splits)} in entry {number}, got {split!r}"
                    )
                # COCO's entries name their folder, Flickr's do not
                return CaptionRow(str(Path(picture.get("filepath", ""), file)), captions, split)
    raise ValueError(
        f"{path}: expected a 'filename', a 'split' and 'sentences' with their 'raw' text in entry {number}, "
        f"got {picture!s:.80}"
    )


def read_tokens(token_path: Path, split_of: dict[str, str]) -> list[CaptionRow]:
    """Read lines of ``file.jpg#0``, a tab and a caption; what has no split is of the rest."""
    captions: dict[str, list[str]] = {}
    for number, line in enumerate(token_path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        key, tab, caption = line.partition("\t")
        if not tab or "#" not in key or not caption.strip():
            raise ValueError(
                f"{token_path}, line {number}: expected 'file.jpg#0', a tab and a caption, got {line!r:.80}"
            )
        # from the right: names of files may hold a # of their own
        captions.setdefault(key.rsplit("#", 1)[0], []).append(caption.strip())
    if without := sorted(split_of.keys() - captions.keys()):
        raise ValueError(f"{token_path}: {without[0]} is in the {split_of[without[0]]} list, but has no captions")
    return [CaptionRow(file, texts, split_of.get(file, "rest")) for file, texts in captions.items()]


def keep_existing(rows: list[CaptionRow], image_folder: Path) -> list[CaptionRow]:
    """Leave out what is in no split and has no file.

    Raises
    ------
    FileNotFoundError
        A picture of the split is missing.
    """
    folders = {str(Path(row.file).parent) for row in rows}
    # one listing of each folder instead of a question for every file
    there = {
        str(Path(folder, entry.name))
        for folder in folders
        if (image_folder / folder).is_dir()
        for entry in os.scandir(image_folder / folder)
    }
    # Flickr8k's own list describes a picture that does not exist; it is in no part of the split
    lost = [row.file for row in rows if row.file not in there and row.split != "rest"]
    if lost:
        raise FileNotFoundError(
            f"{len(lost)} of {len(rows)} pictures are missing in {image_folder}, the first is {lost[0]}; "
            "unpack the whole archive of pictures there"
        )
    return [row for row in rows if row.file in there]


def make_bunch(rows: list[CaptionRow], image_folder: Path, split: str | None, descr: str) -> Bunch:
    """Choose a part of the rows, sorted by file, and lay them out.

    Raises
    ------
    ValueError
        The part is empty.
    """
    # by file: the order does not depend on which of the layouts was read
    chosen = sorted((row for row in rows if split in (None, row.split)), key=lambda row: row.file)
    if not chosen:
        counts = dict(Counter(row.split for row in rows))
        raise ValueError(f"found no pictures of split={split!r} in {image_folder}; it has {counts or 'none at all'}")
    return Bunch(
        images=[str(image_folder / row.file) for row in chosen],
        captions=[row.captions for row in chosen],
        split=np.array([row.split for row in chosen]),
        DESCR=descr,
    )
