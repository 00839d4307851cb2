"""Hubs: items that are near every query, and what is taken off their scores for it."""

from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from sklearn_mm._device import generator_from
from sklearn_mm._docs import shared_docs
from sklearn_mm._params import Interval, Real, positive_int, validate_params
from sklearn_mm.metrics import check_embedding, exact_unit_rows, unit_rows
from sklearn_mm.persistence import PickleStateMixin
from sklearn_mm.registry import stored_as

__all__ = ["NearestNeighborNormalization", "as_items", "as_queries"]

_N_ITEMS = 256  # items whose scores over the bank are held at once: 8 MB of float64


@shared_docs
@stored_as("retrieval.NearestNeighborNormalization")
class NearestNeighborNormalization(PickleStateMixin, BaseEstimator):
    """Take off each item's score how near it is to queries in general.

    Of the items of a gallery some are near every query, and push the right ones down. From the score of an item is
    taken a share of its mean score over the queries of a bank that are nearest to it [1]_::

        score(query, item) - strength * mean of the n_neighbors largest score(bank query, item)

    The banks hold training texts for images that are searched and training images for texts, never a query that is
    asked.

    Parameters
    ----------
    strength : float, default=0.75
        The share.
    n_neighbors : int, default=64
        Queries of the bank that count; all of a smaller bank.
    bank_size : int, default=4096
        The most images and the most texts that are kept, drawn by chance from more.
    random_state : int, RandomState or None, default=None
        What they are drawn by. A ranker draws by its own.

    Attributes
    ----------
    image_bank_, text_bank_ : ndarray of shape (n_bank, n_components), float32
        Unit vectors.

    See Also
    --------
    JointEmbeddingRanker : Its parameter `hubness`.
    sklearn_mm.metrics.retrieval_report : The numbers with what is returned here as `image_offset` and `text_offset`.

    Notes
    -----
    What is taken off depends on the item alone. So a search costs one component more: of an item the vector with minus
    its offset behind it, of a query the vector with a 1. Offsets cost a product of the items and a bank in float64, so
    that equal items have equal ones wherever they stand.

    On Flickr8k the strength and the number of neighbours are flat from 0.5 to 1 and from 16 to 128, and a bank of more
    than 4,000 gains nothing. Banks of a hundred neither gain nor lose. The inverted softmax of QB-Norm [2]_, with the
    best of its temperatures, gains the same, and its dynamic form less.

    %(threads)s

    References
    ----------
    .. [1] Chowdhury, Wang, Shenoy, Kiela, Schwettmann, Thrush, "Nearest Neighbor Normalization Improves Multimodal
       Retrieval", EMNLP 2024, https://arxiv.org/abs/2410.24114
    .. [2] Bogolin, Croitoru, Jin, Liu, Albanie, "Cross Modal Retrieval with Querybank Normalisation", CVPR 2022,
       https://arxiv.org/abs/2112.12777

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_mm.metrics import retrieval_report
    >>> from sklearn_mm.retrieval import NearestNeighborNormalization
    >>> rng = np.random.default_rng(0)
    >>> meaning, hub = rng.normal(size=(400, 16)), rng.normal(size=16)
    >>> images = meaning + 0.5 * rng.normal(size=(400, 16)) + 2 * hub * rng.exponential(size=(400, 1))
    >>> texts = meaning + 0.5 * rng.normal(size=(400, 16)) + 2 * hub
    >>> train, test, owner = slice(200), slice(200, None), np.arange(200)
    >>> hubness = NearestNeighborNormalization().fit(images[train], texts[train])
    >>> corrected = retrieval_report(
    ...     images[test], texts[test], owner, image_offset=hubness.image_offsets(images[test])
    ... )
    >>> corrected["t2i_hit@1"] > retrieval_report(images[test], texts[test], owner)["t2i_hit@1"]
    True
    """

    short_name = "nnn"
    _parameter_constraints: dict[str, Any] = {
        "strength": [Interval(Real, 0, None, closed="left")],
        "n_neighbors": [positive_int],
        "bank_size": [positive_int],
        "random_state": ["random_state"],
    }

    def __init__(
        self, strength: float = 0.75, *, n_neighbors: int = 64, bank_size: int = 4096, random_state: Any = None
    ) -> None:
        self.strength = strength
        self.n_neighbors = n_neighbors
        self.bank_size = bank_size
        self.random_state = random_state

    def fit(self, images: Any, texts: Any) -> Self:
        """Keep embedded images and texts as banks.

        Parameters
        ----------
        images : array-like of shape (n_images, n_components)
        texts : array-like of shape (n_texts, n_components)
            Of the same space, not of the same number. Compared by their cosine.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            They are of different widths, empty, or hold NaN or infinity; or a parameter is none of its options.
        """
        validate_params(self)
        image, text = check_embedding(images, "images"), check_embedding(texts, "texts")
        if image.shape[1] != text.shape[1]:
            raise ValueError(
                "images and texts must be embedded in one space, got images of "
                f"{image.shape[1]} components and texts of {text.shape[1]}"
            )
        # Where nothing is left to chance nothing is drawn: a random state of None is numpy's global one.
        if max(len(image), len(text)) > self.bank_size:
            rng = generator_from(check_random_state(self.random_state))
            image, text = image[self.draw(len(image), rng)], text[self.draw(len(text), rng)]
        self.image_bank_ = unit_rows(image)
        self.text_bank_ = unit_rows(text)
        return self

    def draw(self, n_rows: int, rng: np.random.Generator) -> np.ndarray:
        """Draw the rows of a bank, (n_bank,) int64 in ascending order; all of no more than `bank_size`."""
        if n_rows <= self.bank_size:
            return np.arange(n_rows)
        return np.sort(rng.choice(n_rows, self.bank_size, replace=False))

    def image_offsets(self, images: Any) -> np.ndarray:
        """Return what is taken off the scores of images that are searched, from the texts of the bank.

        Parameters
        ----------
        images : array-like of shape (n_images, n_components)

        Returns
        -------
        ndarray of shape (n_images,), float32
        """
        check_is_fitted(self)
        return self._offsets(check_embedding(images, "images"), self.text_bank_)

    def text_offsets(self, texts: Any) -> np.ndarray:
        """Return what is taken off the scores of texts that are searched, from the images of the bank.

        Parameters
        ----------
        texts : array-like of shape (n_texts, n_components)

        Returns
        -------
        ndarray of shape (n_texts,), float32
        """
        check_is_fitted(self)
        return self._offsets(check_embedding(texts, "texts"), self.image_bank_)

    def _offsets(self, items: np.ndarray, bank: np.ndarray) -> np.ndarray:
        if items.shape[1] != bank.shape[1]:
            raise ValueError(f"expected items of {bank.shape[1]} components, as in the bank, got {items.shape[1]}")
        n_near = min(self.n_neighbors, len(bank))
        queries = bank.astype(np.float64).T
        offsets = np.empty(len(items), dtype=np.float32)
        for start in range(0, len(items), _N_ITEMS):
            block = slice(start, start + _N_ITEMS)
            scores = exact_unit_rows(items[block]) @ queries  # (n_block, n_bank)
            nearest = np.partition(scores, len(bank) - n_near, axis=1)[:, len(bank) - n_near :]
            # Sorted, as a partition leaves equal sets in another order in another block.
            offsets[block] = self.strength * np.sort(nearest, axis=1).mean(axis=1)
        return offsets


def as_items(vectors: np.ndarray, hubness: NearestNeighborNormalization | None) -> np.ndarray:
    """Return embedded images (n, d) with what is taken off their scores as one component more, (n, d + 1) float32.

    So a score with something taken off is a plain inner product with `as_queries`; without a correction none is added.
    """
    return vectors if hubness is None else np.column_stack([vectors, -hubness.image_offsets(vectors)])


def as_queries(vectors: np.ndarray, hubness: NearestNeighborNormalization | None) -> np.ndarray:
    """Return embedded texts (n, d) as queries to `as_items`, (n, d + 1) float32, or as they are."""
    return vectors if hubness is None else np.column_stack([vectors, np.ones(len(vectors), np.float32)])
