import csv
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest

from sklearn_mm.cli._errors import CommandError
from sklearn_mm.cli._files import check_free, new_file, new_folder
from sklearn_mm.cli._results import check_output, write_rows

ROWS = [
    {"path": Path("a.jpg"), "score": np.float32(0.5), "labels": ["dog", "cat"], "year": np.int64(2020)},
    {"path": "b.jpg", "score": math.nan, "labels": [], "note": "two\nlines"},
]


@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_tables_of_text_are_read_back(tmp_path, ending):
    write_rows(ROWS, tmp_path / f"found.{ending}")
    with (tmp_path / f"found.{ending}").open(newline="") as file:
        first, second = csv.DictReader(file, delimiter="," if ending == "csv" else "\t")
    assert first == {"path": "a.jpg", "score": "0.5000", "labels": "dog, cat", "year": "2020", "note": ""}
    assert (second["score"], second["note"]) == ("", "two\nlines")


@pytest.mark.parametrize("ending", ["json", "jsonl", "parquet"])
def test_files_with_types_are_read_back(tmp_path, ending):
    path = tmp_path / f"found.{ending}"
    write_rows(ROWS, path)
    if ending == "parquet":
        rows = pytest.importorskip("pyarrow.parquet").read_table(path).to_pylist()
    else:
        text = path.read_text()
        rows = json.loads(text) if ending == "json" else [json.loads(line) for line in text.splitlines()]
    assert rows[0]["path"] == "a.jpg"
    assert (rows[0]["score"], rows[0]["labels"], rows[0]["year"]) == (0.5, ["dog", "cat"], 2020)
    assert rows[1]["score"] is None


def test_an_ending_that_is_no_format_is_refused_before_any_work(tmp_path):
    with pytest.raises(CommandError, match=r"found\.xlsx.*\.csv"):
        check_output(str(tmp_path / "found.xlsx"), False)


def test_an_output_that_exists_is_left_without_force(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    path = tmp_path / "found.csv"
    path.write_text("kept")
    with pytest.raises(CommandError, match=r"found\.csv exists; --force"):
        check_output(str(path), False)
    assert check_output(str(path), True) == path
    assert path.read_text() == "kept"  # until there is something to put in its place


def test_an_output_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CommandError, match="is a file"):
        check_free(tmp_path / "file" / "found.csv", False)


def test_an_interrupted_file_leaves_the_old_one_and_nothing_else(tmp_path):
    path = tmp_path / "found.csv"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), new_file(path) as made:
        made.write_text("half")
        raise KeyboardInterrupt
    assert [file.name for file in tmp_path.iterdir()] == ["found.csv"]
    assert path.read_text() == "old"


def test_an_interrupted_folder_leaves_the_old_one_and_nothing_else(tmp_path):
    path = tmp_path / "photos.model"
    with new_folder(path) as made:
        (made / "model").write_text("old")
    with pytest.raises(KeyboardInterrupt), new_folder(path) as made:
        (made / "model").write_text("half")
        raise KeyboardInterrupt
    assert [file.name for file in tmp_path.iterdir()] == ["photos.model"]
    assert (path / "model").read_text() == "old"
    with new_folder(path) as made:
        (made / "other").write_text("new")
    assert [file.name for file in path.iterdir()] == ["other"]


@pytest.mark.skipif(sys.platform == "win32", reason="folders cannot be held there")
def test_what_a_killed_process_left_is_removed_and_what_a_running_one_writes_is_not(tmp_path):
    path = tmp_path / "photos.model"
    with new_folder(path) as made:
        (made / "model").write_text("old")
    left = tmp_path / ".photos.model.0123456789ab.new"
    other = tmp_path / ".photos.model.cache"
    for folder in (left, left.with_suffix(".old"), other):
        folder.mkdir()
        (folder / "half").write_text("")
    with new_folder(path) as running:
        assert not left.exists()
        assert not left.with_suffix(".old").exists()
        assert other.exists()
        with new_folder(path) as made:
            (made / "model").write_text("new")
        assert running.exists()
        (running / "model").write_text("last")
    assert (path / "model").read_text() == "last"
    assert sorted(each.name for each in tmp_path.iterdir()) == [".photos.model.cache", "photos.model"]


@pytest.mark.skipif(sys.platform == "win32", reason="folders cannot be held there")
def test_a_process_that_was_killed_while_it_replaced_a_folder_has_not_lost_it(tmp_path):
    path, left = tmp_path / "photos.model", tmp_path / ".photos.model.0123456789ab.old"
    left.mkdir()
    (left / "model").write_text("old")
    left.with_suffix(".new").mkdir()
    with pytest.raises(KeyboardInterrupt), new_folder(path):
        raise KeyboardInterrupt
    assert (path / "model").read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["photos.model"]


def test_a_folder_that_cannot_take_its_place_brings_the_old_one_back(tmp_path, monkeypatch):
    path = tmp_path / "photos.model"
    path.mkdir()
    (path / "model").write_text("old")
    rename = Path.rename

    def fail(self, target):
        if self.name.endswith(".new"):
            raise OSError("disk on fire")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="on fire"), new_folder(path):
        pass
    assert (path / "model").read_text() == "old"
