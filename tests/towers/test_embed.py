import numpy as np
import pytest
import torch
from torch import nn

from sklearn_mm.towers import embed


def test_embedding_in_batches_is_embedding_at_once():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5))
    rows = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    out = embed(
        module,
        torch.from_numpy,
        rows,
        batch_size=3,
        device=torch.device("cpu"),
        dtype=torch.float32,
        finish=lambda out: 2 * out,
    )
    expected = module.eval()(torch.from_numpy(rows)).detach()
    np.testing.assert_allclose(out, 2 * expected.numpy(), rtol=1e-5, atol=1e-6)


class _Counting(nn.Linear):
    """A layer that counts how often its tensors are sent somewhere."""

    def __init__(self):
        super().__init__(3, 2)
        self.n_moves = 0

    def _apply(self, fn, recurse=True):
        self.n_moves += 1
        return super()._apply(fn, recurse)


def test_a_module_that_is_where_it_belongs_is_not_moved():
    module = _Counting().eval()
    rows = np.zeros((5, 3), dtype=np.float32)
    for _ in range(3):
        embed(module, torch.from_numpy, rows, batch_size=2, device=torch.device("cpu"), dtype=torch.float32)
    assert module.n_moves == 0


def test_a_module_stays_on_the_device_it_was_brought_to():
    module = nn.Linear(3, 2, device="meta")
    rows = np.zeros((5, 3), dtype=np.float32)
    with pytest.raises(NotImplementedError, match="meta"):  # its answers have no values; that they are there will do
        embed(module, torch.from_numpy, rows, batch_size=2, device=torch.device("meta"), dtype=torch.float32)
    assert module.weight.device.type == "meta"
