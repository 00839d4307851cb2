"""NUS-WIDE, read from its official lists: 81 concepts, the 1,000 most frequent tags, the official split."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy import sparse
from sklearn.utils import Bunch

from sklearn_mm._unicode import normal_form
from sklearn_mm.datasets._files import (
    PictureFolder,
    check_folder,
    check_missing_images,
    check_split,
    find,
    keep_found,
    read_lines,
)

__all__ = ["load_nus_wide"]

_PARTS = ("train", "test")
_CONCEPT_FILES = ("ConceptsList/Concepts81.txt", "Concepts81.txt")
_IMAGE_FOLDERS = ("Flickr", "images", "Images")
_BLANKS = b" \t\r\v\f"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_READ_BYTES = 1 << 24  # 16 MB at a time of files of tags that have 540 MB

_DESCR = """NUS-WIDE
--------

269,648 photographs from Flickr, 161,789 to train on and 107,859 for the test, with the tags that users gave
them, of which the 1,000 most frequent are listed, and 81 concepts that students of the university looked for.
60,301 photographs have none of the concepts.

T.-S. Chua, J. Tang, R. Hong, H. Li, Z. Luo and Y.-T. Zheng, "NUS-WIDE: a real-world web image database from
National University of Singapore", CIVR 2009. For research.
"""


def load_nus_wide(
    folder: str | os.PathLike[str],
    *,
    split: str | None = None,
    drop_label_tags: bool = True,
    missing_images: str = "raise",
    encoding: str = "utf-8",
) -> Bunch:
    r"""Load NUS-WIDE's pictures, concepts and tags from a folder.

    The folder holds the official files:

    - ``ImageList/TrainImagelist.txt`` and ``TestImagelist.txt``;
    - ``ConceptsList/Concepts81.txt``;
    - ``Groundtruth/TrainTestLabels/Labels_<concept>_Train.txt`` and ``..._Test.txt``;
    - ``NUS_WID_Tags/TagList1k.txt``, ``Train_Tags1k.dat`` and ``Test_Tags1k.dat``;
    - the pictures in ``Flickr`` or ``images``, in the folders that the lists name.

    Parameters
    ----------
    folder : path-like
        Where the files are.
    split : {"train", "test"} or None, default=None
        Load only this part; None loads both, the training part first.
    drop_label_tags : bool, default=True
        Leave out the tags that are called as a concept is, 75 of the 1,000: they give the answer away.
    missing_images : {"raise", "drop", "keep"}, default="raise"
        What to do about pictures that are listed, but not there, as few copies are complete: "drop" leaves
        out their rows, "keep" does not look, for what needs no pictures.
    encoding : str, default="utf-8"
        Of the lists of concepts, tags and pictures.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        images : list of str, length n_images
            Paths of the pictures, in the order of the lists.
        target : sparse csr_array of shape (n_images, 81), int64
            1 where the concept is seen. Rows may be empty.
        label_names : ndarray of shape (81,), str
            The concepts.
        tags : sparse csr_array of shape (n_images, n_tags), int64
            1 where a user gave the tag.
        tag_names : ndarray of shape (n_tags,), str
            What the columns of `tags` stand for: 925, or 1,000.
        split : ndarray of shape (n_images,), str
            ``"train"`` or ``"test"``.
        DESCR : str
            What this is, and the paper to cite.

    Raises
    ------
    FileNotFoundError
        The folder, a list or a picture is missing; the message says what was looked for.
    ValueError
        A parameter is none of its options, or a file is malformed: it names the file and line.

    Notes
    -----
    The files of tags are 540 MB of text; they are read in pieces, in a few seconds.

    Papers differ in what they keep: many leave out the pictures that have no concept,
    ``np.flatnonzero(data.target.sum(axis=1))``.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from sklearn_mm.datasets import load_nus_wide
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> files = {
    ...     "ImageList/TrainImagelist.txt": "actor\\0001_2124494179.jpg\nzoo\\0002_1.jpg\n",
    ...     "ConceptsList/Concepts81.txt": "animal\nsky\n",
    ...     "Groundtruth/TrainTestLabels/Labels_animal_Train.txt": "0\n1\n",
    ...     "Groundtruth/TrainTestLabels/Labels_sky_Train.txt": "1\n1\n",
    ...     "NUS_WID_Tags/TagList1k.txt": "nature\nsky\nfilm\n",
    ...     "NUS_WID_Tags/Train_Tags1k.dat": "0\t0\t1\n1\t1\t0\n",
    ... }
    >>> for name, text in files.items():
    ...     (folder / name).parent.mkdir(parents=True, exist_ok=True)
    ...     _ = (folder / name).write_text(text)
    >>> nus = load_nus_wide(folder, split="train", missing_images="keep")
    >>> nus.target.toarray().tolist(), nus.tag_names.tolist()
    ([[0, 1], [1, 1]], ['nature', 'film'])
    """
    check_split(split, _PARTS)
    check_missing_images(missing_images)
    folder = check_folder(folder, "NUS-WIDE")
    concepts = _read_names(find(folder, [folder / name for name in _CONCEPT_FILES], "list of concepts"), encoding)
    tag_names = _read_names(_require(folder, "NUS_WID_Tags/TagList1k.txt"), encoding)

    files: list[str] = []
    splits, targets, tags = [], [], []
    for part in _PARTS if split is None else (split,):
        names = _read_names(_require(folder, f"ImageList/{part.capitalize()}Imagelist.txt"), encoding)
        # the official lists part folders by backslashes
        files += [name.replace("\\", "/") for name in names]
        splits += [part] * len(names)
        targets.append(_read_labels(folder, concepts, part, len(names)))
        tags.append(_read_marks(_require(folder, f"NUS_WID_Tags/{part.capitalize()}_Tags1k.dat"), len(tag_names)))
        _check_length(tags[-1], len(names), f"{part.capitalize()}_Tags1k.dat")

    kept_tags = np.full(len(tag_names), True)
    if drop_label_tags:
        kept_tags = ~np.isin(list(map(_folded, tag_names)), list(map(_folded, concepts)))
    image_folder, files, rows = _find_images(folder, files, missing_images)
    return Bunch(
        images=[str(image_folder / file) for file in files],
        target=sparse.vstack(targets, format="csr")[rows],
        label_names=np.array(concepts),
        tags=sparse.vstack(tags, format="csr")[rows][:, np.flatnonzero(kept_tags)],
        tag_names=np.array(tag_names)[kept_tags],
        split=np.array(splits)[rows],
        DESCR=_DESCR,
    )


def _require(folder: Path, name: str) -> Path:
    return find(folder, [folder / name], Path(name).name)


def _read_names(path: Path, encoding: str) -> list[str]:
    return [line.strip() for _, line in read_lines(path, encoding)]


def _folded(name: str) -> str:
    return normal_form(name).casefold()


def _read_labels(folder: Path, concepts: list[str], part: str, n_images: int) -> sparse.csr_array:
    columns = []
    for concept in concepts:
        name = f"Labels_{concept}_{part.capitalize()}.txt"
        column = _read_marks(_require(folder, f"Groundtruth/TrainTestLabels/{name}"), 1)
        _check_length(column, n_images, name)
        columns.append(column)
    return sparse.hstack(columns, format="csr")


def _check_length(marks: sparse.csr_array, n_images: int, name: str) -> None:
    if marks.shape[0] != n_images:
        raise ValueError(
            f"{name} must have a line for each of the {n_images} pictures of the list, got {marks.shape[0]}"
        )


def _read_marks(path: Path, n_columns: int) -> sparse.csr_array:
    """Read lines of 0 and 1 that blanks keep apart; empty lines are none."""
    # an empty file is a matrix without rows, where vstack would refuse to join nothing
    blocks = [sparse.csr_array((0, n_columns), dtype=np.int64)]
    n_lines = 0  # of the pieces before, empty ones too
    for text in _whole_lines(path):
        # without blanks a line is its row of signs, one byte each, and bytes are an array already: no int is parsed
        lines = text.translate(None, _BLANKS).split()
        signs = np.frombuffer(b"".join(lines), dtype=np.uint8)
        # "0" and "1" differ in the last bit alone: with it set, both are "1", and nothing else is
        if any(len(line) != n_columns for line in lines) or (signs | 1 != ord("1")).any():
            # in Python, as it is asked of malformed files alone
            numbered = enumerate(text.translate(None, _BLANKS).split(b"\n"), start=n_lines + 1)
            number, bad = next(
                (number, line) for number, line in numbered if line and (len(line) != n_columns or line.strip(b"01"))
            )
            raise ValueError(
                f"{path}, line {number}: expected {n_columns} of 0 and 1, "
                f"got {len(bad)} signs: {bad.decode(errors='replace'):.40}"
            )
        blocks.append(sparse.csr_array(signs.reshape(-1, n_columns) == ord("1"), dtype=np.int64))
        n_lines += text.count(b"\n")
    return sparse.vstack(blocks, format="csr")


def _whole_lines(path: Path) -> Iterator[bytes]:
    """Read a file in pieces that end where a line ends."""
    rest = b""
    with path.open("rb") as file:
        if file.read(len(_BYTE_ORDER_MARK)) != _BYTE_ORDER_MARK:
            file.seek(0)
        while piece := file.read(_READ_BYTES):
            # what stands behind the last newline is the beginning of a line of the next piece
            head, newline, tail = (rest + piece).rpartition(b"\n")
            rest = tail
            if newline:
                yield head + newline
    if rest.strip():
        yield rest + b"\n"  # the last line may lack its end


def _find_images(folder: Path, files: list[str], missing_images: str) -> tuple[Path, list[str], np.ndarray]:
    """Return the folder of pictures, the files to keep, and their rows."""
    if missing_images == "keep":
        there = next((name for name in _IMAGE_FOLDERS if (folder / name).is_dir()), _IMAGE_FOLDERS[0])
        return folder / there, files, np.arange(len(files))
    image_folder = find(folder, [folder / name for name in _IMAGE_FOLDERS], "folder of pictures")
    found = list(map(PictureFolder(image_folder).find, files))
    rows = keep_found(files, found, image_folder, missing_images)
    return image_folder, [found[row] or files[row] for row in rows], np.array(rows, dtype=np.int64)
