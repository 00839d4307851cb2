"""The training set of a ranker: what is one image, whose caption is whose, what is held out, and what is a batch."""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sklearn_mm._checks import Captions
from sklearn_mm._unicode import normal_form
from sklearn_mm.sampling import caption_batches, held_out_rows, n_batches
from sklearn_mm.towers import Tower
from sklearn_mm.training import ALONE, Processes

__all__ = [
    "CaptionedImages",
    "JointBatch",
    "JointBatches",
    "Shares",
    "TextPool",
    "distinct_texts",
    "merge_captioned",
]


@dataclass(frozen=True)
class CaptionedImages:
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

    def take(self, images: np.ndarray) -> "CaptionedImages":
        """Keep some images, in the order given."""
        counts = np.diff(self.starts)[images]
        starts = np.concatenate([[0], np.cumsum(counts)])
        # Each image's run of captions, one run after the other and without a loop: a running number, moved by how far
        # the run stands from its new place.
        texts = np.repeat(self.starts[images] - starts[:-1], counts) + np.arange(starts[-1])  # (n_texts kept,)
        return CaptionedImages(
            self.rows[images],
            [self.texts[text] for text in texts],
            starts,
            self.wording[texts],
            self.group[images],
            self.weight[images],
        )

    def split(self, fraction: float, rng: np.random.Generator) -> tuple["CaptionedImages", "CaptionedImages | None"]:
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
        # Numbered anew: rows of weight 0 and images held out leave gaps, and the classifier has a row for each number.
        return np.unique(self.group, return_inverse=True)[1]

    def not_negative(self, images: np.ndarray, texts: np.ndarray) -> np.ndarray:
        """Mark the pairs of a batch that are no negatives, shape (n_images, n_texts), bool.

        A pair is none if the text's image is the image or of its group, or if the image has a caption of the text's
        wording, drawn or not.
        """
        mask: np.ndarray = self.group[images][:, None] == self.group[self.owner[texts]][None, :]  # (n_images, n_texts)
        counts = np.diff(self.starts)[images]
        column = np.arange(int(counts.max()))
        # An image with fewer captions than the most repeats its last one: the same comparison again changes no mark.
        own = self.starts[images][:, None] + np.minimum(column, counts[:, None] - 1)  # (n_images, most captions)
        drawn = self.wording[texts]
        for captions in self.wording[own].T:  # all at once would hold (n_images, most captions, n_texts)
            mask |= captions[:, None] == drawn[None, :]
        return mask


@dataclass(frozen=True)
class Shares:
    """Which rows of a batch each of some processes has, and what becomes of the rows of all.

    Attributes
    ----------
    processes : Processes
    images, texts : list of slice
        For each process, of the images and of the texts of the whole batch.
    """

    processes: Processes
    images: list[slice]
    texts: list[slice]

    @property
    def own_images(self) -> slice:
        """The images of this process."""
        return self.images[self.processes.rank]

    @property
    def own_texts(self) -> slice:
        """The texts of this process."""
        return self.texts[self.processes.rank]


class TextPool(NamedTuple):
    """Texts of the whole training set, looked through for each image's hardest negative.

    Attributes
    ----------
    text : batch for the text tower
        Of n_pool texts: where there are several processes, of this one's own.
    not_negative : Tensor of shape (n_images, n_pool), bool
        As in `JointBatch`.
    is_in_batch : Tensor of shape (n_pool,), bool
        Whether the text is one of the batch's own.
    """

    text: Any
    not_negative: Tensor
    is_in_batch: Tensor


class JointBatch(NamedTuple):
    """What both towers see in one step.

    Attributes
    ----------
    image : batch for the image tower
        Of n_images images: of those of this process, where there are several; the rest is of the whole batch.
    text : batch for the text tower
        Of n_texts texts, each in a positive pair; of this process.
    image_of_text : Tensor of shape (n_texts,), int64
        The position of each text's image.
    not_negative : Tensor of shape (n_images, n_texts), bool
        Pairs that are no negatives of each other.
    weight : Tensor of shape (n_images,), float32
    instance : Tensor of shape (n_images,), int64
        The class of each image for the instance loss.
    pool : TextPool or None
    shares : Shares
    """

    image: Any
    text: Any
    image_of_text: Tensor
    not_negative: Tensor
    weight: Tensor
    instance: Tensor
    pool: TextPool | None
    shares: Shares


@dataclass(frozen=True)
class JointBatches:
    """The batches of an epoch.

    Attributes
    ----------
    image_tower, text_tower : Tower
        That put batches together.
    image_rows : prepared images
        Of which `images` says the rows.
    text_rows : prepared texts
        Those of `images`.
    images : CaptionedImages
    batch_size, captions_per_image : int
        Of each process.
    pool_size : int
        How many texts of other images are looked through for a harder negative; 0 for none.
    rng : numpy.random.Generator
        All processes' stands at the same place.
    processes : Processes
        That share every batch.
    """

    image_tower: Tower
    text_tower: Tower
    image_rows: Any
    text_rows: Any
    images: CaptionedImages
    batch_size: int
    captions_per_image: int
    pool_size: int
    rng: np.random.Generator
    processes: Processes = ALONE

    def __len__(self) -> int:
        return n_batches(len(self.images), self._n_images, at_least=self._at_least)

    @property
    def _n_images(self) -> int:
        return self.batch_size * self.processes.n

    @property
    def _at_least(self) -> int:
        return max(2, self.processes.n)  # an image for each process, and never a lone one

    def __iter__(self) -> Iterator[JointBatch]:
        known = self.images
        own_rng = self.processes.own_draws(self.rng)
        drawn = caption_batches(
            known.starts, self._n_images, self.captions_per_image, self.rng, at_least=self._at_least
        )
        for images, texts, image_of_text in drawn:
            shares = self._deal(len(images), image_of_text)
            # The order of these draws (images and captions, image batch, pool, text batch, batch of the pool) is a part
            # of what a seed gives: another order is another run.
            # Prepared images stand in the order of X, prepared texts in that of the images.
            image = self.image_tower.collate(self.image_rows[known.rows[images[shares.own_images]]], own_rng)
            pool = self._draw_pool()
            yield JointBatch(
                image,
                self.text_tower.collate(self.text_rows[texts[shares.own_texts]], own_rng),
                torch.from_numpy(image_of_text),
                torch.from_numpy(known.not_negative(images, texts)),
                torch.from_numpy(known.weight[images]),
                torch.from_numpy(known.instance[images]),
                None if pool is None else self._pool_of(pool, images, texts, own_rng),
                shares,
            )

    def _deal(self, n_images: int, image_of_text: np.ndarray) -> Shares:
        images = self.processes.shares(n_images)
        # The texts of an image stand together, and go where it goes.
        ends = np.searchsorted(image_of_text, [0, *(part.stop for part in images)]).tolist()
        return Shares(self.processes, images, [slice(*pair) for pair in pairwise(ends)])

    def _draw_pool(self) -> np.ndarray | None:
        if not self.pool_size:
            return None
        n_texts = len(self.images.texts)
        return np.sort(self.rng.choice(n_texts, min(self.pool_size, n_texts), replace=False))

    def _pool_of(
        self, pool: np.ndarray, images: np.ndarray, texts: np.ndarray, own_rng: np.random.Generator
    ) -> TextPool:
        own = pool[self.processes.shares(len(pool))[self.processes.rank]]
        return TextPool(
            self.text_tower.collate(self.text_rows[own], own_rng),
            torch.from_numpy(self.images.not_negative(images, pool)),
            torch.from_numpy(np.isin(pool, texts)),
        )


def distinct_texts(texts: Iterable[str]) -> list[str]:
    """Return texts in order, each wording once: of its forms in Unicode the first."""
    ordered = sorted(set(texts))
    if all(map(str.isascii, ordered)):
        return ordered
    return sorted({normal_form(text): text for text in reversed(ordered)}.values())


def merge_captioned(
    keys: Iterable[Hashable], captions: Captions, groups: np.ndarray | None, weight: np.ndarray | None
) -> CaptionedImages:
    """Bring the rows a user gave into one order of their own, each image once.

    Rows of one key and group are one image: their captions are joined (each wording once, in whatever form of Unicode)
    and their weights added. Rows of weight 0 are left out. The order is that of the keys, so that it does not depend on
    the order of the rows: a row given twice and a row of weight 2 are the same training set.

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
    number = None if groups is None else np.unique(groups, return_inverse=True)[1]
    members: dict[Any, list[int]] = defaultdict(list)
    for row, key in enumerate(keys):
        if weight is None or weight[row] > 0:
            # Rows of different groups are different images, however alike: ternary features of two may be equal.
            members[key if number is None else (key, number[row])].append(row)
    merged = [members[key] for key in sorted(members)]
    # Sorted: a set of str comes in another order in every process.
    own_texts = [
        distinct_texts(text for row in rows for text in captions.texts[starts[row] : starts[row + 1]])
        for rows in merged
    ]
    texts = [text for own in own_texts for text in own]
    summed = np.array([len(rows) if weight is None else weight[rows].sum() for rows in merged], dtype=np.float64)
    first = np.array([rows[0] for rows in merged], dtype=np.int64)
    return CaptionedImages(
        rows=first,
        texts=texts,
        starts=np.concatenate([[0], np.cumsum([len(own) for own in own_texts])]).astype(np.int64),
        # dtype=object: an array of str is as wide as its longest text, for every text.
        wording=np.unique(np.array(list(map(normal_form, texts)), dtype=object), return_inverse=True)[1],
        group=np.arange(len(merged)) if number is None else number[first],
        # Weights all multiplied by one number are the same training set, and leave the learning rate what it is.
        weight=(summed / summed.mean()).astype(np.float32),
    )
