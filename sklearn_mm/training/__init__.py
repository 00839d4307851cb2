"""The training loop: it is handed a step, batches and an optimiser, and yields a record per epoch."""

from sklearn_mm.training._inference import embed
from sklearn_mm.training._loop import EpochRecord, train_epochs
from sklearn_mm.training._optimizer import OPTIMIZERS, SCHEDULES, make_optimizer, make_schedule
from sklearn_mm.training._progress import progress
from sklearn_mm.training._stopping import BestWeights

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "BestWeights",
    "EpochRecord",
    "embed",
    "make_optimizer",
    "make_schedule",
    "progress",
    "train_epochs",
]
