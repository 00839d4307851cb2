"""Averages over space in a graph for OpenVINO, by convolutions of each channel alone."""

from collections.abc import Callable
from functools import partial
from math import log
from typing import Any, TypeAlias

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from sklearn_mm.nn.engines._rewrite import linear_of_mean, mean_behind
from sklearn_mm.nn.pooling import no_autocast, spatial_mean

__all__ = [
    "average_by_convolutions",
    "border_sums",
    "mean_by_borders",
    "mean_of_border_sums",
    "weight_by_border",
    "weights_of_borders",
    "window",
]

_N_SUMS = 7  # of a map, at least, that are added in float32: in bfloat16 each is rounded once
_WINDOW = 49  # positions: measured, from 16 to 64 are about as fast, and more slower

Finish: TypeAlias = Callable[[Tensor], Tensor]


def average_by_convolutions(module: fx.GraphModule) -> list[tuple[int | None, Finish | None]]:
    """Take averages by what OpenVINO does with maps as it keeps them, and leave the layers behind them for later.

    Parameters
    ----------
    module : fx.GraphModule
        As `fold_and_pool` leaves it; changed in place. It answers each tensor once, (n, width).

    Returns
    -------
    list of (int or None, callable or None)
        For each answer of before, of which of the new ones it is made, and what is to be done with that: layers, whose
        weights are then read once a call, and not for each chunk of a few pictures. None is what the network is given:
        averages of that would have its layout changed in the graph.

    Notes
    -----
    The sums of a map over windows are a convolution of each channel alone with ones, which takes half as long as a
    reduction or less. In bfloat16 OpenVINO keeps in float32 what stands behind the last convolutions: behind these
    there are sums of a few numbers, where reductions made it convert whole maps, and sums of maps with them.
    """
    return _Averages(module).run()


class _Averages:
    def __init__(self, module: fx.GraphModule) -> None:
        self._module, self._graph = module, module.graph
        self._sums: dict[fx.Node, fx.Node] = {}
        self._ones: dict[tuple[int, int, int], fx.Node] = {}

    def run(self) -> list[tuple[int | None, Finish | None]]:
        output = next(node for node in self._graph.nodes if node.op == "output")
        made_later: dict[fx.Node, tuple[fx.Node, Finish]] = {}
        for node in list(self._graph.nodes):
            if node.target is spatial_mean:
                with self._graph.inserting_before(node):
                    height, width = _sides(node.args[0])
                    mean = self._graph.call_function(torch.mul, (self._sum(node.args[0]), 1 / (height * width)))
                node.replace_all_uses_with(mean)
            elif node.target is mean_behind:
                with self._graph.inserting_before(node):
                    value, finish = self._behind(node)
                if finish is None:
                    node.replace_all_uses_with(value)
                else:
                    made_later[node] = (value, finish)
        made: list[tuple[fx.Node, Finish | None]] = []
        for node in output.args[0]:
            if node.target is linear_of_mean:
                mean, *constants = node.args
                weight, bias = (self._value(constant) for constant in constants)
                made.append((mean, partial(linear_of_mean, weight=weight, bias=bias)))
            else:
                made.append(made_later.get(node, (node, None)))
        answers = list(dict.fromkeys(value for value, _ in made if value.op != "placeholder"))
        output.args = (tuple(answers),)
        self._graph.eliminate_dead_code()
        self._graph.lint()
        self._module.recompile()
        return [(answers.index(value) if value in answers else None, finish) for value, finish in made]

    def _sum(self, maps: fx.Node) -> fx.Node:
        if maps not in self._sums:
            ones = self._of_ones(maps.meta["val"].shape[1], *window(*_sides(maps)))
            self._sums[maps] = self._graph.call_function(_sum_by_windows, (maps, ones))
        return self._sums[maps]

    def _behind(self, node: fx.Node) -> tuple[fx.Node, Finish | None]:
        """Return the average of a convolution, or that of which the second one makes it."""
        arguments: Any = node.args
        maps, *constants, groups = arguments
        rows, columns, weight, bias = (self._value(constant) for constant in constants)
        n_channels, height, width = maps.meta["val"].shape[1:]
        given, padding = _unpadded(maps)
        if given.op == "placeholder":
            left, right, top, bottom = padding
            met = rows[:, top : rows.shape[1] - bottom], columns[:, left : columns.shape[1] - right]
            how = {"rows": met[0], "columns": met[1], "weight": weight, "bias": bias, "groups": groups}
            return given, partial(mean_behind, **how)
        if not (len(rows) == len(columns) and _is_same(rows) and _is_same(columns)):
            windows = self._graph.call_function(_window_means, (maps, *constants[:2]))
            return windows, partial(_convolved, weight=weight.flatten(2), bias=bias, groups=groups)
        border = len(rows) // 2
        if groups == len(weight) == n_channels:
            whole, by_row, by_column = weights_of_borders(weight, height, width)
            parts = [self._constant(value) for value in (whole, by_row, by_column, bias) if value is not None]
            return self._graph.call_function(mean_by_borders, (maps, self._sum(maps), border, *parts)), None
        ones = [self._of_ones(n_channels, *sides) for sides in ((1, width), (height, 1), (1, 1))]
        sums = self._graph.call_function(border_sums, (maps, self._sum(maps), border, *ones))
        weight = weight_by_border(weight, height, width)
        return sums, partial(mean_of_border_sums, weight=weight, bias=bias, groups=groups, border=border)

    def _of_ones(self, n_channels: int, height: int, width: int) -> fx.Node:
        shape = (n_channels, height, width)
        if shape not in self._ones:
            self._ones[shape] = self._constant(torch.ones(n_channels, 1, height, width))
        return self._ones[shape]

    def _constant(self, value: Tensor) -> fx.Node:
        name = f"_of_means_{sum(1 for _ in self._module.buffers())}"
        self._module.register_buffer(name, value)
        with self._graph.inserting_before(next(iter(self._graph.nodes))):
            return self._graph.get_attr(name)

    def _value(self, constant: Any) -> Any:
        return None if constant is None else getattr(self._module, str(constant.target))


def _unpadded(maps: fx.Node) -> tuple[fx.Node, list[int]]:
    """Return maps without zeros around them, and how many those are: left, right, above and below."""
    arguments: Any = maps.args if maps.target is torch.ops.aten.pad.default else (maps, [])
    source, *how = arguments
    is_by_zeros = len(how) == 1 and len(how[0]) in (0, 4) and all(count >= 0 for count in how[0])
    return (source, list(how[0]) or [0] * 4) if is_by_zeros else (maps, [0] * 4)


def _sides(maps: fx.Node) -> tuple[int, int]:
    height, width = maps.meta["val"].shape[2:]
    return height, width


def window(height: int, width: int) -> tuple[int, int]:
    """Return the sides of windows that fill a map, near to the size that is fastest."""
    sides = [(h, w) for h in _divisors(height) for w in _divisors(width)]
    enough = [(h, w) for h, w in sides if (height // h) * (width // w) >= _N_SUMS]
    return min(enough or [(1, 1)], key=lambda side: (abs(log(side[0] * side[1] / _WINDOW)), abs(side[0] - side[1])))


def _divisors(number: int) -> list[int]:
    return [part for part in range(1, number + 1) if number % part == 0]


def _sum_by_windows(maps: Tensor, ones: Tensor) -> Tensor:
    sums = F.conv2d(maps, ones, stride=(ones.shape[2], ones.shape[3]), groups=ones.shape[0])
    return sums.sum((2, 3))


def _window_means(maps: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return the averages over what each entry of a kernel meets, (n, c * kernel * kernel)."""
    return torch.matmul(rows, torch.matmul(maps, columns.t())).flatten(1)


def _convolved(parts: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
    """Return the average of a convolution, (n, c_out), from parts (n, c * n_parts).

    `weight` is (c_out, c / groups, n_parts).
    """
    by_channel = parts.reshape(len(parts), -1, weight.shape[2], 1)
    with no_autocast(parts.device):
        return F.conv2d(by_channel, weight.unsqueeze(3), bias, groups=groups).flatten(1)


def border_sums(
    maps: Tensor, sums: Tensor, border: int, row_ones: Tensor, column_ones: Tensor, corner_ones: Tensor
) -> Tensor:
    """Return sums of maps, of each row and each column of their borders, and their corners.

    Parameters
    ----------
    maps : Tensor of shape (n, c, h, w)
    sums : Tensor of shape (n, c)
        Of the whole maps.
    border : int
        Rows, and columns, of a border.
    row_ones, column_ones, corner_ones : Tensor of shape (c, 1, 1, w), (c, 1, h, 1), (c, 1, 1, 1)
        By ones a convolution hands on even a corner, which then is bfloat16 up to here.

    Returns
    -------
    Tensor of shape (n, c + 2 * border * c + 2 * border * c + 4 * border**2 * c)
    """
    rows = torch.cat([maps[:, :, :border], maps[:, :, -border:]], 2)
    columns = torch.cat([maps[:, :, :, :border], maps[:, :, :, -border:]], 3)
    corners = torch.cat([rows[:, :, :, :border], rows[:, :, :, -border:]], 3)
    n_channels = maps.shape[1]
    parts = [
        F.conv2d(part, ones, groups=n_channels).flatten(1)
        for part, ones in ((rows, row_ones), (columns, column_ones), (corners, corner_ones))
    ]
    return torch.cat([sums, *parts], 1)


def mean_of_border_sums(parts: Tensor, weight: Tensor, bias: Tensor | None, groups: int, border: int) -> Tensor:
    """Return the average behind a convolution that keeps the size of maps, (n, c_out), from `border_sums`.

    `weight`, (c_out, c / groups, 1 + 4 * border + 4 * border**2), is for the sums of a channel.
    """
    n_channels = weight.shape[1] * groups
    n_sums = [1, 2 * border, 2 * border, 4 * border**2]
    by_kind = torch.split(parts, [n_channels * count for count in n_sums], dim=1)
    by_channel = [kind.reshape(len(parts), n_channels, -1) for kind in by_kind]
    return _convolved(torch.cat(by_channel, 2).flatten(1), weight, bias, groups)


def mean_by_borders(
    maps: Tensor,
    sums: Tensor,
    border: int,
    whole: Tensor,
    by_row: Tensor,
    by_column: Tensor,
    bias: Tensor | None = None,
) -> Tensor:
    """Return the average behind a convolution of each channel alone that keeps the size of maps.

    Parameters
    ----------
    maps : Tensor of shape (n, c, h, w)
    sums : Tensor of shape (n, c)
        Of the whole maps.
    border : int
        Rows, and columns, of a border.
    whole : Tensor of shape (c,)
        For the sums.
    by_row : Tensor of shape (2, c, 1, border, w)
        For each number of the first and the last rows.
    by_column : Tensor of shape (2, c, 1, h, border)
        For each number of the first and the last columns.
    bias : Tensor of shape (c,), optional

    Returns
    -------
    Tensor of shape (n, c)
    """
    n_channels = maps.shape[1]
    parts = [
        (maps[:, :, :border], by_row[0]),
        (maps[:, :, -border:], by_row[1]),
        (maps[:, :, :, :border], by_column[0]),
        (maps[:, :, :, -border:], by_column[1]),
    ]
    means = sums * whole
    for part, weight in parts:
        means = means + F.conv2d(part, weight, groups=n_channels).flatten(1)
    return means if bias is None else means + bias


def weights_of_borders(weight: Tensor, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return `whole`, `by_row` and `by_column` of `mean_by_borders`; what is for corners is in the rows."""
    border = weight.shape[-1] // 2
    sums = weight_by_border(weight, height, width).squeeze(1)  # (c, 1 + 4 * border + 4 * border**2)
    whole, rows, columns, corners = torch.split(sums, [1, 2 * border, 2 * border, 4 * border**2], dim=1)
    corners = corners.reshape(-1, 2 * border, 2 * border)
    by_row = rows.unsqueeze(2).repeat(1, 1, width)  # (c, 2 * border, width)
    by_row[:, :, :border] += corners[:, :, :border]
    by_row[:, :, -border:] += corners[:, :, border:]
    by_column = columns.unsqueeze(1).repeat(1, height, 1)  # (c, height, 2 * border)
    return (
        whole.squeeze(1).contiguous(),
        torch.stack(torch.split(by_row.unsqueeze(1), border, dim=2)),
        torch.stack(torch.split(by_column.unsqueeze(1), border, dim=3)),
    )


def _is_same(met: Tensor) -> bool:
    """Whether a side of a map is as long behind the convolution, and the border has no row twice."""
    kernel, side = met.shape
    # each entry of the kernel meets all rows but those that it is away from the middle
    away = (torch.arange(kernel) - kernel // 2).abs()
    is_all = kernel % 2 == 1 and kernel > 1 and side >= kernel
    return is_all and bool(((met > 0).sum(1) == side - away).all())


def weight_by_border(weight: Tensor, height: int, width: int) -> Tensor:
    """Return weights (c_out, c / groups, n_sums): of the sum of a map, its first and last rows, columns, corners."""
    kernel = weight.shape[-1]
    border = kernel // 2
    places = [(row, column) for row in range(kernel) for column in range(kernel)]
    # by the row of the kernel, the rows of the border that it does not meet: first those above, then those below
    missed = torch.zeros(kernel, 2 * border)
    for entry in range(kernel):
        missed[entry, : max(entry - border, 0)] = 1
        missed[entry, 2 * border - max(border - entry, 0) :] = 1
    sums = []
    for row, column in places:
        corners = torch.outer(missed[row], missed[column])
        sums.append(torch.cat([torch.ones(1), -missed[row], -missed[column], corners.flatten()]))
    return weight.flatten(2).float() @ torch.stack(sums) / (height * width)
