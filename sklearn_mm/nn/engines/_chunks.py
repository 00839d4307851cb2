"""Chunks of one size, for engines that are compiled for it."""

from collections.abc import Iterator

import torch
from torch import Tensor

__all__ = ["full_chunks"]


def full_chunks(pixels: Tensor, chunk_size: int) -> Iterator[Tensor]:
    """Yield chunks of pixels (n, 3, h, w), the last one filled up with zeros."""
    for chunk in torch.split(pixels, chunk_size):
        if len(chunk) < chunk_size:
            filling = chunk.new_zeros((chunk_size - len(chunk), *chunk.shape[1:]))
            yield torch.cat([chunk, filling])
        else:
            yield chunk
