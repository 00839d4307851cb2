import pytest
import torch
from torch import nn

from sklearn_mm.nn.packed import PackedTexts
from sklearn_mm.nn.text_sequence import TextSequence

ROWS = [[3, 1, 4], [], [2, 2, 7, 1, 8, 5, 9], [6], [5, 3], []]


def pack(rows):
    return PackedTexts(
        torch.tensor([number for row in rows for number in row], dtype=torch.int64),
        torch.tensor([len(row) for row in rows], dtype=torch.int64),
        torch.zeros(len(rows), dtype=torch.int64),
    )


def make(**parameters):
    torch.manual_seed(0)
    network = TextSequence(9, 6, **{"word_dim": 4, "phrase_dim": 5, **parameters}).double()
    nn.init.normal_(network.position_weights)
    nn.init.normal_(network.phrase.bias)
    return network


def embed_alone(network, row):
    """Sum a text's phrases in a loop, as the docstring says."""
    knots = len(network.position_weights)
    total = torch.zeros(network.phrase.out_features, dtype=torch.float64)
    for end in range(len(row)):
        window = []
        for place in range(end - network.window + 1, end + 1):
            empty = torch.zeros(network.words.embedding_dim, dtype=torch.float64)
            window.append(network.words.weight[row[place]] if place >= 0 else empty)
        phrase = torch.tanh(network.phrase.weight @ torch.cat(window) + network.phrase.bias)
        place = (end + 0.5) / len(row)  # 0 is the beginning of the text, 1 its end
        weight = network.position_weights[0]
        for knot in range(knots - 1):
            left, right = knot / (knots - 1), (knot + 1) / (knots - 1)
            if left <= place <= right:
                share = (place - left) / (right - left)
                weight = (1 - share) * network.position_weights[knot] + share * network.position_weights[knot + 1]
        total = total + weight * phrase
    return network.hidden((total / max(len(row), 1) ** 0.5)[None])[0]


@pytest.mark.parametrize("n_positions", [1, 2, 3, 8])
@pytest.mark.parametrize("window", [1, 3, 5])
def test_packed_texts_are_embedded_as_each_text_alone(window, n_positions):
    network = make(window=window, n_positions=n_positions)
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


def test_weights_differ_by_position_and_stretch_over_texts_of_any_length():
    network = make(n_positions=2)
    with torch.no_grad():
        network.position_weights.copy_(torch.tensor([0.0, 1.0]))
    for length in (1, 2, 500):
        lengths = torch.full((length,), length)
        weights = network._weights(torch.arange(length), lengths)
        torch.testing.assert_close(weights.mean().item(), 0.5)
        assert (weights.diff() > 0).all()
    assert weights[0] < 0.01
    assert weights[-1] > 0.99


def test_the_same_words_in_another_order_are_another_text():
    network = make()
    first, second = network(pack([[1, 2, 3], [3, 2, 1]]))
    assert (first - second).abs().max() > 0.01


def test_weights_are_alike_at_first():
    torch.manual_seed(0)
    assert TextSequence(9, 6).position_weights.eq(1).all()


def test_what_enters_tanh_at_first_is_neither_small_nor_saturated():
    torch.manual_seed(0)
    network = TextSequence(200, 6)
    ids = torch.randint(1, 201, (1000,))
    words = network.words(ids)
    inputs = network.phrase(network._windows(words, torch.arange(1000)))
    assert 0.9 < inputs.std().item() < 1.1


def test_texts_without_words_share_one_finite_embedding():
    network = make(hidden_layer_sizes=(7,)).eval()
    embedding = network(pack(ROWS))
    torch.testing.assert_close(embedding[1], embedding[5])
    torch.testing.assert_close(network(pack([[], []]))[0], embedding[1])
    assert embedding.isfinite().all()


def test_words_are_dropped_only_in_training():
    network = make(dropout=0.5)
    first = network.eval()(pack(ROWS))
    torch.testing.assert_close(network(pack(ROWS)), first)
    assert (network.train()(pack(ROWS)) - first).abs().max() > 0.01


def test_the_configuration_builds_the_same_network_again():
    network = make(window=2, n_positions=4, hidden_layer_sizes=(7,), dropout=0.1)
    again = TextSequence(**network.config).double()
    again.load_state_dict(network.state_dict())
    torch.testing.assert_close(again.eval()(pack(ROWS)), network.eval()(pack(ROWS)))
