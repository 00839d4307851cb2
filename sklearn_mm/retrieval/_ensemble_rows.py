"""What an ensemble is fitted on, and what its members made of it, row by row alike."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from itertools import pairwise
from typing import Any

import numpy as np
from scipy import sparse

from sklearn_mm._checks import Captions, check_captions, check_groups, check_weights
from sklearn_mm._repeated import first_rows
from sklearn_mm._unicode import normal_form
from sklearn_mm._unreadable import n_pictures_of, take_readable
from sklearn_mm.retrieval._blend import learn_weights, spread_of
from sklearn_mm.retrieval._data import CaptionedImages, merge_captioned
from sklearn_mm.retrieval._members import FittedMember
from sklearn_mm.retrieval._pairs import GivenRows
from sklearn_mm.retrieval._search import gallery_texts
from sklearn_mm.sampling import MIN_FOR_VALIDATION
from sklearn_mm.towers import row_digests

__all__ = ["AlignedMembers", "TrainingRows", "common_rows"]

_SPREAD_SAMPLE = 1000  # images and texts, whose spread of scores is that of all to 3 in 1,000
# On Flickr8k 50 images give weights as good as 500 do; of three they are mostly chance.
_MOST_HELD_OUT = 200
_AS_IF_EQUAL = 10  # images that equal weights count as much as


@dataclass(frozen=True)
class TrainingRows:
    """What `fit` was given, checked as far as it concerns the ensemble; X is for the members to check.

    Attributes
    ----------
    X : images or features
    captions : Captions
    place : ndarray of shape (n_rows,), int64, or None
        Where the rows stood among all pictures, if an embedding before could not read some.
    weight, groups : ndarray of shape (n_rows,) or None
    keys : ndarray of shape (n_rows,), int64
        Equal for rows of one image: rows of features that are equal.
    first : ndarray of int64, or None
        The row in which each picture was given first, where some stood in several.
    """

    X: Any
    captions: Captions
    place: np.ndarray | None
    weight: np.ndarray | None
    groups: np.ndarray | None
    keys: np.ndarray
    first: np.ndarray | None = None

    @classmethod
    def check(cls, X: Any, y: Any, sample_weight: Any, groups: Any) -> "TrainingRows":
        if y is None:  # first, so that this is the error that is named, whatever X is
            check_captions(y)
        if not hasattr(X, "shape") and not hasattr(type(X), "__len__") and hasattr(X, "__array__"):
            X = np.asarray(X)
        if getattr(getattr(X, "dtype", None), "kind", "") == "c":
            raise ValueError("Complex data not supported: expected images, or features that are real numbers")
        readable, place = take_readable(X)
        captions = check_captions(y, X if place is None else range(n_pictures_of(X)))
        given = GivenRows(
            readable,
            captions,
            place,
            check_weights(sample_weight, captions.n_images),
            check_groups(groups, captions.n_images),
        ).merged(first_rows(X), stacklevel=3)
        readable, captions, place, weight, checked = given.parts
        if sample_weight is None and weight is not None and np.ptp(weight) == 0:
            weight = None  # not every member takes weights
        keys = np.arange(captions.n_images)
        if sparse.issparse(readable) or (isinstance(readable, np.ndarray) and readable.ndim == 2):
            keys = np.unique(np.array(row_digests(readable), dtype=object), return_inverse=True)[1]
        if place is not None:
            captions = captions.take(place)
            weight, checked = (None if part is None else part[place] for part in (weight, checked))
        return cls(readable, captions, place, weight, checked, keys, given.rows)

    def take(self, rows: np.ndarray | None) -> "TrainingRows":
        """Keep some rows, in order, for all but X; None keeps all."""
        if rows is None:
            return self
        weight, groups = (None if part is None else part[rows] for part in (self.weight, self.groups))
        place = rows if self.place is None else self.place[rows]
        return TrainingRows(self.X, self.captions.take(rows), place, weight, groups, self.keys[rows], self.first)

    @property
    def given(self) -> np.ndarray | None:
        """In which row of `fit` each picture stood, (n_rows,) int64, or None where each in its own place."""
        return self.place if self.first is None else self.first if self.place is None else self.first[self.place]

    @cached_property
    def y(self) -> Any:
        """The captions as members are given them."""
        if self.captions.numbers is not None:
            return self.captions.numbers
        starts = self.captions.starts
        return [self.captions.texts[a:b] for a, b in pairwise(starts)]

    @cached_property
    def listed(self) -> np.ndarray:
        """The different captions, as `predict` answers them."""
        return gallery_texts(self.captions)

    @cached_property
    def texts(self) -> list[str]:
        """The same as str."""
        return [str(text) for text in self.listed]

    @cached_property
    def images(self) -> CaptionedImages:
        """The rows that count in an order of their own, each image once."""
        return merge_captioned(self.keys.tolist(), self.captions, self.groups, self.weight)

    def hold_out(self, fraction: float, rng: np.random.Generator) -> CaptionedImages | None:
        """Hold out a fraction of the images, at most 200 of them, whole groups at a time; None for none."""
        if self.captions.n_images < MIN_FOR_VALIDATION:  # and of none, it is for members to say so
            return None
        return self.images.split(min(fraction, _MOST_HELD_OUT / len(self.images)), rng)[1]

    def is_of(self, images: CaptionedImages) -> np.ndarray:
        """Return which rows are of some of the images, (n_rows,) bool."""
        of_images = np.isin(self.keys, self.keys[images.rows])
        if self.groups is not None:  # equal rows of different groups are different images; of one, all are taken
            of_images &= np.isin(self.groups, self.groups[images.rows])
        return of_images

    def metadata(self, held_out: CaptionedImages | None = None) -> dict[str, Any]:
        """Return weights and groups as members are given them; what is held out has a weight of 0."""
        weight = self.weight
        if held_out is not None:
            weight = np.where(self.is_of(held_out), 0.0, 1.0 if weight is None else weight)
        return {key: value for key, value in (("sample_weight", weight), ("groups", self.groups)) if value is not None}


@dataclass(frozen=True)
class AlignedMembers:
    """What members were fitted on, in the space of each: images that all could read, and captions of these.

    Attributes
    ----------
    rankers : list of fitted estimators
    rows : TrainingRows
        Those that all members could read, but for X.
    images, texts : list of ndarrays, (n_rows or n_texts, n_components of each) float32
        A row of `texts` is a caption of ``rows.listed``.
    """

    rankers: list[Any]
    rows: TrainingRows
    images: list[np.ndarray]
    texts: list[np.ndarray]
    kept: np.ndarray | None

    @classmethod
    def of(cls, fitted: list[FittedMember], rows: TrainingRows) -> "AlignedMembers":
        """Keep what all members have."""
        kept = common_rows([member.rows for member in fitted])
        common = rows.take(kept)
        images, texts = zip(*(member.take(kept, common.texts) for member in fitted), strict=True)
        return cls([member.ranker for member in fitted], common, list(images), list(texts), kept)

    def spreads(self, rng: np.random.Generator) -> np.ndarray:
        """Return the spread of each member's scores of training images and texts, (n_members,)."""
        # Of other images it is the same: on Flickr8k to 1 in 1,000, of 500 images to 7 in 100.
        known = self.rows.images
        known = known.take(np.sort(rng.choice(len(known), min(len(known), _SPREAD_SAMPLE), replace=False)))
        # One caption each, the first: a text is then in the sample as often as an image.
        texts = self.rows_of([known.texts[start] for start in known.starts[:-1]])
        return np.array([spread_of(a[known.rows], b[texts]) for a, b in zip(self.images, self.texts, strict=True)])

    def learnt_weights(self, held_out: CaptionedImages, spreads: np.ndarray) -> np.ndarray:
        """Return the weights that tell the captions of images held out best, (n_members,); their sum is 1."""
        if self.kept is not None:
            held_out = held_out.take(np.flatnonzero(np.isin(held_out.rows, self.kept)))
            held_out = replace(held_out, rows=np.searchsorted(self.kept, held_out.rows))
        texts = self.rows_of(held_out.texts)
        scores = np.stack(
            [
                a[held_out.rows] @ b[texts].T / spread
                for a, b, spread in zip(self.images, self.texts, spreads, strict=True)
            ]
        )
        every = np.arange(len(held_out)), np.arange(len(held_out.texts))
        learnt = learn_weights(scores, held_out.owner, held_out.not_negative(*every))
        share = len(held_out) / (len(held_out) + _AS_IF_EQUAL)
        return share * learnt + (1 - share) / len(learnt)

    def rows_of(self, texts: Sequence[str]) -> np.ndarray:
        """Return where captions stand in `texts`, (n_texts,) int64."""
        row_of = {normal_form(text): row for row, text in enumerate(self.rows.texts)}
        return np.array([row_of[normal_form(text)] for text in texts], dtype=np.int64)


def common_rows(rows: list[np.ndarray | None]) -> np.ndarray | None:
    """Return the rows that are in all, in order; None stands for all there are."""
    given = [part for part in rows if part is not None]
    return reduce(np.intersect1d, given) if given else None
