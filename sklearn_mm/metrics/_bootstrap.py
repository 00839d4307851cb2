"""How far numbers would move with other images: images are drawn again, and what was found of each counts as often.

Nothing is ranked again. The gallery stays what it was, so that intervals are of the queries, and of this gallery.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Protocol

import numpy as np
from sklearn.utils import check_random_state

__all__ = ["Evidence", "QueryNumbers", "check_bootstrap", "draw_samples", "intervals"]

_BLOCK = 1 << 20  # counts that are drawn at once


class Evidence(Protocol):
    """What numbers are made of, image by image."""

    @property
    def n_units(self) -> int:
        """How many images, or groups of them, can be drawn."""

    def samples(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        """Return each number (n_draws,) where the units count so often, (n_draws, n_units) float64."""


@dataclass(frozen=True)
class QueryNumbers:
    """What numbers of one direction of retrieval are made of.

    Attributes
    ----------
    values : dict of str to ndarray of shape (n_query,)
        Those of which numbers are weighted means.
    medians : dict of str to ndarray of shape (n_query,)
        Expected 0-based ranks of which numbers are weighted medians, as `median_rank` has it.
    weight : ndarray of shape (n_query,)
    unit : ndarray of shape (n_query,), int64
        The image of each query, or its group.
    n_units : int
    """

    values: dict[str, np.ndarray]
    medians: dict[str, np.ndarray]
    weight: np.ndarray
    unit: np.ndarray
    n_units: int

    def samples(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        """Return each number (n_draws,) where the units count so often."""
        weights = [self.weight, *(self.weight * value for value in self.values.values())]
        sums = np.column_stack([np.bincount(self.unit, one, minlength=self.n_units) for one in weights])
        drawn = counts @ sums  # (n_draws, 1 + n_values)
        # Of weights that are 0 for nearly all images none may be drawn: such a draw says nothing.
        with np.errstate(invalid="ignore"):
            means = drawn[:, 1:] / drawn[:, :1]
        numbers = dict(zip(self.values, means.T, strict=True))
        for name, ranks in self.medians.items():
            order = np.argsort(ranks)
            below = np.cumsum(counts[:, self.unit[order]] * self.weight[order], axis=1)
            half = below[:, -1:] / 2
            lower = np.minimum((below < half).sum(axis=1), len(order) - 1)
            upper = np.minimum((below <= half).sum(axis=1), len(order) - 1)
            numbers[name] = np.floor((ranks[order][lower] + ranks[order][upper]) / 2) + 1
        return numbers


def check_bootstrap(n_bootstrap: Any, confidence: Any) -> None:
    """Check the parameters of a bootstrap."""
    if n_bootstrap is not None and (
        isinstance(n_bootstrap, bool) or not isinstance(n_bootstrap, int | np.integer) or n_bootstrap < 2
    ):
        raise ValueError(f"n_bootstrap must be an int of at least 2, or None, got {n_bootstrap!r}")
    if isinstance(confidence, bool) or not isinstance(confidence, Real) or not 0 < float(confidence) < 1:
        raise ValueError(f"confidence must be a number between 0 and 1, got {confidence!r}")


def draw_samples(parts: Sequence[Sequence[Evidence]], n_bootstrap: int, random_state: Any) -> dict[str, np.ndarray]:
    """Draw the images again and again, each time as many as there are.

    Parameters
    ----------
    parts : sequence of sequences of Evidence
        Of each fold the evidence, of the same units within; numbers of several folds are averaged, and each fold's
        images are drawn on their own.
    n_bootstrap : int
    random_state : int, RandomState or None
        The same number draws the same images, whatever the evidence is.

    Returns
    -------
    dict of str to ndarray of shape (n_bootstrap,)
    """
    seeds = check_random_state(random_state).randint(2**31 - 1, size=len(parts))
    folds = [_draw_one(part, n_bootstrap, int(seed)) for part, seed in zip(parts, seeds, strict=True)]
    return {name: np.mean([fold[name] for fold in folds], axis=0) for name in folds[0]}


def _draw_one(part: Sequence[Evidence], n_bootstrap: int, seed: int) -> dict[str, np.ndarray]:
    blocks: dict[str, list[np.ndarray]] = {}
    for counts in _counts(part[0].n_units, n_bootstrap, np.random.default_rng(seed)):
        for evidence in part:
            for name, values in evidence.samples(counts).items():
                blocks.setdefault(name, []).append(values)
    return {name: np.concatenate(values) for name, values in blocks.items()}


def _counts(n_units: int, n_draws: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield how often each unit is drawn, (n_block, n_units) float64."""
    step = max(_BLOCK // n_units, 1)
    for start in range(0, n_draws, step):
        n_block = min(step, n_draws - start)
        drawn = rng.integers(n_units, size=(n_block, n_units)) + n_units * np.arange(n_block)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=n_block * n_units)
        yield counts.reshape(n_block, n_units).astype(np.float64)


def intervals(samples: Mapping[str, np.ndarray], confidence: float) -> dict[str, float]:
    """Return the ends of the intervals that hold so much of the samples, as "name_low" and "name_high"."""
    ends: dict[str, float] = {}
    for name, values in samples.items():
        told = values[~np.isnan(values)]
        low, high = np.quantile(told, [(1 - confidence) / 2, (1 + confidence) / 2]) if len(told) else (np.nan, np.nan)
        ends |= {f"{name}_low": float(low), f"{name}_high": float(high)}
    return ends
