import numpy as np
import pytest
import torch

from sklearn_mm._device import autocast, forked_rng, resolve_device, resolve_dtype


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
        with forked_rng(seed, torch.device("cpu")):
            draws.append(torch.rand(2))
    assert torch.equal(draws[0], draws[1])
    assert torch.equal(draws[0], draws[3])
    assert not torch.equal(draws[0], draws[2])
    assert torch.equal(torch.rand(2), expected)
