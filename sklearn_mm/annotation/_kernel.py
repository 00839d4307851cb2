"""A Gaussian process on what the network of an annotator sees: labels of images that are like one."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from scipy import sparse
from torch import Tensor
from torch.nn import functional

from sklearn_mm.annotation._label_relations import MAX_RELATED, left_out_scores, relate
from sklearn_mm.nn.annotation import TagBags
from sklearn_mm.registry import FieldsAlone, stored_as

__all__ = ["KernelScorer", "KernelScores", "Seen", "SeenImages", "kernel_bank_size"]

_TAG_SHARE = 0.4  # what tags say beside 1 of the features; a half and a double of it are within half a point
_SCALES = (1.0, 2.0)  # of cosines; at 4 less is found on Flickr8k, OpenMoji and drawn scenes alike
_NOISES = (0.1, 0.3, 1.0, 3.0)  # variances of what images say of labels, beside 1 of the process
_MAX_TRIED = 1024  # images that scale and noise are chosen on, which does not hang on how many there are
_MAX_BANK = 8192  # images: their system of equations takes 270 MB, and some seconds of one core
_MAX_NUMBERS = 1 << 27  # features of all of them: 270 MB in half precision
_MAX_COEFFICIENTS = 1 << 24
_MIN_BANK = 256  # where there are so many labels or features that fewer images would be taken there is none


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
class KernelScores(FieldsAlone):
    """Labels of an image by all images of a bank, each as much as it is like the image.

    Attributes
    ----------
    features : ndarray of shape (n_bank, n_features), float16, or None
        Of unit length.
    tags : csr_array of shape (n_bank, n_tags), float32, or None
        Of unit length, or none.
    coef : ndarray of shape (n_bank, n_labels), float32
    scale, noise : float
    """

    features: np.ndarray | None
    tags: Any
    coef: np.ndarray
    scale: float
    noise: float

    def likeness_on(self, device: torch.device) -> "_Likeness":
        """Return what compares images with the bank."""
        return self._likeness_on_cpu if device.type == "cpu" else self._likeness(device)

    def _likeness(self, device: torch.device) -> "_Likeness":
        return _Likeness(SeenImages(self.features, self.tags), self.scale, device)

    @cached_property
    def _likeness_on_cpu(self) -> "_Likeness":
        """Kept, as its bank in full precision takes longer to be made than an image to be scored."""
        return self._likeness(torch.device("cpu"))

    @classmethod
    def fit(
        cls,
        bank: SeenImages,
        targets: np.ndarray,
        weight: np.ndarray,
        group: np.ndarray,
        device: torch.device,
        *,
        like: "KernelScores | None" = None,
        related: bool = False,
    ) -> Self:
        """Solve for what each image of a bank says, with the scale and the noise that are best for images left out.

        Parameters
        ----------
        bank : SeenImages
        targets : ndarray of shape (n_bank, n_labels), float32
            Labels less how often they are true, in standard deviations; 0 where they are not known.
        weight : ndarray of shape (n_bank,), float32
            Above 0.
        group : ndarray of shape (n_bank,), int64
            Of each group one image takes part in the choice: of two that are alike, neither is left out.
        device : torch.device
        like : KernelScores, optional
            Whose scale and noise are taken instead: scores of both are to be compared.
        related : bool, default=False
            Whether labels say something of one another, where they are not too many.
        """
        scale, noise = _best_of_left_out(bank, targets, weight, group, device) if like is None else like.hyperparameters
        system = _with_noise(_Likeness(bank, scale, device)(bank), weight, noise)
        factor = torch.linalg.cholesky(system)
        del system
        coef = torch.cholesky_solve(torch.from_numpy(targets).to(device), factor).cpu().numpy()
        if related and 1 < targets.shape[1] <= MAX_RELATED:
            inverse = torch.cholesky_inverse(factor).cpu().numpy()
            relations = relate(left_out_scores(inverse, coef, targets, group), targets, weight, group)
            coef = coef @ relations.astype(np.float32)
        return cls(*bank, coef, scale, noise)

    @property
    def hyperparameters(self) -> tuple[float, float]:
        """Scale and noise."""
        return self.scale, self.noise


class KernelScorer:
    """Scores labels by a kernel, on a device.

    Parameters
    ----------
    kernel : KernelScores
    device : torch.device
    """

    def __init__(self, kernel: KernelScores, device: torch.device) -> None:
        self._kernel, self._device = kernel, device
        self._likeness = kernel.likeness_on(device)

    def likeness(self, seen: Seen) -> Tensor:
        """Return how much images are like those of the bank, (n, n_bank) float32: by features, and by tags beside."""
        return self._likeness(SeenImages.of(seen))

    def scores(self, likeness: Tensor, labels: slice) -> np.ndarray:
        """Return the scores (n, n_some_labels) of some labels by the likeness (n, n_bank) of images."""
        scores: np.ndarray = (likeness @ torch.from_numpy(self._kernel.coef[:, labels]).to(self._device)).cpu().numpy()
        return scores


class _Likeness:
    """How much images are like those of a bank: the covariance of the process."""

    def __init__(self, bank: SeenImages, scale: float, device: torch.device) -> None:
        self._images, self._scale, self._device = bank, scale, device

    def __call__(self, images: SeenImages) -> Tensor:
        parts = []
        if images.features is not None:
            own = self._bank  # not made twice
            if images is not self._images:
                own = torch.from_numpy(images.features).to(self._device).float()
            parts.append((own @ self._bank.T).sub_(1).mul_(self._scale).exp_())
        if images.tags is not None:
            distances = torch.from_numpy(self._tag_distances(images.tags)).to(self._device)
            parts.append(distances.neg_().exp_().mul_(_TAG_SHARE))
        return parts[0] if len(parts) == 1 else parts[0].add_(parts[1])

    def _tag_distances(self, tags: Any) -> np.ndarray:
        """Return half the squared distances of tags to those of the bank, (n, n_bank) float32; images may have none."""
        cosines = (tags @ self._bank_tags).toarray()
        length, bank_length = ((np.diff(own.indptr) > 0).astype(np.float32) for own in (tags, self._images.tags))
        distances: np.ndarray = (length[:, None] + bank_length) / 2 - cosines
        return distances

    @cached_property
    def _bank(self) -> Tensor:
        """The features of the bank: in half precision a CPU takes many times as long for a product."""
        return torch.from_numpy(self._images.features).to(self._device).float()

    @cached_property
    def _bank_tags(self) -> Any:
        return sparse.csc_array(self._images.tags.T)


def _best_of_left_out(
    bank: SeenImages, targets: np.ndarray, weight: np.ndarray, group: np.ndarray, device: torch.device
) -> tuple[float, float]:
    """Return the scale and the noise of the least error of some images, each by all others, one of each group."""
    one_each = np.sort(np.unique(group, return_index=True)[1])
    some = one_each[np.linspace(0, len(one_each) - 1, min(len(one_each), _MAX_TRIED)).astype(np.int64)]
    images, own_targets, own_weight = bank.take(some), targets[some], weight[some]
    errors = {}
    for scale in _SCALES:
        likeness = _Likeness(images, scale, device)(images)
        for noise in _NOISES:
            errors[scale, noise] = _left_out_error(likeness, own_targets, own_weight, noise)
    return min(errors, key=lambda tried: errors[tried])


def _with_noise(likeness: Tensor, weight: np.ndarray, noise: float) -> Tensor:
    """Add the noise of each image of a bank, in place: the system is well conditioned, and float32 enough."""
    likeness.diagonal().add_(noise / torch.from_numpy(weight).to(likeness.device))
    return likeness


def _left_out_error(likeness: Tensor, targets: np.ndarray, weight: np.ndarray, noise: float) -> float:
    """Return the squared error of each image by all others, (n, n) likeness; no other system is solved for that."""
    factor = torch.linalg.cholesky(_with_noise(likeness.clone(), weight, noise))
    inverse = torch.cholesky_inverse(factor)
    left_out = (inverse @ torch.from_numpy(targets).to(likeness.device)) / inverse.diagonal()[:, None]
    return float((torch.from_numpy(weight).to(likeness.device)[:, None] * left_out**2).sum(dtype=torch.float64))


def kernel_bank_size(n_images: int, n_labels: int, n_features: int, bank_size: int) -> int:
    """Return how many images a kernel is solved for; 0 where there are too many labels or features for one."""
    size = min(n_images, bank_size, _MAX_BANK, _MAX_COEFFICIENTS // n_labels, _MAX_NUMBERS // max(n_features, 1))
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
