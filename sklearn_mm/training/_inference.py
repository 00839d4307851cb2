"""Embed rows in batches."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sklearn_mm._device import autocast

__all__ = ["embed"]


def embed(
    modules: Sequence[nn.Module],
    collate: Callable[[Any], Any],
    rows: Any,
    *,
    batch_size: int,
    device: torch.device,
    dtype: torch.dtype,
    finish: Callable[[Tensor], Tensor] = Tensor.float,
) -> np.ndarray:
    """Run `modules`, one after the other, over `rows` in evaluation mode.

    Parameters
    ----------
    modules : sequence of Module
        They are moved to `device`, and left in evaluation mode.
    collate : callable
        From some rows to what the first module takes, on the device.
    rows : sequence
        Anything with a length that can be sliced.
    batch_size : int
    device, dtype : torch.device, torch.dtype
    finish : callable
        Applied to each batch of the output; gives float32.

    Returns
    -------
    ndarray of shape (n_rows, n_components), float32
    """
    n_rows = rows.shape[0] if hasattr(rows, "shape") else len(rows)
    for module in modules:
        module.to(device).eval()
    parts: list[np.ndarray] = []
    with torch.inference_mode(), autocast(device, dtype):
        for start in range(0, n_rows, batch_size):
            out = collate(rows[start : start + batch_size])
            for module in modules:
                out = module(out)
            parts.append(finish(out).cpu().numpy())
    return np.concatenate(parts)
