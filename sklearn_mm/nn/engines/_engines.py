"""Engines by name: which there are, which one is worth its start, and how it is built."""

from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import Tensor, fx

from sklearn_mm.nn.engines._compile import compiled_by_torch
from sklearn_mm.nn.engines._fuse import can_fuse, fuse
from sklearn_mm.nn.engines._openvino import compiled_by_openvino
from sklearn_mm.nn.engines._rewrite import fold_and_pool
from sklearn_mm.nn.engines._trace import UntraceableError, trace
from sklearn_mm.nn.engines._windows import read_windows_once
from sklearn_mm.nn.taps import TapReader

__all__ = [
    "ENGINES",
    "EngineError",
    "build_engine",
    "check_engine",
    "chosen_engine",
    "engine_identity",
    "settled_engine",
]

ENGINES = ("auto", "torch", "compile", "openvino")
_INSTALL_OPENVINO = "engine='openvino' needs openvino: pip install 'sklearn-mm[openvino]'"
# Pictures that save as much as a start takes. Engine "torch" starts in 2 s and saves 4 ms of 8 with two threads, of
# EfficientNet-Lite0, and as much of 11 for a cache; OpenVINO starts in 8 to 10 s and saves 1 to 3 ms more.
_WORTH_TORCH, _WORTH_OPENVINO = 500, 5000
# Of the largest activation in float32. In half precision single ones of either are off by a tenth of it, in layers
# whose maps are large and cancel out: there it is of the norm of all, of which both are off by 0.03 from float32.
_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.02}


class EngineError(ValueError):
    """An engine cannot run this network; the message says why."""


def check_engine(engine: str, device: torch.device, precision: str) -> None:
    """Check that an engine is there, and suits the device and the precision.

    Raises
    ------
    ImportError
        It is not installed; the message says how to.
    ValueError
        It does not run on this device, or not in this precision.
    """
    if engine != "openvino":
        return
    if find_spec("openvino") is None:
        raise ImportError(_INSTALL_OPENVINO)
    if device.type != "cpu":
        raise ValueError(
            f"engine='openvino' runs on the CPU, got device '{device}'; use device='cpu' or another engine"
        )
    if precision == "float16":
        raise ValueError("engine='openvino' does not compute in float16; use precision='bfloat16', 'float32' or 'auto'")


def chosen_engine(engine: str, device: torch.device, dtype: torch.dtype, n_pictures: int) -> str | None:
    """Return the engine to be used for so many pictures; None is the network as it is.

    "auto" is an engine on the CPU in float32, where its activations are those of the network but for rounding, for as
    many pictures as are worth its start: "torch", or for more of them OpenVINO if it is installed.
    """
    if engine != "auto":
        # on other devices torch runs what it is given
        return None if engine == "torch" and device.type != "cpu" else engine
    if device.type != "cpu" or dtype != torch.float32 or n_pictures < _WORTH_TORCH:
        return None
    return "openvino" if n_pictures >= _WORTH_OPENVINO and find_spec("openvino") is not None else "torch"


def settled_engine(engine: str, device: torch.device, dtype: torch.dtype, n_pictures: float) -> str:
    """Return the engine of an estimator that learns from so many pictures, for good.

    In bfloat16 engines round otherwise, and "auto" may not choose one for each number of pictures anew: it is "torch"
    on the CPU, if so many are worth its start, or else the network as it is, which "auto" stays.
    """
    is_half_on_cpu = device.type == "cpu" and dtype == torch.bfloat16
    return "torch" if engine == "auto" and is_half_on_cpu and n_pictures >= _WORTH_TORCH else engine


def engine_identity(engine: str, device: torch.device, dtype: torch.dtype) -> str:
    """Return what a cache has to tell activations of an engine by; empty where only rounding in float32 differs."""
    if dtype == torch.float32:
        return ""
    # whatever the number of pictures: "auto" that was not settled otherwise computes as torch does
    return chosen_engine(engine, device, dtype, 0) or ""


def build_engine(
    engine: str, reader: TapReader, pixels: Tensor, dtype: torch.dtype, chunk_size: int
) -> Callable[[Tensor], Tensor]:
    """Build the engine that does what a reader does.

    Parameters
    ----------
    engine : {"torch", "compile", "openvino"}
    reader : TapReader
        Whose taps are known. Its network is copied.
    pixels : Tensor of shape (n, 3, h, w), float32
        A batch, with which the engine is compared with the reader.
    dtype : torch.dtype
        In which the network computes; as the reader, the engine is called under autocast where that is not float32.
    chunk_size : int
        Pictures that pass at once.

    Returns
    -------
    callable
        From pixels (n, 3, h, w) to what the taps read, float32 (n, d), for any number of threads at once.

    Raises
    ------
    EngineError
        The network is no graph of operators, or the engine does not know one of them.
    """
    if engine == "openvino" and dtype != torch.float32:
        # a map that goes wrong there may be lost in the rounding of half precision
        with torch.autocast(pixels.device.type, enabled=False):
            build_engine(engine, reader, pixels, torch.float32, chunk_size)
    expected = reader(pixels)
    try:
        with torch.inference_mode(False), torch.no_grad(), torch.autocast(pixels.device.type, enabled=False):
            run = _built(engine, reader.of_a_copy(), pixels.clone(), dtype, chunk_size)
        found = run(pixels)
    except UntraceableError as error:
        raise EngineError(f"engine={engine!r} cannot run this network: {error}") from error
    if found.shape != expected.shape:
        raise EngineError(f"engine={engine!r} answers {tuple(found.shape)}, the network {tuple(expected.shape)}")
    size, of_what = (_largest, "the largest") if dtype == torch.float32 else (torch.linalg.norm, "their norm")
    difference, whole = float(size(found - expected)), float(size(expected))
    if not difference <= _TOLERANCE[dtype] * whole:
        other = f"by {difference:.3g} of {of_what}, {whole:.3g}"
        raise EngineError(f"engine={engine!r} answers other activations than the network, {other}")
    return run


def _largest(values: Tensor) -> Tensor:
    return values.abs().max()


def _built(
    engine: str, reader: TapReader, pixels: Tensor, dtype: torch.dtype, chunk_size: int
) -> Callable[[Tensor], Tensor]:
    example = pixels if len(pixels) > 1 else pixels.expand(2, *pixels.shape[1:])  # one picture may be taken for none
    module, taps = trace(reader, example)
    fold_and_pool(module, taps, dtype)
    if engine == "openvino":
        return compiled_by_openvino(module, example, chunk_size, dtype)
    read_windows_once(module)
    if engine == "compile":
        return compiled_by_torch(module, chunk_size)
    if can_fuse() and pixels.device.type == "cpu":
        fuse(module, dtype)
    return _in_chunks(module, chunk_size)


def _in_chunks(module: fx.GraphModule, chunk_size: int) -> Callable[[Tensor], Tensor]:
    def run(pixels: Tensor) -> Tensor:
        return torch.cat([torch.cat(module(chunk), dim=1) for chunk in torch.split(pixels, chunk_size)])

    return run
