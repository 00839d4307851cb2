"""Which labels an image gets, by their scores and by what is known of their number."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from sklearn_mm.annotation._decisions import expected_counts
from sklearn_mm.annotation._tuning import Decisions, evidence_of
from sklearn_mm.metrics._label_sums import choose_top

__all__ = ["LabelChooser", "check_number"]


def check_number(n_labels: Any, n_classes: int) -> None:
    """Refuse a fixed number of labels above that of the labels there are."""
    if not isinstance(n_labels, str) and n_labels > n_classes:
        raise ValueError(
            f"n_labels={n_labels} is more than the {n_classes} labels there are; ask for fewer, or for 'predict'"
        )


@dataclass(frozen=True)
class LabelChooser:
    """The rule by which an annotator chooses labels.

    Attributes
    ----------
    n_labels : {"predict", "threshold", "label-thresholds"} or int
    rounding : {"f1", "round", "floor"}
        Of an estimated number.
    never : ndarray of int64
        Labels that are not chosen, whatever their score.
    decisions : Decisions or None
        What was learnt on images held out; a fixed number needs none.
    """

    n_labels: Any
    rounding: str
    never: np.ndarray
    decisions: Decisions | None

    def shift(self, scores: np.ndarray) -> np.ndarray:
        """Bring thresholds to 0: scores (n, n_labels) less the threshold, where there is one."""
        if self.n_labels not in ("threshold", "label-thresholds"):
            return scores
        learnt = self._require_decisions()
        return scores - np.float32(learnt.threshold if self.n_labels == "threshold" else learnt.thresholds)

    def choose(self, scores: np.ndarray, counts: np.ndarray | None) -> tuple[Any, np.ndarray]:
        """Choose labels for some images.

        Parameters
        ----------
        scores : ndarray of shape (n, n_labels), float32
        counts : ndarray of shape (n, n_counts), float32, or None
            As `Evidence` holds them.

        Returns
        -------
        chosen : csr_array of shape (n, n_labels), int8
            The entries of a row are in the order of their scores, the best first.
        number : ndarray of shape (n,), int64
        """
        shifted = self.shift(scores)
        if not isinstance(self.n_labels, str):
            chosen = choose_top(shifted, np.full(len(scores), self.n_labels))
        elif self.n_labels == "predict":
            chosen = choose_top(shifted, self._estimate(scores, counts))
        else:
            chosen = shifted > 0
        chosen[:, self.never] = False
        row, column = np.nonzero(chosen)
        order = np.lexsort((-shifted[row, column], row))
        number = np.count_nonzero(chosen, axis=1)
        starts = np.concatenate([[0], np.cumsum(number)])
        return sparse.csr_array((np.ones(len(row), np.int8), column[order], starts), shape=chosen.shape), number

    def _estimate(self, scores: np.ndarray, counts: np.ndarray | None) -> np.ndarray:
        """Return how many labels each image gets by the count head, (n,) int64."""
        learnt = self._require_decisions()
        if counts is None or learnt.counts is None:
            raise ValueError("n_labels='predict' needs a network that counts; fit with n_labels='predict'")
        if self.rounding == "f1":
            return learnt.counts.choose(evidence_of(scores, counts, learnt.n_ranks), learnt.n_ranks)
        rounded = np.rint if self.rounding == "round" else np.floor
        return rounded(expected_counts(counts)).astype(np.int64).clip(0, scores.shape[1])

    def _require_decisions(self) -> Decisions:
        if self.decisions is None:
            raise ValueError(f"n_labels={self.n_labels!r} is tuned in fit, which was called with a number; fit again")
        return self.decisions
