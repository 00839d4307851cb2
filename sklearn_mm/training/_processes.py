"""Several processes that train one model together, under `torchrun` or whatever else has set torch.distributed up."""

import atexit
import multiprocessing
import os
import platform
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from inspect import signature
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from sklearn_mm._content import UndigestibleError, content_digest
from sklearn_mm._device import generator_of

__all__ = ["ALONE", "Processes", "join_processes"]

Value = TypeVar("Value")

# A process that ends closes its connections, which is seen at once. This is for one that stands still, or whose machine
# is gone without a word: above what one may take longer than another to read its pictures or to write a checkpoint.
_BUFFERS_APART: dict[str, Any] = (
    {"forward_sync_buffers": False}  # its name since torch 2.14
    if "forward_sync_buffers" in signature(DistributedDataParallel).parameters
    else {"broadcast_buffers": False}
)
_TIMEOUT = timedelta(minutes=10)


@dataclass(frozen=True)
class Processes:
    """The processes of one training, as one of them sees them. All of them call each method, in the same order.

    Attributes
    ----------
    rank : int
        Which of them this is.
    n : int
        How many there are; of one nothing is asked, and nothing is changed.
    tensors, objects : ProcessGroup or None
        For tensors on the device of training, and for anything else.
    """

    rank: int = 0
    n: int = 1
    tensors: Any = None
    objects: Any = None

    @property
    def identity(self) -> tuple[str, ...]:
        """What tells a run from one of another number of processes, where there are several."""
        return () if self.n == 1 else (f"{self.n} processes",)

    # What is whose ------------------------------------------------------------------------------------------------

    def shares(self, n_rows: int) -> list[slice]:
        """Deal rows out: each process's own, one after the other, as even as they can be."""
        return [slice(*pair) for pair in pairwise(n_rows * number // self.n for number in range(self.n + 1))]

    def check_enough(self, n_rows: int) -> None:
        """Check that each process can have a row of every batch.

        Raises
        ------
        ValueError
            There are fewer rows than processes.
        """
        if n_rows < self.n:
            raise ValueError(
                f"expected at least one image for each of the {self.n} processes, got {n_rows} to train on; start fewer"
            )

    def own_draws(self, rng: np.random.Generator) -> np.random.Generator:
        """Return what this process draws from for its own rows: `rng` itself, if it is alone.

        What `rng` draws is the same with any number of processes: the others are seeded by what it would draw next.
        """
        return rng if self.n == 1 else np.random.default_rng([self._next_of(rng), self.rank])

    def seed_torch(self, rng: np.random.Generator, device: torch.device) -> None:
        """Let this process's torch draw numbers of its own (dropout) until `common_draws` ends."""
        if self.n > 1:
            for each in {device, torch.device("cpu")}:
                generator_of(each).manual_seed((self._next_of(rng) + 1 + self.rank) % 2**63)

    @contextmanager
    def common_draws(self, device: torch.device) -> Iterator[None]:
        """Put torch's generators back after the block, whatever each process has drawn: what follows is common."""
        if self.n == 1:
            yield
            return
        before = {each: generator_of(each).get_state() for each in {device, torch.device("cpu")}}
        yield
        for each, state in before.items():
            generator_of(each).set_state(state)

    @staticmethod
    def _next_of(rng: np.random.Generator) -> int:
        return int(deepcopy(rng).integers(2**62))

    # What they tell each other ------------------------------------------------------------------------------------

    def of_first(self, compute: Callable[[], Value]) -> Value:
        """Return, or raise, what the first process computes; the others wait for it."""
        if self.n == 1:
            return compute()
        told: list[Any] = [None, None]
        if self.rank == 0:
            try:
                told = [compute(), None]
            except Exception as error:  # raised by all of them, below
                told = [None, error]
        with self._reaching():
            dist.broadcast_object_list(told, src=0, group=self.objects)
        if told[1] is not None:
            raise told[1]
        value: Value = told[0]
        return value

    def agreed(self, value: Value) -> Value:
        """Return the first process's value."""
        return self.of_first(lambda: value)

    def agree(self, random_state: np.random.RandomState) -> np.random.RandomState:
        """Bring a random state to where that of the first process stands."""
        if self.n > 1:
            random_state.set_state(self.agreed(random_state.get_state()))
        return random_state

    def check_alike(self, parts: Mapping[str, Any]) -> None:
        """Compare what the processes were given, by content.

        Raises
        ------
        ValueError
            In all of them: a part is not the same everywhere. The message names it, and the process.
        """
        if self.n == 1:
            return
        told = self._of_all({name: _digest(part) for name, part in parts.items()})
        for rank, digests in enumerate(told):
            others = [name for name in told[0] if digests.get(name) != told[0][name]]
            if others:
                raise ValueError(
                    f"expected the same {' and '.join(others)} in all {self.n} processes, got another in process "
                    f"{rank} than in process 0; give each process all of the data (every batch is shared out between "
                    "them), in the same order, and the same parameters"
                )

    def check_devices(self, device: torch.device) -> None:
        """Compare where the processes compute: two on one GPU would wait for each other for ever.

        Raises
        ------
        ValueError
            In all of them.
        """
        if self.n == 1:
            return
        told = self._of_all((platform.node(), str(device)))
        kinds = {torch.device(name).type for _, name in told}
        if len(kinds) > 1:
            raise ValueError(f"expected one kind of device in all processes, got {', '.join(sorted(kinds))}")
        if device.type == "cuda" and len(set(told)) < self.n:
            raise ValueError(
                f"expected a GPU for each of the {self.n} processes, got {sorted(told)}; leave device='auto', which "
                "takes the one of LOCAL_RANK, and start no more processes than there are GPUs"
            )

    def _of_all(self, value: Any) -> list[Any]:
        told: list[Any] = [None] * self.n
        with self._reaching():
            dist.all_gather_object(told, value, group=self.objects)
        return told

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            lost = self.lost(error)
            if lost is None:
                raise
            raise lost from error

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean of a tensor over the processes."""
        if self.n == 1:
            return value
        total = value.detach().clone()
        dist.all_reduce(total, group=self.tensors)
        return total / self.n

    def first(self, value: Tensor) -> Tensor:
        """Return the first process's tensor, of the same shape everywhere."""
        if self.n > 1:
            value = value.clone()
            dist.broadcast(value, src=0, group=self.tensors)
        return value

    def gather(self, own: Tensor, sizes: Sequence[int]) -> Tensor:
        """Return the rows of all processes, of which this one has `own`: (sum of sizes, d).

        Gradients are those of a loss of all rows that each process computes whole, once parameters have the mean of the
        processes' gradients.
        """
        if self.n == 1 or not sum(sizes):
            return own
        gathered: Tensor = _Gathered.apply(own, tuple(sizes), self)
        return gathered

    # Training -----------------------------------------------------------------------------------------------------

    def wrap(self, model: nn.Module, *, once: bool) -> nn.Module:
        """Return the model such that ``backward()`` leaves mean gradients; with `once` False, `average` does.

        `once` says that a gradient comes to each parameter once in a step: what torch's way relies on.
        """
        if self.n == 1:
            return model
        if not once:
            for tensor in [*model.parameters(), *model.buffers()]:
                dist.broadcast(tensor.detach(), src=0, group=self.tensors)
            return model
        # Buffers are alike after each epoch (`agree_buffers`), and need not be in between. torch says once, in the log,
        # that all parameters have got a gradient; those of another stage, or of a part of a pretrained network, do not.
        return DistributedDataParallel(
            model, **_BUFFERS_APART, find_unused_parameters=True, gradient_as_bucket_view=True
        )

    def average(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace gradients by their means, those that are None in all processes left out."""
        if self.n == 1:
            return
        has = torch.tensor([parameter.grad is not None for parameter in parameters]).int().to(parameters[0].device)
        dist.all_reduce(has, group=self.tensors)
        for parameter, n_with in zip(parameters, has.tolist(), strict=True):
            if n_with:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                dist.all_reduce(parameter.grad, group=self.tensors)
                parameter.grad /= self.n

    def agree_buffers(self, model: nn.Module) -> None:
        """Give all processes the first one's buffers, such as running means that a network keeps in its own way."""
        if self.n > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer.detach(), src=0, group=self.tensors)

    def lost(self, error: RuntimeError, checkpoint: os.PathLike[str] | None = None) -> RuntimeError | None:
        """Return what to raise in the place of an error if it says that another process is out of reach."""
        is_of_torch = isinstance(error, dist.DistError) or "gloo" in str(error) or "Connection" in str(error)
        if self.n == 1 or not is_of_torch or isinstance(error.__cause__, RuntimeError):
            return None
        way_out = "start all of them again; with `checkpoint` set, training would go on from the last epoch"
        if checkpoint is not None:
            way_out = f"start all of them again: training goes on from {checkpoint}"
        return RuntimeError(
            f"another of the {self.n} processes of this training has ended or does not answer (this is process "
            f"{self.rank}); look for its error, and {way_out}"
        )


ALONE = Processes()
"""One process, which trains as if there were no others."""


def join_processes(device: Any = "auto") -> Processes:
    """Return the processes that this one trains with: torch.distributed's, set up from the environment if need be.

    Without `torchrun`, in a worker of a search, or in another than the main thread, a process is alone.

    Parameters
    ----------
    device : str or torch.device
        As an estimator is given it. On CUDA this process's GPU becomes that of its LOCAL_RANK.
    """
    # A worker of joblib inherits the environment of `torchrun`, and is none of its processes.
    is_main = multiprocessing.current_process().name == "MainProcess" and (
        threading.current_thread() is threading.main_thread()
    )
    if not is_main or not dist.is_available():
        return ALONE
    if not dist.is_initialized():
        if not {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= os.environ.keys() or int(os.environ["WORLD_SIZE"]) < 2:
            return ALONE
        _initialize(torch.cuda.is_available() and (str(device) == "auto" or str(device).startswith("cuda")))
    if dist.get_world_size() == 1:
        return ALONE
    return Processes(dist.get_rank(), dist.get_world_size(), *_groups(dist.group.WORLD))


def _initialize(on_cuda: bool) -> None:
    if on_cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_cuda else "gloo", timeout=_TIMEOUT)
    atexit.register(_leave)  # torch warns of a group that was not left


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


@lru_cache(maxsize=1)
def _groups(world: Any) -> tuple[Any, Any]:
    """Return groups of our own: what torch sends while gradients are computed has another order."""
    return dist.new_group(timeout=_TIMEOUT), dist.new_group(timeout=_TIMEOUT, backend="gloo")


def _digest(part: Any) -> str | None:
    try:
        return content_digest(part)
    except UndigestibleError:
        return None  # what cannot be looked into is not compared: no reason not to train


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor, sizes: tuple[int, ...], processes: Processes) -> Tensor:
        start = sum(sizes[: processes.rank])
        ctx.own, ctx.factor = slice(start, start + len(own)), processes.n
        padded = own.new_zeros(max(sizes), *own.shape[1:])  # all have to send tensors of one shape
        padded[: len(own)] = own
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded, group=processes.tensors)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        # Each process has the whole loss, and passes on the gradient of its own rows; the mean over processes, of
        # which each knows a part, has to become a sum.
        return grads[0][ctx.own] * ctx.factor, None, None
