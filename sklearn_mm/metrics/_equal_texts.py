"""Texts of one wording: each is right for every image that has one of them.

Which image a caption was written for cannot be told from its words where another image has the same caption. All of
its images are right answers then, and all texts of that wording right for each of them, as in training, where no two of
them are negatives of each other.
"""

from dataclasses import dataclass

import numpy as np

__all__ = ["EqualTexts", "find_equal_texts"]


@dataclass(frozen=True)
class EqualTexts:
    """Which texts are equal, where any image has a text of another.

    Attributes
    ----------
    wording : ndarray of shape (n_texts,), int64
        The number of each text's wording, from 0.
    owner : ndarray of shape (n_texts,), int64
        The image that each text was written for.
    is_first : ndarray of shape (n_texts,), bool
        Whether the text is the first of its wording among those of its image: one mark for each image and wording.
    n_same : ndarray of shape (n_texts,), int64
        How many texts have the wording.
    n_own : ndarray of shape (n_texts,), int64
        How many of these are the image's own.
    n_ignored : ndarray of shape (n_texts,), int64
        How many of these are of images of the group, and so were never counted as negatives.
    same_in_group : ndarray of shape (n_texts,), int64
        Equal for texts of one wording and of one group.
    """

    wording: np.ndarray
    owner: np.ndarray
    is_first: np.ndarray
    n_same: np.ndarray
    n_own: np.ndarray
    n_ignored: np.ndarray
    same_in_group: np.ndarray

    def embed_alike(self, text: np.ndarray) -> np.ndarray:
        """Give all texts of a wording the embedding of the first: what is equal cannot be told apart."""
        alike: np.ndarray = text[self.stands_for()]
        return alike

    def stands_for(self) -> np.ndarray:
        """Return the place (n_texts,) of the first text of each one's wording."""
        first: np.ndarray = np.unique(self.wording, return_index=True)[1]
        places: np.ndarray = first[self.wording]
        return places

    def right_texts(
        self, positive: np.ndarray, best: np.ndarray, tolerance: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Count, for each image, the texts of others that are right and tied with its best one.

        Parameters
        ----------
        positive : ndarray of shape (n_texts,), float64
            The score of each text with the image it was written for.
        best, tolerance : ndarray of shape (n_images,), float64
            The best of these for each image, and what is tied with it.

        Returns
        -------
        n_right, n_miscounted : ndarray of shape (n_images,), int64
            How many there are, and how many of them were counted as negatives.
        """
        tied = self.is_first & (positive >= (best - tolerance)[self.owner])
        # As weights of bincount: sums of integers, exact in float64.
        n_right = np.bincount(self.owner, np.where(tied, self.n_same - self.n_own, 0))
        n_miscounted = np.bincount(self.owner, np.where(tied, self.n_same - self.n_ignored, 0))
        return n_right.astype(np.int64), n_miscounted.astype(np.int64)

    def best_images(self, positive: np.ndarray) -> np.ndarray:
        """Return the score (n_texts,) of each text with the best of the images that are right for it."""
        best = np.full(int(self.wording.max()) + 1, -np.inf)
        np.maximum.at(best, self.wording, positive)
        return best[self.wording]

    def right_images(
        self, positive: np.ndarray, best: np.ndarray, tolerance: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Count, for each text, the images that are right and tied with the best; see `right_texts`.

        All arguments and results are of shape (n_texts,); the image that a text was written for is one of those that
        are right, and none of those that were counted as negatives.
        """
        tied = self.is_first & (positive >= best - tolerance)
        n_right = np.bincount(self.wording, tied)[self.wording]
        in_group = np.bincount(self.same_in_group, tied)[self.same_in_group]
        return n_right.astype(np.int64), (n_right - in_group).astype(np.int64)


def find_equal_texts(wording: np.ndarray, owner: np.ndarray, group: np.ndarray) -> EqualTexts | None:
    """Compare texts by wording; None if no two images have an equal one.

    Parameters
    ----------
    wording : ndarray of shape (n_texts,)
        Equal for texts of one wording.
    owner : ndarray of shape (n_texts,), int64
        The image of each text.
    group : ndarray of shape (n_texts,), int64
        The group of that image.
    """
    number = np.unique(wording, return_inverse=True)[1].astype(np.int64)
    own = _numbered(number, owner)
    n_same, n_own = _how_many(number), _how_many(own)
    if np.array_equal(n_same, n_own):
        return None
    is_first = np.zeros(len(number), dtype=bool)
    is_first[np.unique(own, return_index=True)[1]] = True
    in_group = _numbered(number, group)
    return EqualTexts(number, owner, is_first, n_same, n_own, _how_many(in_group), in_group)


def _numbered(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Number the pairs of two numberings."""
    pairs = first * (int(second.max()) + 1) + second  # below the square of the number of texts
    return np.unique(pairs, return_inverse=True)[1]


def _how_many(number: np.ndarray) -> np.ndarray:
    """Return how often each entry's number comes, (n,) int64."""
    counts: np.ndarray = np.bincount(number)[number]
    return counts
