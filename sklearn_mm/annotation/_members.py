"""What scores labels beside the network: votes of near neighbours, a ridge, and a kernel."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from scipy import sparse
from scipy.special import expit
from torch import Tensor
from torch.nn import functional

from sklearn_mm.annotation._data import LabeledImages
from sklearn_mm.annotation._kernel import KernelScorer, KernelScores, Seen, SeenImages, kernel_bank_size
from sklearn_mm.annotation._label_names import share_by_names
from sklearn_mm.registry import FieldsAlone, stored_as

__all__ = [
    "MEMBERS",
    "Found",
    "LabelMembers",
    "MemberScorer",
    "NeighborVotes",
    "RidgeScores",
    "Votes",
    "fit_members",
    "fit_shift",
    "fit_weights",
]

MEMBERS = ("neighbors", "ridge", "kernel")

_N_NEIGHBORS = 64
_TEMPERATURE = 0.05  # of the softmax over their cosines
_LEAST_PRIOR = 1e-4  # a label of no image of the bank has finite log odds
_MAX_RIDGE_WIDTH = 2048  # wider is what no hidden layer made, of which the head of the network is linear itself
_MAX_RIDGE = 1 << 23  # coefficients; of so many labels few have enough images for them
_MAX_LEFT_OUT = 1 << 21  # left-out residuals that the strength is chosen by
_STRENGTHS = 10.0 ** np.arange(-3, 1.5, 0.5)  # times the mean eigenvalue
# Where nothing is held out to learn them from. A network that knows its images is too sure of others by about a half.
_WEIGHTS = {"prior": 0.5, "network": 0.5, "neighbors": 0.25, "ridge": 0.25}
_WEIGHTS_WITH_KERNEL = {"prior": 0.5, "network": 0.25, "neighbors": 0.0625, "ridge": 0.0, "kernel": 1.0}
_TRIED = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)  # weights of a member beside 1 of the network
_LEAST_GAIN = 0.005  # of precision, for which a weight is changed: less is chance among a thousand images
_SCORE_PRIOR = 2.5  # curvature of ten labels of an even chance: as much is believed in the scores as they come
_SHIFT_PRIOR = 20.0  # the same of what a single label is raised by: most are true of few images
_LEAST_SLOPE = 1e-2  # chance among few images never turns the order of the labels round
_NEWTON_STEPS = 20


class Votes(NamedTuple):
    """The neighbours of some images.

    Attributes
    ----------
    share : csr_array of shape (n, n_bank), float32
        What each counts; 1 together.
    n_effective : ndarray of shape (n, 1), float32
        How many neighbours of equal weight would vary as much.
    """

    share: Any
    n_effective: np.ndarray

    @classmethod
    def together(cls, parts: "Sequence[Votes | None]") -> "Votes | None":
        """Put the votes of images behind one another; None where there are none."""
        found = [part for part in parts if part is not None]
        if not found:
            return None
        share = sparse.csr_array(sparse.vstack([part.share for part in found], format="csr"))
        return cls(share, np.concatenate([part.n_effective for part in found]))


class Found(NamedTuple):
    """What members look up of some images, whatever the label.

    Attributes
    ----------
    votes : Votes or None
        Of the neighbours.
    likeness : Tensor of shape (n, n_bank), float32, or None
        Of the kernel, on its device.
    """

    votes: Votes | None = None
    likeness: Tensor | None = None

    @classmethod
    def together(cls, parts: "Sequence[Found]") -> "Found":
        """Put what is found of images behind one another."""
        likeness = [part.likeness for part in parts if part.likeness is not None]
        return cls(Votes.together([part.votes for part in parts]), torch.cat(likeness) if likeness else None)


@stored_as("annotation.NeighborVotes")
@dataclass(frozen=True)
class NeighborVotes(FieldsAlone):
    """Labels of an image as the images nearest to it have them.

    Attributes
    ----------
    features : ndarray of shape (n_bank, n_fused), float16
        Of unit length.
    labels : csr_array of shape (n_bank, n_labels), float32
        1 where a label is true, NaN where that is not known.
    weight : ndarray of shape (n_bank,), float32
    prior : ndarray of shape (n_labels,), float32
        The share of the images of which each label is true.
    """

    features: np.ndarray
    labels: Any
    weight: np.ndarray
    prior: np.ndarray

    def bank_on(self, device: torch.device) -> Tensor:
        """Return the features in full precision: in half a CPU takes many times as long for a product."""
        return self._bank if device.type == "cpu" else torch.from_numpy(self.features).to(device).float()

    @cached_property
    def _bank(self) -> Tensor:
        return torch.from_numpy(self.features).float()

    @cached_property
    def columns(self) -> tuple[Any, Any]:
        """The labels that are true, and those that are not known if there are such; by columns, to be cut."""
        labels = self.labels.tocsc()
        unknown = np.isnan(labels.data)

        def where(stored: np.ndarray) -> Any:
            entries = (stored.astype(np.float32), labels.indices, labels.indptr)
            columns = sparse.csc_array(entries, shape=labels.shape, copy=True)  # of which entries are taken out
            columns.eliminate_zeros()
            return columns

        return where(~unknown), where(unknown) if unknown.any() else None


@stored_as("annotation.RidgeScores")
@dataclass(frozen=True)
class RidgeScores:
    """Labels of an image by a regularised least squares fit, in standard deviations of each label.

    Attributes
    ----------
    coef : ndarray of shape (n_fused, n_labels), float32
    intercept : ndarray of shape (n_labels,), float32
    strength : float
        Of the regularisation, times the mean eigenvalue of the covariance.
    """

    coef: np.ndarray
    intercept: np.ndarray
    strength: float

    def of(self, labels: slice) -> tuple[Tensor, Tensor]:
        """Return the coefficients (n_fused, n_some_labels) and intercepts of some labels."""
        return torch.from_numpy(self.coef[:, labels]), torch.from_numpy(self.intercept[labels])


@stored_as("annotation.LabelMembers")
@dataclass(frozen=True)
class LabelMembers:
    """What scores labels beside a network, and what each counts.

    Attributes
    ----------
    neighbors : NeighborVotes or None
    ridge : RidgeScores or None
    prior : ndarray of shape (n_labels,), float32
        The log odds of the share of the images of which each label is true.
    weights : ndarray of shape (3 + n_members,), float64
        An intercept; then of the prior, of the log odds of the network, and of the scores of the others, in the order
        of `MEMBERS`.
    kernel : KernelScores or None
    by_name : ndarray of int64, or None
        Labels that are true of no image, of which the kernel alone says something: what labels of like names do.
    shift : ndarray of shape (n_labels,), float32, or None
        What the log odds of each label are raised by.
    """

    neighbors: NeighborVotes | None
    ridge: RidgeScores | None
    prior: np.ndarray
    weights: np.ndarray
    kernel: KernelScores | None = None  # of models saved before there was one
    by_name: np.ndarray | None = None
    shift: np.ndarray | None = None  # of models saved before it was learnt

    @classmethod
    def unweighted(
        cls, neighbors: NeighborVotes | None, ridge: RidgeScores | None, kernel: KernelScores | None, prior: np.ndarray
    ) -> Self:
        """Return members with the weights that are taken where there is nothing to learn them from."""
        own = {"neighbors": neighbors, "ridge": ridge, "kernel": kernel}
        there = ["prior", "network", *(name for name in MEMBERS if own[name] is not None)]
        log_odds = (np.log(prior) - np.log1p(-prior)).astype(np.float32)
        weights = _WEIGHTS if kernel is None else _WEIGHTS_WITH_KERNEL
        return cls(neighbors, ridge, log_odds, np.array([0, *(weights[name] for name in there)]), kernel)

    @property
    def named_weights(self) -> dict[str, float]:
        """What each counts, by name."""
        there = [name for name in MEMBERS if getattr(self, name) is not None]
        return dict(zip(["network", *there], self.weights[2:].tolist(), strict=True))

    def weighted(self, weights: np.ndarray, shift: np.ndarray | None) -> Self:
        """Return the same members with other weights, and log odds that are raised by others."""
        return replace(self, weights=weights, shift=shift)


class MemberScorer:
    """Scores labels by members, on a device.

    Parameters
    ----------
    members : LabelMembers
    device : torch.device
    """

    def __init__(self, members: LabelMembers, device: torch.device) -> None:
        self.members = members
        self._device = device
        self._kernel = None if members.kernel is None else KernelScorer(members.kernel, device)

    def find(self, seen: Seen) -> Found:
        """Look up what members have to know of some images."""
        return Found(self._find_neighbors(seen.fused), None if self._kernel is None else self._kernel.likeness(seen))

    def terms(self, odds: np.ndarray, fused: Tensor, found: Found, labels: slice) -> list[np.ndarray]:
        """Return what each says of some labels, beginning with the network's log odds (n, n_some_labels)."""
        terms = [odds]
        if self.members.neighbors is not None and found.votes is not None:
            terms.append(self._vote(self.members.neighbors, found.votes, labels))
        if self.members.ridge is not None:
            coef, intercept = (part.to(self._device) for part in self.members.ridge.of(labels))
            terms.append(torch.addmm(intercept, fused.float(), coef).cpu().numpy())
        if self.members.by_name is not None:
            named = self.members.by_name
            own = named[(named >= labels.start) & (named < labels.stop)] - labels.start
            for term in terms:
                term[:, own] = 0  # they have only seen that it is true of no image
        if self._kernel is not None and found.likeness is not None:
            terms.append(self._kernel.scores(found.likeness, labels))
        return terms

    def combine(self, odds: np.ndarray, fused: Tensor, found: Found, labels: slice) -> np.ndarray:
        """Return the log odds of all together, (n, n_some_labels) float32."""
        intercept, of_prior, *weights = self.members.weights.astype(np.float32)
        combined = np.broadcast_to(intercept + of_prior * self.members.prior[labels], odds.shape).copy()
        for weight, term in zip(weights, self.terms(odds, fused, found, labels), strict=True):
            combined += weight * term
        if self.members.shift is not None:
            combined += self.members.shift[labels]
        return combined

    def _find_neighbors(self, fused: Tensor) -> Votes | None:
        """Find the neighbours of images, of whose features (n, n_fused) there are, and weight them by their cosines."""
        neighbors = self.members.neighbors
        if neighbors is None:
            return None
        similarity = functional.normalize(fused.float(), dim=1) @ neighbors.bank_on(self._device).T
        n, n_bank = similarity.shape
        best = torch.topk(similarity, min(_N_NEIGHBORS, n_bank), dim=1)
        weight = torch.from_numpy(neighbors.weight).to(self._device)[best.indices]
        share = torch.softmax(best.values / _TEMPERATURE, dim=1) * weight
        share = share / share.sum(dim=1, keepdim=True)
        starts = np.arange(0, best.indices.numel() + 1, best.indices.shape[1])
        entries = (share.cpu().numpy().ravel(), best.indices.cpu().numpy().ravel(), starts)
        return Votes(sparse.csr_array(entries, (n, n_bank)), (1 / (share**2).sum(dim=1, keepdim=True)).cpu().numpy())

    @staticmethod
    def _vote(neighbors: NeighborVotes, votes: Votes, labels: slice) -> np.ndarray:
        """Return by how much the votes raise the log odds of some labels over their prior.

        The prior counts as much as one neighbour, so that no vote is certain.
        """
        prior, (true, unknown) = neighbors.prior[labels], neighbors.columns
        n_true = votes.n_effective * (votes.share @ true[:, labels]).toarray() + prior
        n_known = votes.n_effective
        if unknown is not None:
            n_known = n_known * (1 - (votes.share @ unknown[:, labels]).toarray())
        n_false = np.maximum(n_known + 1 - n_true, 1 - prior)  # which rounding may leave a hair below
        odds: np.ndarray = np.log(n_true) - np.log(n_false) - np.log(prior) + np.log1p(-prior)
        return odds.astype(np.float32)


# Learning -------------------------------------------------------------------------------------------------------


def fit_members(
    names: Sequence[str],
    blocks: Iterator[tuple[slice, Seen]],
    images: LabeledImages,
    n_features: int,
    bank_size: int,
    rng: np.random.Generator,
    likeness: np.ndarray | None = None,
    like: LabelMembers | None = None,
) -> LabelMembers | None:
    """Fit members to images, going once over what a network sees of them.

    Parameters
    ----------
    names : sequence of str
        Some of `MEMBERS`.
    blocks : iterator of (slice, Seen)
        All images, in their order, on the device.
    images : LabeledImages
    n_features : int
        Before any hidden layer, without tags.
    bank_size : int
        How many images the neighbours are sought among, and at most, a kernel is solved for; where there are more, some
        of them.
    rng : Generator
        Draws those.
    likeness : ndarray of shape (n_labels, n_labels), optional
        Of the names of labels; a kernel shares by it what it knows of them.
    like : LabelMembers, optional
        Whose kernel's scale and noise are taken.
    """
    targets = _Targets(images)
    n_labels = len(targets.prior)
    bank = np.arange(len(images))
    if len(images) > bank_size:
        bank = np.sort(rng.choice(len(images), bank_size, replace=False))
    n_kernel = kernel_bank_size(len(images), n_labels, n_features, bank_size) if "kernel" in names else 0
    kernel_bank = np.sort(rng.choice(bank, n_kernel, replace=False)) if n_kernel < len(bank) else bank
    fused_of_bank: list[Tensor] = []
    kernel_images: list[SeenImages] = []
    sums: _Sums | None = None
    device = torch.device("cpu")
    for rows, seen in blocks:
        n_fused, device = seen.fused.shape[1], seen.fused.device
        if sums is None and "ridge" in names and n_fused <= min(_MAX_RIDGE_WIDTH, _MAX_RIDGE // n_labels):
            sums = _Sums(n_fused, n_labels)
        fused_of_bank.append(seen.fused[torch.from_numpy(_within(bank, rows)).to(device)].float().cpu())
        if sums is not None:
            sums.add(seen.fused, targets.residuals(rows), images.weight[rows])
        if n_kernel:
            kernel_images.append(SeenImages.of(seen).take(_within(kernel_bank, rows)))
    features = torch.cat(fused_of_bank)
    prior = targets.prior.clip(_LEAST_PRIOR, 1 - _LEAST_PRIOR)
    neighbors = _keep_neighbors(features, images.take(bank), prior) if "neighbors" in names else None
    ridge = None if sums is None else _fit_ridge(sums, features, bank, targets)
    kernel = None
    if n_kernel:
        own, deviations = images.take(kernel_bank), targets.residuals(kernel_bank) / targets.deviation
        seen_by_kernel = SeenImages.together(kernel_images)
        kernel = KernelScores.fit(
            seen_by_kernel,
            deviations.astype(np.float32),
            own.weight,
            own.group,
            device,
            like=None if like is None else like.kernel,
            related=likeness is None,  # names say what labels have to do with one another
        )
        if likeness is not None:
            n_true = own.weight @ (own.labels == 1)
            kernel = replace(kernel, coef=share_by_names(kernel.coef, likeness, n_true))
    if all(member is None for member in (neighbors, ridge, kernel)):
        return None
    members = LabelMembers.unweighted(neighbors, ridge, kernel, prior)
    return members if likeness is None else replace(members, by_name=np.flatnonzero(targets.prior == 0))


def _within(bank: np.ndarray, rows: slice) -> np.ndarray:
    """Return which of some rows are of a bank (n_bank,), as positions among them."""
    first, last = np.searchsorted(bank, [rows.start, rows.stop])
    return bank[first:last] - rows.start


def _keep_neighbors(features: Tensor, bank: LabeledImages, prior: np.ndarray) -> NeighborVotes:
    unit = functional.normalize(features, dim=1).half().numpy()
    return NeighborVotes(unit, bank.labels, bank.weight, prior.astype(np.float32))


class _Targets:
    """What a ridge learns of images: how labels differ from their share."""

    def __init__(self, images: LabeledImages) -> None:
        self.images = images
        self.prior = images.prevalence()

    @property
    def deviation(self) -> np.ndarray:
        """Of each label, (n_labels,) float64."""
        deviation: np.ndarray = np.sqrt(np.maximum(self.prior * (1 - self.prior), _LEAST_PRIOR))
        return deviation

    def residuals(self, rows: Any) -> np.ndarray:
        """Return labels less how often they are true, (n, n_labels) float32; 0 where they are not known."""
        residuals = self.images.labels[rows].toarray() - self.prior.astype(np.float32)
        known: np.ndarray = np.nan_to_num(residuals, copy=False, nan=0.0)
        return known


class _Sums:
    """Sums over images that least squares need, of which the images are read block by block."""

    def __init__(self, n_fused: int, n_labels: int) -> None:
        self._weight = 0.0
        self._features, self._labels = np.zeros(n_fused), np.zeros(n_labels)
        self._squares, self._cross = np.zeros((n_fused, n_fused)), np.zeros((n_fused, n_labels))

    def add(self, fused: Tensor, residuals: np.ndarray, weight: np.ndarray) -> None:
        """Add features (n, n_fused) and labels (n, n_labels) of some images."""
        features = fused.float()
        weighted = features * torch.from_numpy(weight).to(fused.device)[:, None]
        labels = torch.from_numpy(residuals).to(fused.device)
        self._weight += float(weight.sum(dtype=np.float64))
        self._features += weighted.sum(dim=0).cpu().numpy()
        self._labels += weight.astype(np.float64) @ residuals
        self._squares += (weighted.T @ features).cpu().numpy()
        self._cross += (weighted.T @ labels).cpu().numpy()

    def centred(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return the mean of the features, their covariance and that with the labels, and the mean of the labels."""
        mean, offset = self._features / self._weight, self._labels / self._weight
        covariance = self._squares / self._weight - np.outer(mean, mean)
        return mean, covariance, self._cross / self._weight - np.outer(mean, offset), offset


def _fit_ridge(sums: _Sums, features: Tensor, bank: np.ndarray, targets: _Targets) -> RidgeScores:
    """Solve for the strength that predicts images of the bank best from the others; of `features` (n_bank, n_fused)."""
    mean, covariance, cross, offset = sums.centred()
    values, vectors = np.linalg.eigh(covariance)
    values, scale = values.clip(min=0), max(float(np.trace(covariance)) / len(covariance), 1e-12)
    projected = vectors.T @ cross  # (n_fused, n_labels)
    some = np.linspace(0, len(bank) - 1, min(len(bank), max(256, _MAX_LEFT_OUT // len(offset)))).astype(int)
    rotated, truth = (features[some].double().numpy() - mean) @ vectors, targets.residuals(bank[some]) - offset
    weight = targets.images.weight[bank[some]].astype(np.float64)
    share = weight / float(targets.images.weight.sum(dtype=np.float64))
    errors = []
    for strength in _STRENGTHS:
        shrunk = values + strength * scale
        leverage = share * ((rotated**2 / shrunk).sum(axis=1) + 1)
        # Left out, an image is missed by so much more than fitted: no other fit is needed.
        left_out = (truth - rotated @ (projected / shrunk[:, None])) / (1 - leverage.clip(max=0.99))[:, None]
        errors.append(float(weight @ (left_out**2).sum(axis=1)))
    strength = float(_STRENGTHS[int(np.argmin(errors))])
    coef = vectors @ (projected / (values + strength * scale)[:, None])
    return RidgeScores(
        (coef / targets.deviation).astype(np.float32),
        ((offset - mean @ coef) / targets.deviation).astype(np.float32),
        strength,
    )


# Weights --------------------------------------------------------------------------------------------------------


def fit_weights(
    terms: np.ndarray, truth: np.ndarray, weight: np.ndarray, prior: np.ndarray, start: np.ndarray
) -> np.ndarray:
    """Choose what each member counts beside the network, by the labels of images that none of them has seen.

    One after the other the members get the weight that ranks images best: by the mean average precision of labels; or
    one of them, or the network, scores alone, where that is clearly better. The likelihood then says how sure all
    together are, and how much of the prior they still need to rank the labels of an image: by the likelihood alone, the
    weights themselves would be those of frequent labels.

    Parameters
    ----------
    terms : ndarray of shape (n, n_labels, 1 + n_members), float32
        What the network says, and what members say.
    truth : ndarray of shape (n, n_labels), float32
        NaN where it is not known.
    weight : ndarray of shape (n,), float
    prior : ndarray of shape (n_labels,), float32
        Log odds.
    start : ndarray of shape (3 + n_members,), float64
        The weights to begin with, as `LabelMembers` has them.

    Returns
    -------
    ndarray of shape (3 + n_members,), float64
    """
    known = ~np.isnan(truth)
    if not known.any():
        return start
    own = np.where(known, weight[:, None], 0).astype(np.float64)
    true = np.where(known, truth, 0)
    weights = start[2:] / start[2]
    for member in range(1, len(weights)):
        rest = terms @ np.where(np.arange(len(weights)) == member, 0, weights).astype(np.float32)
        term = terms[:, :, member]
        before = float(weights[member])
        tried = (*_TRIED, before)
        precision = {value: _mean_average_precision(rest + np.float32(value) * term, true, own) for value in tried}
        best = max(tried, key=lambda value: precision[value])
        if precision[best] > precision[before] + _LEAST_GAIN:
            weights[member] = best
    precision = {-1: _mean_average_precision(terms @ weights.astype(np.float32), true, own) + _LEAST_GAIN}
    precision |= {one: _mean_average_precision(terms[:, :, one], true, own) for one in range(len(weights))}
    alone = max(precision, key=lambda one: precision[one])
    if alone >= 0:
        weights = np.where(np.arange(len(weights)) == alone, 1.0, 0.0)
    together = terms @ weights.astype(np.float32)
    columns = np.stack([np.ones_like(together), np.broadcast_to(prior, together.shape), together], axis=2)[known]
    intercept, of_prior, slope = _fit_logistic(columns, true[known] == 1, own[known])
    return np.array([intercept, of_prior, *(max(slope, _LEAST_SLOPE) * weights)])


def fit_shift(scores: np.ndarray, truth: np.ndarray, weight: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Fit what the log odds (n, n_labels) of each label have to be raised by, (n_labels,) float32.

    It is drawn to 0, the more the fewer images a label is true of, and the more those of a `group` (n,) err alike: a
    hundred near duplicates say less than a hundred images. It does not change the order of a label's images.
    """
    known = np.where(np.isnan(truth), 0, weight[:, None])
    true, shift = np.where(np.isnan(truth), 0, truth), np.zeros(scores.shape[1])
    # by the variance itself no label of large groups would be raised at all
    prior = _SHIFT_PRIOR * _design_factor(known * (expit(scores) - true), group)
    for _ in range(_NEWTON_STEPS):
        probability = expit(scores + shift)
        gradient = (known * (probability - true)).sum(axis=0) + prior * shift
        step = gradient / ((known * probability * (1 - probability)).sum(axis=0) + prior)
        shift -= np.clip(step, -1, 1)  # a full step from far off may overshoot
        if np.abs(step).max() < 1e-4:
            break
    return shift.astype(np.float32)


def _design_factor(errors: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Return how many times as uncertain a sum of errors (n, n_labels) is as if no image was like another, from 1 on.

    It is the root of the ratio of variances, as L. Kish, "Survey Sampling", 1965, has it; by the sums of groups.
    """
    group_ids, number = np.unique(group, return_inverse=True)
    entries = (np.ones(len(group)), (number, np.arange(len(group))))
    members = sparse.csr_array(entries, shape=(len(group_ids), len(group)))
    apart = (errors**2).sum(axis=0)
    together = ((members @ errors) ** 2).sum(axis=0)
    factor: np.ndarray = np.sqrt(np.divide(together, apart, out=np.ones_like(apart), where=apart > 0))
    return factor.clip(min=1)


def _mean_average_precision(scores: np.ndarray, true: np.ndarray, weight: np.ndarray) -> float:
    """Return the mean over the labels that are true of an image, each weighted alike; 0 where there are none."""
    order = np.argsort(-scores, axis=0)
    ranked, hits, counted = (np.take_along_axis(part, order, axis=0) for part in (scores, true * weight, weight))
    n_true = hits.sum(axis=0)
    there = n_true > 0
    # Images that score alike are found together, as of many that nothing is known of.
    is_last = np.pad(ranked[1:] < ranked[:-1], ((0, 1), (0, 0)), constant_values=True)
    last = np.where(is_last, np.arange(len(order))[:, None], len(order))
    last = np.minimum.accumulate(last[::-1], axis=0)[::-1]
    n_found, n_counted = (np.take_along_axis(np.cumsum(part, axis=0), last, axis=0) for part in (hits, counted))
    precision = n_found / np.maximum(n_counted, 1e-12)
    average = (precision * hits).sum(axis=0)[there] / n_true[there]
    return float(average.mean()) if there.any() else 0.0


def _fit_logistic(columns: np.ndarray, true: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Fit by Newton's method, drawn to the scores of all together as they come."""
    start = np.array([0.0, _WEIGHTS["prior"], _WEIGHTS["network"]])
    fitted, weight = start.copy(), weight / weight.mean()
    for _ in range(_NEWTON_STEPS):
        probability = expit((columns @ fitted.astype(np.float32)).astype(np.float64))
        gradient = (weight * (probability - true)) @ columns + _SCORE_PRIOR * (fitted - start)
        spread = weight * probability * (1 - probability)
        step = np.linalg.solve((columns * spread[:, None]).T @ columns + _SCORE_PRIOR * np.eye(3), gradient)
        fitted -= step / max(1.0, float(np.abs(step).max()))  # a full step from far off may overshoot
        if np.abs(step).max() < 1e-4:
            break
    return fitted
