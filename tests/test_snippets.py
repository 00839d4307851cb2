"""The snippets a reader copies run as they stand, and so do the short examples."""

import re
import runpy
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sklearn_mm.annotation import MultiLabelAnnotator
from sklearn_mm.datasets import make_captioned_shapes
from sklearn_mm.features import PretrainedTextEncoder
from sklearn_mm.retrieval import JointEmbeddingRanker
from tests.tiny_models import write_bert

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


def _letters(texts):
    alphabet = "abcdefghijklmnopqrstuvwxyz"
    return np.array([[text.count(letter) for letter in alphabet] for text in texts], dtype=np.float32)


class _DualEncoder:
    def encode_image(self, pixels):
        return pixels.mean(dim=(1, 2))

    def encode_text(self, tokens):
        return tokens


def test_snippets_with_encoders_of_others_run(monkeypatch, tmp_path):
    """Their weights are not to be had everywhere, so stand-ins of the same interface take their place."""
    pytest.importorskip("transformers")
    preprocess = lambda picture: torch.from_numpy(np.asarray(picture)).float()  # noqa: E731  as open_clip returns one
    open_clip = SimpleNamespace(
        create_model_and_transforms=lambda name, pretrained: (_DualEncoder(), None, preprocess),
        create_model=lambda name, pretrained: _DualEncoder(),
        get_tokenizer=lambda name: lambda texts: torch.from_numpy(_letters(texts)),
    )
    monkeypatch.setitem(sys.modules, "open_clip", open_clip)
    guide = (ROOT / "docs" / "getting_started.rst").read_text(encoding="utf-8")
    snippets = re.findall(r"^\.\. code-block:: python\n\n((?:   .*\n|\n)+)", guide, flags=re.MULTILINE)
    assert len(snippets) == 2
    scenes = make_captioned_shapes(24, image_size=16, random_state=0)
    for snippet, X in zip(snippets, [scenes.images.reshape(24, -1), list(scenes.images)], strict=True):
        names = {
            "FunctionTransformer": FunctionTransformer,
            "JointEmbeddingRanker": JointEmbeddingRanker,
            "PretrainedTextEncoder": lambda name, local_files_only: PretrainedTextEncoder(
                str(write_bert(tmp_path, max_seq_length=32))
            ),
        }
        exec(compile(re.sub("^   ", "", snippet, flags=re.MULTILINE), "getting_started", "exec"), names)
        ranker = names["ranker"].set_params(n_components=16, max_epochs=1, random_state=0).fit(X, scenes.captions)
        assert ranker.search_images(["a red star"], k=3)[1].shape == (1, 3)


def test_snippets_of_learning_from_people_run(monkeypatch, tmp_path):
    pytest.importorskip("pandas")
    guide = (ROOT / "docs" / "learning_from_people.rst").read_text(encoding="utf-8")
    snippets = re.findall(r"^\.\. code-block:: python\n\n((?:   .*\n|\n)+)", guide, flags=re.MULTILINE)
    assert len(snippets) == 2
    names, truth = np.array(["cat", "dog", "snow"]), np.random.default_rng(0).random((40, 3)) < 0.4
    labels = [names[row].tolist() for row in truth]
    annotator = MultiLabelAnnotator(hidden_layer_sizes=(4,), max_epochs=1, n_folds=None, label_count=1, random_state=0)
    model = make_pipeline(FunctionTransformer(), annotator).fit(truth, labels)
    given = {"model": model, "seen": truth[:3], "pictures": truth, "labels": labels}
    monkeypatch.chdir(tmp_path)
    exec(compile(textwrap.dedent("\n".join(snippets)), "learning_from_people", "exec"), given)
    assert model.classes_.tolist() == ["cat", "dog", "snow", "sofa"]
    assert (tmp_path / "issues.csv").read_text().startswith(",row,label,kind,score,given")


@pytest.mark.slow
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
    helped = set(re.findall(r"^([a-z-]+):.*## \S", makefile, flags=re.MULTILINE))
    assert helped == phony
    assert {"help", "demo", "test", "lint", "docs", "bench"} <= helped


def test_the_commit_hooks_are_the_list_of_make_lint():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", makefile, flags=re.MULTILINE).group(1)
    linted = [line.strip().removeprefix("$(BIN)/") for line in recipe.splitlines()]
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    assert re.findall(r"entry: \.venv/bin/(.*)", hooks) == linted
