"""How many items score above a query's positive: counted by blocks, not sorted.

The scores of a block come from float32 arithmetic. An item whose score lies so near to the positive's that
rounding could put it on the wrong side is scored again in float64; far fewer than one in a thousand are.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from sklearn_mm.metrics._similarity import Similarity

__all__ = ["NO_OFFSETS", "Offsets", "Thresholds", "count_gallery"]

_N_IMAGES = 512  # images and texts in a block of scores: 8 MB of float32, which stays in the cache
_N_TEXTS = 4096
_OFFSET_ERROR = 2 * float(np.finfo(np.float32).eps)
_DENSE = 1 / 32  # above this share of uncertain scores the whole block is computed again in float64


@dataclass(frozen=True)
class Offsets:
    """What is taken off an item's score with every query, where the item is one of the gallery.

    Attributes
    ----------
    image : ndarray of shape (n_images,), float32, or None
        Off the scores of images that texts look for.
    text : ndarray of shape (n_texts,), float32, or None
        Off the scores of texts that images look for.
    """

    image: np.ndarray | None = None
    text: np.ndarray | None = None

    def take(self, images: Any, texts: Any) -> "Offsets":
        """Take some images and texts, or all in another order."""
        image = None if self.image is None else self.image[images]
        return Offsets(image, None if self.text is None else self.text[texts])

    def off_texts(self, scores: np.ndarray, texts: Any) -> np.ndarray:
        """Return the scores that some texts, along the last axis, have for images."""
        return scores if self.text is None else scores - self.text[texts]

    def off_images(self, scores: np.ndarray, images: Any) -> np.ndarray:
        """Return the scores that some images, along the first axis, have for texts."""
        if self.image is None:
            return scores
        return scores - self.image[images].reshape(-1, *[1] * (scores.ndim - 1))


NO_OFFSETS = Offsets()


@dataclass
class Thresholds:
    """Positives whose place among the negatives is asked for, and the counts.

    Attributes
    ----------
    row : ndarray of shape (n_thresholds,), int64
        The query each of them belongs to, never decreasing.
    low, high : ndarray of shape (n_thresholds,), float64
        A negative is tied with the positive if its score lies in [low, high], better if it is above.
    sure_low, sure_high : ndarray of shape (n_thresholds,), float32
        Bounds that no rounding crosses: a float32 score below `sure_low` is worse, above `sure_high` better.
    n_better, n_tied : ndarray of shape (n_thresholds,), int64
        The counts, zero at first.
    """

    row: np.ndarray
    low: np.ndarray
    high: np.ndarray
    sure_low: np.ndarray
    sure_high: np.ndarray
    n_better: np.ndarray
    n_tied: np.ndarray

    @classmethod
    def around(
        cls,
        row: np.ndarray,
        score: np.ndarray,
        tolerance: np.ndarray,
        similarity: Similarity,
        offset: np.ndarray | None = None,
    ) -> "Thresholds":
        """Set thresholds around the exact scores (n_thresholds,) of positives, of which there are offsets or none."""
        low, high = score - tolerance, score + tolerance
        # One more float32 operation, on numbers of at most 1.
        error = 0.0 if offset is None else _OFFSET_ERROR
        # Outwards by one float32 more, as astype rounds to nearest and may have gone inwards.
        sure_low = np.nextafter((low - similarity.block_error(low) - error).astype(np.float32), np.float32(-np.inf))
        sure_high = np.nextafter((high + similarity.block_error(high) + error).astype(np.float32), np.float32(np.inf))
        zeros = np.zeros(len(row), dtype=np.int64)
        return cls(row, low, high, sure_low, sure_high, zeros, zeros.copy())


def count_gallery(
    similarity: Similarity,
    ignored: tuple[np.ndarray, np.ndarray],
    image_queries: Thresholds | None,
    text_queries: Thresholds | None,
    offsets: Offsets,
) -> None:
    """Count, in one pass over all scores, the negatives above and at each threshold.

    Parameters
    ----------
    similarity : Similarity
        Scores between n_images images and n_texts texts.
    ignored : pair of ndarray of shape (n_images,), int64
        ``ignored[0][i] : ignored[1][i]`` are the texts that are no negatives of image i, nor it of them.
    image_queries : Thresholds or None
        Rows are images, the gallery is texts.
    text_queries : Thresholds or None
        Rows are texts, one threshold each in their order; the gallery is images.
    offsets : Offsets
    """
    for first_image in range(0, len(similarity.image), _N_IMAGES):
        images = slice(first_image, min(first_image + _N_IMAGES, len(similarity.image)))
        for first_text in range(0, len(similarity.text), _N_TEXTS):
            texts = slice(first_text, min(first_text + _N_TEXTS, len(similarity.text)))
            block = _Block(similarity, ignored, images, texts, offsets)
            if image_queries is not None:
                _count_for_images(block, image_queries)
            if text_queries is not None:
                _count_for_texts(block, text_queries)


class _Block:
    """The scores of some images with some texts, ignored pairs at minus infinity."""

    def __init__(
        self,
        similarity: Similarity,
        ignored: tuple[np.ndarray, np.ndarray],
        images: slice,
        texts: slice,
        offsets: Offsets,
    ):
        self.similarity, self.ignored, self.images, self.texts = similarity, ignored, images, texts
        self.offsets = offsets
        self.scores = self._without_ignored(similarity.block(images, texts))  # (n_images, n_texts)
        self._exact_scores: np.ndarray | None = None

    @property
    def exact_scores(self) -> np.ndarray:
        """The same in float64, computed when first asked for."""
        if self._exact_scores is None:
            self._exact_scores = self._without_ignored(self.similarity.exact_block(self.images, self.texts))
        return self._exact_scores

    def _without_ignored(self, scores: np.ndarray) -> np.ndarray:
        start = np.maximum(self.ignored[0][self.images] - self.texts.start, 0)
        stop = np.minimum(self.ignored[1][self.images] - self.texts.start, scores.shape[1])
        for row in np.flatnonzero(start < stop):
            # Below every threshold: neither better nor tied.
            scores[row, start[row] : stop[row]] = -np.inf
        return scores


def _count_for_images(block: _Block, queries: Thresholds) -> None:
    first, last = np.searchsorted(queries.row, [block.images.start, block.images.stop])
    # With the best positive alone each image has one threshold, and the block is compared without a copy.
    one_each = np.array_equal(queries.row[first:last], np.arange(block.images.start, block.images.stop))
    among_texts = block.offsets.off_texts(block.scores, block.texts)
    # With every positive an image has several: rows of the block are repeated, as many at a time as it has itself.
    for start in range(first, last, _N_IMAGES):
        part = slice(start, min(start + _N_IMAGES, last))
        row = queries.row[part] - block.images.start
        scores = among_texts if one_each else among_texts[row]  # (n_thresholds, n_texts)
        better = scores > queries.sure_high[part, None]
        uncertain = (scores >= queries.sure_low[part, None]) ^ better  # at least low, and not surely above high
        at = np.flatnonzero(uncertain)
        if at.size > _DENSE * uncertain.size:
            # Near-equal embeddings make most pairs uncertain: one float64 product of the block is cheaper than so many
            # pairs one by one.
            exact = block.offsets.off_texts(block.exact_scores[row], block.texts)
            better = exact > queries.high[part, None]
            queries.n_tied[part] += _count_rows((exact >= queries.low[part, None]) ^ better)
        elif at.size:
            query, text = np.divmod(at, scores.shape[1])
            text = text + block.texts.start
            exact = block.offsets.off_texts(block.similarity.exact(row[query] + block.images.start, text), text)
            _add(queries, query + start, exact)
        queries.n_better[part] += _count_rows(better)


def _count_for_texts(block: _Block, queries: Thresholds) -> None:
    part = block.texts
    scores = block.offsets.off_images(block.scores, block.images)
    better = scores > queries.sure_high[part]
    uncertain = (scores >= queries.sure_low[part]) ^ better
    at = np.flatnonzero(uncertain)
    if at.size > _DENSE * uncertain.size:
        exact = block.offsets.off_images(block.exact_scores, block.images)
        better = exact > queries.high[part]
        queries.n_tied[part] += _count_columns((exact >= queries.low[part]) ^ better)
    elif at.size:
        image, query = np.divmod(at, uncertain.shape[1])
        image = image + block.images.start
        exact = block.offsets.off_images(block.similarity.exact(image, query + part.start), image)
        _add(queries, query + part.start, exact)
    queries.n_better[part] += _count_columns(better)


def _add(queries: Thresholds, query: np.ndarray, exact: np.ndarray) -> None:
    better = exact > queries.high[query]
    tied = ~better & (exact >= queries.low[query])
    queries.n_better += np.bincount(query[better], minlength=len(queries.row))
    queries.n_tied += np.bincount(query[tied], minlength=len(queries.row))


def _count_rows(mask: np.ndarray) -> np.ndarray:
    # Eight marks to a byte, then the bits of each byte: rows are contiguous, unlike the columns below.
    return np.bitwise_count(np.packbits(mask, axis=1)).sum(axis=1, dtype=np.int64)


def _count_columns(mask: np.ndarray) -> np.ndarray:
    ones = mask.view(np.uint8)
    counts = np.zeros(mask.shape[1], dtype=np.int64)
    for start in range(0, len(ones), 255):  # sums that fit into the byte are many times faster
        counts += np.add.reduce(ones[start : start + 255], axis=0, dtype=np.uint8)
    return counts
