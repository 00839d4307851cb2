"""A large batch passes a network chunk by chunk, with the gradient of all chunks at once."""

import copy

import pytest
import torch
from torch import nn

from sklearn_mm._device import forked_rng, generator_of, nothing_drawn
from sklearn_mm.towers._chunks import chunks_of, pass_in_chunks

CPU = torch.device("cpu")


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(4, 6), nn.Dropout(0.5), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.3), nn.Linear(6, 3)
    )


def rows(n=11):
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(1))


def loss_of(answers):
    """Of all rows with all others, so that no row's gradient is its own."""
    scores = answers @ answers.T
    return (torch.logsumexp(scores, dim=1) - scores.diagonal()).mean()


def trained(module, embed):
    """Return the loss, the gradients, the buffers and what is drawn next."""
    with forked_rng(0):
        loss = loss_of(embed(module))
        with nothing_drawn():
            loss.backward()
        following = generator_of(CPU).get_state()
    return loss.detach(), [p.grad for p in module.parameters()], list(module.buffers()), following


@pytest.mark.parametrize("chunk_size", [2, 3, 4, 11])
def test_the_gradient_is_that_of_all_chunks_at_once_with_the_same_dropout(chunk_size):
    module = network()
    chunks = [rows()[chunk] for chunk in chunks_of(11, chunk_size)]
    with_graphs = trained(copy.deepcopy(module), lambda module: torch.cat([module(chunk) for chunk in chunks]))
    in_chunks = trained(copy.deepcopy(module), lambda module: pass_in_chunks(module, chunks, module, CPU))
    for one, other in zip(in_chunks, with_graphs, strict=True):
        torch.testing.assert_close(one, other)
    assert torch.equal(in_chunks[0], with_graphs[0])
    # Batch norms have counted each chunk once, and the draws that follow are the same.
    assert int(in_chunks[2][2]) == len(chunks)
    assert torch.equal(in_chunks[3], with_graphs[3])


def test_the_second_pass_draws_the_numbers_of_the_first_outside_of_a_fit_too():
    drawn = []

    class Noise(nn.Linear):
        def forward(self, input):
            drawn.append(torch.rand(3))
            return super().forward(input)

    module = Noise(4, 2)
    torch.manual_seed(0)
    answers = pass_in_chunks(module, list(rows().split(4)), module, CPU)
    following = torch.get_rng_state()
    answers.sum().backward()
    assert len(drawn) == 6
    assert all(torch.equal(one, other) for one, other in zip(drawn[:3], drawn[3:], strict=True))
    assert not torch.equal(drawn[0], drawn[1])
    assert torch.equal(torch.get_rng_state(), following)


class Held(torch.autograd.Function):
    """The identity, which counts the graphs that hold something of it."""

    now = most = 0

    class Token:
        def __init__(self):
            Held.now += 1
            Held.most = max(Held.most, Held.now)

        def __del__(self):
            Held.now -= 1

    @staticmethod
    def forward(ctx, input):
        ctx.token = Held.Token()
        return input.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad


def test_what_a_gradient_takes_is_held_for_one_chunk_at_a_time():
    linear = nn.Linear(4, 2)
    chunks = list(rows(64).split(4))

    def most_held(embed):
        Held.most = Held.now = 0
        loss_of(embed()).backward()
        return Held.most

    def through(chunk):
        return Held.apply(linear(chunk))

    assert most_held(lambda: torch.cat([through(chunk) for chunk in chunks])) == 16
    assert most_held(lambda: pass_in_chunks(through, chunks, linear, CPU)) == 1


def test_a_network_that_does_not_learn_is_passed_once():
    module, calls = nn.Linear(4, 2).requires_grad_(False), []
    module.register_forward_hook(lambda *_: calls.append(1))
    weight = torch.ones(2, requires_grad=True)
    answers = pass_in_chunks(module, list(rows().split(4)), module, CPU)
    assert not answers.requires_grad
    (answers * weight).sum().backward()
    assert len(calls) == 3
    with torch.no_grad():
        torch.testing.assert_close(pass_in_chunks(network().eval(), [rows()], module, CPU), network().eval()(rows()))


@pytest.mark.parametrize(
    ("n_rows", "chunk_size", "sizes"),
    [(8, 4, [4, 4]), (9, 4, [3, 3, 3]), (3, 4, [3]), (3, 2, [3]), (5, 2, [3, 2]), (4, 2, [2, 2]), (0, 2, [0])],
)
def test_chunks_are_about_equal_and_none_is_a_lone_row(n_rows, chunk_size, sizes):
    chunks = chunks_of(n_rows, chunk_size)
    assert [len(chunk) for chunk in chunks] == sizes
    assert torch.cat(chunks).tolist() == list(range(n_rows))
