"""A network read through its taps."""

import copy
import re
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack, nullcontext
from threading import Lock, local
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sklearn_mm._checks import did_you_mean
from sklearn_mm.nn.blocks import find_blocks
from sklearn_mm.nn.layer_table import Column, LayerTable
from sklearn_mm.nn.pooling import POOLINGS, no_autocast, pooled
from sklearn_mm.nn.taps._first_pass import FirstPass
from sklearn_mm.nn.taps._tap import ACTIVATIONS, AVERAGES, LAYERS, CallWatcher, Tap, channel_dim_of, pooled_output

__all__ = ["TapReader"]


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
                name for name, module in self._modules.items() if isinstance(module, LAYERS) or name in self._blocks
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
                reading.take(tap.name, reading.pooled(answer, channel_dim_of(None, answer)))
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
        # for a cache it has to show what else could be read; a maximum costs up to a quarter of the pass
        both = POOLINGS["mean+max"] if self._leave_out is not None else ()
        first = FirstPass(
            self.network,
            self._modules,
            self._blocks,
            self._layers,
            self._activation,
            self._class_layers,
            self._ways,
            shown=[way for way in both if way not in self._ways],
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
                is_map = reading.keeps_maps and channel_dim_of(module, output) == 1 and output.ndim == 4
                parts = reading.pooled(output, 1) if is_map else pooled_output(module, args[0], output, self._ways)
            reading.take(name, parts)
            reading.watcher.paused = False

        return read

    def _pre_hook(self, name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def read(module: nn.Module, args: tuple[Any, ...]) -> None:
            reading = getattr(self._thread, "reading", None)
            if reading is None:
                return
            reading.watcher.paused = True
            reading.take(name, reading.pooled(args[0], channel_dim_of(module, args[0])))
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
        self.watcher = CallWatcher(self._see_call)
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
        if tap.reads == "call" and function in ACTIVATIONS:
            self.take(tap.name, self.pooled(answer, channel_dim_of(self._modules[tap.module], answer)))
        elif tap.reads == "input" and function in AVERAGES:
            self.take(tap.name, self.pooled(given, tap.channel_dim, ("max",)))
