"""What scores labels beside the network of an annotator."""

import pickle

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.linear_model import Ridge

from sklearn_mm.annotation import MultiLabelAnnotator
from sklearn_mm.annotation._data import merge_labeled
from sklearn_mm.annotation._kernel import Seen
from sklearn_mm.annotation._members import MemberScorer, fit_members, fit_weights
from sklearn_mm.metrics import AnnotationScorer
from sklearn_mm.persistence import load, save

N_LABELS = 6
BOTH = ["neighbors", "ridge"]


def clusters(n_images, seed=0):
    """Images of many small clusters, each of which has labels of its own: nearness tells, and no linear map."""
    rng = np.random.default_rng(seed)
    centres, labels = rng.normal(size=(40, 8)), rng.random((40, N_LABELS)) < 0.35
    own = rng.integers(40, size=n_images)
    return (centres[own] + 0.1 * rng.normal(size=(n_images, 8))).astype(np.float32), labels[own].astype(int)


def annotator(**parameters):
    settings = {"hidden_layer_sizes": (24,), "max_epochs": 4, "batch_size": 32, "random_state": 0, "members": BOTH}
    settings |= {"n_folds": None, "validation_fraction": 0.3, "label_count": "threshold"}
    return MultiLabelAnnotator(**{**settings, **parameters})


def seen_of(features):
    """What a network sees of features that it hands on as they are."""
    return Seen(torch.from_numpy(features), torch.from_numpy(features), None)


def fitted_members(names, n_images=120, bank_size=1000, unknown=0.0):
    X, Y = clusters(n_images)
    Y = np.where(np.random.default_rng(1).random(Y.shape) < unknown, np.nan, Y)
    images = merge_labeled([X], sparse.csr_array(Y.astype(np.float32)), None)
    blocks = ((slice(start, min(start + 50, n_images)), seen_of(X[images.rows[start : start + 50]]))
              for start in range(0, n_images, 50))  # fmt: skip
    return fit_members(names, blocks, images, X.shape[1], bank_size, np.random.default_rng(0)), X[images.rows], images


@pytest.mark.parametrize("unknown", [0.0, 0.2])
def test_votes_are_those_of_a_loop(unknown):
    members, X, images = fitted_members(["neighbors"], unknown=unknown)
    queries = clusters(5, seed=3)[0]
    scorer = MemberScorer(members, torch.device("cpu"))
    seen = seen_of(queries)
    odds = np.zeros((5, N_LABELS), np.float32)
    _, votes = scorer.terms(odds, seen.fused, scorer.find(seen), slice(0, N_LABELS))
    labels, prior = images.labels.toarray(), images.prevalence()
    for query, own in zip(queries, votes, strict=True):
        cosine = X @ query / np.linalg.norm(X, axis=1) / np.linalg.norm(query)
        nearest = np.argsort(-cosine)[:64]
        share = np.exp((cosine[nearest] - cosine[nearest[0]]) / 0.05)
        share /= share.sum()
        n_effective = 1 / (share**2).sum()
        for label in range(N_LABELS):
            known = ~np.isnan(labels[nearest, label])
            true = n_effective * share[known] @ labels[nearest[known], label] + prior[label]
            false = n_effective * share[known].sum() + 1 - true
            expected = np.log(true / false) - np.log(prior[label] / (1 - prior[label]))
            assert own[label] == pytest.approx(expected, abs=0.05)  # features are kept in half precision


def test_ridge_is_that_of_scikit_learn():
    members, X, images = fitted_members(["ridge"])
    ridge = members.ridge
    scale = np.trace(np.cov(X.T, bias=True)) / X.shape[1]
    labels = images.labels.toarray()
    reference = Ridge(alpha=ridge.strength * scale * len(X)).fit(X, labels)
    deviation = np.sqrt(images.prevalence() * (1 - images.prevalence()))
    expected = (reference.predict(X) - images.prevalence()) / deviation
    np.testing.assert_allclose(X @ ridge.coef + ridge.intercept, expected, atol=1e-3)


def test_strength_of_the_ridge_is_the_best_of_images_left_out():
    members, X, images = fitted_members(["ridge"], n_images=24)
    labels = images.labels.toarray()
    scale = np.trace(np.cov(X.T, bias=True)) / X.shape[1]
    errors = {}
    for strength in 10.0 ** np.arange(-3, 1.5, 0.5):
        errors[strength] = 0.0
        for row in range(len(X)):
            rest = np.arange(len(X)) != row
            model = Ridge(alpha=strength * scale * len(X)).fit(X[rest], labels[rest])
            errors[strength] += ((model.predict(X[row : row + 1]) - labels[row]) ** 2).sum()
    assert members.ridge.strength == pytest.approx(min(errors, key=errors.get))


def test_a_member_that_knows_nothing_counts_nothing_and_a_good_one_counts():
    rng = np.random.default_rng(0)
    truth = (rng.random((600, 5)) < 0.3).astype(np.float32)
    network = 2 * truth + rng.normal(0, 2, truth.shape)
    terms = np.stack([network, rng.normal(0, 3, truth.shape), 2 * truth + rng.normal(0, 1, truth.shape)], axis=2)
    start, prior = np.array([0, 0, 1, 0.5, 0.5]), np.zeros(5, np.float32)
    _, _, slope, noise, good = fit_weights(terms.astype(np.float32), truth, np.ones(600), prior, start)
    assert noise == 0
    assert good >= slope


@pytest.mark.parametrize("seed", range(3))
def test_members_find_labels_of_clusters_that_a_small_network_does_not(seed):
    X, Y = clusters(700, seed)
    settings = {"hidden_layer_sizes": (6,), "n_folds": 2, "random_state": seed}
    alone, together = (
        AnnotationScorer()(annotator(members=members, **settings).fit(X[:400], Y[:400]), X[400:], Y[400:])
        for members in (None, BOTH)
    )
    assert together["mAP"] > alone["mAP"] + 0.02


def test_network_and_its_history_are_those_it_has_alone():
    X, Y = clusters(200)
    alone, together = (annotator(members=members).fit(X, Y) for members in (None, BOTH))
    for one, other in zip(alone.network_.parameters(), together.network_.parameters(), strict=True):
        assert torch.equal(one, other)
    assert set(together.member_weights_) == {"network", "neighbors", "ridge"}
    assert not hasattr(alone, "member_weights_")


def test_scores_do_not_depend_on_what_is_scored_together():
    X, Y = clusters(200)
    model = annotator().fit(X, Y)
    apart = np.concatenate([model.decision_function(X[row : row + 1]) for row in range(20)])
    np.testing.assert_allclose(apart, model.decision_function(X)[:20], atol=2e-2)  # bfloat16


@pytest.mark.parametrize("label_count", ["predict", "threshold", "label-thresholds", 2])
def test_labels_are_those_of_the_scores_of_all_together(label_count):
    X, Y = clusters(300)
    model = annotator(label_count=label_count, calibrate=True).fit(X, Y)
    scores, number = model.decision_function(X, return_count=True)
    for row, (own, k) in enumerate(zip(scores, number, strict=True)):
        assert set(np.flatnonzero(model.predict(X[row : row + 1])[0])) == set(np.argsort(-own)[:k])
        if row == 10:
            break


def test_bank_holds_no_more_images_than_asked_for():
    X, Y = clusters(300)
    bank = annotator(bank_size=50).fit(X, Y)._members.neighbors
    assert bank.features.shape == (50, 24)
    assert bank.features.dtype == np.float16
    assert bank.labels.shape == (50, N_LABELS)


def test_members_are_saved(tmp_path):
    X, Y = clusters(200)
    model = annotator(calibrate=True).fit(X, Y)
    save(model, tmp_path / "model")
    for other in (pickle.loads(pickle.dumps(model)), load(tmp_path / "model")):
        np.testing.assert_array_equal(other.predict_proba(X), model.predict_proba(X))
        assert other.member_weights_ == model.member_weights_


def test_sparse_features_tags_and_labels_that_are_not_known():
    X, Y = clusters(200)
    tags = sparse.csr_array(Y[:, :2] * (np.random.default_rng(0).random((200, 2)) < 0.8))
    partly = np.where(np.random.default_rng(1).random(Y.shape) < 0.1, np.nan, Y)
    both = sparse.csr_array(sparse.hstack([sparse.csr_array(X), tags]))
    model = annotator(tag_features=slice(8, None)).fit(both, partly)
    assert model.score(both, Y) > 0.5
    assert np.isfinite(model.decision_function(both)).all()
    assert annotator(tag_features=slice(None), tag_hidden_layer_sizes=(8,)).fit(tags, Y).score(tags, Y) > 0.3


def test_images_of_weight_0_are_no_neighbours():
    X, Y = clusters(200)
    weight = (np.arange(200) < 150).astype(float)
    model = annotator().fit(X, Y, sample_weight=weight)
    assert len(model._members.neighbors.features) <= 150


def test_fit_that_goes_on_fits_the_members_anew():
    X, Y = clusters(200)
    model = annotator(warm_start=True).fit(X[:100], Y[:100])
    assert len(model._members.neighbors.features) < len(model.fit(X, Y)._members.neighbors.features)


def test_one_label_a_row_is_the_networks_alone():
    X, Y = clusters(200)
    model = annotator().fit(X, Y[:, 0])
    assert model._members is None
    assert set(model.predict(X)) <= {0, 1}


def test_a_network_without_hidden_layers_needs_no_ridge_on_many_features():
    X, Y = clusters(60)
    wide = np.hstack([X, np.zeros((60, 2050), np.float32)])
    assert set(annotator(hidden_layer_sizes=(), max_epochs=1).fit(wide, Y).member_weights_) == {"network", "neighbors"}


@pytest.mark.parametrize("members", ["neighbors", ["forest"], ["ridge", "ridge"], [1]])
def test_members_that_there_are_not_are_refused(members):
    X, Y = clusters(20)
    with pytest.raises(ValueError, match="must"):
        annotator(members=members).fit(X, Y)
