"""Parameters that name files and folders, in every estimator that has one."""

import pickle
from pathlib import Path

import joblib
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_mm.annotation import LabelCountPredictor, MultiLabelAnnotator
from sklearn_mm.features import (
    FullNetworkEmbedding,
    ImageCNNEncoder,
    MultiScaleCNNEncoder,
    TextCNNEncoder,
    TextGRUEncoder,
    TextNGramEncoder,
    TextSequenceEncoder,
)
from sklearn_mm.persistence import load, save
from sklearn_mm.retrieval import JointEmbeddingRanker

NAMES = ("cache", "checkpoint", "weights", "word_vectors")
ESTIMATORS = (
    FullNetworkEmbedding,
    ImageCNNEncoder,
    JointEmbeddingRanker,
    LabelCountPredictor,
    MultiLabelAnnotator,
    MultiScaleCNNEncoder,
    TextCNNEncoder,
    TextGRUEncoder,
    TextNGramEncoder,
    TextSequenceEncoder,
)
PARAMETERS = [
    pytest.param(estimator, name, id=f"{estimator.__name__}-{name}")
    for estimator in ESTIMATORS
    for name in NAMES
    if name in estimator().get_params(deep=False)
]


@pytest.mark.parametrize(("estimator", "name"), PARAMETERS)
def test_a_saved_path_is_one_on_every_system(estimator, name, tmp_path):
    path = Path("data") / "file"
    made = estimator(**{name: path})
    assert clone(made).get_params()[name] == path  # as scikit-learn asks for
    content = pickle.dumps(make_pipeline(made))
    assert b"pathlib" not in content
    assert pickle.loads(content)[0].get_params()[name] == "data/file"
    save(make_pipeline(made), tmp_path / "model")
    assert load(tmp_path / "model")[0].get_params()[name] == "data/file"
    assert made.get_params()[name] is path


def test_paths_in_pairs_and_of_files_called_as_a_word_are_kept_too():
    vectors = pickle.loads(pickle.dumps(TextCNNEncoder(word_vectors=(Path("a.npy"), Path("b") / "words.txt"))))
    assert vectors.word_vectors == ("a.npy", "b/words.txt")
    weights = pickle.loads(pickle.dumps(ImageCNNEncoder(weights=Path("default")))).weights
    assert weights != "default"
    assert Path(weights) == Path("default")


@pytest.mark.parametrize("path", ["", "  ", Path()], ids=repr)
@pytest.mark.parametrize(("estimator", "name"), PARAMETERS)
def test_an_empty_path_is_refused_before_anything_is_done(estimator, name, path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ValueError, match=f"The '{name}' parameter of {estimator.__name__} must be .*that names a folder"
    ):
        estimator(**{name: path}).fit([[0.0], [1.0]], ["a", "b"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", ["", " ", Path()], ids=repr)
def test_an_empty_path_is_no_place_for_a_model(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for use in (lambda: save(StandardScaler(), path), lambda: load(path)):
        with pytest.raises(ValueError, match="path must name a file or a folder, got"):
            use()
    with pytest.raises(FileExistsError, match="is the working directory"):
        save(StandardScaler(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_file_managers_leave_in_a_folder_is_no_reason_not_to_save_again(tmp_path):
    folder = tmp_path / "model"
    save(StandardScaler(), folder)
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._config.json"):
        (folder / name).write_bytes(b"\0")
    save(StandardScaler(with_mean=False), folder)
    assert load(folder).with_mean is False
    assert sorted(file.name for file in folder.iterdir()) == ["config.json", "model.safetensors"]
    (folder / ".git").mkdir()
    with pytest.raises(FileExistsError, match=r"holds more than a saved model \('\.git'\)"):
        save(StandardScaler(), folder)


def test_of_a_search_the_best_estimator_is_saved(tmp_path):
    search = GridSearchCV(
        make_pipeline(StandardScaler()), {"standardscaler__with_mean": [True]}, scoring=lambda *_: 0.0
    )
    search.fit([[0.0], [1.0]] * 5)
    with pytest.raises(TypeError, match=r"cannot save this GridSearchCV .*Save its best_estimator_"):
        save(search, tmp_path / "model")
    save(search.best_estimator_, tmp_path / "model")
    assert joblib.hash(load(tmp_path / "model").get_params()["standardscaler"].mean_) == joblib.hash(
        search.best_estimator_[0].mean_
    )
