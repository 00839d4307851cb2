"""What a run of training is told, as plain values."""

from dataclasses import dataclass

import torch

__all__ = ["TrainingSettings"]


@dataclass(frozen=True)
class TrainingSettings:
    """How weights are changed, and where.

    Attributes
    ----------
    device : torch.device
        Where the model and its batches are brought.
    dtype : torch.dtype
        That its towers compute in; only float16 needs gradients scaled.
    optimizer : {"adamw", "adam", "sgd"}
    weight_decay : float
    lr_schedule : {"cosine", "linear", "step", "constant"}
    clip_norm : float
        The largest norm of the gradient over all parameters together.
    clip_tensors : bool
        Hold each parameter's own gradient to `clip_norm` instead.
    n_iter_no_change : int
        Epochs without a better score of what is held out after which a stage that keeps its best weights ends.
    verbose : int
        Whether to show a bar over epochs.
    """

    device: torch.device
    dtype: torch.dtype = torch.float32
    optimizer: str = "adamw"
    weight_decay: float = 1e-4
    lr_schedule: str = "cosine"
    clip_norm: float = 2.0
    clip_tensors: bool = False
    n_iter_no_change: int = 5
    verbose: int = 0
