"""Learning from a few corrected images, without the images of `fit`: one linear map on top of all that scores labels.

The map starts from 0. How far it may go is told by the images of `fit`, a sample of which is kept as features: to
second order, they pull a label back as strongly as they would if they were all learnt again beside the corrections
(Laplace's approximation for the last layer). So a correction counts as much as one image more in `fit`.
"""

import copy
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import linalg
from scipy.special import expit, softmax
from torch import Tensor, nn
from torch.nn import functional

from sklearn_mm.annotation._data import LabeledImages
from sklearn_mm.annotation._labels import GivenLabels, normal_labels
from sklearn_mm.annotation._model import AnnotationModel, InputRows, Scoring
from sklearn_mm.annotation._rules import LabelRules
from sklearn_mm.nn.annotation import AnnotationNetwork
from sklearn_mm.registry import stored_as

__all__ = [
    "Corrections",
    "FeatureSample",
    "join_labels",
    "keep_sample",
    "learn_corrections",
    "look_at",
    "widen",
    "with_labels",
]

_MAX_SAMPLE = 1024  # images whose features are kept
_MAX_NUMBERS = 1 << 20  # and numbers of these features: 2 MB in half precision
_RIDGE = 1.0  # of the mean eigenvalue of the sample's second moments, for what the sample does not span
_LEAST_PRECISION = 1.0  # a label that is true of no image is held as one of four images of an even chance
_MAX_KEPT = 2000  # corrected images, the newest: solving grows with their cube
_MAX_ODDS = 12.0  # that a correction starts from: an image that is surer has to be told so in vain
_STEPS = 300
_TOLERANCE = 1e-3  # of log odds


@stored_as("annotation.FeatureSample")
@dataclass(frozen=True)
class FeatureSample:
    """What is kept of the images of a fit.

    Attributes
    ----------
    features : ndarray of shape (n_sample, n_fused), float16
        Of unit length: what the network hands to its heads.
    n_images : int
        How many images there were.
    prevalence : ndarray of shape (n_labels,), float32
        Of which share of them each label was true.
    """

    features: np.ndarray
    n_images: int
    prevalence: np.ndarray


@stored_as("annotation.Corrections")
@dataclass(frozen=True)
class Corrections:
    """What corrected images say, and what was learnt of all of them together.

    Attributes
    ----------
    features : ndarray of shape (n_corrected, n_fused), float32
        Of unit length.
    odds, labels : ndarray of shape (n_corrected, n_labels), float32
        Log odds without corrections, and what is true; NaN where it is not known.
    weight : ndarray of shape (n_corrected,), float32
    start : ndarray of shape (n_new_labels,), float32
        The log odds that labels start from which were not there in `fit`; they stand behind the others.
    coef : ndarray of shape (n_fused + 1, n_labels), float32
        What is added to log odds for features of unit length, and a 1 behind them.
    """

    features: np.ndarray
    odds: np.ndarray
    labels: np.ndarray
    weight: np.ndarray
    start: np.ndarray
    coef: np.ndarray

    def __call__(self, odds: np.ndarray, fused: Tensor) -> np.ndarray:
        """Correct the log odds (n, n_labels_of_fit) of images of features (n, n_fused): (n, n_labels) float32."""
        coef = torch.from_numpy(self.coef).to(fused.device)
        added = torch.addmm(coef[-1], functional.normalize(fused.float(), dim=1), coef[:-1]).cpu().numpy()
        corrected: np.ndarray = with_start(odds, self.start) + added
        return corrected


def with_start(odds: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Append the log odds of labels that were not there in `fit`."""
    if not len(start):
        return odds
    return np.concatenate([odds, np.broadcast_to(start, (len(odds), len(start)))], axis=1)


def keep_sample(
    model: AnnotationModel, inputs: InputRows, images: LabeledImages, rng: np.random.Generator
) -> FeatureSample:
    """Keep the features of some of the images that a model was trained on."""
    n_kept = min(len(images), _MAX_SAMPLE, max(2, _MAX_NUMBERS // model.network.label_head.in_features))
    some = np.sort(rng.choice(len(images), n_kept, replace=False))
    unit = [
        functional.normalize(fused.float(), dim=1).half().cpu() for _, fused in model.blocks(inputs, images.rows[some])
    ]
    return FeatureSample(torch.cat(unit).numpy(), len(images), images.prevalence().astype(np.float32))


# Labels ---------------------------------------------------------------------------------------------------------


def join_labels(given: GivenLabels, known: np.ndarray, *, single: bool) -> tuple[np.ndarray, np.ndarray]:
    """Bring the labels of corrected images into the columns of those that are known, and new ones behind them.

    Parameters
    ----------
    given : GivenLabels
    known : ndarray of shape (n_labels,)
    single : bool
        Whether an image has to have one label.

    Returns
    -------
    labels : ndarray of shape (n_images, n_all_labels), float32
        1 where a label is true, NaN where it is not known.
    classes : ndarray of shape (n_all_labels,)

    Raises
    ------
    TypeError
        New labels are of another type.
    ValueError
        A matrix without names has fewer columns than there are labels, or more though labels have names; or an image
        has not one label where it has to.
    """
    new = _without(given.classes, known)
    # columns of a DataFrame that has not one of the names are taken as they stand, as everywhere
    if given.named and not (given.form.kind == "indicator" and len(new) == len(given.classes)):
        classes = _append(known, new)
    elif len(given.classes) > len(known) and np.array_equal(known, np.arange(len(known))):
        classes = np.arange(len(given.classes))
    else:
        classes = known
    labels = given.among(classes)[0].toarray()
    wrong = np.flatnonzero((labels == 1).sum(axis=1) != 1)
    if single and len(wrong):
        raise ValueError(
            f"expected one label for each image, as in fit, got {(labels[wrong[0]] == 1).sum()} in row {wrong[0]}"
        )
    return labels, classes


def _without(labels: np.ndarray, known: np.ndarray) -> np.ndarray:
    there = set(normal_labels(known).tolist())
    return labels[np.array([label not in there for label in labels.tolist()], dtype=bool)]


def _append(known: np.ndarray, new: np.ndarray) -> np.ndarray:
    if not len(new):
        return known
    kinds = [{type(label) for label in labels.tolist()} for labels in (known, new)]
    if not kinds[1] <= kinds[0]:
        names = [", ".join(sorted(kind.__name__ for kind in own)) for own in kinds]
        raise TypeError(f"expected labels of the type of those that are known, {names[0]}, got new ones of {names[1]}")
    return np.concatenate([known, new.astype(object) if known.dtype.kind == "O" else new])


def widen(network: AnnotationNetwork, n_labels: int) -> AnnotationNetwork:
    """Return a network with outputs for labels that came later, or the network itself where there are none."""
    head = network.label_head
    n_new = n_labels - head.out_features
    if not n_new:
        return network
    wider = copy.deepcopy(network)
    wider.config["n_labels"] = n_labels
    # not drawn: it is filled below
    wider.label_head = nn.Linear(head.in_features, n_labels, device="meta").to_empty(device=head.weight.device)
    with torch.no_grad():
        wider.label_head.weight.copy_(functional.pad(head.weight, (0, 0, 0, n_new)))
        wider.label_head.bias.copy_(functional.pad(head.bias, (0, n_new), value=float(head.bias.min())))
    return wider


def with_labels(scoring: Scoring, rules: LabelRules | None, labels: np.ndarray) -> tuple[Scoring, LabelRules | None]:
    """Let labels be predicted that corrected images have, (n, n_labels), and give new ones the threshold of all."""
    never = np.setdiff1d(scoring.unseen, np.flatnonzero((labels == 1).any(axis=0)))
    if rules is not None:
        n_new = labels.shape[1] - len(rules.thresholds)
        rules = replace(rules, thresholds=np.pad(rules.thresholds, (0, n_new), constant_values=rules.threshold))
    return replace(scoring, unseen=never), rules


# Learning -------------------------------------------------------------------------------------------------------


def look_at(model: AnnotationModel, inputs: InputRows) -> tuple[np.ndarray, np.ndarray]:
    """Return features of unit length, and the scores of a model without corrections."""
    unit = [functional.normalize(fused.float(), dim=1).cpu().numpy() for _, fused in model.blocks(inputs)]
    return np.concatenate(unit), np.concatenate([odds for _, odds, _ in model.score_images(inputs)])


def learn_corrections(
    sample: FeatureSample,
    before: Corrections | None,
    features: np.ndarray,
    odds: np.ndarray,
    labels: np.ndarray,
    weight: np.ndarray,
    *,
    single: bool,
) -> Corrections:
    """Learn from corrected images, and from those of before once more.

    Parameters
    ----------
    sample : FeatureSample
    before : Corrections or None
    features : ndarray of shape (n, n_fused), float32
        Of unit length.
    odds : ndarray of shape (n, n_labels_of_fit), float32
        Without corrections.
    labels : ndarray of shape (n, n_labels), float32
    weight : ndarray of shape (n,), float32
    single : bool
        Whether an image has one label: then `odds` are log probabilities.
    """
    n_fitted, n_labels = odds.shape[1], labels.shape[1]
    # So few images of `fit` can be expected to have a label that was none then.
    start = np.full(n_labels - n_fitted, -np.log(sample.n_images + 1), np.float32)
    odds = with_start(odds, start)
    if before is not None:
        n_since = n_labels - before.labels.shape[1]
        features, weight = np.concatenate([before.features, features]), np.concatenate([before.weight, weight])
        unknown = np.full((len(before.labels), n_since), np.nan, np.float32)
        labels = np.concatenate([np.concatenate([before.labels, unknown], axis=1), labels])
        odds = np.concatenate([with_start(before.odds, start[len(start) - n_since :]), odds])
    kept, labels = _latest(features, labels)
    kept, labels = kept[-_MAX_KEPT:], labels[-_MAX_KEPT:]
    features, odds, weight = features[kept], odds[kept], weight[kept]
    prevalence = np.pad(sample.prevalence.astype(np.float64), (0, len(start)))
    precision = np.maximum(sample.n_images * prevalence * (1 - prevalence), _LEAST_PRECISION)
    directions = _Metric(sample.features).solve(_with_one(features))  # (n_corrected, n_fused + 1)
    kernel = _with_one(features) @ directions.T
    dual = _solve(kernel, odds, labels, weight, precision, single=single)
    coef = directions.T @ dual
    return Corrections(features, odds, labels, weight, start, coef.astype(np.float32))


def _latest(features: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of different images, the latest of each, and their labels: what was said last holds."""
    last: dict[bytes, int] = {}
    labels = labels.copy()
    for row, own in enumerate(features):
        before = last.pop(own.tobytes(), None)  # taken out, so that it stands behind the others
        if before is not None:
            labels[row] = np.where(np.isnan(labels[row]), labels[before], labels[row])
        last[own.tobytes()] = row
    rows = np.array(list(last.values()), dtype=np.int64)
    return rows, labels[rows]


def _with_one(features: np.ndarray) -> np.ndarray:
    return np.pad(features.astype(np.float64), ((0, 0), (0, 1)), constant_values=1.0)


class _Metric:
    """The inverse of the regularised second moments of a sample's features."""

    def __init__(self, features: np.ndarray) -> None:
        self._rows = _with_one(features) / np.sqrt(len(features))
        n, width = self._rows.shape
        self._ridge = _RIDGE * float((self._rows**2).sum()) / width
        self._is_wide = width > n  # then the rows span little of it, and the matrix of the rows is smaller
        squares = self._rows @ self._rows.T if self._is_wide else self._rows.T @ self._rows
        self._factor = linalg.cho_factor(squares + self._ridge * np.eye(len(squares)))

    def solve(self, vectors: np.ndarray) -> np.ndarray:
        """Multiply vectors (n, n_fused + 1) by it."""
        if not self._is_wide:
            solved: np.ndarray = linalg.cho_solve(self._factor, vectors.T).T
            return solved
        within = linalg.cho_solve(self._factor, self._rows @ vectors.T).T @ self._rows
        rest: np.ndarray = (vectors - within) / self._ridge
        return rest


def _solve(
    kernel: np.ndarray,
    odds: np.ndarray,
    labels: np.ndarray,
    weight: np.ndarray,
    precision: np.ndarray,
    *,
    single: bool,
) -> np.ndarray:
    """Find the most likely corrections of all labels: what each image adds, (n, n_labels) float64.

    Each step replaces the likelihood by a parabola below it of the same curvature for all images of a label [1]_, so
    that one decomposition of the kernel (n, n) does for all labels and steps, and no step makes it less likely.

    .. [1] Böhning, Lindsay, "Monotonicity of quadratic-approximation algorithms", AISM 40(4), 1988.
    """
    known = ~np.isnan(labels)
    true, weight = np.where(known, labels, 0).astype(np.float64), np.where(known, weight[:, None], 0).astype(np.float64)
    start = odds.astype(np.float64).clip(-_MAX_ODDS, _MAX_ODDS) if not single else odds.astype(np.float64)
    values, vectors = np.linalg.eigh(kernel)
    values = values.clip(min=0)[:, None]
    curvature = (0.5 if single else 0.25) * np.maximum(weight.max(axis=0, initial=0), 1e-12)
    shrunk = (curvature / precision) / (1 + values * curvature / precision)  # (n, n_labels)
    added, dual = np.zeros_like(start), np.zeros_like(start)
    for _ in range(_STEPS):
        probability = softmax(start + added, axis=1) if single else expit(start + added)
        dual = shrunk * (vectors.T @ (added + weight * (true - probability) / curvature))
        before, added = added, vectors @ (values * dual)
        if np.abs(added - before).max() < _TOLERANCE:
            break
    rotated: np.ndarray = vectors @ dual
    return rotated
