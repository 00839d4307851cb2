"""Write down what a fixed seed gives today: ``python -m tests.guard.record``.

Only where a change of numbers is meant, and said in its commit. Names of cases as arguments record these alone.
"""

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from tests.guard.cases import CASES, one_thread

EXPECTED = Path(__file__).parent / "expected.json"


def as_json(array):
    """An array as lists; a float32 by the fewest digits that name it."""
    array = np.asarray(array)
    if array.dtype == np.float32:
        array = np.array([float(str(value)) for value in array.ravel()]).reshape(array.shape)
    return array.tolist()


def record(names):
    """Run cases, each in a folder of its own, and return what they tell."""
    told = {}
    for name in names:
        with TemporaryDirectory() as folder, one_thread():
            told[name] = CASES[name](Path(folder))
    return told


def write(told):
    """Write one line an array, so that a change shows what it changes."""
    cases = [
        f"{json.dumps(name)}: {{\n"
        + ",\n".join(f"  {json.dumps(key)}: {json.dumps(as_json(value))}" for key, value in arrays.items())
        + "\n}"
        for name, arrays in told.items()
    ]
    EXPECTED.write_text("{\n" + ",\n".join(cases) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    chosen = sys.argv[1:] or list(CASES)
    kept = json.loads(EXPECTED.read_text(encoding="utf-8")) if sys.argv[1:] else {}
    told = {**kept, **record(chosen)}
    write({name: told[name] for name in CASES if name in told})
