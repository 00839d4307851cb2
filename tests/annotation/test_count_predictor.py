import pickle

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_mm.annotation import LabelCountPredictor
from sklearn_mm.persistence import load, save

FAST = {"hidden_layer_sizes": (32,), "batch_size": 100, "learning_rate": 1e-2, "random_state": 0}
NAMES = np.array(["bird", "cloud", "dog", "sea", "tree", "wall"])


def make_counts(n_images, seed, noise=0.5):
    """Features that tell how many of six labels an image has, between 0 and 6."""
    rng = np.random.default_rng(seed)
    truth = (rng.random((n_images, 6)) < rng.random((n_images, 1)) * 0.8).astype(np.int64)
    return (truth + rng.normal(0, noise, truth.shape)).astype(np.float32), truth


@pytest.fixture(scope="module")
def data():
    return make_counts(600, 0)


@pytest.mark.parametrize("loss", ["classification", "regression"])
@pytest.mark.parametrize("rounding", ["f1", "round", "floor"])
def test_every_estimate_is_closer_than_the_best_constant(data, loss, rounding):
    X, truth = make_counts(400, 1)
    number = truth.sum(axis=1)
    predictor = LabelCountPredictor(loss, **FAST, rounding=rounding).fit(*data)
    predicted = predictor.predict(X)
    assert predicted.dtype == np.int64
    assert predicted.min() >= 0
    constant = np.abs(number - np.median(number)).mean()
    assert np.abs(predicted - number).mean() < constant * (0.95 if rounding == "floor" else 0.75)


def test_the_loss_and_the_rounding_are_those_asked_for(data):
    rounded = LabelCountPredictor(**FAST, rounding="round").fit(*data)
    floored = clone(rounded).set_params(rounding="floor").fit(*data)
    X = data[0]
    assert (floored.predict(X) <= rounded.predict(X)).all()
    assert set(np.unique(rounded.predict(X) - floored.predict(X))) == {0, 1}
    np.testing.assert_array_equal(rounded.set_params(rounding="floor").predict(X), floored.predict(X))
    with pytest.raises(ValueError, match="rounding='f1' is learnt in fit, which was called with another"):
        rounded.set_params(rounding="f1").predict(X)
    with pytest.raises(ValueError, match="'rounding' parameter"):
        rounded.set_params(rounding="ceil").predict(X)


def test_labels_of_any_form_are_counted(data):
    X, truth = data
    expected = LabelCountPredictor(**FAST, max_epochs=2).fit(X, truth.sum(axis=1)).predict(X)
    for y in (
        truth,
        sparse.csr_array(truth),
        [NAMES[row == 1].tolist() for row in truth],
        truth.sum(axis=1).tolist(),
        truth.sum(axis=1).astype(float),
    ):
        np.testing.assert_array_equal(LabelCountPredictor(**FAST, max_epochs=2).fit(X, y).predict(X), expected)


def test_it_stands_in_pipelines_and_searches(data):
    X, truth = data
    number = truth.sum(axis=1)
    pipe = make_pipeline(StandardScaler(), LabelCountPredictor(**FAST))
    grid = {"labelcountpredictor__learning_rate": [1e-6, 1e-2]}
    search = GridSearchCV(pipe, grid, cv=3, error_score="raise").fit(X, number)
    assert search.best_params_ == {"labelcountpredictor__learning_rate": 1e-2}
    predicted = cross_val_predict(pipe, X, number, cv=3)
    assert np.abs(predicted - number).mean() < np.abs(number - np.median(number)).mean()


def test_the_score_is_the_mean_absolute_error_negative(data):
    X, truth = data
    predictor = LabelCountPredictor(**FAST).fit(X, truth)
    error = np.abs(predictor.predict(X) - truth.sum(axis=1))
    assert predictor.score(X, truth) == pytest.approx(-error.mean())
    assert predictor.score(X, truth.sum(axis=1)) == predictor.score(X, truth)
    weight = np.random.default_rng(0).random(len(X))
    assert predictor.score(X, truth, sample_weight=weight) == pytest.approx(-np.average(error, weights=weight))


def test_weights_repeat_rows_and_zero_leaves_them_out(data):
    X, truth = data
    number = truth.sum(axis=1)
    weight = np.random.default_rng(0).integers(0, 3, len(X))
    repeated = LabelCountPredictor(**FAST).fit(np.repeat(X, weight, axis=0), np.repeat(number, weight))
    weighted = LabelCountPredictor(**FAST).fit(X, number, sample_weight=weight)
    np.testing.assert_array_equal(repeated.predict(X), weighted.predict(X))


def test_training_that_goes_on_holds_out_the_same_images(data):
    class Recorder(LabelCountPredictor):
        def _validation(self, X, held_out):
            self.held_out_ = np.sort(held_out.rows)
            return super()._validation(X, held_out)

    predictor = Recorder(**FAST, warm_start=True, max_epochs=2).fit(*data)
    first = predictor.held_out_
    predictor.fit(*data)
    np.testing.assert_array_equal(predictor.held_out_, first)
    assert predictor.n_epochs_ == 4


def test_groups_are_held_out_together(data):
    class Recorder(LabelCountPredictor):
        def _validation(self, X, held_out):
            self.held_out_ = X[held_out.rows]
            return super()._validation(X, held_out)

    X, truth = data
    groups = np.random.default_rng(0).integers(0, 100, len(X))
    held_out = Recorder(**FAST, max_epochs=2).fit(X, truth, groups=groups).held_out_
    found = (X[:, None] == held_out).all(axis=2).any(axis=1)
    assert 0.05 < found.mean() < 0.15
    assert not set(groups[found]) & set(groups[~found])
    with pytest.raises(ValueError, match="groups must hold one entry for each of the 600 rows, got 2"):
        LabelCountPredictor(**FAST).fit(X, truth, groups=[0, 1])


def test_early_stopping_keeps_the_best_weights(data):
    predictor = LabelCountPredictor(**FAST, max_epochs=200, early_stopping=True, n_iter_no_change=3).fit(*data)
    score = [record["val_count_mae"] for record in predictor.history_]
    assert len(score) < 200
    assert int(np.argmax(score)) == len(score) - 1 - 3


def test_a_checkpoint_is_read_back_and_saved_predictors_answer_as_before(data, tmp_path):
    X, truth = data
    predictor = LabelCountPredictor(**FAST, max_epochs=3, checkpoint=tmp_path / "run").fit(X, truth)
    again = clone(predictor).fit(X, truth)
    np.testing.assert_array_equal(again.predict(X), predictor.predict(X))
    save(predictor, tmp_path / "model")
    for opened in (load(tmp_path / "model"), pickle.loads(pickle.dumps(predictor))):
        np.testing.assert_array_equal(opened.predict(X), predictor.predict(X))


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([1, 2], "one number for each row of X, got 2 for 3 rows"),
        ([1.0, -1.0, 2.0], r"whole, 0 or more\), got -1.0 in row 1"),
        ([1.0, 1.5, 2.0], "got 1.5 in row 1"),
        ([1.0, np.nan, 2.0], "got nan in row 1"),
        (None, "requires y to be passed"),
    ],
    ids=str,
)
def test_what_is_no_number_of_labels_is_named(y, message):
    with pytest.raises(ValueError, match=message):
        LabelCountPredictor(**FAST).fit(np.eye(3), y)


def test_sizes_of_layers_are_checked(data):
    with pytest.raises(ValueError, match=r"hidden_layer_sizes must hold positive ints, .* got \(0,\)"):
        LabelCountPredictor(hidden_layer_sizes=(0,)).fit(*data)
