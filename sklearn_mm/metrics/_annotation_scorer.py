"""Annotation as scikit-learn's searches and cross-validation want it scored."""

from collections.abc import Iterable, Sequence
from inspect import signature
from numbers import Number
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.base import BaseEstimator

from sklearn_mm._checks import check_labels, label_matrix
from sklearn_mm._tables import as_number_table, frame_names, frame_part, is_frame, is_missing, shown
from sklearn_mm._unicode import normal_label
from sklearn_mm.metrics._annotation import check_annotation_options, report_labels
from sklearn_mm.metrics._bootstrap import Evidence
from sklearn_mm.metrics._inside import enter, warn_of_trained_rows
from sklearn_mm.metrics._named_scorers import from_one_pass
from sklearn_mm.metrics._one_number import check_annotation_metric, one_number
from sklearn_mm.registry import stored_as

__all__ = ["AnnotationScorer"]

_MARKS: tuple[Any, ...] = (0, 1)


@stored_as("metrics.AnnotationScorer")
class AnnotationScorer(BaseEstimator):
    """Score how well an estimator annotates images with several labels each.

    To be passed as `scoring`. The images go once through the steps of a pipeline; its last step is asked once
    for scores, by ``decision_function`` or else ``predict_proba``, and once for what it predicts. Where
    ``decision_function`` has a parameter `return_count`, as that of `MultiLabelAnnotator`, it gives both at once.

    Parameters
    ----------
    n_labels : {"predict", "true"} or int, default="predict"
        How many labels each image gets. "predict": as many as the estimator's ``predict_count`` says, or what
        its ``predict`` returns if it has none; "true" and a fixed number: see `annotation_report`.
    zero_division : {0.0, 1.0, nan}, default=0.0
        See `annotation_report`.
    absent_labels : {"skip", "zero"}, default="skip"
        See `annotation_report`.
    metric : str, default=None
        Give one number instead of a dict, as halving searches, learning curves and a search's ``refit=True`` want it:
        "O-F1", "mAP" or another of `annotation_report`; the error of the number of labels with its sign changed, as
        "neg_count_mae".

    Raises
    ------
    ValueError
        ``metric`` names no number; the message lists those there are. It is looked at here, as a search fits its
        first model before it calls a scorer, and takes an error there for a bad score.

    See Also
    --------
    annotation_report : The numbers, from scores.
    named_scorers : Several numbers for one search.

    Notes
    -----
    Any scikit-learn classifier of several labels will do, `MLPClassifier` and `OneVsRestClassifier` among
    them. From a dict a search has to be told which number to refit by, ``refit="O-F1"``: with ``refit=True``
    scikit-learn fits everything first and then says so, where with `named_scorers` it says so first. Searches take the
    largest number for the best: do not refit by "count_mae". With a ``metric`` there is nothing to say.

    Where Y holds lists of labels, columns are those of the estimator's ``classes_``. A true label that it does
    not know is one that it missed: it counts as a column of its own, with the lowest score everywhere. The
    columns of a DataFrame may stand in any order, if they are called as the classes are.

    The scores of all images and labels are in memory at once, as "mAP" ranks the images of each label: 4 GB in
    float32 for 10,000 labels of 100,000 images. The score of `MultiLabelAnnotator` itself needs a block of them.

    `sample_weight` reaches the scorer under metadata routing, when asked for by ``set_score_request``.

    Any number of threads may use a scorer at the same time.

    Examples
    --------
    >>> from sklearn.datasets import make_multilabel_classification
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.multiclass import OneVsRestClassifier
    >>> from sklearn_mm.metrics import AnnotationScorer
    >>> X, Y = make_multilabel_classification(n_classes=3, random_state=0)
    >>> model = OneVsRestClassifier(LogisticRegression()).fit(X, Y)
    >>> report = AnnotationScorer(n_labels="true")(model, X, Y)
    >>> report["O-F1"] > 0.8, report["count_mae"]
    (True, 0.0)
    """

    metric: str | None = None  # of scorers saved before there was any

    def __init__(
        self,
        n_labels: str | int = "predict",
        zero_division: float = 0.0,
        absent_labels: str = "skip",
        metric: str | None = None,
    ):
        if metric is not None:  # not in a call: a search would have fitted its first model for nothing
            check_annotation_metric(metric)
        self.n_labels = n_labels
        self.zero_division = zero_division
        self.absent_labels = absent_labels
        self.metric = metric

    def __call__(self, estimator: Any, X: Any, Y: Any, sample_weight: Any = None) -> Any:
        """Score a fitted estimator.

        Parameters
        ----------
        estimator : classifier of several labels
            Fitted; or a pipeline or search around one.
        X : sequence of length n_images
            Images or their features, as the estimator takes them.
        Y : array-like or sparse matrix of shape (n_images, n_labels), or sequence of sequences of labels
            The true labels: an indicator, NaN where a label is not known (in a frame None or NA too), or the labels of
            each image, in one str where the estimator has a `label_separator`.
        sample_weight : array-like of shape (n_images,), optional
            Weights of the images.

        Returns
        -------
        dict of str to float, or float
            As `annotation_report` returns it; the one number where there is a ``metric``.

        Raises
        ------
        TypeError
            The estimator has neither ``decision_function`` nor ``predict_proba``, or Y is a mapping, a set or a file.
        ValueError
            A parameter is none of its options, or images, labels and weights do not fit together.
        """
        arguments = (estimator, X, Y, sample_weight)
        report = from_one_pass(self, arguments, lambda: self._report(*arguments))
        return report if self.metric is None else one_number(report, self.metric)

    def _report(
        self, estimator: Any, X: Any, Y: Any, sample_weight: Any = None, evidence: list[Evidence] | None = None
    ) -> dict[str, float]:
        """Return all numbers, and add what they are made of to `evidence`."""
        check_annotation_options(self.zero_division, self.absent_labels)
        if self.metric is not None:
            check_annotation_metric(self.metric)  # set_params has not looked
        if isinstance(self.n_labels, str) and self.n_labels not in ("predict", "true"):
            raise ValueError(f"n_labels must be 'predict', 'true' or a positive int, got {self.n_labels!r}")
        classifier, features = enter(estimator, X)
        warn_of_trained_rows(classifier, features)
        if self.n_labels == "predict":
            scores, n_labels = _score_and_predict(classifier, features)
        else:
            scores, n_labels = _score_labels(classifier, features), self.n_labels
        Y = check_labels(Y, getattr(classifier, "label_separator", None))
        if is_frame(Y):
            Y = as_number_table(_in_order(Y, getattr(classifier, "classes_", ())))
        if _is_indicator(Y, scores.shape[1]):
            truth = Y
        else:
            truth, n_unknown = _mark(Y, classifier.classes_)
            # Scored below all others, so that it counts as missed.
            scores = _widen(scores, n_unknown, -np.inf)
            if sparse.issparse(n_labels) or np.ndim(n_labels) == 2:
                n_labels = _widen(n_labels, n_unknown, 0)
        return report_labels(
            truth,
            scores,
            n_labels,
            zero_division=self.zero_division,
            absent_labels=self.absent_labels,
            sample_weight=sample_weight,
            evidence=evidence,
        )

    def score(self, X: Any, Y: Any, sample_weight: Any = None) -> float:
        """Declare which metadata the scorer takes; call the scorer itself instead."""
        raise TypeError("an AnnotationScorer scores an estimator: call it as scorer(estimator, X, Y)")


def _score_and_predict(classifier: Any, X: Any) -> tuple[Any, Any]:
    """Return scores (n_images, n_labels), and the number of labels of each image or an indicator of the labels."""
    score = getattr(classifier, "decision_function", None)
    if score is not None and "return_count" in signature(score).parameters:
        scores, counts = score(X, return_count=True)
        return _as_table(scores), counts
    return _score_labels(classifier, X), _predict(classifier, X)


def _score_labels(classifier: Any, X: Any) -> Any:
    """Return scores (n_images, n_labels)."""
    if hasattr(classifier, "decision_function"):
        scores = classifier.decision_function(X)
    elif hasattr(classifier, "predict_proba"):
        scores = classifier.predict_proba(X)
    else:
        raise TypeError(
            "expected an estimator that scores labels by decision_function or predict_proba, "
            f"or a pipeline that ends in one, got {type(classifier).__name__}"
        )
    return _as_table(scores)


def _as_table(scores: Any) -> Any:
    if isinstance(scores, list):  # of a table (n_images, 2) for each label, as forests and neighbours have it
        scores = np.column_stack([np.asarray(one)[:, -1] for one in scores])
    return scores[:, None] if np.ndim(scores) == 1 else scores


def _predict(classifier: Any, X: Any) -> Any:
    """Return the number of labels of each image, or an indicator of the labels themselves."""
    if hasattr(classifier, "predict_count"):
        return classifier.predict_count(X)
    labels = classifier.predict(X)
    return labels if sparse.issparse(labels) or np.ndim(labels) == 2 else np.asarray(labels)[:, None]


def _is_indicator(Y: Any, n_labels: int) -> bool:
    """Tell an indicator from lists of labels; nested lists are one if each row is a 0 or 1 for each label."""
    if sparse.issparse(Y):
        return True
    if hasattr(Y, "ndim") and Y.ndim == 2:
        return np.asarray(Y).dtype.kind in "biuf" or _is_indicator(np.asarray(Y).tolist(), n_labels)
    return all(
        isinstance(row, Sequence | np.ndarray)
        and not isinstance(row, str)
        and len(row) == n_labels
        and all(is_missing(mark) or (isinstance(mark, Number) and mark in _MARKS) for mark in row)
        for row in Y
    )


def _in_order(Y: Any, classes: Any) -> Any:
    """Bring the columns of a DataFrame that are called as the classes are into their order."""
    names = frame_names(Y).tolist()
    place = {normal_label(name): column for column, name in enumerate(names)}
    wanted = [normal_label(label) for label in np.asarray(classes).tolist()]
    if len(wanted) != len(names) or len(place) != len(names) or place.keys() != set(wanted):
        return Y
    return frame_part(Y, np.array([place[name] for name in wanted]))


def _mark(Y: Sequence[Iterable[Any]], classes: Any) -> tuple[sparse.csr_array, int]:
    """Return the indicator of lists of labels, with columns behind for what is no class, and their number."""
    column_of = {normal_label(label): column for column, label in enumerate(np.asarray(classes).tolist())}
    n_classes = len(column_of)
    for number, row in enumerate(Y):
        if isinstance(row, str) or not isinstance(row, Iterable):
            raise ValueError(f"Y must hold a list of labels for each image, got {shown(row)} in row {number}")
        for label in row:
            if is_missing(label):
                raise ValueError(f"Y must hold labels, got {label!r} among those of row {number}")
            # behind the classes, in the order of first sight
            column_of.setdefault(normal_label(label), len(column_of))
    rows = [list(map(normal_label, row)) for row in Y]
    return label_matrix(rows, column_of, np.int8), len(column_of) - n_classes


def _widen(matrix: Any, n_columns: int, value: float) -> Any:
    """Add columns of one value."""
    if not n_columns:
        return matrix
    if sparse.issparse(matrix):  # of predictions: nothing is stored for 0
        return sparse.hstack([matrix, sparse.csr_array((matrix.shape[0], n_columns), dtype=matrix.dtype)], "csr")
    return np.column_stack([matrix, np.full((len(matrix), n_columns), value)])
