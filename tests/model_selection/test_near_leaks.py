"""Pictures and captions of a test set that are nearly those of the training set."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from sklearn_mm.images import PictureReader
from sklearn_mm.model_selection import LeakReport, _looks, find_leaks
from sklearn_mm.registry import FORMAT_VERSION


def _photo(seed, width=96, height=64):
    """Draw clouds of colour: smooth as photographs are."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def _jpeg(picture, quality=60):
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return file.getvalue()


@pytest.fixture(scope="module")
def photos():
    return [_photo(seed) for seed in range(40)]


@pytest.mark.parametrize(
    ("change", "mirrored"),
    [
        (lambda picture: _jpeg(picture, 30), False),
        (lambda picture: picture.resize((48, 32)), False),
        (lambda picture: np.asarray(picture.resize((200, 133))), False),
        (lambda picture: picture.resize((64, 64)), False),
        (lambda picture: picture.convert("L"), False),
        (ImageOps.mirror, True),
        (lambda picture: _jpeg(ImageOps.mirror(picture).resize((60, 40))), True),
    ],
    ids=["encoded anew", "smaller", "larger", "squashed", "grey", "mirrored", "all of it"],
)
def test_copies_are_found_and_nothing_else_is(photos, change, mirrored):
    others = [_photo(seed) for seed in range(100, 110)]
    report = find_leaks(photos, None, [*map(change, photos), *others], None)
    assert report.images == []
    assert [(leak.test_row, leak.train_rows, leak.mirrored) for leak in report.near_images] == [
        (row, (row,), (mirrored,)) for row in range(40)
    ]
    assert report
    assert "40 more look like training images (test rows 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ...)" in str(report)


def test_what_is_the_same_is_no_near_copy(photos, tmp_path):
    paths = []
    for number, photo in enumerate(photos[:3]):
        paths.append(tmp_path / f"{number}.png")
        photo.save(paths[-1])
    report = find_leaks(paths[:2], None, [paths[1].read_bytes(), str(paths[2])], None)
    assert [leak.test_row for leak in report.images] == [0]
    assert report.near_images == []
    # pixels in memory and a file of the same are told by what they look like
    assert [leak.test_row for leak in find_leaks(paths, None, photos[2:], None).near_images] == [0]


def test_every_training_row_that_looks_alike_is_named(photos):
    train = [photos[0], photos[1], ImageOps.mirror(photos[0]), photos[0].resize((50, 40))]
    (leak,) = find_leaks(train, None, [_jpeg(photos[0])], None).near_images
    assert (leak.train_rows, leak.mirrored) == ((0, 2, 3), (False, True, False))


def test_a_symmetric_picture_is_named_once(photos):
    half = np.asarray(photos[0])
    symmetric = Image.fromarray(np.concatenate([half, half[:, ::-1]], axis=1))
    (leak,) = find_leaks([symmetric], None, [_jpeg(symmetric)], None).near_images
    assert (leak.train_rows, leak.mirrored) == ((0,), (False,))


def test_pictures_of_one_colour_and_features_look_like_nothing():
    grey = [np.full((40, 40, 3), value, dtype=np.uint8) for value in (100, 101)]
    assert not find_leaks(grey[:1], None, grey[1:], None)
    features = np.random.default_rng(0).random((6, 40))
    assert not find_leaks(features, None, features + 1e-9, None)
    maps = np.random.default_rng(0).normal(size=(4, 3, 3, 16))
    assert str(find_leaks(maps, None, maps + 1e-9, None)).startswith("0 of 4")


def test_files_that_are_no_pictures_are_counted_and_compared_by_their_bytes(photos, tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    (tmp_path / "b.jpg").write_bytes(b"no picture")
    report = find_leaks([tmp_path / "a.jpg", photos[0]], None, [tmp_path / "b.jpg", _jpeg(photos[0])], None)
    assert [leak.test_row for leak in report.images] == [0]
    assert [leak.test_row for leak in report.near_images] == [1]
    assert report.n_unreadable == 2
    assert "2 files are no pictures that can be read" in str(report)


def test_near_copies_are_left_alone_where_they_are_not_asked_for(photos, monkeypatch):
    monkeypatch.setattr(PictureReader, "decode", None)  # nothing is read
    assert not find_leaks(photos, ["a dog"] * 40, [_jpeg(photos[0])], ["A dog!"], near=False)


def test_all_pairs_are_compared_whatever_the_blocks(monkeypatch):
    rng = np.random.default_rng(0)
    items = rng.integers(0, 2**63, 300, dtype=np.uint64)
    flipped = np.array([sum(1 << int(bit) for bit in rng.choice(64, n, replace=False)) for n in range(20)], np.uint64)
    queries = items[:20] ^ flipped  # the first differ in few bits
    expected = [
        (row, column)
        for row in range(20)
        for column in range(300)
        if bin(int(queries[row]) ^ int(items[column])).count("1") <= 12
    ]
    assert [pair for pair in expected if pair[0] == pair[1]] == [(row, row) for row in range(13)]
    for n_queries, n_items in ((8, 8192), (3, 7), (1, 300)):
        monkeypatch.setattr(_looks, "_QUERIES", n_queries)
        monkeypatch.setattr(_looks, "_ITEMS", n_items)
        found = sorted(zip(*(part.tolist() for part in _looks._near_bits(queries, items)), strict=True))
        assert found == expected


TRAIN = [
    "a brown dog runs over the green grass",
    "two colours of flowers in a tall glass vase",
    "a dog",
    "the man in a red hat sits on a bench",
]


@pytest.mark.parametrize(
    ("caption", "near"),
    [
        ("A brown dog runs over the green grass .", 0),
        ("a brown dog runs over green grass", 0),
        ("a small brown dog runs over the green grass", 0),
        ("a brown dogs runs over the green grass", 0),
        ("two colors of flowers in a tall glass vase", 1),
        ("A  DOG!", 2),
        ("a black dog runs over the green grass", None),  # another dog
        ("a brown dog runs over the grass today", None),
        ("the dog", None),
        ("dog", None),
        ("over the green grass a brown dog runs", None),
    ],
)
def test_captions_are_near_that_differ_in_how_they_are_written(caption, near):
    report = find_leaks(range(4), TRAIN, [10, 11], ["no such thing", [caption, "nor this"]])
    expected = [] if near is None else [(caption, 1, TRAIN[near], (near,))]
    assert [tuple(leak) for leak in report.near_captions] == expected
    assert bool(report) == (near is not None)


def test_a_caption_that_is_there_word_for_word_is_not_near_as_well():
    report = find_leaks([1, 2], ["a brown dog runs over grass", "A brown dog runs over grass."], [3], [TRAIN[2]])
    assert not report
    report = find_leaks([1, 2], [TRAIN[0], TRAIN[0] + "."], [3], [TRAIN[0]])
    assert ([leak.train_rows for leak in report.captions], report.near_captions) == ([(0,)], [])


def test_sentences_filled_into_one_form_are_not_near():
    """Of a hundred that differ at one place none is a copy, though their words there may be much alike."""
    train = [f"a picture of the number {number} in white" for number in range(1000, 1100)]
    assert not find_leaks(range(100), train, [100], ["a picture of the number 1100 in white"])


def test_reports_saved_before_there_was_anything_near_are_opened():
    report = LeakReport._from_format({"images": [], "captions": [], "n_test_images": 1, "n_test_captions": 0}, 1)
    assert FORMAT_VERSION >= 1
    assert LeakReport(**report).near_images == []
