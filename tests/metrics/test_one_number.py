"""Scorers of one number, in what scikit-learn has that wants one."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import make_multilabel_classification
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    HalvingRandomSearchCV,
    KFold,
    cross_val_score,
    learning_curve,
    permutation_test_score,
    validation_curve,
)
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_mm.metrics import AnnotationScorer, RetrievalScorer
from tests.metrics.linear_ranker import LinearRanker

WORDS = np.array(["red", "blue", "round", "long", "old", "wet", "far", "small"])


class WordRanker(LinearRanker):
    """Has a parameter that a halving search can raise."""

    def __init__(self, alpha=1.0, similarity="cosine", n_passes=1):
        super().__init__(alpha, similarity)
        self.n_passes = n_passes


@pytest.fixture(scope="module")
def described():
    rng = np.random.default_rng(0)
    on = np.array([rng.permutation(8) < 3 for _ in range(60)])
    X = rng.normal(scale=0.7, size=(60, 8)) + 2 * on
    return X, [[" ".join(WORDS[row])] for row in on]


@pytest.fixture(scope="module")
def labeled():
    return make_multilabel_classification(80, n_features=10, n_classes=4, random_state=0)


def _retrieval():
    return WordRanker(), {"similarity": ["order", "cosine"]}, RetrievalScorer(metric="t2i_hit@3")


def _annotation():
    model = OneVsRestClassifier(LogisticRegression())
    return model, {"estimator__C": [1e-6, 1.0]}, AnnotationScorer(metric="mAP")


@pytest.fixture(params=["retrieval", "annotation"])
def task(request, described, labeled):
    """Data, an estimator, a grid of which the last is the best, and a scorer of one number."""
    if request.param == "retrieval":
        return *described, *_retrieval()
    return *labeled, *_annotation()


def test_it_is_the_number_of_the_report(described, labeled):
    X, y = described
    ranker = LinearRanker().fit(X, y)
    report = RetrievalScorer(k=(1, 5))(ranker, X, y) | RetrievalScorer(k=(3, 5), definition="recall")(ranker, X, y)
    for metric in ("t2i_hit@5", "i2t_hit@1", "i2t_recall@3"):
        score = RetrievalScorer(metric=metric)(ranker, X, y)
        assert type(score) is float
        assert score == report[metric]
    assert RetrievalScorer(metric="neg_t2i_mean_rank")(ranker, X, y) == -report["t2i_mean_rank"]
    for options in ({}, {"k": 2, "direction": "i2t"}, {"definition": "recall"}):
        report = RetrievalScorer(**options)(ranker, X, y)
        assert RetrievalScorer(**options, metric="rsum")(ranker, X, y) == report["rsum"]

    X, Y = labeled
    model = OneVsRestClassifier(LogisticRegression()).fit(X, Y)
    report = AnnotationScorer()(model, X, Y)
    for metric in ("O-F1", "mAP", "N+", "count_accuracy"):
        assert AnnotationScorer(metric=metric)(model, X, Y) == report[metric]
    assert AnnotationScorer(metric="neg_count_mae")(model, X, Y) == -report["count_mae"]


def test_a_search_refits_the_best_without_being_told_by_what(task):
    X, y, model, grid, scorer = task
    search = GridSearchCV(model, grid, scoring=scorer, cv=KFold(3)).fit(X, y)
    (name, values), *_ = grid.items()
    assert search.best_params_ == {name: values[-1]}
    assert search.best_score_ == search.cv_results_["mean_test_score"].max()
    assert search.score(X, y) == scorer(search.best_estimator_, X, y)


@pytest.mark.parametrize("kind", [HalvingGridSearchCV, HalvingRandomSearchCV])
def test_halving_searches_run(task, kind):
    X, y, model, grid, scorer = task
    search = kind(
        model, grid, scoring=scorer, cv=KFold(3), factor=2, min_resources=30, max_resources=60, random_state=0
    ).fit(X, y)
    assert search.n_iterations_ == 2
    (name, values), *_ = grid.items()
    assert search.best_params_ == {name: values[-1]}
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_a_halving_search_may_raise_a_parameter(described):
    search = HalvingGridSearchCV(
        *_retrieval()[:2], scoring=_retrieval()[2], cv=KFold(3), factor=2, resource="n_passes", max_resources=2
    ).fit(*described)
    assert search.best_estimator_.n_passes == 2


def test_cross_val_score_and_curves_run(task):
    X, y, model, grid, scorer = task
    scores = cross_val_score(model, X, y, scoring=scorer, cv=KFold(3))
    assert scores.shape == (3,)
    assert scores.min() > 0
    _, train, test = learning_curve(model, X, y, scoring=scorer, cv=KFold(3), train_sizes=[20, 40])
    assert train.shape == test.shape == (2, 3)
    assert np.isfinite(test).all()
    (name, values), *_ = grid.items()
    _, test = validation_curve(model, X, y, param_name=name, param_range=values, scoring=scorer, cv=KFold(3))
    assert test.mean(axis=1).argmax() == len(values) - 1


def test_permutation_tests_run(task):
    X, y, model, _, scorer = task
    y = np.array(y) if not isinstance(y, list) else y
    score, permuted, p = permutation_test_score(
        model, X, y, scoring=scorer, cv=KFold(3), n_permutations=4, random_state=0
    )
    assert score > permuted.max()
    assert p == pytest.approx(0.2)
    importance = permutation_importance(model.fit(X, y), X, y, scoring=scorer, n_repeats=2, random_state=0)
    assert importance.importances_mean.max() > 0


def test_it_works_behind_a_pipeline(described):
    search = GridSearchCV(
        make_pipeline(StandardScaler(), LinearRanker()),
        {"linearranker__alpha": [1.0, 2.0]},
        scoring=RetrievalScorer(metric="i2t_hit@1"),
        cv=2,
    ).fit(*described)
    assert 0 < search.best_score_ <= 1


@pytest.mark.parametrize(
    ("scorer", "metric", "message"),
    [
        (RetrievalScorer, "t2i_hits@10", r"got 't2i_hits@10'; did you mean 't2i_hit@10'.*there are rsum, t2i_hit@1"),
        (RetrievalScorer, "hit@10", "number of retrieval_report, with any k.*did you mean"),
        (RetrievalScorer, "t2i_hit@0", "got 't2i_hit@0'"),
        (RetrievalScorer, 10, "or be None for all of them, got 10"),
        (RetrievalScorer, "t2i_mean_rank", "searches take the largest: ask for 'neg_t2i_mean_rank'"),
        (RetrievalScorer, "neg_rsum", "got 'neg_rsum'"),
        (AnnotationScorer, "F1", r"number of annotation_report.*got 'F1'; did you mean.*there are O-F1, C-F1"),
        (AnnotationScorer, "n_images", "got 'n_images'"),
        (AnnotationScorer, "count_mae", "ask for 'neg_count_mae'"),
    ],
)
def test_a_wrong_name_is_refused_before_anything_is_fitted(scorer, metric, message):
    with pytest.raises(ValueError, match=message):
        scorer(metric=metric)
    changed = scorer().set_params(metric=metric)
    with pytest.raises(ValueError, match=message):
        changed(None, [[1.0]], ["a"])


def test_the_name_is_cloned_and_pickled_and_older_scorers_have_none():
    for scorer in (RetrievalScorer(metric="t2i_hit@10"), AnnotationScorer(metric="mAP")):
        for copy in (clone(scorer), pickle.loads(pickle.dumps(scorer))):
            assert copy.get_params() == scorer.get_params()
        older = type(scorer)()
        del older.__dict__["metric"]
        assert pickle.loads(pickle.dumps(older)).get_params()["metric"] is None
