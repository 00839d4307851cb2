import pickle

import joblib
import numpy as np
import pytest
from sklearn import config_context
from sklearn.base import BaseEstimator, clone
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, cross_validate
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_mm.metrics import RetrievalScorer, retrieval_report
from tests.metrics.linear_ranker import LinearRanker

WORDS = ["red", "blue", "round", "long", "old", "wet", "far", "small"]


@pytest.fixture(scope="module")
def described():
    """90 images of 8 features, captions that name the features that are on, and groups of three."""
    rng = np.random.default_rng(0)
    X = np.empty((90, 8))
    y = []
    for row in range(90):
        on = rng.choice(8, size=3, replace=False)
        X[row] = rng.normal(scale=0.7, size=8)
        X[row, on] += 2
        y.append([" ".join(WORDS[i] for i in rng.permutation(on)) for _ in range(1 + row % 2)])
    return X, y, np.arange(90) // 3


def _report(ranker, X, y, **options):
    texts = [text for row in y for text in row]
    owner = [row for row, captions in enumerate(y) for _ in captions]
    return retrieval_report(ranker.transform(X), ranker.transform_text(texts), owner, wording=texts, **options)


def test_scores_are_the_report_of_the_embeddings(described):
    X, y, groups = described
    ranker = LinearRanker().fit(X, y)
    assert RetrievalScorer()(ranker, X, y) == _report(ranker, X, y)
    weight = np.random.default_rng(0).random(len(X))
    scorer = RetrievalScorer(k=(2,), definition="recall")
    assert scorer(ranker, X, y, sample_weight=weight, groups=groups) == _report(
        ranker, X, y, k=(2,), definition="recall", sample_weight=weight, groups=groups
    )


def test_one_direction_leaves_out_the_keys_of_the_other(described):
    X, y, _ = described
    ranker = LinearRanker().fit(X, y)
    both = RetrievalScorer()(ranker, X, y)
    for direction, other in (("i2t", "t2i"), ("t2i", "i2t")):
        one = RetrievalScorer(direction=direction)(ranker, X, y)
        assert set(one) == {key for key in both if not key.startswith(other)}
        assert one["rsum"] == pytest.approx(100 * sum(one[f"{direction}_hit@{k}"] for k in (1, 5, 10)))
        assert all(one[key] == both[key] for key in one if key != "rsum")


def test_the_ranker_is_found_in_pipelines_searches_and_frozen(described):
    X, y, _ = described
    ranker = LinearRanker().fit(X, y)
    pipe = make_pipeline(StandardScaler(with_mean=False, with_std=False), LinearRanker()).fit(X, y)
    search = GridSearchCV(LinearRanker(), {"alpha": [1.0]}, scoring=RetrievalScorer(), refit="rsum", cv=2)
    nested = GridSearchCV(
        Pipeline([("scale", StandardScaler(with_mean=False, with_std=False)), ("rank", LinearRanker())]),
        {"rank__alpha": [1.0]},
        scoring=RetrievalScorer(),
        refit="rsum",
        cv=2,
    )
    truth = RetrievalScorer()(ranker, X, y)
    for estimator in (pipe, search.fit(X, y), nested.fit(X, y), FrozenEstimator(pipe), FrozenEstimator(nested)):
        assert RetrievalScorer()(estimator, X, y) == pytest.approx(truth)


def test_the_similarity_is_that_of_the_ranker(described):
    X, y, _ = described
    pipe = make_pipeline(StandardScaler(), LinearRanker(similarity="order")).fit(X, y)
    embedded = Pipeline(pipe.steps[:-1]).transform(X)
    assert RetrievalScorer()(pipe, X, y) == _report(pipe[-1], embedded, y, similarity="order")
    assert RetrievalScorer()(pipe, X, y) != _report(pipe[-1], embedded, y)


class CountingRanker(LinearRanker):
    calls = {"transform": 0, "transform_text": 0}

    def set_gallery(self, images):
        return self

    def transform(self, X):
        self.calls["transform"] += 1
        return super().transform(X)

    def transform_text(self, texts):
        self.calls["transform_text"] += 1
        return super().transform_text(texts)


def test_images_and_texts_are_embedded_once(described):
    X, y, _ = described
    ranker = CountingRanker().fit(X, y)
    CountingRanker.calls.update(transform=0, transform_text=0)
    RetrievalScorer()(ranker, X, y)
    assert CountingRanker.calls == {"transform": 1, "transform_text": 1}


def test_grid_search_finds_the_better_setting(described):
    X, y, _ = described
    search = GridSearchCV(
        LinearRanker(),
        {"similarity": ["order", "cosine"]},
        scoring=RetrievalScorer(k=(1, 5)),
        refit="rsum",
        cv=KFold(3),
    ).fit(X, y)
    worse, better = search.cv_results_["mean_test_rsum"]
    assert better > worse
    assert search.best_params_ == {"similarity": "cosine"}
    assert search.cv_results_["mean_test_n_images"].tolist() == [30, 30]


def test_cross_validate_reports_every_number_above_chance(described):
    X, y, _ = described
    result = cross_validate(LinearRanker(), X, y, scoring=RetrievalScorer(), cv=3, error_score="raise")
    chance = retrieval_report(np.ones((30, 2)), np.ones((45, 2)), np.arange(45) % 30)
    assert result["test_rsum"].mean() > 2 * chance["rsum"]
    assert result["test_t2i_hit@1"].shape == (3,)


class RecordingScorer(RetrievalScorer):
    seen: list = []

    def __call__(self, estimator, X, y, sample_weight=None, groups=None):
        self.seen.append((len(X), groups, sample_weight))
        return super().__call__(estimator, X, y, sample_weight=sample_weight, groups=groups)


def test_groups_and_weights_reach_the_scorer_by_metadata_routing(described):
    X, y, groups = described
    weight = np.linspace(1, 2, len(X))
    RecordingScorer.seen.clear()
    with config_context(enable_metadata_routing=True):
        scorer = RecordingScorer(k=1).set_score_request(groups=True, sample_weight=True)
        ranker = LinearRanker().set_fit_request(groups=True, sample_weight=False)
        cross_validate(
            ranker,
            X,
            y,
            scoring=scorer,
            cv=GroupKFold(3),
            params={"groups": groups, "sample_weight": weight},
            error_score="raise",
        )
        GridSearchCV(
            make_pipeline(StandardScaler().set_fit_request(sample_weight=False), ranker),
            {"linearranker__alpha": [1.0]},
            scoring=scorer,
            refit="rsum",
            cv=GroupKFold(3),
            error_score="raise",
        ).fit(X, y, groups=groups, sample_weight=weight)
    assert len(RecordingScorer.seen) == 6
    for n, seen_groups, seen_weight in RecordingScorer.seen:
        assert n == len(seen_groups) == len(seen_weight) == 30
        assert np.bincount(seen_groups).max() == 3  # groups arrived whole


def test_without_routing_groups_steer_the_splitter_alone(described):
    X, y, groups = described
    RecordingScorer.seen.clear()
    GridSearchCV(LinearRanker(), {"alpha": [1.0]}, scoring=RecordingScorer(k=1), refit="rsum", cv=GroupKFold(3)).fit(
        X, y, groups=groups
    )
    assert [(n, seen) for n, seen, _ in RecordingScorer.seen] == [(30, None)] * 3


def test_metadata_that_was_not_asked_for_is_refused_under_routing(described):
    X, y, groups = described
    with (
        config_context(enable_metadata_routing=True),
        pytest.raises(ValueError, match="groups.*are passed but are not explicitly set as requested or not"),
    ):
        cross_validate(
            LinearRanker().set_fit_request(groups=False),
            X,
            y,
            scoring=RetrievalScorer(),
            params={"groups": groups},
            error_score="raise",
        )


def test_the_scorer_is_cloned_and_pickled_with_its_requests():
    with config_context(enable_metadata_routing=True):
        scorer = RetrievalScorer(k=(1, 2), direction="t2i").set_score_request(groups=True)
        for copy in (clone(scorer), pickle.loads(pickle.dumps(scorer))):
            assert copy.get_params() == scorer.get_params()
            assert copy.get_metadata_routing().score.requests["groups"] is True


SEARCH = """
    import sys
    import joblib

    folder = sys.argv[1]
    search, X, y = joblib.load(folder + "/job")
    with joblib.parallel_config("multiprocessing", n_jobs=2):
        joblib.dump(search.fit(X, y), folder + "/done")
"""


@pytest.mark.slow
def test_searches_run_in_several_processes(described, forked, tmp_path):
    X, y, _ = described
    search = GridSearchCV(LinearRanker(), {"alpha": [1.0, 2.0]}, scoring=RetrievalScorer(), refit="rsum", cv=2)
    joblib.dump((search, X, y), tmp_path / "job")
    status, output = forked(SEARCH, tmp_path)
    assert status == [0], output
    assert np.isfinite(joblib.load(tmp_path / "done").cv_results_["mean_test_rsum"]).all()


class PlainTransformer(BaseEstimator):
    def transform(self, X):
        return X


@pytest.mark.parametrize(
    ("scorer", "arguments", "error", "message"),
    [
        (RetrievalScorer(direction="up"), {}, ValueError, "direction must be 'both', 'i2t' or 't2i', got 'up'"),
        (RetrievalScorer(definition="mrr"), {}, ValueError, "definition must be"),
        (RetrievalScorer(k=0), {}, ValueError, "k must be a positive int"),
        (RetrievalScorer(), {"y": [["a"]] * 3}, ValueError, "got 3 caption entries for 90 images"),
        (RetrievalScorer(), {"sample_weight": [1]}, ValueError, "for each of the 90 images"),
        (RetrievalScorer(), {"groups": [1]}, ValueError, "groups must hold"),
        (RetrievalScorer(), {"estimator": PlainTransformer()}, TypeError, "by transform_text.*PlainTransformer"),
        (
            RetrievalScorer(),
            {"estimator": make_pipeline(StandardScaler())},
            TypeError,
            "by transform_text.*Pipeline",
        ),
    ],
)
def test_misuse_is_named(described, scorer, arguments, error, message):
    X, y, _ = described
    ready = {"estimator": LinearRanker().fit(X, y), "X": X, "y": y} | arguments
    with pytest.raises(error, match=message):
        scorer(**ready)


def test_the_score_method_points_to_the_call():
    with pytest.raises(TypeError, match=r"call it as scorer\(estimator, X, y\)"):
        RetrievalScorer().score([[1]], ["a"])
