"""Stages, validation, checkpoints and callbacks around the loop."""

import threading
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from sklearn_mm.training import (
    Checkpoint,
    Stage,
    TrainingSettings,
    continue_training,
    make_optimizer,
    make_scaler,
    train,
)

CPU = torch.device("cpu")
X = torch.linspace(-1, 1, 64).reshape(16, 4)


class Sums(nn.Module):
    """Two small networks, one upon the other, with dropout and batch norm, that learn to add."""

    def __init__(self, dropout=0.3):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(dropout))
        self.head = nn.Linear(8, 1)
        self.modes = []

    def forward(self, x):
        self.modes.append(self.training)
        return (self.head(self.body(x)) - x.sum(dim=1, keepdim=True)).square().mean()


class Drawn:
    """Four batches an epoch, by chance."""

    def __init__(self, rng):
        self.rng = rng

    def __len__(self):
        return 4

    def __iter__(self):
        for rows in np.split(self.rng.permutation(16), 4):
            yield X[rows] + torch.from_numpy(self.rng.normal(0, 0.01, (4, 4)).astype(np.float32))


def weights(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def without_seconds(history):
    return [{name: value for name, value in record.items() if name != "seconds"} for record in history]


# Stages ---------------------------------------------------------------------------------------------------------------


def test_stages_follow_one_another_in_one_history():
    torch.manual_seed(0)
    model, rng = Sums(), np.random.default_rng(0)
    seen, kept = [], []

    def begin(name, learns):
        def begin_stage():
            seen.append(name)
            model.body.requires_grad_(learns)

        return begin_stage

    stages = [
        Stage("first", model, Drawn(rng), 2, 0.1, begin=begin("first", False)),
        Stage("second", model, Drawn(rng), 3, 0.01, begin=begin("second", True)),
    ]
    start = weights(model.body[0])
    at_the_end = {}

    def keep(history):
        kept.append([record["epoch"] for record in history])
        at_the_end[len(history)] = weights(model.body[0])

    before = [{"epoch": 1, "stage": "before"}]
    settings = TrainingSettings(CPU, lr_schedule="constant")
    history = train(model, stages, settings, rng, history=before, keep=keep)
    assert seen == ["first", "second"]
    assert [record["epoch"] for record in history] == [1, 2, 3, 4, 5, 6]
    assert [record["stage"] for record in history] == ["before"] + ["first"] * 2 + ["second"] * 3
    assert [record["learning_rate"] for record in history[1:]] == [0.1] * 2 + [0.01] * 3
    assert kept == [[1], [1, 2], [1, 2, 3], [1, 2, 3, 4], [1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 6]]
    assert before == [{"epoch": 1, "stage": "before"}]  # the history given stays as it is
    assert_same(at_the_end[3], start)  # what is held still in the first stage
    assert not torch.equal(at_the_end[4]["weight"], start["weight"])


def test_each_stage_has_a_schedule_of_its_own():
    torch.manual_seed(0)
    model, rng = Sums(), np.random.default_rng(0)
    stages = [Stage(name, model, Drawn(rng), 4, 0.1) for name in ("first", "second")]
    history = train(model, stages, TrainingSettings(CPU, lr_schedule="linear"), rng)
    rates = [record["learning_rate"] for record in history]
    assert rates == pytest.approx([0.075, 0.05, 0.025, 0.0] * 2)


def test_no_stages_are_no_training():
    model = Sums()
    before = weights(model)
    assert train(model, [], TrainingSettings(CPU), np.random.default_rng(0)) == []
    assert_same(weights(model), before)


def test_every_epoch_trains_in_training_mode_whatever_was_done_between():
    model, rng = Sums(), np.random.default_rng(0)

    def validate():
        model.eval()
        return "val_loss", 0.0

    train(model, [Stage("only", model, Drawn(rng), 3, 0.1, validate=validate)], TrainingSettings(CPU), rng)
    assert model.modes == [True] * 12


def test_divergence_is_an_error_with_the_epoch():
    model, rng = Sums(), np.random.default_rng(0)
    with pytest.raises(FloatingPointError, match="lower learning_rate"):
        train(
            model,
            [Stage("only", model, Drawn(rng), 5, 1e38)],
            TrainingSettings(CPU, optimizer="sgd", clip_norm=1e30, lr_schedule="constant"),
            rng,
        )


def test_a_run_that_is_interrupted_leaves_no_thread_behind():
    class Interrupted(Sums):
        def forward(self, x):
            if self.modes:
                raise KeyboardInterrupt
            return super().forward(x)

    model, rng = Interrupted(), np.random.default_rng(0)
    with pytest.raises(KeyboardInterrupt) as kept:  # with its traceback, and what that holds
        train(model, [Stage("only", model, Drawn(rng), 1, 0.1)], TrainingSettings(CPU), rng)
    assert kept.tb is not None
    assert "batches" not in [thread.name for thread in threading.enumerate()]


# What is held out -----------------------------------------------------------------------------------------------------


class Scores:
    """A score of what is held out, as it was written down before; remembers the weights of each epoch."""

    def __init__(self, model, scores):
        self.model, self.scores, self.seen = model, iter(scores), []

    def __call__(self):
        self.seen.append(weights(self.model))
        return "val_score", next(self.scores)


def test_early_stopping_keeps_the_best_weights():
    torch.manual_seed(0)
    model, rng = Sums(), np.random.default_rng(0)
    validate = Scores(model, [1.0, 3.0, 2.0, 3.0, 2.9])
    stage = Stage("only", model, Drawn(rng), 20, 0.1, validate=validate, keeps=model)
    history = train(model, [stage], TrainingSettings(CPU, n_iter_no_change=3), rng)
    assert [record["val_score"] for record in history] == [1.0, 3.0, 2.0, 3.0, 2.9]  # as good as before is no better
    assert_same(weights(model), validate.seen[1])


def test_a_stage_that_stopped_early_hands_its_best_weights_to_the_next():
    torch.manual_seed(0)
    model, rng = Sums(), np.random.default_rng(0)
    validate = Scores(model, [2.0, 1.0])
    begun = []
    stages = [
        Stage("first", model, Drawn(rng), 20, 0.1, validate=validate, keeps=model),
        Stage("second", model, Drawn(rng), 2, 0.1, begin=lambda: begun.append(weights(model))),
    ]
    history = train(model, stages, TrainingSettings(CPU, n_iter_no_change=1), rng)
    assert [record["stage"] for record in history] == ["first"] * 2 + ["second"] * 2
    assert "val_score" not in history[2]
    assert_same(begun[0], validate.seen[0])


def test_only_what_is_kept_goes_back_to_its_best():
    torch.manual_seed(0)
    model, rng = Sums(), np.random.default_rng(0)
    validate = Scores(model, [2.0, 1.0])
    stage = Stage("only", model, Drawn(rng), 20, 0.1, validate=validate, keeps=model.head)
    train(model, [stage], TrainingSettings(CPU, n_iter_no_change=1), rng)
    assert torch.equal(model.head.weight, validate.seen[0]["head.weight"])
    assert torch.equal(model.body[0].weight, validate.seen[1]["body.0.weight"])


def test_a_stage_that_keeps_nothing_is_scored_and_ends_with_its_last_weights():
    torch.manual_seed(0)
    model, rng = Sums(), np.random.default_rng(0)
    validate = Scores(model, [3.0, 2.0, 1.0, 0.0])
    history = train(
        model,
        [Stage("only", model, Drawn(rng), 4, 0.1, validate=validate)],
        TrainingSettings(CPU, n_iter_no_change=1),
        rng,
    )
    assert [record["val_score"] for record in history] == [3.0, 2.0, 1.0, 0.0]
    assert_same(weights(model), validate.seen[-1])


# Going on -------------------------------------------------------------------------------------------------------------


class Run:
    """Two stages, the first of three epochs with a frozen body, the second with early stopping."""

    def __init__(self, folder=None, *, stop_in=None, seed=0):
        torch.manual_seed(seed)
        self.model, self.rng = Sums(), np.random.default_rng(seed)
        self.checkpoint = None if folder is None else Checkpoint(folder, "run")
        self.stop_in = stop_in
        self.n_validated = 0
        self.callbacks = Recorder()
        self.kept = []

    def validate(self):
        self.n_validated += 1
        if self.n_validated == self.stop_in:
            raise KeyboardInterrupt
        self.model.eval()
        return "val_score", float(torch.sin(9 * self.model.head.weight.detach().sum()))  # rises and falls

    def __call__(self):
        stages = [
            Stage(
                name, self.model, Drawn(self.rng), n_epochs, rate,
                begin=partial(self.model.body.requires_grad_, learns), validate=self.validate, keeps=keeps,
            )
            for name, n_epochs, rate, learns, keeps in (
                ("frozen", 3, 0.1, False, None), ("whole", 30, 0.3, True, self.model),
            )
        ]  # fmt: skip
        return train(
            self.model, stages, TrainingSettings(CPU, n_iter_no_change=3), self.rng,
            keep=lambda history: self.kept.append(len(history)), checkpoint=self.checkpoint, callbacks=self.callbacks,
        )  # fmt: skip


@pytest.mark.parametrize("stop_in", [1, 2, 3, 4, 5, 6, 7])
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(tmp_path, stop_in):
    """Epochs 1 to 3 are of the first stage; what goes on starts from other weights and other random numbers."""
    whole = Run()
    expected = whole()
    assert 7 <= len(expected) < 33  # the second stage stops early
    with pytest.raises(KeyboardInterrupt):
        Run(tmp_path, stop_in=stop_in)()
    resumed = Run(tmp_path, seed=99 if stop_in > 1 else 0)  # in the first epoch nothing has been kept
    history = resumed()
    assert without_seconds(history) == without_seconds(expected)
    assert_same(weights(resumed.model), weights(whole.model))
    assert resumed.rng.bit_generator.state == whole.rng.bit_generator.state
    assert resumed.callbacks.n_epochs == len(expected) - (stop_in - 1)  # what was trained before is not trained again
    assert resumed.kept == list(range(stop_in - 1, len(expected) + 1))


def test_a_run_that_has_finished_is_read_back(tmp_path):
    first, again = Run(tmp_path), Run(tmp_path, seed=99)
    expected = first()
    assert without_seconds(again()) == without_seconds(expected)
    assert again.n_validated == 0
    assert again.model.modes == []
    assert again.kept == [len(expected)]
    assert_same(weights(again.model), weights(first.model))


# Callbacks ------------------------------------------------------------------------------------------------------------


class Recorder:
    """What is called of `EpochCallbacks`, in order; asks to stop at an epoch."""

    def __init__(self, stop_at=None):
        self.seen, self.stop_at, self.n_epochs = [], stop_at, 0

    def begin(self):
        self.seen.append("begin")

    def begin_epoch(self):
        self.seen.append("begin epoch")

    def end_epoch(self, record):
        self.n_epochs += 1
        self.seen.append(record["epoch"])
        return record["epoch"] == self.stop_at

    def end(self):
        self.seen.append("end")


def test_callbacks_hear_of_every_begin_and_end():
    model, rng, callbacks = Sums(), np.random.default_rng(0), Recorder()
    stages = [Stage(name, model, Drawn(rng), 2, 0.1) for name in ("first", "second")]
    kept = []
    train(
        model, stages, TrainingSettings(CPU), rng, keep=lambda history: kept.append(len(history)), callbacks=callbacks
    )
    assert callbacks.seen == [
        "begin", "begin epoch", 1, "begin epoch", 2, "begin epoch", 3, "begin epoch", 4, "end",
    ]  # fmt: skip


def test_an_epoch_begins_before_its_first_batch_and_ends_after_its_score_and_its_record():
    order = []
    model, rng = Sums(), np.random.default_rng(0)

    class Watched(Drawn):
        def __iter__(self):
            order.append("batches")
            return super().__iter__()

    class Watching(Recorder):
        def begin_epoch(self):
            order.append("begin epoch")

        def end_epoch(self, record):
            order.append(f"end with {record['val_score']}")
            return False

    def validate():
        order.append("score")
        return "val_score", 1.0

    stage = Stage("only", model, Watched(rng), 1, 0.1, validate=validate)
    train(
        model, [stage], TrainingSettings(CPU), rng,
        keep=lambda history: order.append(f"history of {len(history)}"), callbacks=Watching(),
    )  # fmt: skip
    assert order == ["history of 0", "begin epoch", "batches", "score", "history of 1", "end with 1.0"]


def test_a_callback_may_stop_and_what_stopped_does_not_go_on(tmp_path):
    def run(callbacks):
        torch.manual_seed(0)
        model, rng = Sums(), np.random.default_rng(0)
        checkpoint = Checkpoint(tmp_path, "run")
        stage = Stage("only", model, Drawn(rng), 5, 0.1)
        return train(model, [stage], TrainingSettings(CPU), rng, checkpoint=checkpoint, callbacks=callbacks)

    stopping = Recorder(stop_at=2)
    assert len(run(stopping)) == 2
    assert stopping.seen == ["begin", "begin epoch", 1, "begin epoch", 2, "end"]
    again = Recorder()
    assert len(run(again)) == 2
    assert again.seen == ["begin", "end"]


def test_a_callback_that_stops_gets_the_best_weights_back():
    torch.manual_seed(0)
    model, rng = Sums(), np.random.default_rng(0)
    validate = Scores(model, [2.0, 1.0, 0.0])
    stage = Stage("only", model, Drawn(rng), 9, 0.1, validate=validate, keeps=model)
    train(model, [stage], TrainingSettings(CPU), rng, callbacks=Recorder(stop_at=3))
    assert_same(weights(model), validate.seen[0])


# Pass by pass ---------------------------------------------------------------------------------------------------------


def test_training_that_is_continued_pass_by_pass_is_training_at_a_constant_rate():
    settings = TrainingSettings(CPU, lr_schedule="constant", clip_norm=1.0)

    def begun():
        torch.manual_seed(0)
        model, rng = Sums(), np.random.default_rng(0)
        return model, rng, Stage("only", model, Drawn(rng), 3, 0.1)

    model, rng, stage = begun()
    expected = train(model, [stage], settings, rng)
    passes, rng, stage = begun()
    optimizer = make_optimizer(settings.optimizer, passes, learning_rate=0.1, weight_decay=settings.weight_decay)
    history = []
    for _ in range(3):
        one = Stage("only", passes, stage.batches, 1, 0.1)
        history = continue_training(one, settings, optimizer, make_scaler(settings), history)
    assert without_seconds(history) == without_seconds(expected)
    assert_same(weights(passes), weights(model))


@pytest.mark.parametrize(
    ("dtype", "scales"), [(torch.float32, False), (torch.bfloat16, False), (torch.float16, True)], ids=str
)
def test_only_the_gradients_of_float16_are_scaled(dtype, scales):
    assert make_scaler(TrainingSettings(CPU, dtype=dtype)).is_enabled() is scales
