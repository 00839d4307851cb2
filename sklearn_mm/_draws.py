"""What torch draws at random comes from generators of the thread's own, not from those of the process."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Lock, local
from types import MappingProxyType, TracebackType
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn import init
from torch.overrides import TorchFunctionMode, _get_current_function_mode
from torch.utils import checkpoint
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["OwnDraws", "RecordedDraws", "generator_of", "nothing_drawn"]

_INNERMOST = local()  # .draws: the OwnDraws that this thread is in, if it is in one
_SWAPPING = Lock()


class OwnDraws(TorchFunctionMode):
    """Inside the ``with`` block, torch draws from these generators, in this thread alone.

    Parameters
    ----------
    seed : int
        Of the generator of each device: the numbers are those that torch gives after ``torch.manual_seed(seed)``.

    Notes
    -----
    torch's own generators are one for each device and process: threads that draw from them at once disturb each other,
    and whoever seeds them changes what everybody else draws. Here every torch function that draws is given a generator;
    what draws inside of another function (dropout in a recurrent network) is found operator by operator. TorchScript
    is not seen into.

    Raises
    ------
    RuntimeError
        Something is drawn inside of a gradient checkpoint: torch would restore the generators of the process to
        compute it again, draw other numbers than before, and get a wrong gradient without a word.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._seed = seed
        self._generators: dict[torch.device, torch.Generator] = {}
        self._outer: OwnDraws | None = None

    def generator(self, device: torch.device) -> torch.Generator:
        """Return the generator of a device, to draw from."""
        if _is_in_gradient_checkpoint():
            raise RuntimeError(
                "the network draws random numbers (dropout, for one) inside of a gradient checkpoint, and torch would "
                "draw others when it computes that part again; turn gradient checkpointing off, or the dropout in it"
            )
        found = self._generators.get(device)
        if found is None:
            # a tensor's device has a number, "cuda" alone has none
            device = torch.empty(0, device=device).device
            if device not in self._generators:
                self._generators[device] = torch.Generator(device).manual_seed(self._seed)
            found = self._generators[device]
        return found

    def __enter__(self) -> Self:
        super().__enter__()  # type: ignore[no-untyped-call]  # torch's has no types
        self._outer, _INNERMOST.draws = _innermost(), self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _INNERMOST.draws = self._outer
        super().__exit__(kind, error, trace)  # type: ignore[no-untyped-call]

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        # Called for every torch function and attribute: nothing more than a look for those that do not draw.
        draw = _DRAWN_BY.get(func)
        # what an inner one has given its generator to comes through those around it too
        if draw is None or _INNERMOST.draws is not self:
            return func(*args, **kwargs) if kwargs else func(*args)
        return draw(self, func, args, kwargs or {})


def _is_in_gradient_checkpoint() -> bool:
    # Of its two kinds one watches the tensors that are saved, the other turns the gradient off: the stack is asked only
    # where either is so.
    if torch.is_grad_enabled() and torch._C._autograd._top_saved_tensors_default_hooks(True) is None:
        return False
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        if frame.f_code.co_filename == checkpoint.__file__:
            return True
    return False


def _innermost() -> OwnDraws | None:
    return getattr(_INNERMOST, "draws", None)


def generator_of(device: torch.device) -> torch.Generator:
    """Return what torch draws from in this thread: a generator of the innermost `OwnDraws`, or torch's own."""
    draws = _innermost()
    return _of_the_process(device) if draws is None else draws.generator(device)


def _of_the_process(device: torch.device) -> torch.Generator:
    if device.type == "cuda":
        torch.cuda.init()  # type: ignore[no-untyped-call]
        index = torch.cuda.current_device() if device.index is None else device.index
        generator: torch.Generator = torch.cuda.default_generators[index]
        return generator
    return torch.default_generator


class RecordedDraws:
    """Where this thread's generators stand, to draw the same numbers again later, in any thread.

    Parameters
    ----------
    device : torch.device
        On which numbers are drawn; those on the CPU are recorded beside it.
    """

    def __init__(self, device: torch.device) -> None:
        devices = {device, torch.device("cpu")}
        self._states = {device: generator_of(device).get_state() for device in devices}

    def again(self) -> OwnDraws:
        """Return what draws the same numbers inside of a ``with`` block; those drawn from outside of it stand still."""
        draws = OwnDraws(0)
        for device, state in self._states.items():
            draws.generator(device).set_state(state)
        return draws


@contextmanager
def nothing_drawn() -> Iterator[None]:
    """Leave the innermost `OwnDraws` for a while: a detour for each torch function is spared where nothing is drawn."""
    draws = _innermost()
    # A mode is left in the order in which modes are entered: under another one it stays.
    if draws is None or _get_current_function_mode() is not draws:  # type: ignore[no-untyped-call]
        yield
        return
    TorchFunctionMode.__exit__(draws, None, None, None)  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        TorchFunctionMode.__enter__(draws)  # type: ignore[no-untyped-call]


# How each function is given the generator --------------------------------------------------------------------------

_Draw = Callable[[OwnDraws, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


def _device_of(args: Sequence[Any], kwargs: Mapping[str, Any]) -> torch.device:
    """Return the device on which something is drawn."""
    if kwargs.get("device") is not None:
        return torch.device(kwargs["device"])
    tensors = (value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
    tensor = next(tensors, None)
    return torch.get_default_device() if tensor is None else tensor.device


def _given(draws: OwnDraws, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call a function that takes a generator; one that is given by whoever called stays."""
    if kwargs.get("generator") is None:
        device = _device_of(args, kwargs)
        if device.type != "meta":  # where nothing is drawn
            kwargs = {**kwargs, "generator": draws.generator(device)}
    return func(*args, **kwargs)


def _dropout(draws: OwnDraws, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Drop as torch does, to the bit: `torch.nn.functional.dropout` takes no generator."""
    return _dropped(draws, *args, **kwargs)


def _dropped(draws: OwnDraws, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    device = input.device
    if not training or not 0 < p < 1 or not input.numel() or device.type == "meta":
        return F.dropout(input, p, training, inplace)
    if device.type == "cuda" and not inplace:
        # the kernel of torch's own dropout
        dropped: Tensor = torch._fused_dropout(input, 1 - p, generator=draws.generator(device))[0]
        return dropped
    noise = torch.empty_like(input).bernoulli_(1 - p, generator=draws.generator(device)).div_(1 - p)
    if inplace:
        return input.mul_(noise)
    # where no gradient asks for the noise again, its memory becomes the answer's
    return input * noise if input.requires_grad else noise.mul_(input)


def _found_inside(draws: OwnDraws, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call a function that draws inside, and takes no generator."""
    with _OperatorDraws(draws):
        return func(*args, **kwargs)


def _recurrent(draws: OwnDraws, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    # A step at a time would go through Python: only where layers have dropout between them. Of packed sequences the
    # sizes of batches come second, and all others one place later.
    dropout, training = args[5:7] if isinstance(args[3], bool) else args[6:8]
    return _found_inside(draws, func, args, kwargs) if training and dropout else func(*args, **kwargs)


def _attention(draws: OwnDraws, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    dropout = args[4] if len(args) > 4 else kwargs.get("dropout_p", 0.0)
    return _found_inside(draws, func, args, kwargs) if dropout else func(*args, **kwargs)


class _OperatorDraws(TorchDispatchMode):
    """Gives the generators to the operators that a torch function is made of."""

    def __init__(self, draws: OwnDraws) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._draws = draws

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        # without a gradient, functions come here before torch has taken them apart
        if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"):
            with self:
                return func.decompose(*args, **kwargs)
        if torch.Tag.nondeterministic_seeded not in func.tags or kwargs.get("generator") is not None:
            return func(*args, **kwargs)
        device = _device_of(args, kwargs)
        if device.type == "meta":
            return func(*args, **kwargs)
        packet = func.overloadpacket
        overloads = [getattr(packet, name) for name in packet.overloads()]
        if any(argument.name == "generator" for each in overloads for argument in each._schema.arguments):
            return packet(*args, **kwargs, generator=self._draws.generator(device))
        return _with_swapped_state(self._draws.generator(device), device, func, args, kwargs)


def _with_swapped_state(
    generator: torch.Generator, device: torch.device, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Call an operator that draws from the generator of the process alone (fused attention): it is lent our state."""
    shared = _of_the_process(device)
    with _SWAPPING:
        before = shared.get_state()
        shared.set_state(generator.get_state())
        try:
            return func(*args, **kwargs)
        finally:
            generator.set_state(shared.get_state())
            shared.set_state(before)


def _table() -> Iterator[tuple[Callable[..., Any], _Draw]]:
    methods = (
        "bernoulli", "bernoulli_", "cauchy_", "exponential_", "geometric_", "log_normal_", "multinomial", "normal_",
        "random_", "uniform_",
    )  # fmt: skip
    yield from ((getattr(Tensor, name), _given) for name in methods)
    functions = (
        "bernoulli", "binomial", "multinomial", "normal", "poisson", "rand", "randint", "randn", "randperm",
    )  # fmt: skip
    yield from ((getattr(torch, name), _given) for name in functions)
    # of nn.init those that are seen as a whole; the others are seen as the methods that they call
    yield from ((getattr(init, name), _given) for name in ("kaiming_uniform_", "normal_", "uniform_"))
    yield F.dropout, _dropout
    inside = (
        "_fused_dropout", "_sample_dirichlet", "_standard_gamma", "alpha_dropout", "alpha_dropout_", "dropout",
        "dropout_", "feature_alpha_dropout", "feature_alpha_dropout_", "feature_dropout", "feature_dropout_",
        "native_dropout", "pca_lowrank", "rand_like", "randint_like", "randn_like", "rrelu", "rrelu_", "svd_lowrank",
    )  # fmt: skip
    yield from ((getattr(torch, name), _found_inside) for name in inside)
    layers = (
        "alpha_dropout", "dropout1d", "dropout2d", "dropout3d", "feature_alpha_dropout",
        "fractional_max_pool2d", "fractional_max_pool2d_with_indices", "fractional_max_pool3d",
        "fractional_max_pool3d_with_indices", "gumbel_softmax",
        "multi_head_attention_forward", "rrelu",
    )  # fmt: skip
    yield from ((getattr(F, name), _found_inside) for name in layers)
    yield from ((getattr(torch, name), _recurrent) for name in ("gru", "lstm", "rnn_relu", "rnn_tanh"))
    yield F.scaled_dot_product_attention, _attention


_DRAWN_BY: Mapping[Callable[..., Any], _Draw] = MappingProxyType(dict(_table()))
