"""Several numbers of one scorer, each under its name, from one pass over the images."""

import threading
from collections.abc import Callable, Iterable
from typing import Any

from sklearn.base import clone

__all__ = ["from_one_pass", "named_scorers"]


def from_one_pass(scorer: Any, arguments: tuple[Any, ...], compute: Callable[[], Any]) -> Any:
    """Return what `compute` gives, or gave for these arguments to another of the scorers that share a pass.

    Parameters
    ----------
    scorer : estimator
        With a parameter ``metric``.
    arguments : tuple
        What it is called with, the fitted estimator first.
    compute : callable
    """
    shared = getattr(scorer, "_shared", None)
    return compute() if shared is None else shared.of(scorer.metric, arguments, compute)


class _SharedPass:
    """What the first of several scorers has computed, kept until the last of them has asked for it.

    Parameters
    ----------
    names : list of str
        Of the scorers.
    """

    def __init__(self, names: list[str]) -> None:
        self.names = names
        # of each thread: arguments with what the estimator held, result, and who has not asked for it yet
        self._kept: dict[int, tuple[list[Any], Any, set[str]]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"names": self.names, "_kept": {}}

    def of(self, name: str, arguments: tuple[Any, ...], compute: Callable[[], Any]) -> Any:
        """Return what `compute` gives for these very objects, from an earlier scorer where there was one.

        Nobody is given it twice, and nobody after the estimator has been fitted again.
        """
        thread = threading.get_ident()
        given, result, waiting = self._kept.pop(thread, ([], None, set()))
        now = _objects(arguments)
        if name not in waiting or len(given) != len(now) or any(a is not b for a, b in zip(given, now, strict=True)):
            result, waiting = compute(), set(self.names)
            now = _objects(arguments)  # the estimator may note something while it is asked
        waiting.discard(name)
        if waiting:
            self._kept[thread] = now, result, waiting
        return result


def _objects(arguments: tuple[Any, ...]) -> list[Any]:
    """Return the arguments, and what the estimator holds: a fit puts other objects there."""
    return [*arguments, *getattr(arguments[0], "__dict__", {}).values()]


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
    shared = _SharedPass(names)
    scorers = {name: clone(scorer).set_params(metric=name) for name in names}
    for one in scorers.values():
        one._shared = shared
    return scorers
