"""Interrupted training goes on where it stopped, bit for bit."""

import os
import pickle
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_random_state
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from sklearn_mm._content import NO_MATTER, UndigestibleError, content_digest, named_files
from sklearn_mm._device import generator_of
from sklearn_mm._version import __version__
from sklearn_mm.training._stopping import BestWeights

__all__ = ["Checkpoint", "TrainingState", "decisive_parameters", "identify_run", "open_checkpoint", "run_identity"]

_CPU = torch.device("cpu")


def run_identity(*parts: Any) -> str:
    """Digest what a run depends on: 32 hexadecimal digits, equal for equal parts, in every process.

    Parts are of any kind: parameters, estimators, networks, arrays, texts. They count by their content (see
    `content_digest`); pictures that are given as the paths of files do so where they are marked by `FilesIn`. This
    library's version is one part more, as another one may train otherwise.
    """
    return content_digest(__version__, *parts)


def decisive_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return those parameters that decide what is learnt, to be digested; those that name files by what these hold."""
    return {key: named_files(value) for key, value in parameters.items() if key not in NO_MATTER}


def identify_run(
    folder: str | os.PathLike[str] | None, random_state: Any, name: str, parameters: Mapping[str, Any], *data: Any
) -> tuple[str | None, np.random.RandomState]:
    """Return what tells a run from others, if it is kept at all, and the random state it starts from.

    Parameters
    ----------
    folder : path or None
        Where checkpoints are kept; None for nowhere.
    random_state : int, RandomState or None
        Where runs are kept, None means one drawn from all that a run depends on, so that it can be found again.
    name : str
        Of the estimator.
    parameters : mapping
        Its own.
    *data
        What it is fitted on, and the weights that it goes on from, or None. In `FilesIn`, if it may name files.

    Raises
    ------
    TypeError
        Something in it cannot be looked into, and so not be told from another.
    """
    if folder is None:
        return None, check_random_state(random_state)
    decisive = decisive_parameters(parameters)
    try:
        identity = run_identity(name, decisive, *data)
    except UndigestibleError as error:
        raise TypeError(
            f"a checkpoint has to tell this fit of {name} from others, but {error}; leave that out of the parameters "
            "and the data, or fit with checkpoint=None"
        ) from error
    # 32 bits, the largest seed that RandomState takes.
    return identity, check_random_state(int(identity[:8], 16) if random_state is None else random_state)


class Checkpoint:
    """The latest state of one run on disk.

    Parameters
    ----------
    folder : path
        Made when needed. Runs of different identity do not disturb each other in it.
    identity : str
        As `run_identity` gives it.

    Notes
    -----
    The file is written beside the old one, brought to the disk and then put in its place: whenever a process is killed,
    one whole state is there. (A kill while it is written leaves that beginning, a file ending in ``.part``, of no
    effect.) It is read without running any code of it.
    """

    def __init__(self, folder: str | os.PathLike[str], identity: str) -> None:
        self.path = Path(folder) / f"{identity}.pt"

    def load(self) -> dict[str, Any] | None:
        """Return what was saved last, on the CPU; None, if nothing was.

        Raises
        ------
        ValueError
            The file is damaged, or holds the state of something else.
        """
        if not self.path.exists():
            return None
        try:
            # weights_only, as a pickle may run any code. To the CPU, as the device that wrote it may not be there, and
            # torch wants random states on the CPU; load_state_dict brings weights to where the model is.
            saved = torch.load(self.path, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
            raise ValueError(f"{self.path} is no checkpoint, or damaged; remove it to train anew") from error
        # The name of a file can be changed by anybody; the identity inside was written with the state.
        if not isinstance(saved, dict) or saved.get("identity") != self.path.stem:
            raise ValueError(f"{self.path} holds no checkpoint of this run; remove it to train anew")
        state: dict[str, Any] = saved["state"]
        return state

    def save(self, state: dict[str, Any]) -> None:
        """Replace the state: nested dicts and lists of tensors, numbers and strings."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Its own for each save: threads share the number of their process, and containers all have a process 1.
        beside = self.path.with_name(f"{self.path.name}.{uuid.uuid4().hex}.part")
        try:
            with beside.open("wb") as file:
                torch.save({"identity": self.path.stem, "state": state}, file)
                # To the disk before the file takes its place: otherwise a machine that fails may keep the new name
                # without the content.
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self.path)
        finally:
            beside.unlink(missing_ok=True)


def open_checkpoint(folder: str | os.PathLike[str] | None, identity: str | None, part: str = "") -> Checkpoint | None:
    """Return the checkpoint of a run, or of a part of it; None for a run that is not kept."""
    return None if folder is None or identity is None else Checkpoint(folder, identity + part)


class TrainingState:
    """All that changes while a run trains.

    Parameters
    ----------
    model : Module
    optimizer, schedule, scaler
        Over their parameters.
    best : BestWeights
    rng : numpy.random.Generator
        From which batches and augmentations are drawn.
    device : torch.device
        On which dropout is drawn. The state of this thread's generators is saved: those of `forked_rng`, or torch's.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        schedule: LRScheduler,
        scaler: torch.amp.GradScaler,
        best: BestWeights,
        rng: np.random.Generator,
        device: torch.device,
    ) -> None:
        self._model = model
        self._stateful: dict[str, Any] = {"optimizer": optimizer, "schedule": schedule, "scaler": scaler, "best": best}
        self._rng = rng
        self._device = device

    def state_dict(self) -> dict[str, Any]:
        """Gather the state; its tensors are the live ones, to be saved before training goes on."""
        return {
            "model": self._model.state_dict(),
            "rng": self._rng.bit_generator.state,
            "torch_rng": generator_of(_CPU).get_state(),
            "device_rng": None if self._device == _CPU else generator_of(self._device).get_state(),
            **{name: part.state_dict() for name, part in self._stateful.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Bring everything to a state that was gathered."""
        self._model.load_state_dict(state["model"])
        for name, part in self._stateful.items():
            part.load_state_dict(state[name])
        self._rng.bit_generator.state = state["rng"]
        generator_of(_CPU).set_state(state["torch_rng"])
        # Without one where the run began on the CPU, which draws what it goes on with from the seed of the run.
        if self._device != _CPU and state["device_rng"] is not None:
            generator_of(self._device).set_state(state["device_rng"])
