"""The log odds of labels, block by block: of some images for all labels, or of all images for some labels."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from sklearn_mm.annotation._model import AnnotationModel, InputRows
from sklearn_mm.annotation._steps import CountTarget
from sklearn_mm.registry import stored_as

__all__ = ["Calibration", "FusedImages", "LabelScores"]

_NEVER = -200.0  # of a label never seen: its probability is 0 in float32, and its score is finite
_BLOCK = 1 << 22


@stored_as("annotation.Calibration")
@dataclass(frozen=True)
class Calibration:
    """Log odds that fit what was held out.

    Attributes
    ----------
    slope : float
    intercepts : ndarray of shape (n_labels,), float32
    """

    slope: float
    intercepts: np.ndarray

    def __call__(self, scores: np.ndarray, labels: slice = slice(None)) -> np.ndarray:
        """Correct the log odds (n, n_labels) of all labels, or of some."""
        corrected: np.ndarray = np.float32(self.slope) * scores + self.intercepts[labels]
        return corrected


@dataclass(frozen=True)
class FusedImages:
    """What the scores of some images come from, on the device.

    Attributes
    ----------
    features : Tensor of shape (n_images, n_fused)
    normalizer : Tensor of shape (n_images,)
        The logarithm of the sum of a softmax over the labels.
    counts : Tensor of shape (n_images, n_counts), or None
    """

    features: Tensor
    normalizer: Tensor
    counts: Tensor | None


@dataclass(frozen=True)
class LabelScores:
    """What an annotator thinks of each label.

    Attributes
    ----------
    model : AnnotationModel
    kind : {"independent", "shared", "single"}
        Each label has log odds of its own; or the network says which share of an image's labels each is, which is
        turned into log odds by their expected number; or an image has one label, and scores are log probabilities.
    counted : CountTarget or None
        None for a network that does not count.
    mean_count : float
        What an image is expected to have, where nothing better is known.
    never : ndarray of int64
        Labels that were never seen.
    calibration : Calibration or None
    """

    model: AnnotationModel
    kind: str
    counted: CountTarget | None
    mean_count: float
    never: np.ndarray
    calibration: Calibration | None = None

    def of_rows(
        self, inputs: InputRows, rows: np.ndarray | None = None
    ) -> Iterator[tuple[slice, np.ndarray, np.ndarray | None]]:
        """Yield some images, their scores (n, n_labels) float32, and what is known of their number of labels."""
        for part, fused in self.model.blocks(inputs, rows):
            with torch.inference_mode():
                logits = self.model.head(self.model.network.label_head, fused)
                counts = self._counts(fused)
                odds = self._odds(logits, torch.logsumexp(logits, dim=1), counts)
            scores = self._correct(odds.cpu().numpy(), slice(None))
            yield part, scores, None if counts is None else counts.cpu().numpy()

    def fuse(self, inputs: InputRows, rows: np.ndarray) -> "FusedImages":
        """Compute once what the scores of some images come from."""
        features, normalizers, numbers = [], [], []
        for _, fused in self.model.blocks(inputs, rows):
            with torch.inference_mode():
                features.append(fused)
                normalizers.append(torch.logsumexp(self.model.head(self.model.network.label_head, fused), dim=1))
                numbers.append(self._counts(fused))
        counts = None if numbers[0] is None else torch.cat([number for number in numbers if number is not None])
        return FusedImages(torch.cat(features), torch.cat(normalizers), counts)

    def of_labels(self, images: "FusedImages", n_images: int) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield some labels, and the scores (n, n_some_labels) float32 of all images.

        The labels are as many at a time as if there were `n_images` images.
        """
        head = self.model.network.label_head
        step = max(1, _BLOCK // n_images)
        for start in range(0, head.out_features, step):
            part = slice(start, min(start + step, head.out_features))
            with torch.inference_mode():
                some = partial(functional.linear, weight=head.weight[part], bias=head.bias[part])
                odds = self._odds(self.model.head(some, images.features), images.normalizer, images.counts)
            yield part, self._correct(odds.cpu().numpy(), part)

    def _counts(self, fused: Tensor) -> Tensor | None:
        if self.counted is None or self.model.network.count_head is None:
            return None
        return self.counted.estimate(self.model.head(self.model.network.count_head, fused))

    def _odds(self, logits: Tensor, normalizer: Tensor, counts: Tensor | None) -> Tensor:
        if self.kind == "independent":
            return logits
        log_share = logits - normalizer[:, None]
        if self.kind == "single":
            return log_share
        # The odds of a share that is small are n times as high; a share of 1 is certain for any number.
        log_others = torch.log(-torch.expm1(log_share.clamp(max=-1e-6)))
        return log_share - log_others + self._log_number(log_share, counts)

    def _log_number(self, log_share: Tensor, counts: Tensor | None) -> Tensor:
        if counts is None:
            return log_share.new_tensor(max(self.mean_count, 1e-3)).log()
        if counts.shape[1] == 1:
            number = counts[:, 0]
        else:
            number = counts.exp() @ torch.arange(counts.shape[1], device=counts.device, dtype=counts.dtype)
        return number.clamp(min=1e-3).log()[:, None]

    def _correct(self, scores: np.ndarray, labels: slice) -> np.ndarray:
        if self.calibration is not None:
            scores = self.calibration(scores, labels)
        if len(self.never) and self.kind != "single":
            first, end, _ = labels.indices(self.model.network.label_head.out_features)
            scores[:, self.never[(self.never >= first) & (self.never < end)] - first] = _NEVER
        return scores
