"""From a batch to its loss, for labels and for their number."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from sklearn_mm._checks import did_you_mean
from sklearn_mm.annotation._model import AnnotationModel, InputRows
from sklearn_mm.annotation._training_rows import TrainingRows
from sklearn_mm.losses import asymmetric_label_loss, binary_label_loss, softmax_label_loss
from sklearn_mm.registry import stored_as

__all__ = ["CountStep", "CountTarget", "LabelStep", "cached_features", "label_loss", "label_weights"]

_CACHED = 1 << 27  # numbers: half a GB of float32
LabelLoss = Callable[[Tensor, Tensor], Tensor]


def label_loss(
    name: str, label_weight: Tensor | None, *, gamma_negative: float, gamma_positive: float, margin: float
) -> LabelLoss:
    """Return the loss of that name, from logits and targets (n, n_labels) to (n,)."""
    if name == "softmax":
        return partial(softmax_label_loss, label_weight=label_weight)
    if name == "bce":
        return partial(binary_label_loss, label_weight=label_weight)
    return partial(
        asymmetric_label_loss,
        label_weight=label_weight,
        gamma_negative=gamma_negative,
        gamma_positive=gamma_positive,
        margin=margin,
    )


def label_weights(class_weight: Any, classes: np.ndarray, prevalence: np.ndarray) -> Tensor | None:
    """Return what a true label counts, shape (n_labels,) float32.

    Parameters
    ----------
    class_weight : dict, "balanced" or None
    classes : ndarray of shape (n_labels,)
    prevalence : ndarray of shape (n_labels,), float64
        Of how many images each label is true.

    Raises
    ------
    ValueError
        A label is not there, or its weight is no finite number, 0 or more; the message names it.
    """
    if class_weight is None:
        return None
    if isinstance(class_weight, str):
        mean = prevalence.sum() / max(np.count_nonzero(prevalence), 1)
        return torch.from_numpy(np.where(prevalence > 0, mean / np.maximum(prevalence, 1e-12), 1.0)).float()
    labels = classes.tolist()
    known = set(labels)
    for label, weight in class_weight.items():
        if label not in known:
            hint = did_you_mean(str(label), map(str, labels))
            raise ValueError(f"class_weight names the label {label!r}, which is not there; {hint}")
        if not isinstance(weight, Real) or not 0 <= float(weight) < np.inf:
            raise ValueError(f"class_weight must be a finite number, 0 or more, got {weight!r} for the label {label!r}")
    return torch.tensor([float(class_weight.get(label, 1.0)) for label in labels])


@stored_as("annotation.CountTarget")
@dataclass(frozen=True)
class CountTarget:
    """How a number of labels is learnt.

    Attributes
    ----------
    kind : {"regression", "classification"}
    largest : int
        The largest number in training.
    mean, deviation : float
        Of the numbers in training.
    """

    kind: str
    largest: int
    mean: float
    deviation: float

    @classmethod
    def of(cls, kind: str, counts: np.ndarray, weight: np.ndarray) -> "CountTarget":
        """Learn from numbers of shape (n,), weighted."""
        mean = float(np.average(counts, weights=weight))
        deviation = float(np.sqrt(np.average((counts - mean) ** 2, weights=weight)))
        return cls(kind, int(np.rint(counts.max())), mean, max(deviation, 1e-6 * max(1.0, abs(mean))))

    @property
    def n_outputs(self) -> int:
        """Outputs of the head."""
        return 1 if self.kind == "regression" else self.largest + 1

    def loss(self, outputs: Tensor, counts: Tensor) -> Tensor:
        """Compute the loss of outputs (n, n_outputs) against numbers (n,): (n,)."""
        if self.kind == "regression":
            return ((outputs[:, 0] - (counts - self.mean) / self.deviation) ** 2) / 2
        return functional.cross_entropy(outputs, counts.round().clamp(max=self.largest).long(), reduction="none")

    def estimate(self, outputs: Tensor) -> Tensor:
        """Return the estimated number (n, 1), or the log probability of each (n, largest + 1)."""
        if self.kind == "regression":
            return outputs * self.deviation + self.mean
        return torch.log_softmax(outputs, dim=1)


@dataclass(frozen=True)
class LabelStep:
    """The loss on labels of a batch, and with `counted` on their number.

    Attributes
    ----------
    model : AnnotationModel
    inputs : InputRows
        Of which `training` says the rows.
    training : TrainingRows
    loss : callable
    counted : CountTarget or None
    rng : Generator
        Of the encoder's augmentations.
    """

    model: AnnotationModel
    inputs: InputRows
    training: TrainingRows
    loss: LabelLoss
    counted: CountTarget | None
    rng: np.random.Generator

    def __call__(self, batch: np.ndarray) -> Tensor:
        """Compute the mean loss of some images."""
        model, training = self.model, self.training
        fused = model.fuse(self.inputs[training.rows[batch]], self.rng)
        targets = torch.from_numpy(training.labels[batch].toarray()).to(model.device)
        loss = self.loss(model.head(model.network.label_head, fused), targets)
        if self.counted is not None and model.network.count_head is not None:
            counts = torch.from_numpy(training.counts[batch]).to(model.device)
            loss = loss + self.counted.loss(model.head(model.network.count_head, fused), counts)
        return (loss * torch.from_numpy(training.weight[batch]).to(model.device)).mean()


@dataclass(frozen=True)
class CountStep:
    """The loss on the number of labels of a batch, with the features as they are.

    Attributes
    ----------
    features : callable
        From the numbers of rows to features (n, d) without a gradient.
    head : Module
    target : CountTarget
    counts, weight : ndarray of shape (n_rows,), float32
    """

    features: Callable[[np.ndarray], Tensor]
    head: Callable[[Tensor], Tensor]
    target: CountTarget
    counts: np.ndarray
    weight: np.ndarray

    def __call__(self, batch: np.ndarray) -> Tensor:
        """Compute the mean loss of some images."""
        features = self.features(batch)
        counts, weight = (torch.from_numpy(part[batch]).to(features.device) for part in (self.counts, self.weight))
        return (self.target.loss(self.head(features), counts) * weight).mean()


def cached_features(model: AnnotationModel, inputs: InputRows, rows: np.ndarray) -> Callable[[np.ndarray], Tensor]:
    """Return what gives the fused features of some of `rows`, frozen.

    They are computed once and kept, where they are few; otherwise anew for every batch.
    """
    for module in model.modules:
        module.eval()
    if len(rows) * model.network.label_head.in_features > _CACHED:

        def compute(batch: np.ndarray) -> Tensor:
            with torch.no_grad():
                return model.fuse(inputs[rows[batch]])

        return compute
    table = torch.cat([fused for _, fused in model.blocks(inputs, rows)]).float()
    return lambda batch: table[torch.from_numpy(batch).to(table.device)]
