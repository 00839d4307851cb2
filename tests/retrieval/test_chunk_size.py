"""A ranker with a chunk_size trains on large batches as it would without, in the memory of small ones."""

import pytest
import torch
from sklearn.base import clone
from torch import nn

from sklearn_mm.datasets import make_captioned_shapes
from sklearn_mm.features import ImageCNNEncoder, TextGRUEncoder, TextNGramEncoder
from sklearn_mm.losses import InfoNCELoss, InstanceLoss, RankingLoss, SigmoidLoss
from sklearn_mm.retrieval import JointEmbeddingRanker
from sklearn_mm.training import Checkpoint

# Plain descent: adaptive steps would make rounding errors of tiny gradients as large as all others.
FAST = {
    "n_components": 8,
    "max_epochs": 3,
    "batch_size": 48,
    "optimizer": "sgd",
    "learning_rate": 0.5,
    "dropout": 0.2,
    "random_state": 0,
    "device": "cpu",
    "precision": "float32",
    "n_jobs": 1,
}
# Rounding errors of float32, grown by some steps of training.
SAME = {"rtol": 1e-3, "atol": 1e-5}


def words(**params):
    return TextNGramEncoder(8, word_dim=8, **{"dropout": 0.0, **params})


def weights(ranker):
    towers = {"image": ranker._image_tower(), "text": ranker._text_tower()}
    return {f"{side}.{name}": value for side, tower in towers.items() for name, value in tower.state_dict().items()}


def losses(ranker):
    return torch.tensor([record["train_loss"] for record in ranker.history_])


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"text_encoder": TextGRUEncoder(8, word_dim=8), "text_hidden_layer_sizes": (6,), "chunk_size": 11},
        {"loss": RankingLoss(negatives=("hardest", "all"), pool_size=40)},
        {"loss": SigmoidLoss(), "similarity": "order"},
        {"loss": InfoNCELoss(trainable=True), "instance_loss": InstanceLoss(0.5, dropout=0.3, pretrain_epochs=1)},
    ],
    ids=["words", "recurrent under a perceptron", "mined texts", "sigmoid", "instance loss"],
)
def test_the_training_is_that_of_the_whole_batch(data, params):
    params = {**FAST, "text_encoder": words(), **params}
    chunk_size = params.pop("chunk_size", 7)
    whole = JointEmbeddingRanker(**params).fit(*data)
    chunked = JointEmbeddingRanker(**params, chunk_size=chunk_size).fit(*data)
    torch.testing.assert_close(losses(chunked), losses(whole), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(weights(chunked), weights(whole), **SAME)
    assert chunked.loss_.initial() == pytest.approx(whole.loss_.initial(), rel=1e-4)
    assert losses(whole)[-1] < losses(whole)[-3]


def test_dropout_inside_of_an_encoder_is_the_same_in_every_run_and_through_a_checkpoint(data, tmp_path, monkeypatch):
    params = {**FAST, "text_encoder": words(dropout=0.5), "chunk_size": 9}
    whole = JointEmbeddingRanker(**params).fit(*data)
    interrupted = JointEmbeddingRanker(**params, checkpoint=tmp_path)
    save, saved = Checkpoint.save, []
    with monkeypatch.context() as patch:

        def once(self, state):
            if saved:
                raise KeyboardInterrupt
            saved.append(save(self, state))

        patch.setattr(Checkpoint, "save", once)
        with pytest.raises(KeyboardInterrupt):
            interrupted.fit(*data)
    resumed = clone(interrupted).fit(*data)
    torch.testing.assert_close(weights(resumed), weights(whole), rtol=0, atol=0)
    # One layer of dropout is drawn row by row, in chunks as in whole batches.
    at_once = clone(whole).set_params(chunk_size=None).fit(*data)
    torch.testing.assert_close(weights(whole), weights(at_once), **SAME)
    without = clone(whole).set_params(text_encoder=words()).fit(*data)
    assert not torch.allclose(losses(without), losses(whole), rtol=0.01)


def test_partial_fit_takes_chunks_too(data):
    params = {**FAST, "text_encoder": words()}
    whole, chunked = JointEmbeddingRanker(**params), JointEmbeddingRanker(**params, chunk_size=5)
    for _ in range(3):
        whole.partial_fit(*data)
        chunked.partial_fit(*data)
    torch.testing.assert_close(weights(chunked), weights(whole), **SAME)


@pytest.fixture
def seen():
    """How many pictures the network saw at once, call by call."""
    return []


@pytest.fixture
def pictures(seen):
    class Counting(nn.Conv2d):
        def forward(self, input):
            if torch.is_grad_enabled():
                seen.append(len(input))
            return super().forward(input)

    torch.manual_seed(0)
    network = nn.Sequential(
        Counting(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    )
    return ImageCNNEncoder(network, image_size=16, backbone_learning_rate=1.0, mirror=True)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_networks_for_pictures_see_a_chunk_at_a_time(pictures, seen, precision):
    scenes = make_captioned_shapes(24, image_size=16, random_state=0)
    params = {**FAST, "text_encoder": words(), "image_encoder": pictures, "batch_size": 24, "precision": precision}
    whole = JointEmbeddingRanker(**params).fit(scenes.images, scenes.captions)
    assert set(seen) == {24}
    seen.clear()
    chunked = JointEmbeddingRanker(**params, chunk_size=5).fit(scenes.images, scenes.captions)
    assert set(seen) == {4, 5}
    assert sum(seen) == 3 * 2 * 24  # twice in each epoch
    # Of bfloat16's eight bits, gradients of chunks are rounded before they are added up.
    close = SAME if precision == "float32" else {"rtol": 0.05, "atol": 0.01}
    torch.testing.assert_close(weights(chunked), weights(whole), **close)
    start = clone(whole).set_params(learning_rate=1e-30).fit(scenes.images, scenes.captions)
    first = "image.body.backbone.0.weight"
    assert (weights(whole)[first] - weights(start)[first]).abs().max() > 0.01  # the network has learnt


def test_batch_norms_that_learn_count_each_chunk_once(pictures):
    scenes = make_captioned_shapes(24, image_size=16, random_state=0)
    encoder = clone(pictures).set_params(fix_batch_norm=False)
    ranker = JointEmbeddingRanker(words(), encoder, **{**FAST, "batch_size": 24}, chunk_size=6)
    ranker.fit(scenes.images, scenes.captions)
    assert int(weights(ranker)["image.body.backbone.1.num_batches_tracked"]) == 3 * 4


@pytest.mark.parametrize("chunk_size", [1, 0, 2.5, "all"])
def test_what_a_chunk_may_not_be_is_named(data, chunk_size):
    with pytest.raises(ValueError, match="chunk_size"):
        JointEmbeddingRanker(**FAST, chunk_size=chunk_size).fit(*data)


def test_a_ranker_saved_before_there_were_chunks_opens(data):
    ranker = JointEmbeddingRanker(**FAST).fit(*data)
    state = ranker.__getstate__()
    del state["chunk_size"]
    opened = JointEmbeddingRanker.__new__(JointEmbeddingRanker)
    opened.__setstate__(state)
    assert opened.get_params()["chunk_size"] is None
