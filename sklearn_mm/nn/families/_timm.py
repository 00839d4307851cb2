"""The models of timm, which is an optional dependency."""

import importlib
import math
from typing import Any

from torch import nn

from sklearn_mm.exceptions import WeightsError
from sklearn_mm.nn.families._family import OFFLINE_WAYS, Backbone, BackboneFamily, PixelConvention
from sklearn_mm.nn.training_data import data_in_tag

__all__ = ["TimmFamily"]


class TimmFamily(BackboneFamily):
    """Every model that timm lists."""

    prefix = "timm:"

    def names(self) -> list[str]:
        """List the networks."""
        names: list[str] = _import_timm().list_models()
        return names

    def has(self, name: str) -> bool:
        """Return whether there is a network of this name; it may end with the tag of its weights."""
        return bool(_import_timm().is_model(name))

    def pixels(self, name: str) -> PixelConvention:
        """Return what a network wants to see, without building it."""
        timm = _import_timm()
        config = timm.data.resolve_data_config({}, pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
        side = config["input_size"][-1]
        interpolation = config["interpolation"]
        return PixelConvention(
            tuple(config["mean"]),
            tuple(config["std"]),
            side,
            # rounded down, as timm's own evaluation does
            math.floor(side / config["crop_pct"]),
            # timm has more, "random" for one
            interpolation if interpolation in ("bilinear", "bicubic") else "bicubic",
        )

    def build(self, name: str, pretrained: bool) -> Backbone:
        """Build a network, under torch's current random state."""
        timm = _import_timm()
        try:
            network = timm.create_model(name, pretrained=pretrained)
        except (OSError, RuntimeError) as error:  # no network, in the words of several libraries
            if not pretrained:
                raise
            config = timm.get_pretrained_cfg(name)
            raise WeightsError(
                f"could not get the weights of timm:{name} from {config.hf_hub_id or config.url} ({error}); to work "
                f"offline, {OFFLINE_WAYS}"
            ) from error
        # two of them in distilled transformers; none, or an Identity, in models without classes
        heads = network.get_classifier()
        heads = heads if isinstance(heads, tuple) else (heads,)
        class_layers = tuple(
            key
            for key, module in network.named_modules()
            if any(module is head for head in heads) and isinstance(module, nn.Linear | nn.Conv2d)
        )
        return Backbone(network, class_layers)

    def trained_on(self, name: str) -> tuple[str, ...] | None:
        """Return the names of the data that the pretrained weights of a network were learnt from."""
        return data_in_tag(str(_import_timm().get_pretrained_cfg(name).tag))

    def origin(self, name: str) -> str:
        """Return what tells the pretrained weights of a network from others of it."""
        config = _import_timm().get_pretrained_cfg(name)
        return f"timm:{config.tag} {config.url or config.hf_hub_id}"


def _import_timm() -> Any:
    try:
        return importlib.import_module("timm")
    except ImportError as error:
        raise ImportError("backbone='timm:...' needs timm; pip install 'sklearn-mm[timm]'") from error
