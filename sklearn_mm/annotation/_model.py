"""The model of an annotator: what it sees of images, the network it trains, and how outputs become log odds."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sklearn_mm._device import autocast, settle, to_device
from sklearn_mm.annotation._kernel import Seen
from sklearn_mm.annotation._members import Found, LabelMembers, MemberScorer
from sklearn_mm.losses import LabelLoss
from sklearn_mm.nn.annotation import AnnotationNetwork, TagBags
from sklearn_mm.registry import stored_as
from sklearn_mm.towers import Tower, column_statistics, is_trainable, n_rows_of
from sklearn_mm.training import made_ahead

__all__ = [
    "AnnotationModel",
    "Calibration",
    "CountBatch",
    "CountModel",
    "CountTarget",
    "FusedImages",
    "InputBatch",
    "InputRows",
    "LabelBatch",
    "LabelEntries",
    "Scoring",
    "check_layer_sizes",
    "make_network",
]

_BLOCK = 1 << 22  # label scores computed in one go: 16 MB of float32
_UNSEEN = -200.0  # log odds of a label never seen: its probability is 0 in float32, and its score still finite


# Images ---------------------------------------------------------------------------------------------------------


class InputBatch(NamedTuple):
    """What the model takes of some images.

    Attributes
    ----------
    visual : what the tower takes, or None
    tags : TagBags or None
    """

    visual: Any
    tags: TagBags | None


class LabelEntries(NamedTuple):
    """The labels of a batch that are not false, as batches wait in memory: several of them, made ahead.

    Attributes
    ----------
    row, column : Tensor of shape (n_entries,), int64
    value : Tensor of shape (n_entries,), float32
        1, or NaN where it is not known.
    """

    row: Tensor
    column: Tensor
    value: Tensor

    def dense(self, n_images: int, n_labels: int) -> Tensor:
        """Return all labels, (n_images, n_labels) float32."""
        labels = self.value.new_zeros(n_images, n_labels)
        labels[self.row, self.column] = self.value
        return labels


class LabelBatch(NamedTuple):
    """Some images with their labels.

    Attributes
    ----------
    inputs : InputBatch
    labels : LabelEntries
    counts, weight : Tensor of shape (n,), float32
    """

    inputs: InputBatch
    labels: LabelEntries
    counts: Tensor
    weight: Tensor


class CountBatch(NamedTuple):
    """Some images with their numbers of labels.

    Attributes
    ----------
    inputs : Tensor of shape (n, n_features), or what gives the features
    counts, weight : Tensor of shape (n,), float32
    """

    inputs: Any
    counts: Tensor
    weight: Tensor


@dataclass(frozen=True)
class InputRows:
    """What an annotator sees of some images.

    Attributes
    ----------
    visual : prepared rows, or None
        Features, or what a trainable encoder prepared.
    tags : csr_array of shape (n_images, n_tags), float32, or None
    """

    visual: Any
    tags: Any

    def __len__(self) -> int:
        return n_rows_of(self.tags if self.visual is None else self.visual)

    def __getitem__(self, rows: Any) -> "InputRows":
        return InputRows(*(None if part is None else part[rows] for part in (self.visual, self.tags)))


# From outputs to log odds ---------------------------------------------------------------------------------------


@stored_as("annotation.CountTarget")
@dataclass(frozen=True)
class CountTarget:
    """How a number of labels is learnt.

    Attributes
    ----------
    kind : {"regression", "classification"}
    largest : int
        The largest number in training.
    mean, deviation : float
        Of the numbers in training.
    """

    kind: str
    largest: int
    mean: float
    deviation: float

    @classmethod
    def of(cls, kind: str, counts: np.ndarray, weight: np.ndarray) -> "CountTarget":
        """Learn from numbers of shape (n,), weighted."""
        mean = float(np.average(counts, weights=weight))
        deviation = float(np.sqrt(np.average((counts - mean) ** 2, weights=weight)))
        # Numbers that are all the same are divided by next to nothing instead of by 0.
        return cls(kind, int(np.rint(counts.max())), mean, max(deviation, 1e-6 * max(1.0, abs(mean))))

    @property
    def n_outputs(self) -> int:
        """Outputs of the head."""
        return 1 if self.kind == "regression" else self.largest + 1

    def loss(self, outputs: Tensor, counts: Tensor) -> Tensor:
        """Compute the loss of outputs (n, n_outputs) against numbers (n,): (n,)."""
        if self.kind == "regression":
            return ((outputs[:, 0] - (counts - self.mean) / self.deviation) ** 2) / 2
        # Labels that are not known make broken numbers.
        return functional.cross_entropy(outputs, counts.round().clamp(max=self.largest).long(), reduction="none")

    def estimate(self, outputs: Tensor) -> Tensor:
        """Return the estimated number (n, 1), or the log probability of each (n, largest + 1)."""
        if self.kind == "regression":
            return outputs * self.deviation + self.mean
        return torch.log_softmax(outputs, dim=1)


@stored_as("annotation.Calibration")
@dataclass(frozen=True)
class Calibration:
    """Log odds that fit what was held out.

    Attributes
    ----------
    slope : float
    intercepts : ndarray of shape (n_labels,), float32
    """

    slope: float
    intercepts: np.ndarray

    def __call__(self, scores: np.ndarray, labels: slice = slice(None)) -> np.ndarray:
        """Correct the log odds (n, n_labels) of all labels, or of some."""
        corrected: np.ndarray = np.float32(self.slope) * scores + self.intercepts[labels]
        return corrected


@stored_as("annotation.Scoring")
@dataclass(frozen=True)
class Scoring:
    """How the outputs of a network become log odds.

    Attributes
    ----------
    kind : {"independent", "shared", "single"}
        Each label has log odds of its own; or the network says which share of an image's labels each is, which is
        turned into log odds by their expected number; or an image has one label, and scores are log probabilities.
    count_target : CountTarget or None
        None for a network that does not count.
    mean_count : float
        What an image is expected to have, where nothing better is known.
    unseen : ndarray of int64
        Labels that were never seen.
    calibration : Calibration or None
    """

    kind: str
    count_target: CountTarget | None
    mean_count: float
    unseen: np.ndarray
    calibration: Calibration | None = None

    def log_odds(self, logits: Tensor, normalizer: Tensor, counts: Tensor | None) -> Tensor:
        """Compute log odds (n, n_some_labels) from logits of all labels or some, before any calibration.

        Parameters
        ----------
        logits : Tensor of shape (n, n_some_labels)
        normalizer : Tensor of shape (n,)
            The logarithm of the sum of a softmax over all labels.
        counts : Tensor of shape (n, n_counts), or None
            As `CountTarget.estimate` gives them.
        """
        if self.kind == "independent":
            return logits
        log_share = logits - normalizer[:, None]
        if self.kind == "single":
            return log_share
        # The odds of a share that is small are n times as high; a share of 1 is certain for any number.
        log_others = torch.log(-torch.expm1(log_share.clamp(max=-1e-6)))
        return log_share - log_others + self._log_number(log_share, counts)

    def _log_number(self, log_share: Tensor, counts: Tensor | None) -> Tensor:
        if counts is None:
            return log_share.new_tensor(max(self.mean_count, 1e-3)).log()  # there may be no label at all
        if counts.shape[1] == 1:
            number = counts[:, 0]
        else:
            number = counts.exp() @ torch.arange(counts.shape[1], device=counts.device, dtype=counts.dtype)
        return number.clamp(min=1e-3).log()[:, None]  # a regression may say less than 0

    def correct(self, scores: np.ndarray, labels: slice) -> np.ndarray:
        """Calibrate the log odds (n, n_some_labels) of some labels, and rule out those never seen."""
        if self.calibration is not None:
            scores = self.calibration(scores, labels)
        if len(self.unseen):
            unseen = self.unseen[(self.unseen >= labels.start) & (self.unseen < labels.stop)]
            scores[:, unseen - labels.start] = _UNSEEN
        return scores


@dataclass(frozen=True)
class FusedImages:
    """What the scores of some images come from, on the device.

    Attributes
    ----------
    features : Tensor of shape (n_images, n_fused)
    normalizer : Tensor of shape (n_images,)
        The logarithm of the sum of a softmax over the labels.
    counts : Tensor of shape (n_images, n_counts), or None
    found : Found
        By the members.
    """

    features: Tensor
    normalizer: Tensor
    counts: Tensor | None
    found: Found


# What is trained ------------------------------------------------------------------------------------------------


class AnnotationModel(nn.Module):
    """A tower for the pictures, the network behind it, and the loss it is trained by.

    Parameters
    ----------
    tower : Tower
        Whose head is none: features or pictures in, features out.
    network : AnnotationNetwork
    scoring : Scoring
    loss : LabelLoss, optional
        A model that is used alone needs none.
    label_weight : ndarray of shape (n_labels,), float32, optional
        What a true label counts in the loss.
    joint : bool
        Whether the loss holds that of the number of labels too.
    members : LabelMembers, optional
        What scores labels beside the network.
    """

    label_weight: Tensor | None

    def __init__(
        self,
        tower: Tower,
        network: AnnotationNetwork,
        scoring: Scoring,
        *,
        loss: LabelLoss | None = None,
        label_weight: np.ndarray | None = None,
        joint: bool = False,
        members: LabelMembers | None = None,
    ) -> None:
        super().__init__()
        self.tower, self.network = tower, network
        self.join(members)
        self.scoring = scoring
        self.corrections: Callable[[np.ndarray, Tensor], np.ndarray] | None = None  # of scores, by features
        self.loss = loss
        self.joint = joint
        weight = None if label_weight is None else torch.from_numpy(label_weight)
        # It follows from the data, so it is no part of a checkpoint; as a buffer it goes to the device.
        self.register_buffer("label_weight", weight, persistent=False)

    def join(self, members: LabelMembers | None) -> None:
        """Let members score labels beside the network, from now on."""
        self._scorer = None if members is None else MemberScorer(members, self.tower.device)

    @property
    def members(self) -> LabelMembers | None:
        """What scores labels beside the network."""
        return None if self._scorer is None else self._scorer.members

    def forward(self, batch: LabelBatch) -> Tensor:
        """Return the mean loss of a batch, a 0-d tensor."""
        if self.loss is None:
            raise TypeError("this model was made without a loss, to be used and not to be trained")
        fused = self.fuse(batch.inputs)
        logits = self._head(self.network.label_head, fused)
        loss = self.loss(logits, batch.labels.dense(*logits.shape), self.label_weight)
        target = self.scoring.count_target
        if self.joint and target is not None and self.network.count_head is not None:
            loss = loss + target.loss(self._head(self.network.count_head, fused), batch.counts)
        return (loss * batch.weight).mean()

    def fuse(self, inputs: InputBatch) -> Tensor:
        """Compute the fused features of a batch on the device, (n, n_fused)."""
        return self._fuse(self._look(inputs), inputs.tags)

    def _look(self, inputs: InputBatch) -> Tensor | None:
        return None if inputs.visual is None else self.tower(inputs.visual)  # in autocast by itself

    def _fuse(self, visual: Tensor | None, tags: TagBags | None) -> Tensor:
        with autocast(self.tower.device, self.tower.dtype):
            return self.network.fuse(visual, tags)

    def fuse_frozen(self, inputs: InputBatch) -> Tensor:
        """Compute them without a gradient."""
        with torch.no_grad():
            return self.fuse(inputs)

    def _head(self, head: Callable[[Tensor], Tensor], fused: Tensor) -> Tensor:
        with autocast(self.tower.device, self.tower.dtype):
            return head(fused).float()  # losses and softmaxes lose too many digits in bfloat16

    # The way of the data ------------------------------------------------------------------------------------------

    def prepare(self, visual: Any, tags: Any) -> InputRows:
        """Do once what need not be done every epoch."""
        return InputRows(None if visual is None else self.tower.prepare(visual), tags)

    def collate(self, rows: InputRows, rng: np.random.Generator | None = None) -> InputBatch:
        """Make a batch of some rows, on the CPU; with `rng`, one for training."""
        visual, tags = None, None
        if rows.visual is not None:
            visual = self.tower.collate(rows.visual, rng)
        if rows.tags is not None:
            # Rows of a sparse matrix are bags as they stand; torch takes their numbers as int64 alone.
            parts = (rows.tags.indices.astype(np.int64), rows.tags.data, rows.tags.indptr[:-1].astype(np.int64))
            tags = TagBags(*map(torch.from_numpy, parts))
        return InputBatch(visual, tags)

    def blocks(self, inputs: InputRows, rows: np.ndarray | None = None) -> Iterator[tuple[slice, Tensor]]:
        """Go over some rows in use, and yield the fused features of a block of them on the device."""
        return ((part, seen.fused) for part, seen in self.seen_blocks(inputs, rows))

    def seen_blocks(
        self, inputs: InputRows, rows: np.ndarray | None = None, *, for_kernel: bool | None = None
    ) -> Iterator[tuple[slice, Seen]]:
        """Go over some rows in use, and yield what the network sees of a block of them, on the device.

        Features are among it for a kernel alone: by default, where there is one.
        """
        if for_kernel is None:
            for_kernel = self.members is not None and self.members.kernel is not None
        n_rows = len(inputs) if rows is None else len(rows)
        step = max(1, min(self.tower.batch_size, _BLOCK // self.network.label_head.out_features))
        settle(self, self.tower.device)
        parts = [slice(start, min(start + step, n_rows)) for start in range(0, n_rows, step)]
        batches: Iterator[InputBatch] = (self.collate(inputs[part if rows is None else rows[part]]) for part in parts)
        if len(parts) > 1:  # one block has nothing to be read meanwhile
            batches = made_ahead(batches)
        for part, batch in zip(parts, batches, strict=True):
            with torch.inference_mode():  # not around the yield: who stops half way would be left in it
                seen = self._see(to_device(batch, self.tower.device), for_kernel)
            yield part, seen

    def _see(self, inputs: InputBatch, for_kernel: bool) -> Seen:
        visual, branch, features = self._look(inputs), self.network.visual, None
        if for_kernel and visual is not None and branch is not None:
            features = branch.standardized(visual)
        return Seen(self._fuse(visual, inputs.tags), features, inputs.tags, int(self.network.config["n_tags"]))

    # Scores -------------------------------------------------------------------------------------------------------

    def score_images(
        self, inputs: InputRows, rows: np.ndarray | None = None
    ) -> Iterator[tuple[slice, np.ndarray, np.ndarray | None]]:
        """Yield some images, their scores (n, n_labels) float32, and the estimates of their number of labels."""
        n_labels = self.network.label_head.out_features
        for part, seen in self.seen_blocks(inputs, rows):
            with torch.inference_mode():
                fused = seen.fused
                logits = self._head(self.network.label_head, fused)
                counts = self._estimates(fused)
                odds = self.scoring.log_odds(logits, torch.logsumexp(logits, dim=1), counts).cpu().numpy()
                if self._scorer is not None:
                    odds = self._scorer.combine(odds, fused, self._scorer.find(seen), slice(0, n_labels))
            odds = self.scoring.correct(odds, slice(0, n_labels))
            if self.corrections is not None:
                odds = self.corrections(odds, fused)
            yield part, odds, None if counts is None else counts.cpu().numpy()

    def score_members(self, inputs: InputRows, rows: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield some images, and what each member says of their labels, (n, n_labels, n_members) float32."""
        if self._scorer is None:
            raise ValueError("there are no members beside the network")
        for part, seen in self.seen_blocks(inputs, rows):
            with torch.inference_mode():
                fused = seen.fused
                logits = self._head(self.network.label_head, fused)
                odds = self.scoring.log_odds(logits, torch.logsumexp(logits, dim=1), self._estimates(fused))
                found, labels = self._scorer.find(seen), slice(0, logits.shape[1])
                yield part, np.stack(self._scorer.terms(odds.cpu().numpy(), fused, found, labels), axis=2)

    def fuse_images(self, inputs: InputRows, rows: np.ndarray) -> FusedImages:
        """Compute once what the scores of some images come from."""
        features, normalizers, estimates, found = [], [], [], []
        for _, seen in self.seen_blocks(inputs, rows):
            with torch.inference_mode():
                features.append(seen.fused)
                normalizers.append(torch.logsumexp(self._head(self.network.label_head, seen.fused), dim=1))
                estimates.append(self._estimates(seen.fused))
                found.append(Found() if self._scorer is None else self._scorer.find(seen))
        counts = None if estimates[0] is None else torch.cat([own for own in estimates if own is not None])
        return FusedImages(torch.cat(features), torch.cat(normalizers), counts, Found.together(found))

    def score_labels(self, images: FusedImages, n_images: int) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield some labels, and the scores (n, n_some_labels) float32 of all images.

        The labels are as many at a time as if there were `n_images` images.
        """
        head = self.network.label_head
        step = max(1, _BLOCK // n_images)
        for start in range(0, head.out_features, step):
            part = slice(start, min(start + step, head.out_features))
            with torch.inference_mode():
                # The head of some labels is some rows of the head of all.
                some = partial(functional.linear, weight=head.weight[part], bias=head.bias[part])
                logits = self._head(some, images.features)
                odds = self.scoring.log_odds(logits, images.normalizer, images.counts).cpu().numpy()
                if self._scorer is not None:
                    odds = self._scorer.combine(odds, images.features, images.found, part)
            yield part, self.scoring.correct(odds, part)

    def _estimates(self, fused: Tensor) -> Tensor | None:
        if self.scoring.count_target is None or self.network.count_head is None:
            return None
        return self.scoring.count_target.estimate(self._head(self.network.count_head, fused))


class CountModel(nn.Module):
    """What estimates numbers of labels, trained for that alone.

    Parameters
    ----------
    tower : Tower
        Without an encoder: from features to the outputs of `target`.
    target : CountTarget
    features_of : callable, optional
        Gives the features of a batch, without a gradient; by default its inputs are the features.
    """

    def __init__(self, tower: Tower, target: CountTarget, features_of: Callable[[Any], Tensor] | None = None) -> None:
        super().__init__()
        self.tower = tower
        self._target = target
        self._features_of = features_of  # a function: what it belongs to is no part of this, and learns nothing

    def forward(self, batch: CountBatch) -> Tensor:
        """Return the mean loss of a batch, a 0-d tensor."""
        features = batch.inputs if self._features_of is None else self._features_of(batch.inputs)
        return (self._target.loss(self.tower(features).float(), batch.counts) * batch.weight).mean()


# A network for given images -------------------------------------------------------------------------------------


def make_network(
    encoder: Any,
    inputs: InputRows,
    rows: np.ndarray,
    prevalence: np.ndarray,
    n_count_outputs: int,
    *,
    hidden_layer_sizes: Sequence[int],
    tag_hidden_layer_sizes: Sequence[int],
    count_hidden_layer_sizes: Sequence[int],
    dropout: float,
) -> AnnotationNetwork:
    """Build a network under torch's current random state, and let it start from what labels there are.

    Parameters
    ----------
    encoder : fitted estimator or None
        Of the pictures.
    inputs : InputRows
    rows : ndarray of int64
        Those that are trained on; their statistics standardise features.
    prevalence : ndarray of shape (n_labels,), float64
        Of which share of them each label is true.
    n_count_outputs : int
        0 for no count head.
    hidden_layer_sizes, tag_hidden_layer_sizes, count_hidden_layer_sizes, dropout
        As in `AnnotationNetwork`.
    """
    n_features, statistics = 0, None
    if inputs.visual is not None and is_trainable(encoder):
        # Features that are learnt on have no statistics yet; pretrained ones have those of a sample.
        n_features, statistics = encoder.n_features_out, encoder.output_statistics(inputs.visual[rows])
    elif inputs.visual is not None:
        n_features, statistics = inputs.visual.shape[1], column_statistics(inputs.visual, rows)
    network = AnnotationNetwork(
        n_features,
        0 if inputs.tags is None else inputs.tags.shape[1],
        len(prevalence),
        n_count_outputs,
        hidden_layer_sizes=hidden_layer_sizes,
        tag_hidden_layer_sizes=tag_hidden_layer_sizes,
        count_hidden_layer_sizes=count_hidden_layer_sizes,
        dropout=dropout,
    )
    if network.visual is not None and statistics is not None:
        network.visual.standardize_by(*statistics)
    least = 0.1 / len(rows)  # a label of no image, or of all, starts from finite log odds
    prevalence = prevalence.clip(least, 1 - least)
    # Starting from how often labels are true spares the first epochs, in which nothing else would be learnt.
    network.start_from(torch.from_numpy(np.log(prevalence) - np.log1p(-prevalence)).float())
    return network


def check_layer_sizes(name: str, sizes: Sequence[Any], least: int = 0) -> None:
    """Check a parameter that lists the sizes of hidden layers, at least so many."""
    if len(sizes) < least or not all(isinstance(size, Integral) and int(size) >= 1 for size in sizes):
        number = "at least one positive int" if least else "positive ints"
        raise ValueError(f"{name} must hold {number}, one for each hidden layer, got {sizes!r}")
