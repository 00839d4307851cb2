"""What labels say of one another, beside the network of an annotator."""

import numpy as np
import pytest
from scipy import sparse
from scipy.optimize import minimize
from sklearn.linear_model import Ridge

from sklearn_mm.annotation import MultiLabelAnnotator
from sklearn_mm.annotation import _annotator as annotator_module
from sklearn_mm.annotation._label_relations import left_out_scores, relate
from sklearn_mm.annotation._members import fit_shift, fit_weights


def test_scores_of_images_left_out_are_those_of_a_kernel_solved_without_their_groups():
    rng = np.random.default_rng(0)
    group = np.array([3, 1, 1, 0, 3, 3, 2, 5, 5, 4])
    features, targets = rng.normal(size=(10, 3)), rng.normal(size=(10, 2))
    likeness = np.exp(-((features[:, None] - features) ** 2).sum(axis=2))
    system = likeness + np.diag(rng.uniform(0.1, 1, 10))
    inverse = np.linalg.inv(system)
    scores = left_out_scores(inverse, inverse @ targets, targets, group)
    for row in range(10):
        rest = group != group[row]
        expected = likeness[row, rest] @ np.linalg.solve(system[np.ix_(rest, rest)], targets[rest])
        np.testing.assert_allclose(scores[row], expected, atol=1e-10)


def test_relations_are_a_ridge_on_what_scores_miss():
    rng = np.random.default_rng(0)
    scores, weight = rng.normal(size=(900, 4)), rng.uniform(0.5, 2, 900)
    targets = scores + scores[:, [1, 0, 0, 0]] + rng.normal(size=(900, 4))
    group = np.concatenate([np.repeat(np.arange(100), 3), np.arange(100, 700)])
    own_weight = np.where(group < 100, weight / 3, weight)
    ridge = Ridge(alpha=300, fit_intercept=False).fit(scores, targets - scores, sample_weight=own_weight)
    np.testing.assert_allclose(relate(scores, targets, weight, group), np.eye(4) + ridge.coef_.T, atol=1e-8)


def test_a_member_scores_alone_where_all_others_only_blur_it():
    rng = np.random.default_rng(0)
    truth = (rng.random((600, 5)) < 0.3).astype(np.float32)
    noise = rng.normal(0, 3, truth.shape)
    terms = np.stack([noise, rng.normal(0, 3, truth.shape), truth + rng.normal(0, 0.3, truth.shape)], axis=2)
    prior, start = np.zeros(5, np.float32), np.array([0, 0, 1, 0.25, 4])
    _, _, *weights = fit_weights(terms.astype(np.float32), truth, np.ones(600), prior, start)
    assert weights[0] == weights[1] == 0
    assert weights[2] > 0
    # One that says the same of all images has no order of theirs, whatever their own is.
    terms[:, :, 2] = 0
    own_order = np.argsort(-truth[:, 0])
    _, _, *weights = fit_weights(terms[own_order].astype(np.float32), truth[own_order], np.ones(600), prior, start)
    assert weights[0] > 0


def test_what_labels_are_raised_by_is_the_most_likely_drawn_to_0():
    rng = np.random.default_rng(0)
    scores, weight = rng.normal(size=(300, 2)), rng.uniform(0.5, 2, 300)
    truth = (rng.random((300, 2)) < 1 / (1 + np.exp(-scores - [1.5, -1]))).astype(np.float64)
    truth[:40, 0] = np.nan
    alone = np.arange(300)
    shift = fit_shift(scores, truth, weight, alone)

    def loss(own, label):
        known = ~np.isnan(truth[:, label])
        odds = scores[known, label] + own
        return weight[known] @ (np.logaddexp(0, odds) - truth[known, label] * odds) + 10 * own @ own

    expected = [minimize(loss, 0.0, args=(label,)).x[0] for label in range(2)]
    np.testing.assert_allclose(shift, expected, atol=1e-3)
    assert fit_shift(scores[:0], truth[:0], weight[:0], alone[:0]).tolist() == [0, 0]


def test_images_that_are_alike_raise_a_label_less_than_others():
    rng = np.random.default_rng(0)
    scores = rng.normal(-2, 1, (300, 1))
    truth = (rng.random((300, 1)) < 1 / (1 + np.exp(-scores))).astype(np.float64)
    copies = 100
    many, true = (np.concatenate([own, np.broadcast_to(one, (copies, 1))]) for own, one in ((scores, -2), (truth, 1)))
    groups = np.concatenate([np.arange(300), np.full(copies, 300)])
    weight = np.ones(300 + copies)
    apart = fit_shift(many, true, weight, np.arange(len(many)))[0]
    alike = fit_shift(many, true, weight, groups)[0]
    assert apart > 0.8
    assert alike < 0.4


@pytest.fixture
def fitted(monkeypatch):
    """An annotator, and the kernels that its weights and rules were learnt from."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(80, 6)).astype(np.float32)
    Y = sparse.csr_array((X[:, :3] + 0.5 * rng.normal(size=(80, 3)) > 0.5).astype(int))
    kernels, weigh = [], annotator_module.weigh_members

    def note(parts, members):
        kernels.extend(part.model.members.kernel for part in parts)
        return weigh(parts, members)

    monkeypatch.setattr(annotator_module, "weigh_members", note)
    model = MultiLabelAnnotator(hidden_layer_sizes=(4,), max_epochs=1, n_folds=3, batch_size=32, random_state=0)
    return model.fit(X, Y), kernels, X


def test_kernels_of_folds_have_the_scale_and_the_noise_of_the_final_one(fitted):
    model, kernels, _ = fitted
    assert len(kernels) == 3
    assert {kernel.hyperparameters for kernel in kernels} == {model._members.kernel.hyperparameters}


def test_members_saved_before_labels_were_raised_score_as_they_did(fitted):
    model, _, X = fitted
    shift = model._members.shift
    assert np.abs(shift).max() > 0
    raised = model.decision_function(X)
    state = dict(vars(model._members))
    del state["shift"]
    vars(model._members).clear()
    vars(model._members).update(state)
    np.testing.assert_allclose(raised - model.decision_function(X), np.broadcast_to(shift, raised.shape), atol=1e-5)
