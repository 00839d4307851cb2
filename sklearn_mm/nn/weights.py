"""Weights in files: state dicts as torch and safetensors write them."""

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sklearn_mm._checks import did_you_mean
from sklearn_mm.exceptions import WeightsError

__all__ = ["existing_file", "read_state"]


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
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, SafetensorError, RuntimeError, EOFError) as error:
        raise WeightsError(f"could not read a state dict from {str(path)!r}: {error}") from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"expected a state dict in {str(path)!r}, got {type(state).__name__}")
    return dict(state)
