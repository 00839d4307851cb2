"""torchvision's changes of pixels, loaded with the first picture: importing it takes nearly as long as torch."""

from typing import Any

__all__ = ["functional", "interpolation_mode"]


def functional() -> Any:
    """Return torchvision's functions of pixels."""
    from torchvision.transforms.v2 import functional as functions

    return functions


def interpolation_mode(name: str) -> Any:
    """Return torchvision's name for "bilinear" or "bicubic"."""
    from torchvision.transforms import InterpolationMode

    return InterpolationMode(name)
