"""More labels than a dense Y has room for."""

import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from sklearn_mm.annotation import LabelCountPredictor, MultiLabelAnnotator

N_IMAGES, N_LABELS = 20_000, 10_000
DENSE_BYTES = N_IMAGES * N_LABELS  # of int8, the smallest there is: 200 MB

FIT = """
import resource, warnings
import numpy as np
from tests.annotation.test_many_labels import make_many, settings
from sklearn_mm.annotation import MultiLabelAnnotator

warnings.simplefilter("ignore")
X, Y = make_many()
annotator = MultiLabelAnnotator(**settings())
annotator.fit(X[:2000], Y[:2000]).predict(X[:2000])  # takes what a block takes
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
annotator.fit(X, Y)
predicted = annotator.predict(X)
assert predicted.shape == Y.shape
assert predicted.multiply(Y).sum() > 0
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def make_many():
    """Rows with up to seven labels of ten thousand, the first ones most often."""
    rng = np.random.default_rng(0)
    number = rng.integers(0, 8, N_IMAGES)
    rows, columns = np.repeat(np.arange(N_IMAGES), number), (N_LABELS * rng.random(number.sum()) ** 3).astype(int)
    Y = sparse.csr_array((np.ones(len(rows), np.int8), (rows, columns)), shape=(N_IMAGES, N_LABELS))
    Y.data[:] = 1
    return rng.normal(size=(N_IMAGES, 8)).astype(np.float32), Y


def settings():
    return {
        "hidden_layer_sizes": (8,),
        "max_epochs": 1,
        "batch_size": 1024,
        "n_folds": None,
        "members": None,
        "random_state": 0,
        "precision": "float32",
    }


@pytest.mark.slow
def test_neither_training_nor_predicting_makes_labels_dense():
    pytest.importorskip("resource", reason="the system does not tell its memory")
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", FIT]
    run = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300, cwd=root)
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(run.stdout) * unit < DENSE_BYTES


@pytest.mark.filterwarnings("ignore::sklearn_mm.exceptions.LabelWarning")
def test_probabilities_are_held_once():
    X, Y = make_many()
    annotator = MultiLabelAnnotator(**{**settings(), "label_count": 3}).fit(X[:1000], Y[:1000])
    tracemalloc.start()
    probability = annotator.predict_proba(X[:5000])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.5 * probability.nbytes


@pytest.mark.filterwarnings("ignore::sklearn_mm.exceptions.LabelWarning")
def test_one_image_of_all_labels_does_not_blow_up_the_rules():
    X, Y = make_many()
    Y = sparse.vstack([np.ones((1, N_LABELS), np.int8), Y[1:2000]], format="csr")
    tracemalloc.start()
    annotator = MultiLabelAnnotator(**settings(), label_count=LabelCountPredictor("regression")).fit(X[:2000], Y)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert annotator.predict_count(X[:2000]).max() <= 200
    assert peak < 220e6  # measured 140 MB; with ten thousand ranks to look at it is 340 MB
