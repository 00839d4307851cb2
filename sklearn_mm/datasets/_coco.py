"""COCO, read from a folder as it is unpacked: captions, and objects as labels."""

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.utils import Bunch

from sklearn_mm._checks import label_matrix
from sklearn_mm.datasets._caption_rows import CaptionRow, choose, make_bunch, read_karpathy
from sklearn_mm.datasets._files import check_folder, check_missing_images, check_split, find, load_json

__all__ = ["load_coco_captions", "load_coco_multilabel"]

_PARTS = ("train", "val")
_KARPATHY_SPLITS = ("train", "restval", "val", "test")
_KARPATHY_FILE = "dataset_coco.json"
_YEARS = (2014, 2017)
_ANNOTATION_FIELDS: dict[str, dict[str, type]] = {
    "captions": {"image_id": object, "caption": str},
    "instances": {"image_id": object, "category_id": object},
}

_DESCR = """COCO
----

Photographs of everyday scenes, {what}.

T.-Y. Lin, M. Maire, S. Belongie, J. Hays, P. Perona, D. Ramanan, P. Dollar and C. L. Zitnick, "Microsoft COCO:
common objects in context", ECCV 2014.{more} The annotations are CC BY 4.0; the pictures are their owners'.
"""
_CAPTIONED = "each described by five people in a sentence of their own"
_LABELLED = "with 80 kinds of objects marked in them; 2014 has 82,783 to train on and 40,504 for validation"
_KARPATHY = (
    ' A. Karpathy and L. Fei-Fei, "Deep visual-semantic\nalignments for generating image descriptions", CVPR 2015.'
)


def load_coco_captions(
    folder: str | os.PathLike[str], *, year: int = 2014, split: str | None = None, missing_images: str = "raise"
) -> Bunch:
    """Load COCO's pictures and captions from a folder.

    The folder holds ``train2014`` and ``val2014``, or ``images`` which holds them, and the captions in one of

    - ``dataset_coco.json``, with Karpathy's split, also under ``annotations``;
    - ``annotations/captions_train2014.json`` and ``annotations/captions_val2014.json``, or of 2017.

    Parameters
    ----------
    folder : path-like
        Where the files are.
    year : {2014, 2017}, default=2014
        Which files of annotations. Karpathy's split is of 2014, and is preferred where it is there; its pictures
        may also lie there as they are called and parted since 2017.
    split : {"train", "restval", "val", "test"} or None, default=None
        Load only this part; without Karpathy's file there are "train" and "val". None loads all. Papers train
        on "train" and "restval" together: ``np.isin(data.split, ["train", "restval"])``.
        The pictures of another part need not be there.
    missing_images : {"raise", "drop", "keep"}, default="raise"
        What to do about pictures that are listed, but not there, as few copies are complete: "drop" leaves
        out their rows, "keep" does not look, for what needs no pictures.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        images : list of str, length n_images
            Paths of the pictures, in the order of their names.
        captions : list of list of str
            Five sentences or more for each picture, as their authors wrote them.
        split : ndarray of shape (n_images,), str
            The part of each picture.
        DESCR : str
            What this is, and the paper to cite.

    Raises
    ------
    FileNotFoundError
        The folder, a file of captions, or a picture is missing; the message says what was looked for.
    ValueError
        A parameter is none of its options, the part asked for is empty, or a file is malformed; the message
        names the file and the entry.

    Examples
    --------
    >>> import json, pathlib, tempfile
    >>> from PIL import Image
    >>> from sklearn_mm.datasets import load_coco_captions
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> for name in ("annotations", "val2017"):
    ...     (folder / name).mkdir()
    >>> Image.new("RGB", (8, 8)).save(folder / "val2017" / "000000000139.jpg")
    >>> captions = {"images": [{"id": 139, "file_name": "000000000139.jpg"}],
    ...             "annotations": [{"image_id": 139, "caption": "A room with a vase."}]}
    >>> _ = (folder / "annotations" / "captions_val2017.json").write_text(json.dumps(captions))
    >>> load_coco_captions(folder, year=2017, split="val").captions
    [['A room with a vase.']]
    """
    _check_year(year)
    check_split(split, _KARPATHY_SPLITS)
    check_missing_images(missing_images)
    folder = check_folder(folder, "COCO")
    candidates = [folder / _KARPATHY_FILE, folder / "annotations" / _KARPATHY_FILE]
    # papers compare by Karpathy's split, so it goes before the official parts
    karpathy = next((path for path in candidates if year == 2014 and path.exists()), None)
    if karpathy is not None:
        rows = read_karpathy(karpathy, _KARPATHY_SPLITS)
    else:
        check_split(split, _PARTS)
        rows = []
        for part in _parts(split):
            content, pictures = _read_annotations(folder, "captions", part, year)
            # annotations come in any order; the pictures' own order is kept
            captions: dict[int, list[str]] = {number: [] for number in pictures}
            for annotation in content["annotations"]:
                captions[annotation["image_id"]].append(annotation["caption"].strip())
            rows += [CaptionRow(pictures[number], own, part) for number, own in captions.items() if own]
    descr = _DESCR.format(what=_CAPTIONED, more=_KARPATHY if karpathy else "")
    return _with_pictures(rows, folder, split, missing_images, descr)


def load_coco_multilabel(
    folder: str | os.PathLike[str], *, year: int = 2014, split: str | None = None, missing_images: str = "raise"
) -> Bunch:
    """Load COCO's pictures and the kinds of objects in them from a folder.

    The folder holds ``annotations/instances_train2014.json`` and ``annotations/instances_val2014.json``, and the
    pictures in ``train2014`` and ``val2014``, or in ``images`` which holds them; the same of 2017.

    Parameters
    ----------
    folder : path-like
        Where the files are.
    year : {2014, 2017}, default=2014
        Which files. Papers on annotation train on "train" of 2014 and test on its "val".
    split : {"train", "val"} or None, default=None
        Load only this part; None loads both.
        The pictures of another part need not be there.
    missing_images : {"raise", "drop", "keep"}, default="raise"
        What to do about pictures that are listed, but not there, as few copies are complete: "drop" leaves
        out their rows, "keep" does not look, for what needs no pictures.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        images : list of str, length n_images
            Paths of the pictures, in the order of their names.
        target : sparse csr_array of shape (n_images, 80), int64
            1 where at least one object of the kind is marked. Rows may be empty: in one picture in a hundred
            nothing is marked.
        label_names : ndarray of shape (80,), str
            The kinds, in the order of their numbers; two of one name are one.
        split : ndarray of shape (n_images,), str
            ``"train"`` or ``"val"``.
        DESCR : str
            What this is, and the paper to cite.

    Raises
    ------
    FileNotFoundError
        The folder, a file of annotations, or a picture is missing; the message says what was looked for.
    ValueError
        A parameter is none of its options, the part asked for is empty, or a file is malformed; the message
        names the file and the entry.

    Notes
    -----
    The file for training has some 450 MB of outlines, which are read and let go: it takes some seconds and
    3 GB of memory.

    Examples
    --------
    >>> import json, pathlib, tempfile
    >>> from PIL import Image
    >>> from sklearn_mm.datasets import load_coco_multilabel
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> for name in ("annotations", "val2017"):
    ...     (folder / name).mkdir()
    >>> Image.new("RGB", (8, 8)).save(folder / "val2017" / "000000000139.jpg")
    >>> objects = {"images": [{"id": 139, "file_name": "000000000139.jpg"}],
    ...            "annotations": [{"image_id": 139, "category_id": 64}],
    ...            "categories": [{"id": 1, "name": "person"}, {"id": 64, "name": "potted plant"}]}
    >>> _ = (folder / "annotations" / "instances_val2017.json").write_text(json.dumps(objects))
    >>> coco = load_coco_multilabel(folder, year=2017, split="val")
    >>> coco.label_names, coco.target.toarray()
    (array(['person', 'potted plant'], dtype='<U12'), array([[0, 1]]))
    """
    _check_year(year)
    check_split(split, _PARTS)
    check_missing_images(missing_images)
    folder = check_folder(folder, "COCO")
    rows: list[CaptionRow] = []
    kinds: dict[int, list[str]] = {}
    for part in _parts(split):
        content, pictures = _read_annotations(folder, "instances", part, year)
        names = {category["id"]: category["name"] for category in content["categories"]}
        for number, name in names.items():
            kinds.setdefault(number, []).append(name)
        # a set: a picture with five chairs has the label once
        labels: dict[int, set[str]] = {number: set() for number in pictures}
        for annotation in content["annotations"]:
            labels[annotation["image_id"]].add(names[annotation["category_id"]])
        rows += [CaptionRow(pictures[number], sorted(own), part) for number, own in labels.items()]
    data = _with_pictures(rows, folder, split, missing_images, _DESCR.format(what=_LABELLED, more=""))
    # numbers have gaps, 1 to 90 for 80 kinds: columns are counted, not taken from them; and names say what a label is,
    # as some exports number one kind twice
    label_names = list(dict.fromkeys(name for number in sorted(kinds) for name in kinds[number]))
    column_of = {name: column for column, name in enumerate(label_names)}
    # make_bunch has no word for labels: they stood in the place of captions
    data.update(target=label_matrix(data.pop("captions"), column_of), label_names=np.array(label_names))
    return data


def _check_year(year: Any) -> None:
    if year not in _YEARS:
        raise ValueError(f"year must be 2014 or 2017, got {year!r}")


def _parts(split: str | None) -> tuple[str, ...]:
    return _PARTS if split is None else (split,)


def _read_annotations(folder: Path, kind: str, part: str, year: int) -> tuple[dict[str, Any], dict[int, str]]:
    """Return what a file holds, and the path of each picture below the folder of pictures."""
    path = folder / "annotations" / f"{kind}_{part}{year}.json"
    if not path.exists():
        other = next(one for one in _PARTS if one != part)
        raise FileNotFoundError(
            f"expected the annotations of the {part} part at {path}; if you have the other part alone, "
            f"pass split={other!r}"
        )
    content = load_json(path)
    wanted = {"images": {"id": object, "file_name": str}, "annotations": _ANNOTATION_FIELDS[kind]}
    if kind == "instances":
        wanted["categories"] = {"id": object, "name": str}
    if not isinstance(content, dict) or not all(isinstance(content.get(key), list) for key in wanted):
        raise ValueError(f"{path}: expected an object with {', '.join(sorted(wanted))}, got {content!s:.80}")
    for key, fields in wanted.items():
        for number, entry in enumerate(content[key]):
            _check_entry(entry, fields, f"{path}: entry {number} of {key}")
    kinds = {category["id"] for category in content.get("categories", ())} if kind == "instances" else None
    pictures = {picture["id"]: f"{part}{year}/{picture['file_name']}" for picture in content["images"]}
    for number, annotation in enumerate(content["annotations"]):
        if annotation["image_id"] not in pictures:
            raise ValueError(
                f"{path}: annotation {number} is of picture {annotation['image_id']}, which is not among the images"
            )
        if kinds is not None and annotation["category_id"] not in kinds:
            raise ValueError(
                f"{path}: annotation {number} is of category {annotation['category_id']}, which is not among the "
                "categories"
            )
    return content, pictures


def _check_entry(entry: Any, fields: dict[str, type], where: str) -> None:
    """Check that an entry has its fields, and that texts say something."""
    for name, kind in fields.items():
        value = entry.get(name) if isinstance(entry, dict) else None
        if value is None or not isinstance(value, kind) or (isinstance(value, str) and not value.strip()):
            raise ValueError(f"{where}: expected {' and '.join(map(repr, fields))}, got {entry!s:.80}")


def _with_pictures(rows: list[CaptionRow], folder: Path, split: str | None, missing_images: str, descr: str) -> Bunch:
    """Take the rows of a part, and look for their pictures."""
    chosen = choose(rows, split, folder)
    parts = sorted({row.file.rpartition("/")[0] for row in chosen})
    if any(map(_names_since_2017, chosen)):
        parts += [f"{part}2017" for part in _PARTS]
    # folders of the parts are taken to stand side by side: where one is, all are
    candidates = [base / part for part in parts for base in (folder, folder / "images")]
    if missing_images == "keep":
        there = next(filter(Path.is_dir, candidates), candidates[0])
    else:
        there = find(folder, candidates, f"folder of pictures {parts[0]}")
    return make_bunch(chosen, there.parent, missing_images, descr, other_names=_names_since_2017)


def _names_since_2017(row: CaptionRow) -> list[str]:
    """Return where a picture of 2014 may be since 2017: its number is its name, and it may be of another part."""
    number = re.search(r"/COCO_(?:train|val)2014_(\d+\.\w+)$", row.file)
    return [f"{part}2017/{number.group(1)}" for part in _PARTS] if number else []
