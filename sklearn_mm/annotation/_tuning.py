"""Learn from images held out how many labels an image gets, and what its scores are worth."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from scipy.special import expit, logsumexp

from sklearn_mm.annotation._decisions import (
    Evidence,
    F1Rule,
    Truth,
    best_threshold,
    fit_f1_rule,
    label_thresholds,
)
from sklearn_mm.annotation._model import InputRows
from sklearn_mm.annotation._scores import Calibration, FusedImages, LabelScores
from sklearn_mm.annotation._training_rows import TrainingRows
from sklearn_mm.registry import stored_as

__all__ = ["Decisions", "HeldOut", "calibrate", "evidence_of", "gather", "rank_labels", "tune", "with_calibration"]

_NEWTON_STEPS = 8
_PRIOR = 1.0  # weight of the belief that a label's intercept is that of all


@dataclass(frozen=True)
class HeldOut:
    """Images, and the scores of a network that has not been trained on them.

    Attributes
    ----------
    scores : LabelScores
    inputs : InputRows
        Of which `images` says the rows.
    images : TrainingRows
    """

    scores: LabelScores
    inputs: InputRows
    images: TrainingRows

    @cached_property
    def fused(self) -> FusedImages:
        """What the scores come from: computed once, as rules look at them more than once."""
        return self.scores.fuse(self.inputs, self.images.rows)


@stored_as("annotation.Decisions")
@dataclass(frozen=True)
class Decisions:
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


def rank_labels(scores: np.ndarray, n_ranks: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the best scores of each row, the best first, and their labels; each (n, n_ranks)."""
    best = torch.topk(torch.from_numpy(scores), n_ranks, dim=1)
    return best.values.numpy(), best.indices.numpy()


def evidence_of(scores: np.ndarray, counts: np.ndarray, n_ranks: int) -> Evidence:
    """Gather what decides on the number of labels of some images."""
    return Evidence(counts, rank_labels(scores, n_ranks)[0], _log_mass(scores))


def _log_mass(scores: np.ndarray) -> np.ndarray:
    mass: np.ndarray = np.log(np.maximum(expit(scores).sum(axis=1), 1e-3))
    return mass


def gather(parts: Sequence[HeldOut], n_ranks: int) -> tuple[np.ndarray, Evidence | None, Truth]:
    """Return the best scores of each image, all evidence on it, and what is true of it."""
    best, correct, counts, mass = [], [], [], []
    for part in parts:
        for rows, block, numbers in part.scores.of_rows(part.inputs, part.images.rows):
            values, labels = rank_labels(block, n_ranks)
            best.append(values)
            correct.append(np.take_along_axis(part.images.labels[rows].toarray(), labels, axis=1))
            if numbers is not None:
                counts.append(numbers)
                mass.append(_log_mass(block))
    n_true, weight = (
        np.concatenate([getattr(part.images, name) for part in parts]).astype(np.float64)
        for name in ("counts", "weight")
    )
    top = np.concatenate(best)
    evidence = Evidence(np.concatenate(counts), top, np.concatenate(mass)) if counts else None
    return top, evidence, Truth(np.concatenate(correct), n_true, weight)


def tune(parts: Sequence[HeldOut], n_ranks: int, least: int) -> Decisions:
    """Fit all rules on some images.

    Parameters
    ----------
    parts : sequence of HeldOut
    n_ranks : int
    least : int
        The least number of labels an image gets by the rule of counts.
    """
    top, evidence, truth = gather(parts, n_ranks)
    threshold, _ = best_threshold(top, truth)
    thresholds = np.concatenate(
        [label_thresholds(scores, correct, truth.weight, threshold) for scores, correct in _by_labels(parts)]
    )
    rule = None if evidence is None else fit_f1_rule(evidence, truth, least)
    return Decisions(n_ranks, rule, threshold, thresholds.astype(np.float32))


def _by_labels(parts: Sequence[HeldOut]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield for some labels after the other the scores of all images, and which are true: each (n, n_labels)."""
    n_images = sum(len(part.images) for part in parts)
    columns = [part.images.labels.tocsc() for part in parts]
    for blocks in zip(*(part.scores.of_labels(part.fused, n_images) for part in parts), strict=True):
        labels = blocks[0][0]
        yield (
            np.concatenate([scores for _, scores in blocks]),
            np.concatenate([own[:, labels].toarray() for own in columns]),
        )


# Calibration ----------------------------------------------------------------------------------------------------


def calibrate(parts: Sequence[HeldOut]) -> Calibration:
    """Fit a slope for all labels and an intercept for each to what is true.

    The intercepts are drawn to that of all labels together, the more the fewer images a label is true of.
    """
    n_labels = parts[0].images.labels.shape[1]
    if parts[0].scores.kind == "single":
        return Calibration(_temper(parts), np.zeros(n_labels, np.float32))
    weight = np.concatenate([part.images.weight for part in parts]).astype(np.float64)[:, None]
    line = np.array([1.0, 0.0])  # slope and intercept
    for _ in range(_NEWTON_STEPS):
        gradient, curvature = np.zeros(2), 1e-6 * np.eye(2)
        for scores, correct in _by_labels(parts):
            error, spread = _errors(line[0] * scores + line[1], correct, weight)
            gradient += [(error * scores).sum(), error.sum()]
            cross = (spread * scores).sum()
            curvature += [[(spread * scores**2).sum(), cross], [cross, spread.sum()]]
        step = np.linalg.solve(curvature, gradient)
        line -= step / max(1.0, float(np.abs(step).max()))
    return Calibration(
        float(line[0]),
        np.concatenate([_intercepts(line, scores, correct, weight) for scores, correct in _by_labels(parts)]),
    )


def _intercepts(line: np.ndarray, scores: np.ndarray, correct: np.ndarray, weight: np.ndarray) -> np.ndarray:
    own = np.zeros(scores.shape[1])
    for _ in range(_NEWTON_STEPS):
        error, spread = _errors(line[0] * scores + line[1] + own, correct, weight)
        step = (error.sum(axis=0) + _PRIOR * own) / (spread.sum(axis=0) + _PRIOR)
        own -= np.clip(step, -1, 1)
    return (line[1] + own).astype(np.float32)


def _errors(scores: np.ndarray, correct: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return by how much probabilities are too high, and their variance; 0 where nothing is known."""
    probability = expit(scores.astype(np.float64))
    error = np.where(np.isnan(correct), 0, probability - correct) * weight
    return error, np.where(np.isnan(correct), 0, probability * (1 - probability)) * weight


def _temper(parts: Sequence[HeldOut]) -> float:
    """Find the factor on the scores of which the log likelihood of the one true label is highest."""
    scores, true = (np.concatenate(both, axis=1) for both in zip(*_by_labels(parts), strict=True))
    weight = np.concatenate([part.images.weight for part in parts])

    def loss(log_slope: float) -> float:
        scaled = np.exp(log_slope) * scores
        return float(weight @ (logsumexp(scaled, axis=1) - (scaled * true).sum(axis=1)))

    return float(np.exp(minimize_scalar(loss, bounds=(-4, 4), method="bounded").x))


def with_calibration(parts: Sequence[HeldOut], calibration: Calibration) -> list[HeldOut]:
    """Return the same images with calibrated scores."""
    return [replace(part, scores=replace(part.scores, calibration=calibration)) for part in parts]
