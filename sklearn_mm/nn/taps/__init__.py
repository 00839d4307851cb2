"""Taps: the activations of chosen layers, pooled over space as they appear."""

from sklearn_mm.nn.taps._reader import TapReader
from sklearn_mm.nn.taps._tap import Tap

__all__ = ["Tap", "TapReader"]
