"""What stands at the end of pipelines and searches, and what reaches it."""

from typing import Any

__all__ = ["enter", "enter_class", "warn_of_trained_rows"]


def enter(estimator: Any, X: Any) -> tuple[Any, Any]:
    """Go through searches and pipelines to the last estimator, and bring the images there.

    They pass the steps before it once: what scores asks the last one for several things.
    """
    pipelines, last = _way_in(estimator)
    for pipeline in pipelines:
        if len(pipeline.steps) > 1:
            X = pipeline[:-1].transform(X)
    return last, X


def enter_class(estimator: Any) -> type:
    """Return the class of the last estimator in pipelines and searches, without an image to bring there."""
    return type(_way_in(estimator)[1])


def _way_in(estimator: Any) -> tuple[list[Any], Any]:
    """Return the pipelines from the outermost on, and what stands at the end of the innermost."""
    pipelines = []
    while True:
        if hasattr(estimator, "best_estimator_"):
            estimator = estimator.best_estimator_
        elif hasattr(estimator, "steps"):
            pipelines.append(estimator)
            estimator = estimator.steps[-1][1]
        else:
            return pipelines, estimator


def warn_of_trained_rows(model: Any, X: Any, captions: Any = None) -> None:
    """Warn where a model knows of rows that are scored that it was trained on them."""
    trained = getattr(model, "_trained_rows", None)  # estimators of this library have it after `fit`
    if trained is not None:
        trained.warn(X, captions)
