import numpy as np
import pytest
import torch
from torch import nn

from sklearn_mm.nn.packed import PackedTexts
from sklearn_mm.nn.text_cnn import SHIFT_PERIOD, TextCNN, _windows

# Sums of some hundred products in float32, in another order.
TOLERANCE = 1e-4


def pack(rows, shifts=None):
    return PackedTexts(
        torch.tensor([number for row in rows for number in row], dtype=torch.int64),
        torch.tensor([len(row) for row in rows]),
        torch.tensor(shifts or [0] * len(rows)),
    )


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    return [rng.integers(1, 50, length).tolist() for length in (5, 1, 12, 0, 7, 8)]


@pytest.fixture
def network(rows):
    torch.manual_seed(0)
    network = TextCNN(50, 16, width=0.05, word_dim=12, average_shifts=False)
    for block in (block for stage in network.stages for block in stage):
        nn.init.uniform_(block.expand_norm.weight, 0.5, 1.5)  # most start from 0, and would hide what is inside
    network.train()
    network(pack(rows))  # so that the running statistics are not those of initialisation
    return network.eval()


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shift", range(4))
def test_packed_windows_are_a_left_padded_convolution(stride, shift):
    torch.manual_seed(0)
    lengths = [5, 1, 0, 4]
    values = torch.randn(sum(lengths), 3)
    convolution = nn.Conv1d(3, 6, 2, stride=stride, bias=False)
    window, out_lengths, out_offsets = _windows(torch.tensor(lengths), torch.full((4,), shift), stride)
    stacked = torch.cat([torch.zeros(1, 3), values])
    # A kernel of width two: the first column reads the position before, the second the position itself.
    packed = (
        stacked[window.previous] @ convolution.weight[:, :, 0].T
        + stacked[window.current] @ convolution.weight[:, :, 1].T
    )

    expected = []
    for text, part in enumerate(values.split(lengths)):
        if not len(part):
            continue
        padded = torch.cat([torch.zeros(1 + shift, 3), part, torch.zeros(8, 3)]).T[None]  # left pad one, then the shift
        out = convolution(padded)[0].T
        expected.append(out[out_offsets[text] : out_offsets[text] + out_lengths[text]])
        touched = out.abs().sum(dim=1) > 0
        assert touched[: out_offsets[text]].sum() == 0
        if stride == 2:  # every position that saw the text is kept; at stride 1 the length stays as it is
            assert touched.sum() == out_lengths[text]
    torch.testing.assert_close(packed, torch.cat(expected))


def embed_alone(network, row, shift):
    """Run the published network on one text, layer by layer with torch's convolutions; what is empty stays empty."""
    x = network.word_norm(network.words(torch.tensor(row)) + network.word_bias)  # (length, word_dim)
    first = shift
    for stage, blocks in enumerate(network.stages):
        for number, block in enumerate(blocks):
            stride = 2 if number == 0 and stage in (1, 2) else 1
            h = torch.relu(block.reduce_norm(block.reduce(x)))
            kernel = torch.stack(block.window.weight.chunk(2, dim=1), dim=2)  # (out, in, 2)
            empty = torch.zeros(h.shape[1], 1 + first)  # one position of padding on the left, none on the right
            h = nn.functional.conv1d(torch.cat([empty, h.T, torch.zeros(h.shape[1], 1)], dim=1)[None], kernel)[0].T
            h = h[: first + len(x) + 1][::stride]  # at every position, or at every other one
            where = [place for place in range(len(h)) if place * stride >= first]
            if stride == 1:
                where = where[: len(x)]
            h = block.expand_norm(block.expand(torch.relu(block.window_norm(h[where]))))
            at = [place * stride - first for place in where]
            x = torch.stack([x[place] if place < len(x) else torch.zeros(x.shape[1]) for place in at])
            if block.shortcut is not None:
                x = block.shortcut_norm(block.shortcut(x))
            x, first = torch.relu(h + x), where[0]
    return network.output_norm(network.output(x.amax(dim=0, keepdim=True)))[0]  # the maximum, not the mean


@pytest.mark.parametrize("shift", range(5))
def test_the_whole_network_is_the_published_one(network, rows, shift):
    for row in rows:
        if row:
            expected = embed_alone(network, row, shift)
            torch.testing.assert_close(network(pack([row], [shift]))[0], expected, rtol=TOLERANCE, atol=TOLERANCE)


def test_blocks_with_a_plain_shortcut_start_as_the_shortcut_and_learn(rows):
    torch.manual_seed(0)
    network = TextCNN(50, 16, width=0.05, word_dim=12).train()
    plain = [block for stage in network.stages for block in stage if block.shortcut is None]
    assert len(plain) == 10
    x = torch.rand(5, plain[0].reduce.in_features)
    window, _, _ = _windows(torch.tensor([5]), torch.tensor([0]), 1)
    torch.testing.assert_close(plain[0](x, window, False), x, rtol=0, atol=0)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for _ in range(2):  # the scales of the last norms, then all behind them
        optimizer.zero_grad()
        network(pack(rows)).square().mul(torch.linspace(0, 1, 16)).sum().backward()
        optimizer.step()
    assert all(block.reduce.weight.grad.abs().max() > 0 for block in plain)


def test_features_do_not_depend_on_the_other_texts_of_the_batch(network, rows):
    shifts = [1, 2, 3, 0, 1, 2]
    together = network(pack(rows, shifts))
    alone = torch.cat([network(pack([row], [shift])) for row, shift in zip(rows, shifts, strict=True)])
    torch.testing.assert_close(together, alone, rtol=TOLERANCE, atol=TOLERANCE)


def test_shifts_by_the_period_change_nothing_and_others_do(network, rows):
    text = [rows[2]]
    shifted = [network(pack(text, [shift])) for shift in (1, 1 + SHIFT_PERIOD, 2)]
    torch.testing.assert_close(shifted[0], shifted[1])
    assert (shifted[0] - shifted[2]).abs().max() > 0.01


def test_embedding_averages_all_shifts_that_differ(network, rows):
    expected = torch.stack([network(pack(rows, [shift] * len(rows))) for shift in range(SHIFT_PERIOD)]).mean(dim=0)
    network.average_shifts = True
    torch.testing.assert_close(network(pack(rows)), expected)


def test_the_last_relu_is_there_in_training_and_gone_in_use(network, rows):
    before = network(pack(rows))
    assert (before < 0).any()
    network.final_relu = True
    torch.testing.assert_close(network(pack(rows)), before)
    trained = network.train()(pack(rows))
    network.final_relu = False
    torch.testing.assert_close(trained, torch.relu(network(pack(rows))))
    assert (trained == 0).any()


def test_the_network_is_causal_in_its_first_layers(network, rows):
    text = rows[2]
    window, _, _ = _windows(torch.tensor([len(text)]), torch.tensor([0]), 1)
    assert torch.all(window.previous <= window.current)
    assert window.previous[0] == 0  # nothing stands before the first word


def test_full_width_has_the_published_size():
    network = TextCNN(10, 2048, width=1.0)
    blocks = sum(p.numel() for name, p in network.named_parameters() if name.startswith("stages") and p.ndim > 1)
    assert blocks == pytest.approx(26.10e6, rel=0.01)
    assert [len(stage) for stage in network.stages] == [3, 4, 6, 1]
    assert network.output.weight.shape == (2048, 2048)


def test_word_order_matters(network):
    a, b = network(pack([[1, 2, 3]])), network(pack([[3, 2, 1]]))
    assert (a - b).abs().max() > 0.01
