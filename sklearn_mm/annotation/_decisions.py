"""How many labels an image gets: rules that are fitted on images the network has not been trained on."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit

from sklearn_mm.registry import stored_as

__all__ = ["Evidence", "F1Rule", "Truth", "best_threshold", "expected_counts", "fit_f1_rule", "label_thresholds"]

_SURE = 3.0  # log odds of a number are held within this: they are overconfident, above all where data are few
_PRICES = np.arange(0.02, 1.2, 0.01)
_RIDGE = {"intercept": 1.0, "score": 1.0, "other": 10.0}
_FIXPOINT_STEPS = 50
_TRUST = 300.0  # in the price that is computed, against the one that is best on few images
_FEWEST_POSITIVES = 5


@dataclass(frozen=True)
class Evidence:
    """What decides how many labels each image gets.

    Attributes
    ----------
    counts : ndarray of shape (n, 1) or (n, n_counts), float32
        The estimate of a regression, or the log probability of each number.
    scores : ndarray of shape (n, n_ranks), float32, or None
        The log odds of the labels ranked first, the best first.
    log_mass : ndarray of shape (n,), float32, or None
        The logarithm of the sum of the probabilities of all labels.
    """

    counts: np.ndarray
    scores: np.ndarray | None = None
    log_mass: np.ndarray | None = None


@dataclass(frozen=True)
class Truth:
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
        n_known = k - np.count_nonzero(taken & np.isnan(self.correct), axis=1)
        return float(2 * self.weight @ n_correct / max(self.weight @ (n_known + self.n_true), 1e-12))


@stored_as("annotation.F1Rule")
@dataclass(frozen=True)
class F1Rule:
    """Take the k labels whose expected gain in overall F1 is largest.

    A logistic regression turns what is known of an image into the probability that its label of rank r is true. Each
    true label among the k adds 2, and each label costs `price`: at the best F1 that can be had, this maximises it
    (Dinkelbach).

    Attributes
    ----------
    weights : ndarray of shape (n_terms,), float64
        Of the terms of `_terms`.
    price : float
    spread : float
        Of a regression's errors.
    least : int
        No image gets fewer labels.
    """

    weights: np.ndarray
    price: float
    spread: float
    least: int

    def probabilities(self, evidence: Evidence, n_ranks: int) -> np.ndarray:
        """Return the probability that the label of each rank is true, (n, n_ranks)."""
        return expit(_terms(evidence, n_ranks, self.spread) @ self.weights)

    def choose(self, evidence: Evidence, n_ranks: int) -> np.ndarray:
        """Return how many labels each image gets, (n,) int64."""
        return _best_k(self.probabilities(evidence, n_ranks), self.price, self.least)


def expected_counts(counts: np.ndarray) -> np.ndarray:
    """Return the expected number of labels, (n,), from what `Evidence.counts` holds."""
    if counts.shape[1] == 1:
        return np.maximum(counts[:, 0], 0)
    return np.exp(counts) @ np.arange(counts.shape[1])


def fit_f1_rule(evidence: Evidence, truth: Truth, least: int) -> F1Rule:
    """Fit the logistic regression and the price on images that were held out."""
    n_ranks = truth.correct.shape[1]
    error = expected_counts(evidence.counts) - truth.n_true
    spread = max(float(np.sqrt(np.average(error**2, weights=truth.weight))), 0.25)
    terms = _terms(evidence, n_ranks, spread)
    known = ~np.isnan(truth.correct)
    weight = np.broadcast_to(truth.weight[:, None], known.shape)[known]
    start = np.zeros(terms.shape[2])
    start[1] = 1.0  # as it comes
    weights = _fit_logistic(terms[known], truth.correct[known].astype(np.float64), weight, start)
    return F1Rule(weights, _best_price(expit(terms @ weights), truth, least), spread, least)


def _best_price(probability: np.ndarray, truth: Truth, least: int) -> float:
    """Return the price that gives the best F1 on some images, drawn to what it should be.

    At its fixed point the price is the F1 that is expected of it. What is best in fact varies by chance, the more the
    fewer images there are.
    """
    price, rank = 0.5, np.arange(probability.shape[1])
    for _ in range(_FIXPOINT_STEPS):
        k = _best_k(probability, price, least)
        expected = np.where(rank < k[:, None], probability, 0).sum(axis=1)
        price = float(2 * truth.weight @ expected / max(truth.weight @ (k + truth.n_true), 1e-12))
    f1 = np.array([truth.f1(_best_k(probability, tried, least)) for tried in _PRICES])
    return float(_PRICES[int(np.argmax(f1 - _TRUST / len(probability) * (_PRICES - price) ** 2))])


def _terms(evidence: Evidence, n_ranks: int, spread: float) -> np.ndarray:
    """Return what the regression sees of each image and rank, (n, n_ranks, n_terms) float64."""
    n = len(evidence.counts)
    rank = np.broadcast_to(np.log(np.arange(1, n_ranks + 1)), (n, n_ranks))
    at_least = _at_least(evidence.counts, n_ranks, spread)
    terms = [np.ones((n, n_ranks)), at_least, rank]
    if evidence.scores is not None and evidence.log_mass is not None:
        mass = np.broadcast_to(evidence.log_mass[:, None], (n, n_ranks))
        terms = [terms[0], evidence.scores[:, :n_ranks].astype(np.float64), rank, at_least, mass]
    return np.stack(terms, axis=2)


def _at_least(counts: np.ndarray, n_ranks: int, spread: float) -> np.ndarray:
    """Return the log odds that an image has at least 1, 2, ... n_ranks labels, (n, n_ranks) float64."""
    if counts.shape[1] == 1:
        scale = spread * np.sqrt(3) / np.pi  # of the logistic distribution of this standard deviation
        return ((counts.astype(np.float64) - np.arange(1, n_ranks + 1) + 0.5) / scale).clip(-_SURE, _SURE)
    tail = np.exp(counts.astype(np.float64))[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1 : n_ranks + 1]
    tail = np.pad(tail, ((0, 0), (0, n_ranks - tail.shape[1]))).clip(1e-6, 1 - 1e-6)
    return (np.log(tail) - np.log1p(-tail)).clip(-_SURE, _SURE)


def _best_k(probability: np.ndarray, price: float, least: int) -> np.ndarray:
    gain = np.cumsum(2 * probability - price, axis=1)
    gain = np.concatenate([np.zeros((len(gain), 1)), gain], axis=1)
    gain[:, :least] = -np.inf
    return gain.argmax(axis=1)


def _fit_logistic(terms: np.ndarray, true: np.ndarray, weight: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Fit by Newton's method, drawn towards `start`."""
    weights = start.copy()
    scale = weight / weight.mean()
    ridge = np.full(len(start), _RIDGE["other"])
    ridge[:2] = _RIDGE["intercept"], _RIDGE["score"]
    for _ in range(50):
        p = expit(terms @ weights)
        gradient = terms.T @ (scale * (p - true)) + ridge * (weights - start)
        curvature = (terms * (scale * p * (1 - p))[:, None]).T @ terms + np.diag(ridge)
        step = np.linalg.solve(curvature, gradient)
        weights -= step / max(1.0, float(np.abs(step).max()))  # a full step from far off may overshoot
        if np.abs(step).max() < 1e-6:
            break
    return weights


# Thresholds -----------------------------------------------------------------------------------------------------


def best_threshold(scores: np.ndarray, truth: Truth) -> tuple[float, float]:
    """Find the threshold on all scores that gives the best overall F1, and that F1.

    Parameters
    ----------
    scores : ndarray of shape (n, n_ranks), float32
    truth : Truth
        Of the same labels.
    """
    known = ~np.isnan(truth.correct)
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
    known = ~np.isnan(correct)
    weights = np.where(known, weight[:, None], 0)
    true = np.where(known, correct, 0)
    thresholds, _ = _best_cuts(scores, true, weights, (true * weights).sum(axis=0))
    return np.where(true.sum(axis=0) >= _FEWEST_POSITIVES, thresholds, otherwise)


def _best_cuts(scores: Any, true: Any, weight: Any, n_true: Any) -> tuple[np.ndarray, np.ndarray]:
    """For each column, find the cut of best F1, halfway to the next score."""
    order = np.argsort(-scores, axis=0, kind="stable")
    scores, true, weight = (np.take_along_axis(part, order, axis=0) for part in (scores, true, weight))
    f1 = 2 * np.cumsum(true * weight, axis=0) / np.maximum(np.cumsum(weight, axis=0) + n_true, 1e-12)
    following = np.concatenate([scores[1:], scores[-1:] - 2], axis=0)
    f1[scores <= following] = -1  # equal scores stay together
    best = f1.argmax(axis=0)[None]
    cut = (np.take_along_axis(scores, best, axis=0) + np.take_along_axis(following, best, axis=0)) / 2
    return cut[0].astype(np.float64), np.take_along_axis(f1, best, axis=0)[0]
