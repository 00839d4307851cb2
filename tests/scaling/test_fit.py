"""Statistics shard by shard: those of one fit, whoever has computed them and however often it was stopped."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.preprocessing import StandardScaler

from sklearn_mm.exceptions import ImageReadError, ImageReadWarning
from sklearn_mm.scaling import Manifest, _work, embed_shards, fit_shards
from tests.scaling.pictures import all_of, embedding, write_folder

N, BAD = 23, (0, 7, 20, 21, 22)
ROUNDING = {"rtol": 1e-9, "atol": 1e-12}  # of float64, in another order
ACTIVATIONS = {"rtol": 1e-5, "atol": 1e-7}  # of float32: in another batch some processors add in another order


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    monkeypatch.setattr(_work, "BLOCK_ROWS", 4)


@pytest.fixture
def photos(tmp_path):
    return write_folder(tmp_path / "photos", N)


@pytest.mark.parametrize("shard_size", [5, 100])
def test_the_statistics_are_those_of_one_fit(photos, tmp_path, shard_size):
    paths = sorted(photos.iterdir())
    whole = embedding().fit(paths)
    parts = embedding()
    assert fit_shards(parts, photos, tmp_path / "sink", shard_size=shard_size) is parts
    np.testing.assert_allclose(parts.mean_, whole.mean_, **ACTIVATIONS)
    np.testing.assert_allclose(parts.scale_, whole.scale_, **ACTIVATIONS)
    assert (parts.n_samples_seen_, parts.layers_, parts.precision_) == (N, whole.layers_, "float32")
    np.testing.assert_array_equal(parts.transform(paths), whole.transform(paths))
    manifest = embed_shards(parts, photos, tmp_path / "vectors", shard_size=9)
    np.testing.assert_array_equal(all_of(manifest)[2], whole.transform(paths))


def test_bad_pictures_do_not_count(tmp_path):
    folder = write_folder(tmp_path / "photos", N, BAD)
    good = [folder / f"{number:03d}.png" for number in range(N) if number not in BAD]
    parts = embedding()
    with pytest.warns(ImageReadWarning, match="5 of 23"):
        fit_shards(parts, folder, tmp_path / "sink", shard_size=5)
    np.testing.assert_allclose(parts.mean_, embedding().fit(good).mean_, **ACTIVATIONS)
    assert parts.n_samples_seen_ == len(good)
    assert [row for row, *_ in Manifest.open(tmp_path / "sink").failures] == list(BAD)
    with pytest.raises(ImageReadError, match="000.png"):
        fit_shards(embedding(), folder, tmp_path / "other", shard_size=5, on_error="raise")


def test_a_fit_that_was_stopped_goes_on_to_the_same_bits(photos, tmp_path, monkeypatch):
    whole = fit_shards(embedding(), photos, tmp_path / "whole", shard_size=5)
    calls = []
    finish = _work.ShardFolder.finish

    def stop_at_the_third(folder, shard, paths):
        calls.append(shard.number)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return finish(folder, shard, paths)

    monkeypatch.setattr(_work.ShardFolder, "finish", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        fit_shards(embedding(), photos, tmp_path / "parts", shard_size=5)
    parts = fit_shards(embedding(), photos, tmp_path / "parts", shard_size=5)
    assert calls == [0, 1, 2, 2, 3, 4]
    np.testing.assert_array_equal(parts.mean_, whole.mean_)
    np.testing.assert_array_equal(parts.scale_, whole.scale_)
    again = clone(parts)
    fit_shards(again, photos, tmp_path / "parts", shard_size=5)
    assert len(calls) == 6
    np.testing.assert_array_equal(again.mean_, whole.mean_)


def test_the_network_is_built_once_for_all_shards(photos, tmp_path, monkeypatch):
    from sklearn_mm.features import _network_on_demand

    built = []
    build = _network_on_demand.build_backbone
    monkeypatch.setattr(_network_on_demand, "build_backbone", lambda *args: built.append(1) or build(*args))
    fit_shards(embedding(), photos, tmp_path / "sink", shard_size=5)
    assert len(built) == 1


def test_other_parameters_are_not_gone_on_with(photos, tmp_path):
    fit_shards(embedding(), photos, tmp_path / "sink", shard_size=5)
    with pytest.raises(ValueError, match="another transformer"):
        fit_shards(embedding(activation="post"), photos, tmp_path / "sink", shard_size=5)
    with pytest.raises(ValueError, match=r"for something else \(fit_shards, now embed_shards\)"):
        embed_shards(embedding().fit(sorted(photos.iterdir())), photos, tmp_path / "sink", shard_size=5)


def test_an_estimator_without_such_statistics_is_refused(photos, tmp_path):
    with pytest.raises(TypeError, match="got a StandardScaler, which has no get_statistics; fit it on a sample"):
        fit_shards(StandardScaler(), photos, tmp_path / "sink")


def test_statistics_of_different_networks_do_not_merge(photos):
    paths = sorted(photos.iterdir())
    one, other = embedding().fit(paths), embedding(layers=1).fit(paths)
    with pytest.raises(ValueError, match="statistics 1 are of layers"):
        embedding().set_statistics([one.get_statistics(), other.get_statistics()])
    both = embedding().set_statistics([one.get_statistics(), one.get_statistics()])
    assert both.n_samples_seen_ == 2 * N
    np.testing.assert_allclose(both.scale_, one.scale_, **ROUNDING)
    both.set_statistics([]).partial_fit(paths[:10])
    np.testing.assert_array_equal(both.mean_, embedding().fit(paths[:10]).mean_)
