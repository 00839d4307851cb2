import numpy as np
import pytest
from scipy import sparse

from sklearn_mm._checks import check_captions
from sklearn_mm.features._rows import row_digests
from sklearn_mm.retrieval._training_rows import merge_rows


def rows_of(y, keys=None, groups=None, weight=None):
    captions = check_captions(y)
    groups = None if groups is None else np.asarray(groups)
    weight = None if weight is None else np.asarray(weight, dtype=float)
    return merge_rows(range(len(y)) if keys is None else keys, captions, groups, weight)


def captions_of(training, image):
    return training.texts[training.starts[image] : training.starts[image + 1]]


def test_rows_of_one_key_are_one_image_with_all_their_captions():
    training = rows_of(["b", "c", ["a", "d"], "a"], keys=["x", "y", "x", "x"])
    assert captions_of(training, 0) == ["a", "b", "d"]
    assert captions_of(training, 1) == ["c"]
    np.testing.assert_allclose(training.weight, [1.5, 0.5])


def test_a_row_twice_and_a_row_of_weight_two_are_the_same():
    twice = rows_of(["a", "b", "a"], keys=["x", "y", "x"])
    weighted = rows_of(["b", "a", "c"], keys=["y", "x", "z"], weight=[1, 2, 0])
    assert twice.texts == weighted.texts
    assert twice.starts.tolist() == weighted.starts.tolist()
    assert twice.weight.tolist() == weighted.weight.tolist()


@pytest.mark.parametrize("make", [np.asarray, sparse.csr_array], ids=["dense", "sparse"])
def test_equal_rows_have_equal_digests(make):
    X = make(np.array([[0.0, 1.0], [2.0, 0.0], [0.0, 1.0]], dtype=np.float32))
    digests = row_digests(X)
    assert digests[0] == digests[2] != digests[1]


def test_own_captions_groups_and_equal_wordings_are_no_negatives():
    training = rows_of([["a", "b"], ["c", "a"], "d", "e"], groups=[0, 1, 2, 2])
    images = np.arange(4)
    texts = np.array([1, 2, 4, 5])  # b, a (of image 1: "a" sorts first), d, e
    assert [training.texts[text] for text in texts] == ["b", "a", "d", "e"]
    mask = training.not_negative(images, texts)
    expected = [
        [1, 1, 0, 0],  # image 0: its own "b"; and "a", which it has as well, though not drawn
        [0, 1, 0, 0],
        [0, 0, 1, 1],  # images 2 and 3 are of one group
        [0, 0, 1, 1],
    ]
    assert mask.tolist() == np.array(expected, dtype=bool).tolist()


def test_whole_groups_are_held_out():
    training = rows_of([f"t{i}" for i in range(40)], groups=np.arange(40) // 4)
    kept, held_out = training.split(0.2, np.random.default_rng(0))
    assert len(kept) + len(held_out) == 40
    assert 8 <= len(held_out) <= 12
    assert not set(kept.group) & set(held_out.group)
    assert sorted(kept.texts + held_out.texts) == sorted(training.texts)


@pytest.mark.parametrize(("n_images", "groups"), [(9, None), (40, np.zeros(40))])
def test_nothing_is_held_out_of_too_few_images_or_of_one_group(n_images, groups):
    training = rows_of([f"t{i}" for i in range(n_images)], groups=groups)
    kept, held_out = training.split(0.2, np.random.default_rng(0))
    assert held_out is None
    assert len(kept) == n_images


def test_taking_images_takes_their_captions():
    training = rows_of([["a", "b"], "c", ["d", "e", "f"]])
    taken = training.take(np.array([2, 0]))
    assert captions_of(taken, 0) == ["d", "e", "f"]
    assert captions_of(taken, 1) == ["a", "b"]
    assert taken.rows.tolist() == [2, 0]
    assert [training.wording[training.texts.index(text)] for text in taken.texts] == taken.wording.tolist()
