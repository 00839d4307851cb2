"""Drawn shapes: true captions, reproducible, learnable."""

import re
from itertools import chain

import numpy as np
import pytest
from scipy import ndimage
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import Ridge

from sklearn_mm.datasets import make_captioned_shapes
from sklearn_mm.datasets._shapes import _BACKGROUNDS, _COLOURS, _OUTLINES

N_DRAWN = 300


@pytest.fixture(scope="module")
def drawn():
    return make_captioned_shapes(N_DRAWN, captions_per_image=3, random_state=7)


def test_the_bunch_has_matching_lengths_and_documented_types(drawn):
    assert drawn.images.shape == (N_DRAWN, 64, 64, 3)
    assert drawn.images.dtype == np.uint8
    assert [len(row) for row in drawn.captions] == [3] * N_DRAWN
    assert drawn.target.shape == (N_DRAWN, len(drawn.label_names))
    assert drawn.target.dtype == drawn.groups.dtype == np.int64
    assert len(drawn.tags) == len(drawn.groups) == N_DRAWN
    assert "captions" in drawn.DESCR


def test_the_same_seed_draws_the_same_and_another_seed_something_else():
    first, again, other = (make_captioned_shapes(8, random_state=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.images, again.images)
    assert first.captions == again.captions
    assert first.captions != other.captions


def test_a_larger_set_starts_with_the_smaller_one():
    small, large = (make_captioned_shapes(n, random_state=3) for n in (5, 9))
    np.testing.assert_array_equal(small.images, large.images[:5])
    assert small.captions == large.captions[:5]


def test_the_scenes_do_not_depend_on_the_size_of_the_pictures():
    small, large = (make_captioned_shapes(5, image_size=size, random_state=3) for size in (32, 96))
    assert small.captions == large.captions
    shrunk = large.images.reshape(5, 32, 3, 32, 3, 3).mean((2, 4))
    assert np.abs(shrunk - small.images).mean() < 6  # of 255: noise, and edges averaged in another order


def test_captions_of_a_picture_differ_and_hardly_any_is_shared_between_pictures(drawn):
    assert all(len(set(row)) == len(row) for row in drawn.captions)
    first = [row[0] for row in drawn.captions]
    assert len(set(first)) > 0.98 * len(first)


def test_ten_captions_can_be_had_for_every_picture():
    assert {len(set(row)) for row in make_captioned_shapes(60, captions_per_image=10, random_state=0).captions} == {10}


def test_every_caption_names_the_things_of_its_picture_and_no_other_colour_or_shape(drawn):
    words = {*_OUTLINES, *_COLOURS}
    for tags, captions in zip(drawn.tags, drawn.captions, strict=True):
        for caption in captions:
            about_things = re.sub(r"on a \w+ background|against a \w+ background|a \w+ picture", "", caption)
            singular = {re.sub(r"(?<=ss)es$|(?<!s)s$", "", word) for word in re.findall(r"\w+", about_things)}
            assert singular & words == set(tags), caption


def test_the_target_indicates_the_tags(drawn):
    for tags, row in zip(drawn.tags, drawn.target, strict=True):
        assert set(drawn.label_names[row.astype(bool)]) == set(tags)
    assert drawn.target.sum(axis=0).min() > 0


def test_groups_are_shared_exactly_by_pictures_of_the_same_things(drawn):
    for group in np.unique(drawn.groups):
        members = np.flatnonzero(drawn.groups == group)
        assert len({tuple(sorted(drawn.tags[row])) for row in members}) == 1
    assert 0.5 * N_DRAWN < len(np.unique(drawn.groups)) < N_DRAWN


def test_complete_captions_tell_the_true_background(drawn):
    for picture, captions in zip(drawn.images, drawn.captions, strict=True):
        corners = picture[[0, 0, -1, -1], [0, -1, 0, -1]].astype(float)
        background = np.median(corners, axis=0)
        told = re.search(r"(\w+) (?:background|picture)", captions[0]).group(1)
        nearest = min(_BACKGROUNDS, key=lambda name: np.abs(background - _BACKGROUNDS[name]).sum())
        assert told == nearest, captions[0]


def _pixels_of(picture, colour):
    """Rows and columns of the pixels close to a colour, in [0, 1]."""
    rows, columns = np.nonzero(np.abs(picture.astype(int) - _COLOURS[colour]).max(axis=-1) < 30)
    return rows / picture.shape[0], columns / picture.shape[1]


def _first_colours(text):
    return re.findall("|".join(_COLOURS), text)


@pytest.fixture(scope="module")
def related():
    return make_captioned_shapes(400, random_state=1)


@pytest.mark.parametrize(
    ("words", "axis", "sign"),
    [("left of", 1, 1), ("right of", 1, -1), ("above|over", 0, 1), ("below|under", 0, -1)],
)
def test_relations_hold_in_the_pixels(related, words, axis, sign):
    n_seen = 0
    for picture, captions in zip(related.images, related.captions, strict=True):
        scene = re.sub(r"on a \w+ background|against a \w+ background|a \w+ picture", "", captions[0])
        parts = re.split(rf"\b(?:{words})\b", scene)
        if len(parts) != 2 or "one above the other" in scene:
            continue
        first, second = (np.mean(_pixels_of(picture, _first_colours(part)[0])[axis]) for part in parts)
        assert sign * (second - first) > 0.15, captions[0]
        n_seen += 1
    assert n_seen > 20


def test_places_and_counts_hold_in_the_pixels():
    drawn = make_captioned_shapes(300, random_state=2)
    n_seen = 0
    for picture, captions, tags in zip(drawn.images, drawn.captions, drawn.tags, strict=True):
        count = re.search(r"\b(two|three|four)\b", captions[0])
        if count is None:
            continue
        near = np.abs(picture.astype(int) - _COLOURS[tags[1]]).max(axis=-1) < 60
        labels, _ = ndimage.label(near, structure=np.ones((3, 3)))
        n_blobs = (np.bincount(labels.ravel())[1:] > 5).sum()
        assert n_blobs == {"two": 2, "three": 3, "four": 4}[count.group(1)], captions[0]
        n_seen += 1
    assert n_seen > 20


def test_a_linear_map_of_the_pixels_already_finds_unseen_pictures_by_their_captions():
    n_train, n_test = 300, 100
    for seed in range(2):
        drawn = make_captioned_shapes(n_train + n_test, random_state=seed)
        pixels = drawn.images.reshape(-1, 16, 4, 16, 4, 3).mean((2, 4)).reshape(n_train + n_test, -1) / 255 - 0.5
        texts = TfidfVectorizer(ngram_range=(1, 2), min_df=2).fit(chain(*drawn.captions[:n_train]))
        wanted = np.stack([texts.transform(row).toarray().mean(axis=0) for row in drawn.captions])
        predicted = Ridge(alpha=30).fit(pixels[:n_train], wanted[:n_train]).predict(pixels[n_train:])
        predicted /= np.linalg.norm(predicted, axis=1, keepdims=True)
        queries = texts.transform([row[0] for row in drawn.captions[n_train:]])
        scores = queries @ predicted.T
        hit_at_10 = np.mean((scores > np.diag(scores)[:, None]).sum(axis=1) < 10)
        assert hit_at_10 > 0.4  # chance is 0.1; measured 0.6


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"n_samples": 0}, ValueError, "n_samples"),
        ({"n_samples": 2.5}, TypeError, "n_samples"),
        ({"image_size": 8}, ValueError, "image_size"),
        ({"captions_per_image": 11}, ValueError, "captions_per_image"),
        ({"random_state": "seed"}, ValueError, "seed"),
    ],
)
def test_bad_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        make_captioned_shapes(**arguments)
