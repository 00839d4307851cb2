import pytest
import torch
from torch import nn

from sklearn_mm.training import (
    OPTIMIZERS,
    SCHEDULES,
    BestWeights,
    TrainingSettings,
    make_optimizer,
    make_schedule,
    train_epochs,
)

SCALER = torch.amp.GradScaler("cpu", enabled=False)
CPU = torch.device("cpu")


class _Line(nn.Module):
    """A line whose loss is its distance from another one."""

    def __init__(self, slope=2.0, factor=1.0):
        super().__init__()
        self.line = nn.Linear(1, 1)
        self.slope, self.factor = slope, factor

    def forward(self, x):
        return ((self.line(x) - self.slope * x) ** 2).mean() * self.factor


def _train(optimizer_name="adamw", n_epochs=3):
    model = _Line()
    optimizer = make_optimizer(optimizer_name, model, learning_rate=0.1, weight_decay=0.0)
    schedule = make_schedule("cosine", optimizer, n_epochs * 4)
    x = torch.linspace(-1, 1, 8)[:, None]
    settings = TrainingSettings(CPU, clip_norm=10.0)
    records = train_epochs(model, lambda: x.split(2), optimizer, schedule, SCALER, settings, n_epochs=n_epochs)
    return model.line, records


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_every_optimizer_lowers_the_loss(name):
    torch.manual_seed(0)
    _, records = _train(name, n_epochs=20)
    losses = [record["train_loss"] for record in records]
    assert losses[-1] < losses[0] / 2


def test_epochs_are_trained_one_by_one_as_they_are_asked_for():
    torch.manual_seed(0)
    module, records = _train()
    before = module.weight.clone()
    assert next(records)["epoch"] == 1
    after_one = module.weight.clone()
    assert not torch.equal(before, after_one)
    assert torch.equal(after_one, module.weight)  # nothing goes on until the next is asked for
    assert next(records)["epoch"] == 2


@pytest.mark.parametrize(
    ("clip_tensors", "expected"),
    [(False, (3.0, 4.0)), (True, (5.0, 5.0))],
    ids=["all parameters together", "each alone"],
)
def test_the_gradient_is_clipped_over(clip_tensors, expected):
    class Slopes(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = (nn.Parameter(torch.zeros(1)) for _ in range(2))

        def forward(self, batch):
            return 30 * self.first.sum() + 40 * self.second.sum()

    model = Slopes()
    optimizer = make_optimizer("sgd", model, learning_rate=1.0, weight_decay=0.0)
    schedule = make_schedule("constant", optimizer, 1)
    settings = TrainingSettings(CPU, clip_norm=5.0, clip_tensors=clip_tensors)
    next(train_epochs(model, lambda: [None], optimizer, schedule, SCALER, settings, n_epochs=1))
    steps = [
        -slope.item() / 1.9 for slope in (model.first, model.second)
    ]  # Nesterov's first step is 1 + 0.9 times the gradient
    assert steps == [pytest.approx(step, rel=1e-4) for step in expected]


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_schedules_stay_between_nothing_and_the_full_rate(name):
    factors = [SCHEDULES[name](step / 100) for step in range(101)]
    assert max(factors) == pytest.approx(1.0)
    assert min(factors) >= 0
    assert factors[-1] == pytest.approx({"constant": 1.0, "step": 0.1}.get(name, 0.0), abs=1e-12)


def test_vectors_are_not_decayed():
    optimizer = make_optimizer("adamw", nn.Linear(2, 2), learning_rate=0.1, weight_decay=0.5)
    assert [(group["params"][0].ndim, group["weight_decay"]) for group in optimizer.param_groups] == [
        (2, 0.5),
        (1, 0.0),
    ]


def test_a_loss_that_is_not_finite_is_an_error():
    model = _Line(factor=torch.inf)
    optimizer = make_optimizer("sgd", model, learning_rate=0.1, weight_decay=0.0)
    schedule = make_schedule("constant", optimizer, 1)
    x = torch.ones(1, 1)
    records = train_epochs(model, lambda: [x], optimizer, schedule, SCALER, TrainingSettings(CPU), n_epochs=1)
    with pytest.raises(FloatingPointError, match="epoch 1: training diverged"):
        next(records)


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_a_batch_that_overflows_is_passed_over(name):
    torch.manual_seed(0)
    model = _Line(factor=10)
    module = model.line
    before = module.weight.clone()
    optimizer = make_optimizer(name, model, learning_rate=0.1, weight_decay=0.0)
    schedule = make_schedule("linear", optimizer, 80)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, backoff_factor=2.0**-64)
    x = torch.linspace(-1, 1, 8)[:, None]
    settings = TrainingSettings(CPU, clip_norm=10.0)
    records = train_epochs(model, lambda: [x] * 4, optimizer, schedule, scaler, settings, n_epochs=20)
    losses = [next(records)["train_loss"]]
    assert not torch.equal(module.weight, before)
    assert schedule.last_epoch == 3  # the first of the four was passed over
    losses += [record["train_loss"] for record in records]
    assert losses[-1] < losses[0] / 2
    assert module.weight.isfinite().all()


def test_best_weights_come_back():
    module = nn.Linear(1, 1, bias=False)
    best = BestWeights(module)
    for score, weight in [(1.0, 10.0), (3.0, 30.0), (2.0, 20.0), (3.0, 40.0)]:
        nn.init.constant_(module.weight, weight)
        best.update(score)
    assert best.n_epochs_without_improvement == 2
    best.restore()
    assert module.weight.item() == 30.0
    assert best.best_score == 3.0
