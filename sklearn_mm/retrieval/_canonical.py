"""Regularised canonical correlation in closed form, from covariances that are added up block by block."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy import linalg
from torch import Tensor

from sklearn_mm.registry import stored_as
from sklearn_mm.retrieval._coordinates import Coordinates
from sklearn_mm.retrieval._pair_rows import BLOCK_NUMBERS, PairRows
from sklearn_mm.towers import inverse

__all__ = ["CanonicalProblem", "PairMoments"]

# Covariances ----------------------------------------------------------------------------------------------------


@stored_as("retrieval.PairMoments")
@dataclass
class PairMoments:
    """Weighted sums over pairs in coordinates, float64: what covariances are made of, added up over parts of the data.

    Attributes
    ----------
    weight : float
        Of all images.
    image_sum, text_sum : ndarray of shape (n_image,) and (n_text,)
    image, text, cross : ndarray of shape (n_image, n_image), (n_text, n_text) and (n_image, n_text)
        Sums of products. A text is the mean of its image's.
    within : ndarray of shape (n_text, n_text)
        Of what texts differ by from the mean of their image's.
    """

    weight: float
    image_sum: np.ndarray
    text_sum: np.ndarray
    image: np.ndarray
    text: np.ndarray
    cross: np.ndarray
    within: np.ndarray

    @classmethod
    def of(
        cls, pairs: PairRows, image: Coordinates, text: Coordinates, *, each: bool, device: torch.device
    ) -> "PairMoments":
        """Gather the sums of some pairs; with `each`, also what the texts of an image differ by."""
        shapes = [len(image.block_of), len(text.block_of)]
        n_image, n_text = shapes
        sizes = [(n_image,), (n_text,), (n_image, n_image), (n_text, n_text), (n_image, n_text), (n_text, n_text)]
        sums = [torch.zeros(size, dtype=torch.float64, device=device) for size in sizes]
        step = max(1, BLOCK_NUMBERS // max(image.starts[-1], 8 * n_text))

        def total(left: Tensor, weight: Tensor, right: Tensor) -> Tensor:
            wider = torch.promote_types(left.dtype, right.dtype)
            return ((left * weight).to(wider).T @ right.to(wider)).double()

        for start in range(0, len(pairs.rows), step):
            stop = min(start + step, len(pairs.rows))
            weight = torch.from_numpy(pairs.weight[start:stop]).to(device)[:, None]  # (n_block, 1)
            own_image = image.of(pairs.image[pairs.rows[start:stop]], device)
            texts = text.of(pairs.text[pairs.starts[start] : pairs.starts[stop]], device)
            counts = torch.from_numpy(np.diff(pairs.starts[start : stop + 1])).to(device)
            owner = torch.repeat_interleave(counts)
            own_text = torch.zeros(stop - start, n_text, dtype=texts.dtype, device=device)
            own_text = own_text.index_add_(0, owner, texts) / counts[:, None]
            sums[0] += (own_image * weight).sum(dim=0)
            sums[1] += (own_text * weight).sum(dim=0)
            sums[2] += total(own_image, weight.to(own_image.dtype), own_image)
            sums[3] += total(own_text, weight.to(texts.dtype), own_text)
            sums[4] += total(own_image, weight.to(own_image.dtype), own_text)
            if each:
                apart = texts - own_text[owner]
                sums[5] += total(apart, (weight[:, 0] / counts)[owner][:, None].to(texts.dtype), apart)
        return cls(float(pairs.weight.sum()), *(part.cpu().numpy() for part in sums))

    def plus(self, other: "PairMoments", sign: float = 1.0) -> "PairMoments":
        """Return the sums of both parts, or with ``sign=-1`` of this one without the other."""
        return PairMoments(*(getattr(self, name) + sign * getattr(other, name) for name in self.__dataclass_fields__))


# The closed form ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CanonicalProblem:
    """Covariances of both sides, solved for any regularisation.

    Attributes
    ----------
    image, text, cross : Tensor, float64 or float32
        Covariances of scaled coordinates.
    image_scale, text_scale : ndarray
        What each coordinate is multiplied by before.
    image_mean, text_mean : ndarray
        Of the coordinates, not scaled.
    """

    image: Tensor
    text: Tensor
    cross: Tensor
    image_scale: np.ndarray
    text_scale: np.ndarray
    image_mean: np.ndarray
    text_mean: np.ndarray
    _known: dict[str, tuple[float, Tensor]] = field(default_factory=dict)  # of a search, which moves on one side

    @classmethod
    def of(
        cls,
        moments: PairMoments,
        *,
        standardise: np.ndarray,
        text_blocks: np.ndarray,
        text_weights: Sequence[float],
        image_noise: np.ndarray,
        device: torch.device,
        dtype: torch.dtype = torch.float64,
    ) -> "CanonicalProblem":
        """Make covariances of sums, and bring coordinates to comparable scales.

        Parameters
        ----------
        moments : PairMoments
        standardise : ndarray of shape (n_image,), bool
            Which coordinates of images are divided by their deviation.
        text_blocks : ndarray of shape (n_text,), int64
            The block of each coordinate of texts; blocks get equal total variances.
        text_weights : sequence of float
            What each block is multiplied by then.
        image_noise : ndarray of shape (n_image,)
            Deviations below these are rounding of constants.
        device, dtype : torch.device, torch.dtype
            Where and in which precision it is solved.
        """
        image_mean, text_mean = moments.image_sum / moments.weight, moments.text_sum / moments.weight
        image = moments.image / moments.weight - np.outer(image_mean, image_mean)
        text = (moments.text + moments.within) / moments.weight - np.outer(text_mean, text_mean)
        cross = moments.cross / moments.weight - np.outer(image_mean, text_mean)
        deviation = np.sqrt(np.maximum(image.diagonal(), 0))
        deviation[deviation <= image_noise] = 0.0
        image_scale = np.where(standardise, inverse(deviation), 1.0)
        variance = np.bincount(text_blocks, np.maximum(text.diagonal(), 0), minlength=len(text_weights))
        text_scale = (np.asarray(text_weights) * inverse(np.sqrt(variance)))[text_blocks]
        scaled = [
            torch.from_numpy(matrix * left[:, None] * right).to(device, dtype)
            for matrix, left, right in (
                (image, image_scale, image_scale),
                (text, text_scale, text_scale),
                (cross, image_scale, text_scale),
            )
        ]
        return cls(scaled[0], scaled[1], scaled[2], image_scale, text_scale, image_mean, text_mean)

    def _root(self, side: str, ridge: float) -> Tensor:
        """Return the root of a side's regularised covariance, the last one kept."""
        known = self._known.get(side)
        if known is None or known[0] != ridge:
            covariance = self.image if side == "image" else self.text
            known = ridge, torch.linalg.cholesky(covariance + _ridge(covariance, ridge))
            self._known[side] = known
            if side == "image":
                self._known.pop("whitened", None)
        return known[1]

    def _whitened(self, ridge: float) -> Tensor:
        """Return the cross-covariance whitened on the side of images."""
        root = self._root("image", ridge)
        if "whitened" not in self._known:
            self._known["whitened"] = ridge, torch.linalg.solve_triangular(root, self.cross, upper=False)
        return self._known["whitened"][1]

    def solve(self, ridge: tuple[float, float], n_components: int, power: float) -> tuple[Tensor, Tensor, Tensor]:
        """Solve for the directions in which both sides correlate most.

        Parameters
        ----------
        ridge : (float, float)
            Of images and texts: shares of the mean variance that are added to each.
        n_components : int
        power : float
            Of its correlation, by which each component is multiplied.

        Returns
        -------
        image, text : Tensor of shape (n_image, n) and (n_text, n), float64
            From scaled, centred coordinates to components.
        correlations : Tensor of shape (n,), float64
            Of the regularised problem, falling.
        """
        whitened = self._whitened(ridge[0])
        image_root, text_root = self._root("image", ridge[0]), self._root("text", ridge[1])
        cross = torch.linalg.solve_triangular(text_root, whitened.T, upper=False).T  # (n_image, n_text)
        # By the smaller of both squares: what float64 loses are correlations below 1e-8.
        is_wide = cross.shape[0] < cross.shape[1]
        squares, vectors = _leading(cross @ cross.T if is_wide else cross.T @ cross, n_components)
        correlation = squares.clamp(min=1e-16).sqrt()
        # One sign of two that are alike: that in which the largest entry is positive.
        largest = vectors.gather(0, vectors.abs().argmax(dim=0)[None])[0]
        vectors = vectors * torch.where(largest < 0, -1.0, 1.0)
        left, right = (vectors, cross.T @ vectors) if is_wide else (cross @ vectors, vectors)
        scale, other = correlation**power, correlation ** (power - 1)
        left, right = (left * scale, right * other) if is_wide else (left * other, right * scale)
        image_map = torch.linalg.solve_triangular(image_root.T, left, upper=True)
        return image_map, torch.linalg.solve_triangular(text_root.T, right, upper=True), correlation


def _leading(square: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Return the n largest eigenvalues of a symmetric matrix, falling, and their vectors."""
    size = len(square)
    n = min(n, size)
    if square.device.type != "cpu":
        values, vectors = torch.linalg.eigh(square)
        return values.flip(0)[:n], vectors.flip(1)[:, :n]
    # A third of the time of all of them.
    values, vectors = linalg.eigh(square.numpy(), subset_by_index=[size - n, size - 1])
    return torch.from_numpy(values[::-1].copy()), torch.from_numpy(vectors[:, ::-1].copy())


def _ridge(covariance: Tensor, share: float) -> Tensor:
    mean = covariance.diagonal().mean()
    # Of nothing but constants everything is 0, whatever it is divided by.
    variance = share * (mean if float(mean) > 0 else torch.ones_like(mean))
    return variance * torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device)
