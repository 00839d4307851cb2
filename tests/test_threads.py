import threading

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from sklearn_mm import _threads
from sklearn_mm._threads import for_blocks, in_threads, n_workers


@pytest.fixture
def four_cores(monkeypatch):
    """Let BLAS and torch have four threads, whatever this machine has."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    monkeypatch.setattr(_threads, "_n_cores", lambda: 4)
    torch.set_num_threads(4)
    with threadpool_limits(4):
        yield
    torch.set_num_threads(before)


def blas_threads():
    # of numpy and scipy: what other libraries of this process have brought along is theirs
    return [library.num_threads for library in _threads._blas_libraries()]


def test_every_task_is_done_once_and_each_thread_has_sums_of_its_own(four_cores):
    together = threading.Barrier(4, timeout=30)

    def total(tasks):
        first = next(tasks)
        together.wait()  # nobody takes all: each has one before anyone goes on
        return first + sum(tasks), threading.get_ident()

    sums = in_threads(total, range(100))
    assert sum(one for one, _ in sums) == sum(range(100))
    assert len({thread for _, thread in sums}) == 4


def test_blas_has_one_thread_in_each_and_gets_its_threads_back(four_cores):
    before = blas_threads()
    seen = in_threads(lambda tasks: [(*blas_threads(), n_workers()) for _ in tasks], range(8))
    assert {number for each in seen for numbers in each for number in numbers} == {1}  # and nothing is split again
    assert blas_threads() == before


def test_two_who_share_work_out_at_once_share_the_threads(four_cores):
    def one(tasks):
        next(tasks)
        numbers.append(n_workers_of_another_thread())

    def n_workers_of_another_thread():
        answer = []
        thread = threading.Thread(target=lambda: answer.append(n_workers()))
        thread.start()
        thread.join()
        return answer[0]

    numbers = []
    in_threads(one, [0, 1], n_most=2)
    assert set(numbers) == {2}
    assert n_workers() == 4


@pytest.mark.parametrize("limit", ["blas", "torch"])
def test_who_has_been_given_one_thread_computes_with_one(four_cores, limit):
    import torch

    if limit == "torch":
        torch.set_num_threads(1)
        assert n_workers() == 1
    else:
        with threadpool_limits(1, user_api="blas"):
            assert n_workers() == 1


def test_an_error_in_one_thread_ends_all(four_cores):
    done = []

    def work(part):
        if part.start == 3:
            raise ZeroDivisionError("row 3")
        done.append(part.start)

    before = blas_threads()
    with pytest.raises(ZeroDivisionError, match="row 3"):
        for_blocks(work, 100_000, 1)
    assert len(done) < 100_000 - 1
    assert blas_threads() == before


def test_blocks_cover_all_rows(four_cores):
    rows = np.zeros(10, dtype=int)

    def count(part):
        rows[part] += 1

    for_blocks(count, 10, 3)
    assert (rows == 1).all()
