"""Taps: the activations of chosen layers, averaged over space as they appear."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sklearn_mm._checks import did_you_mean

__all__ = ["Tap", "TapReader", "find_taps", "select_taps"]


@dataclass(frozen=True)
class Tap:
    """A layer whose activation is read.

    Attributes
    ----------
    name : str
        The module's name in the network.
    width : int
        Filters of a convolution, units of a fully connected layer.
    """

    name: str
    width: int


def find_taps(network: nn.Module, probe: Tensor) -> list[Tap]:
    """List the convolutions and fully connected layers a forward pass runs through, in its order."""
    taps: list[Tap] = []

    def note(name: str, module: nn.Module) -> None:
        width = module.out_channels if isinstance(module, nn.Conv2d) else module.out_features
        if all(tap.name != name for tap in taps):
            taps.append(Tap(name, int(width)))

    handles = [
        module.register_forward_hook(lambda module, args, output, name=name: note(name, module))
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    try:
        with torch.inference_mode():
            network(probe)
    finally:
        for handle in handles:
            handle.remove()
    return taps


def select_taps(taps: Sequence[Tap], layers: str | Sequence[str] | int) -> list[Tap]:
    """Choose taps: all but the class layer, the last one, the last n, by name or by regular expression."""
    hidden = list(taps[:-1])
    if isinstance(layers, int):
        return hidden[-layers:]
    if layers == "auto":
        return hidden
    if isinstance(layers, str):
        chosen = [tap for tap in taps if re.fullmatch(layers, tap.name)]
    else:
        chosen = [tap for tap in taps if tap.name in set(layers)]
    if not chosen:
        raise ValueError(
            f"layers={layers!r} names no layer; {did_you_mean(str(layers), [t.name for t in taps])}"
        )
    return chosen


class TapReader:
    """Run a network and return what its taps saw, a row per picture."""

    def __init__(self, network: nn.Module, taps: Sequence[Tap] | None, class_layer: str) -> None:
        self.network = network
        self._values: dict[str, Tensor] = {}
        modules = dict(network.named_modules())
        self.names = [class_layer] if taps is None else [tap.name for tap in taps]
        if taps is None:
            modules[class_layer].register_forward_pre_hook(
                lambda module, args: self._values.__setitem__(class_layer, args[0].float())
            )
            return
        for name in self.names:
            modules[name].register_forward_hook(
                lambda module, args, output, name=name: self._values.__setitem__(name, _average(output))
            )

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return float32 (n, d)."""
        self.network(pixels)
        return torch.cat([self._values.pop(name).flatten(1) for name in self.names], dim=1)


def _average(output: Tensor) -> Tensor:
    if output.ndim == 4:
        return output.mean((2, 3), dtype=torch.float32)
    return output.float()
