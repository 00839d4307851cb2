import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Thread

import joblib
import numpy as np
import pytest
import torch

from sklearn_mm._device import autocast, forked_rng, n_threads, resolve_device, resolve_dtype, torch_threads


def test_auto_takes_what_there_is():
    expected = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert resolve_device("auto").type == expected


@pytest.mark.parametrize("device", ["gpu", "tpu:x"])
def test_an_unknown_device_is_named(device):
    with pytest.raises(ValueError, match=f"device='{device}'"):
        resolve_device(device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the message is for machines without CUDA")
def test_a_missing_gpu_says_what_to_use_instead():
    with pytest.raises(ValueError, match="device='auto' or 'cpu'"):
        resolve_device("cuda")


@pytest.mark.parametrize("native", [False, True])
def test_precision_by_name_and_by_hardware(monkeypatch, native):
    cpu = torch.device("cpu")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native)
    assert resolve_dtype("float16", cpu) == torch.float16
    assert resolve_dtype("auto", cpu) == (torch.bfloat16 if native else torch.float32)
    assert resolve_dtype("auto", torch.device("mps")) == torch.float32


def test_autocast_computes_in_the_dtype():
    x = torch.ones(2, 2)
    for dtype in (torch.float32, torch.bfloat16):
        with autocast(torch.device("cpu"), dtype):
            assert (x @ x).dtype == dtype


def test_a_forked_rng_is_seeded_and_leaves_the_global_one_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    draws = []
    for seed in (0, 0, 1, np.random.RandomState(0)):
        with forked_rng(seed):
            draws.append(torch.rand(2))
    assert torch.equal(draws[0], draws[1])
    assert torch.equal(draws[0], draws[3])
    assert not torch.equal(draws[0], draws[2])
    assert torch.equal(torch.rand(2), expected)


def test_threads_compute_each_with_its_own_number_of_threads():
    usual, seen = torch.get_num_threads(), {}
    entered, left = Event(), Event()

    def first():
        with torch_threads(usual + 2):
            entered.set()
            assert left.wait(60)
            seen["first"] = torch.get_num_threads()
        seen["first, behind it"] = torch.get_num_threads()

    def unset():
        with torch_threads(None):
            seen["unset"] = torch.get_num_threads()

    thread = Thread(target=first)
    thread.start()
    assert entered.wait(60)
    with torch_threads(usual + 1):
        with torch_threads(usual + 3):
            seen["inner"] = torch.get_num_threads()
        seen["second"] = torch.get_num_threads()
        with ThreadPoolExecutor(1) as pool:
            pool.submit(unset).result()
    left.set()
    thread.join()
    with ThreadPoolExecutor(1) as pool:
        seen["afterwards"] = pool.submit(torch.get_num_threads).result()
    assert torch.get_num_threads() == usual
    assert seen == {
        "inner": usual + 3,
        "second": usual + 1,
        "unset": usual,
        "first": usual + 2,
        "first, behind it": usual,
        "afterwards": usual,
    }


def test_after_an_error_torch_computes_with_as_many_threads_as_before():
    usual = torch.get_num_threads()
    with pytest.raises(KeyError), torch_threads(usual + 1):
        raise KeyError
    assert torch.get_num_threads() == usual


@pytest.fixture
def worker(monkeypatch):
    """Take the place of a worker of joblib, by its number."""
    return lambda number: monkeypatch.setattr(multiprocessing.current_process(), "name", f"LokyProcess-{number}")


def test_each_worker_of_a_search_has_a_gpu_of_its_own(monkeypatch, worker):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    assert resolve_device("auto") == torch.device("cuda", 0)
    for device in ("auto", "cuda"):
        given = []
        for number in range(1, 5):
            worker(number)
            given.append(resolve_device(device).index)
        assert given == [0, 1, 2, 0]
    assert resolve_device("cuda:1").index == 1  # where the user says so, all are there
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 2)
    assert resolve_device("auto").index == 2  # as a worker has set it for itself


def test_all_threads_are_those_of_the_workers_share(monkeypatch, worker):
    n_cores = joblib.effective_n_jobs(-1)
    assert n_threads(-1) == n_cores
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert n_threads(-1) == n_cores  # it limits libraries, and not what is asked for
    worker(2)
    assert n_threads(-1) == n_threads(-2) == 1
    assert n_threads(4) == 4
    with torch_threads(-1):
        assert torch.get_num_threads() == 1


def test_all_threads_are_those_of_a_process_of_torchrun(monkeypatch):
    monkeypatch.setattr(joblib, "effective_n_jobs", lambda n_jobs: 8)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert (n_threads(-1), n_threads(-2), n_threads(-9)) == (4, 3, 1)
