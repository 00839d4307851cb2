"""The next batch is made while the network works on this one."""

from collections.abc import Iterable, Iterator
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import Any, TypeVar

__all__ = ["made_ahead"]

Batch = TypeVar("Batch")

_AHEAD = 2  # batches that wait: one would leave the reader idle while it is handed over
_POLL_S = 0.1  # between looks at whether anyone still wants a batch
_END = object()


def made_ahead(batches: Iterable[Batch], n_ahead: int = _AHEAD) -> Iterator[Batch]:
    """Run an iterator in a thread of its own, a few items ahead of the caller.

    Parameters
    ----------
    batches : iterable
        It is gone through by one thread, from its first item to its last, so that what it draws from a random
        generator comes in the same order as without a thread. Nobody else may draw from that generator meanwhile.
    n_ahead : int
        How many items wait at the most.

    Yields
    ------
    item
        In their order. An exception of the iterator is raised at its place among them.
    """
    waiting: Queue[Any] = Queue(n_ahead)
    unwanted = Event()

    # By turns of waiting and looking: a put without a timeout would wait for ever for a caller that is gone.
    def put(item: Any) -> bool:
        while not unwanted.is_set():
            try:
                waiting.put(item, timeout=_POLL_S)
            except Full:
                continue
            return True
        return False

    def produce() -> None:
        try:
            for batch in batches:
                if not put((batch, None)):  # in a pair, so that None is a batch too
                    return
        except BaseException as error:  # it is raised again where the batch was wanted
            put((None, error))
        else:
            put(_END)

    # daemon: a process that ends in the middle of an epoch does not wait for its batches.
    producer = Thread(target=produce, name="batches", daemon=True)
    producer.start()
    try:
        while (item := _next(waiting, producer)) is not _END:
            batch, error = item
            if error is not None:
                raise error
            yield batch
    finally:
        unwanted.set()
        # The thread draws from the caller's random generator: nobody may go on with that before it has ended.
        producer.join()


def _next(waiting: "Queue[Any]", producer: Thread) -> Any:
    """Wait for the next item; a producer that was killed without a word would leave us waiting for ever."""
    while True:
        try:
            return waiting.get(timeout=_POLL_S)
        except Empty:
            # Empty is asked again: the last item may have come between the time-out and the end of the thread.
            if not producer.is_alive() and waiting.empty():
                raise RuntimeError("the thread that makes batches ended before the last of them") from None
