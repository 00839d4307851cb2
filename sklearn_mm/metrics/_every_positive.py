"""Numbers that look at the place of every right answer, not of the best alone."""

from typing import Any

import numpy as np

from sklearn_mm.metrics._ranks import PositiveRanks, RetrievalRanks, check_cutoff, check_weights

__all__ = ["average_precisions_at_r", "map_at_r", "ndcg_at_k", "ndcgs"]


def ndcg_at_k(ranks: RetrievalRanks, k: int, *, sample_weight: Any = None) -> float:
    """Return the normalised discounted cumulative gain of the first k, on average.

    A right answer at the 1-based place i counts ``1 / log2(i + 1)``; the sum is divided by that of the best order there
    is, with all right answers first.

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

    References
    ----------
    K. Jarvelin and J. Kekalainen, "Cumulated gain-based evaluation of IR techniques", ACM TOIS 20(4), 2002. Ties as in
    F. McSherry and M. Najork, "Computing information retrieval performance measures efficiently in the presence of tied
    scores", ECIR 2008.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_mm.metrics import ndcg_at_k, retrieval_ranks
    >>> images, texts = np.eye(2), np.array([[1, 0.1], [0.2, 1], [1, 1]])
    >>> ranks = retrieval_ranks(images, texts, [0, 0, 1], every_positive=True)
    >>> round(ndcg_at_k(ranks, k=3), 4)
    0.7753
    """
    values = ndcgs(_every(ranks, "ndcg_at_k"), check_cutoff(k))
    return float(np.average(values, weights=check_weights(sample_weight, len(values), "ranks")))


def map_at_r(ranks: RetrievalRanks, *, sample_weight: Any = None) -> float:
    """Return the mean average precision at R, the number of right answers.

    Of the first R items those that are right count the precision up to their place; the sum is divided by R. It is 1
    only where the right answers come first, and unlike recall it knows the order among them.

    Parameters
    ----------
    ranks : RetrievalRanks
        From ``retrieval_ranks(..., every_positive=True)``.
    sample_weight : array-like of shape (n_query,), optional
        Weights of the queries.

    Returns
    -------
    float
        In [0, 1]; expected over random orders of tied items. Where each query has one right answer it is hit@1.

    Raises
    ------
    ValueError
        `ranks` knows the best positive of each query only, or the weights do not fit.

    References
    ----------
    K. Musgrave, S. Belongie and S.-N. Lim, "A Metric Learning Reality Check", ECCV 2020, section 3.2.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_mm.metrics import map_at_r, retrieval_ranks
    >>> images, texts = np.eye(2), np.array([[1, 0.1], [0.2, 1], [1, 1]])
    >>> map_at_r(retrieval_ranks(images, texts, [0, 0, 1], every_positive=True))
    0.25
    """
    values = average_precisions_at_r(_every(ranks, "map_at_r"))
    return float(np.average(values, weights=check_weights(sample_weight, len(values), "ranks")))


def _every(ranks: Any, asked: str) -> PositiveRanks:
    if not isinstance(ranks, RetrievalRanks) or ranks.positives is None:
        raise ValueError(
            f"{asked} needs the place of every positive: pass retrieval_ranks(..., every_positive=True), or ask "
            "hit_at_k whether any positive is among the first k"
        )
    return ranks.positives


def ndcgs(pairs: PositiveRanks, k: int) -> np.ndarray:
    """Return the gain of each query, (n_query,) float64."""
    gains = np.concatenate([[0], np.cumsum(1 / np.log2(np.arange(2, k + 2)))])  # of the first 0, 1, ..., k places
    # In a random order of the tied, each of them is as likely to stand at any of their places.
    found = (gains[np.minimum(pairs.n_better + pairs.n_tied, k)] - gains[np.minimum(pairs.n_better, k)]) / pairs.n_tied
    weight = _weights(pairs)
    best = gains[np.minimum(_n_right(pairs), k)]
    return _shared(pairs, np.bincount(pairs.query, found * weight) / best)


def average_precisions_at_r(pairs: PositiveRanks) -> np.ndarray:
    """Return the average precision at R of each query, (n_query,) float64."""
    n_right = _n_right(pairs)
    weight = _weights(pairs)
    order = np.lexsort((pairs.n_better, pairs.query))
    query, better = pairs.query[order], pairs.n_better[order]
    # Right answers that are tied with each other share a block of places.
    starts = np.flatnonzero(np.r_[True, (np.diff(query) != 0) | (np.diff(better) != 0)])
    query, better = query[starts], better[starts]
    right = np.add.reduceat(weight[order], starts)
    tied = np.maximum(np.maximum.reduceat(pairs.n_tied[order], starts), right)
    before = np.cumsum(right) - right
    before -= before[np.searchsorted(query, query)]  # of the query's own blocks
    last = np.minimum(better + np.rint(tied).astype(np.int64), n_right[query])
    counts = better < last  # blocks that begin among the first R
    query, better, right, tied, before, last = (part[counts] for part in (query, better, right, tied, before, last))
    harmonic = np.concatenate([[0], np.cumsum(1 / np.arange(1, n_right.max(initial=0) + 1))])
    inverse = harmonic[last] - harmonic[better]  # the sum of 1 / place
    # At a place of the block an item is right with probability right / tied; then those before it in the block are
    # right with (right - 1) / (tied - 1).
    others = np.divide(right - 1, tied - 1, out=np.zeros(len(right)), where=tied > 1)
    precision = (before + 1) * inverse + others * (last - better - (better + 1) * inverse)
    sums = np.bincount(query, right / tied * precision, minlength=len(n_right))
    return _shared(pairs, sums / n_right)


def _weights(pairs: PositiveRanks) -> np.ndarray:
    return np.ones(len(pairs.query)) if pairs.weight is None else pairs.weight


def _n_right(pairs: PositiveRanks) -> np.ndarray:
    """Return how many right answers each query has, (n_query,) int64."""
    return np.rint(np.bincount(pairs.query, _weights(pairs))).astype(np.int64)


def _shared(pairs: PositiveRanks, values: np.ndarray) -> np.ndarray:
    return values if pairs.shared_by is None else values[pairs.shared_by]
