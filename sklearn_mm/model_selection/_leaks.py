"""Find what a test set shares with the training set."""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sklearn_mm._checks import Captions, check_captions
from sklearn_mm._tables import with_length
from sklearn_mm._unicode import normal_form
from sklearn_mm.model_selection._identity import image_keys, pictures_in
from sklearn_mm.model_selection._looks import find_alike, look_at
from sklearn_mm.model_selection._near_captions import find_near_captions
from sklearn_mm.registry import stored_as

__all__ = ["CaptionLeak", "ImageLeak", "LeakReport", "NearCaptionLeak", "NearImageLeak", "find_leaks"]

_SHOWN = 10  # rows that the text of a report names


@stored_as("model_selection.ImageLeak")
class ImageLeak(NamedTuple):
    """A test image that is a training image too, and the rows of both sides."""

    test_row: int
    train_rows: tuple[int, ...]


@stored_as("model_selection.CaptionLeak")
class CaptionLeak(NamedTuple):
    """A test caption that is a training caption too, and the rows of both sides."""

    caption: str
    test_row: int
    train_rows: tuple[int, ...]


@stored_as("model_selection.NearImageLeak")
class NearImageLeak(NamedTuple):
    """A test image that looks like training images, the rows of both sides, and which are mirrored."""

    test_row: int
    train_rows: tuple[int, ...]
    mirrored: tuple[bool, ...]


@stored_as("model_selection.NearCaptionLeak")
class NearCaptionLeak(NamedTuple):
    """A test caption that is nearly a training caption, and the rows of both sides."""

    caption: str
    test_row: int
    train_caption: str
    train_rows: tuple[int, ...]


@stored_as("model_selection.LeakReport")
@dataclass(frozen=True)
class LeakReport:
    """What a test set shares with the training set; true if it shares anything.

    Parameters
    ----------
    images : list of named tuple (test_row, train_rows)
        Test images that are in the training set, by test row, and the rows they have there.
    captions : list of named tuple (caption, test_row, train_rows)
        Captions of test images that are in the training set word for word, by test row. Short and general
        sentences come about twice without any fault; the share of them is worth knowing.
    n_test_images, n_test_captions : int
        How many there are in all.
    near_images : list of named tuple (test_row, train_rows, mirrored)
        Test images that look like training images and are not the same, by test row; `mirrored` says of each of the
        training rows whether it is a mirror image.
    near_captions : list of named tuple (caption, test_row, train_caption, train_rows)
        Captions of test images that are nearly one of the training set, of which there is none word for word; the
        first of those that come near is named, with all rows that have one.
    n_unreadable : int
        Files of both sides that could not be read as pictures, and were compared by their bytes alone.

    Examples
    --------
    >>> from sklearn_mm.model_selection import find_leaks
    >>> report = find_leaks(["a", "b", "a"], None, ["c", "a"], None)
    >>> bool(report), report.images[0].test_row, report.images[0].train_rows
    (True, 1, (0, 2))
    """

    images: list[ImageLeak] = field(default_factory=list)
    captions: list[CaptionLeak] = field(default_factory=list)
    n_test_images: int = 0
    n_test_captions: int = 0
    near_images: list[NearImageLeak] = field(default_factory=list)
    near_captions: list[NearCaptionLeak] = field(default_factory=list)
    n_unreadable: int = 0

    def __bool__(self) -> bool:
        return bool(self.images or self.captions or self.near_images or self.near_captions)

    def __str__(self) -> str:
        lines = [
            f"{len(leaks)} of {total} test {what} are training {what} too" + _named_rows(leaks)
            for what, leaks, total in (
                ("images", self.images, self.n_test_images),
                ("captions", self.captions, self.n_test_captions),
            )
        ]
        if self.near_images:
            lines.append(f"{len(self.near_images)} more look like training images" + _named_rows(self.near_images))
        if self.near_captions:
            lines.append(
                f"{len(self.near_captions)} more are nearly training captions" + _named_rows(self.near_captions)
            )
        if self.n_unreadable:
            lines.append(
                f"{self.n_unreadable} files are no pictures that can be read, and were compared by their bytes"
            )
        return "\n".join(lines)

    @classmethod
    def _from_format(cls, fields: dict[str, Any], number: int) -> dict[str, Any]:
        """Return fields of before there was anything near."""
        return {"near_images": [], "near_captions": [], "n_unreadable": 0, **fields}


def _named_rows(leaks: Iterable[ImageLeak | CaptionLeak | NearImageLeak | NearCaptionLeak]) -> str:
    rows = list(dict.fromkeys(leak.test_row for leak in leaks))
    shown = ", ".join(map(str, rows[:_SHOWN]))
    return f" (test rows {shown}{', ...' if len(rows) > _SHOWN else ''})" if rows else ""


def find_leaks(train_X: Any, train_y: Any, test_X: Any, test_y: Any, *, near: bool = True) -> LeakReport:
    """Find images and captions of a test set that the training set has too.

    Parameters
    ----------
    train_X, test_X : sequence of length n_train and n_test
        Images of each side: paths, encoded bytes, PIL images, arrays, features or ids.
    train_y, test_y : sequence of (str or sequence of str), or None
        The captions of each side; with None on either side, images alone are compared.
    near : bool, default=True
        Look for what is nearly the same as well: pictures encoded anew, resized or mirrored, and captions that differ
        in case, in punctuation, or by a word left out or spelt another way. It reads the pictures of both sides.

    Returns
    -------
    LeakReport
        True if anything is shared; printed, it says how much and where.

    Raises
    ------
    ValueError
        Images and captions of a side differ in length, or a caption is empty.
    TypeError
        An entry of the captions is neither a str nor a sequence of str, or a side is a mapping, a set or an open file.

    Notes
    -----
    Files are compared by content, whatever their names, and so are encoded bytes; strings that name no file
    are ids, compared as they are. PIL images and arrays are compared by their pixels. The two kinds never
    match each other exactly, but nearly.

    Pictures are near if a hash of 64 bits, the signs of the lowest frequencies of their grey values [1]_, differs in at
    most 12, and 16 x 16 grey values correlate by 0.97 or more; so are those of the mirror image. Pictures cut out of
    others, or with a frame or a text laid over them, are not found; pictures of one colour are compared exactly alone.
    Features and ids look like nothing.

    Captions are near if they have the same words but for one, which is left out of one of them or spelt another way
    ("color", "colour"), where five others are shared; and if they have the same words.

    Captions and ids are the same if they look the same: accents that are signs of their own count as those of letters
    that have them (Unicode's form NFC).

    Costs one reading of all files, of which a digest of 16 bytes is kept, and with `near` one decoding, of which 272
    bytes are kept; all hashes are compared with each other, block by block, in as many threads as BLAS and torch have
    been given: 100,000 with 100,000 take about a minute.

    References
    ----------
    .. [1] C. Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010.

    Examples
    --------
    >>> from sklearn_mm.model_selection import find_leaks
    >>> report = find_leaks(["a", "b"], ["a dog", "a cat"], ["c", "b"], ["a cat", "A dog!"])
    >>> print(report)
    1 of 2 test images are training images too (test rows 1)
    1 of 2 test captions are training captions too (test rows 0)
    1 more are nearly training captions (test rows 1)
    >>> report.captions[0].caption, report.captions[0].train_rows
    ('a cat', (1,))
    """
    train_X, test_X = with_length(train_X), with_length(test_X)
    train_keys, test_keys = (image_keys(X, read_files=True) for X in (train_X, test_X))
    train_images = _rows_by_key(enumerate(train_keys))
    images = [ImageLeak(row, train_images[key]) for row, key in enumerate(test_keys) if key in train_images]
    near_images, n_unreadable = _near_images(train_X, test_X, train_keys, test_keys) if near else ([], 0)
    if train_y is None or test_y is None:
        return LeakReport(images, [], len(test_keys), 0, near_images, [], n_unreadable)

    train, test = check_captions(train_y, train_X), check_captions(test_y, test_X)
    captions = _equal_captions(train, test)
    near_captions = _near_captions(train, test) if near else []
    return LeakReport(images, captions, len(test_keys), len(test.texts), near_images, near_captions, n_unreadable)


def _near_images(
    train_X: Any, test_X: Any, train_keys: list[Hashable], test_keys: list[Hashable]
) -> tuple[list[NearImageLeak], int]:
    train, test = look_at(pictures_in(train_X)), look_at(pictures_in(test_X))
    found: dict[int, list[tuple[int, bool]]] = {}
    for test_row, train_row, mirrored in zip(*(part.tolist() for part in find_alike(test, train)), strict=True):
        if train_keys[train_row] != test_keys[test_row]:
            found.setdefault(test_row, []).append((train_row, mirrored))
    leaks = [NearImageLeak(row, *map(tuple, zip(*pairs, strict=True))) for row, pairs in found.items()]
    return leaks, train.n_unreadable + test.n_unreadable


def _equal_captions(train: Captions, test: Captions) -> list[CaptionLeak]:
    train_rows = _rows_by_key(zip(map(int, train.image_index), map(normal_form, train.texts), strict=True))
    return [
        CaptionLeak(text, int(row), train_rows[key])
        for row, text in zip(test.image_index, test.texts, strict=True)
        if (key := normal_form(text)) in train_rows
    ]


def _near_captions(train: Captions, test: Captions) -> list[NearCaptionLeak]:
    equal = set(map(normal_form, train.texts))
    left = [place for place, text in enumerate(test.texts) if normal_form(text) not in equal]
    leaks = []
    for query, found in find_near_captions([test.texts[place] for place in left], train.texts):
        place = left[query]
        rows = dict.fromkeys(train.image_index[found].tolist())  # an image may have several that come near
        leaks.append(
            NearCaptionLeak(test.texts[place], int(test.image_index[place]), train.texts[found[0]], tuple(rows))
        )
    return leaks


def _rows_by_key(rows_and_keys: Iterable[tuple[int, Hashable]]) -> dict[Hashable, tuple[int, ...]]:
    rows: dict[Hashable, list[int]] = {}
    for row, key in rows_and_keys:
        rows.setdefault(key, []).append(row)
    return {key: tuple(dict.fromkeys(found)) for key, found in rows.items()}  # an image may have a caption twice
