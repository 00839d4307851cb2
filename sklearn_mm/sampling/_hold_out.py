"""Which rows are held out of training."""

import numpy as np

__all__ = ["MIN_FOR_VALIDATION", "held_out_rows"]

MIN_FOR_VALIDATION = 10
"""Nothing is held out of fewer rows."""


def held_out_rows(group: np.ndarray, fraction: float, rng: np.random.Generator) -> np.ndarray | None:
    """Hold out about a fraction of the rows, whole groups at a time.

    Parameters
    ----------
    group : ndarray of shape (n_rows,)
    fraction : float
        Between 0 and 1.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray of shape (n_rows,), bool, or None
        Which rows are held out; None of fewer than ten rows, or where all are of one group.
    """
    # scikit-learn's GroupShuffleSplit holds out a share of the groups, however many rows they have; here the rows count
    group_ids, number = np.unique(group, return_inverse=True)
    if len(group) < MIN_FOR_VALIDATION or len(group_ids) < 2:
        return None
    order = rng.permutation(len(group_ids))
    sizes = np.bincount(number)[order]
    n_held_out = int(np.searchsorted(np.cumsum(sizes), max(2, round(fraction * len(group))))) + 1
    # at least one group is left to train on
    return np.isin(number, order[: min(n_held_out, len(order) - 1)])
