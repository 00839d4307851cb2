"""Two processes that train together learn what one learns with twice the batch."""

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
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
from sklearn_mm.persistence import load
from sklearn_mm.retrieval import JointEmbeddingRanker
from tests.forks import LONG

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


def run(script, folder, *arguments):
    """Run a script as two processes under torchrun; return the exit status and what was written."""
    path = folder / "script.py"
    path.write_text(textwrap.dedent(script))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    process = subprocess.run(
        [*command, str(path), str(folder), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=LONG,
    )
    return process.returncode, process.stdout


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
def rankers(tmp_path_factory, forked):
    """Return, for each ranker, what two processes have fitted."""
    folder = tmp_path_factory.mktemp("rankers")
    joblib.dump((RANKERS, *captioned()), folder / "job")
    status, output = forked(FITTED, folder, n=2)
    assert status == [0, 0], output
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


# What ends in an error ---------------------------------------------------------------------------------------------

REFUSED = """
    import os, sys
    import joblib
    from sklearn.base import clone
    from sklearn_mm.persistence import save

    folder, rank = sys.argv[1], int(os.environ["RANK"])
    ranker, X, y, _ = joblib.load(folder + "/job")
    other = X.copy()
    other[5] += rank
    cases = {
        "data": (ranker, other, y),
        "captions": (ranker, X, [*y[:-1], f"seen by {rank}"]),
        "parameters": (clone(ranker).set_params(learning_rate=1e-3 * (1 + rank)), X, y),
        "few": (ranker, X[:1].repeat(2, 0), y[:2]),
    }
    with open(f"{folder}/errors-{rank}", "w") as file:
        for name, (each, X, y) in cases.items():
            try:
                clone(each).fit(X, y)
            except ValueError as error:
                print(name, error, file=file)
    # after all this they still train together, and one saves
    _, X, y, _ = joblib.load(folder + "/job")
    save(clone(ranker).set_params(random_state=None, max_epochs=1).fit(X, y), folder + "/model")
    if rank == 1:
        raise KeyError("the one that fails alone")
    clone(ranker).fit(X, y)
"""


def test_processes_that_were_given_different_things_say_so(tmp_path, forked):
    joblib.dump((RANKERS["contrast"], *captioned()), tmp_path / "job")
    status, output = forked(REFUSED, tmp_path, n=2)
    errors = [(tmp_path / f"errors-{rank}").read_text() for rank in range(2)]
    assert errors[0] == errors[1], output
    data, captions, parameters, few = errors[0].splitlines()
    assert data.startswith("data expected the same X in all 2 processes, got another in process 1 than in process 0")
    assert captions.startswith("captions expected the same y in all")
    assert parameters.startswith("parameters expected the same parameters in all")
    assert "at least 2 different images" in few
    assert load(tmp_path / "model").n_epochs_ == 1
    assert status == [1, 1]  # one of them failed, and the other does not wait for it
    assert "the one that fails alone" in output[1]


KILLED = """
    import os, signal, sys, time
    import joblib
    from sklearn_mm.retrieval._model import JointModel
    from sklearn_mm.training import _checkpoint

    folder, job, who, where, n_before = sys.argv[1:]
    rank = os.environ["RANK"]

    def killing(method):
        n_calls = 0

        def call(*args):
            nonlocal n_calls
            n_calls += 1
            if n_calls > int(n_before):
                with open(f"{folder}/killed", "w") as file:
                    print(time.time(), file=file)
                os.kill(os.getpid(), signal.SIGKILL)
            return method(*args)

        return call

    if rank == who and where == "batch":
        JointModel.forward = killing(JointModel.forward)
    if rank == who and where == "checkpoint":
        _checkpoint.os.fsync = killing(os.fsync)
    ranker, X, y, _ = joblib.load(f"{folder}/{job}")
    joblib.dump(ranker.fit(X, y), f"{folder}/{job}-{rank}")
"""


def test_a_fit_whose_processes_are_killed_ends_soon_and_goes_on_bit_for_bit(tmp_path, forked):
    # A stage of instances, then ranking: 2 and 8 epochs of 4 batches.
    whole = ranker(
        text_encoder=TextNGramEncoder(16, word_dim=16, dropout=0.3),
        loss=InfoNCELoss(trainable=True),
        instance_loss=InstanceLoss(0.5, pretrain_epochs=2),
        max_epochs=8,
        early_stopping=True,
        n_iter_no_change=8,
        dropout=0.2,
    )
    joblib.dump((whole, *captioned()), tmp_path / "whole")
    joblib.dump((clone(whole).set_params(checkpoint=tmp_path / "checkpoints"), *captioned()), tmp_path / "kept")
    status, output = forked(KILLED, tmp_path, "whole", -1, "nowhere", 0, n=2)
    assert status == [0, 0], output
    # Without torchrun at first, which would end the other process itself.
    for who, where, n_before in [(1, "batch", 6), (0, "checkpoint", 2)]:
        status, output = forked(KILLED, tmp_path, "kept", who, where, n_before, n=2)
        assert time.time() - float((tmp_path / "killed").read_text()) < 60
        assert status[who] == -signal.SIGKILL
        assert status[1 - who] == 1
        assert f"this is process {1 - who}" in output[1 - who]
        assert f"training goes on from {tmp_path / 'checkpoints'}" in output[1 - who]
    status, output = run(KILLED, tmp_path, "kept", 0, "batch", 3)
    assert status != 0
    assert time.time() - float((tmp_path / "killed").read_text()) < 60
    status, output = forked(KILLED, tmp_path, "kept", -1, "nowhere", 0, n=2)
    assert status == [0, 0], output
    expected, *fitted = (joblib.load(tmp_path / name) for name in ("whole-0", "kept-0", "kept-1"))
    for each in fitted:
        seen, wanted = ([record["train_loss"] for record in one.history_] for one in (each, expected))
        assert seen == wanted
        for weight, value in weights_of(expected).items():
            assert torch.equal(weights_of(each)[weight], value)


def test_the_script_of_the_guide_trains_and_saves_once(tmp_path, forked):
    guide = (ROOT / "docs" / "several_processes.rst").read_text()
    block = re.search(r"code-block:: python\n\n(.*?)\n\n\.\.", guide, flags=re.DOTALL)
    there = "import os, sys\nos.chdir(sys.argv[1])\n"
    status, output = forked(there + textwrap.dedent(block[1]), tmp_path, n=2)
    assert status == [0, 0], output
    saved = load(tmp_path / "model")
    assert saved.n_epochs_ == 30
    assert saved.history_[-1]["train_loss"] < saved.history_[0]["train_loss"]
    assert saved.predict(np.eye(4)).shape == (4,)
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1


# Annotators --------------------------------------------------------------------------------------------------------


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
        | {"n_jobs": 1, "optimizer": "sgd", "members": None}  # as above
        | parameters
    )


ANNOTATORS = {
    "folds": annotator(n_folds=2),
    "held out": annotator(early_stopping=True, n_iter_no_change=1, loss="softmax", members=["neighbors", "ridge"]),
    "joint": annotator(label_count=LabelCountPredictor(joint=True), loss="asymmetric", n_folds=None, calibrate=True),
}


@pytest.fixture(scope="module")
def annotators(tmp_path_factory, forked):
    """Return, for each annotator, what two processes have fitted."""
    folder = tmp_path_factory.mktemp("annotators")
    joblib.dump((ANNOTATORS, *labeled()), folder / "job")
    status, output = forked(FITTED, folder, n=2)
    assert status == [0, 0], output
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
