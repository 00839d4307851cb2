"""Changes to pictures in training, and batches of rows."""

import numpy as np
import pytest

from sklearn_mm.images import Augmentation, PictureReader, PictureRows, Pictures, read_crops

OFF = {"crop_scale": None, "crop_ratio": (1.0, 1.0), "mirror": False, "color_jitter": 0.0}
READER = PictureReader(16, 18)
N_DRAWS = 400


@pytest.fixture
def scene():
    """A picture wider than high whose colours say the place: red grows to the right, green downwards."""
    rows, columns = np.mgrid[:40, :80]
    return np.stack([3 * columns, 6 * rows, np.full((40, 80), 128)], axis=2).astype(np.uint8)


def test_rectangles_have_the_shares_and_ratios_asked_for():
    augmentation = Augmentation(**{**OFF, "crop_scale": (0.2, 0.5), "crop_ratio": (0.5, 2.0)})
    drawn = augmentation.draw(N_DRAWS, np.random.default_rng(0))
    tops, lefts, heights, widths = np.array([augmentation.rectangle(400, 400, row) for row in drawn]).T
    area, ratio = heights * widths / 400**2, widths / heights
    assert area.min() > 0.19
    assert area.max() < 0.51
    assert abs(area.mean() - 0.35) < 0.02
    assert ratio.min() > 0.49
    assert ratio.max() < 2.02
    assert abs(np.log(ratio).mean()) < 0.06
    assert tops.min() == 0 or lefts.min() == 0
    assert ((tops >= 0) & (lefts >= 0) & (tops + heights <= 400) & (lefts + widths <= 400)).all()


def test_rectangles_stay_inside_of_long_and_tiny_pictures():
    augmentation = Augmentation(**{**OFF, "crop_scale": (0.5, 1.0), "crop_ratio": (0.75, 4 / 3)})
    for height, width in ((10, 1000), (1000, 10), (1, 1), (2, 3)):
        for row in augmentation.draw(50, np.random.default_rng(1)):
            top, left, high, wide = augmentation.rectangle(height, width, row)
            assert high >= 1
            assert wide >= 1
            assert top >= 0
            assert left >= 0
            assert top + high <= height
            assert left + wide <= width


def test_the_rectangle_is_what_is_seen(scene):
    augmentation = Augmentation(**{**OFF, "crop_scale": (0.1, 0.4)})
    for row in augmentation.draw(20, np.random.default_rng(2)):
        top, left, height, width = augmentation.rectangle(40, 80, row)
        square = augmentation.read(READER, scene, row).astype(int)
        assert square.shape == (16, 16, 3)
        mean = scene[top : top + height, left : left + width].reshape(-1, 3).mean(0)
        np.testing.assert_allclose(square.reshape(-1, 3).mean(0), mean, atol=3)


def test_half_of_the_pictures_are_mirrored(scene):
    augmentation = Augmentation(**{**OFF, "mirror": True})
    plain = READER.read(scene)[0]
    crops = [augmentation.read(READER, scene, row) for row in augmentation.draw(N_DRAWS, np.random.default_rng(3))]
    is_mirrored = np.array([np.array_equal(square, plain[:, ::-1]) for square in crops])
    assert all(np.array_equal(square, plain) for square in np.array(crops)[~is_mirrored])
    assert 0.4 < is_mirrored.mean() < 0.6


def test_colours_are_changed_by_their_share_at_most(scene):
    augmentation = Augmentation(**{**OFF, "color_jitter": 0.1})
    plain = READER.read(scene)[0].astype(float)
    crops = [augmentation.read(READER, scene, row) for row in augmentation.draw(40, np.random.default_rng(4))]
    factors = [square.mean() / plain.mean() for square in crops]
    assert 0.85 < min(factors) < 0.97
    assert 1.03 < max(factors) < 1.15


def test_without_changes_training_sees_what_use_sees(scene):
    augmentation = Augmentation(**OFF)
    assert not augmentation.is_on
    rows = PictureRows(Pictures([scene, scene]))
    rng = np.random.default_rng(0)
    crops, failures = read_crops(rows, READER, augmentation, rng)
    assert failures == []
    np.testing.assert_array_equal(crops[1], READER.read(scene)[0])
    assert rng.random() == np.random.default_rng(0).random()  # nothing was drawn


def test_rows_keep_their_numbers_and_are_not_read_before_their_batch(scene):
    class Lazy:
        def __init__(self):
            self.read = []

        def __len__(self):
            return 10

        def __getitem__(self, row):
            self.read.append(row)
            return scene if row != 6 else b"no picture"

    lazy = Lazy()
    rows = PictureRows(Pictures(lazy), n_threads=2)
    lazy.read.clear()
    some = rows[2:9][np.array([5, 0, 4])]
    assert len(some) == 3
    assert lazy.read == []
    crops, failures = read_crops(some, READER)
    assert sorted(lazy.read) == [2, 6, 7]
    assert [failure.row for failure in failures] == [6]
    assert not crops[2].any()
    assert crops[:2].any()
