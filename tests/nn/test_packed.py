"""What text networks share: linear layers and sums over packed words."""

import pytest
import torch
from torch import nn

from sklearn_mm.nn.packed import WordLinear, segment_max, segment_mean


@pytest.mark.parametrize("n_words", [0, 1, 63, 64, 65])
def test_words_beyond_a_round_number_change_nothing(n_words):
    torch.manual_seed(0)
    plain = nn.Linear(7, 5, bias=False)
    padded = WordLinear(7, 5, bias=False)
    padded.load_state_dict(plain.state_dict())
    words = torch.randn(n_words, 7, requires_grad=True)
    assert torch.equal(padded(words), plain(words))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = [layer(words) for layer in (padded, plain)]
    assert outputs[0].dtype == torch.bfloat16
    torch.testing.assert_close(*outputs)
    gradients = [torch.autograd.grad(output.float().square().sum(), words)[0] for output in outputs]
    torch.testing.assert_close(*gradients, rtol=0.02, atol=0.02)


def test_segments_agree_with_loops_and_empty_ones_are_zero():
    torch.manual_seed(0)
    values, lengths = torch.randn(6, 3), torch.tensor([2, 0, 4])
    torch.testing.assert_close(segment_max(values, lengths)[0], values[:2].amax(dim=0))
    torch.testing.assert_close(segment_max(values, lengths)[2], values[2:].amax(dim=0))
    torch.testing.assert_close(segment_mean(values, lengths)[2], values[2:].mean(dim=0))
    assert segment_max(values, lengths)[1].eq(0).all()
    assert segment_mean(values, lengths)[1].eq(0).all()
