"""Keep the best weights, and notice when they have not improved for long."""

from typing import Any

import torch
from torch import nn

__all__ = ["BestWeights"]


class BestWeights:
    """The weights of a module at their best validation score so far.

    Parameters
    ----------
    module : Module or None
        None for a run that keeps its last weights.
    tol : float
        A score has to be higher than the best by more than this to count as an improvement.

    Attributes
    ----------
    best_score : float
    n_epochs_without_improvement : int
    """

    def __init__(self, module: nn.Module | None, tol: float = 0.0) -> None:
        self._module = module
        self._tol = tol
        self._weights: dict[str, torch.Tensor] = {}
        self.best_score = -float("inf")
        self.n_epochs_without_improvement = 0

    def update(self, score: float) -> bool:
        """Take note of an epoch's score; copy the weights if it is the best. Return whether it is."""
        if self._module is None:
            return False
        # The first score counts even if it is NaN: there has to be something to restore.
        if score > self.best_score + self._tol or not self._weights:
            self.best_score = score
            self.n_epochs_without_improvement = 0
            # state_dict gives the live tensors, which the next step changes.
            self._weights = {name: value.detach().clone() for name, value in self._module.state_dict().items()}
            return True
        self.n_epochs_without_improvement += 1
        return False

    def restore(self) -> None:
        """Put the best weights back into the module."""
        if self._module is not None and self._weights:
            self._module.load_state_dict(self._weights)

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` takes."""
        return {
            "weights": self._weights,
            "best_score": self.best_score,
            "n_epochs_without_improvement": self.n_epochs_without_improvement,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Bring this to a state that `state_dict` returned."""
        self._weights = state["weights"]
        self.best_score = state["best_score"]
        self.n_epochs_without_improvement = state["n_epochs_without_improvement"]
