"""Choose among the negatives of each positive pair.

Each function takes the scores of the positive pairs, shape (n_pairs,), and of their negatives, shape
(n_pairs, n_negatives), where minus infinity marks an entry that is none; it returns the scores chosen, shape
(n_pairs, n_chosen), through which gradients flow.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from sklearn_mm._device import generator_of

__all__ = ["NEGATIVES"]


def all_negatives(positive: Tensor, negative: Tensor) -> Tensor:
    """Take every negative."""
    return negative


def hardest_negative(positive: Tensor, negative: Tensor) -> Tensor:
    """Take the negative with the highest score (VSE++)."""
    return negative.amax(dim=1, keepdim=True)


def semi_hard_negative(positive: Tensor, negative: Tensor) -> Tensor:
    """Take the highest-scored negative below the positive (FaceNet); none where all are above it."""
    below = negative.masked_fill(negative.detach() >= positive.detach()[:, None], -torch.inf)
    return below.amax(dim=1, keepdim=True)


def random_negative(positive: Tensor, negative: Tensor) -> Tensor:
    """Take one negative by chance, from torch's current random state."""
    # as torch.rand_like, from a generator by name: losses are spared the detour through `OwnDraws`
    drawn = torch.empty_like(negative).uniform_(generator=generator_of(negative.device))
    # where all are none, the first is taken: minus infinity, which costs nothing
    chance = drawn.masked_fill(negative.isneginf(), -1.0)
    return negative.gather(1, chance.argmax(dim=1, keepdim=True))


def hardest_anchor_negative(positive: Tensor, negative: Tensor) -> Tensor:
    """Take each negative for the one pair that it violates most, as the code of the full-network embedding does.

    The maximum of hinges runs over the pairs instead of over the negatives; the other entries become minus infinity.
    """
    # which entry is taken is no matter of gradients; those flow through what is kept
    violation = negative.detach() - positive.detach()[:, None]  # (n_pairs, n_negatives)
    most = violation.argmax(dim=0, keepdim=True)
    return negative.masked_fill(torch.ones_like(violation, dtype=torch.bool).scatter(0, most, False), -torch.inf)


NEGATIVES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = MappingProxyType(
    {
        "all": all_negatives,
        "hardest": hardest_negative,
        "hardest-anchor": hardest_anchor_negative,
        "semi-hard": semi_hard_negative,
        "random": random_negative,
    }
)
