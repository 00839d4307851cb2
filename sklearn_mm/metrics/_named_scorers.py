"""Several numbers of one scorer, each under its name, from one pass over the images."""

import threading
from collections.abc import Callable, Iterable
from typing import Any

from sklearn.base import clone

__all__ = ["SharedPass", "named_scorers"]


class SharedPass:
    """What the first of several scorers has computed, kept until the last of them has asked for it.

    Parameters
    ----------
    n_scorers : int
    """

    def __init__(self, n_scorers: int) -> None:
        self.n_scorers = n_scorers
        self._kept: dict[int, list[Any]] = {}  # of each thread: arguments, result, how many ask for it yet

    def __getstate__(self) -> dict[str, Any]:
        return {"n_scorers": self.n_scorers, "_kept": {}}

    def of(self, arguments: tuple[Any, ...], compute: Callable[[], Any]) -> Any:
        """Return what `compute` gives for these very objects, from an earlier scorer where there was one."""
        thread = threading.get_ident()
        kept = self._kept.pop(thread, None)
        if kept is None or any(a is not b for a, b in zip(kept[0], arguments, strict=True)):
            kept = [arguments, compute(), self.n_scorers]
        kept[2] -= 1
        if kept[2]:
            self._kept[thread] = kept
        return kept[1]


def named_scorers(scorer: Any, metrics: Iterable[str]) -> dict[str, Any]:
    """Make scorers of one number each, for a search that reports several.

    What `scoring` is told beforehand, scikit-learn checks beforehand: with ``refit=True``, or a `refit` by a name that
    is none of these, a search says so before it fits anything. The scorers of one call share one pass over the images.

    Parameters
    ----------
    scorer : RetrievalScorer or AnnotationScorer
        What they have in common; its own ``metric`` does not count.
    metrics : sequence of str
        Names as the scorer's parameter ``metric`` takes them.

    Returns
    -------
    dict of str to scorer
        To be passed as `scoring`, in the order of `metrics`.

    Raises
    ------
    ValueError
        There is no such number, or no name at all, or one twice.
    TypeError
        `metrics` is one str.

    Examples
    --------
    >>> from sklearn.model_selection import GridSearchCV
    >>> from sklearn_mm.metrics import RetrievalScorer, named_scorers
    >>> from sklearn_mm.retrieval import CorrelationRanker
    >>> scoring = named_scorers(RetrievalScorer(), ["rsum", "t2i_hit@10"])
    >>> GridSearchCV(CorrelationRanker(), {"power": [1, 1.5]}, scoring=scoring).fit([[0]] * 10, ["a dot"] * 10)
    Traceback (most recent call last):
    ValueError: For multi-metric scoring, the parameter refit must be set to a scorer key or a callable ...
    """
    if isinstance(metrics, str):
        raise TypeError(f"metrics must be a list of names, got {metrics!r}; for one number set metric={metrics!r}")
    names = list(metrics)
    if not names or len(set(names)) < len(names):
        raise ValueError(f"metrics must hold each name once, and one at least, got {names!r}")
    for name in names:
        type(scorer)(metric=name)  # refuses one that names no number
    shared = SharedPass(len(names))
    scorers = {name: clone(scorer).set_params(metric=name) for name in names}
    for one in scorers.values():
        one._shared = shared
    return scorers
