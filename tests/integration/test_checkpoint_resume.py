"""A fit that is killed and started again ends as one that was left alone."""

import subprocess
import sys
import textwrap

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, KFold

from sklearn_mm.retrieval import JointEmbeddingRanker

SETTINGS = {
    "n_components": 8,
    "max_epochs": 4,
    "pretrain_epochs": 2,
    "instance_weight": 0.5,
    "batch_size": 16,
    "early_stopping": True,
    "dropout": 0.2,
    "train_temperature": True,
    "random_state": 0,
    "device": "cpu",
    "n_jobs": 1,
}
KILLED = """
    import os, sys
    import joblib
    from sklearn_mm.retrieval import JointEmbeddingRanker

    class Killer(JointEmbeddingRanker):
        def _keep(self, record, stage):
            if self.n_epochs_ == int(sys.argv[2]):
                os._exit(9)  # in the middle of an epoch's end, as a kill does it
            super()._keep(record, stage)

    settings, X, captions = joblib.load(sys.argv[1])
    Killer.__name__ = "JointEmbeddingRanker"
    Killer(**settings).fit(X, captions)
"""


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    kind = rng.integers(5, size=60)
    features = (np.eye(5)[kind] + rng.normal(0, 0.1, (60, 5))).astype(np.float32)
    return features, [[f"thing {k} {i}", f"a {k}"] for i, k in enumerate(kind)]


def weights(ranker):
    return [value for module in ranker._tower_modules() for value in module.state_dict().values()]


def same(one, other):
    pairs = zip(weights(one), weights(other), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("n_epochs", [1, 3], ids=["in the first stage", "in the second stage"])
def test_a_killed_fit_goes_on_to_the_same_bits(data, tmp_path, n_epochs):
    settings = {**SETTINGS, "checkpoint": str(tmp_path / "run")}
    joblib.dump((settings, *data), tmp_path / "job")
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path / "job"), str(n_epochs)]
    assert subprocess.run(command, check=False).returncode == 9
    (saved,) = (tmp_path / "run").iterdir()
    assert torch.load(saved, weights_only=True)["n_epochs"] == n_epochs
    resumed = JointEmbeddingRanker(**settings).fit(*data)
    whole = JointEmbeddingRanker(**SETTINGS).fit(*data)
    assert same(resumed, whole)
    assert [r["train_loss"] for r in resumed.history_] == [r["train_loss"] for r in whole.history_]
    np.testing.assert_array_equal(resumed.transform(data[0]), whole.transform(data[0]))
    assert resumed.temperature_ == whole.temperature_


def test_a_finished_fit_is_read_back(data, tmp_path, monkeypatch):
    settings = {**SETTINGS, "checkpoint": tmp_path, "random_state": None}
    first = JointEmbeddingRanker(**settings).fit(*data)
    monkeypatch.setattr("sklearn_mm.retrieval._epochs.JointStep.__call__", None)  # training would fail
    assert same(first, JointEmbeddingRanker(**settings).fit(*data))


def test_other_parameters_or_data_are_another_run(data, tmp_path):
    features, captions = data
    ranker = JointEmbeddingRanker(**SETTINGS, checkpoint=tmp_path).fit(features, captions)
    clone(ranker).set_params(learning_rate=1e-4).fit(features, captions)
    clone(ranker).fit(features[1:], captions[1:])
    clone(ranker).fit(features, captions, sample_weight=np.arange(60))
    assert len(list(tmp_path.iterdir())) == 4
    clone(ranker).set_params(verbose=1).fit(features, captions)
    assert len(list(tmp_path.iterdir())) == 4


def test_a_grid_search_shares_the_folder(data, tmp_path):
    def search(checkpoint):
        ranker = JointEmbeddingRanker(**{**SETTINGS, "max_epochs": 2, "checkpoint": checkpoint})
        cv = KFold(2, shuffle=True, random_state=0)
        return GridSearchCV(ranker, {"margin": [0.1, 0.2], "loss": ["ranking"]}, cv=cv).fit(*data)

    with_folder, again, without = search(tmp_path), search(tmp_path), search(None)
    assert len(list(tmp_path.iterdir())) == 5  # two candidates in two folds, and the best one on everything
    expected = without.cv_results_["mean_test_score"]
    np.testing.assert_array_equal(with_folder.cv_results_["mean_test_score"], expected)
    np.testing.assert_array_equal(again.cv_results_["mean_test_score"], expected)


def test_a_warm_start_is_a_run_of_its_own(data, tmp_path):
    ranker = JointEmbeddingRanker(**{**SETTINGS, "checkpoint": tmp_path}, warm_start=True).fit(*data)
    first = joblib.hash([value.numpy() for value in weights(ranker)])
    ranker.fit(*data)
    assert len(list(tmp_path.iterdir())) == 2
    assert joblib.hash([value.numpy() for value in weights(ranker)]) != first
