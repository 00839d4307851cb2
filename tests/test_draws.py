"""Random numbers of a thread's own: the same as those of torch's seeded generator, which is left alone."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn import init
from torch.utils.checkpoint import checkpoint

from sklearn_mm._draws import _DRAWN_BY, OwnDraws, generator_of, nothing_drawn

CPU = torch.device("cpu")


def table():
    return torch.linspace(0.1, 0.9, 60).reshape(2, 5, 6)


def packed():
    return nn.utils.rnn.pack_sequence([torch.ones(4, 3), torch.ones(2, 3)])


def trained(module, *inputs):
    """What a module in training answers, and the gradient of its first parameter."""
    answer = module.train()(*inputs)
    answer = answer[0] if isinstance(answer, tuple) else answer
    answer = answer.data if isinstance(answer, nn.utils.rnn.PackedSequence) else answer
    answer.square().sum().backward()
    return torch.cat([answer.flatten(), next(module.parameters()).grad.flatten()])


def tokens():
    return torch.linspace(-1, 1, 2 * 5 * 8).reshape(2, 5, 8)


DRAWS = {
    "rand": lambda: torch.rand(3),
    "rand, out": lambda: torch.rand(3, out=torch.empty(3)),
    "randn": lambda: torch.randn(40),
    "randint": lambda: torch.randint(9, (5,)),
    "randperm": lambda: torch.randperm(9),
    "rand_like": lambda: torch.rand_like(table()),
    "randn_like": lambda: torch.randn_like(table()),
    "randint_like": lambda: torch.randint_like(table(), 9),
    "normal": lambda: torch.normal(table(), 2.0),
    "bernoulli": lambda: torch.bernoulli(table()),
    "Tensor.bernoulli": lambda: table().bernoulli(),
    "Tensor.bernoulli_": lambda: torch.empty(2, 1).bernoulli_(0.3),
    "Tensor.multinomial": lambda: table().flatten().multinomial(4),
    "Tensor.uniform_": lambda: torch.empty(4).uniform_(2, 3),
    "Tensor.exponential_": lambda: torch.empty(4).exponential_(),
    "poisson": lambda: torch.poisson(table()),
    "binomial": lambda: torch.binomial(torch.full((5,), 9.0), torch.full((5,), 0.5)),
    "Gamma": lambda: torch.distributions.Gamma(torch.ones(4), 2.0).sample(),
    "Dirichlet": lambda: torch.distributions.Dirichlet(torch.ones(4)).sample(),
    "kaiming": lambda: init.kaiming_uniform_(torch.empty(3, 4)),
    "kaiming normal": lambda: init.kaiming_normal_(torch.empty(3, 4)),
    "xavier": lambda: init.xavier_normal_(torch.empty(3, 4)),
    "orthogonal": lambda: init.orthogonal_(torch.empty(3, 4)),
    "truncated": lambda: init.trunc_normal_(torch.empty(3, 4)),
    "sparse": lambda: init.sparse_(torch.empty(3, 4), 0.5),
    "layers": lambda: torch.cat(
        [
            value.flatten()
            for module in (nn.GRU(3, 4), nn.Embedding(5, 3), nn.Conv2d(3, 4, 2))
            for value in module.parameters()
        ]
    ),
    "dropout": lambda: F.dropout(table(), 0.3),
    "dropout, channels last": lambda: F.dropout(
        torch.ones(2, 3, 4, 5).contiguous(memory_format=torch.channels_last), 0.3
    ),
    "dropout, in place": lambda: F.dropout(table(), 0.3, inplace=True),
    "dropout of all": lambda: F.dropout(table(), 1.0),
    "dropout in use": lambda: F.dropout(table(), 0.3, training=False),
    "nn.Dropout": lambda: nn.Dropout(0.2)(table()),
    "nn.Dropout2d": lambda: nn.Dropout2d(0.5)(torch.ones(2, 5, 3, 3)),
    "torch.dropout": lambda: torch.dropout(table(), 0.3, True),
    "torch.native_dropout": lambda: torch.native_dropout(table(), 0.3, True)[0],
    "alpha": lambda: nn.AlphaDropout(0.3)(table()),
    "rrelu": lambda: F.rrelu(-table(), training=True),
    "gumbel": lambda: F.gumbel_softmax(table()),
    "fractional pool": lambda: F.fractional_max_pool2d(table()[None], 2, output_size=2),
    "low rank": lambda: torch.svd_lowrank(table()[0], 2)[0].abs(),
    "gradient": lambda: trained(nn.Sequential(nn.Linear(6, 4), nn.Dropout(0.5)), table()),
    "recurrent": lambda: trained(nn.GRU(3, 4, num_layers=2, dropout=0.5), torch.ones(4, 2, 3)),
    "recurrent, packed": lambda: trained(nn.LSTM(3, 4, num_layers=2, dropout=0.5), packed()),
    "attention": lambda: F.scaled_dot_product_attention(tokens(), tokens(), tokens(), dropout_p=0.3),
    "attention layer": lambda: trained(nn.MultiheadAttention(8, 2, dropout=0.3), tokens(), tokens(), tokens()),
    "transformer": lambda: trained(nn.TransformerEncoderLayer(8, 2, 16, dropout=0.3), tokens()),
}


@pytest.mark.parametrize("name", DRAWS)
def test_draws_are_those_of_a_seeded_torch_and_leave_it_alone(name):
    draw = DRAWS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        expected = [draw(), draw(), torch.rand(2)]
    before = torch.get_rng_state()
    with OwnDraws(5):
        drawn = [draw(), draw(), torch.rand(2)]
    assert torch.equal(torch.get_rng_state(), before)
    for one, other in zip(drawn, expected, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", ["dropout", "rand", "alpha", "attention"])
def test_draws_without_a_gradient_are_the_same(name):
    draw = DRAWS[name]
    with OwnDraws(5):
        expected = draw()
    before = torch.get_rng_state()
    with OwnDraws(5), torch.inference_mode():
        assert torch.equal(draw(), expected)
    assert torch.equal(torch.get_rng_state(), before)


def test_every_operator_of_torch_that_draws_is_known():
    """A torch function made of an operator that draws is in the table, or draws in no public way."""
    known = {getattr(func, "__name__", "") for func in _DRAWN_BY}
    drawing = set()
    for name in dir(torch.ops.aten):
        packet = getattr(torch.ops.aten, name)
        overloads = packet.overloads() if hasattr(packet, "overloads") else []
        if any(torch.Tag.nondeterministic_seeded in getattr(packet, overload).tags for overload in overloads):
            drawing.add(name)
    # private ones, and AMD's recurrent network, are what the public ones are made of
    public = {name for name in drawing if name[0] != "_" and (hasattr(torch, name) or hasattr(torch.Tensor, name))}
    assert len(public) > 15
    assert public <= known | {"miopen_rnn"}


def test_a_generator_that_is_given_is_drawn_from():
    given = [torch.Generator().manual_seed(1) for _ in range(2)]
    with OwnDraws(5):
        drawn = torch.rand(3, generator=given[0])
    assert torch.equal(drawn, torch.rand(3, generator=given[1]))


def test_an_inner_block_has_numbers_of_its_own_and_the_outer_one_goes_on():
    with OwnDraws(1):
        expected = [torch.rand(2), torch.rand(2)]
    with OwnDraws(2):
        inside = [F.dropout(table(), 0.5), F.alpha_dropout(table(), 0.5, True), torch.rand(2)]
    with OwnDraws(1):
        first = torch.rand(2)
        with OwnDraws(2):
            assert torch.equal(F.dropout(table(), 0.5), inside[0])
            assert torch.equal(F.alpha_dropout(table(), 0.5, True), inside[1])
            assert torch.equal(torch.rand(2), inside[2])
        assert torch.equal(first, expected[0])
        assert torch.equal(torch.rand(2), expected[1])


def test_a_block_is_left_after_an_error():
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match="probability"), OwnDraws(1):
        F.dropout(table(), 2.0)
    assert generator_of(CPU) is torch.default_generator
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_dropout_in_a_gradient_checkpoint_is_refused_and_anything_else_in_it_is_not(use_reentrant):
    given = torch.ones(4, requires_grad=True)
    with OwnDraws(1):
        checkpoint(torch.exp, given, use_reentrant=use_reentrant).sum().backward()
        with pytest.raises(RuntimeError, match="turn gradient checkpointing off"):
            checkpoint(nn.Dropout(0.5), given, use_reentrant=use_reentrant)
    assert torch.equal(given.grad, torch.ones(4).exp())


def test_on_the_meta_device_nothing_is_drawn():
    with torch.device("meta"), OwnDraws(1):
        layer = nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5))
        assert layer(torch.rand(4, 3)).device.type == "meta"


def test_where_nothing_is_drawn_the_mode_is_off_and_comes_back():
    with OwnDraws(1) as draws:
        expected = torch.rand(2)
    with OwnDraws(1) as draws:
        with nothing_drawn():
            assert torch.overrides._get_current_function_mode() is None
        assert torch.overrides._get_current_function_mode() is draws
        assert torch.equal(torch.rand(2), expected)
        with torch.device("meta"), nothing_drawn():  # another mode on top of it stays
            assert torch.empty(1).device.type == "meta"


def test_threads_draw_each_their_own():
    seeds, barrier = range(8), Barrier(8)
    layer = nn.Dropout(0.5)

    def draw(seed):
        with OwnDraws(seed):
            barrier.wait(timeout=60)
            return torch.stack([layer(torch.ones(5)) + torch.rand(5) for _ in range(20)])

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(draw, seeds))
    barrier = Barrier(1)
    for seed, drawn in zip(seeds, together, strict=True):
        assert torch.equal(drawn, draw(seed))
