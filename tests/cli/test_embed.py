import json

import pytest

from sklearn_mm.persistence import load
from sklearn_mm.scaling import Manifest


def test_pictures_are_embedded_into_shards(run, drawn, bare_model, tmp_path):
    answer = run("embed", bare_model, drawn / "photos", "-o", tmp_path / "vectors", "--format", "npy")
    assert (answer.code, answer.out) == (0, "")
    assert "24 vectors of 512 int8 in 1 shards" in answer.err
    manifest = Manifest.open(tmp_path / "vectors")
    _, ids, vectors = manifest.read(0)
    assert list(ids[:2]) == ["00.png", "01.png"]
    assert (vectors[:1] == load(bare_model).transform([str(drawn / "photos" / "00.png")])).all()
    assert run("embed", bare_model, drawn / "photos", "-o", tmp_path / "vectors", "--format", "npy", "-q").err == ""


def test_either_pictures_or_texts_are_embedded(run, bare_model, tmp_path):
    assert run("embed", bare_model, "-o", tmp_path / "vectors").code == 2
    (tmp_path / "empty.txt").write_text("\n \n")
    answer = run("embed", bare_model, "--texts", tmp_path / "empty.txt", "-o", tmp_path / "vectors")
    assert answer.code == 1
    assert "there are no texts in it" in answer.err
    (tmp_path / "texts.txt").write_text("a dog\n")
    answer = run("embed", bare_model, "--texts", tmp_path / "texts.txt", "-o", tmp_path / "vectors")
    assert answer.code == 1
    assert "embeds no texts" in answer.err


def test_info_of_a_model_that_was_saved_in_python(run, bare_model):
    facts = json.loads(run("info", bare_model, "--json").out)
    assert facts["estimator"] == "sklearn_mm.features.FullNetworkEmbedding"
    assert "sklearn_mm" in facts["saved by"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nothing", "there is no model at"),
        ("model.joblib", "is a file; a model is the folder"),
        ("empty", "holds no model: sklearn-mm.json is missing"),
        ("broken", "is no valid JSON"),
        ("foreign", "was not written by `sklearn-mm fit`"),
        ("later", "is of format 99, this sklearn_mm reads up to 1"),
    ],
)
def test_what_is_no_model_is_named_before_anything_is_loaded(run, tmp_path, path, message):
    (tmp_path / "model.joblib").write_bytes(b"pickle")
    texts = {"broken": "{", "foreign": "{}", "later": '{"format": "sklearn_mm.cli", "format_version": 99}'}
    for name in ("empty", *texts):
        (tmp_path / name).mkdir()
    for name, text in texts.items():
        (tmp_path / name / "sklearn-mm.json").write_text(text)
    for verb in (["info"], ["search", "a dog"]):
        answer = run(verb[0], tmp_path / path, *verb[1:])
        assert answer.code == 1
        assert message in answer.err
