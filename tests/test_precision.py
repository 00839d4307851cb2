"""What was fitted in one precision goes on in it, on a machine of any kind."""

import numpy as np
import pytest
import torch

from sklearn_mm.annotation import LabelCountPredictor, MultiLabelAnnotator
from sklearn_mm.datasets import make_captioned_shapes
from sklearn_mm.features import FullNetworkEmbedding, ImageCNNEncoder, TextNGramEncoder
from sklearn_mm.retrieval import JointEmbeddingRanker

SHAPES = make_captioned_shapes(24, image_size=32, random_state=0)
FEATURES = np.random.default_rng(0).normal(size=(24, 40)).astype(np.float32)
CAPTIONS = [own[0] for own in SHAPES.captions]
SHORT = {"max_epochs": 1, "batch_size": 8, "random_state": 0}

# name: estimator, X, y, what is asked of it
FITS = {
    "full network": (
        FullNetworkEmbedding("squeezenet1_1", weights=None, image_size=32, layers=2, discretize=False),
        list(SHAPES.images),
        None,
        lambda fitted: fitted.transform(list(SHAPES.images)),
    ),
    "image encoder": (
        ImageCNNEncoder("squeezenet1_1", weights=None, image_size=32, n_components=8, **SHORT),
        list(SHAPES.images),
        None,
        lambda fitted: fitted.transform(list(SHAPES.images)),
    ),
    "text encoder": (
        TextNGramEncoder(8, word_dim=16, **SHORT),
        CAPTIONS,
        None,
        lambda fitted: fitted.transform(CAPTIONS),
    ),
    "ranker": (
        JointEmbeddingRanker(n_components=16, **SHORT),
        FEATURES,
        CAPTIONS,
        lambda fitted: np.vstack([fitted.transform(FEATURES), fitted.transform_text(CAPTIONS)]),
    ),
    "annotator": (
        MultiLabelAnnotator(hidden_layer_sizes=(16,), **SHORT),
        FEATURES,
        SHAPES.target,
        lambda fitted: fitted.decision_function(FEATURES),
    ),
    "label count": (
        LabelCountPredictor(hidden_layer_sizes=(16,), **SHORT),
        FEATURES,
        SHAPES.target.sum(axis=1),
        lambda fitted: fitted.predict(FEATURES),
    ),
}


def _on_a_machine(monkeypatch, with_bfloat16):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: with_bfloat16)


@pytest.mark.filterwarnings("ignore::sklearn_mm.exceptions.LabelWarning")
@pytest.mark.parametrize(("fitted_in", "used_in"), [(True, False), (False, True)])
@pytest.mark.parametrize("name", FITS)
def test_another_machine_gives_the_same_answers(name, fitted_in, used_in, monkeypatch):
    estimator, X, y, ask = FITS[name]
    _on_a_machine(monkeypatch, fitted_in)
    estimator.fit(X, y)
    assert estimator.precision_ == ("bfloat16" if fitted_in else "float32")
    expected = ask(estimator)
    _on_a_machine(monkeypatch, used_in)
    np.testing.assert_array_equal(ask(estimator), expected)


def test_a_precision_that_is_set_counts(monkeypatch):
    ranker, X, y, ask = FITS["ranker"]
    _on_a_machine(monkeypatch, True)
    in_bfloat16 = ask(ranker.fit(X, y))
    assert not np.array_equal(ask(ranker.set_params(precision="float32")), in_bfloat16)
    ranker.set_params(precision="auto")


def test_another_fit_chooses_anew_and_partial_fit_goes_on(monkeypatch):
    ranker, X, y, _ = FITS["ranker"]
    _on_a_machine(monkeypatch, True)
    ranker.fit(X, y)
    _on_a_machine(monkeypatch, False)
    assert ranker.partial_fit(X, y).precision_ == "bfloat16"
    assert ranker.fit(X, y).precision_ == "float32"


def test_a_model_saved_before_precision_was_noted_takes_that_of_the_machine(monkeypatch):
    ranker, X, y, ask = FITS["ranker"]
    _on_a_machine(monkeypatch, False)
    expected = ask(ranker.fit(X, y))
    del ranker.precision_
    np.testing.assert_array_equal(ask(ranker), expected)


@pytest.mark.parametrize(("backbone", "precision"), [("mobilenet_v3_small", "float32"), ("resnet18", "bfloat16")])
def test_on_a_cpu_auto_is_no_precision_that_gains_nothing(backbone, precision, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    images = np.random.default_rng(0).integers(256, size=(3, 32, 32, 3), dtype=np.uint8)
    embedding = FullNetworkEmbedding(backbone, weights=None, image_size=32, layers="last", device="cpu")
    assert embedding.fit(images).precision_ == precision
