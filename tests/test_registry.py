"""What is saved names no file of ours: classes are found by stored names."""

import copy
import importlib
import inspect
import io
import json
import pickle
import pkgutil
import re
import subprocess
import sys
from dataclasses import dataclass

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, clone
from torch import nn

import sklearn_mm
import sklearn_mm.nn
from sklearn_mm.annotation import LabelCountPredictor, MultiLabelAnnotator
from sklearn_mm.features import (
    FullNetworkEmbedding,
    ImageCNNEncoder,
    MultiScaleCNNEncoder,
    TagVectorizer,
    TextCNNEncoder,
    TextGRUEncoder,
    TextNGramEncoder,
    TextSequenceEncoder,
)
from sklearn_mm.images import ReadFailure
from sklearn_mm.index import ExactIndex
from sklearn_mm.losses import InstanceLoss
from sklearn_mm.metrics import retrieval_ranks
from sklearn_mm.model_selection import find_leaks
from sklearn_mm.nn.annotation import AnnotationNetwork
from sklearn_mm.nn.lite import EfficientNetLite
from sklearn_mm.persistence import save
from sklearn_mm.registry import FORMAT_VERSION, find, name_of, restore, stored_as
from sklearn_mm.retrieval import CorrelationRanker, JointEmbeddingRanker
from sklearn_mm.texts import TokenRows
from sklearn_mm.training import run_identity

FLOAT32 = {"precision": "float32"}
TINY = {"weights": None, "image_size": 32, **FLOAT32}
NETWORK = FullNetworkEmbedding("squeezenet1_1", layers=2, on_error="nan", **TINY)
IMAGE_CNN = ImageCNNEncoder("squeezenet1_1", n_components=4, max_epochs=1, **TINY)
TEXT_CNN = TextCNNEncoder(n_components=4, width=0.01, word_dim=4, max_epochs=1)
ANNOTATOR = MultiLabelAnnotator(hidden_layer_sizes=(4,), max_epochs=1)


def names_in(pickled):
    """Return the dotted names of this library that a pickle looks up."""
    names = set()

    class Watched(pickle.Unpickler):
        def find_class(self, module, name):
            names.add(f"{module}.{name}")
            return super().find_class(module, name)

    Watched(io.BytesIO(pickled)).load()
    return {name for name in names if name.startswith("sklearn_mm")}


def classes_in(node):
    """Yield the names of classes in a config.json."""
    if isinstance(node, dict):
        if "class" in node:
            yield node["class"]
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from classes_in(child)


def public_classes():
    for package in sklearn_mm._SUBPACKAGES:
        for name in importlib.import_module(f"sklearn_mm.{package}").__all__:
            thing = getattr(importlib.import_module(f"sklearn_mm.{package}"), name)
            if inspect.isclass(thing):
                yield f"{package}.{name}", thing


def networks():
    for module in pkgutil.iter_modules(sklearn_mm.nn.__path__, "sklearn_mm.nn."):
        for cls in vars(importlib.import_module(module.name)).values():
            if inspect.isclass(cls) and issubclass(cls, nn.Module) and cls.__module__ == module.name:
                yield cls


# Every class that is saved has a name ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "cls"), [pair for pair in public_classes() if issubclass(pair[1], BaseEstimator)])
def test_estimators_are_stored_under_their_public_names(name, cls):
    assert name_of(cls) == name
    assert names_in(pickle.dumps(cls())) == {"sklearn_mm.registry.restore"}


@pytest.mark.parametrize("cls", list(networks()), ids=lambda cls: cls.__qualname__)
def test_networks_are_stored_under_names_of_their_own(cls):
    assert re.fullmatch(r"nn\.[A-Z]\w+", name_of(cls) or "")
    assert find(name_of(cls)) is cls


def test_the_package_of_networks_imports_them_all():
    modules = [module.name for module in pkgutil.iter_modules(sklearn_mm.nn.__path__)]
    assert sklearn_mm.nn.__all__ == modules


def _features(shapes):
    return shapes.images.reshape(len(shapes.images), -1)[:, ::97].astype(np.float32)


def _fit(estimator, shapes):
    captions = [own[0] for own in shapes.captions]
    if isinstance(estimator, TagVectorizer):
        return estimator.fit([caption.split() for caption in captions])
    if isinstance(estimator, FullNetworkEmbedding):
        return estimator.fit([*shapes.images[:8], "nowhere.png"])  # the failure is kept
    if isinstance(estimator, CorrelationRanker | JointEmbeddingRanker):
        pictures = _features(shapes) if estimator.image_encoder is None else shapes.images
        return estimator.fit(pictures, shapes.captions).set_gallery(images=pictures)
    if isinstance(estimator, MultiLabelAnnotator):
        return estimator.fit(_features(shapes), shapes.target)
    if isinstance(estimator, LabelCountPredictor):
        return estimator.fit(_features(shapes), shapes.target.sum(axis=1))
    return estimator.fit(captions if hasattr(estimator, "word_dim") else shapes.images)


FITTED = [
    NETWORK,
    IMAGE_CNN,
    clone(IMAGE_CNN).set_params(backbone=EfficientNetLite()),
    MultiScaleCNNEncoder("shufflenet_v2_x0_5", n_components=4, width=0.1, max_epochs=1, **TINY),
    TEXT_CNN,
    TextGRUEncoder(n_components=4, word_dim=4, max_epochs=1),
    TextNGramEncoder(n_components=4, word_dim=4, max_epochs=1),
    TextSequenceEncoder(n_components=4, phrase_dim=4, word_dim=4, max_epochs=1),
    TagVectorizer(),
    CorrelationRanker(n_components=4, n_reduced=8),
    JointEmbeddingRanker(n_components=4, max_epochs=1, **FLOAT32),
    JointEmbeddingRanker(
        image_encoder=IMAGE_CNN,
        text_encoder=TEXT_CNN,
        n_components=4,
        max_epochs=1,
        instance_loss=InstanceLoss(),
        **FLOAT32,
    ),
    clone(ANNOTATOR).set_params(n_folds=2, tag_features=slice(-8, None), calibrate=True),
    LabelCountPredictor(max_epochs=1),
]


@pytest.mark.filterwarnings("ignore::sklearn_mm.exceptions.ImageReadWarning")
@pytest.mark.parametrize("estimator", FITTED, ids=lambda estimator: type(estimator).__name__)
def test_saved_estimators_name_no_file_of_ours(estimator, shapes, tmp_path):
    fitted = _fit(clone(estimator), shapes)
    assert names_in(pickle.dumps(fitted)) == {"sklearn_mm.registry.restore"}
    save(fitted, tmp_path / "model")
    names = set(classes_in(json.loads((tmp_path / "model" / "config.json").read_text())))
    others = {"torch.nn.Identity", "sklearn.feature_extraction.text.TfidfTransformer", "csr_array"}
    for name in names - others:
        assert re.fullmatch(r"sklearn_mm\.[a-z]+\.[A-Z]\w+", name)


@pytest.mark.parametrize(
    "result",
    [
        ExactIndex().add(np.eye(2)),
        find_leaks(["a"], [["x"]], ["a"], [["x"]]),
        retrieval_ranks(np.eye(2), np.eye(2), [0, 1]),
    ],
    ids=lambda result: type(result).__name__,
)
def test_pickled_results_name_no_file_of_ours(result):
    assert names_in(pickle.dumps(result)) == {"sklearn_mm.registry.restore"}


# Pickles and copies ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("value", [TokenRows([1, 2], [0, 2]), ReadFailure(3, "a.png", "is empty")], ids=repr)
def test_records_come_back_from_every_protocol(value, protocol):
    pickled = pickle.dumps(value, protocol)
    again = pickle.loads(pickled)
    assert again == value
    assert type(again) is type(value)
    assert b"_rows" not in pickled


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_copies_are_of_the_class(copied):
    rows, failure = TokenRows([1], [0, 1]), ReadFailure(0, "a.png", "is empty")
    assert copied(rows) == rows
    assert copied(failure) == failure
    network = AnnotationNetwork(3, 2, 2, 0, hidden_layer_sizes=(4,))
    again = copied(network)
    assert type(again) is AnnotationNetwork
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in again.state_dict().items())


def test_equal_estimators_have_one_hash_and_others_another():
    assert joblib.hash(clone(TEXT_CNN)) == joblib.hash(clone(TEXT_CNN))
    assert joblib.hash(TEXT_CNN) != joblib.hash(clone(TEXT_CNN).set_params(n_components=5))
    assert run_identity(clone(IMAGE_CNN), TokenRows([1], [0])) == run_identity(clone(IMAGE_CNN), TokenRows([1], [0]))


class Longer(TextNGramEncoder):
    """A user's own."""


def test_subclasses_are_pickled_by_their_own_files():
    assert name_of(Longer) is None
    again = pickle.loads(pickle.dumps(Longer(n_components=7)))
    assert type(again) is Longer
    assert again.n_components == 7


# Names ----------------------------------------------------------------------------------------------------------------


FIND = """
import sys
from sklearn_mm.registry import find
assert "torch" not in sys.modules and "sklearn" not in sys.modules
for name in sys.argv[1:]:
    assert f"sklearn_mm.{name.partition('.')[0]}" not in sys.modules
    print(find(name).__qualname__)
"""


@pytest.mark.slow
def test_classes_are_found_in_a_process_that_has_imported_nothing():
    names = ["images.ReadFailure", "texts.TokenRows", "index.ExactIndex", "nn.TextCNNBlock", "retrieval.Gallery"]
    names.append("annotation.F1Rule")
    answer = subprocess.run([sys.executable, "-c", FIND, *names], check=True, capture_output=True, text=True)
    assert answer.stdout.split() == ["ReadFailure", "TokenRows", "ExactIndex", "_Block", "Gallery", "F1Rule"]


@pytest.mark.parametrize("name", ["nn.Nothing", "nothing.Thing", "Thing", "", "os.system", "nn.torch"])
def test_unknown_names_are_refused_naming_who_may_know_them(name):
    with pytest.raises(ValueError, match=rf"stored as '{re.escape(name)}'; was it saved by a newer one"):
        restore(name)


def test_a_missing_dependency_is_named(monkeypatch):
    monkeypatch.delitem(sys.modules, "sklearn_mm.display", raising=False)
    monkeypatch.setitem(sys.modules, "sklearn_mm.display._annotation_grid", None)
    with pytest.raises(ModuleNotFoundError, match="_annotation_grid"):
        find("display.Thing")


def test_a_name_stands_for_one_class():
    with pytest.raises(ValueError, match=r"TokenRows is stored as 'texts\.TokenRows' already"):

        @stored_as("texts.TokenRows")
        class Other:
            pass

    assert find("texts.TokenRows") is TokenRows


# States of older formats ----------------------------------------------------------------------------------------------


@stored_as("texts.Renamed")
@dataclass(frozen=True)
class Renamed:
    new: int

    @classmethod
    def _from_format(cls, state, number):
        return {"new": state["old"] * 10} if number < 2 else state


def test_pickled_records_of_older_formats_are_brought_to_todays():
    record = Renamed(1)
    assert pickle.loads(pickle.dumps(record)) == copy.deepcopy(record) == record
    assert vars(copy.copy(record)) == {"new": 1}
    old = Renamed.__new__(Renamed)
    old.__setstate__({"old": 3})  # as unpickling does
    assert old == Renamed(30)
    with pytest.raises(ValueError, match=rf"Renamed is of format 99.*up to {FORMAT_VERSION}"):
        old.__setstate__({"newest": 3, "_sklearn_mm_format": 99})
