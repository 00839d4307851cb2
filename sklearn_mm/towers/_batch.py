"""Choosing rows of a batch and joining two, whatever a batch is."""

from collections.abc import Mapping
from typing import Any, Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from sklearn_mm._device import tuple_like

__all__ = ["RowBatch", "join_batches", "take_rows"]


@runtime_checkable
class RowBatch(Protocol):
    """A batch whose tensors do not simply have a row for each input."""

    def take(self, rows: Tensor) -> Self:
        """Return the batch of some of its inputs, int64."""
        ...

    def join(self, other: Self) -> Self:
        """Return the batch of its inputs, then the other's."""
        ...


def take_rows(batch: Any, rows: Tensor) -> Any:
    """Return the batch of some inputs, in the order given.

    Parameters
    ----------
    batch : RowBatch, or Tensor, or tuple or mapping of them
        Of n inputs.
    rows : Tensor of shape (n_chosen,), int64
    """
    # Asked first: texts as packed tokens are a named tuple too. isinstance looks for the names of a protocol alone: a
    # tensor has a `take`, but no `join`.
    if isinstance(batch, RowBatch):
        return batch.take(rows)
    if isinstance(batch, Tensor):
        return batch[rows]
    if isinstance(batch, Mapping):
        return {name: take_rows(part, rows) for name, part in batch.items()}
    return tuple_like(batch, [take_rows(part, rows) for part in batch])


def join_batches(first: Any, second: Any) -> Any:
    """Return the batch of the inputs of the first, then of the second, of one kind."""
    if isinstance(first, RowBatch):
        return first.join(second)
    if isinstance(first, Tensor):
        return torch.cat([first, second])
    if isinstance(first, Mapping):
        return {name: join_batches(part, second[name]) for name, part in first.items()}
    return tuple_like(first, [join_batches(*parts) for parts in zip(first, second, strict=True)])
