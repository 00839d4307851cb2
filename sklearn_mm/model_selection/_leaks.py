"""Find what a test set shares with the training set."""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sklearn_mm._checks import check_captions
from sklearn_mm._tables import with_length
from sklearn_mm._unicode import normal_form
from sklearn_mm.model_selection._identity import image_keys
from sklearn_mm.registry import stored_as

__all__ = ["CaptionLeak", "ImageLeak", "LeakReport", "find_leaks"]

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

    def __bool__(self) -> bool:
        return bool(self.images or self.captions)

    def __str__(self) -> str:
        return "\n".join(
            f"{len(leaks)} of {total} test {what} are training {what} too" + _named_rows(leaks)
            for what, leaks, total in (
                ("images", self.images, self.n_test_images),
                ("captions", self.captions, self.n_test_captions),
            )
        )


def _named_rows(leaks: Iterable[ImageLeak | CaptionLeak]) -> str:
    rows = list(dict.fromkeys(leak.test_row for leak in leaks))
    shown = ", ".join(map(str, rows[:_SHOWN]))
    return f" (test rows {shown}{', ...' if len(rows) > _SHOWN else ''})" if rows else ""


def find_leaks(train_X: Any, train_y: Any, test_X: Any, test_y: Any) -> LeakReport:
    """Find images and captions of a test set that the training set has too.

    Parameters
    ----------
    train_X, test_X : sequence of length n_train and n_test
        Images of each side: paths, encoded bytes, PIL images, arrays, features or ids.
    train_y, test_y : sequence of (str or sequence of str), or None
        The captions of each side; with None on either side, images alone are compared.

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
    match each other: nothing is decoded. A picture that was scaled or encoded anew counts as another one.

    Captions and ids are the same if they look the same: accents that are signs of their own count as those of letters
    that have them (Unicode's form NFC).

    Costs one reading of all files; a digest of 16 bytes is kept of each.

    Examples
    --------
    >>> from sklearn_mm.model_selection import find_leaks
    >>> report = find_leaks(["a", "b"], ["a dog", "a cat"], ["c", "b"], ["a cat", "a horse"])
    >>> print(report)
    1 of 2 test images are training images too (test rows 1)
    1 of 2 test captions are training captions too (test rows 0)
    >>> report.captions[0].caption, report.captions[0].train_rows
    ('a cat', (1,))
    """
    train_X, test_X = with_length(train_X), with_length(test_X)
    train_images = _rows_by_key(enumerate(image_keys(train_X, read_files=True)))
    test_keys = image_keys(test_X, read_files=True)
    images = [ImageLeak(row, train_images[key]) for row, key in enumerate(test_keys) if key in train_images]
    if train_y is None or test_y is None:
        return LeakReport(images, [], len(test_keys), 0)

    train, test = check_captions(train_y, train_X), check_captions(test_y, test_X)
    train_rows = _rows_by_key(zip(map(int, train.image_index), map(normal_form, train.texts), strict=True))
    captions = [
        CaptionLeak(text, int(row), train_rows[key])
        for row, text in zip(test.image_index, test.texts, strict=True)
        if (key := normal_form(text)) in train_rows
    ]
    return LeakReport(images, captions, len(test_keys), len(test.texts))


def _rows_by_key(rows_and_keys: Iterable[tuple[int, Hashable]]) -> dict[Hashable, tuple[int, ...]]:
    rows: dict[Hashable, list[int]] = {}
    for row, key in rows_and_keys:
        rows.setdefault(key, []).append(row)
    return {key: tuple(dict.fromkeys(found)) for key, found in rows.items()}  # an image may have a caption twice
