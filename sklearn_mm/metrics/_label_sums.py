"""What the numbers of annotation are made of: sums over blocks of rows, rankings over blocks of labels.

Neither an indicator of the predictions nor a dense copy of sparse truth is ever whole in memory.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

__all__ = ["LabelMatrix", "LabelSums", "average_precisions", "choose_top", "mark_labels", "sum_labels"]

_BLOCK = 1 << 21  # entries of a block: 8 MB of float32


class LabelMatrix:
    """A matrix (n_images, n_labels), dense or sparse, of which dense blocks are read.

    Parameters
    ----------
    matrix : ndarray or sparse matrix of shape (n_images, n_labels)
        Checked: two-dimensional.
    """

    def __init__(self, matrix: Any):
        self.shape: tuple[int, int] = matrix.shape
        self._rows = matrix.tocsr() if sparse.issparse(matrix) else matrix
        self._columns: Any = None

    def rows(self, part: slice) -> np.ndarray:
        """Return some rows, (n_part, n_labels)."""
        block = self._rows[part]
        return block.toarray() if sparse.issparse(block) else block

    def columns(self, part: slice) -> np.ndarray:
        """Return some columns, each contiguous: (n_part, n_images)."""
        if not sparse.issparse(self._rows):
            return np.ascontiguousarray(self._rows[:, part].T)
        # Once: to find a column in a csr matrix is to look through all rows.
        if self._columns is None:
            self._columns = self._rows.tocsc()
        return np.ascontiguousarray(self._columns[:, part].toarray().T)


def _parts(length: int, width: int) -> Iterator[slice]:
    step = max(1, _BLOCK // max(1, width))
    for start in range(0, length, step):
        yield slice(start, min(start + step, length))


@dataclass
class LabelSums:
    """Sums over images, each weighted; entries of unknown truth are left out.

    Attributes
    ----------
    n_predicted, n_correct, n_true : ndarray of shape (n_labels,), float64
        How often a label is predicted, rightly predicted, and true.
    count_error, n_right_counts, n_counts : float
        Absolute errors of the number of labels, how many numbers are right, and of how many; of images
        whose truth is known for all labels.
    """

    n_predicted: np.ndarray
    n_correct: np.ndarray
    n_true: np.ndarray
    count_error: float = 0.0
    n_right_counts: float = 0.0
    n_counts: float = 0.0


def choose_top(scores: np.ndarray, k: np.ndarray, allowed: np.ndarray | None = None) -> np.ndarray:
    """Mark each row's k highest scores; of equal scores the first are taken.

    Parameters
    ----------
    scores : ndarray of shape (n_rows, n_labels)
        Without NaN. Minus infinity where a label is not allowed.
    k : ndarray of shape (n_rows,), int
        From 0 to the number of labels allowed in the row.
    allowed : ndarray of shape (n_rows, n_labels), bool, optional
        Labels to choose among.

    Returns
    -------
    ndarray of shape (n_rows, n_labels), bool
    """
    n_rows, n_labels = scores.shape
    most = int(k.max(initial=0))
    if most == 0:
        return np.zeros(scores.shape, dtype=bool)
    # Partition first: of thousands of labels only the k highest are put in order.
    best = np.sort(np.partition(scores, n_labels - most, axis=1)[:, n_labels - most :], axis=1)  # best last
    last_chosen = best[np.arange(n_rows), most - np.maximum(k, 1)][:, None]
    chosen = scores > last_chosen  # none where k is 0
    tied = scores == last_chosen  # (n_rows, n_labels)
    if allowed is not None:
        tied &= allowed
    places = k - np.count_nonzero(chosen, axis=1)
    # More equal scores than places: cumsum numbers them from the left, and the first ones stay.
    crowded = np.flatnonzero(np.count_nonzero(tied, axis=1) > places)
    tied[crowded] &= tied[crowded].cumsum(axis=1) <= places[crowded, None]
    return chosen | tied


def sum_labels(truth: LabelMatrix, scores: LabelMatrix, predicted: Any, weight: np.ndarray | None) -> LabelSums:
    """Count what is predicted and what is right.

    Parameters
    ----------
    truth : LabelMatrix
        1 where a label is true, NaN where that is not known, otherwise 0.
    scores : LabelMatrix
        Higher for labels that are more likely; without NaN.
    predicted : LabelMatrix, or ndarray of shape (n_images,), int, or None
        What is predicted; or how many labels of each image, the best by score; or as many as are true, the
        best of those whose truth is known.
    weight : ndarray of shape (n_images,), optional
        Weights of the images.
    """
    sums = LabelSums(*np.zeros((3, truth.shape[1])))
    for part, chosen, correct, true, complete, error in mark_labels(truth, scores, predicted):
        part_weight = np.ones(len(true)) if weight is None else weight[part]
        sums.count_error += float(part_weight[complete] @ error[complete])
        sums.n_right_counts += float(part_weight[complete] @ (error[complete] == 0))
        sums.n_counts += float(part_weight[complete].sum())
        sums.n_predicted += _sum_marks(chosen, part_weight)
        sums.n_correct += _sum_marks(correct, part_weight)
        sums.n_true += _sum_marks(true, part_weight)
    return sums


def mark_labels(
    truth: LabelMatrix, scores: LabelMatrix, predicted: Any
) -> Iterator[tuple[slice, Any, Any, Any, Any, Any]]:
    """Mark what is predicted, what of it is right and what is true, block by block; see `sum_labels`.

    Yields
    ------
    part : slice
        Some images.
    chosen, correct, true : ndarray of shape (n_part, n_labels), bool
        What is predicted, where the truth is known; rightly predicted; and true.
    complete : ndarray of shape (n_part,), bool, or slice
        Images whose truth is known for all labels.
    error : ndarray of shape (n_part,), int
        Absolute error of the number of labels.
    """
    for part in _parts(*truth.shape):
        true = truth.rows(part)
        known = ~np.isnan(true) if true.dtype.kind == "f" else None
        if known is not None and known.all():
            known = None  # so that the ways without a mask are taken
        true = true == 1
        n_true = np.count_nonzero(true, axis=1)
        if isinstance(predicted, LabelMatrix):
            chosen = predicted.rows(part) != 0
        elif predicted is not None:
            chosen = choose_top(scores.rows(part), predicted[part])
        elif known is None:
            chosen = choose_top(scores.rows(part), n_true)
        else:
            # Not among labels of unknown truth: n_true counts the known ones, and a place given to another would be
            # lost.
            chosen = choose_top(np.where(known, scores.rows(part), -np.inf), n_true, known)
        complete = slice(None) if known is None else known.all(axis=1)
        error = np.abs(np.count_nonzero(chosen, axis=1) - n_true)
        yield part, chosen if known is None else chosen & known, chosen & true, true, complete, error


def _sum_marks(marks: np.ndarray, weight: np.ndarray) -> np.ndarray:
    rows, columns = np.divmod(np.flatnonzero(marks), marks.shape[1])  # few are marked
    return np.bincount(columns, weights=weight[rows], minlength=marks.shape[1])


def average_precisions(truth: LabelMatrix, scores: LabelMatrix, weight: np.ndarray | None) -> np.ndarray:
    """Return the average precision of each label (n_labels,), NaN where none is true.

    The mean, over the images where the label is true, of the precision among all images that score at least
    as high: no interpolation, and images of equal scores enter together. Entries of unknown truth are left out.
    """
    n_images, n_labels = truth.shape
    result = np.full(n_labels, np.nan)
    for part in _parts(n_labels, n_images):
        for label, true, score in zip(
            range(part.start, part.stop), truth.columns(part), scores.columns(part), strict=True
        ):
            own_weight = weight
            if true.dtype.kind == "f" and (unknown := np.isnan(true)).any():
                true, score = true[~unknown], score[~unknown]
                own_weight = None if weight is None else weight[~unknown]
            result[label] = _average_precision(true == 1, score, own_weight)
    return result


def _average_precision(true: np.ndarray, score: np.ndarray, weight: np.ndarray | None) -> float:
    # An image of weight 0 may have nothing of any weight at or above it: 0 / 0.
    rows = np.flatnonzero(true if weight is None else true & (weight > 0))
    if not rows.size:
        return np.nan
    positive = score[rows]
    if weight is None:
        order = np.argsort(positive)
        n_above = _weight_above(np.sort(score), None, positive[order])
        n_true_above = _weight_above(positive[order], None, positive[order])
        return float(np.mean(n_true_above / n_above))
    order, all_order = np.argsort(positive), np.argsort(score)
    positive_weight = weight[rows][order]
    above = _weight_above(score[all_order], weight[all_order], positive[order])
    true_above = _weight_above(positive[order], positive_weight, positive[order])
    return float(np.average(true_above / above, weights=positive_weight))


def _weight_above(ascending: np.ndarray, weight: np.ndarray | None, at: np.ndarray) -> np.ndarray:
    """Return the weight of the scores that are at least as high as each of some of them."""
    # left: images of equal scores enter together.
    first = np.searchsorted(ascending, at, side="left")
    if weight is None:
        return len(ascending) - first
    return np.cumsum(weight[::-1])[::-1][first]  # from each score to the highest
