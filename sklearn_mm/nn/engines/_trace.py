"""A frozen network as a graph of torch's operators, with the maps that taps read among its outputs."""

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from sklearn_mm.nn.taps import TapReader

__all__ = ["TracedTap", "UntraceableError", "trace"]

_ATEN = torch.ops.aten
# what a module does in place, which a graph that is rewritten must not
_OUT_OF_PLACE = {
    getattr(_ATEN, f"{name}_").default: getattr(_ATEN, name).default
    for name in (
        "elu",
        "hardsigmoid",
        "hardswish",
        "hardtanh",
        "leaky_relu",
        "relu",
        "relu6",
        "sigmoid",
        "silu",
        "tanh",
    )
    if hasattr(_ATEN, f"{name}_") and hasattr(_ATEN, name)
} | {
    _ATEN.add_.Tensor: _ATEN.add.Tensor,
    _ATEN.mul_.Tensor: _ATEN.mul.Tensor,
    _ATEN.clamp_.default: _ATEN.clamp.default,
}


class UntraceableError(Exception):
    """The network is no graph of operators: what it does depends on the numbers, or it does what is not known here."""


@dataclass(frozen=True)
class TracedTap:
    """What an output of a traced network is.

    Attributes
    ----------
    part : {"class", "mean", "max"}
    is_map : bool
        Whether it is a map (n, c, h, w) that is still to be pooled; else it is float32 (n, width).
    """

    part: str
    is_map: bool


class _Maps(nn.Module):
    def __init__(self, reader: TapReader) -> None:
        super().__init__()
        self.network = reader.network
        self._read_maps = reader.read_maps

    def forward(self, pixels: Tensor) -> list[Tensor]:
        return [value for _, _, value in self._read_maps(pixels)]


def trace(reader: TapReader, pixels: Tensor) -> tuple[fx.GraphModule, list[TracedTap]]:
    """Turn a network and the taps on it into a graph of functions without side effects.

    Parameters
    ----------
    reader : TapReader
        Whose taps are known.
    pixels : Tensor of shape (n, 3, h, w), float32
        What the network is given; n is at least 2 and may differ later.

    Returns
    -------
    graph : fx.GraphModule
        From pixels (n, 3, h, w) to a tuple of what the taps read, in their order. Its weights are those of the network.
    taps : list of TracedTap
        What each output is.

    Raises
    ------
    UntraceableError
        The network cannot be turned into such a graph.
    """
    with torch.no_grad():
        taps = [TracedTap(part, value.ndim == 4) for _, part, value in reader.read_maps(pixels[:1])]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about what hooks note of the modules, which is gone by then
                exported = torch.export.export(
                    _Maps(reader).eval(), (pixels,), dynamic_shapes={"pixels": {0: torch.export.Dim("n", min=1)}},
                    strict=False,
                )  # fmt: skip
                unlifted = exported.module(check_guards=False)
        # torch.export gives up with errors of many classes, for as many reasons
        except Exception as error:
            raise UntraceableError(f"torch.export: {error}") from error
    unlifted.graph.set_codegen(fx.graph.CodeGen())  # arguments and answers as they are
    graph = fx.GraphModule(unlifted, unlifted.graph)
    _make_functional(graph)
    return graph, taps


def _make_functional(module: fx.GraphModule) -> None:
    """Replace what changes a tensor in place by what makes a new one, and drop copies made for fear of that."""
    graph = module.graph
    for node in list(graph.nodes):
        # checks of shapes, and of dtypes that autocast may change
        if node.op == "call_module" or node.target is _ATEN._assert_tensor_metadata.default:
            graph.erase_node(node)
        elif node.target in (_ATEN.dropout.default, _ATEN.dropout_.default) and not node.args[2]:
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
        elif node.op == "call_function":
            _replace_in_place(node)
    for node in list(graph.nodes):
        if node.target is _ATEN.clone.default and not node.kwargs:
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
    graph.eliminate_dead_code()
    graph.lint()
    module.recompile()


def _replace_in_place(node: fx.Node) -> None:
    schema = getattr(node.target, "_schema", None)
    if schema is None or not schema.is_mutable:
        return
    target = _OUT_OF_PLACE.get(node.target)
    changed = node.args[0]
    if target is None or not isinstance(changed, fx.Node):
        raise UntraceableError(f"{node.target} changes a tensor in place")
    place = {other: position for position, other in enumerate(node.graph.nodes)}
    for user in list(changed.users):
        # a view of what is changed would change with it
        if place[user] < place[node] and _may_be_view(user):
            raise UntraceableError(f"{node.target} changes a tensor in place that {user.target} is a view of")
    node.target = target
    changed.replace_all_uses_with(node, lambda user: place[user] > place[node])


def _may_be_view(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    if schema is None or schema.is_mutable:
        return False
    copies = node.kwargs.get("copy", len(node.args) > 3 and node.args[3]) if node.target is _ATEN.to.dtype else False
    return not copies and any(value.alias_info is not None for value in schema.returns)
