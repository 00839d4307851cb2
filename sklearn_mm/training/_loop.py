"""One generator that trains: the caller validates, logs, saves and stops between its epochs."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

__all__ = ["EpochRecord", "train_epochs"]

Batch = TypeVar("Batch")
EpochRecord = dict[str, Any]


def train_epochs(
    step: Callable[[Batch], Tensor],
    batches: Callable[[], Iterable[Batch]],
    optimizer: Optimizer,
    schedule: LRScheduler,
    *,
    n_epochs: int,
    clip_norm: float,
    scaler: torch.amp.GradScaler,
    clip_tensors: bool = False,
) -> Iterator[EpochRecord]:
    """Train, and yield a record after each epoch.

    Parameters
    ----------
    step : callable
        From a batch to its mean loss, a 0-d tensor.
    batches : callable
        Returns the batches of one epoch; called anew for each.
    optimizer, schedule : Optimizer, LRScheduler
        The schedule is advanced with the optimiser.
    n_epochs : int
    clip_norm : float
        The largest norm of the gradient over all parameters together; infinity leaves it as it is.
    scaler : torch.amp.GradScaler
        For float16; disabled otherwise. A batch whose scaled gradient overflows is passed over, by the schedule too.
    clip_tensors : bool
        Hold each parameter's own gradient to `clip_norm`, instead of all together.

    Yields
    ------
    dict
        ``epoch`` (counted from 1), ``train_loss`` (mean over batches), ``learning_rate`` (of the first group, at the
        end), ``seconds``.

    Raises
    ------
    FloatingPointError
        The loss is not finite.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    clipped_together = [[parameter] for parameter in parameters] if clip_tensors else [parameters]
    for epoch in range(1, n_epochs + 1):
        start = time.perf_counter()
        losses: list[Tensor] = []
        for batch in batches():
            loss = step(batch)
            optimizer.zero_grad(set_to_none=True)
            scaler.scale(loss).backward()  # type: ignore[no-untyped-call]  # torch's backward has no types
            scaler.unscale_(optimizer)
            norms = [nn.utils.clip_grad_norm_(together, clip_norm) for together in clipped_together]
            # What overflowed as float16 is no step. torch's fused SGD would leave its momentum without a value then.
            if not scaler.is_enabled() or all(bool(norm.isfinite()) for norm in norms):
                scaler.step(optimizer)
                schedule.step()
            scaler.update()
            losses.append(loss.detach())
        train_loss = float(torch.stack(losses).mean())  # the one place an epoch waits for the device
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
