"""What a tap is, and what is read of a layer at one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sklearn_mm.nn.lite import SameConv2d
from sklearn_mm.nn.pooling import pooled, pooled_name

__all__ = ["ACTIVATIONS", "AVERAGES", "LAYERS", "CallWatcher", "Tap", "channel_dim_of", "pooled_output"]

# the activation functions, and what averages maps, by torch's names
ACTIVATIONS = {
    "celu", "elu", "gelu", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "mish", "prelu", "relu",
    "relu6", "rrelu", "selu", "sigmoid", "silu", "softplus", "tanh",
}  # fmt: skip
AVERAGES = {"adaptive_avg_pool1d", "adaptive_avg_pool2d", "avg_pool2d", "mean"}
# what "auto" reads; batch norms are no layers of the full-network embedding
LAYERS = (nn.Conv2d, nn.Linear)


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


class CallWatcher(TorchFunctionMode):
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


def channel_dim_of(module: nn.Module | None, value: Tensor) -> int:
    """Return 1 where the channels come right behind the rows (maps), -1 where they come last (tokens)."""
    return -1 if isinstance(module, nn.Linear) or value.ndim == 3 else 1


def pooled_output(module: nn.Module, given: Tensor, output: Tensor, ways: Sequence[str]) -> dict[str, Tensor]:
    """Pool a module's output over space; the mean is that of its input where that is less to read and leads there."""
    channel_dim = channel_dim_of(module, output)
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
