import math

import pytest
import torch
from torch.autograd import gradcheck

from sklearn_mm.losses import asymmetric_label_loss, binary_label_loss, softmax_label_loss

NAN = math.nan
TARGETS = [
    [1, 0, 0, 1, 0],
    [0, 0, 1, 0, 0],
    [0, 0, 0, 0, 0],
    [1, NAN, 0, NAN, 1],
    [NAN, NAN, NAN, NAN, NAN],
    [NAN, 0, NAN, 0, 0],
]
WEIGHTS = [1.0, 2.0, 0.5, 3.0, 1.0]


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def naive_softmax(logits, targets, weights):
    known = [c for c, y in enumerate(targets) if not math.isnan(y)]
    n_true = sum(targets[c] for c in known)
    normalizer = sum(math.exp(logits[c]) for c in known)
    return sum(-weights[c] / n_true * math.log(math.exp(logits[c]) / normalizer) for c in known if targets[c] == 1)


def naive_binary(logits, targets, weights):
    loss = 0.0
    for x, y, weight in zip(logits, targets, weights, strict=True):
        if y == 1:
            loss -= weight * math.log(sigmoid(x))
        elif y == 0:
            loss -= math.log(1 - sigmoid(x))
    return loss


def naive_asymmetric(gamma_negative, gamma_positive, margin):
    def loss(logits, targets, weights):
        total = 0.0
        for x, y, weight in zip(logits, targets, weights, strict=True):
            p = sigmoid(x)
            if y == 1:
                total -= weight * (1 - p) ** gamma_positive * math.log(p)
            elif y == 0:
                q = max(p - margin, 0)
                total -= q**gamma_negative * math.log(1 - q)
        return total

    return loss


LOSSES = {
    "softmax": (softmax_label_loss, naive_softmax, {}),
    "bce": (binary_label_loss, naive_binary, {}),
    "asymmetric": (asymmetric_label_loss, naive_asymmetric(4, 1, 0.05), {}),
    "asymmetric as published for COCO": (
        asymmetric_label_loss,
        naive_asymmetric(4, 0, 0.05),
        {"gamma_positive": 0},
    ),
    "focal": (
        asymmetric_label_loss,
        naive_asymmetric(2, 2, 0),
        {"gamma_negative": 2, "gamma_positive": 2, "margin": 0},
    ),
}


@pytest.fixture
def logits():
    torch.manual_seed(0)
    return (2 * torch.randn(len(TARGETS), 5, dtype=torch.float64)).requires_grad_()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("weighted", [False, True])
def test_losses_are_those_of_loops_and_their_gradients_right(name, weighted, logits):
    loss, naive, options = LOSSES[name]
    targets = torch.tensor(TARGETS, dtype=torch.float64)
    weight = torch.tensor(WEIGHTS, dtype=torch.float64) if weighted else None
    result = loss(logits, targets, weight, **options)
    expected = [
        naive(row, target, WEIGHTS if weighted else [1.0] * 5)
        for row, target in zip(logits.tolist(), TARGETS, strict=True)
    ]
    assert result.tolist() == pytest.approx(expected, abs=1e-12)
    assert gradcheck(lambda x: loss(x, targets, weight, **options), (logits,))


@pytest.mark.parametrize("name", LOSSES)
def test_unknown_labels_have_no_gradient(name, logits):
    loss, _, options = LOSSES[name]
    targets = torch.tensor(TARGETS, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(loss(logits, targets, **options).sum(), logits)
    assert (gradient[targets.isnan()] == 0).all()
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("name", LOSSES)
def test_losses_of_extreme_logits_are_finite(name):
    loss, _, options = LOSSES[name]
    logits = torch.tensor([[500.0, -500.0, 500.0, -500.0]], requires_grad=True)
    value = loss(logits, torch.tensor([[1.0, 1.0, 0.0, 0.0]]), **options)
    assert torch.isfinite(value).all()
    assert torch.isfinite(torch.autograd.grad(value.sum(), logits)[0]).all()


def test_a_row_that_knows_nothing_costs_nothing():
    for loss, _, options in LOSSES.values():
        assert loss(torch.ones(1, 3), torch.full((1, 3), NAN), **options).item() == 0


def test_without_focus_and_margin_the_asymmetric_loss_is_the_binary_one(logits):
    targets = torch.tensor(TARGETS, dtype=torch.float64)
    plain = asymmetric_label_loss(logits, targets, gamma_negative=0, gamma_positive=0, margin=0)
    torch.testing.assert_close(plain, binary_label_loss(logits, targets))


def test_easy_negatives_cost_nothing():
    easy = torch.tensor([[-3.0]])  # a probability of 0.047
    assert asymmetric_label_loss(easy, torch.zeros(1, 1)).item() == 0
    assert binary_label_loss(easy, torch.zeros(1, 1)).item() > 0.04
