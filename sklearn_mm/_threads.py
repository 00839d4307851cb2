"""Work that is shared out among threads, each with one BLAS thread: products and all that is done with them.

BLAS shares out the product alone; what follows it, comparing and counting, would run on one core. How many threads
there are is not a parameter: what BLAS and torch have been given, by OMP_NUM_THREADS, by joblib for its workers, by
`threadpool_limits` or by `torch.set_num_threads`, is what is used.
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from threading import Lock, local
from typing import Any, TypeVar

from threadpoolctl import ThreadpoolController

__all__ = ["for_blocks", "in_threads", "n_workers"]

Task = TypeVar("Task")
Result = TypeVar("Result")


@cache
def _blas_libraries() -> list[Any]:
    """Return the BLAS libraries that numpy and scipy have loaded; to look for them takes milliseconds."""
    return list(ThreadpoolController().select(user_api="blas").lib_controllers)


class _Shares:
    """How many threads each of those gets who share out work at the same time, and the threads of BLAS meanwhile.

    BLAS has one number for the whole process. The first who comes sets it to one, the last who goes puts it back.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._n_users = 0
        self._usual: list[int] = []
        self._inside = local()  # .worker: whether a thread is one of those work is shared out to

    def number(self) -> int:
        if getattr(self._inside, "worker", False):
            return 1
        with self._lock:
            usual = self._usual if self._n_users else [library.num_threads for library in _blas_libraries()]
            n_users = self._n_users
        limits = [n for n in usual if n] + [_n_cores()]
        if (torch := sys.modules.get("torch")) is not None and hasattr(torch, "get_num_threads"):
            limits.append(torch.get_num_threads())
        return max(min(limits) // (n_users + 1), 1)

    @contextmanager
    def one_blas_thread(self) -> Iterator[None]:
        libraries = _blas_libraries()
        with self._lock:
            if self._n_users == 0:
                self._usual = [library.num_threads for library in libraries]
            self._n_users += 1
            for library in libraries:
                library.set_num_threads(1)
        try:
            yield
        finally:
            with self._lock:
                self._n_users -= 1
                if self._n_users == 0:
                    for library, number in zip(libraries, self._usual, strict=True):
                        library.set_num_threads(number)

    @contextmanager
    def worker(self) -> Iterator[None]:
        self._inside.worker = True
        try:
            yield
        finally:
            self._inside.worker = False


_SHARES = _Shares()
if hasattr(os, "register_at_fork"):
    # A lock that another thread held when the process forked would stay locked in the child for ever.
    os.register_at_fork(after_in_child=_SHARES.__init__)  # type: ignore[misc]  # the same object, as new


class _Queue(Iterator[Task]):
    """Tasks that several threads take from, until there are none or one of them has failed."""

    def __init__(self, tasks: Sequence[Task]):
        self._tasks = iter(tasks)
        self._lock = Lock()
        self.stopped = False

    def __next__(self) -> Task:
        with self._lock:
            if self.stopped:
                raise StopIteration
            return next(self._tasks)


def n_workers() -> int:
    """Return how many threads `in_threads` would share work out to: one, if it is itself called by such a thread."""
    return _SHARES.number()


def in_threads(
    work: Callable[[Iterator[Task]], Result], tasks: Sequence[Task], n_most: int | None = None
) -> list[Result]:
    """Let several threads work off tasks, each with one BLAS thread.

    Parameters
    ----------
    work : callable
        Called once in each thread with an iterator over the tasks that this thread gets: it can hold buffers and sums
        of its own. Tasks are handed out in order, one by one.
    tasks : sequence
    n_most : int, optional
        More threads than that are not worth their start.

    Returns
    -------
    list
        What each call of `work` returned; one of them is by the calling thread.
    """
    number = min(len(tasks), len(tasks) if n_most is None else n_most)
    number = min(n_workers(), number) if number > 1 else number  # to ask BLAS takes longer than a small task
    if number <= 1:
        return [work(iter(tasks))]
    queue = _Queue(tasks)

    def work_alone() -> Result:
        with _SHARES.worker():
            for library in _blas_libraries():
                library.set_num_threads(1)  # once more: where BLAS uses OpenMP the number is a thread's own
            try:
                return work(queue)
            except BaseException:
                queue.stopped = True  # the others need not go on
                raise

    with _SHARES.one_blas_thread(), ThreadPoolExecutor(number - 1, thread_name_prefix="sklearn_mm") as pool:
        others = [pool.submit(work_alone) for _ in range(number - 1)]
        own = work_alone()
        return [own, *(other.result() for other in others)]


def for_blocks(work: Callable[[slice], None], n_rows: int, block: int, n_most: int | None = None) -> None:
    """Call `work` with slices of `block` rows, until all `n_rows` are done, in several threads."""

    def work_off(slices: Iterator[slice]) -> None:
        for one in slices:
            work(one)

    in_threads(work_off, [slice(start, min(start + block, n_rows)) for start in range(0, n_rows, block)], n_most)


def _n_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
