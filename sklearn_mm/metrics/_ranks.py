"""Ranks of the right answers with their ties, and the numbers read off them."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from sklearn_mm._checks import within_sums
from sklearn_mm.registry import stored_as

__all__ = [
    "PositiveRanks",
    "RetrievalRanks",
    "check_cutoff",
    "check_weights",
    "hit_at_k",
    "mean_rank",
    "median_rank",
    "recall_at_k",
    "recalls",
]

_FEW = 16  # tied positives that are gone through one by one


@stored_as("metrics.PositiveRanks")
@dataclass(frozen=True, eq=False)
class PositiveRanks:
    """Where each positive of each query stands among all items of the gallery.

    Attributes
    ----------
    query : ndarray of shape (n_pairs,), int64
        The query of each (query, positive) pair; never decreasing.
    n_better : ndarray of shape (n_pairs,), int64
        Items of the gallery that score above the positive.
    n_tied : ndarray of shape (n_pairs,), int64
        Items that score as the positive does, itself included.
    weight : ndarray of shape (n_pairs,), float64, or None
        How many positives of the query stand there, where equal texts count together; None is one each.
    shared_by : ndarray of shape (n_query,), int64, or None
        The entry of `query` whose positives are those of each query, where queries that are equal share them; None
        where each query has its own.
    """

    query: np.ndarray
    n_better: np.ndarray
    n_tied: np.ndarray
    weight: np.ndarray | None = None
    shared_by: np.ndarray | None = None


@stored_as("metrics.RetrievalRanks")
@dataclass(frozen=True, eq=False)
class RetrievalRanks:
    """Where each query's best positive stands among the negatives, ties kept apart.

    ``np.asarray(ranks)`` gives the expected 0-based ranks, 0 is best: with g negatives better, t negatives
    tied with the best positive and p positives tied at the top, a random order of the tied ones puts the
    first positive at rank ``g + t / (p + 1)`` on average.

    Parameters
    ----------
    n_better : ndarray of shape (n_query,), int64
        Negatives that score above the query's best positive.
    n_tied : ndarray of shape (n_query,), int64
        Negatives that score as the best positive does.
    n_tied_positives : ndarray of shape (n_query,), int64
        Positives that score as the best positive does, itself included; at least 1.
    positives : PositiveRanks or None
        The place of every positive, not of the best alone, where it was asked for.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_mm.metrics import RetrievalRanks
    >>> ranks = RetrievalRanks(np.array([0, 3]), np.array([0, 4]), np.array([1, 1]))
    >>> np.asarray(ranks)
    array([0., 5.])
    >>> ranks.hit_probability(5)
    array([1. , 0.4])
    """

    n_better: np.ndarray
    n_tied: np.ndarray
    n_tied_positives: np.ndarray
    positives: PositiveRanks | None = None

    def __len__(self) -> int:
        return len(self.n_better)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        expected = self.n_better + self.n_tied / (self.n_tied_positives + 1)
        return expected if dtype is None else expected.astype(dtype)

    def hit_probability(self, k: int) -> np.ndarray:
        """Return the probability (n_query,) that a positive is among the first k.

        Of the t + p tied items, the ``k - g`` that fit into the first k are drawn without return:
        one minus the hypergeometric probability of drawing no positive.
        """
        room = np.maximum(check_cutoff(k) - self.n_better, 0)
        # C(t, room) / C(t + p, room) as a product of p factors, or of room ones: the binomials themselves overflow for
        # large t. p is a handful, but where many texts are equal; room is at most k.
        missed = np.ones(len(self))
        most = int(self.n_tied_positives.max(initial=0))
        if most > _FEW and room.max(initial=0) < most:
            for i in range(int(room.max(initial=0))):
                left = np.maximum(self.n_tied + self.n_tied_positives - i, 1)
                factor = np.maximum(self.n_tied - i, 0) / left
                missed *= np.where(i < room, factor, 1)
            return 1 - missed
        for i in range(1, most + 1):
            factor = np.maximum(self.n_tied - room + i, 0) / (self.n_tied + i)
            missed *= np.where(i <= self.n_tied_positives, factor, 1)
        return 1 - missed


def hit_at_k(ranks: Any, k: int, *, sample_weight: Any = None) -> float:
    """Return the share of queries with at least one positive among the first k.

    This is what the literature on images and text calls recall@k.

    Parameters
    ----------
    ranks : RetrievalRanks, or array-like of shape (n_query,)
        Ranks of the best positive, 0 is best. From `RetrievalRanks` ties are taken exactly: the share
        expected when tied items come in random order.
    k : int
        How many items are looked at, at least 1. A k beyond the gallery gives 1.
    sample_weight : array-like of shape (n_query,), optional
        Weights of the queries.

    Returns
    -------
    float
        In [0, 1].

    Raises
    ------
    ValueError
        `k` is no positive int, ranks are negative or not finite, or the weights do not fit.

    See Also
    --------
    recall_at_k : Of the positives, the share that is found.

    Examples
    --------
    >>> from sklearn_mm.metrics import hit_at_k
    >>> hit_at_k([0, 3, 7, 1], k=5)
    0.75
    """
    k = check_cutoff(k)
    hits = ranks.hit_probability(k) if isinstance(ranks, RetrievalRanks) else _check_ranks(ranks) < k
    return float(np.average(hits, weights=check_weights(sample_weight, len(hits), "ranks")))


def recall_at_k(ranks: RetrievalRanks, k: int, *, sample_weight: Any = None) -> float:
    """Return the share of a query's positives among the first k, on average.

    This is recall as information retrieval defines it: with five captions an image it is at most 0.2
    for k=1. Where each query has one positive it equals `hit_at_k`.

    Parameters
    ----------
    ranks : RetrievalRanks
        From ``retrieval_ranks(..., every_positive=True)``.
    k : int
        How many items are looked at, at least 1.
    sample_weight : array-like of shape (n_query,), optional
        Weights of the queries.

    Returns
    -------
    float
        In [0, 1]; expected over random orders of tied items.

    Raises
    ------
    ValueError
        `ranks` knows the best positive of each query only, `k` is no positive int, or the weights do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_mm.metrics import recall_at_k, retrieval_ranks
    >>> images, texts = np.eye(2), np.array([[1, 0.1], [0.2, 1], [0, 1]])
    >>> recall_at_k(retrieval_ranks(images, texts, [0, 0, 1], every_positive=True), k=1)
    0.75
    """
    k = check_cutoff(k)
    if not isinstance(ranks, RetrievalRanks) or ranks.positives is None:
        raise ValueError(
            "recall_at_k needs the place of every positive: pass retrieval_ranks(..., every_positive=True), "
            "or ask hit_at_k whether any positive is among the first k"
        )
    share = recalls(ranks.positives, k)
    return float(np.average(share, weights=check_weights(sample_weight, len(share), "ranks")))


def recalls(pairs: PositiveRanks, k: int) -> np.ndarray:
    """Return the share of each query's positives among the first k, (n_query,) float64."""
    # In a random order of the tied each of them is as likely to be among the places left.
    found = np.clip((k - pairs.n_better) / pairs.n_tied, 0, 1)
    weight = np.ones(len(found)) if pairs.weight is None else pairs.weight
    share: np.ndarray = np.bincount(pairs.query, weights=found * weight) / np.bincount(pairs.query, weights=weight)
    return share if pairs.shared_by is None else share[pairs.shared_by]


def median_rank(ranks: Any, *, sample_weight: Any = None) -> float:
    """Return the median rank of the best positive, 1 is best.

    Parameters
    ----------
    ranks : RetrievalRanks, or array-like of shape (n_query,)
        Ranks of the best positive, 0 is best; of tied items the expected rank.
    sample_weight : array-like of shape (n_query,), optional
        Weights of the queries; a weight of 2 counts as the query twice.

    Returns
    -------
    float
        The median of the 0-based ranks, rounded down, plus 1, as published results have it.

    Raises
    ------
    ValueError
        Ranks are negative or not finite, or the weights do not fit.

    Examples
    --------
    >>> from sklearn_mm.metrics import median_rank
    >>> median_rank([0, 3, 8, 0])
    2.0
    """
    expected = _check_ranks(ranks)
    weight = check_weights(sample_weight, len(expected), "ranks")
    if weight is None:
        return float(np.floor(np.median(expected)) + 1)
    order = np.argsort(expected)
    expected, below = expected[order], np.cumsum(weight[order])
    # The median of an even number lies between two ranks: those where the weight below reaches one half.
    half = below[-1] / 2
    lower, upper = np.searchsorted(below, half, side="left"), np.searchsorted(below, half, side="right")
    return float(np.floor((expected[lower] + expected[min(upper, len(expected) - 1)]) / 2) + 1)


def mean_rank(ranks: Any, *, sample_weight: Any = None) -> float:
    """Return the mean rank of the best positive, 1 is best.

    Parameters
    ----------
    ranks : RetrievalRanks, or array-like of shape (n_query,)
        Ranks of the best positive, 0 is best; of tied items the expected rank.
    sample_weight : array-like of shape (n_query,), optional
        Weights of the queries.

    Returns
    -------
    float
        At least 1.

    Raises
    ------
    ValueError
        Ranks are negative or not finite, or the weights do not fit.

    Examples
    --------
    >>> from sklearn_mm.metrics import mean_rank
    >>> mean_rank([0, 3, 8, 0])
    3.75
    """
    expected = _check_ranks(ranks)
    return float(np.average(expected, weights=check_weights(sample_weight, len(expected), "ranks")) + 1)


def check_cutoff(k: Any) -> int:
    """Return k as an int of at least 1."""
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:  # True is an int
        raise ValueError(f"k must be a positive int, got {k!r}")
    return int(k)


def check_weights(sample_weight: Any, n: int, of: str) -> np.ndarray | None:
    """Return the weights of n items as float64, or None if there are none."""
    if sample_weight is None:
        return None
    weight = np.asarray(sample_weight, dtype=np.float64)
    if weight.shape != (n,):
        raise ValueError(f"sample_weight must hold one number for each of the {n} {of}, got shape {weight.shape}")
    if not np.isfinite(weight).all() or (weight < 0).any() or not weight.any():
        raise ValueError("sample_weight must hold finite numbers that are not negative, and not all zero")
    return within_sums(weight)


def _check_ranks(ranks: Any) -> np.ndarray:
    array = np.asarray(ranks, dtype=np.float64)
    if array.ndim != 1 or not array.size:
        raise ValueError(f"ranks must be a non-empty 1-D array, got shape {array.shape}")
    if not np.isfinite(array).all() or (array < 0).any():
        raise ValueError("ranks must be finite and at least 0; 0 is best")
    return array
