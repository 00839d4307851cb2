"""Where and in which precision torch computes, and how its random numbers are kept apart."""

import multiprocessing
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import Lock, local
from types import SimpleNamespace
from typing import Any

import joblib
import numpy as np
import torch
from sklearn.utils import check_random_state
from torch import Tensor, nn

from sklearn_mm._draws import OwnDraws, RecordedDraws, generator_of, nothing_drawn

__all__ = [
    "RecordedDraws",
    "autocast",
    "forked_rng",
    "generator_from",
    "generator_of",
    "n_threads",
    "nothing_drawn",
    "precision_of",
    "ready_to_copy",
    "resolve_device",
    "resolve_dtype",
    "settle",
    "shared",
    "to_device",
    "torch_threads",
    "tuple_like",
]

_WORKER = re.compile(r"LokyProcess-(\d+)")  # what joblib calls a process of its own
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """Turn the parameter `device` into a torch device; "auto" takes CUDA, then MPS, then the CPU.

    Of several GPUs, without a number, it is torch's current one; in a worker of joblib (a search with `n_jobs`) each
    worker has its own, as long as there are enough.

    Raises
    ------
    ValueError
        The device is unknown to torch, or this machine does not have it.
    """
    if isinstance(device, str) and device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", _gpu_at_hand())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device={device!r} is not a torch device; use 'auto', 'cpu' or 'cuda'") from error
    if resolved.type != "cuda":
        return resolved
    if not torch.cuda.is_available():
        raise ValueError(f"device={device!r}, but torch finds no CUDA device here; use device='auto' or 'cpu'")
    # with its number, as its tensors name it: "cuda" is no "cuda:0", and so nothing would ever be where it belongs
    return torch.device("cuda", _gpu_at_hand() if str(resolved) == "cuda" else resolved.index)


def _gpu_at_hand() -> int:
    worker, n_gpus = _WORKER.fullmatch(multiprocessing.current_process().name), torch.cuda.device_count()
    # A worker that has chosen for itself keeps its choice.
    if worker is None or n_gpus < 2 or torch.cuda.current_device() != 0:
        return torch.cuda.current_device()
    return (int(worker[1]) - 1) % n_gpus


def resolve_dtype(precision: str, device: torch.device, fitted: str | None = None) -> torch.dtype:
    """Turn the parameter `precision` into the dtype of autocast.

    "auto" is the precision that an estimator was fitted in, if there is one: in another, a tenth of ternary features
    would change on a machine with other hardware. Otherwise it is bfloat16 where the hardware computes in it natively
    (recent GPUs, CPUs with AVX-512 BF16 or AMX), float32 elsewhere.
    """
    if precision == "auto" and fitted is not None:
        precision = fitted
    if precision != "auto":
        return _DTYPES[precision]
    if device.type == "cuda":
        # older GPUs only emulate it
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if native else torch.float32


def precision_of(dtype: torch.dtype) -> str:
    """Return what `precision` calls a dtype."""
    return next(name for name, own in _DTYPES.items() if own == dtype)


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    """Return the autocast context for `dtype`, or none for float32."""
    if dtype == torch.float32:
        return nullcontext()
    return torch.autocast(device.type, dtype=dtype)


def tuple_like(batch: Any, parts: list[Any]) -> Any:
    """Return a tuple, named tuple or list of the kind of `batch`, with other parts."""
    return type(batch)(*parts) if hasattr(batch, "_fields") else type(batch)(parts)


def to_device(batch: Any, device: torch.device) -> Any:
    """Return a batch with its tensors on the device: a tensor, or a tuple, list or mapping of batches.

    What is no tensor stays as it is.
    """
    if isinstance(batch, Tensor):
        return batch if batch.device == device else batch.to(device, non_blocking=True)
    if isinstance(batch, list | tuple):
        return tuple_like(batch, [to_device(part, device) for part in batch])
    if isinstance(batch, Mapping):
        return {name: to_device(part, device) for name, part in batch.items()}
    return batch


def ready_to_copy(batch: Any, device: torch.device) -> Any:
    """Return a batch from which `to_device` copies while the device computes: page-locked, if that is a GPU."""
    if device.type != "cuda":
        return batch
    if isinstance(batch, Tensor):
        return batch if batch.is_cuda else batch.pin_memory(device)
    if isinstance(batch, list | tuple):
        return tuple_like(batch, [ready_to_copy(part, device) for part in batch])
    if isinstance(batch, Mapping):
        return {name: ready_to_copy(part, device) for name, part in batch.items()}
    return batch


def settle(module: nn.Module, device: torch.device) -> None:
    """Make a module ready for use: on the device, in evaluation mode. One that is so already is not touched."""
    if any(tensor.device != device for tensor in [*module.parameters(), *module.buffers()]):
        module.to(device)
    if any(part.training for part in module.modules()):
        module.eval()


def shared(array: np.ndarray) -> Tensor:
    """Share an array with torch without a copy, a memory map that cannot be written to as well: it is only read."""
    if not array.flags.writeable:
        interface = dict(array.__array_interface__)
        interface["data"] = (interface["data"][0], False)  # or torch would warn that writing to it fails
        array = np.asarray(SimpleNamespace(__array_interface__=interface, owner=array))  # which stays alive with it
    return torch.from_numpy(array)


@contextmanager
def forked_rng(random_state: int | np.random.RandomState | None) -> Iterator[None]:
    """Let torch draw inside the block, in this thread, from generators of its own, seeded from `random_state`.

    Those of the process are neither seeded nor drawn from, so that threads do not disturb each other. The numbers are
    those that seeding the process would give.
    """
    # a RandomState moves on by it: the next block of one fit has another seed
    with OwnDraws(int(check_random_state(random_state).randint(2**31 - 1))):
        yield


def generator_from(random_state: np.random.RandomState) -> np.random.Generator:
    """Draw a fast numpy generator from a scikit-learn random state."""
    # four numbers seed it with more than the 31 bits of one
    return np.random.default_rng(random_state.randint(2**31 - 1, size=4))


def n_threads(n_jobs: int | None) -> int:
    """Return how many threads the parameter `n_jobs` stands for; None is as many as torch computes with."""
    return torch.get_num_threads() if n_jobs is None else _n_threads_of(n_jobs)


def _n_threads_of(n_jobs: int) -> int:
    """Return how many threads a number stands for: a negative one counts from this process's share of the cores."""
    if n_jobs >= 0:
        return int(joblib.effective_n_jobs(n_jobs))
    n_cores = int(joblib.effective_n_jobs(-1))
    if _WORKER.fullmatch(multiprocessing.current_process().name):
        # What joblib has told the libraries below in each of its workers.
        n_cores = min(n_cores, int(os.environ.get("OMP_NUM_THREADS", n_cores)))
    # As torchrun says it in each of its processes on a machine.
    n_cores = max(1, n_cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    return max(1, n_cores + 1 + n_jobs)


class _ThreadNumbers:
    """How many threads torch computes with, set by blocks that several Python threads are in at once.

    torch sets the number for the calling thread, and notes it for threads that have not computed yet: there one block
    would reach into others. What is noted is put back when a block ends, as if it had been the only one.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._n_blocks = 0
        self._usual = 0  # the number of those outside of all blocks
        self._own = local()  # .number: of the innermost block of a thread

    @contextmanager
    def set_to(self, number: int) -> Iterator[None]:
        outer = getattr(self._own, "number", None)
        with self._lock:
            if self._n_blocks == 0:
                self._usual = torch.get_num_threads()
            self._n_blocks += 1
            torch.set_num_threads(number)
        self._own.number = number
        try:
            yield
        finally:
            self._own.number = outer
            with self._lock:
                self._n_blocks -= 1
                torch.set_num_threads(self._usual if outer is None else outer)

    def keep_usual(self) -> None:
        """See to it that a thread that has not computed yet does not take over the number of a block of another."""
        if self._n_blocks and getattr(self._own, "number", None) is None:
            with self._lock:
                if self._n_blocks and torch.get_num_threads() != self._usual:
                    torch.set_num_threads(self._usual)


_THREAD_NUMBERS = _ThreadNumbers()


@contextmanager
def torch_threads(n_jobs: int | None) -> Iterator[None]:
    """Let torch compute with `n_jobs` threads on the CPU inside the block; None changes nothing, -1 takes all.

    All are those of this process: workers of joblib, and processes of `torchrun`, share the cores of a machine.

    Of this thread alone: other threads may be in blocks of other numbers at the same time.
    """
    if n_jobs is None:
        _THREAD_NUMBERS.keep_usual()
        yield
        return
    with _THREAD_NUMBERS.set_to(_n_threads_of(n_jobs)):
        yield
