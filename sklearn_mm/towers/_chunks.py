"""A large batch in the memory of a small one: its rows pass a network chunk by chunk, twice where a gradient asks."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from sklearn_mm._device import RecordedDraws

__all__ = ["chunks_of", "pass_in_chunks"]


def chunks_of(n_rows: int, chunk_size: int) -> list[Tensor]:
    """Cut rows into chunks of about one size: at most `chunk_size` rows, but never a single row beside others.

    Returns
    -------
    list of Tensor of shape (n_chunk,), int64
    """
    n_chunks = max(1, -(-n_rows // chunk_size))
    # A batch norm needs two rows, as in the batches of an epoch.
    if n_chunks > 1 and n_rows // n_chunks < 2:
        n_chunks -= 1
    return list(torch.arange(n_rows).tensor_split(n_chunks))


def pass_in_chunks(
    answer: Callable[[Any], Tensor], chunks: Sequence[Any], network: nn.Module, device: torch.device
) -> Tensor:
    """Return what a network answers to all chunks, holding what its gradient takes for one of them at a time.

    Parameters
    ----------
    answer : callable
        From a chunk to a row for each of its inputs, by `network`.
    chunks : sequence
    network : Module
        The parameters that learn are its own, or others that `answer` uses.
    device : torch.device
        On which it draws.

    Returns
    -------
    Tensor of shape (n, d)
        In the order of the chunks. Its gradient, when it comes, sends each chunk through the network once more.

    Notes
    -----
    Gradients go into the parameters by ``backward()`` alone; ``torch.autograd.grad`` does not see them.

    The second pass draws the numbers of the first (dropout), and leaves the network's buffers as the first has left
    them: running means of batch norms see each chunk once. They normalise by the statistics of a chunk.

    References
    ----------
    .. [1] Gao, Zhang, Han, Callan, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup",
       RepL4NLP 2021, https://arxiv.org/abs/2101.06983
    """
    if not torch.is_grad_enabled():
        return torch.cat([answer(chunk) for chunk in chunks])
    draws, outputs, learns = [], [], False
    for chunk in chunks:
        draws.append(RecordedDraws(device))
        # With a graph, which goes at once: without one a network may take another way, that draws other numbers.
        output = answer(chunk)
        learns = learns or output.requires_grad
        outputs.append(output.detach())
        del output  # or its graph were there beside that of the next chunk
    if not learns:
        return torch.cat(outputs)
    # Autograd asks only those for a gradient that something of theirs learns from.
    anchor = torch.empty(0, requires_grad=True)
    joined: Tensor = _InChunks.apply(anchor, answer, chunks, network, draws, outputs)
    return joined


class _InChunks(torch.autograd.Function):
    """The answers as they are; backward computes each chunk's again, with a graph, and goes through it."""

    @staticmethod
    def forward(
        ctx: Any,
        anchor: Tensor,
        answer: Callable[[Any], Tensor],
        chunks: Sequence[Any],
        network: nn.Module,
        draws: Sequence[RecordedDraws],
        outputs: Sequence[Tensor],
    ) -> Tensor:
        ctx.again = (answer, chunks, network, draws)
        ctx.sizes = [len(output) for output in outputs]
        return torch.cat(list(outputs))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, ...]:
        answer, chunks, network, draws = ctx.again
        for chunk, drawn, grad in zip(chunks, draws, torch.split(grads[0], ctx.sizes), strict=True):
            # A GPU's gradients are computed by a thread of torch's: draws, modes and precision are set here anew.
            with torch.enable_grad(), drawn.again(), _same_buffers(network):
                output = answer(chunk)
            torch.autograd.backward(output, grad)
            del output
        return None, None, None, None, None, None


@contextmanager
def _same_buffers(network: nn.Module) -> Iterator[None]:
    """Put buffers back after the block as they were before it."""
    before = [(buffer, buffer.clone()) for part in network.modules() if part.training for buffer in part.buffers(False)]
    yield
    # By their data: the graph of the block may still refer to them, and reads none of their values.
    for buffer, value in before:
        buffer.data.copy_(value)
