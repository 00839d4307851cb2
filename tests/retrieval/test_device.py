"""Modules stay where training left them: in use nothing travels but the query."""

import numpy as np
import pytest
from torch import nn

from sklearn_mm.annotation import MultiLabelAnnotator
from sklearn_mm.features import ImageCNNEncoder, TextGRUEncoder
from sklearn_mm.retrieval import JointEmbeddingRanker

CPU = {"device": "cpu", "precision": "float32", "random_state": 0}
CNN = {"weights": None, "image_size": 32, "device": "cpu", "precision": "float32"}


@pytest.fixture
def moves(monkeypatch):
    """Count the modules that are sent anywhere; every way of torch's goes through `_apply`."""
    sent = []
    apply = nn.Module._apply

    def counted(module, fn, recurse=True):
        sent.append(type(module).__name__)
        return apply(module, fn, recurse)

    monkeypatch.setattr(nn.Module, "_apply", counted)
    return sent


@pytest.fixture(scope="module")
def features(shapes):
    return shapes.target.astype(np.float32)


def test_a_query_moves_no_module_of_a_ranker(shapes, features, moves):
    ranker = JointEmbeddingRanker(TextGRUEncoder(8, word_dim=8), n_components=8, max_epochs=1, **CPU)
    ranker.fit(features, shapes.captions)
    assert moves  # the count sees what training moves
    moves.clear()
    ranker.search_images(["a red star"], k=3)
    ranker.predict(features[:1])
    ranker.set_gallery(images=features[:5])
    assert not moves


def test_a_query_moves_no_module_of_networks_for_pictures(shapes, moves):
    encoder = ImageCNNEncoder("squeezenet1_1", max_epochs=1, **CNN).fit(shapes.images[:8], [0, 1] * 4)
    ranker = JointEmbeddingRanker(None, ImageCNNEncoder("squeezenet1_1", **CNN), n_components=8, max_epochs=1, **CPU)
    ranker.fit(shapes.images[:8], shapes.captions[:8])
    moves.clear()
    encoder.transform(shapes.images[:1])
    ranker.predict(shapes.images[:1])
    assert not moves


def test_a_query_moves_no_module_of_an_annotator(shapes, features, moves):
    annotator = MultiLabelAnnotator(hidden_layer_sizes=(8,), max_epochs=1, n_folds=None, **CPU)
    annotator.fit(features, shapes.target)
    moves.clear()
    annotator.predict(features[:1])
    annotator.predict_proba(features[:1])
    annotator.predict_count(features[:1])
    assert not moves


@pytest.mark.cuda
def test_a_model_stays_on_its_gpu_and_is_pickled_from_the_cpu(shapes, features):
    ranker = JointEmbeddingRanker(n_components=8, max_epochs=1, **{**CPU, "device": "cuda"})
    ranker.fit(features, shapes.captions).predict(features[:1])
    assert ranker.image_head_.mean.device.type == "cuda"
    assert ranker.__getstate__()["image_head_"].mean.device.type == "cpu"
