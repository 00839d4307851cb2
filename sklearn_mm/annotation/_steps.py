"""From a batch to its loss, for labels and for their number."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from sklearn_mm.annotation._model import AnnotationModel, InputRows
from sklearn_mm.annotation._training_rows import TrainingRows
from sklearn_mm.losses import asymmetric_label_loss, binary_label_loss, softmax_label_loss

__all__ = ["CountStep", "CountTarget", "LabelStep", "cached_features", "label_loss"]

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
