"""Items that a thread makes ahead of the caller come as they would without it."""

import threading
import time
from queue import Queue

import numpy as np
import pytest

from sklearn_mm.training import made_ahead
from sklearn_mm.training._ahead import _next

SOON_S = 10.0  # far more than a thread needs to notice that nobody wants its items


def producers():
    return [thread for thread in threading.enumerate() if thread.name == "batches"]


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    before = producers()
    yield
    assert producers() == before


@pytest.mark.parametrize("n_ahead", [1, 2, 100])
@pytest.mark.parametrize("n_items", [0, 1, 2, 3, 50])
def test_all_items_come_in_their_order(n_items, n_ahead):
    assert list(made_ahead(range(n_items), n_ahead)) == list(range(n_items))


def test_what_is_no_value_is_an_item_too():
    items = [None, StopIteration(), (None, None), ValueError("an item, not an error")]
    assert list(made_ahead(items)) == items


@pytest.mark.parametrize("error", [ValueError("row 7"), KeyboardInterrupt(), GeneratorExit()], ids=repr)
@pytest.mark.parametrize("n_before", [0, 1, 5])
def test_an_exception_is_raised_where_its_item_would_have_come(n_before, error):
    def failing():
        yield from range(n_before)
        raise error

    seen = []

    def take():
        for item in made_ahead(failing()):
            seen.append(item)  # noqa: PERF402  what came before the error is wanted

    with pytest.raises(type(error)) as raised:
        take()
    assert raised.value is error
    assert seen == list(range(n_before))


def test_the_thread_ends_when_the_caller_stops_early():
    closed = threading.Event()

    def endless():
        try:
            while True:
                yield 0
        finally:
            closed.set()

    made = made_ahead(endless())
    assert next(made) == 0
    assert len(producers()) == 1
    made.close()
    assert producers() == []
    assert closed.wait(SOON_S)  # the iterator is gone with it


def test_the_thread_ends_when_the_caller_fails():
    def use():
        for item in made_ahead(range(100)):
            raise LookupError(item)

    with pytest.raises(LookupError, match="0"):
        use()


def test_nothing_is_made_before_the_first_item_is_asked_for():
    made = []
    ahead = made_ahead(made.append(i) or i for i in range(3))
    time.sleep(0.05)
    assert made == []
    assert list(ahead) == [0, 1, 2]


def test_items_are_made_while_the_caller_works_and_no_more_of_them_than_may_wait():
    made = []

    def counting():
        for i in range(20):
            made.append(i)
            yield i

    ahead = made_ahead(counting(), n_ahead=3)
    for i in range(5):
        assert next(ahead) == i
        end = time.monotonic() + SOON_S
        most = i + 1 + 3 + 1  # those taken, those that wait, and one in hand
        while len(made) < most and time.monotonic() < end:
            time.sleep(0.001)
        time.sleep(0.02)
        assert len(made) == most
    ahead.close()


def test_one_thread_draws_from_the_generator_in_the_order_of_a_plain_loop():
    threads = set()

    def drawn(rng):
        for n in (3, 1, 4, 1, 5):
            threads.add(threading.get_ident())
            yield rng.normal(size=n), rng.permutation(n)

    plain = [np.concatenate(parts) for parts in drawn(np.random.default_rng(0))]
    threads.clear()
    rng = np.random.default_rng(0)
    ahead = [np.concatenate(parts) for parts in made_ahead(drawn(rng))]
    assert [part.tolist() for part in ahead] == [part.tolist() for part in plain]
    assert len(threads) == 1
    assert threading.get_ident() not in threads
    after = np.random.default_rng(0)
    list(drawn(after))
    assert rng.random() == after.random()  # nothing was drawn beyond the last item


def test_an_iterator_is_gone_through_anew_each_time():
    items = [1, 2, 3]
    assert [list(made_ahead(items)) for _ in range(3)] == [items] * 3


def test_a_thread_that_vanished_is_an_error_and_no_waiting_for_ever():
    vanished = threading.Thread(target=lambda: None)
    vanished.start()
    vanished.join()
    with pytest.raises(RuntimeError, match="ended before the last"):
        _next(Queue(), vanished)
