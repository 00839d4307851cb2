"""The first pass of pictures through a network with taps: it shows what runs, and where to read from then on."""

import re
import weakref
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from sklearn_mm._checks import did_you_mean
from sklearn_mm.nn.blocks import Block
from sklearn_mm.nn.layer_table import LAST, LayerTable, Readable, behind
from sklearn_mm.nn.pooling import POOLINGS, pooled
from sklearn_mm.nn.taps._tap import ACTIVATIONS, AVERAGES, LAYERS, CallWatcher, Tap, channel_dim_of, pooled_output

__all__ = ["FirstPass"]

_TRANSPARENT = {"batch_norm", "group_norm", "instance_norm", "dropout"}  # may stand before an activation function
_SAME_AVERAGE = 0.02  # of its norm: how far a network's own average, in half precision, may be from the exact one


class FirstPass:
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
        shown: Sequence[str] = (),
    ) -> None:
        self._network, self._modules, self._ways = network, modules, ways
        self._shown = shown  # ways that could be read and are not: of the first picture, to see where there are any
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
        self._watcher = CallWatcher(self._see)

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
                if name in named or name in self._blocks or isinstance(module, LAYERS):
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
            parts = None if block is None else block.pooled(output, self._n_rows, (*self._ways, *self._shown))
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
        self._outputs[name] = self._parts(lambda rows, ways: pooled_output(module, args[0][rows], output[rows], ways))
        self._widths[name] = output.shape[channel_dim_of(module, output)]
        if isinstance(module, LAYERS):
            self._answers[name] = weakref.ref(output)
            self._waiting[id(output)] = (name, self._answers[name])
            # what is known to be no class layer is given nothing that is asked for
            if self._keeps_inputs and (self._class_layers is None or name in self._class_layers):
                channel_dim = channel_dim_of(module, args[0])
                self._inputs[name] = self._parts(lambda rows, ways: pooled(args[0][rows], channel_dim, ways))

    def _parts(self, pool: Callable[[slice, Sequence[str]], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Pool all rows as they are to be read, and the first one in the other ways."""
        parts = pool(slice(None), self._ways)
        if self._shown:
            for way, value in pool(slice(1), self._shown).items():
                parts.setdefault(way, value)
        return parts

    def _see(self, call: int, function: str, given: Any, answer: Any) -> None:
        if self._keeps_inputs and function in AVERAGES:
            self._note_average(call, given, answer)
        name, waiting = self._waiting.get(id(given), ("", None))
        # an id comes again once its tensor is gone
        if waiting is None or waiting() is not given:
            return
        if function in ACTIVATIONS:
            channel_dim = channel_dim_of(self._modules[name], answer)
            parts = self._parts(lambda rows, ways: pooled(answer[rows], channel_dim, ways))
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
        ways_read = (*self._ways, *self._shown)
        parts = self._inputs[module] if module else pooled(answer, channel_dim_of(None, answer), ways_read)
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
