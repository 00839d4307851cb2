"""What a fitted annotator is asked."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from scipy import sparse
from scipy.special import expit, softmax
from sklearn.utils.validation import check_is_fitted

from sklearn_mm._checks import check_weights
from sklearn_mm._device import torch_threads
from sklearn_mm._params import validate_params
from sklearn_mm._unreadable import refuse_unreadable
from sklearn_mm.annotation._count_predictor import LabelCountPredictor
from sklearn_mm.annotation._labels import LabelForm, overall_f1, read_labels
from sklearn_mm.annotation._model import AnnotationModel, Scoring
from sklearn_mm.annotation._parameters import check_number
from sklearn_mm.annotation._rules import LabelChooser, LabelRules
from sklearn_mm.nn.annotation import AnnotationNetwork

__all__ = ["LabelsImages"]


class LabelsImages:
    """Scores and labels of images, by a network that was trained and rules that were learnt."""

    label_count: str | int | LabelCountPredictor
    label_separator: str | None
    n_jobs: int | None
    classes_: np.ndarray
    network_: AnnotationNetwork
    _form: LabelForm
    _scoring: Scoring
    _rules: LabelRules | None
    _read: Callable[..., tuple[Any, Any, int]]
    _model: Callable[[AnnotationNetwork], AnnotationModel]

    def decision_function(self, X: Any, return_count: bool = False) -> Any:
        """Score all labels for each image.

        Parameters
        ----------
        X : as in `fit`
        return_count : bool, default=False
            Also return what `predict_count` does, from the same pass over the images.

        Returns
        -------
        scores : ndarray of shape (n_images, n_labels), float32
            Log odds, less the threshold where there is one: then the labels above 0 are those that `predict` gives.
            In any case it gives the `predict_count` best. Of one label a row with two classes, the log odds of the
            second, of shape (n_images,).
        count : ndarray of shape (n_images,), int64
            Only if `return_count`.
        """
        chooser = self._chooser()
        counts: list[np.ndarray] = []

        def finish(block: np.ndarray, numbers: np.ndarray | None) -> np.ndarray:
            if return_count:
                counts.append(chooser.choose(block, numbers)[1])
            return chooser.shift(block)

        scores = self._table(X, finish)
        if self._form.kind == "single" and scores.shape[1] == 2:  # scikit-learn's form of a binary classifier
            scores = scores[:, 1] - scores[:, 0]
        return (scores, np.concatenate(counts)) if return_count else scores

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of each label, shape (n_images, n_labels), float32."""
        check_is_fitted(self, "network_")
        finish = partial(softmax, axis=1) if self._form.kind == "single" else expit
        return self._table(X, lambda block, _: finish(block))

    def predict_count(self, X: Any) -> np.ndarray:
        """Return how many labels `predict` gives to each image, shape (n_images,), int64."""
        choose = self._chooser().choose
        with self._scored(X) as (_, blocks):
            return np.concatenate([choose(block, counts)[1] for _, block, counts in blocks])

    def predict(self, X: Any) -> Any:
        """Label images.

        Returns
        -------
        labels
            In the form of the Y that was fitted: an indicator of shape (n_images, n_labels), dense or sparse, or an
            object array of lists, the best label first, or one label for each image.
        """
        chosen = self._choose(X)
        return self._form.write(chosen, self.classes_)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the overall F1 of `predict`: of one label a row, the accuracy.

        Parameters
        ----------
        X : as in `fit`
        y : labels in any form that `fit` takes
            A label that was not fitted counts as missed, with a `LabelWarning`. What is NaN does not count. Columns of
            a DataFrame are told by their names, where these are labels that were fitted.
        sample_weight : array-like of shape (n_images,), optional

        Returns
        -------
        float
            As "O-F1" of `AnnotationScorer`: 0 where no label is right, also where none is predicted and none is true.
        """
        trained = getattr(self, "_trained_rows", None)  # none of a model saved before it was noted
        if trained is not None:
            trained.warn(X)
        chosen = self._choose(X).astype(np.float64)
        weight = check_weights(sample_weight, chosen.shape[0])
        given = read_labels(y, chosen.shape[0], self.label_separator, may_be_empty=True)
        return overall_f1(chosen, given, self.classes_, np.ones(chosen.shape[0]) if weight is None else weight)

    @contextmanager
    def _scored(self, X: Any) -> Iterator[tuple[int, Iterator[tuple[slice, np.ndarray, np.ndarray | None]]]]:
        """Give the number of images, and block by block their rows, scores and estimated numbers of labels."""
        check_is_fitted(self, "network_")
        refuse_unreadable(X)
        images, tags, _ = self._read(X, reset=False)
        model = self._model(self.network_)
        with torch_threads(self.n_jobs):
            inputs = model.prepare(images, tags)
            yield len(inputs), model.score_images(inputs)

    def _table(self, X: Any, finish: Callable[[np.ndarray, np.ndarray | None], np.ndarray]) -> np.ndarray:
        """Return what becomes of the scores of all images, and of their counts, (n_images, n_labels) float32."""
        with self._scored(X) as (n_images, blocks):
            table = np.empty((n_images, len(self.classes_)), dtype=np.float32)
            for rows, block, counts in blocks:
                table[rows] = finish(block, counts)
        return table

    def _choose(self, X: Any) -> Any:
        """Return the labels predicted as a sparse indicator, the best first in each row."""
        choose = self._chooser().choose
        with self._scored(X) as (_, blocks):
            return sparse.csr_array(sparse.vstack([choose(block, counts)[0] for _, block, counts in blocks], "csr"))

    def _chooser(self) -> LabelChooser:
        """Return the rule of `label_count`, which may have been set since `fit`."""
        check_is_fitted(self, "network_")
        validate_params(self)
        if self._counts is not None:
            validate_params(self._counts)
        if self._form.kind == "single":
            return LabelChooser(1, "round", self._scoring.unseen, None)  # whatever the parameter says
        check_number(self.label_count, len(self.classes_))
        if self._counts is not None:
            return LabelChooser("predict", self._counts.rounding, self._scoring.unseen, self._rules)
        return LabelChooser(self.label_count, "round", self._scoring.unseen, self._rules)

    @property
    def _counts(self) -> LabelCountPredictor | None:
        """How the number of labels is estimated; None where it is not asked for."""
        if self.label_count == "predict":
            return LabelCountPredictor()
        return self.label_count if isinstance(self.label_count, LabelCountPredictor) else None
