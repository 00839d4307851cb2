"""The graph of a network compiled by ``torch.compile``."""

from collections.abc import Callable

import torch
from torch import Tensor, fx

from sklearn_mm.nn.engines._chunks import full_chunks

__all__ = ["compiled_by_torch"]


def compiled_by_torch(module: fx.GraphModule, chunk_size: int) -> Callable[[Tensor], Tensor]:
    """Return a function from pixels (n, 3, h, w) to what is read, float32 (n, d); it is compiled in its first call."""
    module.to(memory_format=torch.channels_last)
    # with the weights as constants, which may be brought into the order that is fastest
    compiled = torch.compile(module, options={"freezing": True}, dynamic=False)

    def run(pixels: Tensor) -> Tensor:
        # inference mode marks tensors in a way that is compiled for anew
        with torch.inference_mode(False), torch.no_grad():
            chunks = full_chunks(pixels.clone(), chunk_size)
            return torch.cat([torch.cat(compiled(chunk), dim=1) for chunk in chunks])[: len(pixels)]

    return run
