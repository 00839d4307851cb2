"""Texts of one wording are equally right for the images that have them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sklearn_mm.metrics import (
    RetrievalRanks,
    RetrievalScorer,
    hit_at_k,
    mean_rank,
    recall_at_k,
    retrieval_ranks,
    retrieval_report,
)
from sklearn_mm.metrics._similarity import TIE_TOLERANCE
from tests import reference

SIMILARITIES = {"cosine": reference.cosine, "order": reference.order}


class PerfectRanker:
    """Embeds an image, which is its class, and a caption, which names it, as the same unit vector."""

    similarity = "cosine"

    def __init__(self, captions):
        self.captions = captions

    def transform(self, X):
        return np.eye(len(self.captions))[np.ravel(X).astype(int)]

    def transform_text(self, texts):
        return np.eye(len(self.captions))[[self.captions.index(text) for text in texts]]


CAPTIONS = [f"a photo of a {animal}" for animal in ("cat", "dog", "horse", "cow")]


def test_a_perfect_model_is_perfect_where_a_hundred_pictures_have_four_captions():
    X = np.arange(100)[:, None] % 4
    y = [CAPTIONS[i % 4] for i in range(100)]
    right, wrong = (RetrievalScorer(equal_captions=rule)(PerfectRanker(CAPTIONS), X, y) for rule in ("right", "wrong"))
    assert right["rsum"] == 600
    assert right["i2t_median_rank"] == right["t2i_mean_rank"] == 1
    # As papers count: one of 25 equals.
    assert wrong["i2t_hit@1"] == wrong["t2i_hit@1"] == pytest.approx(1 / 25)
    recall = RetrievalScorer(definition="recall", k=25)(PerfectRanker(CAPTIONS), X, y)
    assert recall["i2t_recall@25"] == recall["t2i_recall@25"] == pytest.approx(1)


def test_without_equal_captions_both_rules_say_the_same():
    rng = np.random.default_rng(0)
    images, texts, owner = rng.normal(size=(20, 8)), rng.normal(size=(50, 8)), np.arange(50) % 20
    for definition in ("hit", "recall"):
        plain = retrieval_report(images, texts, owner, definition=definition)
        assert (
            retrieval_report(
                images,
                texts,
                owner,
                definition=definition,
                wording=list("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"[:50]),
            )
            == plain
        )


def test_captions_of_one_wording_are_embedded_once():
    class Counting(PerfectRanker):
        n_texts = 0

        def transform_text(self, texts):
            self.n_texts += len(texts)
            return super().transform_text(texts)

    ranker = Counting(CAPTIONS)
    RetrievalScorer()(ranker, np.arange(40)[:, None] % 4, [CAPTIONS[i % 4] for i in range(40)])
    assert ranker.n_texts == 4


def test_captions_that_look_alike_are_of_one_wording():
    composed, decomposed = "un ch\u00e2teau", "un cha\u0302teau"
    scores = RetrievalScorer(k=1)(PerfectRanker([composed, decomposed]), np.zeros((2, 1)), [composed, decomposed])
    assert scores["rsum"] == 200


@st.composite
def captioned(draw, with_groups):
    n_images, n_more, d = draw(st.integers(1, 7)), draw(st.integers(0, 8)), draw(st.integers(1, 3))
    n_texts = n_images + n_more
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    images = rng.integers(-1, 2, (n_images, d)) * 1.0
    wording = rng.integers(0, draw(st.integers(1, 6)), n_texts)
    texts = rng.integers(-1, 2, (6, d))[wording] * 1.0  # equal texts are embedded alike
    owner = rng.permutation(np.concatenate([np.arange(n_images), rng.integers(0, n_images, n_more)]))
    groups = rng.integers(0, 4, n_images) if with_groups else np.arange(n_images)
    return images, texts, owner, wording, groups


def _queries(images, texts, owner, wording, groups, direction, similarity):
    """Yield the scores of each query, what is right for it, and what is left out."""
    scores = reference.score_matrix(images, texts, SIMILARITIES[similarity])
    for query in range(len(images) if direction == "i2t" else len(texts)):
        if direction == "i2t":
            own = set(wording[owner == query])
            right = {j for j in range(len(texts)) if wording[j] in own}
            out = {j for j in range(len(texts)) if groups[owner[j]] == groups[query]}
            yield scores[query], right, out - right
        else:
            right = set(owner[wording == wording[query]])
            out = {i for i in range(len(images)) if groups[i] == groups[owner[query]]}
            yield [row[query] for row in scores], right, out - right


@pytest.mark.parametrize("direction", ["i2t", "t2i"])
@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("with_groups", [False, True])
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_counts_are_those_of_a_loop_over_all_pairs(data, direction, similarity, with_groups):
    images, texts, owner, wording, groups = data.draw(captioned(with_groups))
    ranks = retrieval_ranks(
        images, texts, owner, direction=direction, similarity=similarity, groups=groups, wording=wording
    )
    # The order's tolerance is relative to the length of the text; scores here are whole numbers, far apart.
    expected = [
        reference.tie_counts(scores, right, TIE_TOLERANCE, out)
        for scores, right, out in _queries(images, texts, owner, wording, groups, direction, similarity)
    ]
    counts = np.column_stack([ranks.n_better, ranks.n_tied, ranks.n_tied_positives])
    np.testing.assert_array_equal(counts, expected)


@pytest.mark.parametrize("direction", ["i2t", "t2i"])
@given(data=st.data(), k=st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_recall_is_the_share_of_all_that_is_right(data, direction, k):
    images, texts, owner, wording, groups = data.draw(captioned(False))
    ranks = retrieval_ranks(images, texts, owner, direction=direction, every_positive=True, wording=wording)
    shares = []
    for scores, right, _ in _queries(images, texts, owner, wording, groups, direction, "cosine"):
        places = []
        for item in right:
            better = sum(score > scores[item] + TIE_TOLERANCE for score in scores)
            tied = sum(abs(score - scores[item]) <= TIE_TOLERANCE for score in scores)
            places.append(min(max((k - better) / tied, 0), 1))
        shares.append(np.mean(places))
    assert recall_at_k(ranks, k) == pytest.approx(np.mean(shares))


@pytest.mark.parametrize("k", [1, 5, 40])
def test_very_many_tied_positives_are_drawn_as_few_are(k):
    many = RetrievalRanks(np.array([0, 3, 30]), np.array([60, 2, 5]), np.array([40, 30, 1]))
    chance = []
    for better, tied, right in zip(many.n_better, many.n_tied, many.n_tied_positives, strict=True):
        missed = 1.0
        for drawn in range(max(0, min(k - better, tied + right))):
            missed *= max(tied - drawn, 0) / (tied + right - drawn)
        chance.append(1 - missed)
    np.testing.assert_allclose(many.hit_probability(k), chance)
    assert hit_at_k(many, k) == pytest.approx(np.mean(chance))


def test_weights_and_folds_go_with_equal_captions():
    rng = np.random.default_rng(1)
    images, owner = rng.normal(size=(20, 4)), np.repeat(np.arange(20), 2)
    wording = rng.integers(0, 9, 40)
    texts = rng.normal(size=(9, 4))[wording]
    folded = retrieval_report(images, texts, owner, wording=wording, fold_size=10)
    halves = [
        retrieval_report(images[part], texts[2 * part.start : 2 * part.stop], np.repeat(np.arange(10), 2),
                         wording=wording[2 * part.start : 2 * part.stop])
        for part in (slice(0, 10), slice(10, 20))
    ]  # fmt: skip
    assert folded["rsum"] == pytest.approx(np.mean([half["rsum"] for half in halves]))
    weight = np.r_[np.ones(10), np.zeros(10)]
    weighted = retrieval_report(images, texts, owner, wording=wording, sample_weight=weight)
    ranks = retrieval_ranks(images, texts, owner, direction="i2t", wording=wording)
    assert weighted["i2t_mean_rank"] == pytest.approx(mean_rank(np.asarray(ranks)[:10]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: retrieval_report(np.eye(2), np.eye(2), [0, 1], wording=["a"]), "one entry for each of the 2 texts"),
        (lambda: RetrievalScorer(equal_captions="yes")(None, None, None), "'right' or 'wrong', got 'yes'"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
