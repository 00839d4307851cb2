"""One generator that trains: the caller validates, logs, saves and stops between its epochs."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from sklearn_mm._device import nothing_drawn
from sklearn_mm.training._processes import ALONE, Processes
from sklearn_mm.training._settings import TrainingSettings
from sklearn_mm.training._shared_norm import shared_batch_norms

__all__ = ["EpochRecord", "train_epochs"]

EpochRecord = dict[str, Any]


def train_epochs(
    model: nn.Module,
    batches: Callable[[], Iterable[Any]],
    optimizer: Optimizer,
    schedule: LRScheduler,
    scaler: torch.amp.GradScaler,
    settings: TrainingSettings,
    *,
    n_epochs: int,
    processes: Processes = ALONE,
    in_chunks: Sequence[nn.Module] = (),
) -> Iterator[EpochRecord]:
    """Train, and yield a record after each epoch.

    Parameters
    ----------
    model : Module
        From a batch to its mean loss, a 0-d tensor.
    batches : callable
        Returns the batches of one epoch, on the model's device; called anew for each.
    optimizer, schedule : Optimizer, LRScheduler
        The schedule is advanced with the optimiser.
    scaler : torch.amp.GradScaler
        For float16; disabled otherwise. A batch whose scaled gradient overflows is passed over, by the schedule too.
    settings : TrainingSettings
        How far the gradient may go.
    n_epochs : int
    processes : Processes
        That take each step together, each with its own batch.
    in_chunks : sequence of Module
        Parts of the model that a batch passes in chunks, forward and backward.

    Yields
    ------
    dict
        ``epoch`` (counted from 1), ``train_loss`` (mean over batches, and processes), ``learning_rate`` (of the first
        group, at the end), ``seconds``.

    Raises
    ------
    FloatingPointError
        The loss is not finite.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    # One norm each in the code of order embeddings and of the full network, one of all in that of VSE++.
    clipped_together = [[parameter] for parameter in parameters] if settings.clip_tensors else [parameters]
    # Gradients of what passes in chunks come chunk by chunk, which torch's own way does not bear.
    step = processes.wrap(model, once=not in_chunks) if n_epochs else model
    for epoch in range(1, n_epochs + 1):
        start = time.perf_counter()
        losses: list[Tensor] = []
        with shared_batch_norms(model, processes, own=in_chunks):
            for batch in batches():
                loss = step(batch)
                # The model alone draws (dropout): what follows is spared the detour to its generators.
                with nothing_drawn():
                    optimizer.zero_grad(set_to_none=True)
                    scaler.scale(loss).backward()
                    if in_chunks:
                        processes.average(parameters)
                    # Before clipping, as clip_norm is said of true gradients.
                    scaler.unscale_(optimizer)
                    norms = [nn.utils.clip_grad_norm_(together, settings.clip_norm) for together in clipped_together]
                    # What overflowed as float16 is no step. torch's fused SGD would leave its momentum without a value
                    # then. In other precisions the norms are not looked at, which would wait for the device: there a
                    # gradient that is not finite is one of a training that diverges, and the loss tells.
                    if not scaler.is_enabled() or all(bool(norm.isfinite()) for norm in norms):
                        scaler.step(optimizer)
                        schedule.step()
                    # Also after an overflow, which is how the scale comes down.
                    scaler.update()
                    losses.append(loss.detach())  # float() would wait for the device
        train_loss = float(processes.mean(torch.stack(losses).mean()))  # the one place an epoch waits for the device
        if train_loss != train_loss or abs(train_loss) == float("inf"):
            raise FloatingPointError(
                f"the training loss is {train_loss} in epoch {epoch}: training diverged; "
                "lower learning_rate, or look for huge values in the features"
            )
        yield {
            "epoch": epoch,
            "train_loss": train_loss,
            "learning_rate": float(optimizer.param_groups[0]["lr"]),
            "seconds": time.perf_counter() - start,
        }
