"""How many of the true neighbours an approximate index finds."""

from typing import Any

import numpy as np

from sklearn_mm.index._exact import ExactIndex

__all__ = ["recall_against_exact"]


def recall_against_exact(index: Any, exact: Any, Q: Any, k: int = 10) -> float:
    """Return the share of the exact neighbours that an index finds.

    Parameters
    ----------
    index : FaissIndex or another with `search`
        What is judged; it holds the same items in the same order.
    exact : ExactIndex, or array-like of shape (n_items, n_components)
        The items.
    Q : array-like of shape (n_query, n_components)
        Queries such as will be asked: a sample of a thousand tells the share to about one percent.
    k : int, default=10
        How many neighbours are looked at, at most as many as there are items.

    Returns
    -------
    float
        Between 0 and 1, the mean over the queries.

    Raises
    ------
    ValueError
        The two hold different numbers of items, or `k` or `Q` does not fit them.

    Notes
    -----
    Of items that score the same, the exact neighbours are those of lower place: where many items are equal, an index
    that finds others of them is judged too low.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_mm.index import ExactIndex, recall_against_exact
    >>> items = np.random.default_rng(0).normal(size=(100, 8))
    >>> rounded = ExactIndex(dtype="int8").add(np.round(4 * items))
    >>> recall_against_exact(rounded, items, items[:20], k=5) > 0.8
    True
    """
    truth = exact if isinstance(exact, ExactIndex) else ExactIndex().add(exact, copy=False)
    if hasattr(index, "__len__") and len(index) != len(truth):
        raise ValueError(
            f"both must hold the same items, but the index holds {len(index)} and what it is compared with {len(truth)}"
        )
    found, wanted = index.search(Q, k)[1], truth.search(Q, k)[1]
    # Each place stands once in a row of either: those that stand in both are equal neighbours once they are sorted.
    both = np.sort(np.concatenate([found, wanted], axis=1), axis=1)  # (n_query, 2k)
    shared = (both[:, 1:] == both[:, :-1]) & (both[:, 1:] >= 0)  # -1 is an item that was not found
    return float(shared.sum() / wanted.size)
