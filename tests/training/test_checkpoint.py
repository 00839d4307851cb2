import os
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

import numpy as np
import pytest
import torch
from torch import nn

from sklearn_mm._device import forked_rng
from sklearn_mm.training import (
    BestWeights,
    Checkpoint,
    TrainingSettings,
    TrainingState,
    identify_run,
    make_optimizer,
    make_schedule,
    run_identity,
    train_epochs,
)

CPU = torch.device("cpu")


class Sum(nn.Sequential):
    """A small network with dropout, that learns to add."""

    def __init__(self):
        super().__init__(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1))

    def forward(self, x):
        return (super().forward(x) - x.sum(dim=1, keepdim=True)).square().mean()


class Run:
    """Six epochs of a small network with dropout, batches by chance, momentum and a schedule."""

    def __init__(self, checkpoint=None):
        torch.manual_seed(0)
        self.rng = np.random.default_rng(0)
        self.module = Sum()
        self.optimizer = make_optimizer("adamw", self.module, learning_rate=0.01, weight_decay=0.1)
        self.schedule = make_schedule("cosine", self.optimizer, 24)
        self.scaler = torch.amp.GradScaler("cpu", enabled=False)
        self.best = BestWeights(self.module)
        self.state = TrainingState(self.module, self.optimizer, self.schedule, self.scaler, self.best, self.rng, CPU)
        self.checkpoint = checkpoint
        self.n_done = 0

    def resume(self):
        saved = self.checkpoint.load()
        self.state.load_state_dict(saved["training"])
        self.n_done = saved["epoch"]
        return self

    def train(self, n_epochs):
        x = torch.linspace(-1, 1, 64).reshape(16, 4)
        self.module.train()
        for record in train_epochs(
            self.module,
            lambda: x[torch.from_numpy(self.rng.permutation(16))].split(4),
            self.optimizer,
            self.schedule,
            self.scaler,
            TrainingSettings(CPU, clip_norm=1.0),
            n_epochs=n_epochs,
        ):
            self.n_done += 1
            self.best.update(-record["train_loss"])
            if self.checkpoint is not None:
                self.checkpoint.save({"training": self.state.state_dict(), "epoch": self.n_done})
        return self

    def weights(self):
        return [value.clone() for value in self.module.state_dict().values()]


def test_a_resumed_run_ends_with_the_same_bits(tmp_path):
    whole = Run().train(6)
    checkpoint = Checkpoint(tmp_path, "run")
    Run(checkpoint).train(2)
    torch.manual_seed(99)
    resumed = Run(checkpoint).resume().train(4)
    assert resumed.n_done == 6
    for expected, value in zip(whole.weights(), resumed.weights(), strict=True):
        assert torch.equal(expected, value)
    assert resumed.best.best_score == whole.best.best_score
    whole.best.restore()
    resumed.best.restore()
    for expected, value in zip(whole.weights(), resumed.weights(), strict=True):
        assert torch.equal(expected, value)


def test_the_random_state_saved_is_that_of_the_run():
    before = torch.get_rng_state()
    with torch.random.fork_rng(devices=[]):
        state = Run().state
    with forked_rng(0):
        torch.rand(3)
        saved = state.state_dict()
        expected = torch.rand(3)
    with forked_rng(1):
        state.load_state_dict(saved)
        assert torch.equal(torch.rand(3), expected)
    assert torch.equal(torch.get_rng_state(), before)


def test_threads_may_save_one_state_at_once(tmp_path):
    checkpoint = Checkpoint(tmp_path, "a")

    def save(epoch):
        checkpoint.save({"epoch": epoch})
        return checkpoint.load()["epoch"]

    with ThreadPoolExecutor(8) as pool:
        seen = list(pool.map(save, range(64)))
    assert set(seen) <= set(range(64))
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


def test_a_state_is_replaced_as_a_whole_and_nothing_is_left_beside_it(tmp_path, monkeypatch):
    checkpoint = Checkpoint(tmp_path / "new" / "folder", "a")
    assert checkpoint.load() is None
    checkpoint.save({"epoch": 1})

    def killed(descriptor):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", killed)
    with pytest.raises(OSError, match="no space"):
        checkpoint.save({"epoch": 2})
    assert checkpoint.load() == {"epoch": 1}
    assert [path.name for path in checkpoint.path.parent.iterdir()] == ["a.pt"]


def test_a_damaged_file_is_named(tmp_path):
    checkpoint = Checkpoint(tmp_path, "a")
    checkpoint.path.write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match=r"a\.pt is no checkpoint"):
        checkpoint.load()


def test_a_file_that_would_run_code_is_refused(tmp_path):
    checkpoint = Checkpoint(tmp_path, "a")
    torch.save({"epoch": Run}, checkpoint.path)
    with pytest.raises(ValueError, match="damaged"):
        checkpoint.load()


def test_a_state_of_another_run_is_refused(tmp_path):
    checkpoint = Checkpoint(tmp_path, "a")
    Checkpoint(tmp_path, "b").save({"epoch": 1})
    Checkpoint(tmp_path, "b").path.replace(checkpoint.path)
    with pytest.raises(ValueError, match=r"a\.pt holds no checkpoint of this run"):
        checkpoint.load()
    torch.save([1, 2], checkpoint.path)
    with pytest.raises(ValueError, match=r"a\.pt holds no checkpoint of this run"):
        checkpoint.load()


NETWORK = """
import torch
from sklearn_mm.training import run_identity
torch.manual_seed(0)
network = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
"""


@pytest.mark.slow
def test_the_identity_of_networks_is_the_same_in_every_process(forked, tmp_path):
    here = {}
    exec(NETWORK, here)
    network = here["network"]
    script = NETWORK + "print(run_identity(network, network.half().state_dict()))"
    _, (output,) = forked(script, tmp_path)
    there = output.strip()
    assert run_identity(network, network.half().state_dict()) == there
    with torch.no_grad():
        network[0].weight[0, 0] += 1
    assert run_identity(network, network.state_dict()) != there


def test_the_identity_is_that_of_the_values():
    features = np.arange(6.0).reshape(2, 3)
    assert run_identity({"a": 1}, features, ["x", "y"]) == run_identity({"a": 1}, features.copy(), ["x", "y"])
    assert run_identity({"a": 1}, features) != run_identity({"a": 2}, features)
    assert run_identity(features) != run_identity(features + 1)


def test_what_cannot_be_told_from_others_is_named_with_the_way_out(tmp_path):
    with pytest.raises(TypeError, match="this fit of Encoder from others, but a lock cannot .*checkpoint=None"):
        identify_run(tmp_path, 0, "Encoder", {"analyzer": Lock()}, ["a"])
    assert identify_run(None, 0, "Encoder", {"analyzer": Lock()}, ["a"])[0] is None
