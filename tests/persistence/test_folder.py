import json
import os
import tracemalloc
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from safetensors.torch import load_file, save_file
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    LabelEncoder,
    MinMaxScaler,
    MultiLabelBinarizer,
    Normalizer,
    OneHotEncoder,
    StandardScaler,
)
from sklearn.utils import Bunch
from torch import nn

import sklearn_mm.persistence._pickle as pickle_module
from sklearn_mm.exceptions import VersionMismatchWarning
from sklearn_mm.nn.families import Backbone, BackboneFamily, PixelConvention
from sklearn_mm.nn.image_cnn import ImageCNN
from sklearn_mm.nn.text_cnn import TextCNN
from sklearn_mm.nn.text_ngram import TextNGram
from sklearn_mm.nn.towers import FeatureTower
from sklearn_mm.persistence import load, save
from sklearn_mm.persistence._codec import Reader, Writer
from sklearn_mm.persistence._folder import _CODECS
from sklearn_mm.texts import TokenRows

TEXTS = ["a red square", "two blue dots", "the square is blue", "nothing but red and blue"]


@pytest.fixture(scope="module")
def X():
    return np.random.default_rng(0).normal(size=(30, 5))


@pytest.fixture(scope="module")
def y(X):
    return np.where(X[:, 0] > 0, "yes", "no")


def opened(estimator, folder):
    save(estimator, folder / "model")
    return load(folder / "model")


def edit(folder, change):
    """Change the parsed config.json of a saved model."""
    file = folder / "config.json"
    config = json.loads(file.read_text())
    change(config)
    file.write_text(json.dumps(config))


def walked(value):
    """Encode a value to JSON text and tensors, and decode it again."""
    writer = Writer(_CODECS)
    text = json.dumps(writer.encode(value, "model"), allow_nan=False)
    reader = Reader(_CODECS, writer.tensors)
    decoded = reader.decode(json.loads(text), "model")
    assert not reader.unused
    return decoded


# scikit-learn's estimators ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "estimator",
    [
        StandardScaler(),
        MinMaxScaler(feature_range=(-1, 1)),
        PCA(n_components=3, random_state=0),
        TruncatedSVD(n_components=3, random_state=np.random.RandomState(0)),
        make_pipeline(StandardScaler(), Normalizer()),
        FeatureUnion([("a", StandardScaler()), ("b", PCA(2, random_state=0))]),
        ColumnTransformer([("a", StandardScaler(), [0, 1]), ("b", "passthrough", slice(2, 4))]),
        ColumnTransformer([("a", make_pipeline(MinMaxScaler(), PCA(1)), [0, 1])], remainder="drop"),
    ],
    ids=lambda transformer: type(transformer).__name__,
)
def test_transformers_answer_to_the_bit_as_before(estimator, X, tmp_path):
    estimator.fit(X)
    np.testing.assert_array_equal(opened(estimator, tmp_path).transform(X), estimator.transform(X))


@pytest.mark.parametrize(
    "estimator",
    [
        LogisticRegression(),
        Ridge(),
        KNeighborsClassifier(algorithm="brute"),
        make_pipeline(StandardScaler(), LogisticRegression()),
    ],
    ids=str,
)
def test_predictors_answer_to_the_bit_as_before(estimator, X, y, tmp_path):
    target = (y == "yes").astype(float) if isinstance(estimator, Ridge) else y
    estimator.fit(X, target)
    np.testing.assert_array_equal(opened(estimator, tmp_path).predict(X), estimator.predict(X))


@pytest.mark.parametrize(
    "estimator",
    [
        TfidfVectorizer(dtype=np.float32, ngram_range=(1, 2)),
        CountVectorizer(stop_words=["a", "the"]),
        CountVectorizer(vocabulary={"red": 0, "blue": 1}),
        make_pipeline(TfidfVectorizer(), TruncatedSVD(2, random_state=0)),
    ],
    ids=str,
)
def test_text_vectorizers_answer_to_the_bit_as_before(estimator, tmp_path):
    expected = estimator.fit(TEXTS).transform(TEXTS)
    answer = opened(estimator, tmp_path).transform(TEXTS)
    if sparse.issparse(expected):
        assert type(answer) is type(expected)
        assert answer.dtype == expected.dtype
        expected, answer = expected.toarray(), answer.toarray()
    np.testing.assert_array_equal(answer, expected)


def test_encoders_of_labels_keep_their_classes(tmp_path):
    labels = LabelEncoder().fit(np.array(["dog", "cat", "dog"], dtype=object))
    assert opened(labels, tmp_path).inverse_transform([0, 1]).tolist() == ["cat", "dog"]
    frame = pd.DataFrame({"animal": ["dog", "cat"], "n": [1, 2]})
    onehot = OneHotEncoder().fit(frame)
    again = opened(onehot, tmp_path)
    assert again.get_feature_names_out().tolist() == onehot.get_feature_names_out().tolist()
    tags = MultiLabelBinarizer().fit([{"sky", "sea"}, {"sand"}])
    assert opened(tags, tmp_path).classes_.tolist() == ["sand", "sea", "sky"]


def test_parameters_output_format_and_unfitted_estimators_survive(X, tmp_path):
    scaler = StandardScaler(with_mean=False).set_output(transform="pandas")
    again = opened(scaler, tmp_path)
    assert again.get_params() == scaler.get_params()
    assert isinstance(again.fit_transform(X), pd.DataFrame)


def test_metadata_requests_survive(X, y, tmp_path):
    with sklearn.config_context(enable_metadata_routing=True):
        model = LogisticRegression().set_fit_request(sample_weight="weight").fit(X, y)
        again = opened(model, tmp_path)
        assert again.get_metadata_routing().fit.requests == {"sample_weight": "weight"}


def test_every_attribute_comes_back_with_its_type(X, y, tmp_path):
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
    again = opened(model, tmp_path)
    for old, new in zip(model, again, strict=True):
        assert {name: type(value) for name, value in vars(old).items()} == {
            name: type(value) for name, value in vars(new).items()
        }
        for name, value in vars(old).items():
            if isinstance(value, np.ndarray):
                assert getattr(new, name).dtype == value.dtype
                assert getattr(new, name).flags.writeable


# Values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        None,
        (1, (2.5, "three"), []),
        {1, 2},
        frozenset({"a"}),
        {1: "a", (2, 3): None},
        {"$array": "a key like a tag"},
        {},
        float("inf"),
        float("-inf"),
        complex(1, -2),
        b"\x00\xff",
        Path("a/b"),
        slice(1, None, -1),
        range(1, 10, 3),
        2**200,
        "Ünïcode 漢字 \ud800",
        Bunch(a=1),
        np.int8(-3),
        np.float32(0.1),
        np.float64("inf"),
        np.bool_(True),
        np.str_("text"),
        np.dtype("<u2"),
        np.float32,
        str,
        torch.device("cuda", 1),
        torch.bfloat16,
        [[], [[]]],
    ],
    ids=repr,
)
def test_values_come_back_equal_and_of_the_same_type(value):
    again = walked(value)
    assert again == value
    assert type(again) is type(value)


def test_nan_comes_back():
    assert np.isnan(walked([float("nan")])[0])
    again = walked(np.float32("nan"))
    assert type(again) is np.float32
    assert np.isnan(again)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(12.0).reshape(3, 4)[:, ::-2],
        np.array(3.5),
        np.empty((0, 4), dtype=np.float32),
        np.array([True, False]),
        np.array([1, 2], dtype=">i4"),
        np.arange(3, dtype=np.uint64),
        np.array([1, 2], dtype=np.float16),
        np.array([1 + 2j], dtype=np.complex64),
        np.array([[1 + 2j]], dtype=np.complex128),
        np.array([["a", "bcd"], ["", "é"]]),
        np.array([b"ab", b"c"]),
        np.array(["2026-11-22"], dtype="datetime64[D]"),
        np.array([["a", None], [1, (2,)]], dtype=object),
        np.array([], dtype=object),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_arrays_come_back_equal_with_dtype_shape_and_order(array):
    array.setflags(write=False)
    again = walked(array)
    np.testing.assert_array_equal(again, array)
    assert again.dtype == array.dtype.newbyteorder("=")
    assert again.shape == array.shape
    assert again.flags.writeable
    assert again.flags.c_contiguous or not array.flags.c_contiguous
    assert again.flags.f_contiguous or not array.flags.f_contiguous


def test_memory_maps_are_saved_as_arrays(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(4))
    again = walked(np.load(tmp_path / "a.npy", mmap_mode="r"))
    assert type(again) is np.ndarray
    assert again.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("form", ["csr", "csc", "coo", "bsr", "dia", "dok", "lil"])
@pytest.mark.parametrize("kind", ["matrix", "array"])
def test_sparse_matrices_come_back_in_their_class(form, kind):
    dense = np.array([[0, 1, 0, 0], [2, 0, 0, 3]], dtype=np.float32)
    matrix = getattr(sparse, f"{form}_{kind}")(dense)
    again = walked(matrix)
    assert type(again) is type(matrix)
    assert again.dtype == matrix.dtype
    np.testing.assert_array_equal(again.toarray(), dense)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_tensors_come_back(dtype):
    tensor = torch.arange(6).reshape(2, 3).to(dtype).T
    again = walked(tensor)
    assert again.dtype == dtype
    assert torch.equal(again, tensor)


def test_arrays_with_memory_in_common_are_saved_once_or_apart():
    base = np.arange(6.0)
    values = {"whole": base, "again": base, "part": base[2:4], "empty": base[:0]}
    writer = Writer(_CODECS)
    writer.encode(values, "model")
    assert sorted(writer.tensors) == ["model.empty", "model.part", "model.whole"]
    again = walked(values)
    assert all(np.array_equal(again[name], values[name]) for name in values)


def test_keys_with_dots_do_not_collide_with_places():
    value = {"a.b": np.zeros(1), "a": {"b": np.ones(1)}}
    again = walked(value)
    assert (again["a.b"].item(), again["a"]["b"].item()) == (0.0, 1.0)


@pytest.mark.parametrize(
    "random",
    [np.random.RandomState(3), np.random.default_rng(3), np.random.Generator(np.random.MT19937(3))],
    ids=["RandomState", "PCG64", "MT19937"],
)
def test_random_states_go_on_where_they_were(random):
    random.normal(size=3)
    again = walked(random)
    np.testing.assert_array_equal(again.normal(size=700), random.normal(size=700))


# This library's modules and records -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "module",
    [TextNGram(5, 3, term_dim=4, hidden_layer_sizes=(6,), dropout=0.5), FeatureTower(4, 2), nn.Identity()],
    ids=lambda module: type(module).__name__,
)
def test_networks_are_rebuilt_with_their_weights_mode_and_frozen_parts(module):
    module.eval()
    for parameter in list(module.parameters())[:1]:
        parameter.requires_grad_(False)
    before = torch.random.get_rng_state()
    again = walked(module)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert type(again) is type(module)
    assert not again.training
    assert [p.requires_grad for p in again.parameters()] == [p.requires_grad for p in module.parameters()]
    state = module.state_dict()
    assert state.keys() == again.state_dict().keys()
    assert all(torch.equal(tensor, state[key]) for key, tensor in again.state_dict().items())


def test_dataclasses_of_the_library_come_back():
    rows = TokenRows(np.array([1, 2, 3]), np.array([0, 2, 3]))
    again = walked(rows)
    assert type(again) is TokenRows
    np.testing.assert_array_equal(again.ids, rows.ids)


# What cannot be saved ---------------------------------------------------------------------------------------------


def my_analyzer(text):
    return text.split()


class Foreign(BaseEstimator):
    pass


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (
            make_pipeline(TfidfVectorizer(analyzer=my_analyzer)),
            r"Pipeline as data: model\.steps\.0\.1\.analyzer \(my_analyzer\) is code.*joblib\.dump",
        ),
        (FunctionTransformer(np.log1p), r"model\.func \(log1p\) is code"),
        (make_pipeline(Foreign()), r"model\.steps\.0\.1 cannot be named.*Foreign.*joblib"),
        (StandardScaler(copy=nn.Linear(2, 2)), r"model\.copy cannot be named.*torch\.nn.*Linear"),
        (StandardScaler(copy=np.ma.array([1])), r"model\.copy .*MaskedArray"),
        (StandardScaler(copy=np.zeros(2, dtype=[("a", "i4")])), r"model\.copy is an array of dtype"),
        (StandardScaler(copy=np.random.Generator(np.random.Philox(0))), "draws from Philox"),
    ],
    ids=["analyzer", "function", "foreign", "module", "masked", "structured", "generator"],
)
def test_code_and_foreign_classes_are_refused_by_name_with_the_way_out(estimator, message, tmp_path):
    with pytest.raises(TypeError, match=message):
        save(estimator, tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_a_function_of_the_script_that_runs_is_refused_before_it_is_missed_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(my_analyzer, "__module__", "__main__")
    with pytest.raises(
        TypeError, match=r"func \(my_analyzer\) is a function .* of the script .*module that can be imp"
    ):
        save(FunctionTransformer(my_analyzer), tmp_path / "model")


def test_trees_are_refused(X, y, tmp_path):
    with pytest.raises(TypeError, match=r"model\.estimators_\.0.*tree_"):
        save(RandomForestClassifier(2).fit(X, y), tmp_path / "model")


def test_what_refers_to_itself_is_refused(tmp_path):
    loop = []
    loop.append(loop)
    with pytest.raises(TypeError, match=r"model\.copy\.0 refers to itself"):
        save(StandardScaler(copy=loop), tmp_path / "model")


def test_only_estimators_are_saved(tmp_path):
    with pytest.raises(TypeError, match="expected an estimator"):
        save({"a": 1}, tmp_path / "model")
    with pytest.raises(TypeError, match="expected an estimator"):
        save(StandardScaler, tmp_path / "model")


# Writing ----------------------------------------------------------------------------------------------------------


def test_saving_again_replaces_the_model_and_leaves_nothing_else(X, tmp_path):
    save(StandardScaler().fit(X), tmp_path / "model")
    save(PCA(2).fit(X), tmp_path / "model")
    assert isinstance(load(tmp_path / "model"), PCA)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_failed_write_leaves_the_old_model_and_no_debris(X, tmp_path, monkeypatch):
    save(StandardScaler().fit(X), tmp_path / "model")

    def full_disk(*args, **kwargs):
        raise OSError("no space left")

    monkeypatch.setattr("sklearn_mm.persistence._folder.save_file", full_disk)
    with pytest.raises(OSError, match="no space left"):
        save(PCA(2).fit(X), tmp_path / "model")
    assert isinstance(load(tmp_path / "model"), StandardScaler)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_failed_swap_brings_the_old_model_back(X, tmp_path, monkeypatch):
    save(StandardScaler().fit(X), tmp_path / "model")
    rename = Path.rename

    def rename_but_the_new(path, target):
        if path.suffix == ".new":
            raise OSError("no more")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", rename_but_the_new)
    with pytest.raises(OSError, match="no more"):
        save(PCA(2).fit(X), tmp_path / "model")
    assert isinstance(load(tmp_path / "model"), StandardScaler)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_folders_with_other_things_and_files_are_not_replaced(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"notes\.txt"):
        save(StandardScaler(), tmp_path)
    with pytest.raises(FileExistsError, match="is a file"):
        save(StandardScaler(), tmp_path / "notes.txt")
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_others_may_read_what_the_umask_lets_them(tmp_path):
    old = os.umask(0o022)
    try:
        save(StandardScaler(), tmp_path / "model")
    finally:
        os.umask(old)
    folder = tmp_path / "model"
    assert folder.stat().st_mode & 0o777 == 0o755
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o644}


def test_missing_parents_are_made_and_links_followed(X, tmp_path):
    save(StandardScaler().fit(X), tmp_path / "a" / "b" / "model")
    (tmp_path / "link").symlink_to(tmp_path / "a" / "b" / "model")
    save(PCA(2).fit(X), tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert isinstance(load(tmp_path / "a" / "b" / "model"), PCA)


# Damaged and hostile folders --------------------------------------------------------------------------------------


@pytest.fixture
def saved(X, tmp_path):
    save(make_pipeline(StandardScaler(), PCA(2, random_state=0)).fit(X), tmp_path / "model")
    return tmp_path / "model"


def test_missing_folders_and_files_are_named(saved, tmp_path):
    with pytest.raises(FileNotFoundError, match="no saved model at .*nowhere"):
        load(tmp_path / "nowhere")
    (saved / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors is missing"):
        load(saved)
    (tmp_path / "model.joblib").write_bytes(b"\x80\x04.")
    with pytest.raises(ValueError, match=r"is a file.*joblib\.load"):
        load(tmp_path / "model.joblib")


@pytest.mark.parametrize("text", ["", "{", "[NaN]", "\xff", "[" * 100_000, '{"a": 1}', "[]"])
def test_files_that_are_no_configuration_are_refused(saved, text):
    (saved / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=r"config\.json (is no valid JSON|was not written by)"):
        load(saved)


@pytest.mark.parametrize("damage", [lambda raw: raw[:-8], lambda raw: b"", lambda raw: b"\xff" * 8 + raw[8:]])
def test_damaged_tensor_files_are_refused(saved, damage):
    file = saved / "model.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ValueError, match="no valid safetensors file"):
        load(saved)


def test_missing_and_foreign_tensors_are_named(saved):
    file = saved / "model.safetensors"
    tensors = load_file(file)
    name = "model.steps.0.1.mean_"
    save_file({key: tensor for key, tensor in tensors.items() if key != name}, file)
    with pytest.raises(ValueError, match=r"steps\.0\.1\.mean_: .*'model\.steps\.0\.1\.mean_' is missing"):
        load(saved)
    save_file({**tensors, "extra": torch.zeros(1)}, file)
    with pytest.raises(ValueError, match=r"no part of the model: 'extra'"):
        load(saved)


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "subprocess.Popen",
        "builtins.eval",
        "StandardScaler",
        "",
        "sklearn.preprocessing._data.StandardScaler",
        "sklearn.preprocessing.scale",
        "sklearn.base.BaseEstimator",
        "sklearn.preprocessing.os.system",
        "sklearn.nowhere.Thing",
        "sklearn..Thing",
        "sklearn_mm.features.Nothing",
        "sklearn_mm.persistence.save",
        "../evil.Thing",
        7,
        None,
        ["sklearn"],
    ],
)
def test_only_public_estimators_of_both_libraries_are_looked_up(saved, name):
    edit(saved, lambda config: config["model"]["$estimator"].update({"class": name}))
    with pytest.raises(ValueError, match=r"config\.json: model: malformed entry '\$estimator'"):
        load(saved)


@pytest.mark.parametrize(
    "node",
    [
        {"$module": {"class": "torch.nn.Linear", "config": {}, "tensors": {}, "frozen": [], "training": False}},
        {"$module": {"class": "sklearn_mm.nn.heads.mlp", "config": {}, "tensors": {}}},
        {"$record": {"class": "sklearn_mm.persistence._folder.save", "fields": {}}},
        {"$record": {"class": "pathlib.Path", "fields": {}}},
        {"$record": {"class": "sklearn_mm.texts._token_rows.TokenRows", "fields": {"ids": 1, "starts": 2}}},
        {"$record": {"class": "sklearn_mm.texts.TokenRows", "fields": {"wrong": 1}}},
        {"$pickle": "gASVIAAAAA=="},
        {"$tuple": [1], "$set": [2]},
        {"$tuple": 3},
        {"$set": [[1]]},
        {"$dict": [[1, 2, 3]]},
        {"$float": "1e5"},
        {"$bytes": "?"},
        {"$path": 3},
        {"$slice": [1, 2, 3, 4]},
        {"$type": "eval"},
        {"$array": {"tensor": 3}},
        {"$array": {"objects": [1], "shape": [2]}},
        {"$array": {"strings": [1], "shape": [1], "dtype": "O"}},
        {"$array": {"bytes": "model.steps.0.1.mean_", "shape": [5], "dtype": "|O"}},
        {"$sparse": {"class": "eval", "shape": [1, 1]}},
        {"$scalar": {"dtype": "O", "value": 1}},
        {"$dtype": "i4,i4"},
        {"$random_state": {"bit_generator": "Evil"}},
        {"$device": "nowhere"},
        {"$torch_dtype": "save"},
        {"$estimator": {"class": "sklearn.preprocessing.StandardScaler"}},
        {"$estimator": {"class": "sklearn.preprocessing.StandardScaler", "state": []}},
    ],
    ids=json.dumps,
)
def test_malformed_entries_are_refused_with_their_place(saved, node):
    edit(saved, lambda config: config["model"]["$estimator"]["state"].update(memory=node))
    with pytest.raises(ValueError, match=r"config\.json: model\.memory: (malformed|unknown) entry"):
        load(saved)


def test_sparse_indices_out_of_range_never_reach_compiled_code(tmp_path):
    save(StandardScaler(copy=sparse.csr_array(np.eye(3))), tmp_path / "model")
    file = tmp_path / "model" / "model.safetensors"
    tensors = load_file(file)
    tensors["model.copy.indices"][1] = 10**6
    save_file(tensors, file)
    with pytest.raises(ValueError, match=r"model\.copy: malformed entry '\$sparse'"):
        load(tmp_path / "model")


def test_random_states_out_of_range_never_reach_compiled_code(tmp_path):
    save(StandardScaler(copy=np.random.RandomState(0)), tmp_path / "model")

    def jump(config):
        config["model"]["$estimator"]["state"]["copy"]["$random_state"]["state"]["pos"] = 10**6

    edit(tmp_path / "model", jump)
    with pytest.raises(ValueError, match="out of range"):
        load(tmp_path / "model")


def test_a_configuration_of_an_absurd_network_takes_no_memory(tmp_path):
    save(StandardScaler(copy=FeatureTower(4, 2)), tmp_path / "model")

    def grow(config):
        config["model"]["$estimator"]["state"]["copy"]["$module"]["config"]["n_features"] = 10**12

    edit(tmp_path / "model", grow)
    with pytest.raises(ValueError, match="do not fit the network's configuration: layers.0.weight, mean, scale"):
        load(tmp_path / "model")


LARGEST_PEAK = 2**26  # bytes: what a small file may take while it is refused


@pytest.fixture(scope="module", autouse=True)
def _loaded_once(tmp_path_factory):
    """Let what the first network that is refused imports be there: it is none of what its file takes."""
    folder = tmp_path_factory.mktemp("once") / "model"
    save(StandardScaler(copy=TextCNN(3, 2, width=0.01)), folder)
    change_module(folder, {"n_words": -1})
    with pytest.raises(ValueError, match="malformed entry"):
        load(folder)


@contextmanager
def little_memory():
    """Fail if what runs inside takes much memory at any time."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < LARGEST_PEAK
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "node",
    [
        {"$array": {"strings": ["a"], "shape": [1], "dtype": "<U500000000"}},
        {"$array": {"strings": ["a"] * 2000 + ["b" * 20_000], "shape": [2001], "dtype": "<U0"}},
    ],
    ids=["width of a string", "no width"],
)
def test_strings_take_no_more_memory_than_the_file_accounts_for(saved, node):
    edit(saved, lambda config: config["model"]["$estimator"]["state"].update(memory=node))
    with little_memory(), pytest.raises(ValueError, match=r"model\.memory: .*does not account for"):
        load(saved)


@pytest.mark.parametrize(("name", "shape"), [("lil_matrix", [10**9, 10**10]), ("dia_array", [4, 10**10])])
def test_sparse_matrices_take_no_more_memory_than_the_file_accounts_for(tmp_path, name, shape):
    # Matrices by coordinates, which take none for what is empty, are called others.
    save(StandardScaler(copy=sparse.coo_array(([1.0], ([2], [10**9])), shape=(4, 10**10))), tmp_path / "model")

    def rename(config):
        config["model"]["$estimator"]["state"]["copy"]["$sparse"].update({"class": name, "shape": shape})

    edit(tmp_path / "model", rename)
    with little_memory(), pytest.raises(ValueError, match=r"model\.copy: .*does not account for"):
        load(tmp_path / "model")


@pytest.mark.parametrize("form", ["lil", "dia", "dok"])
def test_sparse_matrices_that_were_saved_by_coordinates_are_opened(tmp_path, form):
    dense = np.array([[0, 1, 0, 0], [2, 0, 0, 3]], dtype=np.float32)
    save(StandardScaler(copy=sparse.coo_array(dense)), tmp_path / "model")

    def rename(config):
        config["model"]["$estimator"]["state"]["copy"]["$sparse"]["class"] = f"{form}_array"

    edit(tmp_path / "model", rename)
    again = load(tmp_path / "model").copy
    assert again.format == form
    np.testing.assert_array_equal(again.toarray(), dense)


def test_diagonals_out_of_the_matrix_never_reach_compiled_code(tmp_path):
    save(StandardScaler(copy=sparse.dia_array(np.eye(3))), tmp_path / "model")
    file = tmp_path / "model" / "model.safetensors"
    tensors = load_file(file)
    tensors["model.copy.offsets"][0] = 3
    save_file(tensors, file)
    with pytest.raises(ValueError, match="a diagonal is out of the shape"):
        load(tmp_path / "model")


def test_wide_arrays_of_short_strings_are_opened_with_their_dtype():
    array = np.array(["a", "", "é"] * 1000, dtype="<U2000")
    again = walked(array)
    assert again.dtype == array.dtype
    np.testing.assert_array_equal(again, array)


def test_characters_out_of_range_are_refused(tmp_path):
    save(StandardScaler(copy=np.array(["a", ""], dtype="<U2000")), tmp_path / "model")
    file = tmp_path / "model" / "model.safetensors"
    tensors = load_file(file)
    tensors["model.copy"][3] = 255
    save_file(tensors, file)
    with pytest.raises(ValueError, match="a character is out of range"):
        load(tmp_path / "model")


def change_module(folder, config, tensors=None):
    def change(whole):
        node = whole["model"]["$estimator"]["state"]["copy"]["$module"]
        node["config"].update(config)
        if tensors is not None:
            node["tensors"] = tensors

    edit(folder, change)


@pytest.mark.parametrize("sizes", [{"$range": [1, 10**9, 1]}, [{"$range": [1, 10**9, 1]}], {"$set": [1, 2]}])
def test_layer_sizes_that_are_no_list_of_numbers_are_refused(tmp_path, sizes):
    save(StandardScaler(copy=FeatureTower(4, 2)), tmp_path / "model")
    change_module(tmp_path / "model", {"hidden_layer_sizes": sizes})
    with little_memory(), pytest.raises(ValueError, match="the configuration of a network holds no (range|set)"):
        load(tmp_path / "model")


@pytest.mark.parametrize("n_words", [-1, -2, 2**80, 1e300, "many", None, [3]])
def test_numbers_that_are_none_of_a_network_are_refused(tmp_path, n_words):
    save(StandardScaler(copy=TextCNN(3, 2, width=0.01)), tmp_path / "model")
    change_module(tmp_path / "model", {"n_words": n_words})
    with little_memory(), pytest.raises(ValueError, match=r"model\.copy: malformed entry '\$module'"):
        load(tmp_path / "model")


def test_one_tensor_is_not_taken_for_many(tmp_path):
    save(StandardScaler(copy=FeatureTower(256, 256)), tmp_path / "model")
    sizes = [256] * 800
    names = {"scale": "model.copy.mean"} | {
        name: "model.copy.layers.0.weight" if name.endswith("weight") and value.ndim == 2 else "model.copy.mean"
        for name, value in FeatureTower(256, 256, hidden_layer_sizes=sizes).state_dict().items()
    }
    change_module(tmp_path / "model", {"hidden_layer_sizes": sizes}, names)
    with little_memory(), pytest.raises(ValueError, match="does not account for"):
        load(tmp_path / "model")


@pytest.fixture
def image_network(tmp_path):
    network = ImageCNN("squeezenet1_1", weights=None, image_size=32, n_components=3)
    save(StandardScaler(copy=network), tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("weights", ["default", "picture.pt", {"$path": "picture.pt"}])
@pytest.mark.parametrize("name", ["nn.ImageCNN", "nn.MultiScaleCNN", "nn.BackboneTower"])
def test_a_saved_network_takes_no_weights_from_elsewhere(image_network, weights, name, monkeypatch):
    def looked_for(*args, **kwargs):
        raise AssertionError("weights are looked for")

    monkeypatch.setattr("sklearn_mm.nn.backbones.read_state", looked_for)
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", looked_for)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", looked_for)
    change_module(image_network, {"weights": weights})

    def rename(config):
        config["model"]["$estimator"]["state"]["copy"]["$module"]["class"] = f"sklearn_mm.{name}"

    edit(image_network, rename)
    with pytest.raises(ValueError, match="has its own weights, and takes none from elsewhere"):
        load(image_network)


def test_a_network_of_absurd_pictures_takes_no_memory(image_network):
    change_module(image_network, {"image_size": 20_000})
    with little_memory():  # 4.8 GB of pixels
        load(image_network)


class Placed(nn.Module):
    """A network with a table that no state dict holds."""

    def __init__(self):
        super().__init__()
        self.maps = nn.Conv2d(3, 4, 3)
        self.register_buffer("places", torch.linspace(0, 1, 4), persistent=False)
        self.classes = nn.Linear(4, 2)

    def forward(self, pixels):
        return self.classes(self.maps(pixels).mean((2, 3)) + self.places)


class PlacedFamily(BackboneFamily):
    prefix = "placed:"

    def names(self):
        return ["1"]

    def pixels(self, name):
        return PixelConvention(image_size=8, resize_size=8)

    def build(self, name, pretrained):
        return Backbone(Placed())

    def origin(self, name):
        return "here"


def test_networks_with_buffers_that_are_in_no_state_dict_answer_as_before(monkeypatch):
    monkeypatch.setattr("sklearn_mm.nn.backbones.FAMILIES", (PlacedFamily(),))
    network = ImageCNN("placed:1").eval()
    crops = torch.randint(255, (2, 8, 8, 3), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(walked(network)(crops), network(crops))


def test_deep_nesting_is_refused(saved):
    deep = "[" * 5000 + "]" * 5000
    file = saved / "config.json"
    file.write_text(file.read_text().replace('"memory": null', f'"memory": {deep}'))
    with pytest.raises(ValueError, match=r"nested too deeply|no valid JSON"):
        load(saved)


def test_a_model_that_is_no_estimator_is_refused(saved):
    edit(saved, lambda config: config.update(model={"a": 1}))
    with pytest.raises(ValueError, match="holds no estimator"):
        load(saved)


def test_later_formats_are_refused_naming_who_wrote_them(saved):
    edit(saved, lambda config: config.update(format_version=99, versions={"sklearn_mm": "9.9"}))
    with pytest.raises(ValueError, match=r"of format 99.*reads 1 and 2.*9\.9"):
        load(saved)


def test_what_other_versions_saved_warns(tmp_path, monkeypatch):
    from sklearn_mm.features import TextNGramEncoder

    encoder = TextNGramEncoder(n_components=4, word_dim=4, max_epochs=1).fit(TEXTS)
    with monkeypatch.context() as patch:
        patch.setattr(pickle_module, "__version__", "0.0.1")
        save(encoder, tmp_path / "model")
    with pytest.warns(VersionMismatchWarning, match=r"TextNGramEncoder.*0\.0\.1"):
        load(tmp_path / "model")


def test_opening_under_the_same_versions_is_silent(saved):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(saved)
