"""The annotation scorer: with scikit-learn's classifiers, in searches, with lists of labels, in one pass."""

import pickle

import numpy as np
import pytest
from scipy import sparse
from sklearn import config_context
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.datasets import make_multilabel_classification
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, KFold, cross_validate
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MultiLabelBinarizer, StandardScaler

from sklearn_mm.metrics import AnnotationScorer, annotation_report

NAMES = np.array(["boat", "dog", "man", "sea", "sky"])


class CountingAnnotator(BaseEstimator):
    """One logistic regression for each label; as many labels as the scores above a threshold."""

    def __init__(self, threshold=0.0):
        self.threshold = threshold

    def fit(self, X, Y, sample_weight=None):
        if not hasattr(Y, "shape"):
            binarizer = MultiLabelBinarizer()
            Y = binarizer.fit_transform(Y)
            self.classes_ = binarizer.classes_
        self.model_ = OneVsRestClassifier(LogisticRegression()).fit(X, Y)
        self.calls_ = []
        return self

    def decision_function(self, X):
        self.calls_.append("decision_function")
        return self.model_.decision_function(X)

    def predict_count(self, X):
        self.calls_.append("predict_count")
        return np.maximum(1, (self.model_.decision_function(X) > self.threshold).sum(axis=1))

    def predict(self, X):
        raise AssertionError("predict_count says it")


class PassCounter(TransformerMixin, BaseEstimator):
    """Do nothing, and note how often."""

    n_passes = 0

    def fit(self, X, y=None):
        self.fitted_ = True
        return self

    def transform(self, X):
        type(self).n_passes += 1
        return X


@pytest.fixture(scope="module")
def data():
    X, Y = make_multilabel_classification(200, n_features=12, n_classes=5, random_state=0)
    return X, Y, [NAMES[row.astype(bool)].tolist() for row in Y]


@pytest.fixture
def annotator(data):
    return CountingAnnotator().fit(*data[:2])


def test_scores_are_the_report_of_scores_and_predicted_numbers(data, annotator):
    X, Y, _ = data
    scores, counts = annotator.decision_function(X), annotator.predict_count(X)
    assert AnnotationScorer()(annotator, X, Y) == annotation_report(Y, scores, counts)
    weight = np.random.default_rng(0).random(len(X))
    for n_labels in (2, "true"):
        scorer = AnnotationScorer(n_labels, zero_division=1.0, absent_labels="zero")
        assert scorer(annotator, X, Y, sample_weight=weight) == annotation_report(
            Y, scores, n_labels, zero_division=1.0, absent_labels="zero", sample_weight=weight
        )


def test_images_pass_once(data):
    X, Y, _ = data
    pipe = make_pipeline(PassCounter(), CountingAnnotator()).fit(X, Y)
    PassCounter.n_passes, pipe[-1].calls_ = 0, []
    AnnotationScorer()(pipe, X, Y)
    assert PassCounter.n_passes == 1
    assert pipe[-1].calls_ == ["decision_function", "predict_count"]
    pipe[-1].calls_ = []
    AnnotationScorer("true")(pipe, X, Y)
    assert pipe[-1].calls_ == ["decision_function"]


class OnePassAnnotator(CountingAnnotator):
    """Give scores and numbers of labels at once."""

    def decision_function(self, X, return_count=False):
        scores = super().decision_function(X)
        return (scores, np.maximum(1, (scores > self.threshold).sum(axis=1))) if return_count else scores


def test_scores_and_numbers_come_from_one_pass_where_they_can(data, annotator):
    X, Y, _ = data
    pipe = make_pipeline(PassCounter().fit(X), FrozenEstimator(OnePassAnnotator().fit(X, Y)))
    calls = pipe[-1].estimator.calls_
    assert AnnotationScorer()(pipe, X, Y) == AnnotationScorer()(annotator, X, Y)
    assert AnnotationScorer(2)(pipe, X, Y) == AnnotationScorer(2)(annotator, X, Y)
    assert calls == ["decision_function"] * 2


def test_the_annotator_is_found_in_pipelines_searches_and_frozen(data, annotator):
    X, Y, _ = data
    pipe = make_pipeline(StandardScaler(with_mean=False, with_std=False), CountingAnnotator()).fit(X, Y)
    search = GridSearchCV(pipe, {"countingannotator__threshold": [0.0]}, scoring=AnnotationScorer(), refit="O-F1")
    truth = AnnotationScorer()(annotator, X, Y)
    single = Pipeline([("annotate", CountingAnnotator())]).fit(X, Y)
    for estimator in (pipe, single, search.fit(X, Y), FrozenEstimator(pipe), FrozenEstimator(search)):
        assert AnnotationScorer()(estimator, X, Y) == pytest.approx(truth)


@pytest.mark.parametrize(
    "classifier",
    [
        OneVsRestClassifier(LogisticRegression()),
        MLPClassifier((8,), max_iter=2, tol=1e9),
        RandomForestClassifier(5, random_state=0),
    ],
    ids=lambda classifier: type(classifier).__name__,
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_scikit_learns_classifiers_of_several_labels_are_scored(data, classifier):
    X, Y, _ = data
    classifier = clone(classifier).fit(X, Y)
    report = AnnotationScorer()(classifier, X, Y)
    scores = classifier.predict_proba(X)
    scores = np.array([one[:, 1] for one in scores]).T if isinstance(scores, list) else scores
    assert report == pytest.approx(annotation_report(Y, scores, classifier.predict(X)))


def test_predictions_may_be_sparse_and_labels_few(data):
    X, Y, _ = data
    model = OneVsRestClassifier(LogisticRegression()).fit(X, sparse.csr_array(Y))
    assert sparse.issparse(model.predict(X))
    assert AnnotationScorer()(model, X, sparse.csr_array(Y))["O-F1"] > 0.5
    one = OneVsRestClassifier(LogisticRegression()).fit(X, Y[:, 2])
    assert AnnotationScorer()(one, X, Y[:, 2:3])["mAP"] > 0.5


@pytest.mark.parametrize("form", [list, tuple, lambda Y: np.array(Y, dtype=object), lambda Y: [set(row) for row in Y]])
def test_lists_of_labels_score_as_their_indicator(data, form):
    X, Y, lists = data
    named = CountingAnnotator().fit(X, lists)
    assert AnnotationScorer()(named, X, form(lists)) == AnnotationScorer()(named, X, Y)


def test_a_nested_list_of_marks_is_an_indicator(data, annotator):
    X, Y, _ = data
    assert AnnotationScorer()(annotator, X, Y.tolist()) == AnnotationScorer()(annotator, X, Y)


def test_a_true_label_that_the_estimator_does_not_know_is_missed(data):
    X, Y, lists = data
    named = CountingAnnotator().fit(X, lists)
    kite = np.arange(len(X)) % 10 == 0
    extended = [[*row, "kite"] if flies else row for row, flies in zip(lists, kite, strict=True)]
    report = AnnotationScorer()(named, X, extended)
    before = AnnotationScorer()(named, X, Y)
    assert report["O-P"] == before["O-P"]
    assert report["O-R"] == pytest.approx(before["O-R"] * Y.sum() / (Y.sum() + kite.sum()))
    assert report["C-R"] == pytest.approx(before["C-R"] * 5 / 6)
    assert report["mAP"] == pytest.approx((5 * before["mAP"] + 0.1) / 6)
    assert (before["n_labels"], report["n_labels"]) == (5, 6)


def test_unknown_labels_widen_predictions_too(data):
    X, _, lists = data
    for target in (MultiLabelBinarizer(), MultiLabelBinarizer(sparse_output=True)):
        model = OneVsRestClassifier(LogisticRegression()).fit(X, target.fit_transform(lists))
        model.classes_ = NAMES  # fitted on an indicator it knows numbers alone
        report = AnnotationScorer()(model, X, [*lists[:-1], [*lists[-1], "kite"]])
        assert report["n_labels"] == 6
        assert report["O-R"] > 0.5


def test_it_works_in_searches_and_cross_validation(data):
    X, Y, lists = data
    search = GridSearchCV(
        CountingAnnotator(),
        {"threshold": [-50.0, 0.0]},
        scoring=AnnotationScorer(),
        refit="O-F1",
        cv=KFold(3),
    )
    search.fit(X, Y)
    assert search.best_params_ == {"threshold": 0.0}
    assert search.cv_results_["mean_test_O-R"][0] == 1
    scores = cross_validate(CountingAnnotator(), X, lists, scoring=AnnotationScorer("true"), cv=KFold(3))
    assert (scores["test_O-P"] > 0.5).all()


def test_weights_are_routed_when_asked_for(data):
    X, Y, _ = data
    weight = np.random.default_rng(0).random(len(X))
    with config_context(enable_metadata_routing=True):
        scorer = AnnotationScorer().set_score_request(sample_weight=True)
        routed = cross_validate(
            CountingAnnotator().set_fit_request(sample_weight=False),
            X,
            Y,
            scoring=scorer,
            cv=KFold(2),
            params={"sample_weight": weight},
        )
    plain = cross_validate(CountingAnnotator(), X, Y, scoring=AnnotationScorer(), cv=KFold(2))
    half = slice(0, 100)
    fitted = CountingAnnotator().fit(X[100:], Y[100:])
    weighted = AnnotationScorer()(fitted, X[half], Y[half], sample_weight=weight[half])
    assert routed["test_O-F1"][0] == pytest.approx(weighted["O-F1"])
    assert routed["test_O-F1"][0] != pytest.approx(plain["test_O-F1"][0])


def test_scorers_are_cloned_pickled_and_shown_by_their_parameters():
    scorer = AnnotationScorer(3, absent_labels="zero")
    for copy in (clone(scorer), pickle.loads(pickle.dumps(scorer))):
        assert copy.get_params() == {"n_labels": 3, "zero_division": 0.0, "absent_labels": "zero", "metric": None}
    assert "n_labels=3" in repr(scorer)


def test_wrong_use_is_explained(data, annotator):
    X, Y, lists = data
    with pytest.raises(ValueError, match="n_labels must be 'predict', 'true' or a positive int, got 'best'"):
        AnnotationScorer("best")(annotator, X, Y)
    with pytest.raises(ValueError, match="absent_labels"):
        AnnotationScorer(absent_labels="some")(annotator, X, Y)
    with pytest.raises(TypeError, match="decision_function or predict_proba, .* got StandardScaler"):
        AnnotationScorer()(make_pipeline(StandardScaler()).fit(X), X, Y)
    with pytest.raises(ValueError, match="a list of labels for each image, got 'dog' in row 1"):
        AnnotationScorer()(CountingAnnotator().fit(X, lists), X, [["dog"], "dog", *lists[2:]])
    with pytest.raises(ValueError, match="one shape"):
        AnnotationScorer()(annotator, X[:-1], Y)
    with pytest.raises(TypeError, match="call it as scorer"):
        AnnotationScorer().score(X, Y)


def test_a_model_that_knows_nothing_scores_the_frequencies(data):
    X, Y, _ = data
    dummy = DummyClassifier(strategy="prior").fit(X, Y)
    assert AnnotationScorer(1)(dummy, X, Y)["mAP"] == pytest.approx(Y.mean(axis=0).mean())
