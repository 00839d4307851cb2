"""A fit that is killed and started again ends as one that was left alone."""

import copy
import shutil
import signal
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, KFold
from torch import nn

from sklearn_mm.annotation import MultiLabelAnnotator
from sklearn_mm.datasets import make_captioned_shapes
from sklearn_mm.features import ImageCNNEncoder, TextCNNEncoder, TextNGramEncoder
from sklearn_mm.losses import InfoNCELoss, InstanceLoss, RankingLoss
from sklearn_mm.nn.backbones import build_backbone
from sklearn_mm.retrieval import JointEmbeddingRanker

SETTINGS = {
    "n_components": 8,
    "max_epochs": 4,
    "instance_loss": InstanceLoss(0.5, pretrain_epochs=2),
    "batch_size": 16,
    "early_stopping": True,
    "dropout": 0.2,
    "loss": InfoNCELoss(trainable=True),
    "random_state": 0,
    "device": "cpu",
    "precision": "float32",  # as the other process may have bfloat16 for "auto"
    "n_jobs": 1,
}
KILLED = """
    import os, signal, sys
    import joblib
    from sklearn_mm.retrieval._model import JointModel
    from sklearn_mm.training import _checkpoint

    ranker, X, captions = joblib.load(sys.argv[1] + "/job")
    where, n_before = sys.argv[2], int(sys.argv[3])
    n_calls = 0

    def killing(method):
        def call(*args):
            global n_calls
            n_calls += 1
            if n_calls > n_before:
                os.kill(os.getpid(), signal.SIGKILL)
            return method(*args)
        return call

    if where == "batch":
        JointModel.forward = killing(JointModel.forward)
    else:
        _checkpoint.os.fsync = killing(os.fsync)
    ranker.fit(X, captions)
"""


def killed(forked, ranker, X, captions, folder, where, n_before):
    """Fit in another process, which is killed at a batch, or while a checkpoint is written, after so many of them."""
    joblib.dump((ranker, X, captions), folder / "job")
    (status,), _ = forked(KILLED, folder, where, n_before)
    return status


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    kind = rng.integers(5, size=60)
    features = (np.eye(5)[kind] + rng.normal(0, 0.1, (60, 5))).astype(np.float32)
    return features, [[f"thing {k} {i}", f"a {k}"] for i, k in enumerate(kind)]


def weights(ranker):
    return [value for tower in (ranker._image_tower(), ranker._text_tower()) for value in tower.state_dict().values()]


def same(one, other):
    pairs = zip(weights(one), weights(other), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.slow
# 54 images to train on are four batches an epoch.
@pytest.mark.parametrize(
    ("where", "n_before", "n_epochs"),
    [("batch", 6, 1), ("batch", 17, 4), ("writing", 1, 1), ("writing", 3, 3)],
    ids=["first stage", "second stage", "writing in the first stage", "writing in the second stage"],
)
def test_a_killed_fit_goes_on_to_the_same_bits(forked, data, tmp_path, where, n_before, n_epochs):
    ranker = JointEmbeddingRanker(**SETTINGS)
    resumed = clone(ranker).set_params(checkpoint=tmp_path / "run")
    assert killed(forked, resumed, *data, tmp_path, where, n_before) == -signal.SIGKILL
    (saved,) = (tmp_path / "run").glob("*.pt")
    assert len(torch.load(saved, weights_only=True)["state"]["history"]) == n_epochs
    assert len(list((tmp_path / "run").glob("*.part"))) == (where == "writing")
    resumed.fit(*data)
    whole = ranker.fit(*data)
    assert same(resumed, whole)
    assert [r["train_loss"] for r in resumed.history_] == [r["train_loss"] for r in whole.history_]
    np.testing.assert_array_equal(resumed.transform(data[0]), whole.transform(data[0]))
    assert resumed.loss_.temperature == whole.loss_.temperature != 0.07


@pytest.mark.slow
@pytest.mark.parametrize("n_before", [4, 10], ids=["frozen in the first stage", "trained in the second stage"])
def test_a_killed_fit_on_pictures_goes_on_to_the_same_bits(forked, tmp_path, n_before):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(8, 3),
    )  # fmt: skip
    scenes = make_captioned_shapes(24, image_size=16, random_state=0)
    encoder = ImageCNNEncoder(network, image_size=16, fix_batch_norm=False, color_jitter=0.2, precision="float32")
    ranker = JointEmbeddingRanker(
        TextCNNEncoder(8, width=0.05, word_dim=8),
        encoder,
        **{
            **SETTINGS,
            "batch_size": 8,
            "max_epochs": 3,
            "early_stopping": False,
            "loss": RankingLoss(negatives=("hardest", "random"), pool_size=16),
        },
    )
    resumed = clone(ranker).set_params(checkpoint=tmp_path / "run")
    assert killed(forked, resumed, scenes.images, scenes.captions, tmp_path, "batch", n_before) == -signal.SIGKILL
    resumed.fit(scenes.images, scenes.captions)
    assert len(list((tmp_path / "run").iterdir())) == 1  # the other process's file was found, and went on with
    assert same(resumed, ranker.fit(scenes.images, scenes.captions))


@pytest.mark.slow
def test_a_killed_warm_start_is_known_in_another_process(forked, data, tmp_path):
    ranker = JointEmbeddingRanker(**SETTINGS, warm_start=True).fit(*data)
    resumed = copy.deepcopy(ranker).set_params(checkpoint=tmp_path / "run")
    assert killed(forked, resumed, *data, tmp_path, "batch", 6) == -signal.SIGKILL
    resumed.fit(*data)
    assert len(list((tmp_path / "run").iterdir())) == 1
    assert same(resumed, ranker.fit(*data))


def test_a_file_of_another_run_is_named(data, tmp_path):
    ranker = JointEmbeddingRanker(**{**SETTINGS, "checkpoint": tmp_path}).fit(*data)
    (saved,) = tmp_path.iterdir()
    other = clone(ranker).set_params(n_components=4).fit(*data)
    (others,) = set(tmp_path.iterdir()) - {saved}
    saved.replace(others)
    with pytest.raises(ValueError, match=f"{others.name} holds no checkpoint of this run; remove it"):
        other.fit(*data)
    others.write_bytes(others.read_bytes()[:1000])
    with pytest.raises(ValueError, match=f"{others.name} is no checkpoint, or damaged; remove it"):
        other.fit(*data)


def test_a_finished_fit_is_read_back(data, tmp_path, monkeypatch):
    settings = {**SETTINGS, "checkpoint": tmp_path, "random_state": None}
    first = JointEmbeddingRanker(**settings).fit(*data)
    monkeypatch.setattr("sklearn_mm.retrieval._model.JointModel.forward", None)  # training would fail
    assert same(first, JointEmbeddingRanker(**settings).fit(*data))


def test_other_parameters_or_data_are_another_run(data, tmp_path):
    features, captions = data
    ranker = JointEmbeddingRanker(**SETTINGS, checkpoint=tmp_path).fit(features, captions)
    clone(ranker).set_params(loss__temperature=0.08).fit(features, captions)
    clone(ranker).set_params(learning_rate=1e-4).fit(features, captions)
    clone(ranker).fit(features[1:], captions[1:])
    clone(ranker).fit(features, captions, sample_weight=np.arange(60))
    assert len(list(tmp_path.iterdir())) == 5
    clone(ranker).set_params(verbose=1).fit(features, captions)
    assert len(list(tmp_path.iterdir())) == 5


def test_a_grid_search_shares_the_folder(data, tmp_path):
    def search(checkpoint):
        settings = {**SETTINGS, "max_epochs": 2, "checkpoint": checkpoint, "loss": RankingLoss()}
        cv = KFold(2, shuffle=True, random_state=0)
        return GridSearchCV(JointEmbeddingRanker(**settings), {"loss__margin": [0.1, 0.2]}, cv=cv).fit(*data)

    with_folder, again, without = search(tmp_path), search(tmp_path), search(None)
    assert len(list(tmp_path.iterdir())) == 5  # two candidates in two folds, and the best one on everything
    expected = without.cv_results_["mean_test_score"]
    np.testing.assert_array_equal(with_folder.cv_results_["mean_test_score"], expected)
    np.testing.assert_array_equal(again.cv_results_["mean_test_score"], expected)


def test_a_warm_start_is_a_run_of_its_own(data, tmp_path):
    ranker = JointEmbeddingRanker(**{**SETTINGS, "checkpoint": tmp_path}, warm_start=True).fit(*data)
    first = joblib.hash([value.numpy() for value in weights(ranker)])
    ranker.fit(*data)
    assert len(list(tmp_path.iterdir())) == 2
    assert joblib.hash([value.numpy() for value in weights(ranker)]) != first


def image_encoder(**params):
    return ImageCNNEncoder("squeezenet1_1", weights=None, image_size=32, random_state=0, max_epochs=1, **params)


ON_PICTURES = {
    "encoder": (image_encoder, [0, 0, 1, 1]),
    "ranker": (
        lambda **params: JointEmbeddingRanker(
            image_encoder=image_encoder(), n_components=4, max_epochs=1, random_state=0, **params
        ),
        ["a red dot", "a blue dot", "a square", "two dots"],
    ),
    "annotator": (
        lambda **params: MultiLabelAnnotator(image_encoder(), max_epochs=1, random_state=0, **params),
        [["red"], ["blue"], ["red", "blue"], ["blue"]],
    ),
}


@pytest.fixture
def paths(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, image in enumerate(make_captioned_shapes(5, image_size=40, random_state=0).images):
        Image.fromarray(image).save(folder / f"{number}.png")
    return [folder / f"{number}.png" for number in range(4)]


@pytest.mark.parametrize("name", ON_PICTURES)
@pytest.mark.filterwarnings("ignore::sklearn_mm.exceptions.LabelWarning")
def test_a_run_on_files_is_known_by_their_content(paths, tmp_path, name, monkeypatch):
    make, y = ON_PICTURES[name]
    estimator = make(checkpoint=tmp_path / "run")
    estimator.fit(paths, y)
    one_run = set((tmp_path / "run").iterdir())
    # moved, and called otherwise, they are the same
    moved = paths[0].parent.rename(tmp_path / "moved")
    estimator.fit([str(moved / path.name) for path in paths], y)
    assert set((tmp_path / "run").iterdir()) == one_run
    shutil.copy(moved / "4.png", moved / "3.png")
    estimator.fit([str(moved / path.name) for path in paths], y)
    assert set((tmp_path / "run").iterdir()) > one_run


@pytest.mark.parametrize("as_path", [str, Path])
def test_a_run_with_word_vectors_is_known_by_their_content(tmp_path, as_path):
    texts = ["red dot", "blue dot", "red square", "blue square"]
    file = tmp_path / "vectors.txt"
    file.write_text("red 1 0 0\nblue 0 1 0\n")
    encoder = TextNGramEncoder(
        n_components=4, word_vectors=as_path(file), max_epochs=2, random_state=0, checkpoint=tmp_path / "run"
    )
    first = encoder.fit(texts, [0, 1, 0, 1]).transform(texts)
    file.write_text("red 0 1 0\nblue 1 0 1\n")
    second = encoder.fit(texts, [0, 1, 0, 1]).transform(texts)
    fresh = clone(encoder).set_params(checkpoint=None).fit(texts, [0, 1, 0, 1]).transform(texts)
    np.testing.assert_array_equal(second, fresh)
    assert not np.array_equal(first, second)


def test_a_run_with_weights_of_a_file_is_known_by_their_content(paths, tmp_path):
    weights = tmp_path / "weights.pt"
    state = build_backbone("squeezenet1_1", None).module.state_dict()
    torch.save(state, weights)
    encoder = image_encoder(checkpoint=tmp_path / "run").set_params(weights=str(weights))
    encoder.fit(paths, [0, 0, 1, 1])
    torch.save({name: 2 * value for name, value in state.items()}, weights)
    encoder.fit(paths, [0, 0, 1, 1])
    assert len(list((tmp_path / "run").iterdir())) == 2


def test_where_and_how_data_lie_in_memory_is_no_other_run(data, tmp_path):
    features, captions = data
    ranker = JointEmbeddingRanker(**SETTINGS, checkpoint=tmp_path)
    ranker.fit(features, captions)
    ranker.fit(np.asfortranarray(features), tuple(captions))
    assert len(list(tmp_path.iterdir())) == 1
