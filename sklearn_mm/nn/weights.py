"""Weights in files: state dicts as torch and safetensors write them."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sklearn_mm._checks import did_you_mean
from sklearn_mm.exceptions import WeightsError

__all__ = ["existing_file", "read_state"]

_IN_CHECKPOINTS = ("state_dict", "model_state_dict", "model")


def existing_file(path: Path) -> Path:
    """Return the path of a file of weights.

    Raises
    ------
    WeightsError
        It leads to no file.
    """
    if not path.is_file():
        raise WeightsError(
            f"weights={str(path)!r} is neither 'default' nor a file; {did_you_mean(str(path), ['default'])}"
        )
    return path


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict written by ``torch.save`` or in the safetensors format, onto the CPU.

    A checkpoint of a training holds it beside other things ("state_dict" of Lightning, "model", ...), and is looked
    through for it.

    Raises
    ------
    WeightsError
        There is no such file, or it is no state dict.
    """
    existing_file(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # weights_only: a pickle may run code; map_location: the file may come from a machine with a GPU
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"could not read a state dict from {str(path)!r}: {error}. A file of other objects than tensors "
            "is not opened, as it may run code: write what torch.load gives of the weights alone by torch.save"
        ) from error
    except (SafetensorError, RuntimeError, EOFError) as error:
        raise WeightsError(f"could not read a state dict from {str(path)!r}: {error}") from error
    if _is_state(saved):
        return dict(saved)
    found = {name: part for name, part in saved.items() if _is_state(part)} if isinstance(saved, Mapping) else {}
    # the plain weights where a running average of them is there too
    chosen = next((name for name in (*_IN_CHECKPOINTS, *found) if name in found), None)
    if chosen is None:
        holds = f" of {', '.join(map(repr, list(saved)[:5]))}" if isinstance(saved, Mapping) else ""
        raise WeightsError(f"expected a state dict in {str(path)!r}, got {type(saved).__name__}{holds}")
    return dict(found[chosen])


def _is_state(saved: Any) -> bool:
    return isinstance(saved, Mapping) and len(saved) > 0 and all(isinstance(value, Tensor) for value in saved.values())
