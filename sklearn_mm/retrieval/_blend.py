"""Several joint spaces as one: an inner product that is a weighted sum of cosines, and the weights of it."""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp

__all__ = ["join_spaces", "learn_weights", "spread_of"]


def join_spaces(embeddings: Sequence[np.ndarray], shares: np.ndarray) -> np.ndarray:
    """Put embeddings of the same items in several spaces side by side, so that inner products are sums of cosines.

    Parameters
    ----------
    embeddings : sequence of ndarrays of shape (n_items, n_components of each), float32
        Of any length; a vector of zeros says nothing of its item.
    shares : ndarray of shape (n_spaces,), float64
        What the cosine of each counts in the sum, not negative. Spaces of 0 are left out.

    Returns
    -------
    ndarray of shape (n_items, sum of n_components), float32
        Unit vectors. The inner product of two is the sum of the cosines, each times its share of all shares.

    Raises
    ------
    ValueError
        The members answer for different numbers of items.
    """
    if len({len(part) for part in embeddings}) > 1:
        raise ValueError(f"members embed different numbers of items: {[len(part) for part in embeddings]}")
    taking_part = [(part, share) for part, share in zip(embeddings, shares, strict=True) if share > 0]
    # Row by row in one order of summing: equal rows have equal lengths wherever they stand.
    lengths = np.sqrt(np.column_stack([np.einsum("ij,ij->i", part, part) for part, _ in taking_part]))
    share = np.where(lengths > 0, [share for _, share in taking_part], 0.0)  # (n_items, n_spaces)
    total = share.sum(axis=1, keepdims=True)
    factors = np.sqrt(share / np.where(total > 0, total, 1)) / np.where(lengths > 0, lengths, 1)
    joined = np.empty((len(lengths), sum(part.shape[1] for part, _ in taking_part)), dtype=np.float32)
    start = 0
    for (part, _), factor in zip(taking_part, factors.T.astype(np.float32), strict=True):
        np.multiply(part, factor[:, None], out=joined[:, start : start + part.shape[1]])
        start += part.shape[1]
    return joined


def spread_of(image: np.ndarray, text: np.ndarray) -> float:
    """Return the standard deviation of the inner products of images and texts; 1, where all are the same."""
    spread = float(np.std(image @ text.T, dtype=np.float64))
    return spread if spread > np.finfo(np.float32).eps else 1.0


def learn_weights(scores: np.ndarray, positive: np.ndarray, ignored: np.ndarray) -> np.ndarray:
    """Find the weights of a sum of scores by which texts are told best from other texts, and images from others.

    That is: the largest mean likelihood of a pair under a softmax over the images and one over the texts. Of the
    weights it is a convex function, so that there is one answer and it is found in few steps; Recall@K jumps, and its
    largest value on some hundred images is mostly chance. How large they are together is the softmax's temperature,
    which ranks nothing.

    Parameters
    ----------
    scores : ndarray of shape (n_members, n_images, n_texts), float32
        Each member's, of about the same spread.
    positive : ndarray of shape (n_texts,), int64
        The image of each text.
    ignored : ndarray of shape (n_images, n_texts), bool
        Pairs that are no negatives; those of `positive` count all the same.

    Returns
    -------
    ndarray of shape (n_members,), float64
        Not negative; the sum is 1.
    """
    pairs = (positive, np.arange(len(positive)))
    offset = np.where(ignored, -np.inf, 0).astype(np.float32)
    offset[pairs] = 0
    n_pairs = len(positive)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        total = np.tensordot(weights.astype(np.float32), scores, axes=1) + offset  # (n_images, n_texts)
        value, slope = 0.0, np.zeros_like(total)
        for axis in (0, 1):
            log_total = logsumexp(total, axis=axis, keepdims=True)
            # The texts of one image are each compared with all; a text is compared with the images once.
            counts = np.ones(n_pairs) if axis == 0 else np.bincount(positive, minlength=total.shape[0])
            value += float(np.sum(counts * log_total.ravel(), dtype=np.float64))
            slope += np.exp(total - log_total) * counts.astype(np.float32).reshape(log_total.shape)
        value -= 2 * float(np.sum(total[pairs], dtype=np.float64))
        slope[pairs] -= 2
        gradient = np.tensordot(scores, slope, axes=2)
        return value / n_pairs, gradient.astype(np.float64) / n_pairs

    start = np.full(len(scores), 1.0)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(scores)).x
    # None is better than any other: then all are worth the same.
    return found / found.sum() if found.sum() > 0 else start / start.sum()
