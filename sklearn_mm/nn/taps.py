"""Taps: the activations of chosen layers, pooled over space as they appear."""

import copy
import re
import weakref
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from threading import Lock, local
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from sklearn_mm._checks import did_you_mean
from sklearn_mm.nn.blocks import Block, find_blocks
from sklearn_mm.nn.layer_table import LAST, Column, LayerTable, Readable, behind
from sklearn_mm.nn.lite import SameConv2d
from sklearn_mm.nn.pooling import POOLINGS, no_autocast, pooled, pooled_name

__all__ = ["Tap", "TapReader"]

# what may stand between a layer and its activation function, and the activation functions, by torch's names
_TRANSPARENT = {"batch_norm", "group_norm", "instance_norm", "dropout"}
_ACTIVATIONS = {
    "celu", "elu", "gelu", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "mish", "prelu", "relu",
    "relu6", "rrelu", "selu", "sigmoid", "silu", "softplus", "tanh",
}  # fmt: skip
_AVERAGES = {"adaptive_avg_pool1d", "adaptive_avg_pool2d", "avg_pool2d", "mean"}
_SAME_AVERAGE = 0.02  # of its norm: how far a network's own average, in half precision, may be from the exact one
# what "auto" reads; batch norms are no layers of the full-network embedding
_LAYERS = (nn.Conv2d, nn.Linear)


@dataclass(frozen=True)
class Tap:
    """A place in a network where an activation is read.

    Attributes
    ----------
    name : str
        The module's name in the network; "last" for what the class layer is given. Of a reader of everything, that of
        a `Column`.
    width : int
        Filters of a convolution, units of a fully connected layer.
    module : str
        Name of the module that is watched; empty for the network itself.
    reads : {"output", "input", "call"}
        What is read: the module's output, its input, or the answer of one of the torch functions that a
        forward pass calls.
    call : int
        For "call": the position of that function among those of a forward pass. For the "input" of a class layer whose
        maximum is read too: that of the function that averages its map.
    parts : tuple of {"class", "mean", "max"}
        What is read of it, in the order of the columns; ``("mean",)`` for what has no positions.
    channel_dim : {1, -1}
        For that map: where its channels are.
    """

    name: str
    width: int
    module: str
    reads: str = "output"
    call: int = -1
    parts: tuple[str, ...] = ("mean",)
    channel_dim: int = 1

    @property
    def columns(self) -> list[tuple[str, int]]:
        """Name and width of each part."""
        return [(pooled_name(self.name, part), self.width) for part in self.parts]


class TapReader:
    """Reads layers of a network while it runs; its hooks are there only inside a ``with`` block, for all threads.

    Parameters
    ----------
    network : nn.Module
        In evaluation mode.
    layers : "auto", "last", str, int or sequence of str, default="auto"
        "auto" are all convolutions and fully connected layers that run, but for the class layers, or the blocks of a
        network that has such (`find_blocks`); n the last n of them; another str a regular expression that must match
        the names of layers or blocks in full (class layers too); a sequence names any modules. "last" is what the
        first class layer is given, or the answer of a network without one.
    activation : {"pre", "post"}, default="pre"
        Whether layers are read before or after the activation function that follows. A layer with none
        directly behind it (or behind its batch norm) is read before it in any case.
    class_layers : sequence of str, optional
        Names of the class layers; by default the layer whose output is the network's answer, if any is.
    chunk_size : int, optional
        Rows that pass the network at once; by default the whole batch does. Maps of a few pictures stay in the
        caches of a CPU until the next layer, and its tap, have read them.
    pooling : {"mean", "max", "mean+max"}, default="mean"
        What is read of a map or of tokens over their positions; what has none is read as it is, once. Of the tokens of
        a block the class token comes first, and no token but those of the patches is pooled.
    leave_out : collection of str, optional
        With it, even an empty one, all is read that "auto" and "last" name as well, before and after the activation
        function, but for these taps, and besides a maximum the mean: what a cache keeps. Once there is a `Column` for
        each of the parts, they come in whatever order.

    Attributes
    ----------
    taps : list of Tap, or None
        Where it reads, in the order in which the layers run (in the order named, for a sequence); known after
        the first batch.
    table : LayerTable or None
        What else can be read, after the first batch of a reader with `leave_out`.

    Raises
    ------
    ValueError
        A layer is unknown; in the first batch, if it does not answer a tensor, or if no layer is left, or if a maximum
        of "last" is asked for, which is no map averaged over space.

    Notes
    -----
    The first batch shows which layers run, in which order, and what follows them: no picture passes the
    network just to find out. A hook pools a map and lets it go, so that no more maps are alive than the
    network itself needs. A module that runs several times is read the last time.

    Inside of one ``with`` block any number of threads may call it at once: what a hook reads belongs to the thread
    that runs the network, and a thread that runs the network for something else is not read. The block itself is
    entered and left while no other thread runs the network; the first batch is waited for.

    The average of a 1x1 convolution (and of a fully connected layer over tokens) is that layer applied to the
    average of its input: where the input has fewer channels, the smaller map is averaged. A maximum has to be of the
    output.

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
    [Tap(name='last', width=1280, module='classifier', reads='input', call=-1, parts=('mean',), channel_dim=1)]
    """

    def __init__(
        self,
        network: nn.Module,
        layers: str | int | Sequence[str] = "auto",
        activation: str = "pre",
        class_layers: Sequence[str] | None = None,
        chunk_size: int | None = None,
        pooling: str = "mean",
        leave_out: Collection[str] | None = None,
    ) -> None:
        self.network = network
        self.taps: list[Tap] | None = None
        self.table: LayerTable | None = None
        # where a map is read for its maximum the mean is next to nothing
        ways = POOLINGS[pooling] if leave_out is None or pooling == "mean" else POOLINGS["mean+max"]
        self._chunk_size, self._ways, self._pooling, self._leave_out = chunk_size, ways, pooling, leave_out
        self._layers, self._activation, self._class_layers = layers, activation, class_layers
        self._modules = {name: module for name, module in network.named_modules() if name}
        self._blocks = find_blocks(network)
        self._check_names()
        # the taps behind an activation function, or at the input of an average, by the number of that call
        self._calls: dict[int, Tap] = {}
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
            known = [
                name for name, module in self._modules.items() if isinstance(module, _LAYERS) or name in self._blocks
            ]
            try:
                matches = any(re.fullmatch(layers, name) for name in known)
            except re.error as error:
                raise ValueError(f"layers={layers!r} is not a regular expression: {error}") from error
            if not matches:
                raise ValueError(
                    f"layers={layers!r} matches no convolution and no fully connected layer; "
                    f"{did_you_mean(layers, known)}"
                )

    @property
    def columns(self) -> list[tuple[Column, int]]:
        """What is read side by side, and its width, of a reader with `leave_out` after the first batch."""
        return [(Column(tap.name, part), tap.width) for tap in self.taps or [] for part in tap.parts]

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
        with no_autocast(pixels.device):
            places = [(tap, part) for tap in self.taps or [] for part in tap.parts]
            finished = [self._finished(*place, values) for place, values in zip(places, columns, strict=True)]
            return torch.cat(finished, dim=1)

    def _read(self, pixels: Tensor, keeps_maps: bool = False) -> list[Tensor]:
        """Run the network once; return what the hooks took, one tensor for each part of each tap."""
        if self.taps is None:
            with self._finding:
                # asked again: another thread may have found them while this one waited
                if self.taps is None:
                    return self._find(pixels)
        reading = _Reading(self._calls, self._modules, self._ways, pixels.shape[0], keeps_maps)
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
                reading.take(tap.name, reading.pooled(answer, _channel_dim(None, answer)))
            # what is missing here would shift all columns behind it
            if not set(tap.parts) <= values.get(tap.name, {}).keys():
                raise RuntimeError(f"layer {tap.name!r} did not run as before; the network changes between calls")
        return [values[tap.name][part] for tap in self.taps for part in tap.parts]

    def of_a_copy(self) -> "TapReader":
        """Return a reader with the same taps of a copy of the network: entered for good, and nobody else runs it.

        Whoever traces a network puts other things into the places of its weights for a while.
        """
        other = copy.copy(self)
        other.network = copy.deepcopy(self.network)
        other._modules = {name: module for name, module in other.network.named_modules() if name}
        other._thread = local()
        return other.__enter__()

    def read_maps(self, pixels: Tensor) -> list[tuple[Tap, str, Tensor]]:
        """Run the network once; return tap, part, and what is read there: maps (n, c, h, w) before they are pooled.

        What is no map comes as `__call__` has it, float32 (n, width). To trace a network, once its taps are known.
        """
        if self.taps is None:
            raise RuntimeError("the taps are not known before the first batch")
        values = self._read(pixels, keeps_maps=True)
        places = [(tap, part) for tap in self.taps for part in tap.parts]
        return [
            (tap, part, value if value.ndim == 4 else self._finished(tap, part, value))
            for (tap, part), value in zip(places, values, strict=True)
        ]

    def _find(self, pixels: Tensor) -> list[Tensor]:
        """Run the network for the first time: find the taps, and return what they read."""
        # what can be read shows only where both are
        ways = self._ways if self._leave_out is None else POOLINGS["mean+max"]
        first = _FirstPass(
            self.network, self._modules, self._blocks, self._layers, self._activation, self._class_layers, ways
        )
        if self._leave_out is None:
            found = first.run(pixels)
        else:
            found, self.table = first.run_for_all(pixels, self._pooling, self._ways, self._leave_out)
        taps = [tap for tap, _ in found]
        values = [parts[part] for tap, parts in found for part in tap.parts]
        # The block was entered before anybody knew where to read; from the next batch on these hooks do. No other
        # thread runs the network meanwhile: all wait for the taps, which are made known last.
        self._calls = {tap.call: tap for tap in taps if tap.call >= 0}
        self._attach(self._stack or ExitStack(), taps)
        self.taps = taps
        return values

    def _finished(self, tap: Tap, part: str, values: Tensor) -> Tensor:
        """Apply a layer to the average of its input, if that is what was read."""
        # _average_output reads the input of a layer only where it is narrower: the width tells which of the two it is
        if part != "mean" or values.shape[1] == tap.width:
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
        block = self._blocks.get(name)

        def read(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            reading = getattr(self._thread, "reading", None)
            if reading is None:
                return
            # pooling calls torch functions of its own, which are not the network's
            reading.watcher.paused = True
            parts = None if block is None else block.pooled(output, reading.n_rows, self._ways)
            if parts is None:
                # the mean of a whole map is that of what leads there: where it is taken, the map tells as well
                is_map = reading.keeps_maps and _channel_dim(module, output) == 1 and output.ndim == 4
                parts = reading.pooled(output, 1) if is_map else _pooled_output(module, args[0], output, self._ways)
            reading.take(name, parts)
            reading.watcher.paused = False

        return read

    def _pre_hook(self, name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def read(module: nn.Module, args: tuple[Any, ...]) -> None:
            reading = getattr(self._thread, "reading", None)
            if reading is None:
                return
            reading.watcher.paused = True
            reading.take(name, reading.pooled(args[0], _channel_dim(module, args[0])))
            reading.watcher.paused = False

        return read


class _Reading:
    """One pass of one thread through the network.

    Parameters
    ----------
    calls : dict of int to Tap
        The taps behind an activation function, or at the input of an average, by the number of that call.
    modules : dict of str to Module
    ways : sequence of {"mean", "max"}
    n_rows : int
        Pictures that pass.
    keeps_maps : bool, default=False
        Whether maps are taken as they are, copied, since what comes next may change them in place.

    Attributes
    ----------
    values : dict of str to dict of str to Tensor
        By tap and part.
    """

    def __init__(
        self,
        calls: dict[int, Tap],
        modules: dict[str, nn.Module],
        ways: Sequence[str],
        n_rows: int,
        keeps_maps: bool = False,
    ) -> None:
        self.n_rows, self.keeps_maps = n_rows, keeps_maps
        self.values: dict[str, dict[str, Tensor]] = {}
        self.watcher = _Watcher(self._see_call)
        self._calls, self._modules, self._ways = calls, modules, ways

    def take(self, name: str, parts: dict[str, Tensor]) -> None:
        """Take parts of a tap, in the place of what it read when it ran before."""
        self.values.setdefault(name, {}).update(parts)

    def pooled(self, value: Tensor, channel_dim: int, ways: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Pool over positions, or take a map as it is for each of the ways."""
        ways = self._ways if ways is None else ways
        if self.keeps_maps and value.ndim == 4 and channel_dim == 1:
            return dict.fromkeys(ways, value.clone())
        return pooled(value, channel_dim, ways)

    def _see_call(self, call: int, function: str, given: Any, answer: Any) -> None:
        tap = self._calls.get(call)
        if tap is None:
            return
        if tap.reads == "call" and function in _ACTIVATIONS:
            self.take(tap.name, self.pooled(answer, _channel_dim(self._modules[tap.module], answer)))
        elif tap.reads == "input" and function in _AVERAGES:
            self.take(tap.name, self.pooled(given, tap.channel_dim, ("max",)))


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
        blocks: dict[str, Block],
        layers: str | int | Sequence[str],
        activation: str,
        class_layers: Sequence[str] | None,
        ways: Sequence[str],
    ) -> None:
        self._network, self._modules, self._ways = network, modules, ways
        self._blocks, self._has_windows = blocks, False
        self._n_rows = 0
        self._layers, self._post, self._class_layers = layers, activation == "post", class_layers
        self._is_last = isinstance(layers, str) and layers == "last"
        self._keeps_inputs = self._is_last
        # Of maps only what is pooled is kept, and weak references to know them again: strong ones would keep the
        # maps of the whole network in memory at once.
        self._outputs: dict[str, dict[str, Tensor]] = {}  # parts, by module, in the order in which they ran
        self._widths: dict[str, int] = {}
        self._inputs: dict[str, dict[str, Tensor]] = {}
        self._answers: dict[str, weakref.ref[Tensor]] = {}  # outputs of layers
        self._activations: dict[str, tuple[int, dict[str, Tensor]]] = {}  # by layer, the call and its parts
        self._waiting: dict[int, tuple[str, weakref.ref[Tensor]]] = {}  # by id, what waits for its activation
        self._averages: list[tuple[int, int, dict[str, Tensor]]] = []  # calls that average, channel_dim, parts
        self._watcher = _Watcher(self._see)

    def run(self, pixels: Tensor) -> list[tuple[Tap, dict[str, Tensor]]]:
        """Return the taps, each with its parts."""
        answer = self._run(pixels, watches=self._post or (self._is_last and "max" in self._ways))
        return [self._last(answer, self._ways)] if self._is_last else [self._tap(name) for name in self._chosen()]

    def run_for_all(
        self, pixels: Tensor, pooling: str, ways: Sequence[str], leave_out: Collection[str]
    ) -> tuple[list[tuple[Tap, dict[str, Tensor]]], LayerTable]:
        """Return the taps of all that is worth keeping, each with its parts, and what can be read."""
        self._keeps_inputs = True
        answer = self._run(pixels, watches=True)
        # which may be an error, as it is without a cache
        chosen = [] if self._is_last else self._chosen()
        last = self._last(answer, POOLINGS[pooling]) if self._is_last else None
        table = self._table(answer)
        found = []
        for name in dict.fromkeys((*table.auto, *chosen)):
            parts = self._outputs[name]
            found.append((Tap(name, self._widths[name], name, parts=tuple(parts)), parts))
            if name in self._activations:
                call, parts = self._activations[name]
                found.append((Tap(behind(name), _width(parts), name, "call", call, tuple(parts)), parts))
        if table.last is not None:
            found.append(last or self._last(answer, table.last.parts))
            found[-1] = (replace(found[-1][0], name=LAST), found[-1][1])
        return [(_narrowed(tap, ways), parts) for tap, parts in found if tap.name not in leave_out], table

    def _table(self, answer: Any) -> LayerTable:
        readable = {
            name: Readable(self._widths[name], tuple(parts), name in self._activations)
            for name, parts in self._outputs.items()
        }
        last = None
        for ways in (POOLINGS["mean+max"], POOLINGS["mean"]):
            try:
                tap, _ = self._last(answer, ways)
            except ValueError:  # nobody has asked for it
                continue
            last = Readable(tap.width, tap.parts)
            break
        return LayerTable(tuple(self._hidden()), (*self._answers, *self._blocks_read()), readable, last)

    def _run(self, pixels: Tensor, watches: bool) -> Any:
        named = () if isinstance(self._layers, str | int) else self._layers
        self._n_rows = len(pixels)
        with ExitStack() as stack:
            for name, module in self._modules.items():
                if name in named or name in self._blocks or isinstance(module, _LAYERS):
                    stack.enter_context(module.register_forward_hook(self._hook(name, name in named)))
            if watches:
                stack.enter_context(self._watcher)
            answer = self._network(pixels)
        # the very same tensor: behind a softmax or a pool, the last layer is not known as a class layer
        if self._class_layers is None:
            self._class_layers = [name for name, output in self._answers.items() if output() is answer]
        return answer

    def _hook(self, name: str, is_named: bool) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        block = self._blocks.get(name)

        def note(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            self._watcher.paused = True
            # a module that runs again moves to where it ran last
            self._outputs.pop(name, None)
            parts = None if block is None else block.pooled(output, self._n_rows, self._ways)
            if parts is not None:
                self._outputs[name], self._widths[name] = parts, _width(parts)
            elif block is None or is_named:
                self._note_layer(name, module, args, output, is_named)
            else:
                # rows, of a class layer with a norm for one, are no block's, and leave the others what they are
                self._has_windows |= not isinstance(output, Tensor) or output.ndim > 2
            self._watcher.paused = False

        return note

    def _note_layer(self, name: str, module: nn.Module, args: tuple[Any, ...], output: Any, is_named: bool) -> None:
        if not isinstance(output, Tensor) or output.ndim < 2:
            raise ValueError(f"layer {name!r} answers no tensor with a row for each picture")
        # one over windows is read only where it is asked for
        if len(output) != self._n_rows and not is_named:
            return
        self._outputs[name] = _pooled_output(module, args[0], output, self._ways)
        self._widths[name] = output.shape[_channel_dim(module, output)]
        if isinstance(module, _LAYERS):
            self._answers[name] = weakref.ref(output)
            self._waiting[id(output)] = (name, self._answers[name])
            if self._keeps_inputs:
                self._inputs[name] = pooled(args[0], _channel_dim(module, args[0]), self._ways)

    def _see(self, call: int, function: str, given: Any, answer: Any) -> None:
        if self._keeps_inputs and function in _AVERAGES:
            self._note_average(call, given, answer)
        name, waiting = self._waiting.get(id(given), ("", None))
        # an id comes again once its tensor is gone
        if waiting is None or waiting() is not given:
            return
        if function in _ACTIVATIONS:
            parts = pooled(answer, _channel_dim(self._modules[name], answer), self._ways)
            self._activations[name] = (call, parts)
            del self._waiting[id(given)]
        elif function in _TRANSPARENT:
            self._waiting[id(answer)] = (name, weakref.ref(answer))
        elif answer is given:  # changed in place, by a residual sum for one: no longer this layer's alone
            del self._waiting[id(given)]

    def _note_average(self, call: int, given: Any, answer: Any) -> None:
        """Note a function that averages a map over all of its positions: the class layer may be given its answer."""
        if isinstance(given, Tensor) and isinstance(answer, Tensor) and given.ndim > 2:
            for channel_dim in (1, -1):
                if answer.numel() == len(given) * given.shape[channel_dim]:
                    self._averages.append((call, channel_dim, pooled(given, channel_dim, ("mean", "max"))))

    def _chosen(self) -> Sequence[str]:
        layers = self._layers
        if not isinstance(layers, str | int):
            idle = [name for name in layers if name not in self._outputs]
            if idle:
                raise ValueError(f"layer {idle[0]!r} does not run; {did_you_mean(idle[0], self._outputs)}")
            return layers
        hidden = self._hidden()
        if isinstance(layers, str) and layers != "auto":
            # class layers too: an expression says itself which layers it means
            hidden = [name for name in (*self._answers, *self._blocks_read()) if re.fullmatch(layers, name)]
        if not hidden:
            raise ValueError(
                "no convolution and no fully connected layer runs below the class layer; name modules in a list"
            )
        if isinstance(layers, int) and layers > len(hidden):
            raise ValueError(f"layers={layers}, but the network has {len(hidden)} layers below its class layer")
        return hidden[-layers:] if isinstance(layers, int) else hidden

    def _hidden(self) -> list[str]:
        """Return what "auto" reads."""
        class_layers = self._class_layers or ()
        return self._blocks_read() or [name for name in self._answers if name not in class_layers]

    def _blocks_read(self) -> list[str]:
        # a block that sees windows has no rows of pictures: its network is read by layers
        return [] if self._has_windows else [name for name in self._outputs if name in self._blocks]

    def _tap(self, name: str) -> tuple[Tap, dict[str, Tensor]]:
        if self._post and name in self._activations:
            call, parts = self._activations[name]
            return Tap(name, _width(parts), name, "call", call, tuple(parts)), parts
        parts = self._outputs[name]
        return Tap(name, self._widths[name], name, parts=tuple(parts)), parts

    def _last(self, answer: Any, ways: Sequence[str]) -> tuple[Tap, dict[str, Tensor]]:
        module = self._class_layers[0] if self._class_layers else ""
        if not module and not (isinstance(answer, Tensor) and answer.ndim > 1):
            raise ValueError("layers='last' needs a network that answers a tensor with a row for each picture")
        parts = self._inputs[module] if module else pooled(answer, _channel_dim(None, answer), self._ways)
        if "max" in parts or "max" not in ways:
            return Tap("last", _width(parts), module, "input", parts=tuple(parts)), parts
        # rows: those of a map that was averaged before
        call, channel_dim, maximum = self._average_behind(parts["mean"])
        parts = {**parts, "max": maximum}
        return Tap("last", _width(parts), module, "input", call, tuple(ways), channel_dim), parts

    def _average_behind(self, rows: Tensor) -> tuple[int, int, Tensor]:
        """Return the call that made these rows by averaging a map, where its channels are, and its maximum."""
        for call, channel_dim, parts in reversed(self._averages):
            mean = parts["mean"]
            if mean.shape == rows.shape and (mean - rows).norm() <= _SAME_AVERAGE * rows.norm():
                return call, channel_dim, parts["max"]
        raise ValueError(
            "layers='last' has no maximum: what the class layer of this network is given is not a map averaged over "
            "space. Use pooling='mean', or name the module whose maps are to be read"
        )


def _narrowed(tap: Tap, ways: Sequence[str]) -> Tap:
    """Return a tap that reads these ways alone; what has no positions is read as its mean."""
    parts = tuple(part for part in tap.parts if part == "class" or part in ways)
    # that call is of the map of a class layer's input, which is read for its maximum
    return (
        replace(tap, parts=parts, call=-1) if tap.reads == "input" and "max" not in parts else replace(tap, parts=parts)
    )


def _width(parts: dict[str, Tensor]) -> int:
    return next(iter(parts.values())).shape[1]


def _channel_dim(module: nn.Module | None, value: Tensor) -> int:
    """Return 1 where the channels come right behind the rows (maps), -1 where they come last (tokens)."""
    return -1 if isinstance(module, nn.Linear) or value.ndim == 3 else 1


def _pooled_output(module: nn.Module, given: Tensor, output: Tensor, ways: Sequence[str]) -> dict[str, Tensor]:
    """Pool a module's output over space; the mean is that of its input where that is less to read and leads there."""
    channel_dim = _channel_dim(module, output)
    # a mean and a linear map may change places; on rows there is no mean to save
    if output.ndim == 2 or not _is_pointwise(module) or given.shape[channel_dim] >= output.shape[channel_dim]:
        return pooled(output, channel_dim, ways)
    if isinstance(module, nn.Conv2d):
        # a stride skips positions, which then have no part in the mean
        given = given[:, :, :: module.stride[0], :: module.stride[1]]
    return {way: pooled(given if way == "mean" else output, channel_dim, (way,))[way] for way in ways}


def _is_pointwise(module: nn.Module) -> bool:
    """Whether the module is one linear map applied at every position, exactly as torch computes it."""
    # the class itself: a subclass may do more than its layer
    if type(module) is nn.Linear:
        return True
    if type(module) is nn.Conv2d or type(module) is SameConv2d:
        # zeros padded around a map would take part in the mean of the output, not in that of the input
        return module.kernel_size == (1, 1) and module.groups == 1 and module.padding in ((0, 0), "valid")
    return False
