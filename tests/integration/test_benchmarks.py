"""The scripts of tests/benchmarks run, at sizes whose numbers mean nothing."""

import json
from pathlib import Path

import pytest

from tests.scripts import run_script

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parents[1] / "benchmarks"
SCRIPTS = {
    "bench_cache.py": ["--turns", "1", "--n-images", "16", "--image-size", "32"],
    "bench_growth.py": ["--turns", "1", "--share", "0.04", "--steps", "gallery"],
    "bench_hubness.py": ["--turns", "1", "--items", "2000", "--queries", "20", "--components", "32"],
    "bench_training.py": ["--turns", "1", "--images", "200", "--features", "50", "--components", "16"],
    "gpu_check.py": ["--turns", "1", "--device", "cpu", "--small"],
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_measures_and_keeps_its_numbers(script, tmp_path):
    out = tmp_path / "numbers.json"
    run = run_script(FOLDER / script, *SCRIPTS[script], "--out", out)
    assert run.returncode == 0, run.stderr[-2000:]
    records = json.loads(out.read_text())
    assert records
    for record in records:
        assert record["results"][record["against"]]["ratio"] == 1
        assert all(row["median_s"] > 0 for row in record["results"].values())
