import copy
import pickle
import warnings

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, TransformerMixin, clone
from torch import nn

from sklearn_mm.exceptions import VersionMismatchWarning
from sklearn_mm.persistence import PickleStateMixin


class LinearMap(TransformerMixin, PickleStateMixin, BaseEstimator):
    _not_pickled = ("_optimizer", "_index")

    def __init__(self, n_components=2, backbone=None):
        self.n_components = n_components
        self.backbone = backbone

    def fit(self, X, y=None):
        self.n_features_in_ = X.shape[1]
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.module_ = nn.Linear(X.shape[1], self.n_components)
        self._optimizer = torch.optim.SGD(self.module_.parameters(), lr=0.1)
        return self

    def transform(self, X):
        with torch.inference_mode():
            return self.module_(torch.as_tensor(X, dtype=torch.float32)).numpy()


class Elsewhere(torch.Tensor):
    """Stands in for a tensor on another device: it says so, and can only be moved, not copied."""

    @property
    def device(self):
        return torch.device("cuda", 0)

    def cpu(self):
        return self.detach().as_subclass(torch.Tensor).clone()

    def __deepcopy__(self, memo):
        raise AssertionError("copied on its own device")


def elsewhere(values):
    return torch.as_tensor(values, dtype=torch.float32).as_subclass(Elsewhere)


@pytest.fixture
def fitted():
    return LinearMap().fit(np.ones((3, 4)))


def _types_of_tensors(module):
    return {type(tensor) for tensor in [*module.parameters(), *module.buffers()]}


@pytest.mark.parametrize("how", ["pickle", "joblib", "deepcopy"])
def test_the_copy_answers_alike_and_leaves_behind_what_is_listed(fitted, how, tmp_path):
    X = np.random.default_rng(0).normal(size=(5, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if how == "pickle":
            copied = pickle.loads(pickle.dumps(fitted))
        elif how == "joblib":
            joblib.dump(fitted, tmp_path / "model.joblib")
            copied = joblib.load(tmp_path / "model.joblib")
        else:
            copied = copy.deepcopy(fitted)
    np.testing.assert_array_equal(copied.transform(X), fitted.transform(X))
    assert not hasattr(copied, "_optimizer")
    assert hasattr(fitted, "_optimizer")
    assert set(vars(copied)) == set(vars(fitted)) - {"_optimizer"}


def test_pickling_does_not_copy_what_is_on_the_cpu(fitted):
    assert fitted.__getstate__()["module_"] is fitted.module_


@pytest.mark.parametrize(
    ("stamp", "old"),
    [("_sklearn_mm_version", "0.0.1"), ("_torch_version", "1.7"), ("_sklearn_mm_version", None)],
)
def test_a_state_of_other_versions_warns_and_names_both(fitted, stamp, old):
    state = fitted.__getstate__()
    now = state[stamp]
    state[stamp] = old
    shown = old or "of unknown version"
    with pytest.warns(VersionMismatchWarning, match=rf"{shown}.*{now}.*[Oo]pen it under.*fit it again"):
        LinearMap().__setstate__(state)


def test_a_patch_release_of_torch_does_not_warn(fitted, monkeypatch):
    state = fitted.__getstate__()
    monkeypatch.setattr(torch, "__version__", ".".join(torch.__version__.split(".")[:2]) + ".99+cpu")
    LinearMap().__setstate__(state)


def test_modules_and_tensors_of_another_device_travel_as_cpu_copies(fitted):
    before = fitted.transform(np.eye(4))
    module = nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2))
    module[0].load_state_dict(fitted.module_.state_dict())
    module[0].weight = nn.Parameter(elsewhere(module[0].weight.detach()))
    module[0].twin = module[0].weight
    module[1].running_mean = elsewhere(module[1].running_mean)
    fitted.module_ = module
    fitted.backbone = [module]
    fitted.table_ = {"a": (elsewhere([1.0, 2.0]),)}

    copied = pickle.loads(pickle.dumps(fitted))

    for opened in (copied.module_, copied.backbone[0]):
        assert _types_of_tensors(opened) == {nn.Parameter, torch.Tensor}
        assert opened[0].weight is opened[0].twin
        assert opened[0].weight.requires_grad
    assert type(copied.table_["a"][0]) is torch.Tensor
    assert type(fitted.table_["a"][0]) is Elsewhere
    assert type(fitted.module_[0].weight) is Elsewhere
    copied.module_ = copied.module_[0]
    np.testing.assert_array_equal(copied.transform(np.eye(4)), before)


@pytest.mark.cuda
def test_a_model_of_the_gpu_opens_on_the_cpu(fitted):
    fitted.module_.cuda()
    copied = pickle.loads(pickle.dumps(fitted))
    assert {tensor.device.type for tensor in copied.module_.parameters()} == {"cpu"}
    assert {tensor.device.type for tensor in fitted.module_.parameters()} == {"cuda"}


def test_clone_and_unfitted_estimators_are_untouched():
    estimator = LinearMap(n_components=3)
    assert clone(estimator).get_params() == estimator.get_params()
    assert vars(pickle.loads(pickle.dumps(estimator))) == vars(estimator)


def test_a_parent_that_keeps_no_state_of_its_own_will_do():
    class Plain(PickleStateMixin):
        pass

    plain = Plain()
    assert set(plain.__getstate__()) == {"_sklearn_mm_format", "_sklearn_mm_version", "_torch_version"}
    plain.a = 1
    other = Plain()
    other.__setstate__(plain.__getstate__())
    assert vars(other) == {"a": 1}


class Renamed(LinearMap):
    """Whose attribute `matrix_` was called `map_` in format 1."""

    @classmethod
    def _from_format(cls, state, number):
        if number < 2:
            state["matrix_"] = state.pop("map_")
        return state


def test_states_of_older_formats_are_brought_to_todays():
    estimator = Renamed()
    estimator.matrix_ = np.eye(2)
    state = estimator.__getstate__()
    assert (
        set(vars(pickle.loads(pickle.dumps(estimator)))) == set(vars(copy.deepcopy(estimator))) == set(vars(estimator))
    )
    state["map_"] = state.pop("matrix_")
    del state["_sklearn_mm_format"]
    older = Renamed()
    older.__setstate__(state)
    np.testing.assert_array_equal(older.matrix_, np.eye(2))
    assert set(vars(older)) == set(vars(estimator))


def test_states_of_later_formats_are_refused():
    state = {**LinearMap().__getstate__(), "_sklearn_mm_format": 99}
    with pytest.raises(ValueError, match="this LinearMap is of format 99.*up to 2.*the sklearn_mm that saved it"):
        LinearMap().__setstate__(state)


class Embedding(LinearMap):
    def __init__(self, n_components=2, backbone=None, cache=None, verbose=0):
        super().__init__(n_components, backbone)
        self.cache = cache
        self.verbose = verbose


@pytest.fixture
def elsewhere_cached(tmp_path, monkeypatch):
    """Return a fitted embedding whose relative cache is in the folder that it was fitted in."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos.cache").mkdir()
    return Embedding(cache="photos.cache", verbose=1).fit(np.ones((3, 4)))


def test_a_model_handed_on_is_quiet_and_makes_no_cache_where_there_is_none(elsewhere_cached, tmp_path, monkeypatch):
    handed_on = pickle.dumps(elsewhere_cached)
    assert pickle.loads(handed_on).cache == "photos.cache"
    monkeypatch.chdir(tmp_path.parent)
    opened = pickle.loads(handed_on)
    assert (opened.verbose, opened.cache) == (0, None)


def test_copies_and_estimators_to_be_fitted_keep_cache_and_progress(elsewhere_cached, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path.parent)
    made = [
        copy.copy(elsewhere_cached),
        copy.deepcopy(elsewhere_cached),
        pickle.loads(pickle.dumps(clone(elsewhere_cached))),
    ]
    assert [(each.cache, each.verbose) for each in made] == [("photos.cache", 1)] * 3
