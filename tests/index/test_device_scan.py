import pickle

import numpy as np
import pytest
import torch

from sklearn_mm.index import ExactIndex, _device_scan


@pytest.fixture(params=["as if on another device", "cuda"])
def device(request, monkeypatch):
    """Give a device whose tensors are searched where they are; the first one is the CPU, taken for another."""
    if request.param == "cuda":
        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")
        return "cuda"
    monkeypatch.setattr(_device_scan, "is_elsewhere", lambda X: isinstance(X, torch.Tensor))
    return "cpu"


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
@pytest.mark.parametrize("arrangement", ["random", "few different"])
def test_items_on_a_gpu_are_searched_there_as_in_memory(device, monkeypatch, dtype, arrangement):
    monkeypatch.setattr(_device_scan, "_N_ITEMS", 100)
    monkeypatch.setattr(_device_scan, "_N_QUERY", 3)
    rng = np.random.default_rng(0)
    items, queries = rng.integers(-3, 4, (700, 12)), rng.normal(size=(8, 12)).astype(np.float32)
    if arrangement == "few different":
        items = items[rng.integers(0, 5, 700)]
    index, exact = ExactIndex(dtype=dtype), ExactIndex()
    for part in (items[:300], items[300:]):
        index.add(torch.from_numpy(part).to(device))
        exact.add(part)
    rows = rng.random(700) < 0.5
    for _ in range(2):
        for options in ({}, {"rows": rows[: len(exact)]}):
            truth = exact.search(queries, 9, **options)
            for asked in (queries, torch.from_numpy(queries).to(device)):
                for found, wanted in zip(index.search(asked, 9, **options), truth, strict=True):
                    np.testing.assert_array_equal(found, wanted)
        index.remove([0, 299, 300, 650])
        exact.remove([0, 299, 300, 650])
    copy = pickle.loads(pickle.dumps(index))
    assert all(isinstance(part, np.ndarray) for part in vars(copy)["_parts"])
    np.testing.assert_array_equal(copy.search(queries, 9)[1], exact.search(queries, 9)[1])


@pytest.mark.parametrize(
    ("dtype", "X", "message"),
    [
        ("float32", [[1.0, 0.0], [float("nan"), 0.0]], "float32 cannot hold in row 1"),
        ("int8", [[0.5, 0.0]], "int8 cannot hold in row 0"),
        ("float32", [[1.0]], "X has 1 components, but the index holds vectors of 2"),
        ("float32", [1.0], r"shape \(n, n_components\), got shape \(1,\)"),
    ],
)
def test_tensors_that_do_not_fit_are_named(device, dtype, X, message):
    index = ExactIndex(dtype=dtype).add(torch.eye(2).to(device))
    with pytest.raises(ValueError, match=message):
        index.add(torch.tensor(X).to(device))
    with pytest.raises(ValueError, match="one device, got some in memory and some on a GPU"):
        index.add(np.eye(2))
