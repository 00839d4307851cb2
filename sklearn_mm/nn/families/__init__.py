"""Families of networks: one file each, and one line here."""

from sklearn_mm.nn.families._family import IMAGENET_PIXELS as IMAGENET_PIXELS
from sklearn_mm.nn.families._family import Backbone as Backbone
from sklearn_mm.nn.families._family import BackboneFamily as BackboneFamily
from sklearn_mm.nn.families._family import PixelConvention as PixelConvention
from sklearn_mm.nn.families._lite import LiteFamily
from sklearn_mm.nn.families._timm import TimmFamily
from sklearn_mm.nn.families._torchvision import TorchvisionFamily

__all__ = ["FAMILIES"]

FAMILIES: tuple[BackboneFamily, ...] = (LiteFamily(), TorchvisionFamily(), TimmFamily())
