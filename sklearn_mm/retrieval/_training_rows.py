"""The training set of a ranker: what is one image, whose caption is whose, and what is held out."""

from collections import defaultdict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from sklearn.utils import column_or_1d
from sklearn.utils.validation import _check_sample_weight

from sklearn_mm._checks import Captions
from sklearn_mm.sampling import held_out_rows

__all__ = ["TrainingRows", "check_groups", "check_weights", "merge_rows"]


@dataclass(frozen=True)
class TrainingRows:
    """Images with their captions, each image once.

    Attributes
    ----------
    rows : ndarray of shape (n_images,), int64
        Where each image stands in X.
    texts : list of str
        All captions, in the order of their images.
    starts : ndarray of shape (n_images + 1,), int64
        Where each image's captions start in `texts`.
    wording : ndarray of shape (n_texts,), int64
        Equal for captions of the same wording.
    group : ndarray of shape (n_images,), int64
        Images of one group are no negatives of each other.
    weight : ndarray of shape (n_images,), float32
        Mean 1.
    """

    rows: np.ndarray
    texts: list[str]
    starts: np.ndarray
    wording: np.ndarray
    group: np.ndarray
    weight: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, images: np.ndarray) -> "TrainingRows":
        """Keep some images, in the order given."""
        counts = np.diff(self.starts)[images]
        starts = np.concatenate([[0], np.cumsum(counts)])
        texts = np.repeat(self.starts[images] - starts[:-1], counts) + np.arange(starts[-1])
        return TrainingRows(
            self.rows[images],
            [self.texts[text] for text in texts],
            starts,
            self.wording[texts],
            self.group[images],
            self.weight[images],
        )

    def split(self, fraction: float, rng: np.random.Generator) -> tuple["TrainingRows", "TrainingRows | None"]:
        """Hold out about a fraction of the images, whole groups at a time.

        Nothing is held out of fewer than ten images, or where all are of one group.
        """
        held_out = held_out_rows(self.group, fraction, rng)
        if held_out is None:
            return self, None
        return self.take(np.flatnonzero(~held_out)), self.take(np.flatnonzero(held_out))

    @cached_property
    def owner(self) -> np.ndarray:
        """The image of each text, shape (n_texts,), int64."""
        return np.repeat(np.arange(len(self)), np.diff(self.starts))

    @cached_property
    def instance(self) -> np.ndarray:
        """The class of each image for the instance loss, counted from 0: its group. Shape (n_images,), int64."""
        return np.unique(self.group, return_inverse=True)[1]

    def not_negative(self, images: np.ndarray, texts: np.ndarray) -> np.ndarray:
        """Mark the pairs of a batch that are no negatives, shape (n_images, n_texts), bool.

        A pair is none if the text's image is the image or of its group, or if the image has a caption of the text's
        wording, drawn or not.
        """
        mask: np.ndarray = self.group[images][:, None] == self.group[self.owner[texts]][None, :]
        counts = np.diff(self.starts)[images]
        column = np.arange(int(counts.max()))
        own = self.starts[images][:, None] + np.minimum(column, counts[:, None] - 1)  # (n_images, most captions)
        drawn = self.wording[texts]
        for captions in self.wording[own].T:  # one (n_images, n_texts) comparison for each of an image's captions
            mask |= captions[:, None] == drawn[None, :]
        return mask


def check_groups(groups: Any, n_images: int) -> np.ndarray | None:
    """Return the groups of images as an array of shape (n_images,), or None where there are none."""
    if groups is None:
        return None
    listed: np.ndarray = column_or_1d(groups)
    if len(listed) != n_images:
        raise ValueError(f"expected one group per image, got {len(listed)} for {n_images} images")
    return listed


def check_weights(sample_weight: Any, n_images: int) -> np.ndarray | None:
    """Return the weights of images as an array of shape (n_images,), float64, or None where there are none."""
    if sample_weight is None:
        return None
    images = np.empty((n_images, 0))
    weight: np.ndarray = _check_sample_weight(sample_weight, images, dtype=np.float64, ensure_non_negative=True)
    return weight


def merge_rows(
    keys: Iterable[Hashable], captions: Captions, groups: np.ndarray | None, weight: np.ndarray | None
) -> TrainingRows:
    """Bring the rows a user gave into one order of their own, each image once.

    Rows of one key are one image: their captions are joined (each wording once) and their weights added. Rows of
    weight 0 are left out. The order is that of the keys, so that it does not depend on the order of the rows: a row
    given twice and a row of weight 2 are the same training set.

    Parameters
    ----------
    keys : iterable of n_rows sortable hashables
        The same for rows that are one image.
    captions : Captions
        Of the n_rows rows.
    groups : ndarray of shape (n_rows,) or None
        None makes each image a group of its own.
    weight : ndarray of shape (n_rows,) or None
    """
    starts = captions.starts
    members: dict[Any, list[int]] = defaultdict(list)
    for row, key in enumerate(keys):
        if weight is None or weight[row] > 0:
            members[key].append(row)
    merged = [members[key] for key in sorted(members)]
    own_texts = [
        sorted({text for row in rows for text in captions.texts[starts[row] : starts[row + 1]]}) for rows in merged
    ]
    texts = [text for own in own_texts for text in own]
    summed = np.array([len(rows) if weight is None else weight[rows].sum() for rows in merged], dtype=np.float64)
    group = (
        np.arange(len(merged)) if groups is None else np.unique(groups, return_inverse=True)[1][[r[0] for r in merged]]
    )
    return TrainingRows(
        rows=np.array([rows[0] for rows in merged], dtype=np.int64),
        texts=texts,
        starts=np.concatenate([[0], np.cumsum([len(own) for own in own_texts])]).astype(np.int64),
        wording=np.unique(np.array(texts, dtype=object), return_inverse=True)[1],
        group=group,
        weight=(summed / summed.mean()).astype(np.float32),
    )
