import numpy as np
import pytest
import torch
from torch import nn

from sklearn_mm.nn.packed import PackedTexts, drop_words
from sklearn_mm.nn.text_rnn import POOLINGS, TextGRU, _time_major

ROWS = [[3, 1, 4], [], [2, 2, 7, 1, 8, 5, 9], [6], [5, 3, 5], []]


def pack(rows):
    return PackedTexts(
        torch.tensor([number for row in rows for number in row], dtype=torch.int64),
        torch.tensor([len(row) for row in rows], dtype=torch.int64),
        torch.zeros(len(rows), dtype=torch.int64),
    )


def make(**parameters):
    torch.manual_seed(0)
    network = TextGRU(9, 6, word_dim=4, **parameters).double()
    for parameter in network.parameters():  # larger than drawn, and biases that are not 0, so that mistakes show
        nn.init.normal_(parameter, std=0.5)
    return network


def embed_alone(network, row):
    """Read one text by torch's GRU, with nothing around it."""
    ids = [*row, 0] if network.end_token else row
    width = network.recurrent.hidden_size
    if not ids:
        return network.output(torch.zeros(network.state_width, dtype=torch.float64))
    states, _ = network.recurrent(network.words(torch.tensor(ids)))  # (n_tokens, state width)
    if network.pooling == "last":
        pooled = torch.cat([states[-1, :width], states[0, width:]])
    elif network.pooling == "mean":
        pooled = states.mean(dim=0)
    else:
        pooled = states.amax(dim=0)
    return network.output(pooled)


@pytest.mark.parametrize("end_token", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_packed_texts_are_read_as_each_text_alone(pooling, bidirectional, end_token):
    network = make(pooling=pooling, bidirectional=bidirectional, end_token=end_token)
    target = torch.randn(len(ROWS), 6, dtype=torch.float64)
    gradients = []
    outputs = []
    for embed in (
        lambda: network(pack(ROWS)),
        lambda: torch.stack([embed_alone(network, row) for row in ROWS]),
    ):
        network.zero_grad()
        outputs.append(embed())
        (outputs[-1] * target).sum().backward()
        gradients.append({name: parameter.grad.clone() for name, parameter in network.named_parameters()})
    torch.testing.assert_close(outputs[0], outputs[1])
    for name, gradient in gradients[1].items():
        torch.testing.assert_close(gradients[0][name], gradient, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("rows", [ROWS, ROWS[::-1], [[1]], [[], [2, 3]]], ids=str)
def test_time_major_order_puts_all_first_tokens_first(rows):
    layout = _time_major(pack(rows).lengths)
    lengths = [len(row) for row in rows]
    by_length = sorted((text for text in range(len(rows)) if rows[text]), key=lambda text: -lengths[text])
    assert layout.order.tolist() == by_length
    assert layout.batch_sizes.tolist() == [sum(length > t for length in lengths) for t in range(max(lengths))]
    read = torch.empty(sum(lengths), dtype=torch.int64)
    read[layout.row] = pack(rows).ids
    assert read.tolist() == [rows[text][t] for t in range(max(lengths)) for text in by_length if lengths[text] > t]


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_text_without_words_has_the_initial_state(pooling):
    embedding = make(pooling=pooling)(pack(ROWS))
    assert embedding[1].eq(0).all()
    assert embedding[5].eq(0).all()


@pytest.mark.parametrize("end_token", [False, True])
def test_a_batch_may_hold_nothing_but_empty_texts(end_token):
    embedding = make(end_token=end_token, bidirectional=True)(pack([[], []]))
    assert embedding.shape == (2, 6)
    torch.testing.assert_close(embedding[0], embedding[1])


def test_the_end_token_is_one_more_step_with_a_vector_that_is_trained():
    plain, ended = make(), make(end_token=True)
    ended.load_state_dict(plain.state_dict())
    assert (plain(pack([[1, 2]])) - ended(pack([[1, 2]]))).abs().max() > 0.01
    torch.testing.assert_close(plain(pack([[1, 2, 0]])), ended(pack([[1, 2]])))
    ended(pack([[1, 2]])).sum().backward()
    assert ended.words.weight.grad[0].abs().max() > 0


def test_weights_are_drawn_as_published():
    torch.manual_seed(0)
    network = TextGRU(50, 16, word_dim=12)
    assert 0.09 < network.words.weight.abs().max() <= 0.1
    assert 0.09 < network.recurrent.weight_ih_l0.abs().max() <= 0.1
    for gate in network.recurrent.weight_hh_l0.chunk(3):
        torch.testing.assert_close(gate @ gate.T, torch.eye(16), rtol=0, atol=1e-5)
    assert network.recurrent.bias_ih_l0.eq(0).all()
    assert network.recurrent.bias_hh_l0.eq(0).all()
    for gate in TextGRU(50, 16, word_dim=16).recurrent.weight_ih_l0.chunk(3):  # square ones are orthogonal too
        torch.testing.assert_close(gate @ gate.T, torch.eye(16), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("parameters", "is_state"),
    [({}, True), ({"hidden_size": 6}, True), ({"hidden_size": 5}, False), ({"bidirectional": True}, False)],
    ids=str,
)
def test_the_state_is_the_embedding_where_it_fits(parameters, is_state):
    network = make(**parameters)
    assert isinstance(network.output, nn.Identity) == is_state
    assert network(pack(ROWS)).shape == (6, 6)


def test_words_are_dropped_whole_and_only_in_training():
    torch.manual_seed(0)
    dropped = drop_words(torch.ones(1000, 3), 0.25)
    assert torch.equal(dropped[:, :1].expand(-1, 3), dropped)
    kept = dropped[:, 0] > 0
    assert kept.float().mean().item() == pytest.approx(0.75, abs=0.05)
    np.testing.assert_allclose(dropped[kept], 1 / 0.75, rtol=1e-6)

    network = make(dropout=0.5)
    first = network.eval()(pack(ROWS))
    torch.testing.assert_close(network(pack(ROWS)), first)
    assert (network.train()(pack(ROWS)) - first).abs().max() > 0.01


def test_the_configuration_builds_the_same_network_again():
    network = make(hidden_size=5, bidirectional=True, pooling="max", end_token=True, dropout=0.1)
    again = TextGRU(**network.config).double()
    again.load_state_dict(network.state_dict())
    torch.testing.assert_close(again.eval()(pack(ROWS)), network.eval()(pack(ROWS)))
