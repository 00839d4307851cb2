"""Rows of images and texts that belong together, block by block."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

__all__ = ["BLOCK_NUMBERS", "ImageRows", "PairRows", "TextRows", "WeightedRows", "image_rows", "text_rows"]

BLOCK_NUMBERS = 2**23  # numbers of a block of rows: 32 MB as float32
_FLOAT32_NOISE = 4 * float(np.finfo(np.float32).eps)


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


@dataclass(frozen=True)
class WeightedRows:
    """Weighted rows of one side, block by block."""

    n_rows: int
    weight: np.ndarray
    is_sparse: bool

    def take(self, index: Any) -> Any:
        raise NotImplementedError

    def blocks(self, width: int) -> Iterator[tuple[Any, np.ndarray]]:
        """Yield blocks of rows with their weights."""
        step = max(1, BLOCK_NUMBERS // max(width, 1))
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
class ImageRows(WeightedRows):
    """Rows of the images of pairs."""

    pairs: PairRows

    def take(self, index: Any) -> Any:
        return self.pairs.image[self.pairs.rows[index]]


@dataclass(frozen=True)
class TextRows(WeightedRows):
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
