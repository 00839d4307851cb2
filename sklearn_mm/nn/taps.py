"""Taps: the activations of chosen layers, averaged over space as they appear."""

import re
import weakref
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from threading import Lock, local
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from sklearn_mm._checks import did_you_mean
from sklearn_mm.nn.lite import SameConv2d

__all__ = ["Tap", "TapReader", "spatial_mean"]

# what may stand between a layer and its activation function, and the activation functions, by torch's names
_TRANSPARENT = {"batch_norm", "group_norm", "instance_norm", "dropout"}
_ACTIVATIONS = {
    "celu", "elu", "gelu", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "mish", "prelu", "relu",
    "relu6", "rrelu", "selu", "sigmoid", "silu", "softplus", "tanh",
}  # fmt: skip
_PARTIAL_SUMS = range(8, 65)  # of a half-precision map, added in float32: 2.5 times less rounding at no cost
_SMALL_MAP = 256  # positions up to which a plain float32 sum is as fast as a matrix product
# what "auto" reads; batch norms are no layers of the full-network embedding
_LAYERS = (nn.Conv2d, nn.Linear)


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
    call : int
        For "call": the position of that function among those of a forward pass.
    """

    name: str
    width: int
    module: str
    reads: str = "output"
    call: int = -1


class TapReader:
    """Reads layers of a network while it runs; its hooks are there only inside a ``with`` block, for all threads.

    Parameters
    ----------
    network : nn.Module
        In evaluation mode.
    layers : "auto", "last", str, int or sequence of str, default="auto"
        "auto" are all convolutions and fully connected layers that run, but for the class layers; n the last n
        of them; another str a regular expression that must match their names in full (class layers too); a
        sequence names any modules. "last" is what the first class layer is given, or the answer of a network
        without one.
    activation : {"pre", "post"}, default="pre"
        Whether layers are read before or after the activation function that follows. A layer with none
        directly behind it (or behind its batch norm) is read before it in any case.
    class_layers : sequence of str, optional
        Names of the class layers; by default the layer whose output is the network's answer, if any is.
    chunk_size : int, optional
        Rows that pass the network at once; by default the whole batch does. Maps of a few pictures stay in the
        caches of a CPU until the next layer, and its tap, have read them.

    Attributes
    ----------
    taps : list of Tap, or None
        Where it reads, in the order in which the layers run (in the order named, for a sequence); known after
        the first batch.

    Raises
    ------
    ValueError
        A layer is unknown; in the first batch, if it does not answer a tensor, or if no layer is left.

    Notes
    -----
    The first batch shows which layers run, in which order, and what follows them: no picture passes the
    network just to find out. A hook averages a map and lets it go, so that no more maps are alive than the
    network itself needs. A module that runs several times is read the last time.

    Inside of one ``with`` block any number of threads may call it at once: what a hook reads belongs to the thread
    that runs the network, and a thread that runs the network for something else is not read. The block itself is
    entered and left while no other thread runs the network; the first batch is waited for.

    The average of a 1x1 convolution (and of a fully connected layer over tokens) is that layer applied to the
    average of its input: where the input has fewer channels, the smaller map is averaged.

    Maps are (n, c, h, w), tokens (n, ..., c): the latter for fully connected layers and for modules with
    three-dimensional outputs.

    Examples
    --------
    >>> import torch
    >>> from sklearn_mm.nn.lite import EfficientNetLite
    >>> network = EfficientNetLite().eval()
    >>> with torch.inference_mode(), TapReader(network, "last") as reader:
    ...     reader(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 1280])
    >>> reader.taps
    [Tap(name='last', width=1280, module='classifier', reads='input', call=-1)]
    """

    def __init__(
        self,
        network: nn.Module,
        layers: str | int | Sequence[str] = "auto",
        activation: str = "pre",
        class_layers: Sequence[str] | None = None,
        chunk_size: int | None = None,
    ) -> None:
        self.network = network
        self.taps: list[Tap] | None = None
        self._chunk_size = chunk_size
        self._layers, self._activation, self._class_layers = layers, activation, class_layers
        self._modules = {name: module for name, module in network.named_modules() if name}
        self._check_names()
        # the taps behind an activation function by the number of its call
        self._calls: dict[int, str] = {}
        self._stack: ExitStack | None = None
        self._finding = Lock()  # held by the thread whose batch shows the taps
        self._thread = local()  # .reading: what this thread reads, while it does

    def _check_names(self) -> None:
        layers = self._layers
        if not isinstance(layers, str | int):
            for name in layers:
                if name not in self._modules:
                    raise ValueError(f"unknown layer {name!r}; {did_you_mean(name, self._modules)}")
        elif isinstance(layers, str) and layers not in ("auto", "last"):
            known = [name for name, module in self._modules.items() if isinstance(module, _LAYERS)]
            try:
                matches = any(re.fullmatch(layers, name) for name in known)
            except re.error as error:
                raise ValueError(f"layers={layers!r} is not a regular expression: {error}") from error
            if not matches:
                raise ValueError(
                    f"layers={layers!r} matches no convolution and no fully connected layer; "
                    f"{did_you_mean(layers, known)}"
                )

    def __enter__(self) -> Self:
        self._stack = ExitStack()
        self._attach(self._stack, self.taps or [])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stack is not None:
            self._stack.close()
            self._stack = None

    def __call__(self, pixels: Tensor) -> Tensor:
        """Run the network on pixels (n, 3, h, w); return what the taps read side by side, float32 (n, d)."""
        if self._stack is None:
            raise RuntimeError("a TapReader reads inside a with block only")
        step = self._chunk_size or len(pixels)
        chunks = [self._read(pixels[start : start + step]) for start in range(0, len(pixels), step)]
        columns = [torch.cat(values) for values in zip(*chunks, strict=True)]
        # autocast would round the float32 averages to half precision again where a layer is applied to them
        with _no_autocast(pixels.device):
            return torch.cat(
                [self._finished(tap, values) for tap, values in zip(self.taps or [], columns, strict=True)], dim=1
            )

    def _read(self, pixels: Tensor) -> list[Tensor]:
        """Run the network once; return the averages that the hooks took, one for each tap."""
        if self.taps is None:
            with self._finding:
                # asked again: another thread may have found them while this one waited
                if self.taps is None:
                    return self._find(pixels)
        reading = _Reading(self._calls, self._modules)
        self._thread.reading = reading
        try:
            # seeing every torch function costs time in Python: only where an activation function has to be met
            with reading.watcher if self._calls else nullcontext():
                answer = self.network(pixels)
        finally:
            self._thread.reading = None
        values = reading.values
        for tap in self.taps:
            if tap.reads == "input" and not tap.module:
                values[tap.name] = _average(answer, _channel_dim(None, answer))
            # what is missing here would shift all columns behind it
            if tap.name not in values:
                raise RuntimeError(f"layer {tap.name!r} did not run as before; the network changes between calls")
        return [values[tap.name] for tap in self.taps]

    def _find(self, pixels: Tensor) -> list[Tensor]:
        """Run the network for the first time: find the taps, and return what they read."""
        first = _FirstPass(self.network, self._modules, self._layers, self._activation, self._class_layers)
        taps, values = first.run(pixels)
        # The block was entered before anybody knew where to read; from the next batch on these hooks do. No other
        # thread runs the network meanwhile: all wait for the taps, which are made known last.
        self._calls = {tap.call: tap.name for tap in taps if tap.reads == "call"}
        self._attach(self._stack or ExitStack(), taps)
        self.taps = taps
        return values

    def _finished(self, tap: Tap, values: Tensor) -> Tensor:
        """Apply a layer to the average of its input, if that is what was read."""
        # _average_output reads the input of a layer only where it is narrower: the width tells which of the two it is
        if values.shape[1] == tap.width:
            return values
        layer = self._modules[tap.module]
        bias = None if layer.bias is None else layer.bias.float()
        return F.linear(values, layer.weight.flatten(1).float(), bias)

    def _attach(self, stack: ExitStack, taps: Sequence[Tap]) -> None:
        for tap in taps:
            if tap.reads == "output":
                stack.enter_context(self._modules[tap.module].register_forward_hook(self._hook(tap.name)))
            elif tap.reads == "input" and tap.module:
                stack.enter_context(self._modules[tap.module].register_forward_pre_hook(self._pre_hook(tap.name)))

    def _hook(self, name: str) -> Callable[[nn.Module, tuple[Any, ...], Tensor], None]:
        def read(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            reading = getattr(self._thread, "reading", None)
            if reading is None:
                return
            # averaging calls torch functions of its own, which are not the network's
            reading.watcher.paused = True
            reading.values[name] = _average_output(module, args[0], output)
            reading.watcher.paused = False

        return read

    def _pre_hook(self, name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def read(module: nn.Module, args: tuple[Any, ...]) -> None:
            reading = getattr(self._thread, "reading", None)
            if reading is None:
                return
            reading.watcher.paused = True
            reading.values[name] = _average(args[0], _channel_dim(module, args[0]))
            reading.watcher.paused = False

        return read


class _Reading:
    """One pass of one thread through the network.

    Parameters
    ----------
    calls : dict of int to str
        The taps behind an activation function, by the number of its call.
    modules : dict of str to Module

    Attributes
    ----------
    values : dict of str to Tensor
        Averages by tap.
    """

    def __init__(self, calls: dict[int, str], modules: dict[str, nn.Module]) -> None:
        self.values: dict[str, Tensor] = {}
        self.watcher = _Watcher(self._see_call)
        self._calls, self._modules = calls, modules

    def _see_call(self, call: int, function: str, given: Any, answer: Any) -> None:
        name = self._calls.get(call)
        if name is not None and function in _ACTIVATIONS:
            self.values[name] = _average(answer, _channel_dim(self._modules[name], answer))


class _Watcher(TorchFunctionMode):
    """Counts the torch functions of a forward pass and hands each answer to `see`."""

    def __init__(self, see: Callable[[int, str, Any, Any], None]) -> None:
        super().__init__()
        self._see = see
        self.paused = False
        self.n_calls = 0

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
            self._see(self.n_calls, getattr(func, "__name__", "").rstrip("_"), given, answer)  # relu_ is relu
            self.n_calls += 1
        return answer


class _FirstPass:
    """Runs a network once, reads everything that may be asked for, and finds out where to read from then on."""

    def __init__(
        self,
        network: nn.Module,
        modules: dict[str, nn.Module],
        layers: str | int | Sequence[str],
        activation: str,
        class_layers: Sequence[str] | None,
    ) -> None:
        self._network, self._modules = network, modules
        self._layers, self._post, self._class_layers = layers, activation == "post", class_layers
        # Of maps only averages are kept, and weak references to know them again: strong ones would keep the
        # maps of the whole network in memory at once.
        self._outputs: dict[str, Tensor] = {}  # averages, by module, in the order in which they ran
        self._widths: dict[str, int] = {}
        self._inputs: dict[str, Tensor] = {}
        self._answers: dict[str, weakref.ref[Tensor]] = {}  # outputs of layers
        self._activations: dict[str, tuple[int, Tensor]] = {}  # by layer, the call and its average
        self._waiting: dict[int, tuple[str, weakref.ref[Tensor]]] = {}  # by id, what waits for its activation
        self._watcher = _Watcher(self._see)

    def run(self, pixels: Tensor) -> tuple[list[Tap], list[Tensor]]:
        """Return the taps and the averages that each of them reads."""
        named = () if isinstance(self._layers, str | int) else self._layers
        with ExitStack() as stack:
            for name, module in self._modules.items():
                if name in named or isinstance(module, _LAYERS):
                    stack.enter_context(module.register_forward_hook(self._hook(name)))
            if self._post:
                stack.enter_context(self._watcher)
            answer = self._network(pixels)
        # the very same tensor: behind a softmax or a pool, the last layer is not known as a class layer
        if self._class_layers is None:
            self._class_layers = [name for name, output in self._answers.items() if output() is answer]
        if isinstance(self._layers, str) and self._layers == "last":
            found = [self._last(answer)]
        else:
            found = [self._tap(name) for name in self._chosen()]
        return [tap for tap, _ in found], [values for _, values in found]

    def _hook(self, name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def note(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            self._watcher.paused = True
            if not isinstance(output, Tensor) or output.ndim < 2:
                raise ValueError(f"layer {name!r} answers no tensor with a row for each picture")
            # a module that runs again moves to where it ran last
            self._outputs.pop(name, None)
            self._outputs[name] = _average_output(module, args[0], output)
            self._widths[name] = output.shape[_channel_dim(module, output)]
            if isinstance(module, _LAYERS):
                self._answers[name] = weakref.ref(output)
                self._waiting[id(output)] = (name, self._answers[name])
                if isinstance(self._layers, str) and self._layers == "last":
                    self._inputs[name] = _average(args[0], _channel_dim(module, args[0]))
            self._watcher.paused = False

        return note

    def _see(self, call: int, function: str, given: Any, answer: Any) -> None:
        name, waiting = self._waiting.get(id(given), ("", None))
        # an id comes again once its tensor is gone
        if waiting is None or waiting() is not given:
            return
        if function in _ACTIVATIONS:
            self._activations[name] = (call, _average(answer, _channel_dim(self._modules[name], answer)))
            del self._waiting[id(given)]
        elif function in _TRANSPARENT:
            self._waiting[id(answer)] = (name, weakref.ref(answer))
        elif answer is given:  # changed in place, by a residual sum for one: no longer this layer's alone
            del self._waiting[id(given)]

    def _chosen(self) -> Sequence[str]:
        layers, class_layers = self._layers, self._class_layers or ()
        if not isinstance(layers, str | int):
            idle = [name for name in layers if name not in self._outputs]
            if idle:
                raise ValueError(f"layer {idle[0]!r} does not run; {did_you_mean(idle[0], self._outputs)}")
            return layers
        hidden = [name for name in self._answers if name not in class_layers]
        if isinstance(layers, str) and layers != "auto":
            # class layers too: an expression says itself which layers it means
            hidden = [name for name in self._answers if re.fullmatch(layers, name)]
        if not hidden:
            raise ValueError(
                "no convolution and no fully connected layer runs below the class layer; name modules in a list"
            )
        if isinstance(layers, int) and layers > len(hidden):
            raise ValueError(f"layers={layers}, but the network has {len(hidden)} layers below its class layer")
        return hidden[-layers:] if isinstance(layers, int) else hidden

    def _tap(self, name: str) -> tuple[Tap, Tensor]:
        if name in self._activations:
            call, values = self._activations[name]
            return Tap(name, values.shape[1], name, "call", call), values
        return Tap(name, self._widths[name], name), self._outputs[name]

    def _last(self, answer: Any) -> tuple[Tap, Tensor]:
        module = self._class_layers[0] if self._class_layers else ""
        if not module and not (isinstance(answer, Tensor) and answer.ndim > 1):
            raise ValueError("layers='last' needs a network that answers a tensor with a row for each picture")
        values = self._inputs[module] if module else _average(answer, _channel_dim(None, answer))
        return Tap("last", values.shape[1], module, "input"), values


def _channel_dim(module: nn.Module | None, value: Tensor) -> int:
    """Return 1 where the channels come right behind the rows (maps), -1 where they come last (tokens)."""
    return -1 if isinstance(module, nn.Linear) or value.ndim == 3 else 1


def _average_output(module: nn.Module, given: Tensor, output: Tensor) -> Tensor:
    """Average a module's output over space, or its input where that is less to read and leads to the same."""
    channel_dim = _channel_dim(module, output)
    # a mean and a linear map may change places; on rows there is no mean to save
    if output.ndim == 2 or not _is_pointwise(module) or given.shape[channel_dim] >= output.shape[channel_dim]:
        return _average(output, channel_dim)
    if isinstance(module, nn.Conv2d):
        # a stride skips positions, which then have no part in the mean
        given = given[:, :, :: module.stride[0], :: module.stride[1]]
    return _average(given, channel_dim)


def _no_autocast(device: torch.device) -> AbstractContextManager[object]:
    # autocast knows no meta device, on which taps are found without computing
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def _is_pointwise(module: nn.Module) -> bool:
    """Whether the module is one linear map applied at every position, exactly as torch computes it."""
    # the class itself: a subclass may do more than its layer
    if type(module) is nn.Linear:
        return True
    if type(module) is nn.Conv2d or type(module) is SameConv2d:
        # zeros padded around a map would take part in the mean of the output, not in that of the input
        return module.kernel_size == (1, 1) and module.groups == 1 and module.padding in ((0, 0), "valid")
    return False


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
    if size <= _SMALL_MAP or maps.device.type != "cpu" or maps.stride(1) != 1:
        return maps.mean((2, 3), dtype=torch.float32)
    positions = maps.permute(0, 2, 3, 1)  # (n, h, w, c), a view
    whole = maps.is_contiguous(memory_format=torch.channels_last)
    if maps.dtype == torch.float32:
        with _no_autocast(maps.device):
            sums = torch.bmm(maps.new_ones(()).expand(n, 1, h), positions.reshape(n, h, w * c))  # (n, 1, w * c)
        return sums.view(n, w, c).sum(1) / size
    # of a map with gaps (strided), rows are products of their own: no copy
    parts = next((parts for parts in _PARTIAL_SUMS if size % parts == 0), 1) if whole else h
    ones = maps.new_ones(()).expand(n * parts, 1, size // parts)
    sums = torch.bmm(ones, positions.reshape(n * parts, size // parts, c))  # (n * parts, 1, c)
    return sums.view(n, parts, c).sum(1, dtype=torch.float32) / size
