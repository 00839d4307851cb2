import numpy as np
import pytest
from PIL import Image

from sklearn_mm.model_selection import find_leaks


def _picture(seed):
    return np.random.default_rng(seed).integers(0, 256, (8, 9, 3), dtype=np.uint8)


@pytest.fixture
def files(tmp_path):
    """Five pictures on disk; 3.png holds what 0.png does."""
    paths = []
    for name, seed in enumerate([0, 1, 2, 0, 4]):
        paths.append(tmp_path / f"{name}.png")
        Image.fromarray(_picture(seed)).save(paths[-1])
    return paths


def test_files_are_compared_by_content_not_by_name(files):
    report = find_leaks(files[:3], None, files[3:], None)
    assert [tuple(leak) for leak in report.images] == [(0, (0,))]
    assert (report.captions, report.n_test_images, report.n_test_captions) == ([], 2, 0)
    names = [str(path) for path in files]
    assert find_leaks(names[:3], None, [path.read_bytes() for path in files[3:]], None).images == report.images


def test_pictures_in_memory_are_compared_by_pixels():
    train = [_picture(0), _picture(1)]
    test = [Image.fromarray(_picture(2)), Image.fromarray(_picture(1)), _picture(1)[::-1], _picture(0)]
    assert [(leak.test_row, leak.train_rows) for leak in find_leaks(train, None, test, None).images] == [
        (1, (1,)),
        (3, (0,)),
    ]


def test_features_and_ids_are_compared_by_value():
    features = np.arange(8.0).reshape(4, 2)
    assert [leak.test_row for leak in find_leaks(features[:2], None, features[[3, 1]], None).images] == [1]
    assert [leak.test_row for leak in find_leaks([1, 2], None, np.array([3, 2]), None).images] == [1]
    assert [leak.test_row for leak in find_leaks(["img1"], None, ["img1", "img2"], None).images] == [0]


def test_captions_are_compared_word_for_word():
    report = find_leaks(
        [1, 2, 3], [["a dog", "a dog runs"], "a cat", ["a dog"]], [4, 5], [["A dog", "a cat"], ["a dog"]]
    )
    assert [tuple(leak) for leak in report.captions] == [("a cat", 0, (1,)), ("a dog", 1, (0, 2))]
    assert report.n_test_captions == 3


def test_every_training_row_of_a_shared_image_is_named():
    assert find_leaks([5, 6, 5], None, [5], None).images[0].train_rows == (0, 2)


def test_a_clean_split_is_false_and_says_so():
    report = find_leaks([1], ["a"], [2], ["b"])
    assert not report
    assert str(report) == ("0 of 1 test images are training images too\n0 of 1 test captions are training captions too")


def test_the_text_of_a_report_names_a_few_rows():
    report = find_leaks(range(20), None, range(20), None)
    assert report
    assert "20 of 20 test images are training images too (test rows 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ...)" in str(report)


def test_bad_captions_are_named():
    with pytest.raises(ValueError, match="got 1 caption entries for 2 images"):
        find_leaks([1, 2], ["a", "b"], [1, 2], ["a"])
    with pytest.raises(ValueError, match="row 0 has no captions"):
        find_leaks([1], [[]], [2], ["a"])
