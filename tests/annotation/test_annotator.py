import pickle

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn import config_context
from sklearn.base import clone
from sklearn.metrics import f1_score, log_loss
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, cross_val_predict, cross_val_score, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_mm.annotation import LabelCountPredictor, MultiLabelAnnotator
from sklearn_mm.exceptions import LabelWarning, VersionMismatchWarning
from sklearn_mm.losses import AsymmetricLoss, LabelLoss
from sklearn_mm.metrics import AnnotationScorer, annotation_report
from sklearn_mm.persistence import load, save

NAMES = np.array(["bird", "cloud", "dog", "sea", "tree", "wall"])
FAST = {
    "hidden_layer_sizes": (32,),
    "batch_size": 100,
    "random_state": 0,
    "learning_rate": 1e-2,
    "max_epochs": 12,
    "n_folds": None,
    "members": None,
}


def make_labels(n_images, seed, noise=0.3):
    """Images of six labels, each with a number of labels that its features tell."""
    rng = np.random.default_rng(seed)
    busy = rng.random(n_images)
    truth = (rng.random((n_images, len(NAMES))) < busy[:, None] * 0.8).astype(np.int64)
    features = np.concatenate([truth, rng.normal(size=(n_images, 4))], axis=1)
    return (features + rng.normal(0, noise, features.shape)).astype(np.float32), truth


@pytest.fixture(scope="module")
def data():
    return make_labels(600, 0)


@pytest.fixture(scope="module")
def test_data():
    return make_labels(300, 1)


@pytest.fixture(scope="module")
def fitted(data):
    return MultiLabelAnnotator(**FAST).fit(*data)


def as_lists(truth):
    return [NAMES[row == 1].tolist() for row in truth]


def test_an_indicator_is_answered_by_an_indicator(fitted, test_data):
    X, truth = test_data
    predicted = fitted.predict(X)
    assert predicted.shape == truth.shape
    assert predicted.dtype == truth.dtype
    assert f1_score(truth, predicted, average="micro") > 0.85
    np.testing.assert_array_equal(fitted.classes_, np.arange(6))


@pytest.mark.slow
def test_all_forms_of_labels_teach_the_same_and_are_answered_in_their_own(data, test_data, fitted):
    X, truth = data
    expected = fitted.predict(test_data[0])
    lists = MultiLabelAnnotator(**FAST).fit(X, as_lists(truth))
    np.testing.assert_array_equal(lists.classes_, NAMES)
    answer = lists.predict(test_data[0])
    assert answer.shape == (300,)
    assert [sorted(own) for own in answer] == as_lists(expected)
    for container in (sparse.csr_array, sparse.csr_matrix, sparse.coo_matrix, sparse.csc_array):
        answer = MultiLabelAnnotator(**FAST).fit(X, container(truth.astype(np.int8))).predict(test_data[0])
        assert sparse.issparse(answer)
        assert isinstance(answer, sparse.sparray) == issubclass(container, sparse.sparray)
        assert answer.dtype == np.int8
        np.testing.assert_array_equal(answer.toarray(), expected)
    frame = pytest.importorskip("pandas").DataFrame(truth.astype(bool), columns=NAMES)
    named = MultiLabelAnnotator(**FAST).fit(X, frame)
    np.testing.assert_array_equal(named.classes_, NAMES)
    np.testing.assert_array_equal(named.predict(test_data[0]), expected.astype(bool))


def test_lists_name_the_best_label_first(data, test_data):
    annotator = MultiLabelAnnotator(**FAST).fit(data[0], as_lists(data[1]))
    scores = annotator.decision_function(test_data[0])
    for row, own in enumerate(annotator.predict(test_data[0])):
        columns = np.searchsorted(NAMES, own)
        assert (np.diff(scores[row, columns]) <= 0).all()


@pytest.mark.parametrize("label_count", ["predict", "threshold", "label-thresholds", 2])
def test_predict_gives_as_many_of_the_best_labels_as_predict_count_says(fitted, test_data, label_count):
    X, _ = test_data
    annotator = pickle.loads(pickle.dumps(fitted)).set_params(label_count=label_count)
    predicted, scores, count = annotator.predict(X), annotator.decision_function(X), annotator.predict_count(X)
    np.testing.assert_array_equal(predicted.sum(axis=1), count)
    for both, one in zip(annotator.decision_function(X, return_count=True), (scores, count), strict=True):
        assert both.dtype == one.dtype
        np.testing.assert_array_equal(both, one)
    rank = np.argsort(np.argsort(-scores, axis=1), axis=1)
    np.testing.assert_array_equal(predicted, rank < count[:, None])
    if label_count in ("threshold", "label-thresholds"):
        np.testing.assert_array_equal(predicted, scores > 0)


def test_probabilities_are_those_of_the_scores(fitted, test_data):
    X, truth = test_data
    probability = fitted.predict_proba(X)
    assert probability.dtype == np.float32
    np.testing.assert_allclose(probability, 1 / (1 + np.exp(-fitted.decision_function(X))), rtol=1e-5)
    np.testing.assert_allclose(probability.mean(axis=0), truth.mean(axis=0), atol=0.1)


def test_score_is_the_overall_f1(fitted, test_data):
    X, truth = test_data
    weight = np.random.default_rng(0).integers(0, 3, len(X))
    predicted = fitted.predict(X)
    assert fitted.score(X, truth) == pytest.approx(f1_score(truth, predicted, average="micro"))
    assert fitted.score(X, sparse.csr_array(truth)) == pytest.approx(fitted.score(X, truth))
    expected = f1_score(np.repeat(truth, weight, axis=0), np.repeat(predicted, weight, axis=0), average="micro")
    assert fitted.score(X, truth, sample_weight=weight) == pytest.approx(expected)
    report = annotation_report(truth, fitted.decision_function(X), fitted.predict_count(X))
    assert fitted.score(X, truth) == pytest.approx(report["O-F1"])


@pytest.mark.parametrize(
    "parameters",
    [
        {"loss": "softmax"},
        {"loss": "asymmetric"},
        {"loss": AsymmetricLoss(gamma_negative=2.0)},
        {"label_count": LabelCountPredictor("regression")},
        {"label_count": LabelCountPredictor(joint=True)},
        {"label_count": LabelCountPredictor("regression", joint=True), "loss": "softmax"},
        {"label_count": LabelCountPredictor(rounding="round")},
        {"label_count": "threshold"},
        {"label_count": "label-thresholds"},
        {"hidden_layer_sizes": ()},
        {"hidden_layer_sizes": (32, 32)},
        {"class_weight": "balanced"},
        {"early_stopping": True},
        {"n_folds": 3},
        {"calibrate": True, "class_weight": "balanced"},
        {"optimizer": "sgd", "learning_rate": 0.1},
        {"precision": "bfloat16"},
    ],
    ids=str,
)
@pytest.mark.slow
def test_every_setting_learns(data, test_data, parameters):
    annotator = MultiLabelAnnotator(**{**FAST, **parameters}).fit(*data)
    X, truth = test_data
    fixed = max(annotation_report(truth, annotator.decision_function(X), k)["O-F1"] for k in range(1, 7))
    assert annotator.score(X, truth) > max(0.75, fixed)
    assert annotator.history_[0]["train_loss"] > annotator.history_[11]["train_loss"]
    assert annotation_report(truth, annotator.decision_function(X), 1)["mAP"] > 0.8


@pytest.mark.slow
def test_the_predicted_number_beats_every_fixed_one_over_three_seeds():
    gains = []
    for seed in range(3):
        X, truth = make_labels(800, seed, noise=0.6)
        X_test, truth_test = make_labels(1000, 10 + seed, noise=0.6)
        annotator = MultiLabelAnnotator(**{**FAST, "random_state": seed}).fit(X, truth)
        scores = annotator.decision_function(X_test)
        fixed = max(annotation_report(truth_test, scores, k)["O-F1"] for k in range(1, 7))
        known = annotation_report(truth_test, scores, "true")["O-F1"]
        gains.append((annotator.score(X_test, truth_test) - fixed) / (known - fixed))
    assert min(gains) > 0
    assert np.mean(gains) > 0.5  # of what knowing the true number would bring


def test_fit_twice_and_fit_anew_give_the_same(data, fitted):
    again = clone(fitted).fit(*data)
    np.testing.assert_array_equal(again.decision_function(data[0]), fitted.decision_function(data[0]))
    np.testing.assert_array_equal(again.fit(*data).predict(data[0]), fitted.predict(data[0]))


def test_fit_leaves_the_global_random_state_alone(data):
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    MultiLabelAnnotator(**FAST).fit(*data)
    assert torch.equal(torch.rand(1), expected)


def test_zero_weight_is_absence_and_weights_scale_together(data):
    X, truth = data
    weight = np.ones(len(X))
    weight[300:] = 0
    half = MultiLabelAnnotator(**FAST).fit(X[:300], truth[:300])
    weighted = MultiLabelAnnotator(**FAST).fit(X, truth, sample_weight=3 * weight)
    np.testing.assert_array_equal(half.decision_function(X), weighted.decision_function(X))


def test_a_row_given_twice_is_a_row_of_weight_two(data):
    X, truth = data
    weight = np.random.default_rng(0).integers(1, 4, len(X))
    repeated = MultiLabelAnnotator(**FAST).fit(np.repeat(X, weight, axis=0), np.repeat(truth, weight, axis=0))
    weighted = MultiLabelAnnotator(**FAST).fit(X, truth, sample_weight=weight)
    np.testing.assert_allclose(repeated.predict_proba(X), weighted.predict_proba(X), rtol=1e-5)


def test_int8_and_sparse_features_are_read_as_they_are(data):
    X, truth = data
    ternary = np.where(X > 0.5, 1, np.where(X < -0.5, -1, 0)).astype(np.int8)
    dense = MultiLabelAnnotator(**FAST).fit(ternary, truth)
    np.testing.assert_array_equal(dense.predict(ternary), dense.predict(ternary.astype(np.float64)))
    assert dense.score(ternary, truth) > 0.8
    few = MultiLabelAnnotator(**FAST).fit(sparse.csr_matrix(ternary), truth)
    np.testing.assert_array_equal(few.predict(sparse.csr_matrix(ternary)), few.predict(ternary))


def test_unknown_labels_are_left_out_of_training_and_of_the_score(data, test_data):
    X, truth = data
    hidden = truth.astype(float)
    hidden[np.random.default_rng(0).random(truth.shape) < 0.3] = np.nan
    for Y in (hidden, sparse.csr_array(hidden)):
        annotator = MultiLabelAnnotator(**FAST).fit(X, Y)
        assert annotator.score(*test_data) > 0.8
        predicted = annotator.predict(X)
        dense = predicted.toarray() if sparse.issparse(predicted) else predicted
        known = ~np.isnan(hidden)
        expected = f1_score(truth[known], dense[known] > 0)
        assert annotator.score(X, Y) == pytest.approx(expected)


def test_images_without_labels_are_kept_unless_left_out(data):
    X, truth = data
    empty = truth.sum(axis=1) == 0
    assert empty.sum() > 50
    kept = MultiLabelAnnotator(**FAST).fit(X, truth)
    assert (kept.predict_count(X)[empty] == 0).mean() > 0.5
    left_out = MultiLabelAnnotator(**FAST).fit(X, truth, sample_weight=~empty)
    assert (left_out.predict_count(X) >= 1).all()
    dropped = MultiLabelAnnotator(**FAST).fit(X[~empty], truth[~empty])
    np.testing.assert_array_equal(dropped.decision_function(X), left_out.decision_function(X))


def test_one_label_a_row_makes_a_plain_classifier(data):
    X = data[0]
    y = NAMES[np.argmax(X[:, :6], axis=1)]
    annotator = MultiLabelAnnotator(**FAST).fit(X, y)
    assert (annotator.predict(X) == y).mean() > 0.6  # chance is a sixth
    np.testing.assert_allclose(annotator.predict_proba(X).sum(axis=1), 1, rtol=1e-5)
    assert annotator.score(X, y) == pytest.approx((annotator.predict(X) == y).mean())
    assert (annotator.predict_count(X) == 1).all()
    assert cross_val_score(annotator, X, y, cv=3).mean() > 0.5


def test_early_stopping_keeps_the_best_weights(data):
    annotator = MultiLabelAnnotator(
        **{**FAST, "max_epochs": 80}, early_stopping=True, n_iter_no_change=3, label_count="threshold"
    ).fit(*data)
    f1 = [record["val_f1"] for record in annotator.history_]
    assert len(f1) < 80
    assert int(np.argmax(f1)) == len(f1) - 1 - 3


@pytest.mark.slow
def test_folds_leave_all_images_to_the_network(data):
    X, truth = data
    annotator = MultiLabelAnnotator(**{**FAST, "n_folds": 3}).fit(X, truth)
    assert [record["stage"] for record in annotator.history_] == ["label"] * 12 + ["count"] * 12
    assert "val_f1" not in annotator.history_[0]
    lone = MultiLabelAnnotator(**{**FAST, "label_count": 3}).fit(X, truth)
    assert np.corrcoef(annotator.predict_proba(X).ravel(), lone.predict_proba(X).ravel())[0, 1] > 0.9
    np.testing.assert_array_equal(annotator.decision_function(X), clone(annotator).fit(X, truth).decision_function(X))


@pytest.mark.slow
def test_groups_are_not_torn_apart():
    """Copies of an image tell nothing of what comes; who is held out without them learns how little is known."""
    X, truth = make_labels(60, 0, noise=2.0)
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(60), 8)
    copies = (X[groups] + rng.normal(0, 1e-3, (480, 10))).astype(np.float32), truth[groups]
    X_test, truth_test = make_labels(500, 1, noise=2.0)
    parameters = {**FAST, "dropout": 0.0, "max_epochs": 30, "n_folds": 4, "calibrate": True}
    torn = MultiLabelAnnotator(**parameters).fit(*copies)
    whole = MultiLabelAnnotator(**parameters).fit(*copies, groups=groups)
    losses = [log_loss(truth_test.ravel(), each.predict_proba(X_test).ravel()) for each in (torn, whole)]
    assert losses[1] < losses[0] - 0.1
    with pytest.raises(ValueError, match="groups must hold one entry for each of the 600 rows, got 2"):
        MultiLabelAnnotator(**FAST).fit(*make_labels(600, 0), groups=[0, 1])


@pytest.mark.slow
def test_calibration_mends_the_probabilities(data, test_data):
    X, truth = test_data
    parameters = {**FAST, "loss": "asymmetric", "class_weight": "balanced", "batch_size": 50, "learning_rate": 5e-3}
    for n_folds in (None, 3):
        plain = MultiLabelAnnotator(**{**parameters, "n_folds": n_folds}).fit(*data)
        calibrated = MultiLabelAnnotator(**{**parameters, "n_folds": n_folds}, calibrate=True).fit(*data)
        before, after = (log_loss(truth.ravel(), each.predict_proba(X).ravel()) for each in (plain, calibrated))
        assert after < before - 0.05
        np.testing.assert_allclose(calibrated.predict_proba(X).mean(axis=0), truth.mean(axis=0), atol=0.06)


def test_calibration_mends_the_probabilities_of_one_label_a_row(data):
    rng = np.random.default_rng(0)
    X, y = data[0], NAMES[np.argmax(data[0][:, :6], axis=1)]
    y = np.where(rng.random(600) < 0.4, NAMES[rng.integers(6, size=600)], y)
    parameters = {**FAST, "dropout": 0.0, "max_epochs": 60, "hidden_layer_sizes": (256,)}
    half = slice(0, 150), slice(150, 600)
    losses = []
    for calibrate in (False, True):
        annotator = MultiLabelAnnotator(**{**parameters, "n_folds": 3}, calibrate=calibrate).fit(X[half[0]], y[half[0]])
        losses.append(log_loss(y[half[1]], annotator.predict_proba(X[half[1]])))
    assert losses[1] < losses[0] - 0.3


def test_folds_and_what_holds_images_out_exclude_each_other(data):
    for other in ({"early_stopping": True}, {"warm_start": True}):
        with pytest.raises(ValueError, match="n_folds=3 goes neither with early_stopping"):
            MultiLabelAnnotator(**{**FAST, "n_folds": 3, **other}).fit(*data)
        MultiLabelAnnotator(**{**FAST, "n_folds": "auto", **other}).fit(*data)


def test_warm_start_goes_on_from_where_it_was(data):
    annotator = MultiLabelAnnotator(**FAST, warm_start=True).fit(*data)
    annotator.fit(*data)
    assert annotator.n_epochs_ == 48
    assert annotator.history_[24]["train_loss"] < 0.85 * annotator.history_[0]["train_loss"]
    lists = MultiLabelAnnotator(**FAST, warm_start=True).fit(data[0], as_lists(data[1]))
    with pytest.raises(ValueError, match="row 1 has the label 'brid', which was not there before; did you mean 'bird'"):
        lists.fit(data[0][:2], [["sea"], ["brid"]])


def test_a_calibration_is_learnt_from_scores_as_they_come_where_training_goes_on(data):
    parameters = {**FAST, "hidden_layer_sizes": (), "dropout": 0.0, "loss": "asymmetric"}  # no batch norm moves on
    annotator = MultiLabelAnnotator(**parameters, calibrate=True, warm_start=True).fit(*data)
    before = annotator.predict_proba(data[0])
    annotator.set_params(learning_rate=1e-12, weight_decay=0.0).fit(*data)  # to the same network
    np.testing.assert_allclose(annotator.predict_proba(data[0]), before, atol=1e-4)


def test_a_count_head_learns_the_same_from_features_that_are_kept_or_computed_anew(data, fitted, monkeypatch):
    monkeypatch.setattr("sklearn_mm.annotation._training._MAX_CACHED", 0)
    anew = MultiLabelAnnotator(**FAST).fit(*data)
    np.testing.assert_allclose(
        [record["train_loss"] for record in anew.history_],
        [record["train_loss"] for record in fitted.history_],
        rtol=1e-4,  # of a batch's products, summed in another order than those of a block
    )
    assert (anew.predict_count(data[0]) == fitted.predict_count(data[0])).mean() > 0.98


def test_what_is_set_after_fit_does_not_change_what_scores_mean(data):
    shares = MultiLabelAnnotator(**FAST, loss="softmax").fit(*data)
    expected = shares.predict_proba(data[0])
    np.testing.assert_array_equal(shares.set_params(loss="bce").predict_proba(data[0]), expected)


@pytest.mark.slow
def test_grid_search_and_cross_validation_need_no_wrapper(data):
    X, truth = data
    pipe = make_pipeline(StandardScaler(), MultiLabelAnnotator(**FAST))
    search = GridSearchCV(pipe, {"multilabelannotator__label_count": [1, "predict"]}, cv=3, error_score="raise")
    assert search.fit(X, truth).best_params_ == {"multilabelannotator__label_count": "predict"}
    probability = cross_val_predict(pipe, X, truth, cv=3, method="predict_proba")
    assert probability.shape == truth.shape
    assert sparse.issparse(cross_val_predict(pipe, X, sparse.csr_array(truth), cv=3))
    lists = cross_val_predict(pipe, X, as_lists(truth), cv=KFold(3))
    assert lists.shape == (len(X),)
    assert isinstance(lists[0], list)
    sets = cross_val_predict(pipe, X, [set(own) for own in as_lists(truth)], cv=3)  # lists scikit-learn refuses here
    assert sets.tolist() == lists.tolist()


@pytest.mark.parametrize(
    "scoring",
    [
        "average_precision",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("roc_auc", "f1_micro", "f1_macro")),
    ],
)
def test_scikit_learns_own_scorers_take_it_for_a_classifier_of_several_labels(data, scoring):
    assert cross_val_score(MultiLabelAnnotator(**FAST), *data, cv=3, scoring=scoring, error_score="raise").mean() > 0.7


def test_weights_and_groups_are_routed(data):
    X, truth = data
    weight, groups = np.random.default_rng(0).integers(0, 2, len(X)), np.arange(len(X)) // 3
    with config_context(enable_metadata_routing=True):
        annotator = MultiLabelAnnotator(**FAST).set_fit_request(sample_weight=True, groups=True)
        pipe = make_pipeline(
            StandardScaler().set_fit_request(sample_weight=False), annotator.set_score_request(sample_weight=True)
        )
        params = {"sample_weight": weight, "groups": groups}
        scores = cross_validate(
            pipe, X, truth, cv=GroupKFold(2), params=params, return_estimator=True, return_indices=True
        )
        search = GridSearchCV(pipe, {"multilabelannotator__label_count": [1, "predict"]}, cv=GroupKFold(2))
        assert search.fit(X, truth, **params).best_params_ == {"multilabelannotator__label_count": "predict"}
    train, test = scores["indices"]["train"][0], scores["indices"]["test"][0]
    routed = scores["estimator"][0]
    plain = MultiLabelAnnotator(**FAST).fit(
        routed[0].transform(X[train]), truth[train], sample_weight=weight[train], groups=groups[train]
    )
    np.testing.assert_array_equal(routed.predict(X[test]), plain.predict(routed[0].transform(X[test])))
    expected = f1_score(truth[test][weight[test] > 0], routed.predict(X[test])[weight[test] > 0], average="micro")
    assert scores["test_score"][0] == pytest.approx(expected)


def test_columns_of_a_frame_are_known_by_name_not_by_place(data):
    pandas = pytest.importorskip("pandas")
    X, truth = data
    frame = pandas.DataFrame(truth, columns=NAMES)
    annotator = MultiLabelAnnotator(**FAST, warm_start=True).fit(X, frame)
    expected = annotator.score(X, frame)
    assert annotator.score(X, frame[NAMES[::-1]]) == expected
    assert annotator.score(X, truth) == expected
    assert annotator.score(X, pandas.DataFrame(truth)) == expected  # of other names: by place
    assert annotator.score(X, as_lists(truth)) == expected
    assert AnnotationScorer()(annotator, X, frame[NAMES[::-1]]) == AnnotationScorer()(annotator, X, frame)
    with pytest.raises(ValueError, match="has the label 'zebra', which was not there before"):
        annotator.fit(X, frame.rename(columns={"dog": "zebra"}))


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_array, as_lists], ids=["dense", "sparse", "lists"])
def test_saved_annotators_answer_to_the_bit_as_before(data, form, tmp_path):
    X, truth = data
    annotator = MultiLabelAnnotator(**FAST).fit(X, form(truth))
    save(annotator, tmp_path / "model")
    for opened in (load(tmp_path / "model"), pickle.loads(pickle.dumps(annotator))):
        np.testing.assert_array_equal(opened.decision_function(X), annotator.decision_function(X))
        for label_count in ("predict", "threshold", "label-thresholds"):
            answers = [each.set_params(label_count=label_count).predict(X) for each in (opened, annotator)]
            answers = [each.toarray() if sparse.issparse(each) else each for each in answers]
            np.testing.assert_array_equal(*answers)
        annotator.set_params(label_count="predict")


@pytest.mark.parametrize("more", [{"early_stopping": True}, {"n_folds": 2, "calibrate": True}], ids=str)
def test_training_goes_on_from_a_checkpoint_bit_for_bit(data, more, tmp_path):
    class Killed(Exception):
        pass

    class Killer:
        """Stop the process, as it were, at one epoch."""

        def __init__(self, epoch):
            self.epoch = epoch

        def setup(self, estimator, context):
            pass

        def teardown(self, estimator, context):
            pass

        def on_fit_task_begin(self, estimator, context):
            pass

        def on_fit_task_end(self, estimator, context, *, metadata, fitted_estimator):
            if context.task_name == "epoch" and metadata["epoch"] == self.epoch:
                raise Killed

    parameters = {**FAST, "max_epochs": 5, **more}
    whole = MultiLabelAnnotator(**parameters, checkpoint=tmp_path / "whole").fit(*data)
    for epoch in (3, 6, 8):  # in the first stage, at the beginning of the second, and in it
        with pytest.raises(Killed):
            MultiLabelAnnotator(**parameters, checkpoint=tmp_path).set_callbacks(Killer(epoch)).fit(*data)
    resumed = MultiLabelAnnotator(**parameters, checkpoint=tmp_path).fit(*data)
    assert resumed.n_epochs_ == whole.n_epochs_
    np.testing.assert_array_equal(resumed.decision_function(data[0]), whole.decision_function(data[0]))
    np.testing.assert_array_equal(resumed.predict(data[0]), whole.predict(data[0]))
    read_back = MultiLabelAnnotator(**parameters, checkpoint=tmp_path).fit(*data)
    np.testing.assert_array_equal(read_back.predict(data[0]), whole.predict(data[0]))


def test_callbacks_see_every_epoch_and_may_stop_a_stage(data):
    class Stopper:
        def __init__(self):
            self.seen = []

        def setup(self, estimator, context):
            pass

        def teardown(self, estimator, context):
            pass

        def on_fit_task_begin(self, estimator, context):
            pass

        def on_fit_task_end(self, estimator, context, *, metadata, fitted_estimator):
            if context.task_name == "epoch":
                self.seen.append((metadata["stage"], fitted_estimator.decision_function(data[0][:2]).shape))
            return len(self.seen) == 3

    stopper = Stopper()
    MultiLabelAnnotator(**FAST).set_callbacks(stopper).fit(*data)
    assert stopper.seen == [("label", (2, 6))] * 3 + [("count", (2, 6))] * 12


class SquaredLoss(LabelLoss):
    """A loss of a user's own."""

    def __init__(self, power=2):
        self.power = power

    def __call__(self, logits, targets, label_weight=None):
        factor = 1 if label_weight is None else torch.where(targets == 1, label_weight, 1)
        return (factor * (torch.sigmoid(logits) - targets).abs() ** self.power).nansum(dim=1)


def test_a_loss_of_ones_own_trains_and_its_parameters_are_reached(data, test_data):
    annotator = MultiLabelAnnotator(**FAST, loss=SquaredLoss()).fit(*data)
    assert annotator.score(*test_data) > 0.8
    other = clone(annotator).set_params(loss__power=4).fit(*data)
    assert annotator.loss.power == 2
    assert other.history_[0]["train_loss"] < annotator.history_[0]["train_loss"]
    weighted = MultiLabelAnnotator(**FAST, loss=SquaredLoss(), class_weight={0: 20.0}).fit(*data)
    X = test_data[0]
    assert weighted.predict_proba(X)[:, 0].mean() > annotator.predict_proba(X)[:, 0].mean() + 0.02


def test_a_name_of_a_loss_is_the_loss_with_its_default_parameters(data):
    named = MultiLabelAnnotator(**FAST, loss="asymmetric").fit(*data)
    given = MultiLabelAnnotator(**FAST, loss=AsymmetricLoss()).fit(*data)
    np.testing.assert_array_equal(given.decision_function(data[0]), named.decision_function(data[0]))
    other = given.set_params(loss__gamma_negative=2.0).fit(*data)
    assert (other.decision_function(data[0]) != named.decision_function(data[0])).any()
    with pytest.raises(ValueError, match="'gamma_negative' parameter of AsymmetricLoss .* Got -1"):
        MultiLabelAnnotator(loss=AsymmetricLoss(gamma_negative=-1)).fit(*data)
    for loss, message in (("hinge", "or an object derived from LabelLoss, got 'hinge'"), (AsymmetricLoss, "call it")):
        with pytest.raises(ValueError, match=message):
            MultiLabelAnnotator(loss=loss).fit(*data)


def test_what_a_number_is_estimated_by_may_be_searched_and_only_its_rounding_set_after_fit(data, fitted):
    X = data[0]
    np.testing.assert_array_equal(
        MultiLabelAnnotator(**FAST, label_count=LabelCountPredictor()).fit(*data).predict(X), fitted.predict(X)
    )
    predictor = LabelCountPredictor("regression", rounding="round")
    annotator = MultiLabelAnnotator(**FAST, label_count=predictor).fit(*data)
    rounded = annotator.predict_count(X)
    floored = annotator.set_params(label_count__rounding="floor").predict_count(X)
    assert set(np.unique(rounded - floored)) == {0, 1}
    assert not hasattr(predictor, "network_")
    grid = {"label_count__loss": ["classification", "regression"], "label_count__joint": [False, True]}
    search = GridSearchCV(annotator.set_params(max_epochs=2), grid, cv=2, error_score="raise").fit(*data)
    assert len(search.cv_results_["params"]) == 4


def test_what_a_predictor_is_trained_by_alone_has_no_effect_inside_an_annotator(data, fitted):
    alone = {"max_epochs": 1, "learning_rate": 1.0, "dropout": 0.0, "batch_size": 7, "random_state": 3}
    annotator = MultiLabelAnnotator(**FAST, label_count=LabelCountPredictor(**alone)).fit(*data)
    np.testing.assert_array_equal(annotator.predict_count(data[0]), fitted.predict_count(data[0]))


def test_parameters_of_losses_and_numbers_are_saved(data, tmp_path):
    counts = LabelCountPredictor("regression", rounding="floor")
    annotator = MultiLabelAnnotator(**FAST, loss=AsymmetricLoss(margin=0.1), label_count=counts, calibrate=True)
    annotator.fit(*data)
    save(annotator, tmp_path / "model")
    opened = load(tmp_path / "model")
    assert repr(opened) == repr(annotator)
    np.testing.assert_array_equal(opened.predict(data[0]), annotator.predict(data[0]))


OF_FORMAT_1 = {
    **{name: value for name, value in MultiLabelAnnotator().get_params(deep=False).items() if name != "label_count"},
    "gamma_negative": 4.0,
    "gamma_positive": 1.0,
    "margin": 0.05,
    "clip_norm": 1.0,
    "drop_unlabeled": True,
    "n_labels": "predict",
    "count_loss": "classification",
    "count_training": "staged",
    "count_hidden_layer_sizes": (512, 256),
    "count_rounding": "f1",
}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({}, {"label_count": LabelCountPredictor()}),
        ({"n_labels": "threshold", "count_loss": "regression"}, {"label_count": "threshold"}),
        ({"n_labels": 3, "loss": "softmax"}, {"label_count": 3, "loss": "softmax"}),
        (
            {"loss": "asymmetric", "margin": 0.1, "count_training": "joint", "count_rounding": "floor"},
            {"loss": AsymmetricLoss(margin=0.1), "label_count": LabelCountPredictor(joint=True, rounding="floor")},
        ),
    ],
    ids=str,
)
def test_the_parameters_of_the_first_format_are_those_of_today(old, new):
    opened = MultiLabelAnnotator.__new__(MultiLabelAnnotator)
    with pytest.warns(VersionMismatchWarning):
        opened.__setstate__({**OF_FORMAT_1, **old})  # as unpickling does
    assert repr(opened) == repr(MultiLabelAnnotator(**new))
    assert vars(opened).keys() == vars(MultiLabelAnnotator()).keys()


# Errors ---------------------------------------------------------------------------------------------------------


def test_labels_that_cannot_be_learned_are_named_once_and_never_predicted(data):
    X, truth = data
    odd = np.concatenate([truth, np.zeros((len(X), 1), int), np.ones((len(X), 1), int)], axis=1)
    with pytest.warns(LabelWarning, match="true of no image.*: 6; some are true of every image.*: 7") as record:
        annotator = MultiLabelAnnotator(**FAST).fit(X, odd)
    assert len(record) == 1
    assert (annotator.predict_proba(X)[:, 6] == 0).all()
    assert (annotator.set_params(label_count=8).predict(X)[:, 6] == 0).all()
    assert (annotator.predict_proba(X)[:, 7] > 0.9).all()


def test_labels_that_only_the_score_knows_count_as_missed(data):
    X, truth = data
    annotator = MultiLabelAnnotator(**FAST).fit(X, as_lists(truth))
    with pytest.warns(LabelWarning, match="1 labels of y were not there in training and count as missed: 'zebra'"):
        worse = annotator.score(X, [[*own, "zebra"] for own in as_lists(truth)])
    assert worse < annotator.score(X, as_lists(truth)) - 0.1


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.eye(3)[:2], "got 2 for 3 rows of X"),
        ([["a"], ["b"]], "got 2 for 3 rows of X"),
        (np.array([[0, 1], [0, 2], [1, 0]]), "got 2 in row 1, column 1"),
        (sparse.csr_array([[0, 1], [0, 3], [1, 0]]), "got 3 in row 1, column 1"),
        (np.array([[0, 1], [0, np.inf], [1, 0]]), "got inf in row 1, column 1"),
        (np.full((3, 2), "a"), "expected an indicator of 0 and 1"),
        ([[], [], []], "no row has a label"),
        (np.zeros((3, 2, 2)), "1 or 2 dimensions"),
        (None, "requires y to be passed"),
    ],
    ids=str,
)
def test_bad_labels_are_named(y, message):
    with pytest.raises(ValueError, match=message):
        MultiLabelAnnotator(**FAST).fit(np.eye(3), y)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([["a"], "b", ["c"]], "expected a list of labels in every row, got str in row 1"),
        ([["a"], [None], ["c"]], "got None in row 1"),
        (np.array(["a", ["b"], ["c"]], dtype=object), "expected a list of labels in every row, got str in row 0"),
        ([["a"], [3], ["c"]], "labels of one type, got int and str"),
        ("abc", "got a single str"),
    ],
    ids=str,
)
def test_labels_of_wrong_types_are_named(y, message):
    with pytest.raises(TypeError, match=message):
        MultiLabelAnnotator(**FAST).fit(np.eye(3), y)


def test_a_number_above_that_of_the_labels_is_refused(data):
    with pytest.raises(ValueError, match="label_count=7 is more than the 6 labels there are"):
        MultiLabelAnnotator(**FAST, label_count=7).fit(*data)


def test_what_is_set_after_fit_is_checked_before_use(data):
    annotator = MultiLabelAnnotator(**FAST).fit(*data)
    with pytest.raises(ValueError, match="label_count=7 is more than the 6 labels there are"):
        annotator.set_params(label_count=7).predict(data[0])
    for name, label_count in (("label_count", "most"), ("rounding", LabelCountPredictor(rounding="most"))):
        with pytest.raises(ValueError, match=f"'{name}' parameter .* Got 'most'"):
            pickle.loads(pickle.dumps(annotator)).set_params(label_count=label_count).predict_count(data[0])


def test_a_call_that_fails_leaves_torch_as_it_was(data):
    fixed = MultiLabelAnnotator(**FAST, label_count=2, n_jobs=1).fit(*data)
    with pytest.raises(ValueError) as failure:
        fixed.set_params(label_count="predict").predict(data[0])
    assert failure.tb is not None  # keeps what was left half way
    assert not torch.is_inference_mode_enabled()
    assert MultiLabelAnnotator(**FAST).fit(*data).score(*data) > 0.8


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"hidden_layer_sizes": (32, 0)}, r"hidden_layer_sizes must hold positive ints, .* got \(32, 0\)"),
        ({"hidden_layer_sizes": (2.5,)}, "hidden_layer_sizes must hold positive ints"),
        (
            {"label_count": LabelCountPredictor(hidden_layer_sizes=("a",))},
            "label_count__hidden_layer_sizes must hold positive ints",
        ),
        ({"tag_features": [0], "tag_hidden_layer_sizes": ()}, "tag_hidden_layer_sizes must hold at least one positive"),
        ({"class_weight": {2: -1.0}}, "class_weight must be a finite number, 0 or more, got -1.0 for the label 2"),
        ({"class_weight": {2: "much"}}, "got 'much' for the label 2"),
    ],
    ids=str,
)
def test_parameters_that_make_no_network_or_loss_are_named(data, parameters, message):
    with pytest.raises(ValueError, match=message):
        MultiLabelAnnotator(**{**FAST, **parameters}).fit(*data)


def test_rules_that_were_not_learnt_are_asked_for(data):
    fixed = MultiLabelAnnotator(**FAST, label_count=2).fit(*data)
    with pytest.raises(ValueError, match="label_count='threshold' is learnt in fit"):
        fixed.set_params(label_count="threshold").predict(data[0])
    tuned = MultiLabelAnnotator(**FAST, label_count="threshold").fit(*data)
    with pytest.raises(ValueError, match="fit with label_count='predict'"):
        tuned.set_params(label_count="predict").predict(data[0])


def test_weights_of_labels_that_are_not_there_are_refused(data):
    with pytest.raises(
        ValueError, match="class_weight names the label 'brid', which is not there; did you mean 'bird'"
    ):
        MultiLabelAnnotator(**FAST, class_weight={"brid": 2.0}).fit(data[0], as_lists(data[1]))


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.full((12, 3), np.nan), "no label of y is known"),
        (np.empty((12, 0)), "y has no labels: expected an indicator of at least one column"),
    ],
)
def test_labels_that_say_nothing_are_refused(y, message):
    with pytest.raises(ValueError, match=message):
        MultiLabelAnnotator(max_epochs=1).fit(np.eye(12), y)


@pytest.mark.filterwarnings("ignore::sklearn_mm.exceptions.LabelWarning")
def test_images_held_out_may_all_be_unknown():
    y = np.full((40, 3), np.nan)
    y[0] = [1, 0, 1]
    annotator = MultiLabelAnnotator(max_epochs=1, early_stopping=True, random_state=0)
    for seed in range(5):  # in most the one row that is known is learnt from
        annotator.set_params(random_state=seed).fit(np.random.default_rng(seed).normal(size=(40, 4)), y)
        assert annotator.predict(np.zeros((2, 4))).shape == (2, 3)


def test_weights_near_the_end_of_float64_are_weights():
    X, y = np.random.default_rng(0).normal(size=(30, 4)), np.tile([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], (10, 1))
    weight = np.tile([1.0, 2.0, 3.0], 10)
    fits = [MultiLabelAnnotator(max_epochs=2, random_state=0).fit(X, y, scale * weight) for scale in (1.0, 5e307)]
    np.testing.assert_allclose(fits[0].decision_function(X), fits[1].decision_function(X), rtol=1e-5)
    assert fits[0].score(X, y, weight) == pytest.approx(fits[1].score(X, y, 5e307 * weight))


def test_a_wide_frame_is_what_its_array_is():
    pandas = pytest.importorskip("pandas")
    X, y = np.random.default_rng(0).normal(size=(30, 6)).astype(np.float32), np.eye(3)[np.arange(30) % 3]
    frame = pandas.DataFrame(X, columns=list("abcdef")).astype({"a": np.float64})
    annotator = MultiLabelAnnotator(max_epochs=1, random_state=0).fit(frame, y)
    assert annotator.feature_names_in_.tolist() == list("abcdef")
    np.testing.assert_array_equal(
        annotator.decision_function(frame),
        MultiLabelAnnotator(max_epochs=1, random_state=0).fit(X, y).decision_function(X),
    )
    with pytest.raises(ValueError, match="feature names"):
        annotator.predict(frame[["b", "a", "c", "d", "e", "f"]])
    with pytest.raises(ValueError, match="NaN, infinity .* 1 of 30 rows: 4"):
        annotator.predict(frame.mask(np.broadcast_to(np.arange(30)[:, None] == 4, frame.shape)))
