"""A Gaussian process on what the network of an annotator sees: labels of images that are like one."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from scipy import sparse
from torch import Tensor
from torch.nn import functional

from sklearn_mm.nn.annotation import TagBags
from sklearn_mm.registry import stored_as

__all__ = ["KernelScorer", "KernelScores", "Seen", "SeenImages", "kernel_bank_size"]

# Of these the best on Flickr8k, OpenMoji and drawn scenes, where halves and doubles differ by less than half a point.
_FEATURE_SCALE = 2.0
_TAG_SCALE = 1.0
_TAG_SHARE = 0.4  # what tags say beside 1 of the features
_NOISE = 1.0  # variance of what images say of labels, beside 1 of the process
_MAX_BANK = 8192  # images: their system of equations takes 270 MB, and some seconds of one core
_MAX_COEFFICIENTS = 1 << 24
_MIN_BANK = 256  # where there are so many labels that fewer images would be taken there is none


class Seen(NamedTuple):
    """What a network sees of some images, and makes of it.

    Attributes
    ----------
    fused : Tensor of shape (n, n_fused)
        What goes to the heads.
    features : Tensor of shape (n, n_features), float32, or None
        Standardised, before any hidden layer.
    tags : TagBags or None
    n_tags : int
        That there are.
    """

    fused: Tensor
    features: Tensor | None
    tags: TagBags | None
    n_tags: int = 0


class SeenImages(NamedTuple):
    """The features and tags of some images, of unit length.

    Attributes
    ----------
    features : ndarray of shape (n, n_features), float16, or None
    tags : csr_array of shape (n, n_tags), float32, or None
    """

    features: np.ndarray | None
    tags: Any

    @classmethod
    def of(cls, seen: Seen) -> Self:
        """Bring what a network sees to unit length."""
        features = None if seen.features is None else functional.normalize(seen.features, dim=1).half().cpu().numpy()
        return cls(features, None if seen.tags is None else _unit_rows(seen.tags, len(seen.fused), seen.n_tags))

    @classmethod
    def together(cls, parts: "list[SeenImages]") -> Self:
        """Put images behind one another."""
        features = None if parts[0].features is None else np.concatenate([part.features for part in parts])
        tags = None if parts[0].tags is None else sparse.csr_array(sparse.vstack([part.tags for part in parts], "csr"))
        return cls(features, tags)

    def take(self, rows: Any) -> "SeenImages":
        """Return some of the images."""
        return SeenImages(*(None if part is None else part[rows] for part in (self.features, self.tags)))


@stored_as("annotation.KernelScores")
@dataclass(frozen=True)
class KernelScores:
    """Labels of an image by all images of a bank, each as much as it is like the image.

    Attributes
    ----------
    features : ndarray of shape (n_bank, n_features), float16, or None
        Of unit length.
    tags : csr_array of shape (n_bank, n_tags), float32, or None
        Of unit length, or none.
    coef : ndarray of shape (n_bank, n_labels), float32
        In standard deviations of each label.
    """

    features: np.ndarray | None
    tags: Any
    coef: np.ndarray

    @classmethod
    def fit(
        cls, bank: SeenImages, residuals: np.ndarray, weight: np.ndarray, deviation: np.ndarray, device: torch.device
    ) -> Self:
        """Solve for what each image of a bank says.

        Parameters
        ----------
        bank : SeenImages
        residuals : ndarray of shape (n_bank, n_labels), float32
            Labels less how often they are true; 0 where they are not known.
        weight : ndarray of shape (n_bank,), float32
            Above 0.
        deviation : ndarray of shape (n_labels,), float
            Of each label.
        device : torch.device
        """
        unsolved = cls(*bank, np.empty((0, residuals.shape[1]), np.float32))
        system = KernelScorer(unsolved, device).likeness_of(bank)
        system.diagonal().add_(_NOISE / torch.from_numpy(weight).to(device))
        # The noise keeps the system well conditioned, so that float32 is enough.
        factor = torch.linalg.cholesky(system)
        del system
        targets = torch.from_numpy((residuals / deviation).astype(np.float32)).to(device)
        return cls(*bank, torch.cholesky_solve(targets, factor).cpu().numpy())


class KernelScorer:
    """Scores labels by a kernel, on a device.

    Parameters
    ----------
    kernel : KernelScores
    device : torch.device
    """

    def __init__(self, kernel: KernelScores, device: torch.device) -> None:
        self._kernel, self._device = kernel, device

    def likeness(self, seen: Seen) -> Tensor:
        """Return how much images are like those of the bank, (n, n_bank) float32: by features, and by tags beside."""
        return self.likeness_of(SeenImages.of(seen))

    def likeness_of(self, images: SeenImages) -> Tensor:
        """Return the same of images as a bank has them."""
        parts = []
        if images.features is not None:
            own = torch.from_numpy(images.features).to(self._device).float()
            parts.append((own @ self._bank.T).sub_(1).mul_(_FEATURE_SCALE).exp_())
        if images.tags is not None:
            distances = torch.from_numpy(self._tag_distances(images.tags)).to(self._device)
            parts.append(distances.mul_(-_TAG_SCALE).exp_().mul_(_TAG_SHARE))
        return parts[0] if len(parts) == 1 else parts[0].add_(parts[1])

    def scores(self, likeness: Tensor, labels: slice) -> np.ndarray:
        """Return the scores (n, n_some_labels) of some labels by the likeness (n, n_bank) of images."""
        scores: np.ndarray = (likeness @ torch.from_numpy(self._kernel.coef[:, labels]).to(self._device)).cpu().numpy()
        return scores

    def _tag_distances(self, tags: Any) -> np.ndarray:
        """Return half the squared distances of tags to those of the bank, (n, n_bank) float32; images may have none."""
        cosines = (tags @ self._bank_tags).toarray()
        length, bank_length = ((np.diff(own.indptr) > 0).astype(np.float32) for own in (tags, self._kernel.tags))
        distances: np.ndarray = (length[:, None] + bank_length) / 2 - cosines
        return distances

    @cached_property
    def _bank(self) -> Tensor:
        """The features of the bank: in half precision a CPU takes many times as long for a product."""
        return torch.from_numpy(self._kernel.features).to(self._device).float()

    @cached_property
    def _bank_tags(self) -> Any:
        return sparse.csc_array(self._kernel.tags.T)


def kernel_bank_size(n_images: int, n_labels: int, bank_size: int) -> int:
    """Return how many images a kernel is solved for; 0 where there are too many labels for one."""
    size = min(n_images, bank_size, _MAX_BANK, _MAX_COEFFICIENTS // n_labels)
    return size if size >= min(n_images, bank_size, _MIN_BANK) else 0


def _unit_rows(bags: TagBags, n_images: int, n_tags: int) -> Any:
    values, ids = bags.values.cpu().numpy().astype(np.float32), bags.ids.cpu().numpy()
    starts = np.append(bags.starts.cpu().numpy(), len(ids))
    tags = sparse.csr_array((values, ids, starts), shape=(n_images, n_tags))
    tags.eliminate_zeros()
    length = np.sqrt(np.asarray(tags.multiply(tags).sum(axis=1)).ravel())
    return sparse.csr_array(
        (tags.data / np.repeat(length, np.diff(tags.indptr)), tags.indices, tags.indptr), tags.shape
    )
