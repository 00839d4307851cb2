import itertools
import math
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sklearn_mm.metrics import (
    RetrievalRanks,
    hit_at_k,
    mean_rank,
    median_rank,
    recall_at_k,
)
from sklearn_mm.metrics._ranks import PositiveRanks
from tests import reference

EXACT = 1e-12  # a handful of float64 operations on numbers near 1

small = st.integers(0, 6)
counts = st.lists(st.tuples(small, small, st.integers(1, 4)), min_size=1, max_size=5)


def _ranks(triples):
    return RetrievalRanks(*np.array(triples).T)


@given(counts, st.integers(1, 20))
def test_hit_probability_and_expected_rank_are_those_over_all_orders_of_the_tied(triples, k):
    ranks = _ranks(triples)
    truth = [reference.hit_by_all_orders(*triple, k) for triple in triples]
    np.testing.assert_allclose(ranks.hit_probability(k), [float(hit) for hit, _ in truth], atol=EXACT)
    np.testing.assert_allclose(np.asarray(ranks), [float(rank) for _, rank in truth], atol=EXACT)


@given(counts)
def test_hits_grow_with_k_from_0_to_1(triples):
    ranks = _ranks(triples)
    hits = [hit_at_k(ranks, k) for k in range(1, 14)]
    assert all(0 <= low <= high <= 1 for low, high in itertools.pairwise(hits))
    assert hits[-1] == 1


@given(st.lists(st.integers(0, 30), min_size=1, max_size=30), st.integers(1, 12))
def test_plain_ranks_give_what_published_code_gives(ranks, k):
    truth = reference.published_numbers(ranks, ranks, k=(k,))
    assert hit_at_k(ranks, k) == pytest.approx(truth[f"i2t_hit@{k}"], abs=EXACT)
    assert median_rank(ranks) == truth["i2t_median_rank"]
    assert mean_rank(ranks) == pytest.approx(truth["i2t_mean_rank"], abs=EXACT)


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 4)), min_size=1, max_size=12).filter(
        lambda rows: any(weight for _, weight in rows)
    ),
    st.integers(1, 8),
)
def test_a_weight_counts_as_that_many_queries(rows, k):
    ranks, weights = np.array(rows).T
    repeated = np.repeat(ranks, weights)
    assert hit_at_k(ranks, k, sample_weight=weights) == pytest.approx(hit_at_k(repeated, k), abs=EXACT)
    assert mean_rank(ranks, sample_weight=weights) == pytest.approx(mean_rank(repeated), abs=EXACT)
    assert median_rank(ranks, sample_weight=weights) == median_rank(repeated)


def test_ranks_are_an_array_of_expected_ranks():
    ranks = _ranks([(2, 3, 1), (0, 0, 2)])
    assert len(ranks) == 2
    np.testing.assert_array_equal(np.asarray(ranks), [3.5, 0.0])
    assert np.asarray(ranks, dtype=np.float32).dtype == np.float32
    assert np.median(ranks) == 1.75


def test_large_numbers_of_tied_items_lose_no_precision():
    ranks = _ranks([(0, 1_000_000, 5)])
    assert ranks.hit_probability(10)[0] == pytest.approx(
        float(1 - math.prod((1_000_000 - i) / (1_000_005 - i) for i in range(10))), rel=1e-9
    )


def test_recall_is_the_share_of_positives_found():
    positives = PositiveRanks(np.array([0, 0, 1]), np.array([0, 4, 2]), np.array([1, 1, 4]))
    ranks = RetrievalRanks(np.array([0, 2]), np.array([0, 3]), np.array([1, 1]), positives)
    assert recall_at_k(ranks, 1) == pytest.approx((1 / 2 + 0) / 2)
    assert recall_at_k(ranks, 4) == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert recall_at_k(ranks, 9) == 1
    assert recall_at_k(ranks, 1, sample_weight=[1, 0]) == pytest.approx(1 / 2)


def test_recall_asks_for_the_place_of_every_positive():
    with pytest.raises(ValueError, match="every_positive=True"):
        recall_at_k(_ranks([(0, 0, 1)]), 1)
    with pytest.raises(ValueError, match="every_positive=True"):
        recall_at_k([0, 1], 1)


@pytest.mark.parametrize("k", [0, -1, 1.5, True, "1", None])
def test_k_must_be_a_positive_int(k):
    for number in (hit_at_k, recall_at_k):
        with pytest.raises(ValueError, match="k must be a positive int"):
            number([0, 1], k)


@pytest.mark.parametrize("ranks", [[], [[0, 1]], [-1, 0], [np.nan], [np.inf]])
def test_ranks_must_be_ranks(ranks):
    for number in (median_rank, mean_rank, lambda ranks: hit_at_k(ranks, 1)):
        with pytest.raises(ValueError, match="ranks must be"):
            number(ranks)


@pytest.mark.parametrize("weights", [[1], [1, -1], [0, 0], [np.nan, 1]])
def test_weights_must_fit_the_queries(weights):
    for number in (median_rank, mean_rank, lambda ranks, **kw: hit_at_k(ranks, 1, **kw)):
        with pytest.raises(ValueError, match="sample_weight must hold"):
            number([0, 1], sample_weight=weights)


def test_weights_near_the_end_of_float64_count_as_smaller_ones_do():
    for number in (partial(hit_at_k, k=2), mean_rank, median_rank):
        assert number([0, 5, 1], sample_weight=[1e308, 1e308, 1e308]) == number([0, 5, 1])
