"""Several joint spaces as one, held to sums of cosines written out."""

import numpy as np
import pytest

from sklearn_mm.retrieval._blend import join_spaces, learn_weights, spread_of

ATOL = 1e-6  # float32 products of unit vectors


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def _cosine(image, text):
    return np.array([[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in text] for a in image])


def test_inner_products_of_joined_spaces_are_weighted_means_of_cosines(rng):
    widths, shares = (3, 5, 8), np.array([2.0, 0.5, 3.0])
    images = [rng.normal(size=(4, width)).astype(np.float32) for width in widths]
    texts = [rng.normal(size=(6, width)).astype(np.float32) for width in widths]
    joined = join_spaces(images, shares) @ join_spaces(texts, shares).T
    expected = sum(share * _cosine(*pair) for share, pair in zip(shares, zip(images, texts, strict=True), strict=True))
    np.testing.assert_allclose(joined, expected / shares.sum(), atol=ATOL)


def test_joined_vectors_have_unit_length_also_where_a_member_says_nothing(rng):
    parts = [rng.normal(size=(5, 3)).astype(np.float32), rng.normal(size=(5, 4)).astype(np.float32)]
    parts[1][2] = 0
    joined = join_spaces(parts, np.array([1.0, 4.0]))
    np.testing.assert_allclose(np.linalg.norm(joined, axis=1), 1, atol=ATOL)
    np.testing.assert_array_equal(joined[2, 3:], 0)


def test_a_row_is_joined_alike_alone_and_among_others(rng):
    parts = [rng.normal(size=(50, width)).astype(np.float32) for width in (7, 33)]
    shares = np.array([0.3, 0.7])
    alone = np.concatenate([join_spaces([part[row : row + 1] for part in parts], shares) for row in range(50)])
    np.testing.assert_array_equal(alone, join_spaces(parts, shares))


def test_a_member_of_no_weight_takes_no_room(rng):
    parts = [rng.normal(size=(5, 3)).astype(np.float32), rng.normal(size=(5, 4)).astype(np.float32)]
    joined = join_spaces(parts, np.array([0.0, 1.0]))
    np.testing.assert_allclose(joined, parts[1] / np.linalg.norm(parts[1], axis=1, keepdims=True), atol=ATOL)


def test_members_that_answer_for_other_numbers_of_items_are_refused(rng):
    with pytest.raises(ValueError, match=r"different numbers of items: \[5, 4\]"):
        join_spaces([np.ones((5, 3), np.float32), np.ones((4, 3), np.float32)], np.ones(2))


def test_the_spread_is_that_of_all_scores_and_never_0():
    image, text = np.eye(3, dtype=np.float32), np.ones((2, 3), np.float32)
    assert spread_of(image, text) == 1.0
    text[0, 0] = 3
    scores = [float(a @ b) for a in image for b in text]
    assert spread_of(image, text) == pytest.approx(np.std(scores))


def _scored(rng, signals, n_images=40, per_image=2):
    """Scores of members, each of noise and of as much signal as given."""
    positive = np.repeat(np.arange(n_images), per_image)
    truth = (np.arange(n_images)[:, None] == positive).astype(np.float32)
    scores = np.stack([rng.normal(size=truth.shape) + signal * truth for signal in signals]).astype(np.float32)
    return scores, positive, truth.astype(bool)


def test_the_better_member_has_the_larger_weight_and_noise_next_to_none(rng):
    scores, positive, own = _scored(rng, (4.0, 2.0, 0.0))
    weights = learn_weights(scores, positive, own)
    assert weights.sum() == pytest.approx(1)
    assert weights[0] > weights[1] > 3 * weights[2]


def test_members_that_only_mislead_leave_equal_weights(rng):
    scores, positive, own = _scored(rng, (-3.0, -3.0))
    np.testing.assert_array_equal(learn_weights(scores, positive, own), 0.5)


def test_pairs_that_are_no_negatives_have_no_say(rng):
    scores, positive, own = _scored(rng, (3.0, 2.0))
    ignored = own.copy()
    ignored[1, :2] = ignored[0, 2:4] = True  # images 0 and 1 are of one group
    expected = learn_weights(scores, positive, ignored)
    scores[:, 1, :2] = scores[:, 0, 2:4] = 50.0
    np.testing.assert_allclose(learn_weights(scores, positive, ignored), expected)


def test_learnt_weights_are_the_best_of_a_grid_by_the_likelihood_written_out(rng):
    scores, positive, own = _scored(rng, (3.0, 2.0), n_images=12)

    def likelihood(weights):
        total = np.tensordot(weights, scores.astype(np.float64), axes=1)
        told = 0.0
        for text, image in enumerate(positive):
            told += total[image, text] - np.log(np.exp(total[:, text]).sum())
            told += total[image, text] - np.log(np.exp(total[image]).sum())
        return told

    grid = [(a, b) for a in np.arange(0, 4, 0.1) for b in np.arange(0, 4, 0.1)]
    best = np.array(max(grid, key=lambda pair: likelihood(np.array(pair))))
    np.testing.assert_allclose(learn_weights(scores, positive, own), best / best.sum(), atol=0.03)
