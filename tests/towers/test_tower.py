"""One modality's path into a network: encoder, head, and the way of the data through both."""

import joblib
import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from torch import nn

from sklearn_mm.features import TextNGramEncoder
from sklearn_mm.nn.towers import FeatureTower
from sklearn_mm.towers import Tower, fit_encoder, is_trainable, make_head

CPU = torch.device("cpu")
TEXTS = ["a red dot", "a blue box", "a green star"]
X = np.random.default_rng(0).normal(size=(9, 5)).astype(np.float32)


@pytest.fixture
def random_state():
    return np.random.RandomState(0)


def test_a_trainable_encoder_is_a_part_of_its_tower(random_state):
    encoder, rows = fit_encoder(TextNGramEncoder(4, word_dim=3), TEXTS, random_state)
    tower = Tower(encoder, nn.Linear(4, 2), CPU, torch.float32)
    assert is_trainable(encoder)
    assert tower.batch_size == encoder.embed_batch_size
    parameters = set(tower.parameters())
    assert set(encoder.module_.parameters()) < parameters
    assert set(tower.head.parameters()) < parameters
    batch = tower.collate(rows, np.random.default_rng(0))
    torch.testing.assert_close(tower.eval()(batch), tower.head(encoder.module_(batch)))
    np.testing.assert_array_equal(tower.prepare(TEXTS).ids, rows.ids)


@pytest.mark.parametrize("encoder", [StandardScaler(), None], ids=["frozen", "none"])
def test_a_frozen_encoder_is_none(encoder, random_state):
    fitted, rows = fit_encoder(encoder, X, random_state)
    tower = Tower(fitted, nn.Linear(5, 2), CPU, torch.float32)
    assert not is_trainable(fitted)
    assert [name for name, _ in tower.named_parameters()] == ["head.weight", "head.bias"]
    expected = X if encoder is None else StandardScaler().fit_transform(X)
    np.testing.assert_allclose(rows, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(tower.prepare(X), expected, rtol=1e-5, atol=1e-6)
    tower.freeze_pretrained(True)  # nothing here came pretrained
    assert all(parameter.requires_grad for parameter in tower.parameters())


def test_an_encoder_given_stays_as_it_is_and_chance_is_the_outer_ones(random_state):
    given = TruncatedSVD(2)
    fitted, _ = fit_encoder(given, X, random_state)
    assert not hasattr(given, "components_")
    assert given.random_state is None
    again, _ = fit_encoder(given, X, np.random.RandomState(0))
    np.testing.assert_array_equal(fitted.components_, again.components_)


@pytest.mark.parametrize(
    ("gives", "message"),
    [
        (lambda X: X[:, 0], r"matrix of features from FunctionTransformer.* \(9,\)"),
        (lambda X: np.where(X > 2, np.nan, X) * np.where(np.arange(9) == 3, np.nan, 1)[:, None], "rows: .*3"),
    ],
    ids=["no matrix", "no numbers"],
)
def test_what_cannot_be_trained_on_is_named(gives, message, random_state):
    with pytest.raises(ValueError, match=message):
        fit_encoder(FunctionTransformer(gives), X, random_state)


@pytest.mark.parametrize("positive_only", [False, True])
def test_embeddings_are_unit_vectors_in_use(positive_only):
    torch.manual_seed(0)
    tower = Tower(None, FeatureTower(5, 3, dropout=0.5), CPU, torch.float32, positive_only).train()
    out = tower.embed(X)
    with torch.no_grad():
        expected = tower.eval()(torch.from_numpy(X)).numpy()
    expected = np.abs(expected) if positive_only else expected
    np.testing.assert_allclose(out, expected / np.linalg.norm(expected, axis=1, keepdims=True), rtol=1e-5, atol=1e-6)


def test_sparse_rows_become_dense_batches():
    tower = Tower(None, nn.Identity(), CPU, torch.float32)
    rows = sparse.csr_array(np.where(X > 0, X, 0))
    np.testing.assert_array_equal(tower.collate(rows[2:5]).numpy(), rows[2:5].toarray())


def test_half_precision_is_for_the_tower_and_embeddings_are_single():
    torch.manual_seed(0)
    head = FeatureTower(5, 3)
    half, single = (Tower(None, head, CPU, dtype) for dtype in (torch.bfloat16, torch.float32))
    assert half(torch.from_numpy(X)).dtype == torch.bfloat16
    assert half.embed(X).dtype == np.float32
    np.testing.assert_allclose(half.embed(X), single.embed(X), atol=0.02)
    assert not np.array_equal(half.embed(X), single.embed(X))


# Heads ----------------------------------------------------------------------------------------------------------------


def head(encoder, data, n_components, hidden_layer_sizes=(), index=None):
    fitted, rows = fit_encoder(encoder, data, np.random.RandomState(0))
    index = np.arange(len(data)) if index is None else index
    return make_head(
        fitted, rows, index, n_components=n_components, hidden_layer_sizes=hidden_layer_sizes, dropout=0.25
    )


def test_an_encoder_as_wide_as_the_joint_space_has_no_head():
    encoder = TextNGramEncoder(4, word_dim=3)
    assert isinstance(head(encoder, TEXTS, 4), nn.Identity)
    assert isinstance(head(encoder, TEXTS, 5), FeatureTower)
    assert isinstance(head(encoder, TEXTS, 4, hidden_layer_sizes=(6,)), FeatureTower)
    assert isinstance(head(TfidfVectorizer(), TEXTS, 6), FeatureTower)  # as wide, but not trained


def test_a_head_stands_on_features_standardised_over_the_rows_of_training():
    index = np.array([0, 2, 3, 7])
    made = head(None, X, 4, (6,), index)
    assert made.config == {"n_features": 5, "n_components": 4, "hidden_layer_sizes": [6], "dropout": 0.25}
    np.testing.assert_allclose(made.mean, X[index].mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(made.scale, X[index].std(axis=0), rtol=1e-5)


def test_what_is_learnt_is_not_standardised():
    made = head(TextNGramEncoder(4, word_dim=3), TEXTS, 5)
    assert made.mean.tolist() == [0.0] * 4
    assert made.scale.tolist() == [1.0] * 4


@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_memory_maps_that_cannot_be_written_to_pass_without_a_warning(kind, tmp_path):
    features = np.arange(24).reshape(6, 4).astype(kind)
    joblib.dump(features, tmp_path / "features")
    mapped = joblib.load(tmp_path / "features", mmap_mode="r")
    tower = Tower(None, torch.nn.Identity(), torch.device("cpu"), torch.float32)
    before = torch.is_warn_always_enabled()
    torch.set_warn_always(True)  # torch warns once in a process
    try:
        np.testing.assert_array_equal(tower.collate(mapped[1:3]).numpy(), features[1:3])
    finally:
        torch.set_warn_always(before)
