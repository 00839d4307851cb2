"""Training in stages, from where a checkpoint stands, as scikit-learn's callbacks see it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.callback import CallbackSupportMixin
from sklearn.utils import check_random_state
from torch import Tensor, nn

from sklearn_mm._device import resolve_device, resolve_dtype
from sklearn_mm.training._checkpoint import Checkpoint, TrainingState, run_identity
from sklearn_mm.training._loop import EpochRecord, train_epochs
from sklearn_mm.training._optimizer import make_optimizer, make_schedule
from sklearn_mm.training._progress import progress
from sklearn_mm.training._stopping import BestWeights

__all__ = ["Stage", "StagedTrainingMixin"]

_NO_MATTER = frozenset({"checkpoint", "verbose", "device", "n_jobs"})
"""Parameters that a run does not depend on."""


def _do_nothing() -> None: ...


@dataclass(frozen=True)
class Stage:
    """A part of training with an optimiser and a schedule of its own.

    Attributes
    ----------
    name : str
        As the history names it.
    n_epochs : int
    learning_rate : float
    parts : sequence of Module
        What is trained.
    batches : callable
        Returns the batches of one epoch.
    n_batches : int
        How many they are.
    make_step : callable
        Returns what computes a batch's mean loss; called when the weights are those that the stage starts from.
    begin : callable
        Called before the optimiser is made.
    validate : callable or None
        Returns the name and the value of a score of what is held out; higher is better.
    keeps : sequence of Module
        Whose weights of the best score are kept; training stops when it has not improved for long. None of them without
        early stopping.
    clip_tensors : bool
        As in `train_epochs`.
    """

    name: str
    n_epochs: int
    learning_rate: float
    parts: Sequence[nn.Module]
    batches: Callable[[], Iterable[Any]]
    n_batches: int
    make_step: Callable[[], Callable[[Any], Tensor]]
    begin: Callable[[], None] = _do_nothing
    validate: Callable[[], tuple[str, float]] | None = None
    keeps: Sequence[nn.Module] = ()
    clip_tensors: bool = False


class StagedTrainingMixin(CallbackSupportMixin):
    """An estimator that trains in stages.

    It has the parameters `optimizer`, `weight_decay`, `lr_schedule`, `clip_norm`, `n_iter_no_change`, `random_state`,
    `device`, `precision`, `checkpoint` and `verbose`, and is fitted under `with_callbacks`.
    """

    history_: list[EpochRecord]
    n_epochs_: int

    def _identify(self, resumed: Any, *data: Any) -> tuple[str | None, np.random.RandomState]:
        """Return what tells the run from others, if it is kept at all, and the random state it starts from.

        `resumed` are the weights that it goes on from, or None.
        """
        if self.checkpoint is None:
            return None, check_random_state(self.random_state)
        parameters = {name: value for name, value in self.get_params(deep=False).items() if name not in _NO_MATTER}
        identity = run_identity(type(self).__name__, parameters, resumed, *data)
        seed = int(identity[:8], 16) if self.random_state is None else self.random_state
        return identity, check_random_state(seed)

    def _checkpoint(self, identity: str | None) -> Checkpoint | None:
        return None if identity is None or self.checkpoint is None else Checkpoint(self.checkpoint, identity)

    def _run_stages(
        self,
        stages: Sequence[Stage],
        modules: Sequence[nn.Module],
        rng: np.random.Generator,
        checkpoint: Checkpoint | None,
        *,
        watched: bool = True,
    ) -> None:
        """Train in stages, from where the checkpoint stands.

        Parameters
        ----------
        stages : sequence of Stage
        modules : sequence of Module
            All there are.
        rng : Generator
        checkpoint : Checkpoint or None
        watched : bool
            Whether callbacks see it, and the history keeps it.
        """
        device = resolve_device(self.device)
        for module in modules:
            module.to(device)
        saved = checkpoint.load() if checkpoint is not None else None
        context = None
        if watched:
            context = self._init_callback_context(max_subtasks=sum(stage.n_epochs for stage in stages))
            context.call_on_fit_task_begin(estimator=self)
        for number, stage in enumerate(stages):
            if saved is not None and number < saved["stage"]:
                continue
            stage.begin()
            optimizer = make_optimizer(
                self.optimizer, stage.parts, learning_rate=stage.learning_rate, weight_decay=self.weight_decay
            )
            schedule = make_schedule(self.lr_schedule, optimizer, stage.n_epochs * stage.n_batches)
            scaler = self._make_scaler()
            best = BestWeights(stage.keeps)
            state = TrainingState(modules, optimizer, schedule, scaler, best, rng, device)
            n_done, finished = 0, False
            if saved is not None and number == saved["stage"]:
                state.load_state_dict(saved["training"])
                n_done, finished = saved["n_done"], saved["finished"]
                if watched:
                    self.history_, self.n_epochs_ = saved["history"], saved["n_epochs"]
            n_left = 0 if finished else stage.n_epochs - n_done
            records = self._stage_epochs(stage, n_left, optimizer, schedule, scaler)
            for record in progress(records, n_epochs=n_left, title=f"{stage.name} training", verbose=self.verbose):
                stop = self._look_at_epoch(record, stage, best, context)
                n_done += 1
                finished = stop or best.n_epochs_without_improvement >= self.n_iter_no_change
                if checkpoint is not None:
                    now = {"stage": number, "n_done": n_done, "finished": finished, "training": state.state_dict()}
                    kept = {"history": self.history_, "n_epochs": self.n_epochs_} if watched else {}
                    checkpoint.save({**now, **kept})
                if finished:
                    break
            best.restore()
        if context is not None:
            context.call_on_fit_task_end(estimator=self, reconstruction_attributes=self._fitted_attributes)

    def _stage_epochs(
        self,
        stage: Stage,
        n_epochs: int,
        optimizer: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler,
        scaler: torch.amp.GradScaler,
    ) -> Iterator[EpochRecord]:
        """Train some epochs of a stage, and yield a record after each."""
        if not n_epochs:
            return iter(())

        device = resolve_device(self.device)

        def batches() -> Iterable[Any]:
            for part in stage.parts:  # a score of what is held out, or a callback, may have left them elsewhere
                part.to(device).train()
            return stage.batches()

        return train_epochs(
            stage.make_step(),
            batches,
            optimizer,
            schedule,
            n_epochs=n_epochs,
            clip_norm=self.clip_norm,
            clip_tensors=stage.clip_tensors,
            scaler=scaler,
        )

    def _make_scaler(self) -> torch.amp.GradScaler:
        device = resolve_device(self.device)
        return torch.amp.GradScaler(device.type, enabled=resolve_dtype(self.precision, device) == torch.float16)

    def _look_at_epoch(self, record: EpochRecord, stage: Stage, best: BestWeights, context: Any) -> bool:
        """Complete the record of an epoch, and keep it where it is watched; return whether a callback stops there."""
        epoch = None
        if context is not None:
            epoch = context.subcontext(task_name="epoch").call_on_fit_task_begin(estimator=self)
        if stage.validate is not None:
            name, score = stage.validate()
            record[name] = score
            if stage.keeps:
                best.update(score)
        if epoch is None:
            return False
        self._keep(record, stage.name)
        stop = epoch.call_on_fit_task_end(
            estimator=self, metadata=record, reconstruction_attributes=self._fitted_attributes
        )
        return bool(stop)

    def _keep(self, record: EpochRecord, stage: str) -> None:
        self.n_epochs_ += 1
        record.update(epoch=self.n_epochs_, stage=stage)
        self.history_ = [*self.history_, record]

    def _fitted_attributes(self) -> dict[str, Any]:
        """Return what a callback needs to see the estimator as it stands between two epochs."""
        return {name: value for name, value in vars(self).items() if name.endswith("_") or name == "_n_features_out"}
