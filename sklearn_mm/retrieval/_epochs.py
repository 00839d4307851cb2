"""Train two towers together."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from sklearn_mm.retrieval._objective import Objective
from sklearn_mm.retrieval._tower import Tower
from sklearn_mm.retrieval._training_rows import TrainingRows
from sklearn_mm.sampling import caption_batches
from sklearn_mm.training import EpochRecord, train_epochs

__all__ = ["joint_epochs", "n_batches"]

_CLIP_NORM = 2.0


def n_batches(training: TrainingRows, batch_size: int) -> int:
    """Count the batches of an epoch."""
    return sum(1 for _ in caption_batches(training.starts, batch_size, 1, np.random.default_rng(0)))


def joint_epochs(
    image_tower: Tower,
    text_tower: Tower,
    image_rows: Any,
    training: TrainingRows,
    objective: Objective,
    optimizer: Optimizer,
    schedule: LRScheduler,
    *,
    n_epochs: int,
    batch_size: int,
    captions_per_image: int,
    rng: np.random.Generator,
) -> Iterator[EpochRecord]:
    """Train both towers, and yield a record after each epoch.

    Parameters
    ----------
    image_tower, text_tower : Tower
        Of one device.
    image_rows : prepared images
        Of which `training` says the rows.
    training : TrainingRows
    objective : Objective
    optimizer, schedule
        Over the modules of both towers.
    n_epochs, batch_size, captions_per_image : int
    rng : numpy.random.Generator
    """
    device = text_tower.device
    text_rows = text_tower.prepare(training.texts)
    modules = [*image_tower.modules, *text_tower.modules]

    def batches() -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        for module in modules:
            module.train()
        return caption_batches(training.starts, batch_size, captions_per_image, rng)

    def step(batch: tuple[np.ndarray, np.ndarray, np.ndarray]) -> Tensor:
        images, texts, image_of_text = batch
        return objective(
            image_tower.forward(image_tower.collate(image_rows[training.rows[images]], rng)),
            text_tower.forward(text_tower.collate(text_rows[texts], rng)),
            torch.from_numpy(image_of_text).to(device),
            torch.from_numpy(training.not_negative(images, texts, image_of_text)).to(device),
            torch.from_numpy(training.weight[images][image_of_text]).to(device),
        )

    return train_epochs(
        step,
        batches,
        optimizer,
        schedule,
        n_epochs=n_epochs,
        clip_norm=_CLIP_NORM,
        scaler=torch.amp.GradScaler(device.type, enabled=text_tower.dtype == torch.float16),
    )
