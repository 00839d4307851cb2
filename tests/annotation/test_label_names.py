"""Labels that are called alike look alike: what an annotator makes of their names."""

import runpy
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import Bunch

from sklearn_mm.annotation import MultiLabelAnnotator
from sklearn_mm.annotation._label_names import name_likeness, share_by_names
from sklearn_mm.exceptions import LabelWarning
from sklearn_mm.features import TextNGramEncoder
from sklearn_mm.metrics import annotation_report
from sklearn_mm.persistence import load, save

pd = pytest.importorskip("pandas")

BIRDS, BOATS, TREES = "song sea water prey", "sail row motor ferry", "apple pear plum oak"
OF_KINDS = {"bird": BIRDS.split(), "boat": BOATS.split(), "tree": TREES.split()}
LABELS = np.array([f"{own}_{kind}" for kind, names in OF_KINDS.items() for own in names])
RARE, UNSEEN = 3, 7  # prey_bird, ferry_boat
NAMES = CountVectorizer()


def scenes(n_images, seed):
    """Images of labels that look like the others of their kind: features and labels."""
    rng = np.random.default_rng(0)
    looks = np.repeat(rng.normal(size=(3, 30)), 4, axis=0) + 0.3 * rng.normal(size=(12, 30))
    rng = np.random.default_rng(seed)
    truth = rng.random((n_images, 12)) < 0.1
    features = truth @ looks + rng.normal(size=(n_images, 30))
    return features.astype(np.float32), truth.astype(int)


@pytest.fixture(scope="module")
def data():
    """Of one label there are three images, and of one none."""
    X, truth = scenes(300, seed=1)
    kept = ~truth[:, UNSEEN].astype(bool)
    kept[np.flatnonzero(truth[:, RARE] & kept)[3:]] = False
    return X[kept], pd.DataFrame(truth[kept], columns=LABELS)


def annotator(**parameters):
    settings = {"hidden_layer_sizes": (8,), "max_epochs": 2, "batch_size": 32, "random_state": 0, "members": ["kernel"]}
    settings |= {"n_folds": None, "label_count": "threshold", "name_encoder": NAMES}
    return MultiLabelAnnotator(**{**settings, **parameters})


@pytest.fixture(scope="module")
def fitted(data):
    return annotator().fit(*data)


def precision_of(label, scores, truth):
    return annotation_report(truth[:, [label]], scores[:, [label]], 1)["mAP"]


def test_rare_labels_are_found_better_and_others_as_well(data, fitted):
    X, truth = scenes(600, seed=2)
    with pytest.warns(LabelWarning, match="ferry_boat"):
        plain = annotator(name_encoder=None).fit(*data)
    others = [label for label in range(len(LABELS)) if label not in (RARE, UNSEEN)]
    scores, before = fitted.decision_function(X), plain.decision_function(X)
    assert precision_of(RARE, scores, truth) > precision_of(RARE, before, truth) + 0.01
    mean = [np.mean([precision_of(label, own, truth) for label in others]) for own in (scores, before)]
    assert mean[0] > mean[1] - 0.02


@pytest.mark.parametrize("given_as", [0, np.nan])
def test_a_label_without_images_is_found_by_its_name(data, given_as):
    X, truth = scenes(600, seed=2)
    labels = data[1].astype(float)
    labels["ferry_boat"] = given_as
    model = annotator().fit(data[0], labels)
    assert precision_of(UNSEEN, model.decision_function(X), truth) > 2 * truth[:, UNSEEN].mean()
    probability = model.predict_proba(X)[:, UNSEEN]
    assert (probability > 0).all()
    assert probability.mean() < 0.1  # none has been seen yet


def test_what_labels_share_is_the_mean_of_a_gaussian_process():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(5, 3))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    likeness = np.exp(2 * (vectors @ vectors.T - 1))
    coef, n_true = rng.normal(size=(4, 5)).astype(np.float32), np.array([100, 1, 3, 0, 20])
    shared = share_by_names(coef, likeness, n_true)
    seen = n_true > 0
    system = likeness[np.ix_(seen, seen)] + np.diag(1 / n_true[seen])
    expected = coef[:, seen] @ np.linalg.solve(system, likeness[seen])
    np.testing.assert_allclose(shared, expected, atol=5e-3)  # one of no image counts a thousandth of one


def test_likeness_of_names():
    likeness = name_likeness(np.array(["row_boat", "sail_boat", "oak_tree", "???"], dtype=object), NAMES)
    np.testing.assert_allclose(likeness, likeness.T)
    assert likeness[0, 1] > likeness[0, 2]
    np.testing.assert_array_equal(likeness[3], [0, 0, 0, 1])  # of no word that is known
    assert np.linalg.eigvalsh(likeness).min() > 0


def test_names_are_saved_with_what_was_learnt_of_them(data, fitted, tmp_path):
    save(fitted, tmp_path / "model")
    np.testing.assert_array_equal(load(tmp_path / "model").predict_proba(data[0]), fitted.predict_proba(data[0]))


def test_a_label_that_comes_later_is_learnt_beside_them(data, fitted):
    model = annotator().fit(*data).partial_fit(data[0][:4], [["row_boat"], ["house_boat"], ["house_boat"], []])
    assert model.classes_[-1] == "house_boat"
    assert model.predict_proba(data[0][:4]).shape == (4, 13)


def test_one_label_a_row_is_the_networks_alone(data):
    y = LABELS[data[1].to_numpy().argmax(axis=1)]
    scores = [annotator(name_encoder=own).fit(data[0], y).decision_function(data[0]) for own in (NAMES, None)]
    np.testing.assert_array_equal(*scores)


def not_finite(texts):
    return np.full((len(texts), 2), np.nan)


@pytest.mark.parametrize(
    "parameters, error, message",
    [
        ({"members": ["neighbors"]}, ValueError, "needs 'kernel' among the members"),
        ({"members": None}, ValueError, "needs 'kernel' among the members"),
        ({"name_encoder": TextNGramEncoder(4)}, TypeError, "name_encoder would have to be trained"),
        ({"name_encoder": FunctionTransformer(not_finite)}, ValueError, "not finite for 'song bird'"),
    ],
)
def test_what_does_not_go_with_names_is_refused(data, parameters, error, message):
    with pytest.raises(error, match=message):
        annotator(**parameters).fit(*data)


def test_labels_without_names_are_refused(data):
    with pytest.raises(ValueError, match="0 is no word"):
        annotator().fit(data[0], data[1].to_numpy())
    with pytest.raises(ValueError, match="at most 4096, got 4097"):
        name_likeness(np.array([f"label {number}" for number in range(4097)], dtype=object), NAMES)


def test_the_script_tells_labels_with_pictures_from_those_without():
    script = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "label_names.py"))
    X, truth = scenes(80, seed=1)
    names = [[f"a {' '.join(LABELS[row == 1]).replace('_', ' ')}", "picture"] for row in truth]
    emoji = Bunch(captions=names, target=sparse.csr_array(truth[:, :4]), label_names=LABELS[:4])
    train, test = np.arange(50), np.arange(50, 80)
    labels = script["load_labels"](emoji, train)
    assert set(labels) >= {*LABELS[:4], "boat", "tree", "picture"}  # "bird" is in labels, "a" is too short
    assert not {"bird", "a"} & set(labels)
    quick = {"hidden_layer_sizes": (8,), "max_epochs": 1, "n_folds": None}
    precision, n_images, f1 = script["measure"](NAMES, X, labels, np.arange(80), train, test, 0, **quick)
    assert len(precision) == len(n_images)
    assert (n_images == 0).any() and (n_images > 2).any()
    assert ((precision >= 0) & (precision <= 1)).all() and 0 < f1 <= 1
