"""On a GPU every estimator learns and answers as on the CPU, and what it learnt there opens without one.

Float32 on both sides, so that only the order of sums differs; training adds that up.
"""

import pickle

import numpy as np
import pytest
import torch
from torch import nn

from sklearn_mm.annotation import MultiLabelAnnotator
from sklearn_mm.features import FullNetworkEmbedding, ImageCNNEncoder, TextCNNEncoder, TextGRUEncoder
from sklearn_mm.losses import InstanceLoss, RankingLoss, instance_loss
from sklearn_mm.retrieval import CorrelationRanker, JointEmbeddingRanker, RankerEnsemble

pytestmark = pytest.mark.cuda

AFTER_TRAINING = 2e-3  # unit vectors, after some steps of Adam
AT_ONCE = 1e-5
SMALL = {"precision": "float32", "random_state": 0}
TRAINED = {**SMALL, "n_components": 16, "max_epochs": 2, "batch_size": 16, "dropout": 0.0}
CNN = {"weights": None, "image_size": 32, "precision": "float32"}


@pytest.fixture(scope="module")
def features(shapes):
    return shapes.target.astype(np.float32)


@pytest.fixture(autouse=True)
def exact_products():
    """Keep float32 products of the GPU from being rounded to TF32."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32 = before[1]


RANKERS = {
    "words": (lambda: JointEmbeddingRanker(**TRAINED), AFTER_TRAINING),
    "GRU": (lambda: JointEmbeddingRanker(TextGRUEncoder(8, word_dim=8), **TRAINED), AFTER_TRAINING),
    "CNN": (lambda: JointEmbeddingRanker(TextCNNEncoder(8), **TRAINED), AFTER_TRAINING),
    "ranking and instance loss": (
        lambda: JointEmbeddingRanker(loss=RankingLoss(), instance_loss=InstanceLoss(), **TRAINED),
        AFTER_TRAINING,
    ),
    "in chunks": (lambda: JointEmbeddingRanker(chunk_size=4, **TRAINED), AFTER_TRAINING),
    "closed form": (lambda: CorrelationRanker(n_components=4, random_state=0), AFTER_TRAINING),
}


@pytest.mark.parametrize("name", RANKERS)
def test_a_ranker_learns_the_same_space(name, shapes, features):
    make, tolerance = RANKERS[name]
    ours, other = (make().set_params(device=device).fit(features, shapes.captions) for device in ("cuda", "cpu"))
    score, expected = ours.decision_function(features), other.decision_function(features)
    np.testing.assert_allclose(score, expected, atol=tolerance)
    opened = pickle.loads(pickle.dumps(ours)).set_params(device="cpu")
    np.testing.assert_allclose(opened.decision_function(features), score, atol=AT_ONCE)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_ranker_learns_in_half_precision(precision, shapes, features):
    ranker = JointEmbeddingRanker(**{**TRAINED, "precision": precision, "max_epochs": 20}, device="cuda")
    ranker.fit(features, shapes.captions)
    assert ranker.history_[-1]["train_loss"] < 0.7 * ranker.history_[0]["train_loss"]


def test_members_learn_on_it_and_are_searched_together(shapes, features):
    members = [
        ("solved", CorrelationRanker(device="cuda")),
        ("trained", JointEmbeddingRanker(**TRAINED, device="cuda")),
    ]
    ensemble = RankerEnsemble(members, weights=None, random_state=0).fit(features, shapes.captions)
    _, found = ensemble.search_texts(features, k=1)
    assert found.shape == (len(features), 1)


def test_pictures_are_learnt_from_end_to_end(shapes):
    encoder = ImageCNNEncoder("squeezenet1_1", **CNN)
    ranker = JointEmbeddingRanker(None, encoder, **{**TRAINED, "batch_size": 8}, device="cuda")
    ranker.fit(shapes.images[:16], shapes.captions[:16])
    assert np.isfinite(ranker.transform(shapes.images[:4])).all()
    assert ranker.image_head_.mean.device.type == "cuda"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_network_is_read_as_on_the_cpu(precision, shapes):
    layers = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
    network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(8, 4)).eval()
    embedding = FullNetworkEmbedding(network, image_size=32, discretize=False, precision=precision)
    ours, other = (embedding.set_params(device=device).fit_transform(shapes.images) for device in ("cuda", "cpu"))
    np.testing.assert_allclose(ours, other, atol=1e-3 if precision == "float32" else 0.2)  # standard deviations


def test_an_annotator_learns_the_same_labels(shapes, features):
    annotator = MultiLabelAnnotator(
        hidden_layer_sizes=(16,), max_epochs=2, members=("neighbors", "ridge"), dropout=0.0, **SMALL
    )
    ours, other = (
        annotator.set_params(device=device).fit(features, shapes.target).decision_function(features)
        for device in ("cuda", "cpu")
    )
    np.testing.assert_allclose(ours, other, atol=0.05)  # log odds


def test_the_blocked_loss_is_the_plain_one(shapes):
    generator = torch.Generator("cuda").manual_seed(0)
    features = nn.functional.normalize(torch.randn(64, 32, device="cuda", generator=generator)).requires_grad_()
    classifier = torch.randn(5000, 32, device="cuda", generator=generator).requires_grad_()
    instance = torch.arange(64, device="cuda") * 70
    blocked = instance_loss(features, instance, classifier).mean()
    plain = nn.functional.cross_entropy(features @ classifier.T, instance)
    for ours, expected in zip(
        torch.autograd.grad(blocked, [features, classifier]),
        torch.autograd.grad(plain, [features, classifier]),
        strict=True,
    ):
        torch.testing.assert_close(ours, expected, atol=AT_ONCE, rtol=1e-3)
    torch.testing.assert_close(blocked, plain)
