"""How many items score above a query's positive: counted by blocks, not sorted.

The scores of a block come from float32 arithmetic. An item whose score lies so near to the positive's that
rounding could put it on the wrong side is scored again in float64; far fewer than one in a thousand are.

Threads take blocks, one by one: the product by a BLAS of one thread, then the comparisons, tile by tile. To compare
costs a fifth while a tile is in the core's own cache of what it costs outside.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sklearn_mm._threads import in_threads, n_workers
from sklearn_mm.metrics._similarity import Similarity

__all__ = ["NO_OFFSETS", "Offsets", "Thresholds", "count_gallery"]

_N_TEXTS = 1024  # of a block of scores: one product, for which wide ones are fast
_N_IMAGES = 1280
_BLOCKS_BYTES = 128 * 2**20  # of the blocks of all threads together
_TILE = 2**18  # scores that are compared and counted while they are in the cache of a core: 1 MB
_FEW = 1 / 32  # up to this share of scores at or above the threshold are looked at one by one
_WORTH_A_THREAD = 10**8  # multiplications; fewer take less time than a thread takes to start
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

    def uncounted(self) -> "Thresholds":
        """Return the same thresholds with counts of their own, zero at first."""
        zeros = np.zeros(len(self.row), dtype=np.int64)
        return replace(self, n_better=zeros, n_tied=zeros.copy())

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
    n_images, n_texts = len(similarity.image), len(similarity.text)
    n_most = n_images * n_texts * similarity.image.shape[1] // _WORTH_A_THREAD
    n_threads = max(min(n_workers(), n_most), 1)
    block_texts = min(_N_TEXTS, max(-(-n_texts // n_threads), 1))
    block_images = min(_N_IMAGES, max(_BLOCKS_BYTES // (4 * block_texts * n_threads), 1))
    blocks = [
        (
            slice(image, min(image + block_images, n_images)),
            slice(text, min(text + block_texts, n_texts)),
        )
        for text in range(0, n_texts, block_texts)
        for image in range(0, n_images, block_images)
    ]

    def count(blocks: Iterator[tuple[slice, slice]]) -> list[Thresholds | None]:
        # Each thread counts for itself.
        own = [None if queries is None else queries.uncounted() for queries in (image_queries, text_queries)]
        buffer = np.empty(block_images * block_texts, dtype=np.float32)
        marks = np.empty((2, max(_TILE, block_texts)), dtype=bool)
        for images, texts in blocks:
            n_rows, n_columns = images.stop - images.start, texts.stop - texts.start
            # contiguous also where the last blocks are smaller
            scores = similarity.block(images, texts, out=buffer[: n_rows * n_columns].reshape(n_rows, n_columns))
            n_tile = max(_TILE // n_columns, 1)
            for first in range(0, n_rows, n_tile):
                rows = slice(images.start + first, min(images.start + first + n_tile, images.stop))
                tile = _Tile(similarity, ignored, rows, texts, offsets, scores[first : first + n_tile], marks)
                if own[0] is not None:
                    _count_for_images(tile, own[0])
                if own[1] is not None:
                    _count_for_texts(tile, own[1])
        return own

    for counted in in_threads(count, blocks, n_threads):
        for queries, own in zip((image_queries, text_queries), counted, strict=True):
            if queries is not None and own is not None:
                queries.n_better += own.n_better
                queries.n_tied += own.n_tied


class _Tile:
    """The scores of some images with some texts, ignored pairs at minus infinity."""

    def __init__(
        self,
        similarity: Similarity,
        ignored: tuple[np.ndarray, np.ndarray],
        images: slice,
        texts: slice,
        offsets: Offsets,
        scores: np.ndarray,
        marks: np.ndarray,
    ):
        self.similarity, self.ignored, self.images, self.texts = similarity, ignored, images, texts
        self.offsets = offsets
        self.scores = self._without_ignored(scores)  # (n_images, n_texts)
        self._exact_scores: np.ndarray | None = None
        self._marks = marks  # two rows of memory that is there already, in the cache

    @property
    def exact_scores(self) -> np.ndarray:
        """The same in float64, computed when first asked for."""
        if self._exact_scores is None:
            self._exact_scores = self._without_ignored(self.similarity.exact_block(self.images, self.texts))
        return self._exact_scores

    def at_least(self, scores: np.ndarray, threshold: np.ndarray) -> np.ndarray:
        """Mark scores (of the size of the tile at most) that are `threshold` or above, until the next are marked."""
        return np.greater_equal(scores, threshold, out=self._marks[0, : scores.size].reshape(scores.shape))

    def above(self, scores: np.ndarray, threshold: np.ndarray) -> np.ndarray:
        """Mark scores above `threshold`, likewise."""
        return np.greater(scores, threshold, out=self._marks[1, : scores.size].reshape(scores.shape))

    def _without_ignored(self, scores: np.ndarray) -> np.ndarray:
        start = np.maximum(self.ignored[0][self.images] - self.texts.start, 0)
        stop = np.minimum(self.ignored[1][self.images] - self.texts.start, scores.shape[1])
        for row in np.flatnonzero(start < stop):
            # Below every threshold: neither better nor tied.
            scores[row, start[row] : stop[row]] = -np.inf
        return scores


def _count_for_images(tile: _Tile, queries: Thresholds) -> None:
    first, last = np.searchsorted(queries.row, [tile.images.start, tile.images.stop])
    # With the best positive alone each image has one threshold, and the tile is compared without a copy.
    one_each = np.array_equal(queries.row[first:last], np.arange(tile.images.start, tile.images.stop))
    among_texts = tile.offsets.off_texts(tile.scores, tile.texts)
    # With every positive an image has several: rows of the tile are repeated, as many at a time as it has itself.
    for start in range(first, last, len(among_texts)):
        part = slice(start, min(start + len(among_texts), last))
        row = queries.row[part] - tile.images.start
        scores = among_texts if one_each else among_texts[row]  # (n_thresholds, n_texts)
        at_least = tile.at_least(scores, queries.sure_low[part, None])
        n_at_least = np.count_nonzero(at_least)
        if n_at_least <= _FEW * at_least.size:
            # Good embeddings leave few above a positive.
            if n_at_least:
                at = np.flatnonzero(at_least)
                query, text = np.divmod(at, scores.shape[1])
                better = scores.ravel()[at] > queries.sure_high[part][query]
                _add(queries.n_better, part, query[better])
                _count_texts_exactly(tile, queries, part, row, query[~better], text[~better])
            continue
        better = tile.above(scores, queries.sure_high[part, None])
        at = np.flatnonzero(np.logical_xor(at_least, better, out=at_least))  # at least low, and not surely above high
        if at.size > _DENSE * better.size:
            # Near-equal embeddings make most pairs uncertain: one float64 product of the tile is cheaper than so many
            # pairs one by one.
            exact = tile.offsets.off_texts(tile.exact_scores[row], tile.texts)
            better = exact > queries.high[part, None]
            queries.n_tied[part] += _count_rows((exact >= queries.low[part, None]) ^ better)
        elif at.size:
            _count_texts_exactly(tile, queries, part, row, *np.divmod(at, scores.shape[1]))
        queries.n_better[part] += _count_rows(better)


def _count_texts_exactly(
    tile: _Tile, queries: Thresholds, part: slice, row: np.ndarray, query: np.ndarray, text: np.ndarray
) -> None:
    """Count pairs of a threshold in `part`, whose image is `row`, and a text of the tile."""
    if query.size:
        text = text + tile.texts.start
        exact = tile.offsets.off_texts(tile.similarity.exact(row[query] + tile.images.start, text), text)
        _add_exact(queries, part, query, exact)


def _count_for_texts(tile: _Tile, queries: Thresholds) -> None:
    part = tile.texts
    scores = tile.offsets.off_images(tile.scores, tile.images)
    at_least = tile.at_least(scores, queries.sure_low[part])
    n_at_least = np.count_nonzero(at_least)
    if n_at_least <= _FEW * at_least.size:
        if n_at_least:
            at = np.flatnonzero(at_least)
            image, query = np.divmod(at, scores.shape[1])
            better = scores.ravel()[at] > queries.sure_high[part][query]
            _add(queries.n_better, part, query[better])
            _count_images_exactly(tile, queries, image[~better], query[~better])
        return
    better = tile.above(scores, queries.sure_high[part])
    # at least low, and not surely above high
    at = np.flatnonzero(np.logical_xor(at_least, better, out=at_least))
    if at.size > _DENSE * better.size:
        exact = tile.offsets.off_images(tile.exact_scores, tile.images)
        better = exact > queries.high[part]
        queries.n_tied[part] += _count_columns((exact >= queries.low[part]) ^ better)
    elif at.size:
        _count_images_exactly(tile, queries, *np.divmod(at, scores.shape[1]))
    queries.n_better[part] += _count_columns(better)


def _count_images_exactly(tile: _Tile, queries: Thresholds, image: np.ndarray, query: np.ndarray) -> None:
    """Count pairs of an image and a text of the tile."""
    if query.size:
        image = image + tile.images.start
        exact = tile.offsets.off_images(tile.similarity.exact(image, query + tile.texts.start), image)
        _add_exact(queries, tile.texts, query, exact)


def _add_exact(queries: Thresholds, part: slice, query: np.ndarray, exact: np.ndarray) -> None:
    better = exact > queries.high[part][query]
    tied = ~better & (exact >= queries.low[part][query])
    _add(queries.n_better, part, query[better])
    _add(queries.n_tied, part, query[tied])


def _add(counts: np.ndarray, part: slice, query: np.ndarray) -> None:
    counts[part] += np.bincount(query, minlength=part.stop - part.start)


def _count_rows(mask: np.ndarray) -> np.ndarray:
    # Eight marks to a byte, then the bits of each byte: rows are contiguous, unlike the columns below.
    return np.bitwise_count(np.packbits(mask, axis=1)).sum(axis=1, dtype=np.int64)


def _count_columns(mask: np.ndarray) -> np.ndarray:
    ones = mask.view(np.uint8)
    counts = np.zeros(mask.shape[1], dtype=np.int64)
    for start in range(0, len(ones), 255):  # sums that fit into the byte are many times faster
        counts += np.add.reduce(ones[start : start + 255], axis=0, dtype=np.uint8)
    return counts
