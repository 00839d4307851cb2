"""nDCG and mAP@R: by every order of tied items, and beside the other numbers."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sklearn_mm.metrics import (
    RetrievalScorer,
    hit_at_k,
    map_at_r,
    ndcg_at_k,
    recall_at_k,
    retrieval_ranks,
    retrieval_report,
)

EXACT = 1e-9


def _ndcg(order, k):
    gain = sum(right / math.log2(place + 1) for place, right in enumerate(order[:k], start=1))
    return gain / sum(1 / math.log2(place + 1) for place in range(1, min(sum(order), k) + 1))


def _average_precision_at_r(order):
    n_right = sum(order)
    return sum(right * sum(order[:place]) / place for place, right in enumerate(order[:n_right], 1)) / n_right


def _over_all_orders(scores, is_right, number):
    """The mean of a number over all orders of items in which no lower score comes first."""
    levels = [[bool(is_right[i]) for i in np.flatnonzero(scores == level)] for level in sorted(set(scores))[::-1]]
    values = [
        number([right for level in orders for right in level])
        for orders in itertools.product(*(itertools.permutations(level) for level in levels))
    ]
    return sum(values) / len(values)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=2, max_size=6), st.integers(1, 7))
def test_ties_count_as_expected_over_all_orders(items, k):
    scores, is_right = np.array([item[0] for item in items]), np.array([True, *(item[1] for item in items[1:])])
    # One image has the right texts; the others belong to a second one.
    owner = np.where(is_right, 0, 1)
    texts = np.column_stack([scores, np.full(len(scores), 1.0), np.zeros(len(scores))]) / 10
    texts[:, 2] = np.sqrt(1 - (texts[:, :2] ** 2).sum(axis=1))  # unit length, so that scores are cosines
    images = np.array([[1.0, 0, 0], [0, 0, 1]])
    if is_right.all():
        texts, owner = np.vstack([texts, [-1, 0, 0]]), np.r_[owner, 1]
        scores, is_right = np.r_[scores, -9], np.r_[is_right, False]
    ranks = retrieval_ranks(images, texts, owner, every_positive=True)
    first = [1.0, 0.0]
    assert ndcg_at_k(ranks, k, sample_weight=first) == pytest.approx(
        _over_all_orders(scores, is_right, lambda order: _ndcg(order, k)), abs=EXACT
    )
    assert map_at_r(ranks, sample_weight=first) == pytest.approx(
        _over_all_orders(scores, is_right, _average_precision_at_r), abs=EXACT
    )


@pytest.fixture(scope="module")
def embedded():
    rng = np.random.default_rng(0)
    owner = np.repeat(np.arange(30), rng.integers(1, 6, 30))
    images = rng.normal(size=(30, 8))
    return images, images[owner] + 1.5 * rng.normal(size=(len(owner), 8)), owner


def test_of_one_right_answer_they_are_what_hit_and_rank_say(embedded):
    ranks = retrieval_ranks(*embedded, direction="t2i", every_positive=True)
    assert map_at_r(ranks) == pytest.approx(hit_at_k(ranks, 1))
    expected = np.asarray(ranks)
    gain = np.where(expected < 5, 1 / np.log2(expected + 2), 0)
    assert ndcg_at_k(ranks, 5) == pytest.approx(gain.mean())


def test_texts_of_one_wording_are_right_together():
    """As if there were one text, and each of its images an answer to it."""
    rng = np.random.default_rng(0)
    images, texts = rng.normal(size=(9, 4)), rng.normal(size=(9, 4))
    wording = [0, 0, 0, 1, 1, 2, 3, 4, 5]
    texts = texts[wording]
    ranks = retrieval_ranks(images, texts, np.arange(9), direction="t2i", every_positive=True, wording=wording)
    unit = images / np.linalg.norm(images, axis=1, keepdims=True)
    by_hand = [
        _average_precision_at_r([wording[i] == wording[j] for i in np.argsort(-(unit @ texts[j]))]) for j in range(9)
    ]
    assert map_at_r(ranks) == pytest.approx(np.mean(by_hand))


def test_a_perfect_model_has_1_and_a_constant_one_chance(embedded):
    _, _, owner = embedded
    eye = np.eye(30)
    perfect = retrieval_report(eye, eye[owner], owner, definition="all")
    assert all(perfect[f"{way}_{name}"] == pytest.approx(1) for way in ("i2t", "t2i") for name in ("ndcg@5", "map@r"))
    constant = retrieval_report(np.ones((30, 2)), np.ones((len(owner), 2)), owner, definition="all")
    assert constant["t2i_map@r"] == pytest.approx(1 / 30)
    assert constant["t2i_ndcg@1"] == pytest.approx(1 / 30)


def test_all_numbers_come_from_one_report_and_the_scorer(embedded):
    images, texts, owner = embedded
    report = retrieval_report(*embedded, k=(1, 5), definition="all")
    assert list(report)[:7] == [*(f"i2t_{name}@{k}" for name in ("hit", "recall", "ndcg") for k in (1, 5)), "i2t_map@r"]
    for definition in ("hit", "recall"):
        alone = retrieval_report(*embedded, k=(1, 5), definition=definition)
        assert {key: report[key] for key in alone if key != "rsum"} == {k: v for k, v in alone.items() if k != "rsum"}
    assert report["rsum"] == retrieval_report(*embedded, k=(1, 5))["rsum"]
    ranks = retrieval_ranks(*embedded, every_positive=True)
    assert report["i2t_ndcg@5"] == ndcg_at_k(ranks, 5)
    assert report["i2t_recall@5"] == recall_at_k(ranks, 5)
    assert report["i2t_recall@1"] < report["i2t_map@r"] < report["i2t_ndcg@5"]

    class Embedded:
        similarity = "cosine"

        def transform(self, X):
            return images

        def transform_text(self, listed):
            return texts[[int(text) for text in listed]]

    captions = [[str(j) for j in np.flatnonzero(owner == i)] for i in range(30)]
    assert RetrievalScorer((1, 5), definition="all")(Embedded(), range(30), captions) == report
    for metric in ("i2t_ndcg@5", "t2i_map@r"):
        assert RetrievalScorer(metric=metric)(Embedded(), range(30), captions) == report[metric]


def test_ranks_of_the_best_positive_alone_are_refused(embedded):
    ranks = retrieval_ranks(*embedded)
    for number in (map_at_r, lambda ranks: ndcg_at_k(ranks, 5)):
        with pytest.raises(ValueError, match="needs the place of every positive: pass retrieval_ranks"):
            number(ranks)
