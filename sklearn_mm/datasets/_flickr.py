"""Flickr8k and Flickr30k, read from a folder in any of the layouts they come in."""

import os
from pathlib import Path
from typing import Any

from sklearn.utils import Bunch

from sklearn_mm.datasets._caption_rows import (
    CaptionRow,
    choose,
    make_bunch,
    read_karpathy,
    read_lists,
    read_table,
    read_tokens,
)
from sklearn_mm.datasets._files import check_folder, check_missing_images, check_split, find, load_json

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
# those of text behind those that say the split; the last ones as Kaggle has them
_CAPTION_FILES_30K = (
    "captions.json",
    "results_20130124.token",
    "results.token",
    "results.csv",
    "flickr30k_images/results.csv",
    "captions.txt",
)
_IMAGE_FOLDERS_30K = (
    "flickr30k-images",
    "flickr30k_images/flickr30k_images",  # as for Flickr8k, before the folder around it
    "flickr30k_images",
    "images",
    "Images",
)

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
        case {"file": str(file), "captions": [*captions]} if captions and all(map(_is_caption, captions)):
            split = row.get("split", "rest")
        case _:
            raise ValueError(
                f"{path}: expected an object with a 'file' and a list of 'captions' in entry {number}, got {row!r:.80}"
            )
    if split not in _SPLITS:
        raise ValueError(f"{path}: expected a split of {', '.join(_SPLITS)} in entry {number}, got {split!r}")
    return CaptionRow(file, list(captions), split)


def _is_caption(caption: Any) -> bool:
    return isinstance(caption, str) and bool(caption.strip())


def _read_8k(folder: Path, split: str | None, encoding: str) -> list[CaptionRow]:
    token_paths = [folder / text_folder / "Flickr8k.token.txt" for text_folder in _TEXT_FOLDERS]
    table_paths = [folder / text_folder / "captions.txt" for text_folder in _TEXT_FOLDERS]
    karpathy = folder / "dataset_flickr8k.json"
    path = find(folder, [folder / "captions.json", *token_paths, karpathy, *table_paths], "captions")
    if path.suffix == ".json":
        return read_karpathy(path, _SPLITS) if path == karpathy else _read_json(path)
    return _read_text(path, path.parent, _SPLIT_FILES, "", split, encoding)


def _read_30k(folder: Path, split: str | None, encoding: str) -> list[CaptionRow]:
    karpathy = folder / "dataset_flickr30k.json"
    path = find(folder, [karpathy, *(folder / name for name in _CAPTION_FILES_30K)], "captions")
    if path.suffix == ".json":
        return read_karpathy(path, _SPLITS) if path == karpathy else _read_json(path)
    names = {part: f"{part}.txt" for part in ("train", "val", "test")}
    return _read_text(path, folder, names, ".jpg", split, encoding)


def _read_text(
    path: Path, folder: Path, list_names: dict[str, str], suffix: str, split: str | None, encoding: str
) -> list[CaptionRow]:
    """Read captions in lines of text, and of the lists of the split those that are needed."""
    parts = [split] if split in list_names else list(list_names)
    is_table = path.suffix == ".csv" or path.name == "captions.txt"
    # tables go round without lists: there they may lack, unless a part is asked for
    needed = not is_table or split in list_names or any((folder / name).exists() for name in list_names.values())
    lists = {
        part: find(folder, [folder / list_names[part]], f"list of the {part} pictures") for part in parts if needed
    }
    read = read_table if is_table else read_tokens
    return read(path, read_lists(lists, suffix, encoding), encoding)


def _load(
    rows: list[CaptionRow],
    folder: Path,
    image_folders: tuple[str, ...],
    split: str | None,
    missing_images: str,
    descr: str,
) -> Bunch:
    chosen = choose(rows, split, folder)
    candidates = [folder / name for name in image_folders]
    if missing_images == "keep":
        image_folder = next(filter(Path.is_dir, candidates), candidates[0])
    else:
        image_folder = find(folder, candidates, "folder of pictures")
    # Flickr8k's own list describes a picture that does not exist; it is in no part of the split, where there is one
    optional = "rest" if any(row.split != "rest" for row in rows) else None
    return make_bunch(chosen, image_folder, missing_images, descr, optional=optional)


def load_flickr8k(
    folder: str | os.PathLike[str],
    *,
    split: str | None = None,
    missing_images: str = "raise",
    encoding: str = "utf-8",
) -> Bunch:
    """Load Flickr8k from a folder.

    The pictures may not be redistributed, so the folder is yours to provide. The pictures are in
    ``Flicker8k_Dataset``, ``Flickr8k_Dataset``, ``images`` or ``Images``, the captions in the first there is of

    - ``captions.json``, a list of ``{"file": ..., "captions": [...], "split": ...}``;
    - ``Flickr8k.token.txt``, as published, with ``Flickr_8k.trainImages.txt``, ``...devImages.txt`` and
      ``...testImages.txt`` beside it, in the folder itself, in ``text`` or in ``Flickr8k_text``;
    - ``dataset_flickr8k.json``, with Karpathy's split;
    - ``captions.txt``, the table ``image,caption`` of Kaggle. Without the lists of the split beside it all
      pictures are of "rest".

    Parameters
    ----------
    folder : path-like
        Where the files are.
    split : {"train", "val", "test", "rest"} or None, default=None
        Load only this part of the official split; ``"rest"`` is what the split leaves out. None loads all. The
        pictures and the list of another part need not be there.
    missing_images : {"raise", "drop", "keep"}, default="raise"
        What to do about pictures that are listed, but not there, as few copies are complete: "drop" leaves
        out their rows, "keep" does not look, for what needs no pictures.
    encoding : str, default="utf-8"
        Of captions and lists in files of text.

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
        A parameter is none of its options, the part asked for is empty, or a file is malformed; the message
        names file and line.

    Notes
    -----
    The original token file describes a picture that does not exist (``2258277193_586949ec62.jpg.1``); a
    picture without a file is left out if it is in none of the three parts, and an error otherwise, unless
    `missing_images` says so.

    Names of pictures are found in every form that Unicode has for them: macOS spells accents otherwise than lists do.

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
    check_missing_images(missing_images)
    folder = check_folder(folder, "Flickr8k")
    return _load(_read_8k(folder, split, encoding), folder, _IMAGE_FOLDERS, split, missing_images, _DESCR_8K)


def load_flickr30k(
    folder: str | os.PathLike[str],
    *,
    split: str | None = None,
    missing_images: str = "raise",
    encoding: str = "utf-8",
) -> Bunch:
    """Load Flickr30k from a folder.

    The pictures may not be redistributed, so the folder is yours to provide. The pictures are in
    ``flickr30k-images``, ``flickr30k_images`` or ``images``, the captions in the first there is of

    - ``dataset_flickr30k.json``, with Karpathy's split;
    - ``captions.json``, a list of ``{"file": ..., "captions": [...], "split": ...}``;
    - ``results_20130124.token``, and the lists ``train.txt``, ``val.txt`` and ``test.txt`` of pictures, with or
      without their ``.jpg``, as Flickr30k Entities has them;
    - ``results.csv`` or ``captions.txt``, the tables of Kaggle, between bars or commas. Without those lists all
      pictures are of "rest".

    Parameters
    ----------
    folder : path-like
        Where the files are.
    split : {"train", "val", "test", "rest"} or None, default=None
        Load only this part; ``"rest"`` is what no list names. None loads all. The pictures and the list of
        another part need not be there.
    missing_images : {"raise", "drop", "keep"}, default="raise"
        What to do about pictures that are listed, but not there, as few copies are complete: "drop" leaves
        out their rows, "keep" does not look, for what needs no pictures.
    encoding : str, default="utf-8"
        Of captions and lists in files of text.

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
        A parameter is none of its options, the part asked for is empty, or a file is malformed; the message
        names file and line, or entry.

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
    check_missing_images(missing_images)
    folder = check_folder(folder, "Flickr30k")
    return _load(_read_30k(folder, split, encoding), folder, _IMAGE_FOLDERS_30K, split, missing_images, _DESCR_30K)
