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


def can_fuse() -> bool:
    """Whether this build of torch has the operators."""
    return bool(torch.backends.mkldnn.is_available()) and hasattr(torch.ops.mkldnn, "_convolution_pointwise")


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
    source, weight = node.args[0], _tensor(module, node.args[1])
    bias = None if len(node.args) < 3 or node.args[2] is None else _tensor(module, node.args[2])
    stride, padding, dilation = (
        [value] * 2 if isinstance(value, int) else list(value) * (1 if len(value) == 2 else 2)
        for value in (*node.args[3:6], *(1, 0, 1)[len(node.args[3:6]) :])
    )
    groups = node.args[6] if len(node.args) > 6 else 1
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
    if add is not None and add.target is _ATEN.add.Tensor and len(add.args) == 2 and not add.kwargs:
        (other,) = [value for value in add.args if value is not node] or [None]
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
    pad = node.args[0]
    if pad.target is not _ATEN.pad.default or len(pad.users) > 1 or len(pad.args[1]) != 4:
        return
    # mode and value, padding and dilation: zeros here, and nothing else there
    if list(pad.args[2:]) not in ([], ["constant"], ["constant", None], ["constant", 0.0]) or pad.kwargs:
        return
    left, right, top, bottom = pad.args[1]
    bias, stride, own, dilation, groups = (*node.args[2:], *(None, 1, 0, 1, 1)[len(node.args) - 2 :])
    if right != left + 1 or bottom != top + 1 or own not in (0, [0, 0]) or dilation not in (1, [1, 1]):
        return
    weight = F.pad(_tensor(module, node.args[1]), (1, 0, 1, 0))
    name = f"_padded_{node.name}"
    module.register_buffer(name, weight)
    with module.graph.inserting_before(node):
        padded = module.graph.get_attr(name)
    node.args = (pad.args[0], padded, bias, stride, [bottom, right], 1, groups)
    module.graph.erase_node(pad)


def _unary(node: fx.Node | None) -> tuple[str | None, list[Any]]:
    name = None if node is None else _POINTWISE.get(node.target)
    if node is None or name is None:
        return None, []
    if name == "hardtanh":
        return name, [float(value) for value in (*node.args[1:], *(-1.0, 1.0)[len(node.args) - 1 :])]
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
