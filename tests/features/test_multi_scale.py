"""The encoder of fused scales, by itself and inside of a ranker."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from torch import nn

from sklearn_mm.datasets import make_captioned_shapes
from sklearn_mm.features import MultiScaleCNNEncoder
from sklearn_mm.losses import InstanceLoss
from sklearn_mm.retrieval import JointEmbeddingRanker

FAST = {
    "weights": None, "image_size": 32, "n_components": 16, "width": 0.1, "precision": "float32", "random_state": 0,
    "max_epochs": 1,
}  # fmt: skip


def _encoder(**parameters):
    return MultiScaleCNNEncoder(**{"backbone": "resnet18", **FAST, **parameters})


@pytest.fixture(scope="module")
def kinds(shapes):
    return np.arange(len(shapes.images)) % 2


def _values(module):
    return {name: value.clone() for name, value in module.state_dict().items() if "num_batches" not in name}


@pytest.mark.slow
@pytest.mark.parametrize(("trainable", "learns"), [("none", ()), (1, ("layer4",)), ("all", ("",))])
def test_the_fusion_learns_and_of_the_backbone_what_is_trainable(shapes, kinds, trainable, learns):
    start = _encoder().initialize(shapes.images, 0).module_
    module = _encoder(trainable=trainable, backbone_learning_rate=1.0).fit(shapes.images, kinds).module_
    before, after = _values(start.backbone), _values(module.backbone)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if name.startswith(learns) and "running" not in name}
    assert not torch.equal(start.fusion[0].layers[0].weight, module.fusion[0].layers[0].weight)
    assert not torch.equal(start.fusion[0].layers[1].running_mean, module.fusion[0].layers[1].running_mean)


@pytest.mark.slow
def test_trained_on_shapes_it_beats_its_untrained_start():
    data = make_captioned_shapes(240, image_size=32, captions_per_image=1, random_state=1)
    dark = np.array([image.mean() < 128 for image in data.images])
    kind = 3 * dark + data.images.reshape(240, -1, 3).astype(float).std(1).argmax(1)

    def backbone(seed):
        torch.manual_seed(seed)
        layers = [(nn.Conv2d(n, m, 3, 2, 1), nn.ReLU()) for n, m in ((3, 8), (8, 16), (16, 16))]
        return nn.Sequential(*(part for layer in layers for part in layer), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def accuracy(encoder):
        features = encoder.fit(data.images[:160], kind[:160]).transform(data.images)
        return KNeighborsClassifier(3).fit(features[:160], kind[:160]).score(features[160:], kind[160:])

    settings = {"crop_scale": None, "width": 1.0, "batch_size": 16, "learning_rate": 5e-3}
    scores = np.array(
        [
            [
                accuracy(_encoder(**{**settings, "backbone": backbone(seed), "random_state": seed, **parameters}))
                for parameters in (
                    {"max_epochs": 1, "learning_rate": 1e-9},
                    {"max_epochs": 12},
                    {"max_epochs": 12, "trainable": "all", "backbone_learning_rate": 1.0},
                )
            ]
            for seed in range(3)
        ]
    )
    assert scores[:, 1].mean() > scores[:, 0].mean() + 0.05
    assert scores[:, 2].mean() > scores[:, 0].mean() + 0.05


def test_mirrored_pictures_are_averaged(shapes):
    plain = _encoder().fit(shapes.images)
    both = _encoder(average_mirrored=True).fit(shapes.images)
    mean = (plain.transform(shapes.images) + plain.transform(shapes.images[:, :, ::-1].copy())) / 2
    np.testing.assert_allclose(both.transform(shapes.images), mean, rtol=1e-4, atol=1e-4)


def test_training_is_the_same_to_the_bit_however_many_threads_read(shapes, kinds, monkeypatch):
    settings = {"trainable": 1, "batch_size": 16, "n_jobs": 1}
    alone = _encoder(**settings).fit(shapes.images, kinds).transform(shapes.images)
    monkeypatch.setattr("sklearn_mm.features._image_base.n_threads", lambda n_jobs: 2)
    again = _encoder(**settings).fit(shapes.images, kinds).transform(shapes.images)
    np.testing.assert_array_equal(alone, again)


def test_a_ranker_trains_it_end_to_end(shapes):
    ranker = JointEmbeddingRanker(
        image_encoder=_encoder(trainable=1, mirror=False),
        n_components=16,
        instance_loss=InstanceLoss(0.0, pretrain_epochs=1),
        max_epochs=2,
        batch_size=16,
        random_state=0,
    ).fit(shapes.images, shapes.captions)
    assert ranker.history_[-1]["train_loss"] < ranker.history_[1]["train_loss"]
    assert isinstance(ranker.image_head_, nn.Identity)
    again = clone(ranker).fit(shapes.images, shapes.captions)
    np.testing.assert_array_equal(again.transform(shapes.images), ranker.transform(shapes.images))


def test_a_search_chooses_its_width(shapes, kinds):
    pipeline = make_pipeline(_encoder(), KNeighborsClassifier(1))
    grid = {"multiscalecnnencoder__width": [0.05, 0.1]}
    search = GridSearchCV(pipeline, grid, cv=2, error_score="raise").fit(list(shapes.images), kinds)
    assert set(search.best_params_) == set(grid)


def test_networks_of_one_scale_are_refused(shapes):
    one = nn.Sequential(nn.Conv2d(3, 4, 3, 1, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(ValueError, match="maps of 1 sizes"):
        _encoder(backbone=one).fit(shapes.images)
    with pytest.raises(ValueError, match="width"):
        _encoder(width=0).fit(shapes.images)
