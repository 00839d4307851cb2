import pytest
import torch
from torch import nn

from sklearn_mm.training import OPTIMIZERS, make_optimizer, make_schedule


class _Words(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.learning_rate_factors = {"table": factor, "bias": factor}
        self.table = nn.Embedding(3, 2)
        self.bias = nn.Parameter(torch.zeros(2))
        self.output = nn.Linear(2, 2)


class _Network(nn.Module):
    def __init__(self, factors, words):
        super().__init__()
        self.learning_rate_factors = factors
        self.words = words
        self.head = nn.Linear(2, 2)


def _rates(module, optimizer):
    names = {parameter: name for name, parameter in module.named_parameters()}
    return {names[p]: group["lr"] for group in optimizer.param_groups for p in group["params"]}


def _make(*modules, name="adamw"):
    return make_optimizer(name, nn.ModuleList(modules), learning_rate=0.5, weight_decay=0.1)


def test_factors_reach_parameters_and_submodules_by_name():
    words = _Words(0.01)
    rates = _rates(words, _make(words))
    assert rates == {"table.weight": 0.005, "bias": 0.005, "output.weight": 0.5, "output.bias": 0.5}


def test_a_factor_inside_another_multiplies():
    network = _Network({"words": 0.1, "head.bias": 4.0}, _Words(0.5))
    rates = _rates(network, _make(network))
    assert rates == pytest.approx(
        {
            "words.table.weight": 0.025,
            "words.bias": 0.025,
            "words.output.weight": 0.05,
            "words.output.bias": 0.05,
            "head.weight": 0.5,
            "head.bias": 2.0,
        }
    )


def test_a_module_may_give_a_factor_to_itself():
    backbone = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    backbone.learning_rate_factors = {"": 0.1, "1": 0.5}
    rates = _rates(backbone, _make(backbone))
    assert rates == pytest.approx({"0.weight": 0.05, "0.bias": 0.05, "1.weight": 0.025, "1.bias": 0.025})


def test_each_factor_keeps_decay_off_vectors_and_plain_groups_come_first():
    optimizer = _make(_Words(0.01), nn.Linear(2, 2))
    assert [(group["lr"], group["weight_decay"], len(group["params"])) for group in optimizer.param_groups] == [
        (0.5, 0.1, 2),
        (0.5, 0.0, 2),
        (0.005, 0.1, 1),
        (0.005, 0.0, 1),
    ]


def test_a_factor_of_one_makes_no_group_of_its_own():
    assert len(_make(_Words(1.0)).param_groups) == 2


def test_what_wants_no_gradient_is_left_out():
    words = _Words(0.01)
    words.table.requires_grad_(False)
    assert "table.weight" not in _rates(words, _make(words))


def test_a_name_that_does_not_exist_is_an_error():
    words = _Words(1.0)
    words.learning_rate_factors = {"tabel": 0.1}
    with pytest.raises(AttributeError, match="tabel"):
        _make(words)


def test_the_schedule_moves_all_groups_alike():
    optimizer = _make(_Words(0.01))
    schedule = make_schedule("linear", optimizer, 4)
    for _ in range(2):
        optimizer.step()
        schedule.step()
    assert sorted({group["lr"] for group in optimizer.param_groups}) == pytest.approx([0.0025, 0.25])


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_a_step_is_as_much_shorter_as_the_factor_says(name):
    def moved(factor):
        torch.manual_seed(0)
        words = _Words(factor)
        before = words.table.weight.detach().clone()
        optimizer = make_optimizer(name, words, learning_rate=0.5, weight_decay=0.0)
        (words.table.weight**2).sum().backward()
        optimizer.step()
        return words.table.weight.detach() - before

    torch.testing.assert_close(moved(0.01), moved(1.0) * 0.01, rtol=1e-4, atol=1e-6)
