"""Training: a model and its batches go in, a record per epoch comes out."""

from sklearn_mm.training._ahead import made_ahead
from sklearn_mm.training._callbacks import EpochCallbacks
from sklearn_mm.training._checkpoint import (
    Checkpoint,
    TrainingState,
    decisive_parameters,
    identify_run,
    open_checkpoint,
    run_identity,
)
from sklearn_mm.training._loop import EpochRecord, train_epochs
from sklearn_mm.training._optimizer import OPTIMIZERS, SCHEDULES, make_optimizer, make_schedule
from sklearn_mm.training._processes import ALONE, Processes, join_processes
from sklearn_mm.training._progress import progress
from sklearn_mm.training._settings import TrainingSettings
from sklearn_mm.training._stopping import BestWeights
from sklearn_mm.training._train import EpochBatches, Stage, continue_training, make_scaler, train

__all__ = [
    "ALONE",
    "OPTIMIZERS",
    "SCHEDULES",
    "BestWeights",
    "Checkpoint",
    "EpochBatches",
    "EpochCallbacks",
    "EpochRecord",
    "Processes",
    "Stage",
    "TrainingSettings",
    "TrainingState",
    "continue_training",
    "decisive_parameters",
    "identify_run",
    "join_processes",
    "made_ahead",
    "make_optimizer",
    "make_scaler",
    "make_schedule",
    "open_checkpoint",
    "progress",
    "run_identity",
    "train",
    "train_epochs",
]
