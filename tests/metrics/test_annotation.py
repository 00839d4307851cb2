"""Annotation: the field's formulas by loops, scikit-learn's where both define the thing, and its properties."""

import math
import tracemalloc

import hypothesis.extra.numpy as hnp
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.metrics import average_precision_score, precision_recall_fscore_support

from sklearn_mm.metrics import _label_sums, annotation_report, format_annotation_report
from tests.metrics import annotation_reference as reference

EXACT = 1e-12
PRECISIONS = ("C-P", "C-R", "C-F1", "O-P", "O-R", "O-F1", "H-F1")


def _make(n_images=80, n_labels=12, seed=0, levels=None, missing=0.0):
    """Truth, scores that say something about it (few different ones if `levels`), and predicted numbers."""
    rng = np.random.default_rng(seed)
    frequency = np.linspace(0.02, 0.5, n_labels)
    Y = (rng.random((n_images, n_labels)) < frequency).astype(float)
    scores = Y + rng.normal(size=Y.shape)
    if levels:
        scores = np.round(scores * levels) / levels
    Y[rng.random(Y.shape) < missing] = np.nan
    return Y, scores, rng.integers(0, 5, n_images)


def _expected(Y, scores, n_labels, weight=None, **policies):
    if isinstance(n_labels, str):
        known = np.where(np.isnan(Y), -np.inf, scores)
        chosen = reference.chosen_labels(known, np.nansum(Y, axis=1).astype(int))
        counts = np.nansum(Y, axis=1)
    elif np.ndim(n_labels) == 2:
        chosen = [set(np.flatnonzero(row)) for row in n_labels]
        counts = np.sum(n_labels, axis=1)
    else:
        counts = np.full(len(Y), n_labels) if np.ndim(n_labels) == 0 else n_labels
        chosen = reference.chosen_labels(scores, counts)
    numbers = reference.report(Y.tolist(), chosen, weight, **policies)
    complete = ~np.isnan(Y).any(axis=1)
    own_weight = (np.ones(len(Y)) if weight is None else weight)[complete]
    error = np.abs(counts - np.nansum(Y, axis=1))[complete]
    return numbers | {
        "mAP": reference.mean_average_precision(Y.tolist(), scores.tolist(), weight),
        "count_mae": np.average(error, weights=own_weight),
        "count_accuracy": np.average(error == 0, weights=own_weight),
        "n_images": len(Y),
        "n_labels": int((np.nansum(Y * (1 if weight is None else weight[:, None]), axis=0) > 0).sum()),
    }


@pytest.mark.parametrize("missing", [0.0, 0.05])
@pytest.mark.parametrize("levels", [None, 1], ids=["different scores", "many ties"])
@pytest.mark.parametrize("form", ["three", "counts", "true", "matrix"])
@pytest.mark.parametrize("weighted", [False, True])
def test_numbers_are_those_of_the_published_formulas(form, levels, missing, weighted):
    Y, scores, counts = _make(levels=levels, missing=missing)
    n_labels = {"three": 3, "counts": counts, "true": "true", "matrix": scores > 1.2}[form]
    weight = np.random.default_rng(1).integers(0, 3, len(Y)) / 2 if weighted else None
    report = annotation_report(Y, scores, n_labels, sample_weight=weight)
    assert report == pytest.approx(_expected(Y, scores, n_labels, weight), abs=EXACT)
    assert 0.1 < report["C-F1"] < 0.9


def test_keys_come_in_the_documented_order():
    Y, scores, _ = _make()
    assert list(annotation_report(Y, scores, 2)) == [
        *PRECISIONS,
        "mAP",
        "N+",
        "count_mae",
        "count_accuracy",
        "n_images",
        "n_labels",
    ]


@pytest.mark.parametrize("levels", [None, 1])
def test_scikit_learn_agrees_where_it_defines_the_same(levels):
    Y, scores, counts = _make(levels=levels)
    weight = np.random.default_rng(2).random(len(Y))
    chosen = np.zeros_like(Y)
    for row, labels in enumerate(reference.chosen_labels(scores, counts)):
        chosen[row, list(labels)] = 1
    for own_weight in (None, weight):
        report = annotation_report(Y, scores, counts, sample_weight=own_weight)
        micro = precision_recall_fscore_support(Y, chosen, average="micro", sample_weight=own_weight)
        assert [report["O-P"], report["O-R"], report["O-F1"]] == pytest.approx(micro[:3])
        macro = precision_recall_fscore_support(Y, chosen, average="macro", sample_weight=own_weight, zero_division=0.0)
        assert [report["C-P"], report["C-R"]] == pytest.approx(macro[:2])
        assert report["C-F1"] != pytest.approx(macro[2])  # a mean of F1s is something else
        assert report["mAP"] == pytest.approx(
            average_precision_score(Y, scores, average="macro", sample_weight=own_weight)
        )


def test_the_class_mean_is_of_precisions_and_recalls_before_their_harmonic_mean():
    Y = [[1, 0], [1, 0], [1, 1], [0, 1]]
    chosen = [[1, 0], [0, 0], [0, 0], [1, 1]]
    report = annotation_report(Y, np.zeros((4, 2)), chosen)
    assert report["C-P"] == pytest.approx((1 / 2 + 1) / 2)
    assert report["C-R"] == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert report["C-F1"] == pytest.approx(2 * 0.75 * (5 / 12) / (0.75 + 5 / 12))


@pytest.mark.parametrize("zero_division", [0.0, 1.0, math.nan])
@pytest.mark.parametrize("absent_labels", ["skip", "zero"])
def test_labels_never_predicted_or_never_true_follow_the_policies(zero_division, absent_labels):
    Y = np.array([[1, 1, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0]], dtype=float)
    chosen = np.array([[1, 0, 1, 0], [1, 0, 0, 0], [0, 0, 1, 0]])  # 1 is never predicted, 2 and 3 never true
    policies = {"zero_division": zero_division, "absent_labels": absent_labels}
    report = annotation_report(Y, np.zeros(Y.shape), chosen, **policies)
    assert report == pytest.approx(_expected(Y, np.zeros(Y.shape), chosen, **policies))
    precisions = {"skip": [1.0, zero_division], "zero": [1.0, zero_division, 0.0, zero_division]}[absent_labels]
    assert report["C-P"] == pytest.approx(np.nanmean(precisions))
    assert report["C-R"] == pytest.approx({"skip": 1 / 2, "zero": 1 / 4}[absent_labels])
    assert report["n_labels"] == 2
    assert report["N+"] == 1


def test_a_perfect_annotation_scores_one_everywhere():
    Y, _, _ = _make()
    report = annotation_report(Y, Y, "true")
    assert all(report[key] == 1 for key in (*PRECISIONS, "mAP", "count_accuracy"))
    assert report["N+"] == report["n_labels"]
    assert report["count_mae"] == 0
    Y[:, 3] = 0  # a label that is true nowhere does not spoil it
    assert annotation_report(Y, Y, "true")["C-F1"] == 1


def test_nothing_true_and_nothing_predicted_is_no_crash():
    report = annotation_report([[0, 0], [0, 0]], [[1.0, 2.0], [0.0, 1.0]], [0, 0])
    assert all(report[key] == 0 for key in (*PRECISIONS, "N+", "n_labels"))
    assert math.isnan(report["mAP"])
    assert report["count_accuracy"] == 1
    unknown = annotation_report([[math.nan, 1.0]], [[0.2, 0.1]], 1)
    assert math.isnan(unknown["count_mae"])


def test_entries_that_are_not_known_count_neither_way():
    Y, scores, _ = _make(missing=0.1)
    other = scores.copy()
    other[np.isnan(Y)] = np.random.default_rng(0).normal(size=np.isnan(Y).sum())
    assert annotation_report(Y, scores, "true") == annotation_report(Y, other, "true")
    # A fixed number of labels is given out whatever is known of them.
    report = annotation_report([[math.nan, 1.0, 0.0]], [[3.0, 2.0, 1.0]], 2)
    assert (report["O-P"], report["O-R"]) == (1.0, 1.0)


@pytest.mark.parametrize("block", [1, 7, 50, 1 << 21])
def test_blocks_change_nothing(block, monkeypatch):
    Y, scores, counts = _make(levels=2, missing=0.02)
    weight = np.random.default_rng(0).random(len(Y))
    whole = annotation_report(Y, scores, counts, sample_weight=weight)
    monkeypatch.setattr(_label_sums, "_BLOCK", block)
    assert annotation_report(Y, scores, counts, sample_weight=weight) == pytest.approx(whole, abs=EXACT)


@pytest.mark.parametrize("dtype", [bool, np.int8, np.int64, np.float32])
@pytest.mark.parametrize("form", [np.asarray, sparse.csr_array, sparse.csc_matrix, sparse.coo_array, pd.DataFrame])
def test_truth_and_predictions_come_in_any_form(form, dtype):
    Y, scores, _ = _make()
    chosen = scores > 0.5
    truth = annotation_report(Y, scores, chosen)
    assert annotation_report(form(Y.astype(dtype)), scores, form(chosen.astype(dtype))) == truth
    assert annotation_report(Y.astype(int).tolist(), scores.tolist(), chosen.tolist()) == truth


def test_truth_that_is_stored_as_unknown_in_a_sparse_matrix_is_unknown():
    Y, scores, _ = _make(missing=0.1)
    assert annotation_report(sparse.csr_array(Y), scores, 2) == annotation_report(Y, scores, 2)


def test_what_sparse_scores_do_not_store_is_zero():
    Y, scores, counts = _make()
    scores[scores < 0.7] = 0
    assert annotation_report(Y, sparse.csr_array(scores), counts) == annotation_report(Y, scores, counts)
    predictions = sparse.csr_array((scores > 1).astype(np.int8))
    report = annotation_report(Y, predictions, predictions.sum(axis=1))
    assert report == annotation_report(Y, predictions, predictions)


def test_infinite_scores_are_the_lowest_and_highest():
    scores = [[-np.inf, 0.0, np.inf], [np.inf, -np.inf, -np.inf]]
    report = annotation_report([[0, 1, 1], [1, 0, 1]], scores, 2)
    assert report["O-P"] == 3 / 4
    assert report["mAP"] == pytest.approx(1.0)


def test_of_equal_scores_the_first_labels_are_taken():
    Y = np.eye(4)
    assert annotation_report(Y, np.ones((4, 4)), 1)["O-R"] == 1 / 4
    report = annotation_report(Y, np.ones((4, 4)), [1, 2, 3, 4])
    assert report["O-R"] == 1
    assert report["mAP"] == 1 / 4  # equal scores give the frequency


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_small_case_is_that_of_the_loops(data):
    shape = data.draw(st.tuples(st.integers(1, 7), st.integers(1, 6)))
    Y = data.draw(hnp.arrays(float, shape, elements=st.sampled_from([0.0, 1.0, 0.0, 1.0, math.nan])))
    scores = data.draw(hnp.arrays(np.float32, shape, elements=st.sampled_from([-np.inf, -1.0, 0.0, 0.5, 2.0])))
    counts = data.draw(hnp.arrays(int, shape[0], elements=st.integers(0, shape[1])))
    report = annotation_report(Y, scores, counts)
    expected = reference.report(Y.tolist(), reference.chosen_labels(scores, counts))
    assert {key: report[key] for key in expected} == pytest.approx(expected, abs=EXACT)
    truth = reference.mean_average_precision(Y.tolist(), scores.tolist())
    assert report["mAP"] == pytest.approx(truth, abs=EXACT, nan_ok=True)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), k=st.integers(1, 7))
def test_properties_of_the_report(seed, k):
    Y, scores, counts = _make(n_images=15, n_labels=8, seed=seed)
    report = annotation_report(Y, scores, counts)
    assert all(0 <= report[key] <= 1 for key in (*PRECISIONS, "count_accuracy"))
    assert min(report["C-P"], report["C-R"]) - EXACT <= report["C-F1"] <= max(report["C-P"], report["C-R"]) + EXACT

    rng = np.random.default_rng(seed)
    rows, columns = rng.permutation(15), rng.permutation(8)
    shuffled = annotation_report(Y[rows][:, columns], scores[rows][:, columns], counts[rows])
    assert shuffled == pytest.approx(report, abs=EXACT, nan_ok=True)

    # Of a growing number of labels recall can only grow; any increasing function of scores is as good.
    fewer, more = annotation_report(Y, scores, k), annotation_report(Y, scores, k + 1)
    assert fewer["O-R"] <= more["O-R"]
    assert fewer["C-R"] <= more["C-R"]
    assert fewer["N+"] <= more["N+"]
    assert annotation_report(Y, np.exp(scores), k) == pytest.approx(fewer, abs=EXACT, nan_ok=True)
    twice = annotation_report(np.r_[Y, Y], np.r_[scores, scores], k)
    assert twice["mAP"] == pytest.approx(fewer["mAP"], abs=EXACT, nan_ok=True)

    # With as many labels as are true, overall precision is overall recall.
    true = annotation_report(Y, scores, "true")
    assert true["O-P"] == pytest.approx(true["O-R"])
    assert true["count_mae"] == 0


def test_memory_beyond_the_inputs_is_that_of_a_block():
    rng = np.random.default_rng(0)
    n_images, n_labels = 20_000, 800
    scores = rng.random((n_images, n_labels), dtype=np.float32)
    Y = sparse.random_array((n_images, n_labels), density=0.004, format="csr", rng=rng)
    Y.data[:] = 1
    tracemalloc.start()
    annotation_report(Y, scores, rng.integers(0, 9, n_images))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < scores.nbytes  # 64 MB; a dense truth in float64 would be 128


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Y_true": [[1, 2], [0, 1]]}, r"Y_true must hold 1 and 0, or NaN .*, got 2 in row 0"),
        ({"Y_true": sparse.csr_array([[0, 1], [0, -1]])}, r"Y_true must hold .* got -1 in row 1"),
        ({"Y_true": [[1, 0]]}, r"one shape .*\(1, 2\) and \(2, 2\)"),
        ({"Y_true": [1, 0]}, r"Y_true must be a matrix .* got shape \(2,\)"),
        ({"Y_true": [["dog"], ["cat", "sea"]]}, "Y_true must be a matrix"),
        ({"Y_true": [["a", "b"], ["c", "d"]]}, "Y_true must be a matrix of numbers"),
        ({"scores": [[0.1, 0.2], [0.3, math.nan]]}, r"scores must hold numbers without NaN, got nan in row 1"),
        ({"n_labels": 0}, "n_labels must be a positive int"),
        ({"n_labels": 1.5}, "n_labels must be a positive int"),
        ({"n_labels": None}, "n_labels must be a positive int"),
        ({"n_labels": True}, "n_labels must be a positive int"),
        ({"n_labels": "predicted"}, "'true' or a matrix, got 'predicted'"),
        ({"n_labels": 3}, "between 0 and the number of labels, 2, got 3 for row 0"),
        ({"n_labels": [1, -1]}, "got -1 for row 1"),
        ({"n_labels": [1, 1, 1]}, r"an int for each of the 2 images, got shape \(3,\)"),
        ({"n_labels": [1.5, 1]}, "an int for each of the 2 images"),
        ({"n_labels": ["a", "b"]}, "an int for each of the 2 images"),
        ({"n_labels": [[1, 0]]}, r"shape of Y_true, \(2, 2\), got \(1, 2\)"),
        ({"n_labels": [[1, 0], [3, 0]]}, "n_labels must hold 1 and 0, got 3 in row 1"),
        ({"zero_division": 0.5}, "zero_division must be 0.0, 1.0 or nan, got 0.5"),
        ({"absent_labels": "one"}, "absent_labels must be 'skip' or 'zero', got 'one'"),
        ({"sample_weight": [1.0]}, "one number for each of the 2 images"),
    ],
)
def test_wrong_input_is_explained(change, message):
    good = {"Y_true": [[1, 0], [0, 1]], "scores": [[0.1, 0.2], [0.3, 0.1]], "n_labels": 1}
    annotation_report(**good)
    with pytest.raises(ValueError, match=message):
        annotation_report(**good | change)


def test_reports_are_laid_out_one_line_each():
    Y, scores, counts = _make()
    reports = {"fixed 2": annotation_report(Y, scores, 2), "predicted": annotation_report(Y, scores, counts)}
    head, *lines = format_annotation_report(reports).splitlines()
    assert head.split() == ["C-P", "C-R", "C-F1", "O-P", "O-R", "O-F1", "H-F1", "mAP", "N+", "count", "MAE"]
    assert [line.split("  ")[0] for line in lines] == list(reports)
    assert len({len(line) for line in [head, *lines]}) == 1
    assert f"{100 * reports['predicted']['O-F1']:.1f}" in lines[1]
    alone = format_annotation_report(reports["fixed 2"]).splitlines()
    assert alone[1].split() == lines[0].removeprefix("fixed 2").split()
