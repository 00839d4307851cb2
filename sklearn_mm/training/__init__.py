"""The training loop: it is handed a step, batches and an optimiser, and yields a record per epoch."""

from sklearn_mm.training._checkpoint import Checkpoint, TrainingState, run_identity
from sklearn_mm.training._inference import embed
from sklearn_mm.training._loop import EpochRecord, train_epochs
from sklearn_mm.training._optimizer import OPTIMIZERS, SCHEDULES, make_optimizer, make_schedule
from sklearn_mm.training._progress import progress
from sklearn_mm.training._stages import Stage, StagedTrainingMixin
from sklearn_mm.training._stopping import BestWeights

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "BestWeights",
    "Checkpoint",
    "EpochRecord",
    "Stage",
    "StagedTrainingMixin",
    "TrainingState",
    "embed",
    "make_optimizer",
    "make_schedule",
    "progress",
    "run_identity",
    "train_epochs",
]
