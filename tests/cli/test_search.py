"""The job end to end: fit, search, add, remove, evaluate, in one process; a few commands in fresh ones."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sklearn_mm.cli import main
from sklearn_mm.persistence import load
from sklearn_mm.retrieval import Gallery

ROOT = Path(__file__).parent.parent.parent
QUICK = ["--setting", "fast", "-p", "features__image_size=32"]


@pytest.fixture(scope="session")
def fitted(drawn, tmp_path_factory):
    """Fit once by the command line; read only."""
    path = tmp_path_factory.mktemp("fitted") / "photos.model"
    arguments = ["fit", drawn / "photos", drawn / "captions.csv", "-o", path, "--hold-out", "0.4", *QUICK]
    assert main(list(map(str, arguments))) == 0
    return path


@pytest.fixture
def model(fitted, tmp_path):
    """Copy the fitted model, to be changed."""
    return shutil.copytree(fitted, tmp_path / "photos.model")


def test_what_fit_held_out_tells_how_many_a_query_deserves(fitted, run):
    answer = run("search", fitted, "a red star", "--cutoff", "calibrated", "--json", "-k", "24")
    assert answer.code == 0, answer.err
    assert len(json.loads(answer.out)) <= 24


def test_a_fit_leaves_a_model_with_its_gallery_and_nothing_else(fitted, drawn):
    assert [file.name for file in fitted.parent.iterdir()] == ["photos.model"]
    about = json.loads((fitted / "sklearn-mm.json").read_text())
    assert (about["task"], about["gallery"], about["n_pictures"], about["n_captions"]) == ("search", 24, 14, 28)
    assert about["columns"]["text"] == "caption"
    kept = load(fitted / "model").get_params()
    assert {value for name, value in kept.items() if name.endswith("cache")} == {None}
    assert kept["features__verbose"] == 0


def test_paths_alone_can_be_opened_from_here(run, fitted, drawn, monkeypatch):
    monkeypatch.chdir(drawn)
    answer = run("search", fitted, "a red circle", "-k", "3", "--paths-only")
    assert answer.code == 0
    paths = answer.out.splitlines()
    assert len(set(paths)) == 3
    assert all(path.startswith("photos" + os.sep) and Path(path).is_file() for path in paths)
    monkeypatch.chdir(fitted.parent)
    assert all(Path(path).is_file() for path in run("search", fitted, "red", "--paths-only").out.splitlines())
    assert run("search", fitted, "red", "-k", "2", "--paths-only", "-0").out.count("\0") == 2


def test_answers_are_those_of_the_library(run, fitted):
    gallery = Gallery.load(fitted / "gallery", load(fitted / "model"))
    rows = json.loads(run("search", fitted, "a red circle", "--json").out)
    found = gallery.search("a red circle")
    assert [row["id"] for row in rows] == found.ids
    np.testing.assert_allclose([row["score"] for row in rows], found.scores, rtol=1e-6)
    assert [row["year"] for row in rows] == [2000 + int(name[:2]) for name in found.ids]


def test_several_queries_go_into_a_table_with_their_names(run, fitted, tmp_path):
    run("search", fitted, "a red circle", "something blue", "-k", "2", "-o", tmp_path / "found.csv")
    with (tmp_path / "found.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["query"] for row in rows] == ["a red circle"] * 2 + ["something blue"] * 2
    assert {"id", "score", "path", "year"} <= set(rows[0])
    again = run("search", fitted, "red", "-o", tmp_path / "found.csv")
    assert again.code == 1
    assert "--force" in again.err
    assert run("search", fitted, "red", "-o", tmp_path / "found.csv", "--force").code == 0


def test_sentences_come_from_stdin(run, fitted, monkeypatch):
    monkeypatch.setattr(sys, "stdin", iter(["a red circle\n", "\n", "something blue\n"]))
    rows = json.loads(run("search", fitted, "-", "-k", "1", "--json").out)
    assert [row["query"] for row in rows] == ["a red circle", "something blue"]


def test_in_a_pipe_a_table_is_lines_with_tabs(run, fitted):
    header, first, *rest = run("search", fitted, "red", "-k", "2").out.splitlines()
    assert header.split("\t") == ["score", "path", "year"]
    assert len(first.split("\t")) == 3
    assert len(rest) == 1


def test_a_picture_is_a_query_and_its_own_nearest(run, fitted, drawn):
    rows = json.loads(run("search", fitted, drawn / "photos" / "05.png", "-k", "1", "--json").out)
    assert rows[0]["id"] == "05.png"


def test_similar_leaves_the_picture_itself_out(run, fitted, drawn):
    by_path = run("similar", fitted, drawn / "photos" / "05.png", "-k", "3", "--json").out
    assert "05.png" not in [row["id"] for row in json.loads(by_path)]
    assert run("similar", fitted, "05.png", "-k", "3", "--json").out == by_path
    answer = run("similar", fitted, "55.png")
    assert answer.code == 1
    assert "neither a file nor a picture of the gallery" in answer.err


def test_searches_are_narrowed_by_metadata_and_scores(run, fitted):
    rows = json.loads(run("search", fitted, "red", "--where", "year < 2003", "--json").out)
    assert {row["year"] for row in rows} == {2000, 2001, 2002}
    answer = run("search", fitted, "red", "--min-score", "2")
    assert (answer.code, answer.out, answer.err) == (0, "", "nothing found\n")


def test_a_mixture_of_a_picture_a_sentence_and_what_is_not_wanted(run, fitted, drawn):
    picture = drawn / "photos" / "05.png"
    answer = run("search", fitted, "in red", "--image", picture, "--minus", "blue", "-k", "2", "--json")
    assert len(json.loads(answer.out)) == 2
    assert run("search", fitted, "--minus", "blue").code == 2


@pytest.mark.parametrize(
    ("query", "message"),
    [(["  "], "the query is empty"), (["cat.jpg"], "cat.jpg: there is no such picture"), ([], "give a sentence")],
)
def test_queries_that_are_none_are_refused_before_the_model_is_opened(run, fitted, query, message, monkeypatch):
    monkeypatch.setattr("sklearn_mm.persistence.load", None)
    answer = run("search", fitted, *query)
    assert answer.code in (1, 2)
    assert message in answer.err


def test_more_than_there_is_gives_all_and_says_so(run, fitted):
    answer = run("search", fitted, "red", "-k", "1000", "--paths-only")
    assert len(answer.out.splitlines()) == 24
    assert "24 pictures" in answer.err


def test_new_pictures_are_added_once_and_found(run, model, tmp_path):
    new = tmp_path / "new"
    new.mkdir()
    Image.new("RGB", (32, 32), (250, 10, 10)).save(new / "plain.png")
    (new / "broken.jpg").write_bytes(b"no picture")
    answer = run("add", model, new)
    assert answer.code == 0
    assert "broken.jpg" in answer.err
    assert "1 added; 25 pictures" in answer.err
    assert "0 added, 1 there already; 25 pictures" in run("add", model, new / "plain.png").err
    rows = json.loads(run("search", model, new / "plain.png", "-k", "1", "--json").out)
    assert Path(rows[0]["path"]).samefile(new / "plain.png")
    assert json.loads(run("info", model, "--json").out)["gallery"] == 25


@pytest.fixture
def moved(model, drawn, tmp_path):
    """Return a model that has moved together with its pictures."""
    shutil.copytree(drawn / "photos", tmp_path / "photos")
    about = json.loads((model / "sklearn-mm.json").read_text())
    about["root"] = {"absolute": str(tmp_path / "before" / "photos"), "relative": "photos"}
    (model / "sklearn-mm.json").write_text(json.dumps(about))
    return model


def test_a_model_that_moves_with_its_pictures_finds_them(run, moved):
    paths = run("search", moved, "red", "-k", "2", "--paths-only").out.splitlines()
    assert [Path(path).parent for path in paths] == [moved.parent / "photos"] * 2
    assert all(Path(path).is_file() for path in paths)


def test_pictures_are_looked_at_again_when_told_to(run, moved):
    changed = moved.parent / "photos" / "05.png"
    Image.new("RGB", (32, 32)).save(changed)
    assert "0 added, 1 looked at again; 24 pictures" in run("add", moved, changed, "--update").err
    assert json.loads(run("search", moved, changed, "-k", "1", "--json").out)[0]["id"] == "05.png"


def test_pictures_get_the_labels_whose_names_a_search_knows(run, fitted, drawn):
    answer = run("annotate", fitted, drawn / "photos", "--labels", "circle, star,zebra,circle", "--scores", "--json")
    assert answer.code == 0, answer.err
    rows = json.loads(answer.out)
    assert len(rows) == 24
    assert {len(row["labels"]) for row in rows} == {1}
    assert {row["labels"][0] for row in rows} >= {"circle", "star"}
    assert "not seen in training, and so of no meaning here: zebra\n" in answer.err
    (row,) = json.loads(
        run("annotate", fitted, drawn / "photos" / "03.png", "--labels", "red,blue", "-k2", "--json").out
    )
    assert sorted(row["labels"]) == ["blue", "red"]
    assert "two names or more" in run("annotate", fitted, drawn / "photos", "--labels", "circle").err


def test_pictures_are_removed_by_path(run, model, drawn):
    assert "1 removed; 23 pictures" in run("remove", model, drawn / "photos" / "05.png").err
    answer = run("remove", model, "06.pn")
    assert answer.code == 1
    assert "did you mean '06.png'" in answer.err
    assert run("remove", model).code == 2
    assert "23 removed; 0 pictures" in run("remove", model, drawn / "photos").err
    assert "the gallery is empty" in run("search", model, "red").err


def test_pictures_are_removed_whose_files_are_gone(run, moved):
    (moved.parent / "photos" / "06.png").unlink()
    assert "1 removed; 23 pictures" in run("remove", moved, "--missing").err
    assert "06.png" not in run("search", moved, "red", "-k", "23", "--paths-only").out


def test_what_was_held_out_is_measured(run, fitted, drawn, tmp_path):
    answer = run("evaluate", fitted, drawn / "photos", drawn / "captions.csv", "--held-out", "--json")
    report = json.loads(answer.out)
    assert (report["n_images"], report["n_texts"]) == (10, 20)
    assert report["t2i_hit@10"] == 1  # of six
    again = run("evaluate", fitted, drawn / "photos", drawn / "captions.csv", "-o", tmp_path / "measured.jsonl")
    assert again.code == 0
    assert "were trained on" in again.err
    measured = [json.loads(line) for line in (tmp_path / "measured.jsonl").read_text().splitlines()]
    assert {row["measure"]: row["value"] for row in measured}["n_images"] == 24


@pytest.mark.slow
def test_a_model_is_compared_with_another_with_intervals(run, fitted, model, drawn):
    arguments = (drawn / "photos", drawn / "captions.csv", "--held-out", "--json")
    rows = json.loads(run("evaluate", fitted, *arguments, "--against", model).out)
    assert {row["model"] for row in rows} == {str(fitted), str(model)}
    assert all(row["low"] <= row["value"] <= row["high"] for row in rows)
    assert {row["difference"] for row in rows if row["model"] == str(model)} == {0}


def test_a_model_is_not_replaced_without_force_nor_anything_else_with_it(run, model, drawn, tmp_path):
    answer = run("fit", drawn / "photos", drawn / "captions.csv", "-o", model)
    assert answer.code == 1
    assert "--force" in answer.err
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("")
    answer = run("fit", drawn / "photos", drawn / "captions.csv", "-o", tmp_path / "thesis", "--force")
    assert answer.code == 1
    assert "holds no model of this program" in answer.err


@pytest.mark.slow
def test_an_interrupted_fit_leaves_the_old_model_and_goes_on_from_its_features(run, model, drawn, monkeypatch):
    def interrupt(self, *arguments, **named):
        raise KeyboardInterrupt

    before = (model / "sklearn-mm.json").read_text()
    arguments = ("fit", drawn / "photos", drawn / "captions.csv", "-o", model, "--force", *QUICK)
    with monkeypatch.context() as patch:
        patch.setattr("sklearn_mm.retrieval.Gallery.add", interrupt)
        answer = run(*arguments)
    assert answer.code == 130
    assert (model / "sklearn-mm.json").read_text() == before
    assert [file.name for file in sorted(model.parent.iterdir())] == [".photos.model.cache", "photos.model"]
    assert run(*arguments).code == 0
    assert [file.name for file in model.parent.iterdir()] == ["photos.model"]


def test_an_interrupted_add_leaves_the_old_gallery(run, model, drawn, tmp_path, monkeypatch):
    Image.new("RGB", (32, 32)).save(tmp_path / "black.png")

    def interrupt(*arguments, **named):
        raise KeyboardInterrupt

    monkeypatch.setattr("sklearn_mm.index.ExactIndex.save", interrupt)
    assert run("add", model, tmp_path / "black.png").code == 130
    monkeypatch.undo()
    assert len(run("search", model, "red", "-k", "24", "--paths-only").out.splitlines()) == 24


@pytest.mark.slow
def test_settings_of_a_file_are_those_of_the_command_line(run, drawn, tmp_path):
    config = tmp_path / "fit.toml"
    arguments = (drawn / "photos", drawn / "captions.csv", "-o", tmp_path / "first.model", *QUICK)
    assert run("fit", *arguments, "--save-config", config).code == 0
    assert run("fit", "--config", config, "-o", tmp_path / "second.model").code == 0
    first, second = (
        run("search", tmp_path / name, "a red circle", "--json").out for name in ("first.model", "second.model")
    )
    assert first == second


def test_a_model_of_another_task_is_refused_by_name(run, fitted, drawn):
    answer = run("annotate", fitted, drawn / "photos")
    assert answer.code == 1
    assert "searches pictures by sentences; name the labels that it is to choose among, --labels dog,cat" in answer.err


def test_pictures_are_drawn_in_a_terminal(run, fitted, drawn, monkeypatch):
    monkeypatch.chdir(drawn)
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.setenv("TERM", "xterm-256color")
    out = run("search", fitted, "red", "-k", "2", "--pictures").out
    assert out.count("▀") > 100
    assert "\x1b[38;2;" in out
    assert out.count("photos/") == 2


@pytest.mark.slow
def test_a_fresh_process_answers_alike(run, fitted, drawn):
    command = [sys.executable, "-m", "sklearn_mm", "search", str(fitted), "a red circle", "--json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    answer = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=drawn.parent, timeout=300)
    assert (answer.returncode, answer.stderr) == (0, "")
    ids = [row["id"] for row in json.loads(answer.stdout)]
    assert ids == [row["id"] for row in json.loads(run("search", fitted, "a red circle", "--json").out)]
