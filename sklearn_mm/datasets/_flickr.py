"""Flickr8k and Flickr30k, read from a folder in any of the layouts they come in."""

import os
from pathlib import Path
from typing import Any

from sklearn.utils import Bunch

from sklearn_mm.datasets._caption_rows import (
    CaptionRow,
    check_folder,
    check_split,
    find,
    keep_existing,
    load_json,
    make_bunch,
    read_karpathy,
    read_tokens,
)

__all__ = ["load_flickr8k", "load_flickr30k"]

_SPLITS = ("train", "val", "test", "rest")
_SPLIT_FILES = {
    "train": "Flickr_8k.trainImages.txt",
    "val": "Flickr_8k.devImages.txt",
    "test": "Flickr_8k.testImages.txt",
}
_TEXT_FOLDERS = (".", "text", "Flickr8k_text")
# "Flicker" is how the archive spells it
_IMAGE_FOLDERS = (
    "Flicker8k_Dataset",
    "Flickr8k_Dataset/Flicker8k_Dataset",  # unpacked into a folder of the archive's name
    "Flickr8k_Dataset",  # after the folder inside it, which has the pictures where both exist
    "images",
    "Images",
)
_IMAGE_FOLDERS_30K = ("flickr30k-images", "flickr30k_images", "flickr30k_images/flickr30k_images", "images", "Images")

_DESCR_8K = """Flickr8k
--------

Photographs of people and animals doing something, each described by five people in a sentence of their
own. The official split has 6,000 pictures to train on, 1,000 for validation and 1,000 for the test; 91
pictures are in none of the three.

M. Hodosh, P. Young and J. Hockenmaier, "Framing image description as a ranking task: data, models and
evaluation metrics", Journal of Artificial Intelligence Research 47 (2013). For research; not to be passed on.
"""


_DESCR_30K = """Flickr30k
---------

31,783 photographs of people and animals doing something, each described by five people in a sentence of
their own. Karpathy's split, which papers use, has 29,000 of 31,014 pictures to train on, 1,014 for
validation and 1,000 for the test.

P. Young, A. Lai, M. Hodosh and J. Hockenmaier, "From image descriptions to visual denotations: new similarity
metrics for semantic inference over event descriptions", Transactions of the Association for Computational
Linguistics 2 (2014). A. Karpathy and L. Fei-Fei, "Deep visual-semantic alignments for generating image
descriptions", CVPR 2015. For research; not to be passed on.
"""


def _read_json(path: Path) -> list[CaptionRow]:
    """Read ``[{"file": ..., "captions": [...], "split": ...}, ...]``."""
    rows = load_json(path)
    if not isinstance(rows, list):
        raise ValueError(f"{path}: expected a list of pictures, got {type(rows).__name__}")
    return [_check_json_row(row, number, path) for number, row in enumerate(rows)]


def _check_json_row(row: Any, number: int, path: Path) -> CaptionRow:
    match row:
        case {"file": str(file), "captions": [*captions]} if captions and all(isinstance(c, str) for c in captions):
            split = row.get("split", "rest")
        case _:
            raise ValueError(
                f"{path}: expected an object with a 'file' and a list of 'captions' in entry {number}, got {row!r:.80}"
            )
    if split not in _SPLITS:
        raise ValueError(f"{path}: expected a split of {', '.join(_SPLITS)} in entry {number}, got {split!r}")
    return CaptionRow(file, list(captions), split)


def _read_lists(paths: dict[str, Path], suffix: str = "") -> dict[str, str]:
    """Return the split of each picture that a list names."""
    return {
        # Flickr30k Entities lists names without .jpg
        name if name.endswith(suffix) else name + suffix: split
        for split, path in paths.items()
        for name in path.read_text(encoding="utf-8").split()
    }


def _read_8k(folder: Path) -> list[CaptionRow]:
    token_paths = [folder / text_folder / "Flickr8k.token.txt" for text_folder in _TEXT_FOLDERS]
    path = find(folder, [folder / "captions.json", *token_paths], "captions")
    if path.suffix == ".json":
        return _read_json(path)
    lists = {
        split: find(path.parent, [path.parent / name], f"list of the {split} pictures")
        for split, name in _SPLIT_FILES.items()
    }
    return read_tokens(path, _read_lists(lists))


def _read_30k(folder: Path) -> list[CaptionRow]:
    names = ["dataset_flickr30k.json", "captions.json", "results_20130124.token", "results.token"]
    path = find(folder, [folder / name for name in names], "captions")
    if path.name == "dataset_flickr30k.json":
        return read_karpathy(path, _SPLITS)
    if path.suffix == ".json":
        return _read_json(path)
    lists = {
        split: find(folder, [folder / f"{split}.txt"], f"list of the {split} pictures")
        for split in ("train", "val", "test")
    }
    return read_tokens(path, _read_lists(lists, ".jpg"))


def _load(rows: list[CaptionRow], folder: Path, image_folders: tuple[str, ...], split: str | None, descr: str) -> Bunch:
    image_folder = find(folder, [folder / name for name in image_folders], "folder of pictures")
    return make_bunch(keep_existing(rows, image_folder), image_folder, split, descr)


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
    check_split(split, _SPLITS)
    folder = check_folder(folder, "Flickr8k")
    return _load(_read_8k(folder), folder, _IMAGE_FOLDERS, split, _DESCR_8K)


def load_flickr30k(folder: str | os.PathLike[str], *, split: str | None = None) -> Bunch:
    """Load Flickr30k from a folder.

    The pictures may not be redistributed, so the folder is yours to provide. The pictures are in
    ``flickr30k-images``, ``flickr30k_images`` or ``images``, the captions in one of

    - ``dataset_flickr30k.json``, with Karpathy's split;
    - ``captions.json``, a list of ``{"file": ..., "captions": [...], "split": ...}``;
    - ``results_20130124.token``, and the lists ``train.txt``, ``val.txt`` and ``test.txt`` of pictures, with or
      without their ``.jpg``, as Flickr30k Entities has them.

    Parameters
    ----------
    folder : path-like
        Where the files are.
    split : {"train", "val", "test", "rest"} or None, default=None
        Load only this part; ``"rest"`` is what no list names. None loads all.

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
            What this is, and the papers to cite.

    Raises
    ------
    FileNotFoundError
        The folder, its captions, its pictures, or a picture of the split is missing; the message says what
        was looked for and where.
    ValueError
        `split` is unknown, the part asked for is empty, or a file of captions is malformed; the message names
        the entry or line.

    Examples
    --------
    >>> import json, pathlib, tempfile
    >>> from PIL import Image
    >>> from sklearn_mm.datasets import load_flickr30k
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> (folder / "flickr30k-images").mkdir()
    >>> Image.new("RGB", (8, 8)).save(folder / "flickr30k-images" / "1.jpg")
    >>> picture = {"filename": "1.jpg", "split": "test", "sentences": [{"raw": "Two men talk."}]}
    >>> _ = (folder / "dataset_flickr30k.json").write_text(json.dumps({"images": [picture]}))
    >>> load_flickr30k(folder, split="test").captions
    [['Two men talk.']]
    """
    check_split(split, _SPLITS)
    folder = check_folder(folder, "Flickr30k")
    return _load(_read_30k(folder), folder, _IMAGE_FOLDERS_30K, split, _DESCR_30K)
