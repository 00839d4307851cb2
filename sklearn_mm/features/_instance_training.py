"""Train by naming the instance that each row belongs to: the shared classifier, and an encoder alone under it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sklearn_mm._device import autocast, resolve_dtype
from sklearn_mm.losses import instance_loss
from sklearn_mm.nn.heads import unit_rows
from sklearn_mm.sampling import n_batches, row_batches
from sklearn_mm.training import EpochRecord, make_optimizer, make_schedule, progress, train_epochs

__all__ = ["SharedClassifier", "as_instances", "train_by_instance"]

_CLIP_NORM = 2.0


def as_instances(y: Any, n_rows: int, what: str) -> np.ndarray:
    """Number the instances of `y` from 0, shape (n_rows,), int64; a list counts as the tuple of its entries.

    Raises
    ------
    ValueError
        y has another length.
    """
    if len(y) != n_rows:
        raise ValueError(f"expected one instance per {what} in y, got {len(y)} for {n_rows} {what}s")
    number: dict[Any, int] = {}
    return np.array([number.setdefault(_hashable(instance), len(number)) for instance in y], dtype=np.int64)


def _hashable(instance: Any) -> Any:
    if isinstance(instance, np.ndarray):
        instance = instance.tolist()
    return tuple(map(_hashable, instance)) if isinstance(instance, list) else instance


class SharedClassifier(nn.Module):
    """The one linear classifier that images and texts are told apart by, each image with its texts a class.

    Parameters
    ----------
    n_components, n_instances : int
    temperature : float or None
        Unit features and unit weights, their cosines divided by it; None takes inner products as they are.
    dropout : float
        Share of the features dropped in front of it in training.
    """

    def __init__(self, n_components: int, n_instances: int, *, temperature: float | None, dropout: float) -> None:
        super().__init__()
        self._temperature = temperature
        self.dropout = nn.Dropout(dropout)
        self.weight = nn.Parameter(torch.empty(n_instances, n_components))
        nn.init.normal_(self.weight, std=n_components**-0.5)

    def forward(self, features: Tensor, instance: Tensor, weight: Tensor | None = None) -> Tensor:
        """Compute the mean loss of features (n, d) of the instances (n,), each weighted (n,) or alike."""
        features = self.dropout(features.float())
        if self._temperature is not None:
            features = unit_rows(features) / self._temperature
        loss = instance_loss(features, instance, self.weight, unit_classes=self._temperature is not None)
        return (loss if weight is None else loss * weight).mean()


def train_by_instance(
    encoder: Any,
    rows: Any,
    collate: Callable[[Any], Any],
    instance: np.ndarray,
    rng: np.random.Generator,
    device: torch.device,
) -> list[EpochRecord]:
    """Train an encoder's module on its own, under torch's current random state; return a record for each epoch.

    Parameters
    ----------
    encoder : estimator
        Initialised, with the parameters of training: `max_epochs`, `batch_size`, `learning_rate`, `weight_decay`,
        `temperature`, `precision` and `verbose`. Its module is left on the device, in training mode.
    rows : prepared rows
    collate : callable
        From some of them to what the module takes, on the device.
    instance : ndarray of shape (n_rows,), int64
        Counted from 0.
    rng : numpy.random.Generator
        From which the order of the rows is drawn.
    device : torch.device
    """
    module, dtype = encoder.module_, resolve_dtype(encoder.precision, device)
    n_instances = int(instance.max()) + 1
    classifier = SharedClassifier(encoder._n_features_out, n_instances, temperature=encoder.temperature, dropout=0.0)
    module.to(device).train()
    optimizer = make_optimizer(
        "adamw",
        [module, classifier.to(device)],
        learning_rate=encoder.learning_rate,
        weight_decay=encoder.weight_decay,
    )

    def step(batch: np.ndarray) -> Tensor:
        inputs = collate(rows[batch])
        with autocast(device, dtype):
            features = module(inputs)
        return classifier(features, torch.from_numpy(instance[batch]).to(device))

    records = train_epochs(
        step,
        lambda: row_batches(len(instance), encoder.batch_size, rng),
        optimizer,
        make_schedule("cosine", optimizer, encoder.max_epochs * n_batches(len(instance), encoder.batch_size)),
        n_epochs=encoder.max_epochs,
        clip_norm=_CLIP_NORM,
        scaler=torch.amp.GradScaler(device.type, enabled=dtype == torch.float16),
    )
    return list(progress(records, n_epochs=encoder.max_epochs, title=type(encoder).__name__, verbose=encoder.verbose))
