"""Optimisers and learning-rate schedules by name."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from operator import attrgetter
from types import MappingProxyType

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

__all__ = ["OPTIMIZERS", "SCHEDULES", "make_optimizer", "make_schedule"]

WARM_UP = 0.1
"""The share of all steps in which the cosine schedule rises to the full learning rate."""


# Fused updates: on a CPU the large word tables take a tenth of the time of the plain ones.
OPTIMIZERS: Mapping[str, Callable[..., Optimizer]] = MappingProxyType(
    {
        "adamw": partial(torch.optim.AdamW, fused=True),
        "adam": partial(torch.optim.Adam, fused=True),
        "sgd": partial(torch.optim.SGD, momentum=0.9, nesterov=True, fused=True),  # as Zheng et al. train
    }
)


def _constant(progress: float) -> float:
    return 1.0


def _cosine(progress: float) -> float:
    if progress < WARM_UP:
        return max(progress / WARM_UP, 0.04)  # not 0, or the first step would be none
    return 0.5 * (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP)))


def _linear(progress: float) -> float:
    return 1.0 - progress


def _step(progress: float) -> float:
    return 1.0 if progress < 0.5 else 0.1  # VSE++: after 15 of 30 epochs


SCHEDULES: Mapping[str, Callable[[float], float]] = MappingProxyType(
    {"constant": _constant, "cosine": _cosine, "linear": _linear, "step": _step}
)


def make_optimizer(name: str, model: nn.Module, *, learning_rate: float, weight_decay: float) -> Optimizer:
    """Make an optimiser over the parameters of a model that want a gradient.

    Vectors (biases, norms, single weights) are not decayed. Any module inside may have an attribute
    ``learning_rate_factors``, a dict from names of its own parameters and submodules ("" for itself) to what their
    learning rate is multiplied by; a factor inside another multiplies. The groups of factor 1 come first.
    """
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for parameter, factor in _with_factors(model):
        if parameter.requires_grad:
            groups.setdefault((factor, parameter.ndim > 1), []).append(parameter)
    return OPTIMIZERS[name](
        [
            {
                "params": groups[factor, is_decayed],
                "lr": learning_rate * factor,
                "weight_decay": weight_decay if is_decayed else 0.0,
            }
            # Factor 1 first, as the history shows the rate of the first group.
            for factor, is_decayed in sorted(groups, key=lambda key: (key[0] != 1, key[0], not key[1]))
        ],
        lr=learning_rate,
        weight_decay=weight_decay,
    )


def _with_factors(module: nn.Module) -> list[tuple[nn.Parameter, float]]:
    """List the parameters of a module with the factors on their learning rate."""
    # In the order of the model, and once however many modules share it: optimisers and their checkpoints know a
    # parameter by its number.
    factors = dict.fromkeys(module.parameters(), 1.0)
    for owner in module.modules():
        for name, factor in getattr(owner, "learning_rate_factors", {}).items():
            part = attrgetter(name)(owner) if name else owner
            for parameter in [part] if isinstance(part, nn.Parameter) else part.parameters():
                factors[parameter] *= factor
    return list(factors.items())


def make_schedule(name: str, optimizer: Optimizer, n_steps: int) -> LambdaLR:
    """Make the schedule that spreads over `n_steps` batches."""
    # torch's class for a closed form of the step. Its own schedules go from each rate to the next, so that a warm-up
    # before a cosine takes three objects in a SequentialLR, whose state is that of all of them.
    factor = SCHEDULES[name]
    # At most 1: training that is continued pass by pass takes more steps than were counted.
    return LambdaLR(optimizer, lambda step: factor(min(step / max(n_steps, 1), 1.0)))
