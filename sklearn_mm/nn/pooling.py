"""Maps and tokens, pooled over their positions."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["POOLINGS", "no_autocast", "pooled", "pooled_name", "spatial_max", "spatial_mean"]

# The ways of pooling that a user may ask for, and what each reads, in the order of the columns.
POOLINGS = {"mean": ("mean",), "max": ("max",), "mean+max": ("mean", "max")}
# Of what a part of a layer is called after the layer's own name.
_SUFFIXES = {"class": "_class", "mean": "", "max": "_max"}
_PARTIAL_SUMS = range(8, 65)  # of a half-precision map, added in float32: 2.5 times less rounding at no cost
_SMALL_MAP = 256  # positions up to which a plain float32 sum is as fast as a matrix product


def pooled_name(layer: str, part: str) -> str:
    """Return what a part ("class", "mean" or "max") of a layer is called: the mean as the layer itself."""
    return layer + _SUFFIXES[part]


def pooled(value: Tensor, channel_dim: int, ways: Sequence[str]) -> dict[str, Tensor]:
    """Pool over all but the rows and the channels.

    Parameters
    ----------
    value : Tensor of shape (n, width), (n, ..., width) or (n, width, ...), of a floating dtype
    channel_dim : {1, -1}
        Where the channels are.
    ways : sequence of {"mean", "max"}

    Returns
    -------
    dict of str to Tensor of shape (n, width), float32
        By way; rows, which have no positions, as they are, as "mean" alone.
    """
    if value.ndim == 2:
        return {"mean": value.to(torch.float32, copy=True)}  # an activation function may change it in place
    return {way: _mean(value, channel_dim) if way == "mean" else _max(value, channel_dim) for way in ways}


def _mean(value: Tensor, channel_dim: int) -> Tensor:
    if value.ndim == 4 and channel_dim == 1:
        return spatial_mean(value)
    return value.mean(_positions(value, channel_dim), dtype=torch.float32)


def _max(value: Tensor, channel_dim: int) -> Tensor:
    if value.ndim == 4 and channel_dim == 1:
        return spatial_max(value)
    return value.amax(_positions(value, channel_dim)).float()


def _positions(value: Tensor, channel_dim: int) -> list[int]:
    return [dim for dim in range(1, value.ndim) if dim != channel_dim % value.ndim]


def spatial_max(maps: Tensor) -> Tensor:
    """Return the maximum of maps over space.

    Parameters
    ----------
    maps : Tensor of shape (n, c, h, w), of a floating dtype
        Fastest in the channels-last memory format, where a CPU reads it at the speed of memory; torch's ``amax`` took
        up to seven times as long.

    Returns
    -------
    Tensor of shape (n, c), float32
    """
    return F.adaptive_max_pool2d(maps, 1).flatten(1).float()


def spatial_mean(maps: Tensor) -> Tensor:
    """Average maps over space.

    Parameters
    ----------
    maps : Tensor of shape (n, c, h, w), of a floating dtype
        Fastest in the channels-last memory format.

    Returns
    -------
    Tensor of shape (n, c), float32

    Notes
    -----
    On a CPU torch's own reductions of channels-last maps cost more than the memory they read: a product with a
    row of ones runs at the speed of memory. In half precision it rounds each product once; partial sums, added
    in float32, keep that below 0.05 % of the value. In float32 the rows are added first, then the columns.
    """
    n, c, h, w = maps.shape
    size = h * w
    if size <= _SMALL_MAP or maps.device.type != "cpu" or maps.stride(1) != 1:
        return maps.mean((2, 3), dtype=torch.float32)
    positions = maps.permute(0, 2, 3, 1)  # (n, h, w, c), a view
    whole = maps.is_contiguous(memory_format=torch.channels_last)
    if maps.dtype == torch.float32:
        with no_autocast(maps.device):
            sums = torch.bmm(maps.new_ones(()).expand(n, 1, h), positions.reshape(n, h, w * c))  # (n, 1, w * c)
        return sums.view(n, w, c).sum(1) / size
    # of a map with gaps (strided), rows are products of their own: no copy
    parts = next((parts for parts in _PARTIAL_SUMS if size % parts == 0), 1) if whole else h
    ones = maps.new_ones(()).expand(n * parts, 1, size // parts)
    sums = torch.bmm(ones, positions.reshape(n * parts, size // parts, c))  # (n * parts, 1, c)
    return sums.view(n, parts, c).sum(1, dtype=torch.float32) / size


def no_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Return a block in which torch computes in the dtypes that it is given."""
    # autocast knows no meta device, on which taps are found without computing
    # and a graph that is traced holds no more blocks than it has to
    if device.type == "meta" or not torch.is_autocast_enabled(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)
