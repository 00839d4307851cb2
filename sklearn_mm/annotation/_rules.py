"""How many labels an image gets: rules of scores and counts, fitted on images the network has not been trained on.

A rule sees the labels of an image in the order of their scores, the best first: its *ranks*.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import sparse
from scipy.special import expit

from sklearn_mm.metrics import choose_top
from sklearn_mm.registry import stored_as

__all__ = [
    "CountEstimates",
    "F1Rule",
    "HeldOutLabels",
    "LabelChooser",
    "LabelRules",
    "best_threshold",
    "expected_counts",
    "fit_f1_rule",
    "fit_score_odds",
    "label_thresholds",
    "log_expected_count",
    "rank_labels",
    "round_counts",
]

_MAX_LOG_ODDS = 3.0  # log odds of a number are held within this: they are overconfident, above all where data are few
_LABEL_COSTS = np.arange(0.02, 1.2, 0.01)  # that are tried; the best is about the F1 that can be had
_FIXPOINT_STEPS = 50
_COST_PRIOR = 300.0  # images that the cost which is computed counts for, against the one that is best on few images
_RIDGE = {"intercept": 1.0, "score": 1.0, "other": 10.0}  # terms besides the score have to prove themselves
_NEWTON_STEPS = 50
_BLOCK = 1 << 20  # scores sorted in one go, which takes ten times their memory
_LEAST_SLOPE = 0.01  # of scores by their spread
_MIN_POSITIVES = 5  # a label of fewer images has no threshold of its own


@dataclass(frozen=True)
class CountEstimates:
    """What is known of some images, to tell how many labels each gets.

    Attributes
    ----------
    counts : ndarray of shape (n, 1) or (n, n_counts), float32
        The estimate of a regression, or the log probability of each number.
    scores : ndarray of shape (n, n_ranks), float32, or None
        The log odds of the labels ranked first, the best first.
    log_expected : ndarray of shape (n,), float32, or None
        The logarithm of the sum of the probabilities of all labels.
    """

    counts: np.ndarray
    scores: np.ndarray | None = None
    log_expected: np.ndarray | None = None

    @classmethod
    def of(cls, scores: np.ndarray, counts: np.ndarray, n_ranks: int) -> "CountEstimates":
        """Gather what is known of images from all their scores (n, n_labels)."""
        return cls(counts, rank_labels(scores, n_ranks)[0], log_expected_count(scores))


@dataclass(frozen=True)
class HeldOutLabels:
    """What is true of the images that a rule is fitted on.

    Attributes
    ----------
    correct : ndarray of shape (n, n_ranks), float32
        Whether the label of each rank is true; NaN where that is not known.
    n_true : ndarray of shape (n,), float
        How many labels are true, of all.
    weight : ndarray of shape (n,), float
    """

    correct: np.ndarray
    n_true: np.ndarray
    weight: np.ndarray

    def f1(self, k: np.ndarray) -> float:
        """Return the overall F1 of k labels for each image, the best by score."""
        taken = np.arange(self.correct.shape[1]) < k[:, None]
        n_correct = np.nansum(np.where(taken, self.correct, 0), axis=1)
        # What is taken and not known is neither right nor wrong.
        n_known = k - np.count_nonzero(taken & np.isnan(self.correct), axis=1)
        return float(2 * self.weight @ n_correct / max(self.weight @ (n_known + self.n_true), 1e-12))


def rank_labels(scores: np.ndarray, n_ranks: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the best scores of each row, the best first, and their labels; each (n, n_ranks)."""
    best = torch.topk(torch.from_numpy(scores), n_ranks, dim=1)  # sorted, which ranks have to be
    return best.values.numpy(), best.indices.numpy()


def log_expected_count(scores: np.ndarray) -> np.ndarray:
    """Return the logarithm of the number of labels that the scores (n, n_labels) expect, (n,)."""
    log_expected: np.ndarray = np.log(np.maximum(expit(scores).sum(axis=1), 1e-3))  # of nothing expected: finite
    return log_expected


# Rules ----------------------------------------------------------------------------------------------------------


@stored_as("annotation.F1Rule")
@dataclass(frozen=True)
class F1Rule:
    """Take the k labels whose expected gain in overall F1 is largest.

    A logistic regression turns what is known of an image into the probability that its label of rank r is true. Each
    true label among the k adds 2, and each label costs `label_cost`: at the best F1 that can be had, this maximises it
    (Dinkelbach).

    Attributes
    ----------
    weights : ndarray of shape (n_terms,), float64
        Of the terms of `_terms`.
    label_cost : float
    spread : float
        Of a regression's errors.
    least : int
        No image gets fewer labels.
    """

    weights: np.ndarray
    label_cost: float
    spread: float
    least: int

    @classmethod
    def _from_format(cls, state: dict[str, Any], number: int) -> dict[str, Any]:
        """Return the fields of a rule of an older format as they are today."""
        if number == 1:
            state = {"label_cost" if name == "price" else name: value for name, value in state.items()}
        return state

    def probabilities(self, estimates: CountEstimates, n_ranks: int) -> np.ndarray:
        """Return the probability that the label of each rank is true, (n, n_ranks)."""
        return expit(_terms(estimates, n_ranks, self.spread) @ self.weights)

    def choose(self, estimates: CountEstimates, n_ranks: int) -> np.ndarray:
        """Return how many labels each image gets, (n,) int64."""
        return _best_k(self.probabilities(estimates, n_ranks), self.label_cost, self.least)


@stored_as("annotation.Decisions")
@dataclass(frozen=True)
class LabelRules:
    """The rules by which an annotator may choose labels.

    Attributes
    ----------
    n_ranks : int
        How many of an image's labels the rule of counts looks at.
    counts : F1Rule or None
    threshold : float
        On log odds: for all labels.
    thresholds : ndarray of shape (n_labels,), float32
        For each label.
    """

    n_ranks: int
    counts: F1Rule | None
    threshold: float
    thresholds: np.ndarray


@dataclass(frozen=True)
class LabelChooser:
    """The way in which labels are chosen, as it is asked for.

    Attributes
    ----------
    way : {"predict", "threshold", "label-thresholds"} or int
        As many as is estimated, all above a threshold, or the same number each.
    rounding : {"f1", "round", "floor"}
        Of an estimated number.
    unseen : ndarray of int64
        Labels that are not chosen, whatever their score.
    rules : LabelRules or None
        What was learnt on images held out; a fixed number needs none.
    """

    way: Any
    rounding: str
    unseen: np.ndarray
    rules: LabelRules | None

    def shift(self, scores: np.ndarray) -> np.ndarray:
        """Bring thresholds to 0: scores (n, n_labels) less the threshold, where there is one."""
        if self.way not in ("threshold", "label-thresholds"):
            return scores
        rules = self._require_rules()
        return scores - np.float32(rules.threshold if self.way == "threshold" else rules.thresholds)

    def choose(self, scores: np.ndarray, counts: np.ndarray | None) -> tuple[Any, np.ndarray]:
        """Choose labels for some images.

        Parameters
        ----------
        scores : ndarray of shape (n, n_labels), float32
        counts : ndarray of shape (n, n_counts), float32, or None
            As `CountEstimates` holds them.

        Returns
        -------
        chosen : csr_array of shape (n, n_labels), int8
            The entries of a row are in the order of their scores, the best first.
        number : ndarray of shape (n,), int64
        """
        shifted = self.shift(scores)
        if not isinstance(self.way, str):
            chosen = choose_top(shifted, np.full(len(scores), self.way))
        elif self.way == "predict":
            chosen = choose_top(shifted, self._estimate(scores, counts))
        else:
            chosen = shifted > 0
        chosen[:, self.unseen] = False
        row, column = np.nonzero(chosen)
        # By rows, and by scores within them; lexsort keeps the order of equal ones.
        order = np.lexsort((-shifted[row, column], row))
        number = np.count_nonzero(chosen, axis=1)
        starts = np.concatenate([[0], np.cumsum(number)])
        return sparse.csr_array((np.ones(len(row), np.int8), column[order], starts), shape=chosen.shape), number

    def _estimate(self, scores: np.ndarray, counts: np.ndarray | None) -> np.ndarray:
        """Return how many labels each image gets by the count head, (n,) int64."""
        rules = self._require_rules()
        if counts is None or rules.counts is None:  # fitted with another rule, and set to this one since
            raise ValueError("label_count='predict' needs a network that counts; fit with label_count='predict'")
        if self.rounding == "f1":
            return rules.counts.choose(CountEstimates.of(scores, counts, rules.n_ranks), rules.n_ranks)
        return round_counts(counts, self.rounding).clip(0, scores.shape[1])

    def _require_rules(self) -> LabelRules:
        if self.rules is None:
            raise ValueError(f"label_count={self.way!r} is learnt in fit, which was called with a number; fit again")
        return self.rules


def expected_counts(counts: np.ndarray) -> np.ndarray:
    """Return the expected number of labels, (n,), from what `CountEstimates.counts` holds."""
    if counts.shape[1] == 1:
        return np.maximum(counts[:, 0], 0)  # a regression may say less than 0
    return np.exp(counts) @ np.arange(counts.shape[1])


def round_counts(counts: np.ndarray, rounding: str) -> np.ndarray:
    """Return the expected number of labels as a whole one, (n,) int64, by "round" or "floor"."""
    rounded = np.rint if rounding == "round" else np.floor
    return rounded(expected_counts(counts)).astype(np.int64)


# The number of the best overall F1 ------------------------------------------------------------------------------


def fit_f1_rule(estimates: CountEstimates, truth: HeldOutLabels, least: int) -> F1Rule:
    """Fit the logistic regression and the cost of a label on images that were held out."""
    n_ranks = truth.correct.shape[1]
    error = expected_counts(estimates.counts) - truth.n_true
    spread = max(float(np.sqrt(np.average(error**2, weights=truth.weight))), 0.25)  # numbers are whole
    terms = _terms(estimates, n_ranks, spread)
    known = ~np.isnan(truth.correct)
    weight = np.broadcast_to(truth.weight[:, None], known.shape)[known]
    start = np.zeros(terms.shape[2])
    start[1] = 1.0  # the score as it comes, or the log odds of the number where there is none
    weights = _fit_logistic(terms[known], truth.correct[known].astype(np.float64), weight, start)
    return F1Rule(weights, _best_label_cost(expit(terms @ weights), truth, least), spread, least)


def _best_label_cost(probability: np.ndarray, truth: HeldOutLabels, least: int) -> float:
    """Return the cost of a label that gives the best F1 on some images, drawn to what it should be.

    At its fixed point the cost is the F1 that is expected of it. What is best in fact varies by chance, the more the
    fewer images there are.
    """
    cost, rank = 0.5, np.arange(probability.shape[1])
    for _ in range(_FIXPOINT_STEPS):
        k = _best_k(probability, cost, least)
        expected = np.where(rank < k[:, None], probability, 0).sum(axis=1)
        cost = float(2 * truth.weight @ expected / max(truth.weight @ (k + truth.n_true), 1e-12))
    # A parabola is the logarithm of a Gaussian belief about the cost, the weaker the more images there are.
    f1 = np.array([truth.f1(_best_k(probability, tried, least)) for tried in _LABEL_COSTS])
    return float(_LABEL_COSTS[int(np.argmax(f1 - _COST_PRIOR / len(probability) * (_LABEL_COSTS - cost) ** 2))])


def _terms(estimates: CountEstimates, n_ranks: int, spread: float) -> np.ndarray:
    """Return what the regression sees of each image and rank, (n, n_ranks, n_terms) float64."""
    n = len(estimates.counts)
    rank = np.broadcast_to(np.log(np.arange(1, n_ranks + 1)), (n, n_ranks))
    at_least = _at_least(estimates.counts, n_ranks, spread)
    terms = [np.ones((n, n_ranks)), at_least, rank]
    if estimates.scores is not None and estimates.log_expected is not None:
        log_expected = np.broadcast_to(estimates.log_expected[:, None], (n, n_ranks))
        terms = [terms[0], estimates.scores[:, :n_ranks].astype(np.float64), rank, at_least, log_expected]
    return np.stack(terms, axis=2)


def _at_least(counts: np.ndarray, n_ranks: int, spread: float) -> np.ndarray:
    """Return the log odds that an image has at least 1, 2, ... n_ranks labels, (n, n_ranks) float64."""
    if counts.shape[1] == 1:
        scale = spread * np.sqrt(3) / np.pi  # of the logistic distribution of this standard deviation
        log_odds = (counts.astype(np.float64) - np.arange(1, n_ranks + 1) + 0.5) / scale
        return log_odds.clip(-_MAX_LOG_ODDS, _MAX_LOG_ODDS)
    tail = np.exp(counts.astype(np.float64))[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1 : n_ranks + 1]
    # More labels than any image had in training have no probability of their own.
    tail = np.pad(tail, ((0, 0), (0, n_ranks - tail.shape[1]))).clip(1e-6, 1 - 1e-6)
    return (np.log(tail) - np.log1p(-tail)).clip(-_MAX_LOG_ODDS, _MAX_LOG_ODDS)


def _best_k(probability: np.ndarray, label_cost: float, least: int) -> np.ndarray:
    """Return the number of labels of the largest expected gain, (n,) int64; of equal gains the smallest number."""
    gain = np.cumsum(2 * probability - label_cost, axis=1)
    gain = np.concatenate([np.zeros((len(gain), 1)), gain], axis=1)
    gain[:, :least] = -np.inf
    return gain.argmax(axis=1)


def _fit_logistic(terms: np.ndarray, true: np.ndarray, weight: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Fit by Newton's method, drawn towards `start`, which scikit-learn's logistic regression cannot be."""
    weights = start.copy()
    scale = weight / weight.mean()  # the ridge counts as much, whatever weights are measured in
    ridge = np.full(len(start), _RIDGE["other"])
    ridge[:2] = _RIDGE["intercept"], _RIDGE["score"]
    for _ in range(_NEWTON_STEPS):
        p = expit(terms @ weights)
        gradient = terms.T @ (scale * (p - true)) + ridge * (weights - start)
        curvature = (terms * (scale * p * (1 - p))[:, None]).T @ terms + np.diag(ridge)
        step = np.linalg.solve(curvature, gradient)
        weights -= step / max(1.0, float(np.abs(step).max()))  # a full step from far off may overshoot
        if np.abs(step).max() < 1e-6:
            break
    return weights


def fit_score_odds(scores: np.ndarray, truth: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Fit what turns scores (n, n_labels) into log odds: an intercept and a slope above 0, (2,) float64.

    Parameters
    ----------
    scores, truth : ndarray of shape (n, n_labels)
        Truth is NaN where it is not known.
    weight : ndarray of shape (n,)
    """
    known = ~np.isnan(truth)
    own, pair_weight = scores[known].astype(np.float64), np.broadcast_to(weight[:, None], known.shape)[known]
    mean, spread = own.mean(), own.std() or 1.0
    terms = np.column_stack([np.ones_like(own), (own - mean) / spread])
    intercept, slope = _fit_logistic(terms, truth[known].astype(np.float64), pair_weight, np.array([0.0, 1.0]))
    slope = max(slope, _LEAST_SLOPE) / spread  # a label is never the likelier the farther it is
    return np.array([intercept - slope * mean, slope])


# Thresholds -----------------------------------------------------------------------------------------------------


def best_threshold(scores: np.ndarray, truth: HeldOutLabels) -> tuple[float, float]:
    """Find the threshold on all scores (n, n_ranks) that gives the best overall F1, and that F1.

    Where nothing is known of the images it is an even chance, of F1 0.
    """
    known = ~np.isnan(truth.correct)
    if not known.any():
        return 0.0, 0.0
    weight = np.broadcast_to(truth.weight[:, None], known.shape)[known]
    threshold, f1 = _best_cuts(
        scores[known][:, None],
        truth.correct[known][:, None],
        weight[:, None],
        np.array([truth.weight @ truth.n_true]),
    )
    return float(threshold[0]), float(f1[0])


def label_thresholds(scores: np.ndarray, correct: np.ndarray, weight: np.ndarray, otherwise: float) -> np.ndarray:
    """Find for each label the threshold of its best F1.

    Parameters
    ----------
    scores, correct : ndarray of shape (n, n_labels)
        NaN where it is not known.
    weight : ndarray of shape (n,)
    otherwise : float
        The threshold of labels that are true of too few images to tell.

    Returns
    -------
    ndarray of shape (n_labels,), float64
    """
    step = max(1, _BLOCK // len(scores))
    parts = [slice(start, start + step) for start in range(0, scores.shape[1], step)]
    return np.concatenate([_own_thresholds(scores[:, part], correct[:, part], weight, otherwise) for part in parts])


def _own_thresholds(scores: np.ndarray, correct: np.ndarray, weight: np.ndarray, otherwise: float) -> np.ndarray:
    known = ~np.isnan(correct)
    weights = np.where(known, weight[:, None], 0)
    true = np.where(known, correct, 0)
    thresholds, _ = _best_cuts(scores, true, weights, (true * weights).sum(axis=0))
    return np.where(true.sum(axis=0) >= _MIN_POSITIVES, thresholds, otherwise)


def _best_cuts(scores: Any, true: Any, weight: Any, n_true: Any) -> tuple[np.ndarray, np.ndarray]:
    """For each column, find the cut of best F1, halfway to the next score."""
    order = np.argsort(-scores, axis=0, kind="stable")
    scores, true, weight = (np.take_along_axis(part, order, axis=0) for part in (scores, true, weight))
    f1 = 2 * np.cumsum(true * weight, axis=0) / np.maximum(np.cumsum(weight, axis=0) + n_true, 1e-12)
    following = np.concatenate([scores[1:], scores[-1:] - 2], axis=0)  # behind the last, the cut is 1 below it
    f1[scores <= following] = -1  # equal scores stay together
    best = f1.argmax(axis=0)[None]
    cut = (np.take_along_axis(scores, best, axis=0) + np.take_along_axis(following, best, axis=0)) / 2
    return cut[0].astype(np.float64), np.take_along_axis(f1, best, axis=0)[0]
