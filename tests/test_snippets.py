"""The snippets a reader copies run as they stand, and so do the short examples."""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
GUIDES = ["README.md"]
EXAMPLES = sorted(path.name for path in (ROOT / "examples").glob("plot_*.py"))


@pytest.mark.parametrize("guide", GUIDES)
def test_python_snippets_run_in_their_order(guide, photo_folder):
    text = (ROOT / guide).read_text(encoding="utf-8")
    snippets = re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    assert snippets
    names = {}
    for snippet in snippets:
        exec(compile(snippet, guide, "exec"), names)


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_of_the_gallery_run(example, tmp_path, monkeypatch):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    monkeypatch.chdir(tmp_path)
    pyplot.switch_backend("Agg")
    runpy.run_path(str(ROOT / "examples" / example))
    assert pyplot.get_fignums(), "an example of the gallery shows a figure"
    pyplot.close("all")


def test_make_help_lists_every_target():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = set(re.search(r"^\.PHONY: (.*)$", makefile, flags=re.MULTILINE).group(1).split())
    helped = set(re.findall(r"^([a-z]+):.*## \S", makefile, flags=re.MULTILINE))
    assert helped == phony
    assert {"help", "demo", "test", "lint", "docs", "bench"} <= helped


def test_the_commit_hooks_are_the_list_of_make_lint():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", makefile, flags=re.MULTILINE).group(1)
    linted = [line.strip().removeprefix("$(BIN)/") for line in recipe.splitlines()]
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    assert re.findall(r"entry: \.venv/bin/(.*)", hooks) == linted
