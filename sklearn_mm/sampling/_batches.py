"""Batches for one epoch: every image once, with captions drawn anew where it has some."""

from collections.abc import Iterator

import numpy as np

__all__ = ["caption_batches", "n_batches", "row_batches"]


def row_batches(n_rows: int, batch_size: int, rng: np.random.Generator, *, at_least: int = 2) -> Iterator[np.ndarray]:
    """Draw the batches of an epoch over rows.

    Parameters
    ----------
    n_rows, batch_size : int
    rng : numpy.random.Generator
    at_least : int
        What a last batch has; fewer rows join the batch before it.

    Yields
    ------
    ndarray of shape (n_batch,), int64
        The last batch takes what is left, and a single row joins the batch before it: batch norm needs two.
    """
    order = rng.permutation(n_rows)
    return iter(np.split(order, _batch_ends(n_rows, batch_size, at_least)[:-1]))


def n_batches(n_rows: int, batch_size: int, *, at_least: int = 2) -> int:
    """Count the batches of an epoch, over rows or over images with captions."""
    return len(_batch_ends(n_rows, batch_size, at_least))


def _batch_ends(n_rows: int, batch_size: int, at_least: int) -> np.ndarray:
    ends = np.arange(batch_size, n_rows + batch_size, batch_size)
    if len(ends) > 1 and n_rows - ends[-2] < at_least:
        ends = ends[:-1]
    ends[-1] = n_rows
    return ends


def caption_batches(
    starts: np.ndarray, batch_size: int, captions_per_image: int, rng: np.random.Generator, *, at_least: int = 2
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Draw the batches of an epoch.

    Parameters
    ----------
    starts : ndarray of shape (n_images + 1,), int64
        Where each image's captions start in the flat list of captions.
    batch_size : int
        Images a batch. The last one takes what is left, unless that is fewer than `at_least`.
    captions_per_image : int
        Captions drawn for each image, without replacement; all of them where it has fewer.
    rng : numpy.random.Generator
    at_least : int

    Yields
    ------
    images : ndarray of shape (n_batch,), int64
    texts : ndarray of shape (n_texts,), int64
        Rows of the flat list of captions.
    image_of_text : ndarray of shape (n_texts,), int64
        The position in `images` of each text's image.
    """
    order = rng.permutation(len(starts) - 1)
    first = 0
    for end in _batch_ends(len(order), batch_size, at_least).tolist():  # a lone image has no negative
        images = order[first:end]
        first = end
        counts = starts[images + 1] - starts[images]
        drawn = np.minimum(counts, captions_per_image)
        image_of_text = np.repeat(np.arange(len(images)), drawn)
        # Draw without replacement by ranking random keys: a key beyond an image's own captions is never drawn.
        keys = rng.random((len(images), int(counts.max())))
        keys[np.arange(keys.shape[1]) >= counts[:, None]] = 2.0
        ranked = np.argsort(keys, axis=1)[:, : int(drawn.max())]
        chosen = ranked[np.arange(ranked.shape[1]) < drawn[:, None]]
        yield images, starts[images][image_of_text] + chosen, image_of_text
