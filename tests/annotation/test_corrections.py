"""What an annotator learns from a few images that a person has corrected."""

import pickle
import time

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.special import expit
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_mm.annotation import LabelCountPredictor, MultiLabelAnnotator
from sklearn_mm.annotation._corrections import FeatureSample, learn_corrections
from sklearn_mm.metrics import annotation_report
from sklearn_mm.persistence import load, save

NAMES = np.array(["bird", "cloud", "dog", "sea", "tree", "yak"])
N_KNOWN = 5
SECONDS = 1.0  # that twenty corrections may take


def pictures(n_images, seed=0):
    """Features in which each label leaves a trace, and an indicator of six labels."""
    truth = np.random.default_rng(seed).random((n_images, len(NAMES))) < 0.3
    traces = np.random.default_rng(99).normal(size=(len(NAMES), 16))
    noise = np.random.default_rng(seed + 1).normal(0, 0.7, (n_images, 16))
    return (truth @ traces + noise).astype(np.float32), truth.astype(int)


def listed(truth):
    return [NAMES[np.flatnonzero(row)].tolist() for row in truth]


def annotator(**parameters):
    settings = {"hidden_layer_sizes": (32,), "max_epochs": 6, "batch_size": 32, "dropout": 0.1, "random_state": 0}
    settings |= {"n_folds": None, "validation_fraction": 0.3, "label_count": "threshold", "members": None}
    return MultiLabelAnnotator(**{**settings, **parameters})


def precision_of(model, X, truth, labels):
    scores = model.decision_function(X)
    return annotation_report(truth[:, labels], scores[:, labels], 1)["mAP"]


@pytest.fixture(scope="module")
def wrong_on_dogs():
    """An annotator that was told of one dog in six only, of all labels but the last."""
    X, truth = pictures(400)
    given = truth[:, :N_KNOWN].copy()
    dogs = np.flatnonzero(given[:, 2])
    given[dogs[len(dogs) // 6 :], 2] = 0
    return annotator().fit(X, listed(given))


def opened(model):
    return pickle.loads(pickle.dumps(model))


def test_corrected_labels_get_better_and_others_no_worse(wrong_on_dogs):
    X, truth = pictures(600, seed=5)
    others, test = [0, 1, 3, 4], slice(200, None)
    before = [precision_of(wrong_on_dogs, X[test], truth[test], labels) for labels in ([2], others)]
    model = opened(wrong_on_dogs)
    start = time.perf_counter()
    model.partial_fit(X[:20], listed(truth[:20, :N_KNOWN]))
    assert time.perf_counter() - start < SECONDS
    model.partial_fit(X[20:100], listed(truth[20:100, :N_KNOWN]))
    after = [precision_of(model, X[test], truth[test], labels) for labels in ([2], others)]
    assert after[0] > before[0] + 0.02
    assert after[1] > before[1] - 0.002


def test_new_label_is_learnt_and_stands_behind_the_others(wrong_on_dogs):
    X, truth = pictures(600, seed=5)
    model = opened(wrong_on_dogs).partial_fit(X[:60], listed(truth[:60]))
    assert model.classes_.tolist() == NAMES.tolist()
    chance = truth[200:, 5].mean()
    assert precision_of(model, X[200:], truth[200:], [5]) > chance + 0.2
    assert any("yak" in row for row in model.predict(X[200:]))
    assert model.predict_proba(X[:3]).shape == (3, 6)
    assert len(model.predict_count(X[:3])) == 3
    assert 0 < model.score(X[200:], listed(truth[200:])) <= 1


def test_order_and_number_of_calls_do_not_matter(wrong_on_dogs):
    X, truth = pictures(30, seed=5)
    Y = listed(truth)
    at_once = opened(wrong_on_dogs).partial_fit(X, Y).decision_function(X)
    in_parts = opened(wrong_on_dogs)
    for part in (slice(20, 30), slice(0, 20)):
        in_parts.partial_fit(X[part], Y[part])
    np.testing.assert_allclose(in_parts.decision_function(X), at_once, atol=0.02)  # solved to a tolerance


def test_what_was_said_last_of_an_image_holds(wrong_on_dogs):
    X, _ = pictures(2, seed=5)
    model = opened(wrong_on_dogs).partial_fit(X, [["sea"], []]).partial_fit(X, [["dog"], ["bird"]])
    expected = opened(wrong_on_dogs).partial_fit(X, [["dog"], ["bird"]])
    np.testing.assert_allclose(model.decision_function(X), expected.decision_function(X), atol=0.02)


def test_unknown_labels_of_a_corrected_image_stay_as_they_are():
    X, truth = pictures(200)
    model = annotator().fit(X, truth)
    before = model.decision_function(X)
    told = np.full((10, 6), np.nan)
    told[:, 3] = 1 - truth[:10, 3]
    after = model.partial_fit(X[:10], told).decision_function(X)
    others = [0, 1, 2, 4, 5]
    np.testing.assert_allclose(after[:, others], before[:, others], atol=1e-5)
    assert np.abs(after[:, 3] - before[:, 3]).max() > 0.1


@pytest.mark.parametrize(
    ("label_count", "members"),
    [
        ("predict", ["neighbors", "ridge"]),
        ("label-thresholds", ["neighbors", "kernel"]),
        (2, ["ridge"]),
        (LabelCountPredictor("classification"), None),
    ],
)
def test_any_members_and_any_rule_of_the_number_of_labels(label_count, members):
    X, truth = pictures(120)
    model = annotator(members=members, label_count=label_count, max_epochs=2).fit(X, listed(truth[:, :N_KNOWN]))
    model.partial_fit(X[:5], [["yak"]] * 5)
    assert model.decision_function(X).shape == (120, 6)
    assert len(model.predict(X)) == 120


@pytest.mark.parametrize("loss", ["softmax", "asymmetric"])
def test_any_loss(loss):
    X, truth = pictures(200)
    model = annotator(loss=loss, calibrate=loss == "softmax").fit(X, truth)
    wrong = 1 - truth[:3]
    before = model.predict_proba(X[:3])
    after = model.partial_fit(X[:3], wrong).predict_proba(X[:3])
    assert np.abs(after - wrong).mean() < np.abs(before - wrong).mean()


@pytest.mark.parametrize("make", [np.asarray, sparse.csr_array, sparse.csr_matrix])
def test_indicators_come_back_in_their_form_and_wider_ones_bring_labels(make):
    X, truth = pictures(120)
    model = annotator(max_epochs=2).fit(X, make(truth[:, :N_KNOWN]))
    model.partial_fit(X[:8], make(truth[:8]))
    predicted = model.predict(X)
    assert predicted.shape == (120, 6)
    assert type(predicted) is type(make(truth))
    assert model.classes_.tolist() == list(range(6))


def test_columns_of_a_frame_are_told_by_name():
    X, truth = pictures(120)
    model = annotator(max_epochs=2).fit(X, pd.DataFrame(truth[:, :N_KNOWN], columns=NAMES[:N_KNOWN]))
    model.partial_fit(X[:4], pd.DataFrame({"yak": [1, 0, 1, 0], "dog": [1, 1, 0, 0]}))
    assert model.classes_.tolist() == NAMES.tolist()


def test_one_label_a_row_stays_one():
    X, truth = pictures(200)
    y = NAMES[truth.argmax(axis=1)]
    model = annotator().fit(X[y != "yak"], y[y != "yak"])
    model.partial_fit(X[:30], np.where(np.arange(30) < 15, "yak", y[:30]))
    assert set(model.predict(X)) <= set(NAMES)
    np.testing.assert_allclose(model.predict_proba(X).sum(axis=1), 1, atol=1e-5)
    with pytest.raises(ValueError, match="one label for each image, as in fit, got 2 in row 1"):
        model.partial_fit(X[:2], [["dog"], ["dog", "sea"]])


def test_label_never_seen_in_fit_can_be_taught():
    X, truth = pictures(120)
    never = truth.copy()
    never[:, 5] = 0
    with pytest.warns(UserWarning, match="true of no image"):
        model = annotator(max_epochs=2).fit(X, never)
    assert not model.predict(X)[:, 5].any()
    model.partial_fit(X[:30], truth[:30])
    assert model.predict(X)[:, 5].any()


def test_corrected_annotators_are_saved_and_opened(wrong_on_dogs, tmp_path):
    X, truth = pictures(40, seed=5)
    Y = listed(truth)
    model = opened(wrong_on_dogs).partial_fit(X[:10], Y[:10])
    save(model, tmp_path / "model")
    kept = load(tmp_path / "model")
    np.testing.assert_array_equal(kept.decision_function(X), model.decision_function(X))
    expected = opened(model).partial_fit(X[10:20], Y[10:20]).decision_function(X)
    np.testing.assert_array_equal(kept.partial_fit(X[10:20], Y[10:20]).decision_function(X), expected)


def test_models_saved_before_there_were_corrections_score_and_say_what_to_do(wrong_on_dogs):
    state = wrong_on_dogs.__getstate__()
    del state["_sample"], state["_corrections"]
    old = MultiLabelAnnotator.__new__(MultiLabelAnnotator)
    old.__setstate__(state)
    X, truth = pictures(4)
    np.testing.assert_array_equal(old.decision_function(X), wrong_on_dogs.decision_function(X))
    with pytest.raises(ValueError, match="fit it again"):
        old.partial_fit(X, listed(truth))


def test_last_step_of_a_pipeline_learns_on():
    X, truth = pictures(120)
    pipeline = make_pipeline(StandardScaler(), annotator(max_epochs=2)).fit(X, listed(truth[:, :N_KNOWN]))
    pipeline[-1].partial_fit(pipeline[:-1].transform(X[:5]), listed(truth[:5]))
    assert pipeline.predict_proba(X).shape[1] == len(pipeline.classes_)


def test_unfitted_annotator_is_fitted():
    X, truth = pictures(60)
    first = annotator(max_epochs=1).partial_fit(X, truth, classes=range(6))
    np.testing.assert_array_equal(
        first.decision_function(X), annotator(max_epochs=1).fit(X, truth).decision_function(X)
    )
    with pytest.raises(NotFittedError):
        clone(first).predict(X)


def test_fit_forgets_corrections_and_warm_start_keeps_their_labels():
    X, truth = pictures(120)
    model = annotator(max_epochs=1).fit(X, listed(truth[:, :N_KNOWN]))
    before = model.decision_function(X)
    model.partial_fit(X[:5], [["yak"]] * 5)
    again = opened(model).set_params(warm_start=True).fit(X, listed(truth))
    assert again.classes_.tolist() == NAMES.tolist()
    assert again.network_.config["n_labels"] == again.network_.label_head.out_features == 6
    model.fit(X, listed(truth[:, :N_KNOWN]))
    np.testing.assert_array_equal(model.decision_function(X), before)


def test_weight_counts_as_so_many_images(wrong_on_dogs):
    X, truth = pictures(10, seed=5)
    Y = listed(truth[:, :N_KNOWN])
    base = wrong_on_dogs.decision_function(X)
    once, thrice = (
        np.abs(opened(wrong_on_dogs).partial_fit(X, Y, sample_weight=np.full(10, w)).decision_function(X) - base).mean()
        for w in (1.0, 3.0)
    )
    assert thrice > once > 0


def test_what_does_not_fit_is_refused_and_changes_nothing(wrong_on_dogs):
    X, truth = pictures(4)
    before = wrong_on_dogs.decision_function(X)
    with pytest.raises(ValueError, match="X has 15 features"):
        wrong_on_dogs.partial_fit(X[:, :15], listed(truth))
    with pytest.raises(ValueError, match="got 3 for 4 rows"):
        wrong_on_dogs.partial_fit(X, listed(truth[:3]))
    with pytest.raises(ValueError, match="indicator of 5 labels, got one of 6 columns"):
        wrong_on_dogs.partial_fit(X, truth)
    with pytest.raises(TypeError, match="the type of those that are known, str, got new ones of int"):
        wrong_on_dogs.partial_fit(X, [[1], [2], [], []])
    assert wrong_on_dogs.classes_.tolist() == NAMES[:N_KNOWN].tolist()
    np.testing.assert_array_equal(wrong_on_dogs.decision_function(X), before)


@pytest.mark.parametrize("n_fused", [4, 40])
def test_map_is_the_best_of_the_corrections_and_the_sample(n_fused):
    """Against gradient descent on what is minimised, for more features than images of the sample and for less."""
    rng = np.random.default_rng(0)
    unit = lambda n: (lambda v: v / np.linalg.norm(v, axis=1, keepdims=True))(rng.normal(size=(n, n_fused)))  # noqa: E731
    sample = FeatureSample(unit(20).astype(np.float16), 50, np.array([0.5, 0.1], np.float32))
    features, odds = unit(6).astype(np.float32), rng.normal(size=(6, 2)).astype(np.float32)
    labels = (rng.random((6, 2)) < 0.5).astype(np.float32)
    learnt = learn_corrections(sample, None, features, odds, labels, np.ones(6), single=False)
    rows = np.column_stack([sample.features.astype(float), np.ones(20)])
    moments = rows.T @ rows / 20
    moments += learnt_ridge() * np.trace(moments) / len(moments) * np.eye(len(moments))
    own = np.column_stack([features.astype(float), np.ones(6)])
    for label, share in enumerate([0.5, 0.1]):
        coef = learnt.coef[:, label].astype(float)
        residual = labels[:, label] - expit(odds[:, label] + own @ coef)
        pull = 50 * share * (1 - share) * moments @ coef  # the gradient of the penalty
        np.testing.assert_allclose(own.T @ residual, pull, atol=5e-3)


def learnt_ridge():
    from sklearn_mm.annotation import _corrections

    return _corrections._RIDGE
