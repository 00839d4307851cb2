"""A batch of chosen rows, and two batches joined, are what the encoder would have made of these rows."""

from collections import UserDict
from typing import NamedTuple

import numpy as np
import pytest
import torch

from sklearn_mm.features import TextCNNEncoder, TextNGramEncoder
from sklearn_mm.nn.packed import PackedTexts
from sklearn_mm.towers import join_batches, take_rows

TEXTS = ["a red dot", "", "a box", "blue", "a green star on paper", "dot"]
X = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)


class Named(NamedTuple):
    values: torch.Tensor
    inner: object


def tensor_of(rows):
    return torch.from_numpy(X[rows])


def named_of(rows):
    return Named(tensor_of(rows), {"mask": tensor_of(rows) > 0, "texts": packed_of(rows)})


def dict_of(rows):
    return {"input_ids": tensor_of(rows), "inner": (Named(tensor_of(rows)[:, 0], tensor_of(rows)[:, 1]))}


ENCODER = TextNGramEncoder(4, word_dim=4, ngram_range=(1, 2)).initialize(TEXTS, random_state=0)
CONVOLUTIONAL = TextCNNEncoder(4, width=0.05, word_dim=4).initialize(TEXTS, random_state=0)


@pytest.fixture(scope="module", params=["n-grams", "convolutional"])
def encoder(request):
    return ENCODER if request.param == "n-grams" else CONVOLUTIONAL


def packed_of(rows):
    """Texts with shifts, as training makes them."""
    lengths = [len(TEXTS[row].split()) for row in rows]
    ids = [row * 10 + word for row, length in zip(rows, lengths, strict=True) for word in range(length)]
    parts = (ids, lengths, [row % 3 for row in rows])
    return PackedTexts(*(torch.tensor(part, dtype=torch.int64) for part in parts))


def assert_same(one, other):
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            assert_same(one[name], other[name])
    else:
        for parts in zip(one, other, strict=True):
            assert_same(*parts)


BATCHES = {"tensor": tensor_of, "mapping": dict_of, "named tuple": named_of, "texts": packed_of}


@pytest.mark.parametrize("make", BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize("rows", [[0], [5, 0], [1, 1, 1], [4, 1, 0, 4, 2], []], ids=str)
def test_rows_that_are_taken_are_those_rows_in_the_order_given(make, rows):
    assert_same(take_rows(make([0, 1, 2, 3, 4, 5]), torch.tensor(rows, dtype=torch.int64)), make(rows))


@pytest.mark.parametrize("make", BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize("n_first", [0, 1, 2, 5, 6])
def test_joined_batches_are_the_batch_of_all_rows(make, n_first):
    rows = [0, 3, 1, 1, 5, 4]
    assert_same(join_batches(make(rows[:n_first]), make(rows[n_first:])), make(rows))


@pytest.mark.parametrize("rows", [[2, 0, 4], [1, 3], [5]], ids=str)
def test_texts_are_embedded_as_if_they_had_been_put_together_so_from_the_start(encoder, rows):
    prepared = encoder.prepare([text or "dot" for text in TEXTS])
    whole, module = encoder.collate(prepared), encoder.module_.eval()
    taken = take_rows(whole, torch.tensor(rows))
    assert_same(taken, encoder.collate(prepared[np.array(rows)]))
    joined = join_batches(taken, take_rows(whole, torch.tensor([3, 3])))
    assert_same(joined, encoder.collate(prepared[np.array([*rows, 3, 3])]))
    with torch.no_grad():
        torch.testing.assert_close(module(joined)[: len(rows)], module(whole)[rows], rtol=1e-4, atol=1e-5)


def test_any_mapping_will_do():
    """A tokenizer's batch encoding is one."""
    batch = UserDict(input_ids=tensor_of([0, 1, 2]), attention_mask=tensor_of([3, 4, 5]))
    taken = take_rows(batch, torch.tensor([2, 0]))
    assert_same(taken, {"input_ids": tensor_of([2, 0]), "attention_mask": tensor_of([5, 3])})
    assert_same(
        join_batches(batch, batch),
        {"input_ids": tensor_of([0, 1, 2] * 2), "attention_mask": tensor_of([3, 4, 5] * 2)},
    )


def test_a_plain_tuple_of_tensors_will_do():
    batch = (tensor_of([0, 1, 2]), tensor_of([3, 4, 5]))
    assert_same(take_rows(batch, torch.tensor([2, 0])), (tensor_of([2, 0]), tensor_of([5, 3])))
    assert_same(join_batches(batch, batch), (tensor_of([0, 1, 2] * 2), tensor_of([3, 4, 5] * 2)))
