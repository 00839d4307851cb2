"""The temperature that scores are divided by: given, or trained by its logarithm."""

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["learnt_temperature", "temperature_of"]

_LOWEST_TEMPERATURE = 0.01  # below, scores of 1 overflow half precision, and training has been seen to diverge (CLIP)


def temperature_of(learnt: Mapping[str, Tensor], given: float) -> float | Tensor:
    """Return the trained temperature, of which `learnt` holds the logarithm, or else the one given."""
    if "log_temperature" not in learnt:
        return float(given)
    return learnt["log_temperature"].exp().clamp_min(_LOWEST_TEMPERATURE)


def learnt_temperature(values: Mapping[str, float], given: float) -> float:
    """Return the temperature to which training has come, as the last batch saw it, or else the one given."""
    # through the same function, for the same lower end
    return float(temperature_of({name: torch.tensor(value) for name, value in values.items()}, given))
