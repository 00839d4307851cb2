"""Several numbers of one scorer, each under its name."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import make_multilabel_classification
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.multiclass import OneVsRestClassifier

from sklearn_mm.metrics import AnnotationScorer, RetrievalScorer, named_scorers
from tests.metrics.linear_ranker import LinearRanker

NAMES = ["rsum", "t2i_hit@5", "neg_i2t_median_rank"]


class CountingRanker(LinearRanker):
    """A ranker that counts what is asked of it."""

    n_fits = n_passes = 0

    def fit(self, X, y, sample_weight=None, groups=None):
        type(self).n_fits += 1
        return super().fit(X, y)

    def set_gallery(self, images):
        return self

    def transform(self, X):
        type(self).n_passes += 1
        return super().transform(X)


@pytest.fixture
def counted():
    CountingRanker.n_fits = CountingRanker.n_passes = 0
    return CountingRanker


@pytest.fixture
def data():
    words = ["red dot", "red box", "blue dot", "blue box", "green dot"]
    X = np.tile(np.eye(5), (12, 1)) + np.random.default_rng(0).normal(0, 0.2, (60, 5))
    return X, words * 12


def test_the_numbers_are_those_of_the_scorers_alone_from_one_pass(counted, data):
    scoring = named_scorers(RetrievalScorer(), NAMES)
    several = cross_validate(counted(), *data, scoring=scoring, cv=3)
    assert counted.n_passes == 3
    for name in NAMES:
        alone = cross_validate(LinearRanker(), *data, scoring=RetrievalScorer(metric=name), cv=3)
        np.testing.assert_array_equal(several[f"test_{name}"], alone["test_score"])


@pytest.mark.parametrize("refit", [True, "recall"])
def test_a_refit_by_no_name_is_refused_before_anything_is_fitted(counted, data, refit):
    search = GridSearchCV(
        counted(), {"alpha": [0.1, 1.0]}, scoring=named_scorers(RetrievalScorer(), NAMES), refit=refit
    )
    with pytest.raises(ValueError, match="refit must be set to a scorer key"):
        search.fit(*data)
    assert counted.n_fits == 0


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_search_refits_by_a_name(data, n_jobs):
    scoring = named_scorers(RetrievalScorer(), NAMES)
    search = GridSearchCV(LinearRanker(), {"alpha": [0.1, 1e6]}, scoring=scoring, refit="rsum", n_jobs=n_jobs, cv=2)
    search.fit(*data)
    assert search.cv_results_["mean_test_rsum"].argmax() == search.best_index_
    assert {f"mean_test_{name}" for name in NAMES} <= search.cv_results_.keys()


def test_another_estimator_is_another_pass(counted, data):
    scoring = list(named_scorers(RetrievalScorer(), NAMES[:2]).values())
    good, bad = counted(alpha=0.1).fit(*data), counted(alpha=1e9).fit(*data[:1], data[1][::-1])
    assert scoring[0](good, *data) != scoring[0](bad, *data)
    assert scoring[1](bad, *data) == RetrievalScorer(metric=NAMES[1])(bad, *data)


def test_an_estimator_fitted_again_is_another_pass(data):
    scoring = named_scorers(RetrievalScorer(), NAMES)
    X, y = data
    model = LinearRanker(alpha=0.1).fit(X, y)
    before = scoring["rsum"](model, X, y)
    model.fit(X, y[::-1])
    assert scoring["t2i_hit@5"](model, X, y) == RetrievalScorer(metric="t2i_hit@5")(model, X, y)
    assert scoring["rsum"](model, X, y) == RetrievalScorer(metric="rsum")(model, X, y) != before


def test_a_scorer_that_asks_again_is_another_pass(counted, data):
    scoring = named_scorers(RetrievalScorer(), NAMES)
    model = counted().fit(*data)
    for _ in range(2):
        scoring["rsum"](model, *data)
    assert counted.n_passes == 2


def test_nothing_is_kept_after_the_last_of_them(data):
    scoring = named_scorers(RetrievalScorer(), NAMES)
    model = LinearRanker().fit(*data)
    for scorer in scoring.values():
        scorer(model, *data)
    assert not scoring["rsum"]._shared._kept


def test_they_travel_and_are_cloned(data):
    model = LinearRanker().fit(*data)
    scoring = named_scorers(RetrievalScorer(), NAMES)
    for other in (pickle.loads(pickle.dumps(scoring)), {name: clone(scorer) for name, scorer in scoring.items()}):
        assert {name: scorer(model, *data) for name, scorer in other.items()} == {
            name: RetrievalScorer(metric=name)(model, *data) for name in NAMES
        }


def test_numbers_of_annotation_share_a_report():
    X, Y = make_multilabel_classification(n_classes=3, random_state=0)
    model = OneVsRestClassifier(LogisticRegression())
    scoring = named_scorers(AnnotationScorer(), ["O-F1", "mAP"])
    result = cross_validate(model, X, Y, scoring=scoring, cv=2)
    for name in scoring:
        alone = cross_validate(model, X, Y, scoring=AnnotationScorer(metric=name), cv=2)["test_score"]
        np.testing.assert_array_equal(result[f"test_{name}"], alone)


@pytest.mark.parametrize(
    ("metrics", "error", "message"),
    [
        ("rsum", TypeError, "a list of names, got 'rsum'"),
        ([], ValueError, "one at least"),
        (["rsum", "rsum"], ValueError, "each name once"),
        (["rsum", "t2i_hits@5"], ValueError, "metric must name a number"),
    ],
)
def test_names_that_are_none(metrics, error, message):
    with pytest.raises(error, match=message):
        named_scorers(RetrievalScorer(), metrics)
