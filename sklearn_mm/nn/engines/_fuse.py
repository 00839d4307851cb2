"""Convolutions with the sums and activation functions behind them as single operators of oneDNN."""

from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional as F

__all__ = ["can_fuse", "fuse"]

_ATEN = torch.ops.aten
# by operator, what oneDNN calls it; the scalars it takes are read from the operator's arguments
_POINTWISE = {
    _ATEN.hardsigmoid.default: "hardsigmoid",
    _ATEN.hardswish.default: "hardswish",
    _ATEN.hardtanh.default: "hardtanh",
    _ATEN.relu.default: "relu",
    _ATEN.sigmoid.default: "sigmoid",
    _ATEN.silu.default: "swish",
    _ATEN.tanh.default: "tanh",
}


def _arguments(node: fx.Node) -> tuple[Any, ...]:
    """Return what an operator is given: its schema, not the graph, says of which kinds."""
    return node.args


def can_fuse() -> bool:
    """Whether this build of torch has the operators."""
    has_onednn: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # torch's has no types
    return has_onednn and hasattr(torch.ops.mkldnn, "_convolution_pointwise")


def fuse(module: fx.GraphModule, dtype: torch.dtype) -> None:
    """Replace each convolution, and what follows it alone, by one operator with its weight in oneDNN's order.

    Parameters
    ----------
    module : fx.GraphModule
        Of functions, for the CPU; changed in place.
    dtype : torch.dtype
        In which convolutions compute.
    """
    graph = module.graph
    for number, node in enumerate([node for node in graph.nodes if node.target is _ATEN.conv2d.default]):
        _pad_evenly(module, node)
        _fuse_one(module, node, f"_packed_{number}", dtype)
    graph.eliminate_dead_code()
    graph.lint()
    module.recompile()


def _fuse_one(module: fx.GraphModule, node: fx.Node, name: str, dtype: torch.dtype) -> None:
    graph = module.graph
    source, weight = _arguments(node)[0], _tensor(module, _arguments(node)[1])
    bias = None if len(_arguments(node)) < 3 or _arguments(node)[2] is None else _tensor(module, _arguments(node)[2])
    stride, padding, dilation = (
        [value] * 2 if isinstance(value, int) else list(value) * (1 if len(value) == 2 else 2)
        for value in (*_arguments(node)[3:6], *(1, 0, 1)[len(_arguments(node)[3:6]) :])
    )
    groups = _arguments(node)[6] if len(_arguments(node)) > 6 else 1
    size = [1, *(int(side) for side in source.meta["val"].shape[1:])]
    packed = torch.ops.mkldnn._reorder_convolution_weight(weight.to(dtype), padding, stride, dilation, groups, size)
    module.register_buffer(f"{name}_weight", packed)
    if bias is not None:
        module.register_buffer(f"{name}_bias", bias.to(dtype))
    with graph.inserting_before(next(iter(graph.nodes))):
        constants = [graph.get_attr(f"{name}_weight"), None if bias is None else graph.get_attr(f"{name}_bias")]
    geometry = (padding, stride, dilation, groups)
    end, other = node, None
    add = _only_user(node)
    if add is not None and add.target is _ATEN.add.Tensor and len(_arguments(add)) == 2 and not add.kwargs:
        (other,) = [value for value in _arguments(add) if value is not node] or [None]
        if _is_map_like(other, node):
            end = add
        else:
            other = None
    unary, scalars = _unary(_only_user(end))
    last = _only_user(end) if unary else None
    with graph.inserting_before(last or end):
        if dtype != torch.float32:
            source = graph.call_function(_ATEN.to.dtype, (source, dtype))
            other = other if other is None else graph.call_function(_ATEN.to.dtype, (other, dtype))
        if other is None:
            arguments = (source, *constants, *geometry, unary or "none", scalars, "")
            fused = graph.call_function(torch.ops.mkldnn._convolution_pointwise.default, arguments)
        else:
            arguments = (source, other, *constants, *geometry, "add", 1.0, unary, scalars, None)
            fused = graph.call_function(torch.ops.mkldnn._convolution_pointwise.binary, arguments)
    fused.meta = dict((last or end).meta)
    (last or end).replace_all_uses_with(fused)
    for replaced in dict.fromkeys(done for done in (last, end, node) if done is not None):
        graph.erase_node(replaced)


def _pad_evenly(module: fx.GraphModule, node: fx.Node) -> None:
    """Let a convolution pad what is padded for it alone, more at the end by one: by a kernel that begins with zeros.

    A copy of the map costs more than the products with zero.
    """
    pad = _arguments(node)[0]
    if pad.target is not _ATEN.pad.default or len(pad.users) > 1 or len(_arguments(pad)[1]) != 4:
        return
    # mode and value, padding and dilation: zeros here, and nothing else there
    if list(_arguments(pad)[2:]) not in ([], ["constant"], ["constant", None], ["constant", 0.0]) or pad.kwargs:
        return
    left, right, top, bottom = _arguments(pad)[1]
    given, defaults = _arguments(node)[2:], [None, 1, 0, 1, 1]
    filled: list[Any] = [*given, *defaults[len(given) :]]
    bias, stride, own, dilation, groups = filled
    if right != left + 1 or bottom != top + 1 or own not in (0, [0, 0]) or dilation not in (1, [1, 1]):
        return
    weight = F.pad(_tensor(module, _arguments(node)[1]), (1, 0, 1, 0))
    name = f"_padded_{node.name}"
    module.register_buffer(name, weight)
    with module.graph.inserting_before(node):
        padded = module.graph.get_attr(name)
    node.args = (_arguments(pad)[0], padded, bias, stride, [bottom, right], 1, groups)
    module.graph.erase_node(pad)


def _unary(node: fx.Node | None) -> tuple[str | None, list[Any]]:
    target: Any = None if node is None else node.target
    name = _POINTWISE.get(target)
    if node is None or name is None:
        return None, []
    if name == "hardtanh":
        return name, [float(value) for value in (*_arguments(node)[1:], *(-1.0, 1.0)[len(_arguments(node)) - 1 :])]
    return name, []


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _is_map_like(other: Any, node: fx.Node) -> bool:
    if not isinstance(other, fx.Node) or "val" not in other.meta:
        return False
    one, two = other.meta["val"], node.meta["val"]
    return tuple(one.shape[1:]) == tuple(two.shape[1:]) and one.ndim == 4


def _tensor(module: fx.GraphModule, node: fx.Node) -> Tensor:
    value: Any = module
    for part in str(node.target).split("."):
        value = getattr(value, part)
    return value.detach()
