"""Two processes that train together learn what one learns with twice the batch."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone

import sklearn_mm
from sklearn_mm.annotation import LabelCountPredictor, MultiLabelAnnotator
from sklearn_mm.features import TextCNNEncoder, TextNGramEncoder
from sklearn_mm.losses import InfoNCELoss, InstanceLoss, RankingLoss
from sklearn_mm.retrieval import JointEmbeddingRanker

pytestmark = pytest.mark.slow

ROOT = Path(sklearn_mm.__file__).parents[1]
N_IMAGES = 61  # so that the last batch has an image for one process more than for the other
ROUNDING = {"rtol": 2e-4, "atol": 2e-5}  # sums of float32 in another order, through some tens of steps of AdamW
FITTED = """
    import os, sys
    import joblib
    from sklearn.base import clone

    folder = sys.argv[1]
    estimators, X, y, groups = joblib.load(folder + "/job")
    for name, estimator in estimators.items():
        fitted = estimator.fit(X, y, groups=groups if name == "groups" else None)
        joblib.dump(fitted, f"{folder}/{name}-{os.environ['RANK']}")
"""


def start(script, folder, n=2, **options):
    """Start a script under torchrun, as so many processes of this checkout."""
    path = folder / "script.py"
    path.write_text(textwrap.dedent(script))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={n}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, str(path), str(folder)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )


def run(script, folder, n=2):
    """Return the exit status and what was written."""
    process = start(script, folder, n)
    output, _ = process.communicate(timeout=300)
    return process.returncode, output


def captioned():
    rng = np.random.default_rng(0)
    kind = rng.integers(6, size=N_IMAGES)
    features = (np.eye(6)[kind] + rng.normal(0, 0.2, (N_IMAGES, 6))).astype(np.float32)
    # of one, two and three captions
    captions = [[f"thing {k} number {i}", f"a {k} of it", f"more {i % 7}"][: 1 + i % 3] for i, k in enumerate(kind)]
    return features, captions, kind


def ranker(**parameters):
    return JointEmbeddingRanker(
        parameters.pop("text_encoder", TextNGramEncoder(16, word_dim=16, dropout=0.0)),  # what is dropped differs
        **{"n_components": 16, "batch_size": 8, "max_epochs": 3, "dropout": 0.0, "random_state": 0}
        | {"device": "cpu", "precision": "float32", "n_jobs": 1}
        | parameters,
    )


RANKERS = {
    "contrast": ranker(loss=InfoNCELoss(trainable=True)),
    # With a pool, a batch norm in the head, a classifier of instances, and a stage of it alone.
    "hinges": ranker(
        loss=RankingLoss(negatives="hardest", pool_size=20),
        instance_loss=InstanceLoss(0.5, pretrain_epochs=1),
        hidden_layer_sizes=(12,),
    ),
    "groups": ranker(early_stopping=True, n_iter_no_change=1, instance_loss=InstanceLoss((1.0, 0.5))),
    "chunks": ranker(chunk_size=4),
    # By plain steps: biases before a batch norm have no gradient but rounding, which AdamW makes steps of.
    "convolutions": ranker(
        text_encoder=TextCNNEncoder(16, width=0.05, word_dim=8, position_shift=False), max_epochs=1, optimizer="sgd"
    ),
    "dropout": ranker(text_encoder=TextNGramEncoder(16, word_dim=16, dropout=0.5)).set_params(dropout=0.5),
}


@pytest.fixture(scope="module")
def rankers(tmp_path_factory):
    """Return, for each ranker, what two processes have fitted."""
    folder = tmp_path_factory.mktemp("rankers")
    joblib.dump((RANKERS, *captioned()), folder / "job")
    status, output = run(FITTED, folder)
    assert status == 0, output
    return {name: [joblib.load(folder / f"{name}-{rank}") for rank in range(2)] for name in RANKERS}


def weights_of(fitted):
    parts = [fitted.image_head_, fitted.text_head_, fitted.text_encoder_.module_]
    return {f"{at} {name}": value for at, part in enumerate(parts) for name, value in part.state_dict().items()}


@pytest.mark.parametrize("name", [name for name in RANKERS if name != "dropout"])
def test_two_processes_learn_what_one_does_with_twice_the_batch(rankers, name):
    X, y, groups = captioned()
    alone = clone(RANKERS[name]).set_params(batch_size=16)
    alone.fit(X, y, groups=groups if name == "groups" else None)
    fitted = rankers[name][0]
    assert len(fitted.history_) == len(alone.history_)
    for key in ("train_loss", "val_rsum"):
        seen, expected = ([record.get(key, 0.0) for record in each.history_] for each in (fitted, alone))
        np.testing.assert_allclose(seen, expected, **ROUNDING)
    expected = weights_of(alone)
    for weight, value in weights_of(fitted).items():
        torch.testing.assert_close(value, expected[weight], **ROUNDING)


@pytest.mark.parametrize("name", RANKERS)
def test_all_processes_end_with_the_same_ranker(rankers, name):
    first, second = rankers[name]
    assert first.history_ == second.history_
    expected = weights_of(first)
    for weight, value in weights_of(second).items():
        torch.testing.assert_close(value, expected[weight], rtol=0, atol=0)
    query = captioned()[0][:9]
    np.testing.assert_array_equal(first.predict(query), second.predict(query))
    np.testing.assert_array_equal(first.search_texts(query, k=3)[0], second.search_texts(query, k=3)[0])


def test_what_is_dropped_differs_and_the_ranker_learns(rankers):
    assert rankers["dropout"][0].history_[-1]["train_loss"] < rankers["dropout"][0].history_[0]["train_loss"]


def labeled():
    rng = np.random.default_rng(1)
    truth = (rng.random((N_IMAGES, 5)) < 0.4).astype(int)
    features = (truth + rng.normal(0, 0.3, truth.shape)).astype(np.float32)
    tags = (rng.random((N_IMAGES, 4)) < 0.3).astype(np.float32)
    return np.hstack([features, tags]), truth, None


def annotator(**parameters):
    return MultiLabelAnnotator(
        **{"hidden_layer_sizes": (12,), "tag_hidden_layer_sizes": (6,), "batch_size": 8, "max_epochs": 3}
        | {"tag_features": slice(5, 9), "dropout": 0.0, "random_state": 0, "device": "cpu", "precision": "float32"}
        | {"n_jobs": 1, "optimizer": "sgd"}  # as above
        | parameters
    )


ANNOTATORS = {
    "folds": annotator(n_folds=2),
    "held out": annotator(early_stopping=True, n_iter_no_change=1, loss="softmax", members=["neighbors", "ridge"]),
    "joint": annotator(label_count=LabelCountPredictor(joint=True), loss="asymmetric", n_folds=None, calibrate=True),
}


@pytest.fixture(scope="module")
def annotators(tmp_path_factory):
    """Return, for each annotator, what two processes have fitted."""
    folder = tmp_path_factory.mktemp("annotators")
    joblib.dump((ANNOTATORS, *labeled()), folder / "job")
    status, output = run(FITTED, folder)
    assert status == 0, output
    return {name: [joblib.load(folder / f"{name}-{rank}") for rank in range(2)] for name in ANNOTATORS}


@pytest.mark.parametrize("name", ANNOTATORS)
def test_two_processes_annotate_as_one_does_with_twice_the_batch(annotators, name):
    X, y, _ = labeled()
    alone = clone(ANNOTATORS[name]).set_params(batch_size=16).fit(X, y)
    fitted = annotators[name][0]
    for key in ("train_loss", "val_f1"):
        seen, expected = ([record.get(key, 0.0) for record in each.history_] for each in (fitted, alone))
        np.testing.assert_allclose(seen, expected, **ROUNDING)
    expected = alone.network_.state_dict()
    for weight, value in fitted.network_.state_dict().items():
        torch.testing.assert_close(value, expected[weight], **ROUNDING)
    np.testing.assert_allclose(fitted.predict_proba(X), alone.predict_proba(X), rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("name", ANNOTATORS)
def test_all_processes_end_with_the_same_annotator(annotators, name):
    first, second = annotators[name]
    assert first.history_ == second.history_
    X = labeled()[0]
    np.testing.assert_array_equal(first.decision_function(X), second.decision_function(X))
    np.testing.assert_array_equal(first.predict(X), second.predict(X))
