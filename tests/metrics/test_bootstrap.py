"""Intervals of reports: held to what drawing images by hand and ranking them gives."""

import numpy as np
import pytest

from sklearn_mm.metrics import _bootstrap, hit_at_k, median_rank, retrieval_ranks, retrieval_report


@pytest.fixture(scope="module")
def embedded():
    rng = np.random.default_rng(0)
    owner = rng.permutation(np.repeat(np.arange(80), rng.integers(1, 6, 80)))
    images = rng.normal(size=(80, 8))
    return images, images[owner] + 2 * rng.normal(size=(len(owner), 8)), owner


SIZES = {"n_images", "n_texts", "i2t_n_gallery", "t2i_n_gallery", "n_folds"}


@pytest.mark.parametrize("definition", ["hit", "recall", "all"])
def test_every_number_has_an_interval_around_it(embedded, definition):
    report = retrieval_report(*embedded, definition=definition)
    with_ends = retrieval_report(*embedded, definition=definition, n_bootstrap=200)
    assert {key: with_ends[key] for key in report} == report
    assert with_ends.keys() - report.keys() == {
        f"{key}_{end}" for key in report.keys() - SIZES for end in ("low", "high")
    }
    for key in report.keys() - SIZES:
        assert with_ends[f"{key}_low"] <= report[key] <= with_ends[f"{key}_high"]
        assert with_ends[f"{key}_low"] < with_ends[f"{key}_high"]
        assert type(with_ends[f"{key}_low"]) is float


def test_images_are_drawn_with_their_texts_and_nothing_is_ranked_again(embedded):
    weight = np.random.default_rng(1).random(80)
    images, texts, owner = embedded
    evidence = []
    from sklearn_mm.metrics._counting import NO_OFFSETS
    from sklearn_mm.metrics._report import report_directions, with_rsum

    arguments = (*(part.astype(np.float32) for part in (images, texts)), owner, None, weight, None, NO_OFFSETS)
    options = {"cutoffs": [1, 5], "definition": "hit", "similarity": "cosine", "directions": ("i2t", "t2i")}
    report_directions(*arguments, **options, evidence=evidence)
    (counts,) = _bootstrap._counts(80, 7, np.random.default_rng(3))
    assert counts.sum(axis=1).tolist() == [80] * 7
    samples = with_rsum(evidence[0].samples(counts) | evidence[1].samples(counts))
    i2t, t2i = (retrieval_ranks(images, texts, owner, direction=way) for way in ("i2t", "t2i"))
    for draw, count in enumerate(counts):
        own = {"i2t": (i2t, weight * count), "t2i": (t2i, (weight * count)[owner])}
        for way, (ranks, drawn) in own.items():
            assert samples[f"{way}_hit@5"][draw] == pytest.approx(hit_at_k(ranks, 5, sample_weight=drawn))
            assert samples[f"{way}_median_rank"][draw] == median_rank(ranks, sample_weight=drawn)
        shares = sum(hit_at_k(ranks, k, sample_weight=drawn) for ranks, drawn in own.values() for k in (1, 5))
        assert samples["rsum"][draw] == pytest.approx(100 * shares)


def test_an_interval_is_as_wide_as_the_theory_of_shares_says():
    """For one text an image the share of hits is that of a coin."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(400, 6))
    report = retrieval_report(images, images + 1.2 * rng.normal(size=(400, 6)), np.arange(400), k=1, n_bootstrap=2000)
    share = report["t2i_hit@1"]
    width = report["t2i_hit@1_high"] - report["t2i_hit@1_low"]
    assert width == pytest.approx(2 * 1.96 * np.sqrt(share * (1 - share) / 400), rel=0.1)
    half = retrieval_report(images, images, np.arange(400), k=1, n_bootstrap=200)
    assert half["t2i_hit@1_low"] == half["t2i_hit@1_high"] == 1


def test_texts_of_one_image_are_no_independent_witnesses():
    rng = np.random.default_rng(0)
    images, owner = rng.normal(size=(60, 6)), np.repeat(np.arange(60), 5)
    texts = (images + rng.normal(size=(60, 6)))[owner]  # five times the same
    five = retrieval_report(images, texts, owner, n_bootstrap=1000)
    once = retrieval_report(images, texts[::5], np.arange(60), n_bootstrap=1000)
    assert five["t2i_hit@1_high"] - five["t2i_hit@1_low"] == pytest.approx(
        once["t2i_hit@1_high"] - once["t2i_hit@1_low"], rel=0.2
    )


def test_groups_are_drawn_whole(embedded):
    groups = np.arange(80) // 8
    alone = retrieval_report(*embedded, n_bootstrap=300)
    together = retrieval_report(*embedded, groups=groups, n_bootstrap=300)
    assert alone["t2i_hit@5_low"] > 0
    one_group = retrieval_report(*embedded, groups=np.r_[np.zeros(79), 1], n_bootstrap=300)
    # of two groups a quarter of the draws has the large one twice, a quarter the image alone
    assert one_group["i2t_hit@5_low"] in (0, 1) or one_group["i2t_hit@5_high"] == 1
    assert together.keys() == alone.keys()


def test_folds_are_drawn_apart_and_averaged(embedded):
    report = retrieval_report(*embedded, fold_size=20, n_bootstrap=300)
    assert report["rsum_low"] < report["rsum"] < report["rsum_high"]
    assert (report["n_folds"], report["t2i_n_gallery"], report["i2t_n_gallery"]) == (4, 20, len(embedded[1]) / 4)
    whole = retrieval_report(*embedded, n_bootstrap=300)
    assert (whole["t2i_n_gallery"], whole["i2t_n_gallery"]) == (80, len(embedded[1]))


def test_draws_are_those_of_the_random_state_whatever_the_blocks(embedded, monkeypatch):
    first = retrieval_report(*embedded, n_bootstrap=50)
    assert retrieval_report(*embedded, n_bootstrap=50, random_state=1) != first
    narrow = retrieval_report(*embedded, n_bootstrap=50, confidence=0.5)
    assert narrow["rsum_high"] - narrow["rsum_low"] < first["rsum_high"] - first["rsum_low"]
    monkeypatch.setattr(_bootstrap, "_BLOCK", 80 * 7)
    again = retrieval_report(*embedded, n_bootstrap=50)
    assert again == pytest.approx(first)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_bootstrap": 0}, "n_bootstrap must be an int of at least 2, or None, got 0"),
        ({"n_bootstrap": True}, "got True"),
        ({"n_bootstrap": 10.5}, "got 10.5"),
        ({"n_bootstrap": 10, "confidence": 95}, "confidence must be a number between 0 and 1, got 95"),
        ({"n_bootstrap": 10, "random_state": "a"}, "cannot be used to seed"),
    ],
)
def test_misuse_is_named(embedded, options, message):
    with pytest.raises(ValueError, match=message):
        retrieval_report(*embedded, **options)
