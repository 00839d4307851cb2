"""Flickr8k, read from a folder in either of two layouts."""

import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.utils import Bunch

__all__ = ["load_flickr8k"]

_SPLITS = ("train", "val", "test", "rest")
_TOKEN_FILE = "Flickr8k.token.txt"
_SPLIT_FILES = {
    "train": "Flickr_8k.trainImages.txt",
    "val": "Flickr_8k.devImages.txt",
    "test": "Flickr_8k.testImages.txt",
}
_TEXT_FOLDERS = (".", "text", "Flickr8k_text")
_IMAGE_FOLDERS = (
    "Flicker8k_Dataset",
    "Flickr8k_Dataset/Flicker8k_Dataset",  # unpacked into a folder of the archive's name
    "Flickr8k_Dataset",
    "images",
    "Images",
)

_DESCR = """Flickr8k
--------

Photographs of people and animals doing something, each described by five people in a sentence of their
own. The official split has 6,000 pictures to train on, 1,000 for validation and 1,000 for the test; 91
pictures are in none of the three.

M. Hodosh, P. Young and J. Hockenmaier, "Framing image description as a ranking task: data, models and
evaluation metrics", Journal of Artificial Intelligence Research 47 (2013). For research; not to be passed on.
"""


@dataclass(frozen=True)
class _Row:
    file: str
    captions: list[str]
    split: str


def _find(folder: Path, candidates: list[Path], what: str) -> Path:
    for candidate in candidates:
        if candidate.exists():
            return candidate
    looked = ", ".join(str(candidate.relative_to(folder)) for candidate in candidates)
    raise FileNotFoundError(f"found no {what} in {folder}; looked for {looked}")


def _read_json(path: Path) -> list[_Row]:
    """Read ``[{"file": ..., "captions": [...], "split": ...}, ...]``."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    if not isinstance(rows, list):
        raise ValueError(f"{path}: expected a list of pictures, got {type(rows).__name__}")
    return [_check_json_row(row, number, path) for number, row in enumerate(rows)]


def _check_json_row(row: Any, number: int, path: Path) -> _Row:
    match row:
        case {"file": str(file), "captions": [*captions]} if captions and all(isinstance(c, str) for c in captions):
            split = row.get("split", "rest")
        case _:
            raise ValueError(
                f"{path}: expected an object with a 'file' and a list of 'captions' in entry {number}, got {row!r:.80}"
            )
    if split not in _SPLITS:
        raise ValueError(f"{path}: expected a split of {', '.join(_SPLITS)} in entry {number}, got {split!r}")
    return _Row(file, list(captions), split)


def _read_original(token_path: Path) -> list[_Row]:
    """Read the token file and the lists of the split beside it."""
    split_of: dict[str, str] = {}
    for split, name in _SPLIT_FILES.items():
        path = _find(token_path.parent, [token_path.parent / name], f"list of the {split} pictures")
        split_of.update(dict.fromkeys(path.read_text(encoding="utf-8").split(), split))
    captions: dict[str, list[str]] = {}
    for number, line in enumerate(token_path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        key, tab, caption = line.partition("\t")
        if not tab or "#" not in key or not caption.strip():
            raise ValueError(
                f"{token_path}, line {number}: expected 'file.jpg#0', a tab and a caption, got {line!r:.80}"
            )
        captions.setdefault(key.rsplit("#", 1)[0], []).append(caption.strip())
    if without := sorted(split_of.keys() - captions.keys()):
        raise ValueError(f"{token_path}: {without[0]} is in the {split_of[without[0]]} list, but has no captions")
    return [_Row(file, texts, split_of.get(file, "rest")) for file, texts in captions.items()]


def _read_rows(folder: Path) -> list[_Row]:
    token_paths = [folder / text_folder / _TOKEN_FILE for text_folder in _TEXT_FOLDERS]
    path = _find(folder, [folder / "captions.json", *token_paths], "captions")
    return _read_json(path) if path.suffix == ".json" else _read_original(path)


def _keep_existing(rows: list[_Row], image_folder: Path) -> list[_Row]:
    """Leave out what is in no split and has no file; the token file names one such picture.

    Raises
    ------
    FileNotFoundError
        A picture of the split is missing.
    """
    there = {entry.name for entry in os.scandir(image_folder)}
    lost = [row.file for row in rows if row.file not in there and row.split != "rest"]
    if lost:
        raise FileNotFoundError(
            f"{len(lost)} of {len(rows)} pictures are missing in {image_folder}, the first is {lost[0]}; "
            "unpack the whole archive of pictures there"
        )
    return [row for row in rows if row.file in there]


def load_flickr8k(folder: str | os.PathLike[str], *, split: str | None = None) -> Bunch:
    """Load Flickr8k from a folder.

    The pictures may not be redistributed, so the folder is yours to provide. Two layouts are read:

    - ``captions.json``, a list of ``{"file": ..., "captions": [...], "split": ...}``, and the folder
      ``images``;
    - the original one: ``Flickr8k.token.txt`` and ``Flickr_8k.trainImages.txt``, ``...devImages.txt`` and
      ``...testImages.txt``, in the folder itself, in ``text`` or in ``Flickr8k_text``, and the pictures in
      ``Flicker8k_Dataset``, ``Flickr8k_Dataset`` or ``images``.

    Parameters
    ----------
    folder : path-like
        Where the files are.
    split : {"train", "val", "test", "rest"} or None, default=None
        Load only this part of the official split; ``"rest"`` is what the split leaves out. None loads all.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        images : list of str, length n_images
            Paths of the pictures, in the order of their names.
        captions : list of list of str
            Five sentences for each picture, as their authors wrote them.
        split : ndarray of shape (n_images,), str
            ``"train"``, ``"val"``, ``"test"`` or ``"rest"``.
        DESCR : str
            What this is, and the paper to cite.

    Raises
    ------
    FileNotFoundError
        The folder, its captions, its pictures, or a picture of the official split is missing; the message
        says what was looked for and where.
    ValueError
        `split` is unknown, the part asked for is empty, or a file of captions is malformed; the message
        names the line.

    Notes
    -----
    The original token file describes a picture that does not exist (``2258277193_586949ec62.jpg.1``); a
    picture without a file is left out if it is in none of the three parts, and an error otherwise.

    Examples
    --------
    >>> import json, pathlib, tempfile
    >>> from PIL import Image
    >>> from sklearn_mm.datasets import load_flickr8k
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> (folder / "images").mkdir()
    >>> Image.new("RGB", (8, 8)).save(folder / "images" / "1.jpg")
    >>> rows = [{"file": "1.jpg", "captions": ["a dog runs", "a brown dog"], "split": "train"}]
    >>> _ = (folder / "captions.json").write_text(json.dumps(rows))
    >>> flickr = load_flickr8k(folder, split="train")
    >>> flickr.captions
    [['a dog runs', 'a brown dog']]
    """
    if split is not None and split not in _SPLITS:
        raise ValueError(f"split must be None or one of {', '.join(map(repr, _SPLITS))}, got {split!r}")
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"expected the folder of Flickr8k, but {folder} is not a folder")
    rows = _read_rows(folder)
    image_folder = _find(folder, [folder / name for name in _IMAGE_FOLDERS], "folder of pictures")
    rows = sorted(_keep_existing(rows, image_folder), key=lambda row: row.file)
    chosen = [row for row in rows if split in (None, row.split)]
    if not chosen:
        counts = dict(Counter(row.split for row in rows))
        raise ValueError(f"found no pictures of split={split!r} in {folder}; it has {counts or 'none at all'}")
    return Bunch(
        images=[str(image_folder / row.file) for row in chosen],
        captions=[row.captions for row in chosen],
        split=np.array([row.split for row in chosen]),
        DESCR=_DESCR,
    )
