"""The one way anything is trained: stages, validation, checkpoints and callbacks around the loop."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

from sklearn_mm._device import ready_to_copy, to_device
from sklearn_mm.training._ahead import made_ahead
from sklearn_mm.training._callbacks import EpochCallbacks
from sklearn_mm.training._checkpoint import Checkpoint, TrainingState
from sklearn_mm.training._loop import EpochRecord, train_epochs
from sklearn_mm.training._optimizer import make_optimizer, make_schedule
from sklearn_mm.training._processes import ALONE, Processes
from sklearn_mm.training._progress import progress
from sklearn_mm.training._settings import TrainingSettings
from sklearn_mm.training._stopping import BestWeights

__all__ = ["EpochBatches", "Stage", "continue_training", "make_scaler", "train"]


def _do_nothing() -> None: ...


def _do_nothing_with(history: list[EpochRecord]) -> None: ...


class EpochBatches(Protocol):
    """The batches of one epoch: gone through anew for each, by one thread at a time."""

    def __len__(self) -> int:
        """Count them."""
        ...

    def __iter__(self) -> Iterator[Any]:
        """Draw them; each is what the model's `forward` takes, on the CPU."""
        ...


@dataclass(frozen=True)
class Stage:
    """A part of training with an optimiser and a schedule of its own.

    Attributes
    ----------
    name : str
        As the history names it.
    model : Module
        What is trained: ``model(batch)`` is the mean loss of a batch, a 0-d tensor.
    batches : EpochBatches
    n_epochs : int
    learning_rate : float
    begin : callable
        Called before the optimiser is made; says which parts of the model learn.
    validate : callable or None
        Returns the name and the value of a score of what is held out; higher is better.
    keeps : Module or None
        Whose weights of the best score are kept; training stops when it has not improved for long. None without early
        stopping.
    ahead : bool
        Whether batches are made in a thread: not worth it for rows of features in memory.
    keeps_start : bool
        Whether the weights before the first epoch are among those of which the best are kept.
    in_chunks : sequence of Module
        Parts of the model that a batch passes in chunks.
    """

    name: str
    model: nn.Module
    batches: EpochBatches
    n_epochs: int
    learning_rate: float
    begin: Callable[[], None] = _do_nothing
    validate: Callable[[], tuple[str, float]] | None = None
    keeps: nn.Module | None = None
    ahead: bool = True
    keeps_start: bool = False
    in_chunks: Sequence[nn.Module] = ()


def train(
    model: nn.Module,
    stages: Sequence[Stage],
    settings: TrainingSettings,
    rng: np.random.Generator,
    *,
    history: Sequence[EpochRecord] = (),
    keep: Callable[[list[EpochRecord]], None] | None = None,
    checkpoint: Checkpoint | None = None,
    callbacks: EpochCallbacks | None = None,
    processes: Processes = ALONE,
) -> list[EpochRecord]:
    """Train in stages, from where the checkpoint stands, under torch's current random state.

    Parameters
    ----------
    model : Module
        All that is trained in any stage, for the checkpoint. It is brought to the device, and stays there.
    stages : sequence of Stage
    settings : TrainingSettings
    rng : numpy.random.Generator
        That the stages' batches draw from, for the checkpoint.
    history : sequence of dict
        The records of epochs before; the numbers of epochs go on from it.
    keep : callable, optional
        Takes the history so far, before the callbacks hear of an epoch.
    checkpoint : Checkpoint, optional
    callbacks : EpochCallbacks, optional
    processes : Processes
        That train together, each with its own share of the stages' batches. Checkpoints are of the first of them.

    Returns
    -------
    list of dict
        The history with a record for each epoch: those of `train_epochs`, ``stage``, and what was validated.

    Raises
    ------
    FloatingPointError
        Training diverged.
    RuntimeError
        Another process is out of reach.
    """
    processes.check_devices(settings.device)
    try:
        with processes.common_draws(settings.device):
            return _train(model, stages, settings, rng, history, keep, checkpoint, callbacks, processes)
    except RuntimeError as error:
        lost = processes.lost(error, None if checkpoint is None else checkpoint.path)
        if lost is None:
            raise
        raise lost from error


def _train(
    model: nn.Module,
    stages: Sequence[Stage],
    settings: TrainingSettings,
    rng: np.random.Generator,
    history: Sequence[EpochRecord],
    keep: Callable[[list[EpochRecord]], None] | None,
    checkpoint: Checkpoint | None,
    callbacks: EpochCallbacks | None,
    processes: Processes,
) -> list[EpochRecord]:
    model.to(settings.device)
    saved = processes.of_first(lambda: None if checkpoint is None else checkpoint.load())
    records = list(history) if saved is None else saved["history"]
    keep = _do_nothing_with if keep is None else keep
    # A run that had finished trains no epoch, and leaves its history all the same.
    keep(records)
    if callbacks is not None:
        callbacks.begin()
    for number, stage in enumerate(stages):
        # What earlier stages did is in the weights of the later one's checkpoint.
        if saved is not None and number < saved["stage"]:
            continue
        # Begun before it is resumed: `begin` decides which parameters learn, and an optimiser takes back the state of
        # the same ones only.
        run = _StageRun(model, stage, settings, rng, processes)
        if saved is not None and number == saved["stage"]:
            run.resume(saved)
        for record in run.epochs(callbacks):
            # New lists and dicts: those that were handed out before do not change.
            records = [*records, {**record, "epoch": len(records) + 1, "stage": stage.name}]
            keep(records)
            stops = callbacks is not None and callbacks.end_epoch(records[-1])
            if processes.agreed(stops):
                # Noted before the checkpoint is written: what a callback stopped does not go on when it is read.
                run.is_finished = True
            if checkpoint is not None and processes.rank == 0:
                checkpoint.save({"stage": number, "history": records, **run.state()})
        # After each stage and not at the end alone: the next one starts from the best of this one.
        run.best.restore()
    if callbacks is not None:
        callbacks.end()
    return records


def continue_training(
    stage: Stage,
    settings: TrainingSettings,
    optimizer: Optimizer,
    scaler: torch.amp.GradScaler,
    history: Sequence[EpochRecord],
) -> list[EpochRecord]:
    """Train the epochs of a stage at a constant rate by an optimiser that has seen others; return the history."""
    stage.model.to(settings.device)
    records = train_epochs(
        stage.model,
        lambda: _prepared(stage, settings),
        optimizer,
        # No other schedule is possible: how many calls follow is not known.
        make_schedule("constant", optimizer, 1),
        scaler,
        settings,
        n_epochs=stage.n_epochs,
    )
    numbered = enumerate(records, start=len(history) + 1)
    return [*history, *({**record, "epoch": number, "stage": stage.name} for number, record in numbered)]


class _StageRun:
    """A stage under way: its optimiser, what has been the best, and how far it has come."""

    def __init__(
        self,
        model: nn.Module,
        stage: Stage,
        settings: TrainingSettings,
        rng: np.random.Generator,
        processes: Processes,
    ) -> None:
        stage.begin()
        self._stage, self._settings, self._rng, self._processes = stage, settings, rng, processes
        self._optimizer = make_optimizer(
            settings.optimizer, stage.model, learning_rate=stage.learning_rate, weight_decay=settings.weight_decay
        )
        self._schedule = make_schedule(settings.lr_schedule, self._optimizer, stage.n_epochs * len(stage.batches))
        self._scaler = make_scaler(settings)
        self.best = BestWeights(stage.keeps)
        self._state = TrainingState(
            model, self._optimizer, self._schedule, self._scaler, self.best, rng, settings.device
        )
        self._n_done = 0
        self.is_finished = False

    def resume(self, saved: dict[str, Any]) -> None:
        self._state.load_state_dict(saved["training"])
        self._n_done, self.is_finished = saved["n_done"], saved["finished"]

    def state(self) -> dict[str, Any]:
        return {"n_done": self._n_done, "finished": self.is_finished, "training": self._state.state_dict()}

    def epochs(self, callbacks: EpochCallbacks | None) -> Iterator[EpochRecord]:
        """Train what is left of the stage, and yield the record of each epoch with its validation."""

        def batches() -> Iterator[Any]:
            # Here, where the loop asks for batches: an epoch has begun before its first batch is drawn.
            if callbacks is not None:
                callbacks.begin_epoch()
            # In each epoch, by what the checkpoint holds: it is of one process, and goes for all.
            self._processes.seed_torch(self._rng, self._settings.device)
            return _prepared(self._stage, self._settings)

        if self._stage.keeps_start and self._stage.validate is not None and not self._n_done:
            self.best.update(self._processes.agreed(self._stage.validate())[1])
        # A stage that stopped early has epochs left, and trains none of them.
        n_left = 0 if self.is_finished else self._stage.n_epochs - self._n_done
        records = train_epochs(
            self._stage.model,
            batches,
            self._optimizer,
            self._schedule,
            self._scaler,
            self._settings,
            n_epochs=n_left,
            processes=self._processes,
            in_chunks=self._stage.in_chunks,
        )
        title = f"{self._stage.name} training"
        verbose = self._settings.verbose if self._processes.rank == 0 else 0
        for own_record in progress(records, n_epochs=n_left, title=title, verbose=verbose):
            self._processes.agree_buffers(self._stage.model)
            # The first process's, its seconds too: all end with the same history.
            record = self._processes.agreed(own_record)
            if self._stage.validate is not None:
                name, score = self._processes.agreed(self._stage.validate())
                record[name] = score
                if self._stage.keeps is not None:
                    self.best.update(score)
            self._n_done += 1
            self.is_finished = self.best.n_epochs_without_improvement >= self._settings.n_iter_no_change
            yield record
            # Asked again: the caller may have set it meanwhile, for a callback.
            if self.is_finished:
                return


def make_scaler(settings: TrainingSettings) -> torch.amp.GradScaler:
    """Make what keeps float16's gradients from vanishing; it does nothing in other precisions."""
    return torch.amp.GradScaler(settings.device.type, enabled=settings.dtype == torch.float16)


def _prepared(stage: Stage, settings: TrainingSettings) -> Iterator[Any]:
    """Yield the batches of an epoch on the device, the model being in training mode."""
    batches = iter(stage.batches)  # what they compute once with the frozen part of a model, they compute here
    stage.model.train()  # a score of what is held out, or a callback, may have left it otherwise
    # Batches are made on the CPU in a thread, and brought to the device by this one.
    if stage.ahead:
        batches = made_ahead(ready_to_copy(batch, settings.device) for batch in batches)
    return (to_device(batch, settings.device) for batch in batches)
