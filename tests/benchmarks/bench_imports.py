"""Importing the package against importing what it stands on, each in an interpreter of its own.

The first start of all reads the files from disk, and is not counted.

    python tests/benchmarks/bench_imports.py --turns 5 --out imports.json
"""

import statistics
import subprocess
import sys

import bench

PARTS = ("retrieval", "features", "annotation")
MOST_SECONDS_MORE = 0.3  # of the package itself over scikit-learn
FLOOR = "sklearn and torch"  # what every estimator over torch needs


def in_fresh_interpreter(code):
    """Return a function that runs code in an interpreter of its own."""
    return lambda: subprocess.run([sys.executable, "-c", code], check=True)


def main():
    options = bench.parser(__doc__).parse_args()
    runs = {
        "sklearn": "import sklearn",
        "sklearn_mm": "import sklearn_mm",
        "torch": "import torch",
        FLOOR: "import torch, sklearn.base, sklearn.preprocessing",
        **{f"sklearn_mm.{part}": f"import sklearn_mm.{part}" for part in PARTS},
    }
    seconds = bench.interleave({name: in_fresh_interpreter(code) for name, code in runs.items()}, options.turns)
    pairs = zip(seconds["sklearn_mm"], seconds["sklearn"], strict=True)
    more = statistics.median(ours - other for ours, other in pairs)
    print(f"import sklearn_mm takes {more:.2f} s more than import sklearn (target <= {MOST_SECONDS_MORE})")
    targets = {"sklearn_mm.retrieval": ("<=", 1.15)}
    record = bench.report("imports", seconds, against="torch", targets=targets, seconds_more=more)
    floor = bench.report("imports, against both", seconds, against=FLOOR, targets=targets)
    bench.save([record, floor], options.out)


if __name__ == "__main__":
    main()
