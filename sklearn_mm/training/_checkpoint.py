"""Interrupted training goes on where it stopped, bit for bit."""

import os
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from joblib.hashing import NumpyHasher
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from sklearn_mm._version import __version__
from sklearn_mm.training._stopping import BestWeights

__all__ = ["Checkpoint", "TrainingState", "run_identity"]


class _Hasher(NumpyHasher):
    """joblib's, and tensors by their values: their pickles name addresses, which are others in every process."""

    def save(self, obj: Any) -> None:
        if isinstance(obj, Tensor):
            values = obj.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
            obj = (str(obj.dtype), tuple(obj.shape), obj.requires_grad, values)
        super().save(obj)


def run_identity(*parts: Any) -> str:
    """Digest what a run depends on: 32 hexadecimal digits, equal for equal parts, in every process.

    Parts are of any kind that pickles: parameters, estimators, networks, arrays, texts. This library's version is one
    more, as another one may train otherwise.
    """
    return str(_Hasher(hash_name="md5").hash((__version__, parts)))


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
            saved = torch.load(self.path, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
            raise ValueError(f"{self.path} is no checkpoint, or damaged; remove it to train anew") from error
        if not isinstance(saved, dict) or saved.get("identity") != self.path.stem:
            raise ValueError(f"{self.path} holds no checkpoint of this run; remove it to train anew")
        state: dict[str, Any] = saved["state"]
        return state

    def save(self, state: dict[str, Any]) -> None:
        """Replace the state: nested dicts and lists of tensors, numbers and strings."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        beside = self.path.with_name(f"{self.path.name}.{os.getpid()}.part")
        try:
            with beside.open("wb") as file:
                torch.save({"identity": self.path.stem, "state": state}, file)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self.path)
        finally:
            beside.unlink(missing_ok=True)


class TrainingState:
    """All that changes while a run trains.

    Parameters
    ----------
    modules : sequence of Module
    optimizer, schedule, scaler
        Over their parameters.
    best : BestWeights
    rng : numpy.random.Generator
        From which batches and augmentations are drawn.
    device : torch.device
        Whose random state dropout is drawn from.
    """

    def __init__(
        self,
        modules: Sequence[nn.Module],
        optimizer: Optimizer,
        schedule: LRScheduler,
        scaler: torch.amp.GradScaler,
        best: BestWeights,
        rng: np.random.Generator,
        device: torch.device,
    ) -> None:
        self._modules = modules
        self._stateful: dict[str, Any] = {"optimizer": optimizer, "schedule": schedule, "scaler": scaler, "best": best}
        self._rng = rng
        self._device = device

    def state_dict(self) -> dict[str, Any]:
        """Gather the state; its tensors are the live ones, to be saved before training goes on."""
        return {
            "modules": [module.state_dict() for module in self._modules],
            "rng": self._rng.bit_generator.state,
            "torch_rng": torch.get_rng_state(),
            "device_rng": _device_rng(self._device),
            **{name: part.state_dict() for name, part in self._stateful.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Bring everything to a state that was gathered."""
        for module, values in zip(self._modules, state["modules"], strict=True):
            module.load_state_dict(values)
        for name, part in self._stateful.items():
            part.load_state_dict(state[name])
        self._rng.bit_generator.state = state["rng"]
        torch.set_rng_state(state["torch_rng"])
        if state["device_rng"] is not None:
            torch.cuda.set_rng_state(state["device_rng"], self._device)


def _device_rng(device: torch.device) -> torch.Tensor | None:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else None
