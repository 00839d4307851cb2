"""Labels that are probably wrong or missing: what models say of images that they were not trained on."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit, logit
from sklearn import get_config
from sklearn.base import clone
from sklearn.model_selection import GroupKFold, KFold, check_cv
from sklearn.pipeline import Pipeline
from sklearn.utils import _safe_indexing
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import has_fit_parameter

from sklearn_mm._checks import check_groups
from sklearn_mm._params import Integral
from sklearn_mm._unicode import normal_label
from sklearn_mm.annotation._data import prevalence_of
from sklearn_mm.annotation._labels import GivenLabels, normal_labels, read_labels
from sklearn_mm.annotation._rules import fit_score_odds
from sklearn_mm.exceptions import LabelWarning
from sklearn_mm.towers import n_rows_of

__all__ = ["LabelIssues", "label_issues"]

_ERROR_RATE = 0.05  # of labels, before anything is looked at
_LEAST = 1e-6  # probability: the log odds of any are finite
_CALIBRATED_BY = 1 << 20  # labels of images, of each fold
_SHOWN = 10


@dataclass(frozen=True, repr=False)
class LabelIssues:
    """Labels that are probably wrong or missing, the most likely first.

    Parameters
    ----------
    row : ndarray of shape (n_issues,), int64
        Of the image in X.
    label : ndarray of shape (n_issues,)
    kind : ndarray of shape (n_issues,), str
        "wrong" of a label that the image has, "missing" of one that it has not.
    score : ndarray of shape (n_issues,), float64
        The probability that this is an error, if one label in twenty is.
    given : list of list
        All labels the image has.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_mm.annotation import LabelIssues
    >>> issues = LabelIssues(np.array([7]), np.array(["dog"]), np.array(["missing"]), np.array([0.9]), [["sea", "sun"]])
    >>> print(issues)
       row  score  kind     label
         7   0.90  missing  dog        given: sea, sun
    """

    row: np.ndarray
    label: np.ndarray
    kind: np.ndarray
    score: np.ndarray
    given: list[list[Any]]

    def __len__(self) -> int:
        return len(self.row)

    def __getitem__(self, part: slice) -> "LabelIssues":
        return LabelIssues(self.row[part], self.label[part], self.kind[part], self.score[part], self.given[part])

    def __str__(self) -> str:
        lines = [f"{'row':>6}  score  kind     label"]
        for row, label, kind, score, given in zip(*self[:_SHOWN]._columns().values(), strict=True):
            lines.append(f"{row:>6}  {score:5.2f}  {kind:<7}  {label!s:<10} given: {', '.join(map(str, given))}")
        return "\n".join(lines + ([f"... and {len(self) - _SHOWN} more"] if len(self) > _SHOWN else []))

    __repr__ = __str__

    def _columns(self) -> dict[str, Any]:
        return {"row": self.row, "label": self.label, "kind": self.kind, "score": self.score, "given": self.given}

    def to_frame(self) -> Any:
        """Return a DataFrame of columns row, label, kind, score and given; needs pandas."""
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError("to_frame needs pandas: pip install pandas") from error
        return pd.DataFrame(self._columns())


class _Suspects(NamedTuple):
    row: np.ndarray  # (n,)
    column: np.ndarray  # (n,)
    log_odds: np.ndarray  # (n,), that this is an error, as far as the image tells


def label_issues(
    annotator: Any, X: Any, Y: Any, *, cv: Any = 5, groups: Any = None, n_jobs: int | None = None
) -> LabelIssues:
    """Find labels that are probably wrong or missing.

    Parameters
    ----------
    annotator : estimator
        With `fit` and `predict_proba`: a `MultiLabelAnnotator`, or a pipeline that ends in one. It is cloned.
    X : as `annotator` takes it
    Y : labels in any form that `MultiLabelAnnotator.fit` takes
        NaN is a label that is not known; it is neither wrong nor missing.
    cv : int, splitter or iterable of (train, test), default=5
        An int draws folds at a fixed seed, whole groups at a time.
    groups : array-like of shape (n_images,), optional
        Images of one group (one scene, near duplicates) are judged by models that saw none of them. An annotator, also
        at the end of a pipeline, holds them out together too.
    n_jobs : int, optional
        Folds that are trained at once.

    Returns
    -------
    LabelIssues
        A row for each label that is suspicious, the most likely errors first.

    Raises
    ------
    ValueError
        Lengths differ, `cv` is no number of folds that these images have, or Y is nothing that `fit` takes.
    TypeError
        `annotator` has no `predict_proba`.

    See Also
    --------
    MultiLabelAnnotator.partial_fit : Learns from those that were put right.

    Notes
    -----
    Models trained on the other folds say how likely each label of an image is; a slope and an intercept on their log
    odds fit it to the labels of its fold. If as many labels were put wrongly as were forgotten, then of a label that
    holds for a share s of the images, and that a model believes with probability p, the odds of an error grow as
    p / (1 - p) where it is missing, and as s / (1 - s) * (1 - p) / p where it is given. So the two kinds, and rare and
    frequent labels, stand in one list. It ends where nothing speaks for an error: at p < 1/2 of missing labels and at
    p > s of given ones. Of a label that no other fold has, nothing is said.

    Takes the time of as many fits as there are folds, and the memory of the probabilities of one.

    References
    ----------
    .. [1] Northcutt, Jiang, Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels", JAIR 70, 2021,
       which ranks by the probability of the label that was given.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_mm.annotation import MultiLabelAnnotator, label_issues
    >>> rng = np.random.default_rng(0)
    >>> truth = rng.random((200, 3)) < 0.4
    >>> features = truth + rng.normal(0, 0.2, truth.shape)
    >>> names = np.array(["bird", "cloud", "sea"])
    >>> labels = [names[row].tolist() for row in truth]
    >>> features[7], labels[7] = [1, 0, 0], ["cloud"]
    >>> issues = label_issues(MultiLabelAnnotator(max_epochs=5, n_folds=None, random_state=0), features, labels)
    >>> issues.row[:2], sorted(zip(issues.kind[:2].tolist(), issues.label[:2].tolist()))
    (array([7, 7]), [('missing', 'bird'), ('wrong', 'cloud')])
    """
    if not (hasattr(annotator, "fit") and hasattr(annotator, "predict_proba")):
        raise TypeError(f"expected an estimator with fit and predict_proba, got {type(annotator).__name__}")
    n_rows = n_rows_of(X)
    last = annotator.steps[-1][1] if isinstance(annotator, Pipeline) else annotator
    given = read_labels(Y, n_rows, getattr(last, "label_separator", None))
    groups = check_groups(groups, n_rows)
    folds = _folds(cv, n_rows, groups)
    names = _names_of_groups(annotator) if groups is not None else ()
    share = prevalence_of(given.matrix, np.ones(n_rows)).clip(_LEAST, 1 - _LEAST)
    parts = Parallel(n_jobs=n_jobs)(
        delayed(_suspect)(clone(annotator), X, Y, given, share, *fold, dict.fromkeys(names, groups)) for fold in folds
    )
    row, column, log_odds = (np.concatenate(own) for own in zip(*parts, strict=True))
    # Of equal ones the first row; what is in two test sets of a splitter is judged by the surer model.
    order = np.lexsort((column, row, -log_odds))
    pairs = np.stack([row, column], axis=1)[order]
    order = order[np.sort(np.unique(pairs, axis=0, return_index=True)[1])]
    return _issues(given, row[order], column[order], log_odds[order])


def _folds(cv: Any, n_rows: int, groups: np.ndarray | None) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the rows of each fold to train on, and its own."""
    if isinstance(cv, Integral):
        n_units = n_rows if groups is None else len(np.unique(groups))
        if not 2 <= int(cv) <= n_units:
            what = "images" if groups is None else "groups"
            raise ValueError(f"expected cv of 2 to {n_units}, the number of {what}, got {cv}")
        kind = KFold if groups is None else GroupKFold
        cv = kind(int(cv), shuffle=True, random_state=0)
    # scikit-learn looks at the labels of a cv of None alone: there may be lists in them
    return [(np.asarray(train), np.asarray(test)) for train, test in check_cv(cv).split(np.zeros(n_rows), None, groups)]


def _names_of_groups(annotator: Any) -> Sequence[str]:
    """Return by which argument of `fit` groups go to an annotator; none where it takes none."""
    if not isinstance(annotator, Pipeline):
        return ["groups"] if has_fit_parameter(annotator, "groups") else []
    name, last = annotator.steps[-1]
    if not has_fit_parameter(last, "groups"):
        return []
    if not get_config()["enable_metadata_routing"]:
        return [f"{name}__groups"]
    return ["groups"] if last.get_metadata_routing().fit.requests.get("groups") is True else []


def _suspect(
    annotator: Any,
    X: Any,
    Y: Any,
    given: GivenLabels,
    share: np.ndarray,
    train: np.ndarray,
    test: np.ndarray,
    arguments: Mapping[str, np.ndarray],
) -> _Suspects:
    """Train on some rows, and return what is suspicious of others."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LabelWarning)  # a fold need not have all labels
        annotator.fit(
            _safe_indexing(X, train),
            _safe_indexing(Y, train),
            **{name: values[train] for name, values in arguments.items()},
        )
    probability = np.asarray(annotator.predict_proba(_safe_indexing(X, test)), dtype=np.float64)
    column, place = _columns_of(annotator, given)
    seen = (given.matrix[train][:, column] == 1).sum(axis=0) > 0
    column, place = column[seen], place[seen]
    truth = given.matrix[test].toarray()[:, column]
    odds = logit(probability[:, place].clip(_LEAST, 1 - _LEAST))
    if not np.isfinite(truth).any():
        return _Suspects(*(np.empty(0, dtype) for dtype in (np.int64, np.int64, np.float64)))
    some = np.linspace(0, len(test) - 1, min(len(test), max(1, _CALIBRATED_BY // max(1, len(column))))).astype(int)
    intercept, slope = fit_score_odds(odds[some], truth[some], np.ones(len(some)))
    odds = intercept + slope * odds
    log_odds = np.where(truth == 1, logit(share[column]) - odds, np.where(truth == 0, odds, -np.inf))
    row, found = np.nonzero(log_odds > 0)
    return _Suspects(test[row], column[found], log_odds[row, found])


def _columns_of(annotator: Any, given: GivenLabels) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels that a model of a fold knows, as columns of all labels, and where it has them."""
    classes = np.asarray(annotator.classes_)
    if not given.named:  # a matrix has all columns in each fold
        return np.arange(len(classes)), np.arange(len(classes))
    column_of = {label: column for column, label in enumerate(normal_labels(given.classes).tolist())}
    return np.array([column_of[normal_label(label)] for label in classes.tolist()]), np.arange(len(classes))


def _issues(given: GivenLabels, row: np.ndarray, column: np.ndarray, log_odds: np.ndarray) -> LabelIssues:
    matrix, classes = given.matrix, given.classes
    has = np.asarray(matrix[row, column]).ravel() == 1 if len(row) else np.zeros(0, bool)
    listed = []
    for own in row:
        stored = slice(matrix.indptr[own], matrix.indptr[own + 1])
        listed.append(classes[np.sort(matrix.indices[stored][matrix.data[stored] == 1])].tolist())
    kind = np.where(has, "wrong", "missing")
    return LabelIssues(row, classes[column], kind, expit(log_odds + logit(_ERROR_RATE)), listed)
