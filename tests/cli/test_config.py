import re
import tomllib

import click
import pytest

from sklearn_mm.cli._config import parse_parameters, write_config


def test_settings_come_back_as_they_were(tmp_path):
    settings = {
        "folder": 'my "photos" \\ Ü\n\x7f',
        "seed": 3,
        "hold_out": 0.2,
        "force": True,
        "sep": None,
        "split": ("a",),
    }
    write_config(settings, {"rank__max_epochs": 3, "layers": "last"}, tmp_path / "fit.toml")
    read = tomllib.loads((tmp_path / "fit.toml").read_text())
    assert read.pop("parameters") == {"rank__max_epochs": 3, "layers": "last"}
    assert read == {"folder": 'my "photos" \\ Ü\n\x7f', "seed": 3, "hold_out": 0.2, "force": True, "split": ["a"]}


def test_parameters_are_values_of_toml_or_else_text():
    given = ("a__max_epochs=3", "dropout = 0.5", "layers=last", "discretize=false", "sizes=[1, 2]", "name=a=b")
    assert parse_parameters(given) == {
        "a__max_epochs": 3,
        "dropout": 0.5,
        "layers": "last",
        "discretize": False,
        "sizes": [1, 2],
        "name": "a=b",
    }
    with pytest.raises(click.BadParameter, match="NAME=VALUE"):
        parse_parameters(("max_epochs",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("settign = 'fast'", r"unknown setting 'settign'; did you mean 'setting'"),
        ("setting = ", r"no valid TOML"),
        ("parameters = 3", r"\[parameters\] is a table"),
    ],
)
def test_a_file_that_is_no_config_is_refused_with_what_to_do(run, tmp_path, text, message):
    (tmp_path / "fit.toml").write_text(text)
    answer = run("fit", "--config", tmp_path / "fit.toml", "photos")
    assert answer.code == 1

    assert re.search(message, answer.err)
    assert run("fit", "--config", tmp_path / "none.toml", "photos").err.endswith("there is no such file\n")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("image,caption\n00.png,a red dot\n", "takes two pictures or more to learn from, got 1"),
        ("a,b\n1,2\n", "--image-column"),
        ("image,caption\nnone.png,a red dot\n", "none.png"),
    ],
    ids=["one picture", "no column of pictures", "no file"],
)
def test_a_table_that_does_not_fit_is_refused_with_the_option_that_mends_it(run, drawn, tmp_path, table, message):
    (tmp_path / "table.csv").write_text(table)
    answer = run("fit", drawn / "photos", tmp_path / "table.csv", "-o", tmp_path / "photos.model")
    assert answer.code == 1
    assert message in answer.err
    assert [file.name for file in tmp_path.iterdir()] == ["table.csv"]


def test_a_folder_or_a_table_that_is_not_there_is_named(run, drawn, tmp_path):
    assert "nowhere" in run("fit", tmp_path / "nowhere", "-o", tmp_path / "photos.model").err
    answer = run("fit", drawn / "photos", "none.csv", "-o", tmp_path / "photos.model")
    assert answer.code == 1
    assert "none.csv" in answer.err
