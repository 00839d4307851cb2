import csv
import json

import pytest

from sklearn_mm.cli import main

QUICK = ["--setting", "fast", "-p", "columns__image__image_size=32", "-p", "annotator__max_epochs=3"]


@pytest.fixture(scope="session")
def labeled(drawn, tmp_path_factory):
    """Fit labels once by the command line; read only."""
    path = tmp_path_factory.mktemp("labeled") / "labels.model"
    assert main(["fit", str(drawn / "photos"), str(drawn / "labels.csv"), "-o", str(path), *QUICK]) == 0
    return path


def test_pictures_get_labels(run, labeled, drawn, tmp_path):
    assert run("annotate", labeled, drawn / "photos", "-o", tmp_path / "found.csv").code == 0
    with (tmp_path / "found.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 24
    assert set(rows[0]) == {"path", "labels"}
    assert any(row["labels"] for row in rows)


def test_a_number_of_labels_with_their_probabilities(run, labeled, drawn):
    (row,) = json.loads(run("annotate", labeled, drawn / "photos" / "03.png", "-k", "2", "--scores", "--json").out)
    assert len(row["labels"]) == len(row["scores"]) == 2
    assert row["scores"] == sorted(row["scores"], reverse=True)
    assert 0 <= row["scores"][0] <= 1


def test_pictures_that_cannot_be_read_are_left_out_and_named(run, labeled, drawn, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    answer = run("annotate", labeled, drawn / "photos" / "03.png", tmp_path / "broken.png", "--json")
    assert answer.code == 0
    assert [row["path"] for row in json.loads(answer.out)] == [str(drawn / "photos" / "03.png")]
    assert "1 left out" in answer.err
    assert "broken.png" in answer.err
    answer = run("annotate", labeled, tmp_path / "broken.png")
    assert answer.code == 1
    assert "none of the pictures can be read" in answer.err
    assert run("annotate", labeled, tmp_path / "none").code == 1


def test_labels_are_measured(run, labeled, drawn):
    report = json.loads(run("evaluate", labeled, drawn / "photos", drawn / "labels.csv", "--json").out)
    assert 0 < report["O-F1"] <= 1


def test_a_model_of_labels_neither_searches_nor_embeds(run, labeled, drawn, tmp_path):
    assert "`search` needs a model that was fitted to search" in run("search", labeled, "a dog").err
    answer = run("embed", labeled, drawn / "photos", "-o", tmp_path / "vectors")
    assert answer.code == 1
    assert "gives labels and no vectors" in answer.err
