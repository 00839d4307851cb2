"""Pictures, captions, pipeline, grid search and cache together."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn import config_context
from sklearn.model_selection import GridSearchCV, KFold, cross_val_predict
from sklearn.pipeline import Pipeline
from torch import nn

from sklearn_mm.datasets import make_captioned_shapes
from sklearn_mm.features import FullNetworkEmbedding, TextCNNEncoder, TextNGramEncoder
from sklearn_mm.losses import InfoNCELoss
from sklearn_mm.metrics import RetrievalScorer
from sklearn_mm.retrieval import JointEmbeddingRanker

N_IMAGES = 36


class CountingNetwork(nn.Module):
    """A small network that writes down, in a file that its clones share, how many pictures it has seen."""

    def __init__(self, log):
        super().__init__()
        self.log = str(log)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.convolution = nn.Conv2d(3, 24, 5, stride=2)
            self.classifier = nn.Linear(24, 2)

    def forward(self, x):
        with Path(self.log).open("a") as log:
            log.write(f"{len(x)}\n")
        return self.classifier(torch.relu(self.convolution(x)).mean((2, 3)))


def _pictures_seen(log):
    return sum(map(int, log.read_text().split()))


@pytest.fixture(scope="module")
def shapes():
    return make_captioned_shapes(N_IMAGES, image_size=32, random_state=0)


@pytest.fixture
def pipeline(tmp_path):
    (tmp_path / "seen.txt").touch()
    return Pipeline(
        [
            (
                "fne",
                FullNetworkEmbedding(
                    CountingNetwork(tmp_path / "seen.txt"),
                    image_size=32,
                    cache=tmp_path / "cache",
                    layers="auto",
                    precision="float32",
                ),
            ),
            (
                "rank",
                JointEmbeddingRanker(
                    TextNGramEncoder(8, word_dim=16),
                    n_components=8,
                    loss=InfoNCELoss(),
                    max_epochs=2,
                    batch_size=16,
                    random_state=0,
                ),
            ),
        ]
    )


@pytest.mark.parametrize("n_jobs", [None, pytest.param(2, marks=pytest.mark.slow)])
def test_the_network_sees_each_picture_once_in_a_whole_search(pipeline, shapes, tmp_path, n_jobs):
    # Two layers' widths need one probe picture at most for each network that is built; count those apart.
    search = GridSearchCV(
        pipeline,
        {"rank__loss__temperature": [0.05, 0.2], "rank__text_encoder__word_dim": [8, 16]},
        scoring=RetrievalScorer(k=(1, 5)),
        refit="rsum",
        cv=3,
        n_jobs=n_jobs,
        error_score="raise",
    )
    search.fit(list(shapes.images), shapes.captions)
    in_batches = [int(line) for line in (tmp_path / "seen.txt").read_text().split() if int(line) > 1]
    assert sum(in_batches) == N_IMAGES
    assert len(search.cv_results_["mean_test_rsum"]) == 4
    assert np.isfinite(search.cv_results_["mean_test_rsum"]).all()
    predicted = search.predict(list(shapes.images[:3]))
    assert set(predicted) <= {caption for own in shapes.captions for caption in own}


def test_every_image_is_predicted_by_a_model_that_has_not_seen_it(pipeline, shapes):
    predicted = cross_val_predict(pipeline, list(shapes.images), shapes.captions, cv=KFold(3))
    assert predicted.shape == (N_IMAGES,)
    for fold in np.split(np.arange(N_IMAGES), 3):
        elsewhere = {c for i, own in enumerate(shapes.captions) if i not in fold for c in own}
        assert set(predicted[fold]) <= elsewhere


def test_groups_and_weights_are_routed_through_the_pipeline(pipeline, shapes):
    groups, weight = np.arange(N_IMAGES) // 2, np.ones(N_IMAGES)
    with config_context(enable_metadata_routing=True):
        pipeline["rank"].set_fit_request(groups=True, sample_weight=True).set_score_request(
            groups=True, sample_weight=True
        )
        pipeline.fit(list(shapes.images), shapes.captions, groups=groups, sample_weight=weight)
        score = pipeline.score(list(shapes.images), shapes.captions, groups=groups, sample_weight=weight)
    # What a picture shares its group with is no wrong answer, so the score can only rise.
    assert pipeline.score(list(shapes.images), shapes.captions) < score <= 1


@pytest.mark.slow
def test_a_text_cnn_and_a_full_network_learn_drawn_scenes_from_a_small_network():
    """The main job end to end, far above chance on pictures that training has not seen."""
    scenes = make_captioned_shapes(500, image_size=32, random_state=0)
    pipe = Pipeline(
        [
            ("fne", FullNetworkEmbedding("resnet18", weights=None, image_size=64, layers=6)),
            (
                "rank",
                JointEmbeddingRanker(
                    TextCNNEncoder(64, width=0.2), n_components=64, max_epochs=20, batch_size=32, random_state=0
                ),
            ),
        ]
    )
    pipe.fit(scenes.images[:400], scenes.captions[:400])
    report = RetrievalScorer()(pipe, scenes.images[400:], scenes.captions[400:])
    chance = 0.1  # ten of a hundred
    assert report["t2i_hit@10"] > 2 * chance
    assert report["i2t_hit@10"] > 2 * chance
