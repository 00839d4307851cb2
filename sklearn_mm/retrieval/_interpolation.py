"""Weights between those that training began with and those that it came to (WiSE-FT)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = ["SHARES", "best_share", "copy_weights", "mix_weights"]

SHARES = tuple(tenth / 10 for tenth in range(11))
"""The shares of what was trained that are tried."""


def copy_weights(module: nn.Module) -> dict[str, Tensor]:
    """Return a copy of all weights and statistics that training may change."""
    learning = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    learning |= {name for name, buffer in module.named_buffers() if buffer.is_floating_point()}
    return {name: value.detach().clone() for name, value in module.state_dict().items() if name in learning}


def mix_weights(module: nn.Module, start: dict[str, Tensor], end: dict[str, Tensor], share: float) -> None:
    """Put ``(1 - share) * start + share * end`` into a module; 0 and 1 give the answers of either to the bit."""
    # Without a gradient and in place: optimisers and towers hold the same tensors.
    own = module.state_dict()
    with torch.no_grad():
        for name, begun in start.items():
            trained = end[name]
            # Of the two factors of an adapter one is 0 at the start. With the other as trained their product, which
            # is what is added to a weight, is the share of what was trained; with both mixed it would be its square.
            keeps = share == 1 or ".lora_A." in name
            own[name].copy_(trained if keeps else torch.lerp(begun.to(trained.device), trained, share))


def best_share(
    module: nn.Module, start: dict[str, Tensor], end: dict[str, Tensor], score: Callable[[], float]
) -> float:
    """Return the share of what was trained that scores best; of equals the largest. The module is left as trained."""
    scores = []
    for share in SHARES:  # the last is 1
        mix_weights(module, start, end, share)
        scores.append((score(), share))
    return max(scores)[1]
