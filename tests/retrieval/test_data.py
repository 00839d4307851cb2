import numpy as np
import pytest
import torch

from sklearn_mm._checks import check_captions, check_weights
from sklearn_mm.retrieval._data import JointBatches, merge_captioned
from sklearn_mm.towers import Tower


def rows_of(y, keys=None, groups=None, weight=None):
    captions = check_captions(y)
    groups = None if groups is None else np.asarray(groups)
    weight = None if weight is None else np.asarray(weight, dtype=float)
    return merge_captioned(range(len(y)) if keys is None else keys, captions, groups, weight)


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


class Linear(Tower):
    """A tower over features as they come."""

    def __init__(self):
        super().__init__(None, torch.nn.Identity(), torch.device("cpu"), torch.float32)


def batches_of(training, batch_size, captions_per_image=1, pool_size=0, seed=0):
    """Batches whose images and texts are told by their numbers."""
    image_rows, text_rows = np.arange(100.0)[:, None], np.arange(len(training.texts), dtype=np.float64)[:, None]
    rng = np.random.default_rng(seed)
    return JointBatches(
        Linear(), Linear(), image_rows, text_rows, training, batch_size, captions_per_image, pool_size, rng
    )


def test_a_batch_says_of_every_text_whose_it_is_and_what_it_is_no_negative_of():
    y = [["a", "b"], "c", ["a", "d", "e"], "f", "g"]
    training = rows_of(y, groups=[0, 1, 2, 1, 3], weight=[1, 2, 3, 4, 5])
    batches = batches_of(training, 2, captions_per_image=2)
    seen = []
    for batch in batches:
        images, texts = batch.image[:, 0].long().tolist(), batch.text[:, 0].long().tolist()
        seen += images
        assert [training.owner[text] for text in texts] == [images[at] for at in batch.image_of_text]
        assert batch.not_negative.tolist() == training.not_negative(np.array(images), np.array(texts)).tolist()
        np.testing.assert_allclose(batch.weight, np.array([1, 2, 3, 4, 5])[images] / 3)
        assert batch.instance.tolist() == [[0, 1, 2, 1, 3][i] for i in images]
        assert batch.pool is None
    assert sorted(seen) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("n_images", "batch_size"), [(8, 4), (9, 4), (10, 4), (3, 8), (2, 2)])
def test_as_many_batches_come_as_are_counted_and_none_of_a_single_image(n_images, batch_size):
    batches = batches_of(rows_of([f"t{i}" for i in range(n_images)]), batch_size)
    for _ in range(2):  # each epoch anew
        sizes = [len(batch.image) for batch in batches]
        assert len(sizes) == len(batches)
        assert min(sizes) > 1
        assert sum(sizes) == n_images


def test_a_pool_holds_different_texts_of_all_images_and_knows_those_of_the_batch():
    training = rows_of([[f"a{i}", f"b{i}"] for i in range(10)])
    pools = set()
    for batch in batches_of(training, 3, pool_size=7):
        pool = batch.pool.text[:, 0].long().tolist()
        assert pool == sorted(set(pool))
        assert len(pool) == 7
        assert batch.pool.is_in_batch.tolist() == [text in batch.text[:, 0] for text in pool]
        images = batch.image[:, 0].long().tolist()
        assert batch.pool.not_negative.tolist() == [[training.owner[text] == i for text in pool] for i in images]
        pools.add(tuple(pool))
    assert len(pools) == 3  # of every batch another


def test_batches_come_from_the_generator_alone():
    training = rows_of([[f"a{i}", f"b{i}"] for i in range(10)])
    first, again, other = (
        [(*batch.image[:, 0].tolist(), *batch.text[:, 0].tolist()) for batch in batches_of(training, 4, seed=seed)]
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    ("weight", "message"), [([1.0, 2.0], "sample_weight"), ([1.0, -1.0, 1.0], "[Nn]egative"), ([np.nan] * 3, "NaN")]
)
def test_weights_that_are_none_are_refused(weight, message):
    assert check_weights(None, 3) is None
    np.testing.assert_array_equal(check_weights([1, 2, 3], 3), [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match=message):
        check_weights(weight, 3)


def test_equal_rows_of_different_groups_are_different_images():
    training = rows_of(["a", "b", "c", "d"], keys=["x", "y", "x", "y"], groups=["a", "b", "a", "c"])
    assert training.rows.tolist() == [0, 1, 3]
    assert training.texts == ["a", "c", "b", "d"]
    assert len(set(training.group.tolist())) == 3
    assert rows_of(["a", "b", "c"], keys=["x", "y", "x"], groups=[5, 3, 5]).group.tolist() == [1, 0]
