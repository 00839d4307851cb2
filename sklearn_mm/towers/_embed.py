"""The one loop that embeds rows: batches are made in a thread while the network runs."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from sklearn_mm._device import autocast, ready_to_copy, settle, to_device
from sklearn_mm.training import made_ahead

__all__ = ["embed", "n_rows_of"]


def n_rows_of(rows: Any) -> int:
    """Count prepared rows: those of a matrix, or of anything with a length."""
    if hasattr(rows, "shape"):
        return int(rows.shape[0])
    if not hasattr(type(rows), "__len__"):
        raise TypeError(f"expected rows with a length, got a {type(rows).__name__}; make it a list")
    return len(rows)


def embed(
    module: nn.Module,
    collate: Callable[[Any], Any],
    rows: Any,
    *,
    batch_size: int,
    device: torch.device,
    dtype: torch.dtype,
    finish: Callable[[Tensor], Tensor] = Tensor.float,
    title: str | None = None,
) -> np.ndarray:
    """Run a module over `rows` in evaluation mode.

    Parameters
    ----------
    module : Module
        It is brought to the device, and stays there.
    collate : callable
        From some rows to what the module takes, on the CPU.
    rows : sequence
        Anything with a length or a shape that can be sliced.
    batch_size : int
    device, dtype : torch.device, torch.dtype
    finish : callable
        Applied to each batch of the output; gives float32.
    title : str, optional
        Of the bar that shows progress.

    Returns
    -------
    ndarray of shape (n_rows, n_components), float32
    """
    n_rows = n_rows_of(rows)
    # Nothing is moved or switched where all is in place: threads may ask one model at the same time.
    settle(module, device)
    starts = range(0, n_rows, batch_size)
    made: Iterator[Any] = (collate(rows[start : start + batch_size]) for start in starts)
    if len(starts) > 1:  # a thread for one batch has nothing to work beside
        made = made_ahead(ready_to_copy(batch, device) for batch in made)
    out: np.ndarray | None = None  # known by the first batch, and then filled in place: never there twice
    with (
        tqdm(total=n_rows, desc=title, unit="row", disable=title is None) as bar,
        torch.inference_mode(),
        autocast(device, dtype),
    ):
        for batch, start in zip(made, starts, strict=True):
            # To the CPU batch by batch: the device holds one batch, whatever the number of rows.
            part = finish(module(to_device(batch, device))).cpu().numpy()
            if out is None:
                out = np.empty((n_rows, *part.shape[1:]), dtype=part.dtype)
            out[start : start + len(part)] = part
            bar.update(len(part))
    if out is None:
        raise ValueError("expected at least one row to embed, got none")
    return out
