"""torchvision's classification models."""

from pathlib import Path
from typing import Any

import torch

from sklearn_mm.exceptions import WeightsError
from sklearn_mm.nn.families._family import OFFLINE_WAYS, Backbone, BackboneFamily, PixelConvention
from sklearn_mm.nn.training_data import data_in_tag

__all__ = ["TorchvisionFamily"]


def _models() -> Any:
    """Return torchvision's models; importing it takes nearly as long as torch, so it is only done for one of them."""
    from torchvision import models

    return models


class TorchvisionFamily(BackboneFamily):
    """Every model that torchvision lists for classification."""

    def names(self) -> list[str]:
        """List the networks."""
        # those for detection, segmentation and video live in submodules
        names: list[str] = _models().list_models(module=_models())
        return names

    def pixels(self, name: str) -> PixelConvention:
        """Return what a network wants to see, without building it."""
        preset = _models().get_model_weights(name).DEFAULT.transforms()
        (image_size,), (resize_size,) = preset.crop_size, preset.resize_size
        interpolation = preset.interpolation.value
        return PixelConvention(tuple(preset.mean), tuple(preset.std), image_size, resize_size, interpolation)

    def build(self, name: str, pretrained: bool) -> Backbone:
        """Build a network, under torch's current random state."""
        default = _models().get_model_weights(name).DEFAULT
        # these two want other pixels than the rest, and can convert them; their own random start takes a minute
        options = {"transform_input": True, "init_weights": False} if name in ("googlenet", "inception_v3") else {}
        try:
            network = _models().get_model(name, weights=default if pretrained else None, **options)
        except (OSError, RuntimeError) as error:  # no network; a download that is not what it should be
            if not pretrained:
                raise
            file = default.url.rpartition("/")[2]
            folder = Path(torch.hub.get_dir()) / "checkpoints"
            raise WeightsError(
                f"could not get the weights of {name} from {default.url} ({error}); to work offline, put the file "
                f"{file} into {folder}, {OFFLINE_WAYS}"
            ) from error
        # only SqueezeNet changes the answer of its class layer before it is returned
        return Backbone(network, ("classifier.1",) if name.startswith("squeezenet") else None)

    def trained_on(self, name: str) -> tuple[str, ...] | None:
        """Return the names of the data that the pretrained weights of a network were learnt from."""
        # "IMAGENET1K_SWAG_E2E_V1": what stands in the name of the weights
        return data_in_tag(_models().get_model_weights(name).DEFAULT.name)

    def origin(self, name: str) -> str:
        """Return what tells the pretrained weights of a network from others of it."""
        # its last part holds the digest of the file
        url: str = _models().get_model_weights(name).DEFAULT.url
        return url
