import json
import os
import re
import resource
import shlex
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import click
import pytest

from sklearn_mm._version import __version__
from sklearn_mm.cli import _run as running
from sklearn_mm.cli import main
from sklearn_mm.cli._app import app

ROOT = Path(__file__).parent.parent.parent
HELP_SECONDS = 0.5  # of the processor: another process may hold it meanwhile


def _fresh(*arguments, **named):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "sklearn_mm", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, **named)


@pytest.fixture
def failing(monkeypatch):
    """Make a verb that raises what it is given."""

    def make(error):
        @click.command()
        def fail():
            raise error

        monkeypatch.setitem(app.commands, "fail", fail)

    return make


@pytest.mark.parametrize("verb", list(app.commands))
def test_each_verb_teaches_by_example(run, verb):
    answer = run(verb, "--help")
    assert answer.code == 0
    assert re.search(rf"Examples:\n    sklearn-mm {verb} ", answer.out)


def test_the_verbs_stand_in_the_order_of_their_use_with_whole_lines(run):
    listed = run("--help").out.partition("Commands:\n")[2]
    assert [line.split()[0] for line in listed.splitlines()] == list(app.commands)
    assert "..." not in listed


def test_the_examples_of_the_help_are_valid_command_lines(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fit.toml").write_text("folder = 'photos'\n")
    for name, verb in app.commands.items():
        examples = re.findall(rf"^ +sklearn-mm {name}(.*)$", verb.help, flags=re.MULTILINE)
        assert examples
        for example in examples:
            verb.make_context(name, shlex.split(example.partition(" < ")[0]))


def test_help_is_there_at_once_and_loads_nothing_heavy():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert _fresh("--help").returncode == 0
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime < HELP_SECONDS
    code = "import sys; from sklearn_mm.cli import main; main(['fit', '--help']); print(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert not {"numpy", "torch", "sklearn", "rich", "pandas", "PIL"} & set(loaded.stdout.split())


def test_the_version_is_told(run):
    assert run("--version").out == f"sklearn-mm {__version__}\n"


def test_a_wrong_command_line_exits_with_2_and_shows_the_usage(run):
    answer = run("serach", "photos.model")
    assert answer.code == 2
    assert "Usage: sklearn-mm" in answer.err
    assert "search" in answer.err
    assert run("search").code == 2


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ValueError("row 3 is empty"), 1, "error: row 3 is empty\n"),
        (KeyError("there is no id 'x'"), 1, "error: there is no id 'x'\n"),
        (FileNotFoundError(2, "No such file or directory", "a.csv"), 1, "error: a.csv: No such file or directory\n"),
        (MemoryError(), 1, "error: the memory is not enough\n"),
        (AttributeError("oops"), 70, "error: AttributeError: oops\nThis should not happen"),
        (KeyboardInterrupt(), 130, "error: interrupted; nothing is half written"),
    ],
)
def test_what_goes_wrong_is_a_line_and_an_exit_code(run, failing, error, code, message):
    failing(error)
    answer = run("fail")
    assert answer.code == code
    assert message in answer.err
    assert "Traceback" not in answer.err


def test_debug_shows_where_in_the_code(run, failing):
    failing(ValueError("row 3 is empty"))
    answer = run("--debug", "fail")
    assert answer.code == 1
    assert "Traceback" in answer.err
    assert "in fail" in answer.err


def test_warnings_are_lines_of_their_own_each_once(run, monkeypatch):
    @click.command()
    def warn():
        for _ in range(2):
            warnings.warn("3 pictures were left out", UserWarning, stacklevel=1)
            warnings.warn("of no use to who types", DeprecationWarning, stacklevel=1)

    monkeypatch.setitem(app.commands, "warn", warn)
    answer = run("warn")
    assert (answer.code, answer.err) == (0, "warning: 3 pictures were left out\n")


def test_a_missing_toolkit_is_named_with_the_extra(monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "sklearn_mm.cli._run")
    monkeypatch.setitem(sys.modules, "click", None)
    monkeypatch.delattr(sys.modules["sklearn_mm.cli"], "_run", raising=False)
    assert main(["--help"]) == 1
    assert "pip install 'sklearn-mm[cli]'" in capsys.readouterr().err


@pytest.mark.slow
def test_a_reader_that_has_seen_enough_is_no_error(tmp_path):
    program = f"{sys.executable} -m sklearn_mm info --json"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    piped = subprocess.run(
        f"{program} | true; echo ${{PIPESTATUS[0]}}",
        shell=True, executable="/bin/bash", capture_output=True, text=True, env=environment, timeout=120,
    )  # fmt: skip
    assert "Traceback" not in piped.stderr
    assert "error" not in piped.stderr


def test_the_guide_has_the_help_of_every_verb():
    guide = (ROOT / "docs" / "command_line.rst").read_text(encoding="utf-8")
    assert re.findall(r"^\.\. help-of-verb:: (\w+)$", guide, flags=re.MULTILINE) == list(app.commands)


def test_termination_is_an_interrupt():
    with running._terminated_as_interrupted(), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGTERM)


def test_info_without_a_model_says_what_is_installed(run):
    facts = json.loads(run("info", "--json").out)
    assert facts["sklearn_mm"] == __version__
    assert facts["torch"]
    assert "torch" in run("info").out
