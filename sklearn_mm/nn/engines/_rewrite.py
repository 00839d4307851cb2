"""Batch norm folded into convolutions, and averages taken where they cost least, in the graph of a frozen network."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from sklearn_mm.nn.engines._trace import TracedTap
from sklearn_mm.nn.pooling import no_autocast, spatial_max, spatial_mean

__all__ = ["ACTIVATIONS", "fold_and_pool", "linear_of_mean", "mean_behind", "mean_of_convolution", "window_means"]

_ATEN = torch.ops.aten
ACTIVATIONS = {
    getattr(_ATEN, name).default
    for name in ("hardsigmoid", "hardswish", "hardtanh", "relu", "sigmoid", "silu", "tanh", "leaky_relu")
}
# Of a batch norm's summand to its factor: dividing by a smaller one would leave too few digits of the average. In
# bfloat16, of photographs, as many ternary values differ from those of float32 at 64 as at 4.
_LARGEST_SHIFT, _LARGEST_SHIFT_HALF = 1e3, 64.0
_UNFUSED = 3  # an activation function of its own reads and writes a map that the average reads too


def fold_and_pool(module: fx.GraphModule, taps: Sequence[TracedTap], dtype: torch.dtype = torch.float32) -> None:
    """Pool the maps among the outputs of a traced network, and fold batch norms into the convolutions before them.

    Parameters
    ----------
    module : fx.GraphModule
        Changed in place; answers float32 (n, width) for each tap from then on.
    taps : sequence of TracedTap
        What its outputs are.
    dtype : torch.dtype, default=torch.float32
        In which maps are going to be computed: what is undone of a batch norm has to have the digits.

    Notes
    -----
    The average of a convolution is a linear map of sums of its input over those windows that each entry of the kernel
    meets. Where it follows from what the next layers read anyway, no map is kept, or read once more, for a tap.
    """
    _Rewriter(module, _LARGEST_SHIFT if dtype == torch.float32 else _LARGEST_SHIFT_HALF).run(taps)


def mean_behind(
    maps: Tensor, rows: Tensor, columns: Tensor, weight: Tensor, bias: Tensor | None, groups: int
) -> Tensor:
    """Return the average over space of a convolution of maps, without the convolution.

    Parameters
    ----------
    maps : Tensor of shape (n, c_in, h, w)
    rows : Tensor of shape (kernel, h), float32
        1 where an entry of the kernel meets a row, which half precision can tell.
    columns : Tensor of shape (kernel, w), float32
        The share of a position in the average where it meets a column.
    weight : Tensor of shape (c_out, c_in / groups, kernel, kernel), float32
    bias : Tensor of shape (c_out,), float32, or None
    groups : int

    Returns
    -------
    Tensor of shape (n, c_out), float32
    """
    return mean_of_convolution(window_means(maps, rows, columns), weight, bias, groups)


def window_means(maps: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return the averages of maps over those positions that each entry of a kernel meets.

    Parameters
    ----------
    maps, rows, columns : see mean_behind

    Returns
    -------
    Tensor of shape (n, kernel, kernel, c), float32
    """
    n, c, h, w = maps.shape
    positions = maps.permute(0, 2, 3, 1).reshape(n, h, w * c)
    with no_autocast(maps.device):  # it would round the averages
        by_row = torch.matmul(rows.to(positions.dtype), positions).view(n, len(rows), w, c).float()
        return torch.matmul(columns, by_row)


def mean_of_convolution(windows: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
    """Return the average of a convolution, (n, c_out), from the averages over what the entries of its kernel meet."""
    with no_autocast(windows.device):
        if groups == windows.shape[3] == len(weight):
            means = (windows * weight[:, 0].permute(1, 2, 0)).sum((1, 2))
            return means if bias is None else means + bias
        return F.conv2d(windows.permute(0, 3, 1, 2), weight, bias, groups=groups).flatten(1)


def linear_of_mean(mean: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return the average of a convolution of kernel 1 from that of its input."""
    with no_autocast(mean.device):
        return F.linear(mean, weight, bias)


@dataclass
class _Conv:
    """A convolution with what follows it, as far as it can be one operator.

    Attributes
    ----------
    node : fx.Node
    norm : fx.Node or None
        The batch norm that alone reads it.
    weight, bias : Tensor, Tensor or None
        As the network has them.
    scale, shift : Tensor of shape (c_out,) or None
        The batch norm.
    """

    node: fx.Node
    norm: fx.Node | None
    weight: Tensor
    bias: Tensor | None
    scale: Tensor | None = None
    shift: Tensor | None = None

    @property
    def end(self) -> fx.Node:
        return self.norm or self.node

    def can_be_undone(self, largest_shift: float) -> bool:
        """Whether the average before the batch norm has enough digits, if it is known behind it."""
        if self.scale is None or self.shift is None:
            return True
        return bool((self.shift.abs() <= largest_shift * self.scale.abs()).all() and (self.scale != 0).all())


class _Rewriter:
    def __init__(self, module: fx.GraphModule, largest_shift: float) -> None:
        self._largest_shift = largest_shift
        self._module, self._graph = module, module.graph
        self._output = next(node for node in self._graph.nodes if node.op == "output")
        self._means: dict[fx.Node, fx.Node] = {}
        self._n_constants = 0

    def run(self, taps: Sequence[TracedTap]) -> None:
        outputs = list(self._output.args[0])
        tapped = {node for node, tap in zip(outputs, taps, strict=True) if tap.is_map}
        kept = {node for node, tap in zip(outputs, taps, strict=True) if tap.is_map and tap.part == "max"}
        convs = {node: self._conv(node) for node in self._graph.nodes if node.target is _ATEN.conv2d.default}
        # first what each tap is, in terms of nodes that will be there; the order of the nodes decides on what is known
        pooled: dict[tuple[fx.Node, str], fx.Node] = {}
        unfolded = set(kept)
        position = {node: place for place, node in enumerate(self._graph.nodes)}
        for node in sorted(tapped, key=position.__getitem__):
            for part in {tap.part for other, tap in zip(outputs, taps, strict=True) if other is node}:
                if part == "max":
                    pooled[node, part] = self._insert(spatial_max, node)
                elif node in kept or node not in convs:
                    pooled[node, part] = self._mean(node)
                else:
                    pooled[node, part] = self._conv_mean(convs[node], unfolded)
        self._output.args = (
            tuple(
                pooled[node, tap.part] if tap.is_map else node for node, tap in zip(outputs, taps, strict=True)
            ),
        )  # fmt: skip
        for conv in convs.values():
            if conv.norm is not None and conv.node not in unfolded:
                self._fold(conv)
        self._graph.eliminate_dead_code()
        self._graph.lint()
        self._module.delete_all_unused_submodules()
        self._module.recompile()

    def _conv(self, node: fx.Node) -> _Conv:
        weight, bias = (self._tensor(argument) for argument in (node.args[1], _argument(node, 2)))
        users = [user for user in node.users if user is not self._output]
        norm = users[0] if len(users) == 1 and users[0].target is _ATEN.batch_norm.default else None
        if norm is None or norm.args[0] is not node or norm.args[5]:  # a batch norm in training
            return _Conv(node, None, weight, bias)
        factor, summand, mean, variance = (self._tensor(argument) for argument in norm.args[1:5])
        scale = (1 if factor is None else factor.double()) / (variance.double() + norm.args[7]).sqrt()
        before = 0 if bias is None else bias.double()
        shift = (0 if summand is None else summand.double()) + (before - mean.double()) * scale
        return _Conv(node, norm, weight, bias, scale, shift)

    def _conv_mean(self, conv: _Conv, unfolded: set[fx.Node]) -> fx.Node:
        """Return the average of a convolution's output, read where that is cheapest."""
        source: Any = conv.node.args[0]
        node = conv.node
        users = [user for user in conv.end.users if user is not self._output]
        only = users[0] if len(users) == 1 else None
        is_pointwise = all(side == 1 for side in conv.weight.shape[2:]) and _geometry(node)[1:] == ((1, 1), (0, 0))
        of_input = 0 if is_pointwise and source in self._means else _n_values(source)
        of_output = _n_values(node) * (_UNFUSED if only is not None and only.target in ACTIVATIONS else 1)
        if of_input <= of_output or not conv.can_be_undone(self._largest_shift):
            return self._mean_from_input(conv, is_pointwise)
        # what a sum of maps reads alone may become one operator with it: its average is what the other leaves
        if only is not None and only.target is _ATEN.add.Tensor and len(only.args) == 2 and not only.kwargs:
            (other,) = [value for value in only.args if value is not conv.end] or [None]
            if isinstance(other, fx.Node) and _same_shape(other, only) and _is_kept(only):
                whole, rest = self._mean(only), self._mean(other)
                return self._undone(conv, self._insert(torch.sub, whole, rest))
        return self._undone(conv, self._mean(conv.end))

    def _undone(self, conv: _Conv, mean: fx.Node) -> fx.Node:
        """Return the average before a batch norm of that behind it."""
        if conv.scale is None or conv.shift is None:
            return mean
        before = 0 if conv.bias is None else conv.bias.double()
        factor, summand = (1 / conv.scale).float(), (before - conv.shift / conv.scale).float()
        return self._insert(torch.addcmul, self._constant(summand), mean, self._constant(factor))

    def _mean_from_input(self, conv: _Conv, is_pointwise: bool) -> fx.Node:
        source: Any = conv.node.args[0]
        node = conv.node
        weight, bias = conv.weight.float(), None if conv.bias is None else conv.bias.float()
        groups, stride, padding = _geometry(node)
        if is_pointwise and groups == 1:
            return self._insert(
                linear_of_mean, self._mean(source), self._constant(weight.flatten(1)), self._constant(bias)
            )
        dilation = _pair(_argument(node, 5, 1))
        sides = zip(_shape(source)[2:], _shape(node)[2:], weight.shape[2:], stride, padding, dilation, strict=True)
        rows, columns = (_met(*side) for side in sides)
        met = self._constant(rows), self._constant(columns / (_shape(node)[2] * _shape(node)[3]))
        return self._insert(mean_behind, source, *met, self._constant(weight), self._constant(bias), groups)

    def _mean(self, node: fx.Node) -> fx.Node:
        if node not in self._means:
            self._means[node] = self._insert(spatial_mean, node)
        return self._means[node]

    def _fold(self, conv: _Conv) -> None:
        node, norm = conv.node, conv.norm
        if norm is None or conv.scale is None or conv.shift is None:
            return
        weight = (conv.weight.double() * conv.scale[:, None, None, None]).float()
        folded = weight.contiguous(memory_format=torch.channels_last)
        constants = self._constant(folded), self._constant(conv.shift.float())
        node.args = (node.args[0], *constants, *node.args[3:])
        norm.replace_all_uses_with(node)
        self._graph.erase_node(norm)

    def _insert(self, function: Callable[..., Tensor], *arguments: Any) -> fx.Node:
        # right behind the last of what it is made of: a map that waits for its average would stay in memory
        with self._graph.inserting_after(max(value for value in arguments if isinstance(value, fx.Node))):
            return self._graph.call_function(function, arguments)

    def _constant(self, value: Tensor | None) -> fx.Node | None:
        if value is None:
            return None
        name = f"_constant_{self._n_constants}"
        self._n_constants += 1
        self._module.register_buffer(name, value)
        with self._graph.inserting_before(next(iter(self._graph.nodes))):
            return self._graph.get_attr(name)

    def _tensor(self, argument: Any) -> Any:
        if argument is None:
            return None
        value: Any = self._module
        for part in argument.target.split("."):
            value = getattr(value, part)
        return value.detach()


def _met(side: int, n_out: int, kernel: int, stride: int, padding: int, dilation: int) -> Tensor:
    """Return 1 where an entry of the kernel meets a row: (kernel, side)."""
    met = torch.zeros(kernel, side)
    for entry in range(kernel):
        places = torch.arange(n_out) * stride + entry * dilation - padding
        met[entry, places[(places >= 0) & (places < side)]] = 1
    return met


def _geometry(node: fx.Node) -> tuple[int, tuple[int, int], tuple[int, int]]:
    """Return groups, stride and padding of a convolution."""
    padding = _argument(node, 4, 0)
    return _argument(node, 6, 1), _pair(_argument(node, 3, 1)), _pair(padding)


def _argument(node: fx.Node, position: int, default: Any = None) -> Any:
    return node.args[position] if len(node.args) > position else default


def _pair(value: Any) -> tuple[int, int]:
    values = [value] if isinstance(value, int) else list(value)
    return (values[0], values[-1])


def _shape(node: fx.Node) -> Any:
    return node.meta["val"].shape


def _n_values(node: fx.Node) -> int:
    _, channels, height, width = _shape(node)
    return int(channels * height * width)


def _same_shape(one: fx.Node, other: fx.Node) -> bool:
    return one.meta["val"].ndim == 4 and tuple(_shape(one)[1:]) == tuple(_shape(other)[1:])


def _is_kept(node: fx.Node) -> bool:
    """Whether a sum of maps is there to be read, and not one operator with the function that follows it."""
    return not any(user.target in ACTIVATIONS for user in node.users)
