"""Regularised canonical correlation in closed form, from covariances that are added up block by block."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from scipy import linalg, sparse
from torch import Tensor

from sklearn_mm.registry import stored_as

__all__ = ["CanonicalProblem", "Coordinates", "PairMoments", "PairRows", "fit_coordinates", "image_rows", "text_rows"]

_BLOCK_NUMBERS = 2**23  # numbers of a block of rows: 32 MB as float32
_FLOAT32_NOISE = 4 * float(np.finfo(np.float32).eps)
_BASIS_ROWS = 20_000  # rows that the basis of sparse columns is learnt on
_BASIS_PASSES = 1  # of power iteration


@dataclass(frozen=True)
class PairRows:
    """What is learnt from: images, each with its texts, each text with one image.

    Attributes
    ----------
    image : {ndarray, csr_array} of shape (n_rows, n_image_features)
    text : {ndarray, csr_array} of shape (n_texts, n_text_features)
        In the order of the images.
    rows : ndarray of shape (n_images,), int64
        Where each image stands in `image`.
    starts : ndarray of shape (n_images + 1,), int64
        Where each image's texts start in `text`.
    weight : ndarray of shape (n_images,), float64
        How much each counts; its texts share that.
    """

    image: Any
    text: Any
    rows: np.ndarray
    starts: np.ndarray
    weight: np.ndarray

    def take(self, images: np.ndarray) -> "PairRows":
        """Keep some images, in the order given, with their texts."""
        counts = np.diff(self.starts)[images]
        starts = np.concatenate([[0], np.cumsum(counts)])
        texts = np.repeat(self.starts[images] - starts[:-1], counts) + np.arange(starts[-1])
        return PairRows(self.image, self.text[texts], self.rows[images], starts, self.weight[images])

    def mean_texts(self, images: slice) -> Any:
        """Return the means of some images' texts, a matrix as `text` is."""
        first, last, _ = images.indices(len(self.rows))
        starts = self.starts[first : last + 1]
        counts = np.diff(starts)
        share = np.repeat(1 / counts, counts)
        mean = sparse.csr_array((share, np.arange(len(share)), starts - starts[0]))  # (n_images, their texts)
        means = mean @ self.text[starts[0] : starts[-1]]
        return means.tocsr() if sparse.issparse(means) else means


# Coordinates ----------------------------------------------------------------------------------------------------


@stored_as("retrieval.Coordinates")
@dataclass
class Coordinates:
    """From features to the few coordinates whose covariances are gathered.

    Attributes
    ----------
    shift : ndarray of shape (n_features,), float64
        Taken from features first: their mean when the coordinates were made.
    starts : list of int
        Where each block of columns starts, and where the last one ends.
    bases : list of (ndarray of shape (n_columns, n_coordinates), float32, or None)
        Of each block; None leaves its columns as they are.
    """

    shift: np.ndarray
    starts: list[int]
    bases: list[np.ndarray | None]

    @property
    def blocks(self) -> list[slice]:
        """The columns of each block."""
        return [slice(start, stop) for start, stop in pairwise(self.starts)]

    @property
    def block_of(self) -> np.ndarray:
        """The block of each coordinate, shape (n_coordinates,), int64."""
        widths = [
            (block.stop - block.start) if basis is None else basis.shape[1]
            for block, basis in zip(self.blocks, self.bases, strict=True)
        ]
        return np.repeat(np.arange(len(widths)), widths)

    @property
    def dtype(self) -> torch.dtype:
        """float64, or float32 where a basis has rounded to that already: sums over them take half the time."""
        return torch.float64 if all(basis is None for basis in self.bases) else torch.float32

    def of(self, rows: Any, device: torch.device) -> Tensor:
        """Return the coordinates of some rows, dense or sparse: (n, n_coordinates) `dtype`."""
        parts = [self._of_block(rows, *block, device) for block in zip(self.blocks, self.bases, strict=True)]
        return parts[0].to(self.dtype) if len(parts) == 1 else torch.cat([part.to(self.dtype) for part in parts], dim=1)

    def _of_block(self, rows: Any, columns: slice, basis: np.ndarray | None, device: torch.device) -> Tensor:
        own = rows if columns == slice(0, rows.shape[1]) else rows[:, columns]
        shift = self.shift[columns]
        if sparse.issparse(own):
            if basis is None:
                return torch.from_numpy(own.toarray() - shift).to(device)
            # The zeros of rows stay what they are: it is their image that is shifted.
            return torch.from_numpy(own @ basis - (shift @ basis).astype(np.float32)).to(device)
        block = torch.from_numpy(np.require(own, requirements=["C", "W"])).to(device)
        moved = block.double() - torch.from_numpy(shift).to(device)
        return moved if basis is None else moved.float() @ torch.from_numpy(basis).to(device)

    def columns_of(self, maps: np.ndarray) -> np.ndarray:
        """Return a map of coordinates, (n_coordinates, n), as one of features: (n_features, n) float32."""
        start, parts = 0, []
        for columns, basis in zip(self.blocks, self.bases, strict=True):
            width = (columns.stop - columns.start) if basis is None else basis.shape[1]
            own = maps[start : start + width].astype(np.float32)
            parts.append(own if basis is None else basis @ own)
            start += width
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


def fit_coordinates(
    rows: "_Rows",
    starts: Sequence[int],
    n_reduced: int,
    *,
    standardise: bool,
    rng: np.random.Generator,
    device: torch.device,
) -> Coordinates:
    """Choose coordinates: the columns of a block as they are, or of more than `n_reduced` a basis of as many.

    Parameters
    ----------
    rows : rows of images, or of the means of their texts
    starts : sequence of int
        Where each block starts, and where the last one ends.
    n_reduced : int
    standardise : bool
        Whether columns are divided by their deviations before a basis is chosen.
    rng : Generator
    device : torch.device
    """
    shift, scale = rows.statistics()
    bases: list[np.ndarray | None] = []
    for start, stop in pairwise(starts):
        if stop - start <= n_reduced:
            bases.append(None)
            continue
        columns = slice(start, stop)
        weight = _inverse(scale[columns]) if standardise else np.ones(stop - start)
        choose = _sparse_basis if rows.is_sparse else _dense_basis
        bases.append(choose(rows, columns, shift[columns], weight, n_reduced, rng, device))
    return Coordinates(shift, [int(start) for start in starts], bases)


def _inverse(scale: np.ndarray) -> np.ndarray:
    return np.divide(1.0, scale, out=np.zeros_like(scale), where=scale > 0)


@dataclass(frozen=True)
class _Rows:
    """Weighted rows of one side, block by block."""

    n_rows: int
    weight: np.ndarray
    is_sparse: bool

    def take(self, index: Any) -> Any:
        raise NotImplementedError

    def blocks(self, width: int) -> Iterator[tuple[Any, np.ndarray]]:
        """Yield blocks of rows with their weights."""
        step = max(1, _BLOCK_NUMBERS // max(width, 1))
        for start in range(0, self.n_rows, step):
            block = slice(start, min(start + step, self.n_rows))
            yield self.take(block), self.weight[block]

    def statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the weighted mean and deviation of each column, float64; 0 of one that varies less than its floats."""
        total = self.weight.sum()
        first = self.take(slice(0, 1))
        width = first.shape[1]
        # About the first row, so that a constant column deviates by exactly 0; about 0 where rows are sparse.
        origin = np.zeros(width) if self.is_sparse else first[0].astype(np.float64)
        sums, squares = np.zeros(width), np.zeros(width)
        for rows, weight in self.blocks(width):
            if self.is_sparse:
                sums += rows.T @ weight
                squares += rows.power(2).T @ weight
            else:
                offsets = rows - origin  # float64
                sums += weight @ offsets
                squares += np.einsum("i,ij,ij->j", weight, offsets, offsets)
        mean = sums / total
        scale = np.sqrt(np.maximum(squares / total - mean**2, 0))
        mean = mean + origin
        scale[scale <= _FLOAT32_NOISE * np.abs(mean)] = 0.0
        return mean, scale


@dataclass(frozen=True)
class ImageRows(_Rows):
    """Rows of the images of pairs."""

    pairs: PairRows

    def take(self, index: Any) -> Any:
        return self.pairs.image[self.pairs.rows[index]]


@dataclass(frozen=True)
class TextRows(_Rows):
    """Means of the texts of each image of pairs."""

    pairs: PairRows

    def take(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.pairs.mean_texts(index)
        chosen = self.pairs.take(index)
        return chosen.mean_texts(slice(None))


def image_rows(pairs: PairRows) -> ImageRows:
    return ImageRows(len(pairs.rows), pairs.weight, sparse.issparse(pairs.image), pairs)


def text_rows(pairs: PairRows) -> TextRows:
    return TextRows(len(pairs.rows), pairs.weight, sparse.issparse(pairs.text), pairs)


def _dense_basis(
    rows: _Rows,
    columns: slice,
    shift: np.ndarray,
    weight: np.ndarray,
    n_reduced: int,
    rng: np.random.Generator,
    device: torch.device,
) -> np.ndarray:
    """Return an orthonormal basis of the span of some rows, drawn at random (Nystroem), or of all."""
    # One product of the rows drawn, where principal components take several passes over all: on Flickr8k's validation
    # part RSum 342.7 against 344.4.
    chosen = np.sort(rng.permutation(rows.n_rows)[:n_reduced])
    own = rows.take(chosen)[:, columns]
    sample = torch.from_numpy(((own - shift) * weight).astype(np.float32)).to(device)  # (n_chosen, n_columns)
    gram = sample @ sample.T
    root = _cholesky(gram.double()).float()
    basis = torch.linalg.solve_triangular(root, sample, upper=False)  # orthonormal rows
    return _numpy(basis.T * torch.from_numpy(weight.astype(np.float32)).to(device)[:, None])


def _cholesky(gram: Tensor) -> Tensor:
    """Return the root of a Gram matrix of float32 rows, some of which may be alike."""
    jitter = 1e-5 * float(gram.diagonal().mean()) or 1.0
    while True:
        root, failed = torch.linalg.cholesky_ex(gram + jitter * torch.eye(len(gram), dtype=gram.dtype).to(gram.device))
        if not int(failed):
            return root
        jitter *= 10  # of a matrix as large as its diagonal the root exists


def _sparse_basis(
    rows: _Rows,
    columns: slice,
    shift: np.ndarray,
    weight: np.ndarray,
    n_reduced: int,
    rng: np.random.Generator,
    device: torch.device,
) -> np.ndarray:
    """Return a basis of about the principal directions of sparse rows: their zeros are never filled."""
    chosen = np.sort(rng.permutation(rows.n_rows)[:_BASIS_ROWS])
    own = sparse.csr_array(rows.take(chosen)[:, columns].multiply(weight[None, :]), dtype=np.float32)
    share = np.sqrt(rows.weight[chosen] / rows.weight[chosen].mean()).astype(np.float32)
    own = sparse.csr_array(own.multiply(share[:, None]))
    moved = (shift * weight).astype(np.float32)

    def onto(directions: np.ndarray) -> np.ndarray:
        return own @ directions - np.outer(share, moved @ directions)

    def back(scores: np.ndarray) -> np.ndarray:
        return own.T @ scores - np.outer(moved, share @ scores)

    n_kept = min(n_reduced, own.shape[0], own.shape[1])
    # On the side of the rows, which are mostly fewer than the columns.
    scores = onto(rng.standard_normal((own.shape[1], n_kept), dtype=np.float32))
    for _ in range(_BASIS_PASSES):
        scores = onto(back(_orthonormal(scores, device)))
    directions = _orthonormal(back(_orthonormal(scores, device)), device)
    return np.ascontiguousarray(directions * weight.astype(np.float32)[:, None])


def _orthonormal(columns: np.ndarray, device: torch.device) -> np.ndarray:
    """Return columns that span the same, by the root of their Gram matrix: a product, where a QR takes longer."""
    tall = torch.from_numpy(columns).to(device)
    root = _cholesky((tall.T @ tall).double()).float()
    return _numpy(torch.linalg.solve_triangular(root, tall.T, upper=False).T)


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
        step = max(1, _BLOCK_NUMBERS // max(image.starts[-1], 8 * n_text))

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
        image_scale = np.where(standardise, _inverse(deviation), 1.0)
        variance = np.bincount(text_blocks, np.maximum(text.diagonal(), 0), minlength=len(text_weights))
        text_scale = (np.asarray(text_weights) * _inverse(np.sqrt(variance)))[text_blocks]
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


def _numpy(tensor: Tensor) -> np.ndarray:
    array: np.ndarray = np.ascontiguousarray(tensor.cpu().numpy())
    return array
