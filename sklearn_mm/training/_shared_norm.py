"""Batch norms that see the batch of all processes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.modules.batchnorm import _BatchNorm

from sklearn_mm.training._processes import Processes

__all__ = ["shared_batch_norms"]


@contextmanager
def shared_batch_norms(model: nn.Module, processes: Processes, own: Sequence[nn.Module] = ()) -> Iterator[None]:
    """Let the batch norms of a model that are in training mode normalise by the rows of all processes in the block.

    torch has the same for GPUs alone (`SyncBatchNorm`).

    Parameters
    ----------
    model : Module
    processes : Processes
    own : sequence of Module
        Parts whose batch norms go on to see the rows of their process: those that not every process runs alike.
    """
    if processes.n == 1:
        yield
        return
    left = {norm for part in own for norm in part.modules()}
    norms = [part for part in model.modules() if isinstance(part, _BatchNorm) and part not in left]
    for norm in norms:
        shared: Any = _SharedForward(norm, processes)
        norm.forward = shared  # type: ignore[method-assign]  # of this module alone, for a while
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward  # the class's is there again


class _SharedForward:
    """What a batch norm does instead, set on that one module."""

    def __init__(self, norm: _BatchNorm, processes: Processes) -> None:
        self._norm, self._processes = norm, processes

    def __call__(self, inputs: Tensor) -> Tensor:
        norm = self._norm
        if not norm.training:
            out: Tensor = type(norm).forward(norm, inputs)
            return out
        axes = [axis for axis in range(inputs.ndim) if axis != 1]
        shape = [-1 if axis == 1 else 1 for axis in range(inputs.ndim)]
        values = inputs.float()
        number = values.new_full((1,), values.numel() / values.shape[1])
        sums = self._sum(torch.cat([values.sum(axes), number]))
        mean, n_rows = sums[:-1] / sums[-1], sums[-1].detach()
        centred = values - mean.view(shape)
        variance = self._sum(centred.square().sum(axes)) / n_rows
        self._note(mean.detach(), variance.detach() * n_rows / (n_rows - 1).clamp_min(1))
        normal = centred * torch.rsqrt(variance + norm.eps).view(shape)
        if norm.affine:
            normal = normal * norm.weight.view(shape) + norm.bias.view(shape)
        return normal.to(inputs.dtype)

    def _note(self, mean: Tensor, variance: Tensor) -> None:
        norm = self._norm
        if norm.running_mean is None or norm.running_var is None or norm.num_batches_tracked is None:
            return
        with torch.no_grad():
            norm.num_batches_tracked += 1
            share = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
            norm.running_mean.lerp_(mean, share)
            norm.running_var.lerp_(variance, share)

    def _sum(self, part: Tensor) -> Tensor:
        total: Tensor = _Summed.apply(part, self._processes)
        return total


class _Summed(torch.autograd.Function):
    """The sum over processes; what each of them makes of it counts for the parts of all."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, processes: Processes) -> Tensor:
        ctx.processes = processes
        total = part.clone()
        dist.all_reduce(total, group=processes.tensors)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        total = grads[0].contiguous().clone()
        dist.all_reduce(total, group=ctx.processes.tensors)
        return total, None
