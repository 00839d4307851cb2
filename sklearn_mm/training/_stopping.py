"""Keep the best weights, and notice when they have not improved for long."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

__all__ = ["BestWeights"]


class BestWeights:
    """The weights of some modules at their best validation score so far.

    Parameters
    ----------
    modules : sequence of Module
    tol : float
        A score has to be higher than the best by more than this to count as an improvement.

    Attributes
    ----------
    best_score : float
    n_epochs_without_improvement : int
    """

    def __init__(self, modules: Sequence[nn.Module], tol: float = 0.0) -> None:
        self._modules = modules
        self._tol = tol
        self._states: list[dict[str, torch.Tensor]] = []
        self.best_score = -float("inf")
        self.n_epochs_without_improvement = 0

    def update(self, score: float) -> bool:
        """Take note of an epoch's score; copy the weights if it is the best. Return whether it is."""
        if score > self.best_score + self._tol or not self._states:
            self.best_score = score
            self.n_epochs_without_improvement = 0
            self._states = [
                {name: value.detach().clone() for name, value in module.state_dict().items()}
                for module in self._modules
            ]
            return True
        self.n_epochs_without_improvement += 1
        return False

    def restore(self) -> None:
        """Put the best weights back into the modules."""
        for module, state in zip(self._modules, self._states, strict=False):
            module.load_state_dict(state)

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` takes."""
        return {
            "states": self._states,
            "best_score": self.best_score,
            "n_epochs_without_improvement": self.n_epochs_without_improvement,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Bring this to a state that `state_dict` returned."""
        self._states = state["states"]
        self.best_score = state["best_score"]
        self.n_epochs_without_improvement = state["n_epochs_without_improvement"]
