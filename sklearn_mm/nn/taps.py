"""Taps: the activations of chosen layers, averaged over space as they appear."""

import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from sklearn_mm._checks import did_you_mean
from sklearn_mm.nn.lite import SameConv2d

__all__ = ["Tap", "TapReader", "find_taps", "spatial_mean"]

# what may stand between a layer and its activation function, and the activation functions, by torch's names
_TRANSPARENT = {"batch_norm", "group_norm", "instance_norm", "dropout"}
_ACTIVATIONS = {
    "celu", "elu", "gelu", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "mish", "prelu", "relu",
    "relu6", "rrelu", "selu", "sigmoid", "silu", "softplus", "tanh",
}  # fmt: skip
_PARTIAL_SUMS = range(8, 65)  # of a half-precision map, added in float32: 2.5 times less rounding at no cost
_SMALL_MAP = 256  # positions up to which a plain float32 sum is as fast as a matrix product


@dataclass(frozen=True)
class Tap:
    """A place in a network where an activation is read.

    Attributes
    ----------
    name : str
        The module's name in the network; "last" for what the class layer is given.
    width : int
        Filters of a convolution, units of a fully connected layer.
    module : str
        Name of the module that is watched; empty for the network itself.
    reads : {"output", "input", "call"}
        What is read: the module's output, its input, or the answer of one of the torch functions that a
        forward pass calls.
    channel_dim : {1, -1}
        1 where the channels come right behind the rows (maps), -1 where they come last (tokens).
    call : int
        For "call": the position of that function among those of a forward pass.
    """

    name: str
    width: int
    module: str
    reads: str = "output"
    channel_dim: int = 1
    call: int = -1


class _Watcher(TorchFunctionMode):
    """Counts the torch functions of a forward pass and hands each answer to `see`."""

    def __init__(self, see: Callable[[int, str, Any, Any], None]) -> None:
        super().__init__()
        self._see = see
        self.n_calls = 0
        self.paused = False

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        answer = func(*args, **kwargs)
        if not self.paused:
            given = args[0] if args else kwargs.get("input")
            self._see(self.n_calls, getattr(func, "__name__", "").rstrip("_"), given, answer)
            self.n_calls += 1
        return answer


class _Trace:
    """What one forward pass of a single picture shows: the layers in their order and what follows each."""

    def __init__(self, network: nn.Module, probe: Tensor) -> None:
        self.modules = {name: module for name, module in network.named_modules() if name}
        self.outputs: dict[str, Any] = {}  # by module, in the order in which they answered
        self.inputs: dict[str, Any] = {}
        self.activation_calls: dict[str, int] = {}  # by layer, the call that answers its activation function
        self._waiting: dict[int, tuple[str, Any]] = {}  # by identity of a tensor that waits for its activation
        with ExitStack() as stack:
            for name, module in self.modules.items():
                stack.enter_context(module.register_forward_hook(self._hook(name)))
            stack.enter_context(_Watcher(self._see))
            self.answer = network(probe)
        self._waiting.clear()

    def _hook(self, name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def note(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            self.outputs.pop(name, None)
            self.outputs[name] = output
            self.inputs[name] = args[0] if args else None
            if isinstance(module, nn.Conv2d | nn.Linear):
                self._waiting[id(output)] = (name, output)

        return note

    def _see(self, call: int, function: str, given: Any, answer: Any) -> None:
        waiting = self._waiting.get(id(given))
        if waiting is None:
            return
        if function in _ACTIVATIONS:
            self.activation_calls[waiting[0]] = call
            del self._waiting[id(given)]
        elif function in _TRANSPARENT:
            self._waiting[id(answer)] = (waiting[0], answer)
        elif answer is given:  # changed in place, by a residual sum for one: no longer this layer's alone
            del self._waiting[id(given)]

    @property
    def layers(self) -> list[str]:
        """Names of the convolutions and fully connected layers, in the order they ran."""
        return [name for name in self.outputs if isinstance(self.modules[name], nn.Conv2d | nn.Linear)]

    @property
    def answering_layer(self) -> tuple[str, ...]:
        """Name of the layer whose output is the network's answer, if there is one."""
        return tuple(name for name in self.layers if self.outputs[name] is self.answer)


def find_taps(
    network: nn.Module,
    probe: Tensor,
    layers: str | int | Sequence[str] = "auto",
    activation: str = "pre",
    class_layers: Sequence[str] | None = None,
) -> list[Tap]:
    """Find where to read the layers asked for, by one forward pass.

    Parameters
    ----------
    network : nn.Module
        In evaluation mode.
    probe : Tensor of shape (1, 3, h, w), float
        A picture of the size that will be read later.
    layers : "auto", "last", str, int or sequence of str, default="auto"
        "auto" are all convolutions and fully connected layers that run, but for the class layers; n the last n
        of them; another str a regular expression that must match their names in full; a sequence names any
        modules. "last" is what the (first) class layer is given, or the answer of a network without one.
    activation : {"pre", "post"}, default="pre"
        Whether layers are read before or after the activation function that follows. A layer with none
        directly behind it (or behind its batch norm) is read before it in any case.
    class_layers : sequence of str, optional
        Names of the class layers; by default the layer whose output is the network's answer, if any is.

    Returns
    -------
    list of Tap, in the order in which the layers ran (in the order named, for a sequence)

    Raises
    ------
    ValueError
        A layer is unknown, or does not answer a tensor, or none is left.
    """
    trace = _Trace(network, probe)
    if class_layers is None:
        class_layers = trace.answering_layer
    if isinstance(layers, str) and layers == "last":
        return [_last_tap(trace, class_layers)]
    return [_tap(trace, name, activation) for name in _chosen_names(trace, layers, class_layers)]


def _chosen_names(trace: _Trace, layers: str | int | Sequence[str], class_layers: Sequence[str]) -> list[str]:
    hidden = [name for name in trace.layers if name not in class_layers]
    if isinstance(layers, str) and layers != "auto":
        try:
            chosen = [name for name in trace.layers if re.fullmatch(layers, name)]
        except re.error as error:
            raise ValueError(f"layers={layers!r} is not a regular expression: {error}") from error
        if not chosen:
            raise ValueError(
                f"layers={layers!r} matches no convolution and no fully connected layer; "
                f"{did_you_mean(layers, trace.layers)}"
            )
        return chosen
    if not isinstance(layers, str | int):
        for name in layers:
            if name not in trace.outputs:
                raise ValueError(f"unknown layer {name!r}; {did_you_mean(name, trace.outputs)}")
        return list(layers)
    if not hidden:
        raise ValueError(
            "the network has no convolution and no fully connected layer below its class layer; "
            "name modules with layers=[...]"
        )
    if isinstance(layers, int) and layers > len(hidden):
        raise ValueError(f"layers={layers}, but the network has {len(hidden)} layers below its class layer")
    return hidden if isinstance(layers, str) else hidden[-layers:]


def _tap(trace: _Trace, name: str, activation: str) -> Tap:
    output, module = trace.outputs[name], trace.modules[name]
    if not isinstance(output, Tensor) or output.ndim < 2:
        raise ValueError(f"layer {name!r} does not answer a tensor with a row for each picture, so it cannot be read")
    channel_dim = -1 if isinstance(module, nn.Linear) or output.ndim == 3 else 1
    width = output.shape[channel_dim]
    if activation == "post" and name in trace.activation_calls:
        return Tap(name, width, name, "call", channel_dim, trace.activation_calls[name])
    return Tap(name, width, name, "output", channel_dim)


def _last_tap(trace: _Trace, class_layers: Sequence[str]) -> Tap:
    module = class_layers[0] if class_layers else ""
    value = trace.inputs[module] if class_layers else trace.answer
    if not isinstance(value, Tensor) or value.ndim < 2:
        raise ValueError("layers='last' needs a network that answers a tensor with a row for each picture")
    channel_dim = -1 if value.ndim == 3 or isinstance(trace.modules.get(module), nn.Linear) else 1
    return Tap("last", value.shape[channel_dim], module, "input", channel_dim)


class TapReader:
    """Reads the taps of a network while it runs; its hooks are there only inside a ``with`` block.

    Parameters
    ----------
    network : nn.Module
        In evaluation mode.
    taps : sequence of Tap
        From `find_taps` on the same network and size of picture.

    Notes
    -----
    A hook averages the map and lets it go, so that no more maps are alive than the network itself needs.
    The average of a 1x1 convolution (and of a fully connected layer over tokens) is that layer applied to the
    average of its input: where the input has fewer channels, the smaller map is averaged.

    Examples
    --------
    >>> import torch
    >>> from sklearn_mm.nn.lite import EfficientNetLite
    >>> network = EfficientNetLite().eval()
    >>> taps = find_taps(network, torch.zeros(1, 3, 32, 32), layers="last")
    >>> with torch.inference_mode(), TapReader(network, taps) as reader:
    ...     reader(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 1280])
    """

    def __init__(self, network: nn.Module, taps: Sequence[Tap]) -> None:
        self.network = network
        self.taps = taps
        self._values: list[Tensor | None] = [None] * len(taps)
        self._stack = ExitStack()
        self._calls = {tap.call: position for position, tap in enumerate(taps) if tap.reads == "call"}
        self._watcher = _Watcher(self._see_call)

    def __enter__(self) -> Self:
        modules = dict(self.network.named_modules())
        for position, tap in enumerate(self.taps):
            if tap.reads == "output":
                self._stack.enter_context(modules[tap.module].register_forward_hook(self._hook(position, tap)))
            elif tap.reads == "input" and tap.module:
                self._stack.enter_context(modules[tap.module].register_forward_pre_hook(self._pre_hook(position, tap)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def __call__(self, pixels: Tensor) -> Tensor:
        """Run the network on pixels (n, 3, h, w); return the taps side by side, float32 (n, d)."""
        if self._calls:
            self._watcher.n_calls = 0
            with self._watcher:
                answer = self.network(pixels)
        else:
            answer = self.network(pixels)
        for position, tap in enumerate(self.taps):
            if tap.reads == "input" and not tap.module:
                self._values[position] = _average(answer, tap.channel_dim)
        values = [value for value in self._values if value is not None]
        if len(values) < len(self.taps):
            unread = next(tap.name for tap, value in zip(self.taps, self._values, strict=True) if value is None)
            raise RuntimeError(f"layer {unread!r} did not run as it did before; the network changes between calls")
        self._values = [None] * len(self.taps)
        return torch.cat(values, dim=1)

    def _hook(self, position: int, tap: Tap) -> Callable[[nn.Module, tuple[Any, ...], Tensor], None]:
        def read(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            self._watcher.paused = True
            self._values[position] = _average_output(module, args[0], output, tap.channel_dim)
            self._watcher.paused = False

        return read

    def _pre_hook(self, position: int, tap: Tap) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def read(module: nn.Module, args: tuple[Any, ...]) -> None:
            self._watcher.paused = True
            self._values[position] = _average(args[0], tap.channel_dim)
            self._watcher.paused = False

        return read

    def _see_call(self, call: int, function: str, given: Any, answer: Any) -> None:
        position = self._calls.get(call)
        if position is not None and function in _ACTIVATIONS:
            self._values[position] = _average(answer, self.taps[position].channel_dim)


def _average_output(module: nn.Module, given: Tensor, output: Tensor, channel_dim: int) -> Tensor:
    """Average a layer's output over space, (n, width), by way of its input where that is less to read."""
    layer = _pointwise(module)
    if layer is None or output.ndim == 2 or given.shape[channel_dim] >= output.shape[channel_dim]:
        return _average(output, channel_dim)
    if isinstance(layer, nn.Conv2d):
        given = given[:, :, :: layer.stride[0], :: layer.stride[1]]
    with torch.autocast(output.device.type, enabled=False):
        bias = None if layer.bias is None else layer.bias.float()
        return F.linear(_average(given, channel_dim), layer.weight.flatten(1).float(), bias)


def _pointwise(module: nn.Module) -> nn.Conv2d | nn.Linear | None:
    """Return the module if it is one linear map applied at every position, exactly as torch computes it."""
    if type(module) is nn.Linear:
        return module
    if type(module) is nn.Conv2d or type(module) is SameConv2d:
        unpadded = module.padding in ((0, 0), "valid")
        return module if module.kernel_size == (1, 1) and module.groups == 1 and unpadded else None
    return None


def _average(value: Tensor, channel_dim: int) -> Tensor:
    """Average over all but the rows and the channels: float32 (n, width)."""
    if value.ndim == 2:
        return value.to(torch.float32, copy=True)  # an activation function may change it in place
    if value.ndim == 4 and channel_dim == 1:
        return spatial_mean(value)
    between = [dim for dim in range(1, value.ndim) if dim != channel_dim % value.ndim]
    return value.mean(between, dtype=torch.float32)


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
    if size <= _SMALL_MAP or maps.device.type != "cpu" or not maps.is_contiguous(memory_format=torch.channels_last):
        return maps.mean((2, 3), dtype=torch.float32)
    positions = maps.permute(0, 2, 3, 1)  # (n, h, w, c), a view
    with torch.autocast("cpu", enabled=False):
        if maps.dtype == torch.float32:
            ones = maps.new_ones(()).expand(n, 1, h)
            return torch.bmm(ones, positions.reshape(n, h, w * c)).view(n, w, c).sum(1) / size
        parts = next((parts for parts in _PARTIAL_SUMS if size % parts == 0), 1)
        ones = maps.new_ones(()).expand(n * parts, 1, size // parts)
        sums = torch.bmm(ones, positions.reshape(n * parts, size // parts, c))
        return sums.view(n, parts, c).sum(1, dtype=torch.float32) / size
