"""The commands of the guide, those of the README among them, run as they stand, in their order."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
GUIDE = ROOT / "docs" / "command_line.rst"


def test_the_commands_of_the_readme_are_those_of_the_guide():
    readme = re.findall(r"^\$ (sklearn-mm .*)$", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert len(readme) == 2
    assert set(readme) <= set(re.findall(r"^   \$ (.*)$", GUIDE.read_text(encoding="utf-8"), flags=re.MULTILINE))


@pytest.mark.slow
def test_the_commands_and_the_snippet_of_the_guide_run(run, drawn, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(drawn, tmp_path, dirs_exist_ok=True)
    (tmp_path / "new_photos").mkdir()
    shutil.copy(drawn / "photos" / "03.png", tmp_path / "new_photos" / "new.png")
    shutil.copy(drawn / "photos" / "04.png", tmp_path / "cat.png")
    text = GUIDE.read_text(encoding="utf-8").replace("cat.jpg", "cat.png")
    commands = re.findall(r"^   \$ sklearn-mm (.*)$", text, flags=re.MULTILINE)
    assert len(commands) > 10
    for command in commands:
        answer = run(*shlex.split(command))
        assert answer.code == 0, (command, answer.err)
    (snippet,) = re.findall(r"^\.\. code-block:: python\n\n((?:   .*\n|\n)+)", text, flags=re.MULTILINE)
    exec(compile(re.sub("^   ", "", snippet, flags=re.MULTILINE), "command_line", "exec"), {})
    assert "png" in capsys.readouterr().out
