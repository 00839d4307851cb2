"""The trainable image encoder: what learns, what stays, and how pictures reach it."""

import pickle

import joblib
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from sklearn_mm.datasets import make_captioned_shapes
from sklearn_mm.exceptions import ImageReadError, ImageReadWarning
from sklearn_mm.features import FullNetworkEmbedding, ImageCNNEncoder, TextNGramEncoder
from sklearn_mm.losses import InstanceLoss
from sklearn_mm.persistence import load, save
from sklearn_mm.retrieval import JointEmbeddingRanker

NEAR = 1e-4  # float32 sums in another order
FAST = {"weights": None, "image_size": 32, "precision": "float32", "random_state": 0}


def _encoder(**parameters):
    return ImageCNNEncoder(**{"backbone": "resnet18", **FAST, **parameters})


def _statistics(module):
    return {name: value.clone() for name, value in module.named_buffers() if "running" in name}


def _changed(before, after):
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.fixture(scope="module")
def kinds(shapes):
    """Two kinds of pictures, whatever they mean."""
    return np.arange(len(shapes.images)) % 2


# What comes out -------------------------------------------------------------------------------------------------------


def test_untrained_it_gives_the_last_features_of_the_full_network_embedding(shapes):
    features = _encoder().fit(shapes.images).transform(shapes.images)
    embedding = FullNetworkEmbedding(
        "resnet18", weights=None, image_size=32, layers="last", discretize=False, precision="float32"
    ).fit(shapes.images)
    scale = np.where(embedding.scale_ > 0, embedding.scale_, 1)
    np.testing.assert_allclose(
        (features - embedding.mean_) / scale, embedding.transform(shapes.images), rtol=NEAR, atol=5e-3
    )
    assert features.dtype == np.float32
    assert features.shape == (60, 512)


@pytest.mark.parametrize(
    ("backbone", "width"),
    [("squeezenet1_1", 512), ("mobilenet_v3_small", 1024), ("googlenet", 1024), ("efficientnet_lite0", 1280)],
)
def test_networks_of_every_build_can_be_trained(shapes, backbone, width, tmp_path):
    encoder = ImageCNNEncoder(backbone, **{**FAST, "image_size": 64}, max_epochs=1, batch_size=8)
    images, kinds = shapes.images[:16], np.arange(16) % 2
    encoder.fit(images, kinds)
    assert encoder.transform(images).shape == (16, width)
    save(encoder, tmp_path / "model")
    np.testing.assert_array_equal(load(tmp_path / "model").transform(images), encoder.transform(images))


def test_a_head_gives_the_width_asked_for(shapes, kinds):
    encoder = _encoder(n_components=7, hidden_layer_sizes=(9,), trainable="none", max_epochs=1)
    assert encoder.fit(shapes.images, kinds).transform(shapes.images).shape == (60, 7)
    assert list(encoder.get_feature_names_out())[-1] == "imagecnnencoder6"


def test_the_head_stands_on_standardised_features(shapes):
    encoder = _encoder(n_components=7).fit(shapes.images)
    features = _encoder().fit(shapes.images).transform(shapes.images)
    np.testing.assert_allclose(encoder.module_.head.mean.numpy(), features.mean(0), rtol=1e-3, atol=1e-4)
    deviation = features.std(0)
    np.testing.assert_allclose(
        encoder.module_.head.scale.numpy(), np.maximum(deviation, np.median(deviation) / 10), rtol=1e-2, atol=1e-4
    )


def test_mirrored_pictures_are_averaged(shapes):
    plain = _encoder(n_components=5).fit(shapes.images)
    both = _encoder(n_components=5, average_mirrored=True).fit(shapes.images)
    mean = (plain.transform(shapes.images) + plain.transform(shapes.images[:, :, ::-1].copy())) / 2
    np.testing.assert_allclose(both.transform(shapes.images), mean, rtol=NEAR, atol=NEAR)


def test_precision_and_batches_change_little(shapes):
    images = shapes.images[:20]
    encoder = _encoder().fit(images)
    expected = encoder.transform(images)
    np.testing.assert_allclose(
        encoder.set_params(batch_size=7, n_jobs=2).transform(images), expected, rtol=NEAR, atol=NEAR
    )
    half = encoder.set_params(precision="bfloat16").transform(images)
    assert half.dtype == np.float32
    assert np.corrcoef(half.ravel(), expected.ravel())[0, 1] > 0.999


# What learns ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trainable", "learns"),
    [
        ("none", ()),
        (1, ("layer4",)),
        (2, ("layer3", "layer4")),
        (5, ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")),
        ("all", ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")),
        (r"layer4\.1", ("layer4.1",)),
        (r"bn1|layer2\.0\.conv1", ("bn1", "layer2.0.conv1")),
    ],
)
def test_exactly_what_is_trainable_learns(shapes, kinds, trainable, learns):
    start = _encoder(n_components=4).initialize(shapes.images, 0)
    encoder = _encoder(n_components=4, trainable=trainable, max_epochs=1, backbone_learning_rate=1.0)
    encoder.fit(shapes.images, kinds)
    before, after = dict(start.module_.backbone.named_parameters()), dict(encoder.module_.backbone.named_parameters())
    changed = _changed(before, after)
    expected = {name for name in before if any(name.startswith(f"{root}.") for root in learns)}
    assert changed == expected
    assert {name for name, value in after.items() if value.requires_grad} == expected
    assert not _changed(_statistics(start.module_.backbone), _statistics(encoder.module_.backbone))


def test_batch_norms_follow_the_batches_only_where_asked_and_only_where_they_learn(shapes, kinds):
    start = _encoder().initialize(shapes.images, 0)
    encoder = _encoder(trainable=1, max_epochs=1, fix_batch_norm=False).fit(shapes.images, kinds)
    changed = _changed(_statistics(start.module_), _statistics(encoder.module_))
    assert changed
    assert all(name.startswith("backbone.layer4") for name in changed)


def test_freezing_survives_train_and_is_taken_back(shapes):
    module = _encoder(trainable=2, fix_batch_norm=False).initialize(shapes.images, 0).module_
    wanted = [name for name, value in module.named_parameters() if value.requires_grad]
    assert wanted
    module.freeze_backbone(True)
    module.train()
    assert module.training
    assert not any(part.training for part in module.backbone.modules())
    assert not any(value.requires_grad for value in module.backbone.parameters())
    module.eval()
    module.train()
    assert module.is_backbone_frozen
    module.freeze_backbone(False)
    assert [name for name, value in module.named_parameters() if value.requires_grad] == wanted
    modes = {name: part.training for name, part in module.backbone.named_modules()}
    assert modes["layer4.0.bn1"]
    assert not modes["layer1.0.bn1"]


@pytest.mark.slow
def test_the_backbones_learning_rate_has_its_factor(shapes, kinds):
    """Plain gradient steps move the backbone by the factor less."""
    from sklearn_mm.training import make_optimizer

    def moved(factor):
        torch.manual_seed(0)
        module = _encoder(n_components=4, backbone_learning_rate=factor).initialize(shapes.images, 0).module_.train()
        before = {name: value.detach().clone() for name, value in module.named_parameters()}
        optimizer = make_optimizer("sgd", module, learning_rate=0.1, weight_decay=0.0)
        assert {group["lr"] for group in optimizer.param_groups} == {0.1, 0.1 * factor}
        (module(torch.from_numpy(shapes.images[:8].copy())) ** 2).mean().backward()
        optimizer.step()
        return {name: float((value - before[name]).detach().norm()) for name, value in module.named_parameters()}

    slow, slower = moved(0.5), moved(0.05)
    assert slow["backbone.layer4.1.conv2.weight"] == pytest.approx(
        10 * slower["backbone.layer4.1.conv2.weight"], rel=1e-2
    )
    assert slow["head.layers.0.weight"] == pytest.approx(slower["head.layers.0.weight"], rel=1e-3)


@pytest.mark.slow
def test_trained_on_shapes_it_beats_its_frozen_start():
    data = make_captioned_shapes(240, image_size=32, captions_per_image=1, random_state=1)
    dark = np.array([image.mean() < 128 for image in data.images])
    hue = data.images.reshape(240, -1, 3).astype(float).std(1).argmax(1)  # the channel that varies most
    kind = 3 * dark + hue
    train, test = np.arange(160), np.arange(160, 240)

    def accuracy(encoder):
        encoder.fit(data.images[train], kind[train])
        features = encoder.transform(data.images)
        classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(
            features[train], kind[train]
        )
        return classifier.score(features[test], kind[test])

    def backbone(seed):
        torch.manual_seed(seed)
        layers = [(nn.Conv2d(n, m, 3, 2, 1), nn.BatchNorm2d(m), nn.ReLU()) for n, m in ((3, 8), (8, 16), (16, 16))]
        return nn.Sequential(*(part for layer in layers for part in layer), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    settings = {"n_components": 8, "crop_scale": None, "learning_rate": 5e-3, "batch_size": 16, "max_epochs": 30}
    scores = np.array(
        [
            [
                accuracy(_encoder(**{**settings, "backbone": backbone(seed), "random_state": seed, **parameters}))
                for parameters in ({"trainable": "none"}, {"trainable": "all", "backbone_learning_rate": 1.0})
            ]
            for seed in range(2)
        ]
    )
    assert scores[:, 1].mean() > scores[:, 0].mean() + 0.05


# Training is the same every time --------------------------------------------------------------------------------------


def test_training_is_the_same_to_the_bit_however_many_threads_read(shapes, kinds, monkeypatch):
    settings = {"backbone": "squeezenet1_1", "max_epochs": 2, "batch_size": 16, "color_jitter": 0.2, "n_jobs": 1}
    alone = _encoder(**settings).fit(shapes.images, kinds)
    other = _encoder(**{**settings, "random_state": 1}).fit(shapes.images, kinds)
    with monkeypatch.context() as patch:
        patch.setattr("sklearn_mm.features._image_base.n_threads", lambda n_jobs: 3)
        again = _encoder(**settings).fit(shapes.images, kinds)
    np.testing.assert_array_equal(alone.transform(shapes.images), again.transform(shapes.images))
    assert not np.array_equal(alone.transform(shapes.images), other.transform(shapes.images))


def test_n_jobs_changes_no_picture_that_training_sees(shapes, kinds):
    """That torch computes with another number of threads does change the last digits of the weights."""

    def seen(n_jobs):
        batches = []

        class Watching(ImageCNNEncoder):
            def collate(self, rows, rng=None):
                batches.append(super().collate(rows, rng))
                return batches[-1]

        Watching("squeezenet1_1", **FAST, max_epochs=2, batch_size=16, color_jitter=0.2, n_jobs=n_jobs).fit(
            shapes.images, kinds
        )
        return batches

    alone = seen(1)
    assert len(alone) == 8
    for n_jobs in (3, None):
        assert all(torch.equal(one, other) for one, other in zip(alone, seen(n_jobs), strict=True))


def test_batches_for_training_come_from_the_generator_alone(shapes):
    encoder = _encoder(color_jitter=0.3).initialize(shapes.images, 0)
    rows = encoder.prepare(shapes.images)
    assert len(rows) == 60
    some = rows[np.array([4, 9, 4])]
    first, second = (encoder.collate(some, np.random.default_rng(5)) for _ in range(2))
    assert first.dtype == torch.uint8
    assert first.shape == (3, 32, 32, 3)
    assert torch.equal(first, second)
    assert not torch.equal(first[0], first[2])  # one picture twice, changed differently
    assert not torch.equal(first, encoder.collate(some, np.random.default_rng(6)))
    plain = encoder.collate(rows[2:4])
    np.testing.assert_array_equal(plain.numpy(), shapes.images[2:4])
    off = encoder.set_params(crop_scale=None, mirror=False, color_jitter=0.0)
    np.testing.assert_array_equal(off.collate(rows[2:4], np.random.default_rng(0)).numpy(), shapes.images[2:4])


# Bad pictures and parameters ------------------------------------------------------------------------------------------


@pytest.fixture
def files(shapes, tmp_path):
    """Paths of twelve pictures; row 7 is cut off, which its header does not show."""
    paths = [tmp_path / f"{row}.png" for row in range(12)]
    for path, pixels in zip(paths, shapes.images, strict=False):
        Image.fromarray(pixels).resize((200, 200)).save(path)
    paths[7].write_bytes(paths[7].read_bytes()[:-2000])
    return paths


def test_a_bad_picture_is_named_by_its_row(files):
    y = np.arange(12) % 2
    for call in (
        lambda: _encoder(trainable="none").fit(files[:7]).transform(files),
        lambda: _encoder(trainable=1, max_epochs=1).fit(files, y),
        lambda: _encoder().fit([*files[:7], "no/such/file.png"]),
        lambda: _encoder(n_components=4).fit([*files[:7], "no/such/file.png"]),
        lambda: JointEmbeddingRanker(image_encoder=_encoder(trainable=1), n_components=8, max_epochs=1).fit(
            files, ["a shape"] * 12
        ),
    ):
        with pytest.raises(ImageReadError, match="row 7 "):
            call()


def test_bad_pictures_can_be_marked_or_left_out(files):
    good = [path for row, path in enumerate(files) if row != 7]
    y = np.arange(12) % 2
    settings = {"trainable": 1, "max_epochs": 1, "crop_scale": None, "mirror": False}
    expected = _encoder(**settings).fit(good, np.delete(y, 7)).transform(good)
    for on_error, n_rows in (("nan", 12), ("skip", 11)):
        encoder = _encoder(**settings, on_error=on_error)
        with pytest.warns(ImageReadWarning, match="row 7 "):
            encoder.fit(files, y)
        with pytest.warns(ImageReadWarning, match="row 7 "):
            out = encoder.transform(files)
        assert out.shape == (n_rows, 512)
        assert [failure.row for failure in encoder.errors_] == [7]
        if on_error == "nan":
            assert np.isnan(out[7]).all()
            out = np.delete(out, 7, axis=0)
        np.testing.assert_allclose(out, expected, rtol=NEAR, atol=NEAR)


def test_one_picture_gives_no_statistics_to_batch_norms(files):
    with pytest.raises(ValueError, match="at least 2 pictures .* got 1"):
        _encoder(trainable=1, max_epochs=1, fix_batch_norm=False).fit(files[:1], [0])
    with pytest.warns(ImageReadWarning), pytest.raises(ValueError, match="at least 2 pictures .* got 1"):
        _encoder(n_components=4, hidden_layer_sizes=(4,), trainable="none", on_error="skip", max_epochs=1).fit(
            files[6:8], [0, 1]
        )
    assert _encoder(trainable=1, max_epochs=1).fit(files[:1], [0]).transform(files[:1]).shape == (1, 512)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"trainable": True}, "trainable must be 'all'"),
        ({"trainable": 6}, "5 scales"),
        ({"trainable": "layer9"}, "did you mean"),
        ({"trainable": "("}, "regular expression"),
        ({"crop_scale": (0.5, 1.5)}, "at most 1"),
        ({"crop_scale": (0.9, 0.5)}, "least first"),
        ({"crop_ratio": (1, 2, 3)}, "two numbers"),
        ({"hidden_layer_sizes": (4,)}, "n_components"),
        ({"backbone": "resnet19"}, "resnet18"),
        ({"color_jitter": 1.0}, "color_jitter"),
    ],
)
def test_a_wrong_parameter_is_named(shapes, parameters, message):
    with pytest.raises(ValueError, match=message):
        clone(_encoder()).set_params(**parameters).fit(shapes.images)


def test_tables_are_no_pictures(shapes):
    with pytest.raises(ValueError, match="expected pictures"):
        _encoder().fit(np.zeros((5, 4)))
    with pytest.raises(ValueError, match="expected one instance for each row in y, got 2 for 60 rows"):
        _encoder().fit(shapes.images, [1, 2])


# With everything else -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_it_is_saved_and_pickled(shapes, kinds, tmp_path, forked):
    encoder = _encoder(
        backbone="shufflenet_v2_x0_5", n_components=4, trainable=1, max_epochs=1, average_mirrored=True
    ).fit(shapes.images, kinds)
    expected = encoder.transform(shapes.images)
    save(encoder, tmp_path / "model")
    joblib.dump(encoder, tmp_path / "model.joblib")
    for opened in (
        load(tmp_path / "model"),
        joblib.load(tmp_path / "model.joblib"),
        pickle.loads(pickle.dumps(encoder)),
    ):
        np.testing.assert_array_equal(opened.transform(shapes.images), expected)
        learns = [value.requires_grad for value in opened.module_.parameters()]
        assert learns == [value.requires_grad for value in encoder.module_.parameters()]
    np.save(tmp_path / "images.npy", shapes.images)
    code = (
        "import joblib, sys, numpy as np; from sklearn_mm.persistence import load; folder = sys.argv[1];"
        "images = np.load(folder + '/images.npy'); a = joblib.load(folder + '/model.joblib').transform(images);"
        "b = load(folder + '/model').transform(images); assert (a == b).all(); np.save(folder + '/out.npy', a)"
    )
    status, output = forked(code, tmp_path)
    assert status == [0], output
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected, rtol=NEAR, atol=NEAR)


def test_a_module_of_ones_own_is_trained_as_a_copy(shapes, kinds):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(8, 3),
    )  # fmt: skip
    before = {name: value.clone() for name, value in network.state_dict().items()}
    encoder = ImageCNNEncoder(network, image_size=32, max_epochs=2, random_state=0).fit(shapes.images, kinds)
    assert encoder.transform(shapes.images).shape == (60, 8)
    assert not _changed(before, network.state_dict())
    trained = dict(encoder.module_.backbone.named_parameters())
    assert _changed({name: before[name] for name in trained}, trained) == set(trained)
    copied = pickle.loads(pickle.dumps(encoder))
    np.testing.assert_array_equal(copied.transform(shapes.images), encoder.transform(shapes.images))


def test_a_search_chooses_what_learns(shapes, kinds):
    pipeline = make_pipeline(_encoder(n_components=4, max_epochs=1), LogisticRegression())
    grid = {"imagecnnencoder__trainable": ["none", 1]}
    search = GridSearchCV(pipeline, grid, cv=2, error_score="raise").fit(list(shapes.images), kinds)
    assert set(search.best_params_) == set(grid)
    assert np.isfinite(cross_val_score(clone(search.best_estimator_), list(shapes.images), kinds, cv=2)).all()


def test_a_ranker_trains_it_end_to_end(shapes):
    images, captions = shapes.images[:30], shapes.captions[:30]
    ranker = JointEmbeddingRanker(
        TextNGramEncoder(n_components=16),
        _encoder(trainable=2, mirror=False, backbone_learning_rate=0.1),
        n_components=16,
        instance_loss=InstanceLoss(0.0, pretrain_epochs=1),
        max_epochs=2,
        batch_size=15,
        random_state=0,
    )
    ranker.fit(images, captions)
    module = ranker.image_encoder_.module_
    start = _encoder().initialize(shapes.images, 0).module_
    changed = _changed(dict(start.backbone.named_parameters()), dict(module.backbone.named_parameters()))
    assert changed
    assert {name.split(".")[0] for name in changed} == {"layer3", "layer4"}
    assert not _changed(_statistics(start.backbone), _statistics(module.backbone))
    assert ranker.transform(images).shape == (30, 16)
    again = clone(ranker).fit(images, captions)
    np.testing.assert_array_equal(again.transform(images), ranker.transform(images))
    assert clone(ranker).get_params()["image_encoder__trainable"] == 2


def test_the_first_stage_of_a_ranker_leaves_the_backbone_alone(shapes):
    ranker = JointEmbeddingRanker(
        image_encoder=_encoder(),
        n_components=16,
        instance_loss=InstanceLoss(0.0, pretrain_epochs=2, pretrain_learning_rate=1e-2),
        batch_size=16,
        max_epochs=1,
        learning_rate=1e-12,
        weight_decay=0.0,
        random_state=0,
    ).fit(shapes.images, shapes.captions)
    start = _encoder().initialize(shapes.images, 0).module_
    module = ranker.image_encoder_.module_
    for name, value in module.backbone.named_parameters():
        torch.testing.assert_close(value, start.backbone.get_parameter(name), rtol=0, atol=1e-9)
    assert not module.is_backbone_frozen


def test_a_ranker_that_was_stopped_goes_on_to_the_same_weights(shapes, tmp_path, monkeypatch):
    images, captions = shapes.images[:24], shapes.captions[:24]
    ranker = JointEmbeddingRanker(
        image_encoder=_encoder(backbone="squeezenet1_1"),
        n_components=8,
        instance_loss=InstanceLoss(0.0, pretrain_epochs=1),
        max_epochs=3,
        batch_size=8,
        random_state=0,
    )

    collate, n_batches = ImageCNNEncoder.collate, []

    def stopping(self, rows, rng=None):
        n_batches.append(len(rows))
        if len(n_batches) > 5:  # two epochs have three batches each
            raise KeyboardInterrupt
        return collate(self, rows, rng)

    whole = clone(ranker).fit(images, captions)
    settings = {"checkpoint": tmp_path}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ImageCNNEncoder, "collate", stopping)
        clone(ranker).set_params(**settings).fit(images, captions)
    saved = list(tmp_path.glob("*.pt"))
    assert len(saved) == 1
    resumed = clone(ranker).set_params(**settings).fit(images, captions)
    assert [record["epoch"] for record in resumed.history_] == [1, 2, 3, 4]
    np.testing.assert_array_equal(resumed.transform(images), whole.transform(images))


def test_a_ranker_with_a_frozen_encoder_has_standardised_features(shapes):
    ranker = JointEmbeddingRanker(image_encoder=_encoder(trainable="none"), n_components=16, max_epochs=1)
    ranker.fit(shapes.images, shapes.captions)
    features = _encoder().fit(shapes.images).transform(shapes.images)
    np.testing.assert_allclose(ranker.image_head_.mean.numpy(), features.mean(0), rtol=1e-3, atol=1e-4)


def test_a_ranker_embeds_no_more_pictures_at_once_than_the_encoder_takes(shapes, monkeypatch):
    seen = []
    collate = ImageCNNEncoder.collate
    monkeypatch.setattr(
        ImageCNNEncoder, "collate", lambda self, rows, rng=None: seen.append(len(rows)) or collate(self, rows, rng)
    )
    encoder = _encoder(trainable="none", batch_size=4)
    JointEmbeddingRanker(image_encoder=encoder, n_components=16, batch_size=8, max_epochs=1).fit(
        shapes.images[:20], shapes.captions[:20]
    ).transform(shapes.images[:10])
    assert max(seen) == 8  # of training
    assert seen[-3:] == [4, 4, 2]
