"""Models side by side: intervals of their differences."""

import pickle

import numpy as np
import pytest
from sklearn.datasets import make_multilabel_classification
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from sklearn_mm.metrics import AnnotationScorer, Comparison, RetrievalScorer, compare


class Noisy:
    """Embeds the picture of a number as its place, less or more clearly."""

    def __init__(self, noise, seed=0):
        self.noise, self.seed = noise, seed

    def transform(self, X):
        return X + self.noise * np.random.default_rng(self.seed).normal(size=X.shape)

    def transform_text(self, texts):
        return np.eye(80)[[int(text) for text in texts]]


X, Y = np.eye(80), [[str(row)] for row in range(80)]


def test_the_better_model_is_told_and_the_first_is_what_others_are_compared_with():
    comparison = compare({"noisy": Noisy(0.6), "clear": Noisy(0.2), "same": Noisy(0.6)}, X, Y, n_bootstrap=200)
    report = RetrievalScorer()(Noisy(0.6), X, Y)
    noisy, clear = comparison.reports["noisy"], comparison.reports["clear"]
    assert {key: noisy[key] for key in comparison.metrics} == {key: report[key] for key in comparison.metrics}
    assert comparison.sizes == {key: size for key, size in report.items() if key.startswith("n_") or "_n_" in key}
    assert comparison.sizes["t2i_n_gallery"] == 80
    gained = comparison.differences["clear"]
    assert list(comparison.differences) == ["clear", "same"]
    assert gained["rsum"] == clear["rsum"] - noisy["rsum"]
    assert 0 < gained["rsum_low"] < gained["rsum"] < gained["rsum_high"]
    assert set(comparison.differences["same"].values()) == {0.0}


def test_paired_differences_move_less_than_the_numbers_themselves():
    """What is hard for one model is hard for the other here."""
    models = [Noisy(0.4), Noisy(0.43)]
    comparison = compare(models, X, Y, scoring=RetrievalScorer(metric="t2i_hit@1"), n_bootstrap=500)
    (one, other), (gained,) = comparison.reports.values(), comparison.differences.values()
    widths = [ends["t2i_hit@1_high"] - ends["t2i_hit@1_low"] for ends in (one, other, gained)]
    assert widths[2] < 0.7 * min(widths[:2])
    assert list(comparison.reports) == ["Noisy 1", "Noisy 2"]
    assert comparison.metrics == ["t2i_hit@1"]


def test_a_number_of_which_the_smallest_is_best_changes_its_sign():
    scorer = RetrievalScorer(metric="neg_t2i_mean_rank")
    comparison = compare([Noisy(0.6), Noisy(0.2)], X, Y, scoring=scorer, n_bootstrap=100)
    name = "neg_t2i_mean_rank"
    assert comparison.reports["Noisy 1"][name] == scorer(Noisy(0.6), X, Y)
    assert comparison.differences["Noisy 2"][f"{name}_low"] > 0


def test_annotators_are_compared_by_their_own_scorer():
    X, Y = make_multilabel_classification(120, n_features=10, n_classes=4, random_state=0)
    good = make_pipeline(StandardScaler(), OneVsRestClassifier(LogisticRegression())).fit(X, Y)
    blind = make_pipeline(FunctionTransformer(np.zeros_like), OneVsRestClassifier(LogisticRegression())).fit(X, Y)
    comparison = compare({"blind": blind, "good": good}, X, Y, n_bootstrap=100)
    assert comparison.reports["good"]["mAP"] == AnnotationScorer()(good, X, Y)["mAP"]
    assert comparison.differences["good"]["mAP_low"] > 0
    assert comparison.sizes == {"n_images": 120, "n_labels": 4}
    one = compare([good], X, Y, scoring=AnnotationScorer("true", metric="O-F1"), n_bootstrap=100)
    assert (list(one.reports), one.differences) == (["OneVsRestClassifier"], {})
    assert one.reports["OneVsRestClassifier"]["O-F1_low"] < 1


def test_the_table_is_printed_listed_and_made_a_frame():
    comparison = compare({"a": Noisy(0.6), "b": Noisy(0.2)}, X, Y, n_bootstrap=100, confidence=0.9)
    lines = str(comparison).splitlines()
    assert lines[0] == (
        "n_images 80, n_texts 80, i2t_n_gallery 80, t2i_n_gallery 80; intervals of 90% by 100 draws of images"
    )
    assert lines[2].split()[:2] == ["i2t_hit@1", "a"]
    assert lines[3].split()[0] == "b"
    assert lines[3].endswith("*")
    rows = comparison.rows()
    assert len(rows) == 2 * len(comparison.metrics)
    assert "difference" not in rows[0]
    assert rows[1]["difference"] == comparison.differences["b"]["i2t_hit@1"]
    pandas = pytest.importorskip("pandas")
    frame = comparison.to_frame()
    assert isinstance(frame, pandas.DataFrame)
    assert frame.columns[:5].tolist() == ["metric", "model", "value", "low", "high"]
    copy = pickle.loads(pickle.dumps(comparison))
    assert isinstance(copy, Comparison)
    assert copy == comparison


@pytest.mark.parametrize("random_state", [None, np.random.RandomState(0)])
def test_the_draws_are_the_same_for_all_models_whatever_they_are_drawn_by(random_state):
    comparison = compare([Noisy(0.6), Noisy(0.6)], X, Y, n_bootstrap=20, random_state=random_state)
    assert set(comparison.differences["Noisy 2"].values()) == {0.0}


@pytest.mark.parametrize(
    ("models", "options", "error", "message"),
    [
        ([], {}, ValueError, "at least one model"),
        (Noisy(1), {}, TypeError, "a dict or a list of fitted models, got a Noisy; wrap it in a list"),
        ({1: Noisy(1), "1": Noisy(1)}, {}, ValueError, "a name of its own for each"),
        ([Noisy(1)], {"scoring": "rsum"}, TypeError, "must be a RetrievalScorer, an AnnotationScorer or None"),
        ([Noisy(1)], {"n_bootstrap": None}, ValueError, "n_bootstrap must be an int of at least 2, got None"),
        ([Noisy(1)], {"confidence": 2}, ValueError, "confidence must be"),
        ([object()], {}, TypeError, "decision_function or predict_proba"),
    ],
)
def test_misuse_is_named(models, options, error, message):
    with pytest.raises(error, match=message):
        compare(models, X, Y, **options)
