import numpy as np
import pytest

from sklearn_mm.metrics import retrieval_ranks, retrieval_report
from tests import reference

EXACT = 1e-9


@pytest.fixture(scope="module")
def embedded():
    """60 images with 1 to 5 texts each, texts in random order, no ties."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(60, 12))
    owner = rng.permutation(np.repeat(np.arange(60), rng.integers(1, 6, 60)))
    return images, images[owner] + 2.5 * rng.normal(size=(len(owner), 12)), owner


def _naive_ranks(images, texts, owner):
    scores = np.array(reference.score_matrix(images, texts))
    i2t = [sum(reference.tie_counts(scores[i], set(np.flatnonzero(owner == i)), 0)[:1]) for i in range(len(images))]
    t2i = [reference.tie_counts(scores[:, j], {i}, 0)[0] for j, i in enumerate(owner)]
    return i2t, t2i


def test_numbers_are_those_of_the_published_formulas(embedded):
    report = retrieval_report(*embedded)
    n_texts = len(embedded[1])
    sizes = {"n_images": 60, "n_texts": n_texts, "i2t_n_gallery": n_texts, "t2i_n_gallery": 60}
    truth = reference.published_numbers(*_naive_ranks(*embedded))
    assert report == pytest.approx(truth | sizes, abs=EXACT)
    assert 0 < report["i2t_hit@1"] < report["i2t_hit@10"] < 1


def test_keys_come_in_the_documented_order(embedded):
    assert list(retrieval_report(*embedded, k=(1, 5))) == [
        "i2t_hit@1",
        "i2t_hit@5",
        "t2i_hit@1",
        "t2i_hit@5",
        "i2t_median_rank",
        "t2i_median_rank",
        "i2t_mean_rank",
        "t2i_mean_rank",
        "rsum",
        "n_images",
        "n_texts",
        "i2t_n_gallery",
        "t2i_n_gallery",
    ]


def test_recall_and_hit_are_named_for_what_they_are(embedded):
    hit = retrieval_report(*embedded)
    recall = retrieval_report(*embedded, definition="recall")
    for k in (1, 5, 10):
        assert recall[f"t2i_recall@{k}"] == pytest.approx(hit[f"t2i_hit@{k}"])  # a text has one image
        assert recall[f"i2t_recall@{k}"] < hit[f"i2t_hit@{k}"]
    assert recall["i2t_median_rank"] == hit["i2t_median_rank"]
    assert not any("hit" in key for key in recall)


def test_rsum_adds_up_the_percentages(embedded):
    for k in ((1, 5, 10), (1,), (1, 2, 3, 4), 5):
        report = retrieval_report(*embedded, k=k)
        assert report["rsum"] == pytest.approx(100 * sum(value for key, value in report.items() if "@" in key))
    perfect = retrieval_report(np.eye(20), np.eye(20), np.arange(20))
    assert perfect["rsum"] == pytest.approx(600)


def test_folds_restrict_both_pools_and_average(embedded):
    images, texts, owner = embedded
    reports = []
    for first in (0, 20, 40):
        mine = (owner >= first) & (owner < first + 20)
        reports.append(retrieval_report(images[first : first + 20], texts[mine], owner[mine] - first))
    folded = retrieval_report(*embedded, fold_size=20)
    assert folded["n_folds"] == 3
    assert (folded["n_images"], folded["n_texts"]) == (60, len(texts))
    for key in reports[0]:
        if not key.startswith("n_"):  # those of galleries are of a fold
            assert folded[key] == pytest.approx(np.mean([report[key] for report in reports]))
    assert folded["rsum"] > retrieval_report(*embedded)["rsum"]  # a smaller gallery is easier


def test_folds_carry_weights_and_groups_along(embedded):
    images, texts, owner = embedded
    rng = np.random.default_rng(1)
    weight, groups = rng.random(60), rng.integers(0, 10, 60)
    folded = retrieval_report(*embedded, fold_size=30, sample_weight=weight, groups=groups)
    halves = []
    for part in (slice(0, 30), slice(30, 60)):
        mine = (owner >= part.start) & (owner < part.stop)
        halves.append(
            retrieval_report(
                images[part],
                texts[mine],
                owner[mine] - part.start,
                sample_weight=weight[part],
                groups=groups[part],
            )["rsum"]
        )
    assert folded["rsum"] == pytest.approx(np.mean(halves))


@pytest.mark.parametrize("definition", ["hit", "recall"])
def test_an_image_of_weight_two_counts_twice_as_a_query(embedded, definition):
    images, texts, owner = embedded
    weight = np.random.default_rng(0).integers(0, 3, 60)
    weighted = retrieval_report(*embedded, sample_weight=weight, definition=definition)
    i2t = retrieval_ranks(images, texts, owner)
    t2i = retrieval_ranks(images, texts, owner, direction="t2i")
    truth = reference.published_numbers(
        np.repeat(np.asarray(i2t), weight).tolist(), np.repeat(np.asarray(t2i), weight[owner]).tolist()
    )
    if definition == "recall":
        truth = {key.replace("t2i_hit", "t2i_recall"): value for key, value in truth.items() if "t2i_" in key}
    for key, value in truth.items():
        assert weighted[key] == pytest.approx(value), key


def test_a_constant_model_reports_chance():
    n_images, n_captions = 40, 3
    report = retrieval_report(
        np.ones((40, 7)), np.ones((120, 7)), np.repeat(np.arange(n_images), n_captions), definition="hit"
    )
    rsum = 0
    for k in (1, 5, 10):
        i2t, t2i = reference.chance_of_hit(120, 3, k), reference.chance_of_hit(40, 1, k)
        assert report[f"i2t_hit@{k}"] == pytest.approx(float(i2t))
        assert report[f"t2i_hit@{k}"] == pytest.approx(float(t2i))
        rsum += 100 * float(i2t + t2i)
    assert report["rsum"] == pytest.approx(rsum)


def test_the_similarity_changes_the_ranks():
    images, texts = np.array([[9.0, 1.0], [1.0, 1.0]]), np.array([[3.0, 0.0], [1.0, 1.0]])
    assert retrieval_report(images, texts, [0, 1], k=1)["rsum"] == 200
    assert retrieval_report(images, texts, [0, 1], k=1, similarity="order")["i2t_hit@1"] == 0.75


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": ()}, "k must hold at least one int and none twice"),
        ({"k": (1, 1)}, "none twice"),
        ({"k": (1, 0)}, "k must be a positive int, got 0"),
        ({"k": 2.5}, "k must be a positive int, got 2.5"),
        ({"definition": "r-precision"}, "definition must be 'hit', 'recall' or 'all', got 'r-precision'"),
        ({"similarity": "dot"}, "similarity must be one of"),
        ({"fold_size": 7}, "fold_size=7 must divide the number of images, which is 60"),
        ({"fold_size": 0}, "fold_size must be a positive int or None"),
        ({"fold_size": 10.0}, "fold_size must be a positive int or None"),
        ({"sample_weight": [1, 2]}, "one number for each of the 60 images"),
        ({"sample_weight": [1.0] * 30 + [0.0] * 30, "fold_size": 30}, "not all zero"),
        ({"groups": [1, 2]}, "groups must hold one entry for each of the 60 rows"),
    ],
)
def test_options_that_make_no_sense_are_named(embedded, options, message):
    with pytest.raises(ValueError, match=message):
        retrieval_report(*embedded, **options)


def test_folds_take_their_own_offsets():
    rng = np.random.default_rng(0)
    image, text = rng.normal(size=(6, 4)), rng.normal(size=(12, 4))
    owner = np.repeat(np.arange(6), 2)[rng.permutation(12)]
    offsets = {"image_offset": rng.random(6), "text_offset": rng.random(12)}
    folds = []
    for first in (0, 3):
        texts = np.flatnonzero((owner >= first) & (owner < first + 3))
        own = {"image_offset": offsets["image_offset"][first : first + 3], "text_offset": offsets["text_offset"][texts]}
        folds.append(retrieval_report(image[first : first + 3], text[texts], owner[texts] - first, k=1, **own)["rsum"])
    assert retrieval_report(image, text, owner, k=1, fold_size=3, **offsets)["rsum"] == pytest.approx(np.mean(folds))
