"""The images that an annotator learns from: which rows of X, with which labels, and which of them are held out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from sklearn_mm._checks import check_groups, check_weights
from sklearn_mm.sampling import MIN_FOR_VALIDATION, held_out_rows
from sklearn_mm.towers import row_digests

__all__ = [
    "LabeledImages",
    "check_weights_and_groups",
    "count_labels",
    "merge_labeled",
    "n_ranks_for",
    "prevalence_of",
]

_MIN_RANKS = 10
_MAX_RANKS = 200  # unless more than one image in a thousand has half as many labels


@dataclass(frozen=True)
class LabeledImages:
    """Images with their labels.

    Attributes
    ----------
    rows : ndarray of shape (n_images,), int64
        Where each image stands in X.
    labels : csr_array of shape (n_images, n_labels), float32
        1 where a label is true, NaN where that is not known.
    counts : ndarray of shape (n_images,), float32
        How many labels are true.
    weight : ndarray of shape (n_images,), float32
        Mean 1.
    group : ndarray of shape (n_images,), int64
        Images of one group are held out together.
    """

    rows: np.ndarray
    labels: Any
    counts: np.ndarray
    weight: np.ndarray
    group: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, images: np.ndarray) -> "LabeledImages":
        """Keep some images, in the order given."""
        return LabeledImages(
            self.rows[images], self.labels[images], self.counts[images], self.weight[images], self.group[images]
        )

    def split(self, fraction: float, rng: np.random.Generator) -> tuple["LabeledImages", "LabeledImages | None"]:
        """Hold out about a fraction of the images, whole groups at a time.

        Nothing is held out of fewer than ten images, or where all are of one group or would leave less than two.
        """
        held_out = held_out_rows(self.group, fraction, rng)
        if held_out is None or len(self) - np.count_nonzero(held_out) < 2:  # batch norm needs two images
            return self, None
        return self.take(np.flatnonzero(~held_out)), self.take(np.flatnonzero(held_out))

    def folds(self, n_folds: int, rng: np.random.Generator) -> list[tuple["LabeledImages", "LabeledImages"]]:
        """Return each fold's images to train on, and its own; whole groups at a time.

        There are fewer folds where there are not as many groups, and none of fewer than ten images.
        """
        # scikit-learn's GroupKFold deals groups by size, or draws them whatever their sizes; here folds are both drawn
        # and of about as many images.
        group_ids, group = np.unique(self.group, return_inverse=True)
        n_folds = min(n_folds, len(group_ids))
        if len(self) < MIN_FOR_VALIDATION or n_folds < 2:
            return []
        order = rng.permutation(len(group_ids))
        sizes = np.bincount(group)[order]
        fold_of_group = np.empty(len(order), dtype=np.int64)
        fold_of_group[order] = (np.cumsum(sizes) - sizes / 2) * n_folds // len(self)
        fold = fold_of_group[group]
        parts = [(np.flatnonzero(fold != number), np.flatnonzero(fold == number)) for number in range(n_folds)]
        return [(self.take(others), self.take(own)) for others, own in parts if len(own) and len(others) > 1]

    def prevalence(self) -> np.ndarray:
        """The share of images of which each label is true, of those where that is known, (n_labels,) float64."""
        return prevalence_of(self.labels, self.weight)


def merge_labeled(
    parts: Sequence[Any], labels: Any, weight: np.ndarray | None, groups: np.ndarray | None = None
) -> LabeledImages:
    """Bring the rows a user gave into one order of their own.

    Rows that are equal in all parts, labels and group become one, their weights added. Rows of weight 0 are left out.
    The order does not depend on that of the rows: a row given twice and a row of weight 2 are the same training set.

    Parameters
    ----------
    parts : sequence of matrices of n_rows rows
        What rows are told apart by; none makes each row one of its own.
    labels : csr_array of shape (n_rows, n_labels)
    weight : ndarray of shape (n_rows,) or None
    groups : ndarray of shape (n_rows,), optional
        By default each image is a group of its own.

    Raises
    ------
    ValueError
        Fewer than two images are left.
    """
    n_rows = labels.shape[0]
    weight = np.ones(n_rows) if weight is None else weight
    number = None if groups is None else np.unique(groups, return_inverse=True)[1]
    rows, summed = np.arange(n_rows), weight
    if parts:
        # np.unique sorts them, and so the rows, in an order that is not that in which they were given.
        digests = [b"".join(own) for own in zip(*map(row_digests, [*parts, labels]), strict=True)]
        if number is not None:  # equal tags and labels do not make two scenes one
            digests = [own + group.to_bytes(8, "big") for own, group in zip(digests, number.tolist(), strict=True)]
        _, rows, member = np.unique(np.array(digests), return_index=True, return_inverse=True)
        summed = np.bincount(member, weights=weight, minlength=len(rows))
    kept = np.flatnonzero(summed > 0)
    if len(kept) < 2:
        # scikit-learn's checks look for the words in brackets
        raise ValueError(f"expected at least 2 different images to train on, got {len(kept)} (n_samples={len(kept)})")
    rows, summed, labels = rows[kept], summed[kept], sparse.csr_array(labels[rows[kept]])
    group = np.arange(len(rows)) if number is None else number[rows]
    weight = (summed / summed.mean()).astype(np.float32)
    return LabeledImages(rows, labels, count_labels(labels, prevalence_of(labels, weight)), weight, group)


def check_weights_and_groups(
    sample_weight: Any, groups: Any, n_rows: int
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return weights, (n_rows,) float64, and groups, (n_rows,), where they are given."""
    return check_weights(sample_weight, n_rows), check_groups(groups, n_rows)


def prevalence_of(labels: Any, weight: np.ndarray) -> np.ndarray:
    """Compute the share of the weight of all rows of which each label is true, (n_labels,) float64."""
    weight = weight.astype(np.float64)
    own = np.repeat(weight, np.diff(labels.indptr))
    true = labels.data == 1
    n_true, n_unknown = (
        np.bincount(labels.indices[part], weights=own[part], minlength=labels.shape[1]) for part in (true, ~true)
    )
    return n_true / np.maximum(weight.sum() - n_unknown, 1e-12)  # 0 for a label that is known of no image


def count_labels(labels: Any, prevalence: np.ndarray) -> np.ndarray:
    """Count the labels of each row, (n,) float32; one that is not known counts as its prevalence."""
    known = np.where(labels.data == 1, 1.0, prevalence[labels.indices])
    sums = np.concatenate([[0.0], np.cumsum(known)])  # np.add.reduceat has no sums of empty rows
    return (sums[labels.indptr[1:]] - sums[labels.indptr[:-1]]).astype(np.float32)


def n_ranks_for(counts: np.ndarray) -> int:
    """Return how many of an image's best labels a rule for their number looks at.

    Twice as many as any image has. But where a few have very many, they do not decide on the memory of all.
    """
    most = float(counts.max())
    if 2 * most > _MAX_RANKS:
        most = max(_MAX_RANKS / 2, float(np.quantile(counts, 0.999)))
    return max(_MIN_RANKS, 2 * int(np.ceil(most)))
