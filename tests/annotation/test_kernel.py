"""The kernel that scores labels beside the network of an annotator."""

import numpy as np
import pytest
import torch
from scipy import sparse

from sklearn_mm.annotation import MultiLabelAnnotator
from sklearn_mm.annotation._data import merge_labeled
from sklearn_mm.annotation._kernel import KernelScorer, KernelScores, Seen, SeenImages, kernel_bank_size
from sklearn_mm.annotation._label_relations import left_out_scores, relate
from sklearn_mm.annotation._members import fit_members
from sklearn_mm.datasets import make_captioned_shapes
from sklearn_mm.features import ImageCNNEncoder
from sklearn_mm.metrics import AnnotationScorer
from sklearn_mm.nn.annotation import TagBags
from sklearn_mm.persistence import load, save

N_LABELS, N_TAGS = 4, 7


def seen_of(features, tags):
    """What a network sees of some images."""
    bags = None
    if tags is not None:
        parts = (tags.indices.astype(np.int64), tags.data, tags.indptr[:-1].astype(np.int64))
        bags = TagBags(*map(torch.from_numpy, parts))
    features = None if features is None else torch.from_numpy(features)
    return Seen(torch.zeros(len(features) if tags is None else tags.shape[0], 1), features, bags, N_TAGS)


def some_images(n_images, seed):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n_images, 5)).astype(np.float32)
    tags = rng.random((n_images, N_TAGS)) < 0.3
    tags[0] = False  # an image without tags
    return features, sparse.csr_array((tags * rng.random(tags.shape)).astype(np.float32))


def naive_likeness(features, tags, other_features, other_tags, scale):
    likeness = np.zeros((1, 1))
    if features is not None:
        one, other = (own / np.linalg.norm(own, axis=1, keepdims=True) for own in (features, other_features))
        likeness = likeness + np.exp(-scale * ((one[:, None] - other[None]) ** 2).sum(axis=2) / 2)
    if tags is not None:
        one, other = (own.toarray() for own in (tags, other_tags))
        one, other = (own / np.maximum(np.linalg.norm(own, axis=1, keepdims=True), 1e-12) for own in (one, other))
        likeness = likeness + 0.4 * np.exp(-((one[:, None] - other[None]) ** 2).sum(axis=2) / 2)
    return likeness


@pytest.mark.parametrize("with_features, with_tags", [(True, False), (False, True), (True, True)])
def test_scores_are_those_of_a_gaussian_process(with_features, with_tags):
    bank, queries = (
        tuple(
            part if there else None for part, there in zip(some_images(n, n), (with_features, with_tags), strict=True)
        )
        for n in (40, 6)
    )
    rng = np.random.default_rng(0)
    targets, weight = rng.normal(size=(40, N_LABELS)).astype(np.float32), rng.uniform(0.5, 2, 40).astype(np.float32)
    kernel = KernelScores.fit(SeenImages.of(seen_of(*bank)), targets, weight, np.arange(40), torch.device("cpu"))
    scorer = KernelScorer(kernel, torch.device("cpu"))
    scores = scorer.scores(scorer.likeness(seen_of(*queries)), slice(1, 3))
    system = naive_likeness(*bank, *bank, kernel.scale) + np.diag(kernel.noise / weight)
    expected = naive_likeness(*queries, *bank, kernel.scale) @ np.linalg.solve(system, targets)
    np.testing.assert_allclose(scores, expected[:, 1:3], atol=2e-3)  # features are kept in half precision


def test_scale_and_noise_are_the_best_of_images_left_out_one_of_each_group():
    (features, _), rng = some_images(40, 0), np.random.default_rng(0)
    group = np.arange(40) // 2
    features[1::2] = features[::2]  # each image twice: one would say all of the other
    targets = rng.normal(size=(40, 2)).astype(np.float32)
    targets[1::2] = targets[::2]
    kernel = KernelScores.fit(
        SeenImages.of(seen_of(features, None)), targets, np.ones(40, np.float32), group, torch.device("cpu")
    )
    errors = {}
    for scale in (1.0, 2.0):
        likeness = naive_likeness(features[::2], None, features[::2], None, scale)
        for noise in (0.1, 0.3, 1.0, 3.0):
            errors[scale, noise] = 0.0
            for left_out in range(20):
                rest = np.arange(20) != left_out
                coef = np.linalg.solve(likeness[np.ix_(rest, rest)] + noise * np.eye(19), targets[::2][rest])
                errors[scale, noise] += ((likeness[left_out, rest] @ coef - targets[::2][left_out]) ** 2).sum()
    assert (kernel.scale, kernel.noise) == min(errors, key=errors.get)
    assert kernel.noise > 0.1  # as it would be by the twins


def clusters(n_images, seed=0):
    """Images of many small clusters, each of which has labels of its own."""
    rng = np.random.default_rng(seed)
    centres, labels = rng.normal(size=(40, 8)), rng.random((40, N_LABELS)) < 0.35
    own = rng.integers(40, size=n_images)
    return (centres[own] + 0.1 * rng.normal(size=(n_images, 8))).astype(np.float32), labels[own].astype(int)


def annotator(**parameters):
    settings = {"hidden_layer_sizes": (6,), "max_epochs": 2, "batch_size": 32, "random_state": 0}
    settings |= {"n_folds": None, "validation_fraction": 0.3, "label_count": "threshold", "members": ["kernel"]}
    return MultiLabelAnnotator(**{**settings, **parameters})


def test_a_kernel_finds_labels_that_a_small_network_does_not():
    X, Y = clusters(300)
    alone, together = (
        AnnotationScorer()(annotator(members=members).fit(X[:200], Y[:200]), X[200:], Y[200:])
        for members in (None, ["kernel"])
    )
    assert together["mAP"] > alone["mAP"] + 0.1
    assert together["O-F1"] > alone["O-F1"] + 0.1


def test_images_held_out_are_in_the_bank_in_the_end():
    X, Y = clusters(120)
    assert len(annotator().fit(X, Y)._members.kernel.coef) == len(np.unique(X, axis=0))


def test_a_label_that_is_not_known_counts_as_its_share():
    X, Y = clusters(40)
    partly = np.where(np.random.default_rng(1).random(Y.shape) < 0.3, np.nan, Y).astype(np.float32)
    images = merge_labeled([X], sparse.csr_array(partly), None)
    blocks = iter([(slice(0, 40), seen_of(X[images.rows], None))])
    kernel = fit_members(["kernel"], blocks, images, 8, 100, np.random.default_rng(0)).kernel
    share = np.nanmean(partly, axis=0)
    residuals = np.nan_to_num(partly[images.rows] - share) / np.sqrt(share * (1 - share))
    own = X[images.rows]
    system = naive_likeness(own, None, own, None, kernel.scale) + kernel.noise * np.eye(40)
    coef = np.linalg.solve(system, residuals)
    left_out = left_out_scores(np.linalg.inv(system), coef, residuals, images.group)
    np.testing.assert_allclose(kernel.coef, coef @ relate(left_out, residuals, images.weight, images.group), atol=1e-2)


@pytest.mark.parametrize(
    "n_images, n_labels, n_features, bank_size, expected",
    [(100, 5, 9, 1000, 100), (100, 5, 9, 50, 50), (100_000, 5, 9, 20_000, 8192), (100_000, 5000, 9, 20_000, 3355),
     (100_000, 5, 100_000, 20_000, 1342), (100_000, 5, 10**6, 20_000, 0), (100_000, 200_000, 9, 20_000, 0),
     (50, 200_000, 9, 20_000, 50), (100, 5, 0, 1000, 100)],
)  # fmt: skip
def test_a_bank_is_of_all_images_unless_these_or_labels_or_features_are_many(
    n_images, n_labels, n_features, bank_size, expected
):
    assert kernel_bank_size(n_images, n_labels, n_features, bank_size) == expected


def test_bank_of_a_fitted_kernel_is_no_larger_than_asked_for():
    X, Y = clusters(120)
    kernel = annotator(bank_size=30).fit(X, Y)._members.kernel
    assert kernel.coef.shape == (30, N_LABELS)
    assert kernel.features.dtype == np.float16


def test_a_kernel_on_features_and_tags_is_saved_and_scores_row_by_row(tmp_path):
    X, Y = clusters(120)
    tags = sparse.csr_array(Y[:, :2] * (np.random.default_rng(0).random((120, 2)) < 0.8))
    both = sparse.csr_array(sparse.hstack([sparse.csr_array(X), tags]))
    model = annotator(tag_features=slice(8, None), tag_hidden_layer_sizes=(8,)).fit(both, Y)
    save(model, tmp_path / "model")
    np.testing.assert_array_equal(load(tmp_path / "model").predict_proba(both), model.predict_proba(both))
    apart = np.concatenate([model.decision_function(both[row : row + 1]) for row in range(20)])
    np.testing.assert_allclose(apart, model.decision_function(both)[:20], atol=2e-2)  # bfloat16


def test_a_kernel_sees_what_a_trained_encoder_makes_of_pictures():
    scenes = make_captioned_shapes(24, image_size=32, random_state=0)
    encoder = ImageCNNEncoder("squeezenet1_1", weights=None, image_size=32, trainable=1)
    model = MultiLabelAnnotator(encoder, members=["kernel"], max_epochs=1, batch_size=16, random_state=0)
    model.fit(list(scenes.images), scenes.target)
    assert model._members.kernel.features.shape == (24, 512)
    assert np.isfinite(model.decision_function(list(scenes.images[:5]))).all()
