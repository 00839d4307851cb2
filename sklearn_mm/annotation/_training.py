"""What annotators train by, and what they learn afterwards from images that a network has not been trained on."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from scipy.special import expit, logsumexp

from sklearn_mm._device import resolve_device, resolve_dtype, settle
from sklearn_mm._params import (
    DEVICE_CONSTRAINTS,
    Integral,
    Interval,
    Real,
    StrOptions,
    a_path,
    non_negative_int,
    positive_int,
    positive_real,
)
from sklearn_mm.annotation._data import LabeledImages
from sklearn_mm.annotation._members import LabelMembers, fit_shift, fit_weights
from sklearn_mm.annotation._model import (
    AnnotationModel,
    Calibration,
    CountBatch,
    CountModel,
    FusedImages,
    InputRows,
    LabelBatch,
    LabelEntries,
)
from sklearn_mm.annotation._rules import (
    CountEstimates,
    HeldOutLabels,
    LabelRules,
    best_threshold,
    fit_f1_rule,
    label_thresholds,
    log_expected_count,
    rank_labels,
)
from sklearn_mm.sampling import n_batches, row_batches
from sklearn_mm.towers import Tower
from sklearn_mm.training import ALONE, OPTIMIZERS, SCHEDULES, EpochBatches, Processes, TrainingSettings

__all__ = [
    "TRAINING_CONSTRAINTS",
    "FrozenFeatures",
    "HeldOut",
    "best_f1",
    "calibrate",
    "count_batches",
    "divide",
    "fit_rules",
    "label_batches",
    "training_settings",
    "weigh_members",
    "with_calibration",
]

_CLIP_NORM = 2.0  # of the gradient: far above that of an ordinary batch, it only holds back the odd one
_MAX_CACHED = 1 << 27  # numbers of frozen features that are kept: half a GB of float32
_N_FOLDS = 4
_MIN_HELD_OUT = 500  # images to learn from how many labels an image gets; fewer are worth the time of folds
_MAX_WEIGHED = 1 << 20  # labels of images that what members count is learnt from
_MAX_LABELS_WEIGHED = 2048
_NEWTON_STEPS = 8
_INTERCEPT_PRIOR = 1.0  # weight of the belief that a label's intercept is that of all

TRAINING_CONSTRAINTS: dict[str, Any] = {
    **DEVICE_CONSTRAINTS,
    "max_epochs": [positive_int],
    "batch_size": [Interval(Integral, 2, None, closed="left")],
    "optimizer": [StrOptions(set(OPTIMIZERS))],
    "learning_rate": [positive_real],
    "weight_decay": [Interval(Real, 0, None, closed="left")],
    "lr_schedule": [StrOptions(set(SCHEDULES))],
    "dropout": [Interval(Real, 0, 1, closed="left")],
    "early_stopping": ["boolean"],
    "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
    "n_iter_no_change": [positive_int],
    "random_state": ["random_state"],
    "n_jobs": [Integral, None],
    "warm_start": ["boolean"],
    "checkpoint": [a_path, None],
    "verbose": [non_negative_int, "boolean"],
}
"""Of the parameters that both estimators of annotation train by."""


class _TrainingParameters(Protocol):
    optimizer: str
    weight_decay: float
    lr_schedule: str
    n_iter_no_change: int
    device: Any
    precision: str
    verbose: int


def training_settings(parameters: _TrainingParameters, fitted: str | None = None) -> TrainingSettings:
    """Return what training is told, from the parameters of an estimator and the precision that it goes on in."""
    device = resolve_device(parameters.device)
    return TrainingSettings(
        device=device,
        dtype=resolve_dtype(parameters.precision, device, fitted),
        optimizer=parameters.optimizer,
        weight_decay=parameters.weight_decay,
        lr_schedule=parameters.lr_schedule,
        clip_norm=_CLIP_NORM,
        n_iter_no_change=parameters.n_iter_no_change,
        verbose=parameters.verbose,
    )


# Batches --------------------------------------------------------------------------------------------------------


class _RowBatches:
    """The batches of an epoch over some images, of which a function makes this process's share.

    `collate` takes the positions of its images, what to draw from, and what multiplies weights so that the mean over
    processes of mean losses is that over all images.
    """

    def __init__(
        self,
        n_rows: int,
        batch_size: int,
        rng: np.random.Generator,
        collate: Callable[[np.ndarray, np.random.Generator, np.float32], Any],
        prepare: Callable[[], None] | None,
        processes: Processes,
    ) -> None:
        processes.check_enough(n_rows)
        self._n_rows, self._batch_size, self._rng = n_rows, batch_size * processes.n, rng
        self._collate, self._prepare = collate, prepare
        self._processes, self._at_least = processes, max(2, processes.n)

    def __len__(self) -> int:
        return n_batches(self._n_rows, self._batch_size, at_least=self._at_least)

    def __iter__(self) -> Iterator[Any]:
        if self._prepare is not None:  # before the model is put in training mode, and in this thread
            self._prepare()
        own_rng = self._processes.own_draws(self._rng)
        batches = row_batches(self._n_rows, self._batch_size, self._rng, at_least=self._at_least)
        # Drawn here and in order, collated by whoever goes through it: a thread that is ahead of the training.
        return (self._share_of(positions, own_rng) for positions in batches)

    def _share_of(self, positions: np.ndarray, own_rng: np.random.Generator) -> Any:
        own = positions[self._processes.shares(len(positions))[self._processes.rank]]
        return self._collate(own, own_rng, np.float32(len(own) * self._processes.n / len(positions)))


def label_batches(
    model: AnnotationModel,
    inputs: InputRows,
    images: LabeledImages,
    batch_size: int,
    rng: np.random.Generator,
    processes: Processes = ALONE,
) -> EpochBatches:
    """Make the batches that a model is trained on; pictures are augmented from `rng`."""

    def collate(positions: np.ndarray, own_rng: np.random.Generator, factor: np.float32) -> LabelBatch:
        entries = images.labels[positions].tocoo()
        row, column = (torch.from_numpy(part.astype(np.int64)) for part in (entries.row, entries.col))
        return LabelBatch(
            model.collate(inputs[images.rows[positions]], own_rng),
            LabelEntries(row, column, torch.from_numpy(entries.data)),
            torch.from_numpy(images.counts[positions]),
            torch.from_numpy(images.weight[positions] * factor),
        )

    return _RowBatches(len(images), batch_size, rng, collate, None, processes)


def count_batches(
    images: LabeledImages,
    batch_size: int,
    rng: np.random.Generator,
    collate: Callable[[np.ndarray], Any],
    prepare: Callable[[], None] | None = None,
    processes: Processes = ALONE,
) -> EpochBatches:
    """Make the batches that numbers of labels are learnt from; `collate` gives the inputs at some positions."""

    def with_counts(positions: np.ndarray, own_rng: np.random.Generator, factor: np.float32) -> CountBatch:
        counts, weight = images.counts[positions], images.weight[positions] * factor
        return CountBatch(collate(positions), torch.from_numpy(counts), torch.from_numpy(weight))

    return _RowBatches(len(images), batch_size, rng, with_counts, prepare, processes)


class FrozenFeatures:
    """The features that a count head is trained on after the labels: those of a network that learns no more.

    Few are computed once, when the first epoch begins; many anew for each batch, as they would fill the memory.

    Parameters
    ----------
    model : AnnotationModel
    inputs : InputRows
    rows : ndarray of int64
        The rows of `inputs`, in the order of the images.
    """

    def __init__(self, model: AnnotationModel, inputs: InputRows, rows: np.ndarray) -> None:
        self._model, self._inputs, self._rows = model, inputs, rows
        self._are_few = len(rows) * model.network.label_head.in_features <= _MAX_CACHED
        self._table = torch.empty(0)

    def head(self) -> CountModel:
        """Return the count head as what is trained: the rest of the model is no part of it."""
        head, target = self._model.network.count_head, self._model.scoring.count_target
        if head is None or target is None:
            raise ValueError("this network does not count")
        tower = Tower(None, head, self._model.tower.device, self._model.tower.dtype)
        return CountModel(tower, target, None if self._are_few else self._model.fuse_frozen)

    def prepare(self) -> None:
        """Freeze the model, and compute what is kept."""
        settle(self._model, self._model.tower.device)
        if self._are_few and not len(self._table):
            blocks = [fused.float().cpu() for _, fused in self._model.blocks(self._inputs, self._rows)]
            self._table = torch.cat(blocks)

    def collate(self, positions: np.ndarray) -> Any:
        """Return the features at some positions, or what the model takes to compute them."""
        if self._are_few:
            return self._table[torch.from_numpy(positions)]
        return self._model.collate(self._inputs[self._rows[positions]])


# What is held out -----------------------------------------------------------------------------------------------


def divide(
    images: LabeledImages, n_folds: Any, fraction: float, rng: np.random.Generator, *, one_network: bool
) -> tuple[list[tuple[LabeledImages, LabeledImages]], LabeledImages, LabeledImages | None]:
    """Return folds, what the final network is trained on, and what is held out from it.

    Parameters
    ----------
    images : LabeledImages
    n_folds : int, "auto" or None
    fraction : float
        That is held out where there are no folds.
    rng : Generator
    one_network : bool
        "auto" takes no folds, as there can be one network only.
    """
    if n_folds == "auto":
        few = fraction * len(images) < _MIN_HELD_OUT
        n_folds = _N_FOLDS if few and not one_network else None
    if n_folds is not None:
        return images.folds(n_folds, rng), images, None
    return [], *images.split(fraction, rng)


@dataclass(frozen=True)
class HeldOut:
    """Images, and a model that has not been trained on them.

    Attributes
    ----------
    model : AnnotationModel
    inputs : InputRows
        Of which `images` says the rows.
    images : LabeledImages
    """

    model: AnnotationModel
    inputs: InputRows
    images: LabeledImages

    @cached_property
    def fused(self) -> FusedImages:
        """What the scores come from: computed once, as rules look at them more than once."""
        return self.model.fuse_images(self.inputs, self.images.rows)


def _by_images(parts: Sequence[HeldOut], n_ranks: int) -> tuple[np.ndarray, CountEstimates | None, HeldOutLabels]:
    """Return the best scores of each image, all that is known of it, and what is true of it."""
    best, correct, counts, log_expected = [], [], [], []
    for part in parts:
        for rows, block, numbers in part.model.score_images(part.inputs, part.images.rows):
            values, labels = rank_labels(block, n_ranks)
            best.append(values)
            # Only the ranks looked at are kept: all scores of all images would not fit into the memory.
            correct.append(np.take_along_axis(part.images.labels[rows].toarray(), labels, axis=1))
            if numbers is not None:
                counts.append(numbers)
                log_expected.append(log_expected_count(block))
    n_true, weight = (
        np.concatenate([getattr(part.images, name) for part in parts]).astype(np.float64)
        for name in ("counts", "weight")
    )
    top = np.concatenate(best)
    estimates = CountEstimates(np.concatenate(counts), top, np.concatenate(log_expected)) if counts else None
    return top, estimates, HeldOutLabels(np.concatenate(correct), n_true, weight)


def _by_labels(parts: Sequence[HeldOut]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield, for some labels after others, the scores of all images, and which are true: each (n, n_labels)."""
    n_images = sum(len(part.images) for part in parts)
    columns = [part.images.labels.tocsc() for part in parts]  # of which blocks of labels are cut cheaply
    for blocks in zip(*(part.model.score_labels(part.fused, n_images) for part in parts), strict=True):
        labels = blocks[0][0]
        yield (
            np.concatenate([scores for _, scores in blocks]),
            np.concatenate([own[:, labels].toarray() for own in columns]),
        )


def weigh_members(parts: Sequence[HeldOut], members: LabelMembers) -> LabelMembers:
    """Learn what each member counts beside the network, and let the models of the parts score by it.

    Parameters
    ----------
    parts : sequence of HeldOut
        Of which all models have members of the same names.
    members : LabelMembers
        With the weights to begin with.

    Returns
    -------
    LabelMembers
        With those that were learnt, and what the log odds of each label are raised by.
    """
    terms, truth, weight, group = [], [], [], []
    n_images = sum(len(part.images) for part in parts)
    # Few numbers are learnt, for which some of the images and of the labels are enough; these images stand in no order.
    n_labels = parts[0].images.labels.shape[1]
    columns = np.linspace(0, n_labels - 1, min(n_labels, _MAX_LABELS_WEIGHED)).astype(np.int64)
    share = min(1.0, _MAX_WEIGHED / len(columns) / n_images)
    for part in parts:
        some = np.linspace(0, len(part.images) - 1, max(1, round(share * len(part.images)))).astype(np.int64)
        images = part.images.take(some)
        for rows, own in part.model.score_members(part.inputs, images.rows):
            terms.append(own[:, columns])
            truth.append(images.labels[rows].toarray()[:, columns])
        weight.append(images.weight)
        group.append(images.group)
    said, known = np.concatenate(terms), np.concatenate(truth)
    own_weight, prior = np.concatenate(weight), members.prior[columns]
    weights = fit_weights(said, known, own_weight, prior, members.weights)
    shift = np.zeros(n_labels, np.float32)
    intercept, of_prior, *of_members = weights.astype(np.float32)
    together = said @ np.array(of_members) + (intercept + of_prior * prior)
    shift[columns] = fit_shift(together, known, own_weight, np.concatenate(group))
    if members.by_name is not None:
        shift[members.by_name] = 0  # that it is true of no image says nothing of it
    for part in parts:
        if part.model.members is not None:
            part.model.join(part.model.members.weighted(weights, shift))
    return members.weighted(weights, shift)


def best_f1(parts: Sequence[HeldOut], n_ranks: int) -> tuple[str, float]:
    """Score the labels of images held out by the best overall F1 of a threshold, as a stage validates."""
    scores, _, truth = _by_images(parts, n_ranks)
    return "val_f1", best_threshold(scores, truth)[1]


def fit_rules(parts: Sequence[HeldOut], n_ranks: int, least: int) -> LabelRules:
    """Fit all rules on some images.

    Parameters
    ----------
    parts : sequence of HeldOut
    n_ranks : int
    least : int
        The least number of labels an image gets by the rule of counts.
    """
    top, estimates, truth = _by_images(parts, n_ranks)
    threshold, _ = best_threshold(top, truth)
    thresholds = np.concatenate(
        [label_thresholds(scores, correct, truth.weight, threshold) for scores, correct in _by_labels(parts)]
    )
    rule = None if estimates is None else fit_f1_rule(estimates, truth, least)
    return LabelRules(n_ranks, rule, threshold, thresholds.astype(np.float32))


# Calibration ----------------------------------------------------------------------------------------------------


def calibrate(parts: Sequence[HeldOut]) -> Calibration:
    """Fit a slope for all labels and an intercept for each to what is true.

    The intercepts are drawn to that of all labels together, the more the fewer images a label is true of.
    """
    n_labels = parts[0].images.labels.shape[1]
    if parts[0].model.scoring.kind == "single":
        return Calibration(_fit_temperature(parts), np.zeros(n_labels, np.float32))
    weight = np.concatenate([part.images.weight for part in parts]).astype(np.float64)[:, None]
    line = np.array([1.0, 0.0])  # slope and intercept
    for _ in range(_NEWTON_STEPS):
        gradient, curvature = np.zeros(2), 1e-6 * np.eye(2)  # where all is sure, the curvature alone would be singular
        for scores, correct in _by_labels(parts):
            error, spread = _errors(line[0] * scores + line[1], correct, weight)
            gradient += [(error * scores).sum(), error.sum()]
            cross = (spread * scores).sum()
            curvature += [[(spread * scores**2).sum(), cross], [cross, spread.sum()]]
        step = np.linalg.solve(curvature, gradient)
        line -= step / max(1.0, float(np.abs(step).max()))  # a full step from far off may overshoot
    return Calibration(
        float(line[0]),
        np.concatenate([_intercepts(line, scores, correct, weight) for scores, correct in _by_labels(parts)]),
    )


def _intercepts(line: np.ndarray, scores: np.ndarray, correct: np.ndarray, weight: np.ndarray) -> np.ndarray:
    own = np.zeros(scores.shape[1])
    for _ in range(_NEWTON_STEPS):
        error, spread = _errors(line[0] * scores + line[1] + own, correct, weight)
        step = (error.sum(axis=0) + _INTERCEPT_PRIOR * own) / (spread.sum(axis=0) + _INTERCEPT_PRIOR)
        own -= np.clip(step, -1, 1)  # a full step from far off may overshoot
    return (line[1] + own).astype(np.float32)


def _errors(scores: np.ndarray, correct: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return by how much probabilities are too high, and their variance; 0 where nothing is known."""
    probability = expit(scores.astype(np.float64))
    error = np.where(np.isnan(correct), 0, probability - correct) * weight
    return error, np.where(np.isnan(correct), 0, probability * (1 - probability)) * weight


def _fit_temperature(parts: Sequence[HeldOut]) -> float:
    """Find the factor on the scores of which the log likelihood of the one true label is highest."""
    scores, true = (np.concatenate(both, axis=1) for both in zip(*_by_labels(parts), strict=True))
    weight = np.concatenate([part.images.weight for part in parts])

    def loss(log_slope: float) -> float:
        scaled = np.exp(log_slope) * scores
        return float(weight @ (logsumexp(scaled, axis=1) - (scaled * true).sum(axis=1)))

    return float(np.exp(minimize_scalar(loss, bounds=(-4, 4), method="bounded").x))


def with_calibration(parts: Sequence[HeldOut], calibration: Calibration) -> list[HeldOut]:
    """Return the same images with calibrated scores."""
    return [
        replace(
            part,
            model=AnnotationModel(
                part.model.tower,
                part.model.network,
                replace(part.model.scoring, calibration=calibration),
                members=part.model.members,
            ),
        )
        for part in parts
    ]
