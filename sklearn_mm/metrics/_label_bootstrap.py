"""Numbers of annotation for images drawn again: sums of marks, and rankings of labels with other weights."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from sklearn_mm.metrics._label_sums import LabelMatrix, mark_labels

__all__ = ["LabelNumbers", "label_numbers"]


@dataclass(frozen=True)
class LabelNumbers:
    """What the numbers of `annotation_report` are made of, image by image.

    Attributes
    ----------
    predicted, correct, true : csr_array of shape (n_images, n_labels), float64
        Marks, times the weight of the image.
    counts : ndarray of shape (n_images, 3), float64
        Error of the number of labels, whether it is right, and 1; times the weight; 0 where the truth is not known.
    truth, scores : LabelMatrix
    weight : ndarray of shape (n_images,), float64
    zero_division : float
    absent_labels : str
    """

    predicted: Any
    correct: Any
    true: Any
    counts: np.ndarray
    truth: LabelMatrix
    scores: LabelMatrix
    weight: np.ndarray
    zero_division: float
    absent_labels: str

    @property
    def n_units(self) -> int:
        """How many images can be drawn."""
        return len(self.weight)

    def samples(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        """Return each number (n_draws,) where the images count so often."""
        # sparse first: its product with a dense matrix is dense
        predicted, correct, true = ((marks.T @ counts.T).T for marks in (self.predicted, self.correct, self.true))
        numbers = _label_means(predicted, correct, true, self.zero_division, self.absent_labels)
        precisions = _average_precisions(self.truth, self.scores, counts * self.weight)  # (n_labels, n_draws)
        error, right, n_counts = (counts @ self.counts).T
        with np.errstate(invalid="ignore"):
            return numbers | {
                "mAP": _mean(precisions.T, ~np.isnan(precisions.T), np.nan),
                "N+": np.count_nonzero(correct, axis=1).astype(np.float64),
                "count_mae": error / n_counts,
                "count_accuracy": right / n_counts,
            }


def label_numbers(
    truth: LabelMatrix,
    scores: LabelMatrix,
    predicted: Any,
    weight: np.ndarray | None,
    zero_division: float,
    absent_labels: str,
) -> LabelNumbers:
    """Mark what is predicted and what is right; the arguments are those of `sum_labels`."""
    given = np.ones(truth.shape[0]) if weight is None else weight
    marks: list[list[Any]] = [[], [], []]
    counts = np.zeros((truth.shape[0], 3))
    for part, chosen, correct, true, complete, error in mark_labels(truth, scores, predicted):
        for kept, marked in zip(marks, (chosen, correct, true), strict=True):
            kept.append(sparse.csr_array(marked * given[part, None]))
        rows = np.arange(part.start, part.stop)[complete]
        counts[rows] = given[rows, None] * np.column_stack([error[complete], error[complete] == 0, np.ones(len(rows))])
    chosen, correct, true = (sparse.csr_array(sparse.vstack(kept, "csr")) for kept in marks)
    return LabelNumbers(chosen, correct, true, counts, truth, scores, given, zero_division, absent_labels)


def _label_means(
    n_predicted: np.ndarray, n_correct: np.ndarray, n_true: np.ndarray, zero_division: float, absent_labels: str
) -> dict[str, np.ndarray]:
    """Return precisions, recalls and their harmonic means (n_draws,) of sums (n_draws, n_labels)."""
    with np.errstate(invalid="ignore"):
        precision = np.where(n_predicted == 0, zero_division, n_correct / n_predicted)
        recall = np.where(n_true == 0, 0, n_correct / n_true)
    counted = np.full(recall.shape, True) if absent_labels == "zero" else n_true > 0
    means = {
        "C-P": _mean(precision, counted & ~np.isnan(precision), 0),
        "C-R": _mean(recall, counted, 0),
    }
    means["C-F1"] = _harmonic_mean(means["C-P"], means["C-R"])
    right, tiny = n_correct.sum(axis=1), np.finfo(float).tiny
    means["O-P"] = right / np.maximum(n_predicted.sum(axis=1), tiny)
    means["O-R"] = right / np.maximum(n_true.sum(axis=1), tiny)
    means["O-F1"] = _harmonic_mean(means["O-P"], means["O-R"])
    means["H-F1"] = _harmonic_mean(means["C-F1"], means["O-F1"])
    return means


def _mean(values: np.ndarray, counted: np.ndarray, of_none: float) -> np.ndarray:
    """Return the means of rows over what counts."""
    number = counted.sum(axis=1)
    sums = np.where(counted, values, 0).sum(axis=1)
    return np.where(number > 0, sums / np.maximum(number, 1), of_none)


def _harmonic_mean(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.divide(2 * first * second, first + second, out=np.zeros(len(first)), where=first + second > 0)


def _average_precisions(truth: LabelMatrix, scores: LabelMatrix, weight: np.ndarray) -> np.ndarray:
    """Return the average precision of each label with each of some weights (n_draws, n_images): (n_labels, n_draws)."""
    n_images, n_labels = truth.shape
    by_image = np.ascontiguousarray(weight.T)  # (n_images, n_draws)
    result = np.full((n_labels, len(weight)), np.nan)
    for label in range(n_labels):
        part = slice(label, label + 1)
        true, score = truth.columns(part)[0], scores.columns(part)[0]
        known = np.arange(n_images)
        if true.dtype.kind == "f":
            known = np.flatnonzero(~np.isnan(true))
        order = known[np.argsort(score[known], kind="stable")]
        ascending, places = score[order], np.flatnonzero(true[order] == 1)
        if not len(places):
            continue
        # What scores at least as high as each right one; of equal scores all.
        first, block = np.unique(np.searchsorted(ascending, ascending[places]), return_inverse=True)
        above = _from_here_on(np.add.reduceat(by_image[order], first, axis=0))
        right = by_image[order[places]]
        right_above = _from_here_on(np.add.reduceat(right, np.searchsorted(block, np.arange(len(first))), axis=0))
        # 0 / 0 where nothing of any weight was drawn from there on, and then the right one has none either
        precision = np.divide(right_above, above, out=np.zeros_like(above), where=above > 0)
        total = right.sum(axis=0)
        sums = (right * precision[block]).sum(axis=0)
        result[label] = np.divide(sums, total, out=np.full(len(weight), np.nan), where=total > 0)
    return result


def _from_here_on(sums: np.ndarray) -> np.ndarray:
    return np.cumsum(sums[::-1], axis=0)[::-1]
