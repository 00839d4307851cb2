"""The scales of a network: which of its layers look at maps of the same size."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from sklearn_mm.registry import stored_as

__all__ = ["Scale", "find_scales", "is_channels_last"]

_HALVES = 2.5  # a block makes maps smaller by less than this: 2 and what lost borders add
_NEXT_SCALE = 1.5  # maps smaller by this factor start a scale: 2 but for borders


@stored_as("nn.Scale")
@dataclass
class Scale:
    """Layers that answer maps of about the same size.

    Attributes
    ----------
    size : int
        Side of the maps, in positions.
    modules : list of str
        Names of its blocks, in the order in which they run; of the last scale also of what comes after all maps.
    tap : str
        The block whose output is the scale's last map.
    width : int
        Channels of that map.
    behind : list of str
        Those of `modules` that come after all maps.
    """

    size: int
    modules: list[str]
    tap: str
    width: int
    behind: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Seen:
    """What a forward pass showed of a module: when it was done, and the sides of its maps (0 for none)."""

    turn: int
    side_in: int
    side_out: int
    width: int


def find_scales(network: nn.Module, image_size: int) -> list[Scale]:
    """Follow the maps of a network as they become smaller.

    Parameters
    ----------
    network : nn.Module
        In evaluation mode.
    image_size : int
        Side of the square it sees, in pixels.

    Returns
    -------
    list of Scale
        Fine to coarse; empty for a network without maps.

    Notes
    -----
    One black picture passes the network. A block is the outermost module that answers maps, halves them at most once
    and is no plain sequence: a residual block counts whole, with its layers before the stride.

    Examples
    --------
    >>> from sklearn_mm.nn.backbones import build_backbone
    >>> scales = find_scales(build_backbone("resnet18", None).module, 64)
    >>> [(scale.tap, scale.width, scale.size) for scale in scales[:3]]
    [('relu', 64, 32), ('layer1.1', 64, 16), ('layer2.1', 128, 8)]
    """
    seen = _watch(network, image_size)
    blocks = sorted(_blocks(network, "", seen), key=lambda name: seen[name].turn)
    scales: list[Scale] = []
    is_behind = False
    for name in blocks:
        block = seen[name]
        # once maps have ended they do not come back: what follows is behind, whatever its shape
        is_behind = is_behind or not block.side_out or _is_global_pool(network.get_submodule(name), block)
        if is_behind:
            if scales:
                scales[-1].modules.append(name)
                scales[-1].behind.append(name)
            continue
        if not scales or block.side_out * _NEXT_SCALE <= scales[-1].size:
            scales.append(Scale(block.side_out, [], name, block.width))
        scales[-1].modules.append(name)
        scales[-1].tap, scales[-1].width = name, block.width
    return scales


def _is_global_pool(module: nn.Module, seen: _Seen) -> bool:
    """Return whether a block, of whatever class, ends all maps; the last pool of VGG may leave one position as well."""
    if isinstance(module, nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d):
        return seen.side_out == 1
    # pools of other classes are known by what they do: no weights, and one position left
    has_weights = next(module.parameters(), None) is not None
    leaves_one = seen.side_out == 1 < seen.side_in
    return leaves_one and not has_weights and not isinstance(module, nn.MaxPool2d | nn.AvgPool2d)


def _watch(network: nn.Module, image_size: int) -> dict[str, _Seen]:
    """Run the network once; return what was seen of each module that ran."""
    seen: dict[str, _Seen] = {}

    def hook_of(name: str) -> Any:
        def note(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            seen[name] = _Seen(len(seen), _side(args[0] if args else None), _side(output), _width(output))

        return note

    some = next(network.parameters(), None)
    pixels = torch.zeros(1, 3, image_size, image_size, device=None if some is None else some.device)
    with torch.no_grad(), ExitStack() as stack:
        for name, module in network.named_modules():
            if name:
                stack.enter_context(module.register_forward_hook(hook_of(name)))
        network(pixels)
    return seen


def _side(value: Any) -> int:
    """Return the side of square maps, channels first or last; 0 for anything else."""
    # of square maps, axis 2 is a side in both layouts
    return value.shape[2] if isinstance(value, Tensor) and value.ndim == 4 else 0


def _width(value: Any) -> int:
    return _channels(value) if isinstance(value, Tensor) and value.ndim == 4 else 0


def _channels(maps: Tensor) -> int:
    return maps.shape[3] if is_channels_last(maps) else maps.shape[1]


def is_channels_last(maps: Tensor) -> bool:
    """Return whether square maps have the shape (n, side, side, c)."""
    return maps.shape[1] == maps.shape[2] != maps.shape[3]


def _blocks(module: nn.Module, prefix: str, seen: dict[str, _Seen]) -> Iterator[str]:
    for child_name, child in module.named_children():
        name = f"{prefix}{child_name}"
        own = seen.get(name)
        is_leaf = next(child.children(), None) is None
        halves_once = own is not None and own.side_out > 0 and own.side_in <= _HALVES * own.side_out
        # A stage of a residual network is a plain sequence whose first block has the stride: it is taken apart. What
        # halves its maps more than once would hide a scale, and is taken apart too.
        if own is not None and (is_leaf or (halves_once and type(child) is not nn.Sequential)):
            yield name
        else:
            yield from _blocks(child, f"{name}.", seen)
