"""What labels say of one another, as a kernel finds them: learnt from images that are left out in closed form."""

import numpy as np

__all__ = ["MAX_RELATED", "left_out_scores", "relate"]

MAX_RELATED = 2048  # labels: each may say something of each other one
_OWN = 300.0  # images that say that a label speaks for itself alone; a third and three times as many do about as well


def left_out_scores(inverse: np.ndarray, coef: np.ndarray, targets: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Return what a kernel would say of each image if it were solved without the images of its group.

    Parameters
    ----------
    inverse : ndarray of shape (n, n)
        Of the system of equations.
    coef, targets : ndarray of shape (n, n_labels)
        ``inverse @ targets``, and what it is solved for.
    group : ndarray of shape (n,)

    Returns
    -------
    ndarray of shape (n, n_labels)
    """
    number = np.unique(group, return_inverse=True)[1]
    size = np.bincount(number)
    order, start = np.argsort(number, kind="stable"), np.cumsum(size) - size
    scores = np.empty_like(targets)
    for own in np.unique(size):  # all groups of one size at once
        rows = order[start[size == own][:, None] + np.arange(own)]  # (n_groups, own)
        if own == 1:
            alone = rows[:, 0]
            scores[alone] = targets[alone] - coef[alone] / np.diagonal(inverse)[alone][:, None]
        else:
            block = inverse[rows[:, :, None], rows[:, None, :]]
            scores[rows] = targets[rows] - np.linalg.solve(block, coef[rows])
    return scores


def relate(scores: np.ndarray, targets: np.ndarray, weight: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Return the map (n_labels, n_labels) from scores to better ones: a ridge that is drawn to the identity.

    Parameters
    ----------
    scores, targets : ndarray of shape (n, n_labels)
        Scores of images that are left out.
    weight : ndarray of shape (n,)
    group : ndarray of shape (n,)
        Each counts as one image: what are alike tell as much of labels as one of them.
    """
    number = np.unique(group, return_inverse=True)[1]
    weighted = scores.astype(np.float64) * (weight / np.bincount(number)[number])[:, None]
    belief = _OWN * np.eye(scores.shape[1])
    related: np.ndarray = np.linalg.solve(weighted.T @ scores + belief, weighted.T @ targets + belief)
    return related
