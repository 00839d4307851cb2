"""Labels by their names: from none or a few labelled images."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from scipy import sparse
from scipy.special import expit, log_softmax, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from sklearn_mm._checks import as_features, check_features, check_finite_rows, check_weights
from sklearn_mm._docs import shared_docs
from sklearn_mm._params import HasMethods, StrOptions, positive_int, validate_params
from sklearn_mm._unreadable import refuse_unreadable, take_readable
from sklearn_mm.annotation._label_names import label_text, ready_encoder, unit_rows
from sklearn_mm.annotation._labels import LabelForm, overall_f1, read_labels
from sklearn_mm.annotation._rules import (
    HeldOutLabels,
    LabelChooser,
    LabelRules,
    best_threshold,
    fit_score_odds,
    label_thresholds,
    rank_labels,
)
from sklearn_mm.images import check_sequence
from sklearn_mm.persistence import PickleStateMixin
from sklearn_mm.registry import stored_as
from sklearn_mm.towers import n_rows_of

__all__ = ["ZeroShotAnnotator"]

_UNKNOWN_SCALE = 1 / 0.07  # of encoders that do not say by what they multiply the cosine
_BLOCK = 4096  # images whose labels are chosen at once
_LEAST_ODDS = 1e-6


@shared_docs
@stored_as("annotation.ZeroShotAnnotator")
class ZeroShotAnnotator(ClassifierMixin, PickleStateMixin, BaseEstimator):
    """Label images by what the labels are called, from no or a few examples.

    The names of a label, put into sentences, are embedded by the text side of a dual encoder, and an image gets the
    labels whose vectors are near its own [1]_. Examples are there to learn how near is near enough.

    Parameters
    ----------
    text_encoder : transformer, default=None
        From texts to vectors of the space of the images: a `PretrainedTextEncoder` of the same model as
        `image_encoder`. None where that is a ranker.
    image_encoder : transformer, default=None
        From pictures to vectors: a `PretrainedImageEncoder`; or a fitted ranker, as ``FrozenEstimator(ranker)``. None
        takes X as the vectors.
    labels : sequence of str or int, default=None
        All labels there may be, those of which there is no example too. None takes the labels of y.
    label_names : mapping from label to str or sequence of str, default=None
        What a label is called in sentences, where it is not as the label itself is written (an underscore is a space);
        of several names the vectors are averaged.
    templates : sequence of str, default=("a photo of a {}.",)
        Sentences with ``{}`` in the place of the name; their vectors are averaged.
    label_count : {"threshold", "label-thresholds", "count"} or int, default="threshold"
        How many labels an image gets, of what is best for the overall F1 in the examples: all above one threshold; all
        above a threshold of each label's own, of which there are five examples or more; or the same number each. An
        int is that number. Where y is one label a row, or there is none, each image gets its best one.
    label_separator : str, default=None
        What stands between the labels of an image where they are given as one str, as in `MultiLabelAnnotator`.

    Attributes
    ----------
    classes_ : ndarray of shape (n_labels,)
        The labels.
    prompts_ : list of list of str
        The sentences of each label.
    label_vectors_ : ndarray of shape (n_labels, d), float32
        Of unit length.
    image_encoder_ : estimator or None
        The fitted encoder.
    n_features_in_ : int
        Width of X, where it is a matrix of vectors.

    See Also
    --------
    MultiLabelAnnotator : Learns labels from many examples.

    Notes
    -----
    Without examples a probability is the softmax of the scores over all labels, or, of a model that was trained by a
    sigmoid, what this gives. With examples of several labels a row a slope and an intercept, the same for all labels,
    turn scores into log odds.

    Nothing is trained but these numbers: `fit` takes the time of embedding the examples and a few sentences a label.

    %(threads)s

    References
    ----------
    .. [1] Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021,
       https://arxiv.org/abs/2103.00020

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.feature_extraction.text import CountVectorizer
    >>> from sklearn_mm.annotation import ZeroShotAnnotator
    >>> words = CountVectorizer(vocabulary=["cat", "dog", "tree"])  # the text side of a space of three words
    >>> annotator = ZeroShotAnnotator(words, labels=["cat", "dog"], label_names={"dog": ["dog", "dog or tree"]})
    >>> annotator.fit(np.eye(3)).predict([[1.0, 0.1, 0.0], [0.0, 0.5, 0.9]])
    array(['cat', 'dog'], dtype=object)
    >>> annotator.prompts_[0]
    ['a photo of a cat.']
    """

    _parameter_constraints: dict[str, Any] = {
        "text_encoder": [HasMethods(["fit", "transform"]), None],
        "image_encoder": [HasMethods(["fit", "transform"]), None],
        "labels": ["array-like", None],
        "label_names": [Mapping, None],
        "templates": ["array-like"],
        "label_count": [StrOptions({"threshold", "label-thresholds", "count"}), positive_int],
        "label_separator": [str, None],
    }

    classes_: np.ndarray

    def __init__(
        self,
        text_encoder: Any = None,
        image_encoder: Any = None,
        *,
        labels: Sequence[Any] | None = None,
        label_names: Mapping[Any, str | Sequence[str]] | None = None,
        templates: Sequence[str] = ("a photo of a {}.",),
        label_count: str | int = "threshold",
        label_separator: str | None = None,
    ) -> None:
        self.text_encoder = text_encoder
        self.image_encoder = image_encoder
        self.labels = labels
        self.label_names = label_names
        self.templates = templates
        self.label_count = label_count
        self.label_separator = label_separator

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Embed the labels' names, and learn from examples how many labels an image gets.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_images, d), or pictures for `image_encoder`
        y : labels, optional
            In any form that `MultiLabelAnnotator` takes. None where there are no examples; `labels` says then what
            labels there are, and of X the width counts alone.
        sample_weight : array-like of shape (n_images,), optional
            How much each image counts.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            There are neither labels nor examples; an example has a label that is not among `labels` (the message names
            the row); a template has no place for a name; the vectors of images and texts are of different widths.
        TypeError
            A fitted ranker or an encoder that would be trained is not in a ``FrozenEstimator``.
        """
        self._check_parameters()
        X, n_rows = self._read(X, reset=True)
        given = None if y is None else read_labels(y, n_rows, self.label_separator)
        if self.labels is not None:
            self.classes_ = _as_labels(self.labels)
        elif given is not None:
            self.classes_ = given.classes
        else:
            raise ValueError("requires y to be passed, or labels, but the target y is None and labels is None")
        self._check_number()
        truth = None if given is None else given.require(self.classes_)
        weight = check_weights(sample_weight, n_rows)
        if given is None and isinstance(X, list | tuple | np.ndarray):
            X = X[:1]  # nothing is learnt from the others
        rows, kept = self._fit_images(X)
        self.prompts_ = [self._prompts_of(label) for label in self.classes_.tolist()]
        self.label_vectors_ = self._embed_labels()
        if rows.shape[1] != self.label_vectors_.shape[1]:
            raise ValueError(
                f"the vectors of images have {rows.shape[1]} components and those of texts "
                f"{self.label_vectors_.shape[1]}; take both encoders from one dual encoder"
            )
        if given is None:
            self._form = LabelForm("single" if isinstance(self.label_count, str) else "lists")
        else:
            self._form = given.form
        self._odds: np.ndarray | None = None
        self._rules: LabelRules | None = None
        self._count = 1
        if truth is not None and self._form.kind != "single":
            weight = np.ones(n_rows) if weight is None else weight
            self._learn_rules(rows, truth.toarray()[kept].astype(np.float32), weight[kept])
        return self

    # What is near enough ------------------------------------------------------------------------------------------

    def _learn_rules(self, rows: np.ndarray, truth: np.ndarray, weight: np.ndarray) -> None:
        """Learn from examples (n, d), their labels (n, n_labels) and weights (n,)."""
        cosines = self._cosines(rows)
        self._odds = fit_score_odds(cosines, truth, weight)
        scores = self._log_odds(cosines)
        ranked, labels = rank_labels(scores, len(self.classes_))
        correct = np.take_along_axis(truth, labels, axis=1)
        held_out = HeldOutLabels(correct, np.nansum(truth, axis=1), weight)
        threshold = best_threshold(ranked, held_out)[0]
        thresholds = label_thresholds(scores, truth, weight, threshold).astype(np.float32)
        self._rules = LabelRules(len(self.classes_), None, threshold, thresholds)
        f1 = [held_out.f1(np.full(len(rows), k)) for k in range(1, len(self.classes_) + 1)]
        self._count = 1 + int(np.argmax(f1))

    def _log_odds(self, cosines: np.ndarray) -> np.ndarray:
        """Turn cosines into log odds: (n, n_labels), float32."""
        if self._odds is not None:
            intercept, slope = self._odds
            return (intercept + slope * cosines).astype(np.float32)
        scores = self._scale * cosines
        if self._bias is not None and self._form.kind != "single":
            return (scores + self._bias).astype(np.float32)
        if self._form.kind == "single":
            return scores
        log_share = log_softmax(scores, axis=1)
        rest = np.log(np.maximum(-np.expm1(log_share), _LEAST_ODDS))
        return (log_share - rest).astype(np.float32)

    def _chooser(self) -> LabelChooser:
        """Return the rule of `label_count`, which may have been set since `fit`."""
        way: Any = self.label_count
        nothing = np.empty(0, np.int64)
        if self._form.kind == "single":
            return LabelChooser(1, "round", nothing, None)
        self._check_number()
        if way == "count" or (isinstance(way, str) and self._rules is None):
            way = self._count
        return LabelChooser(way, "round", nothing, self._rules)

    # Use ----------------------------------------------------------------------------------------------------------

    def decision_function(self, X: Any) -> np.ndarray:
        """Score all labels for each image.

        Returns
        -------
        ndarray of shape (n_images, n_labels), float32
            Log odds, less the threshold where there is one: then the labels above 0 are those that `predict` gives. Of
            one label a row the scaled cosines; with two classes those of the second less those of the first, of shape
            (n_images,).
        """
        scores = self._chooser_of_fitted().shift(self._log_odds(self._cosines(self._vectors(X))))
        return scores[:, 1] - scores[:, 0] if self._form.kind == "single" and scores.shape[1] == 2 else scores

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of each label, shape (n_images, n_labels), float32."""
        check_is_fitted(self, "label_vectors_")
        scores = self._log_odds(self._cosines(self._vectors(X)))
        proba: np.ndarray = softmax(scores, axis=1) if self._form.kind == "single" else expit(scores)
        return proba

    def predict(self, X: Any) -> Any:
        """Label images.

        Returns
        -------
        labels
            In the form of the y that was fitted, as `MultiLabelAnnotator` does. Without examples one label for each
            image, or, where `label_count` is a number, lists of so many, the best first.
        """
        chosen = self._choose(X)  # which says if nothing is fitted
        return self._form.write(chosen, self.classes_)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the overall F1 of `predict`: of one label a row, the accuracy.

        Parameters
        ----------
        X, y : as in `fit`
        sample_weight : array-like of shape (n_images,), optional

        Returns
        -------
        float
        """
        chosen = self._choose(X).astype(np.float64)
        weight = check_weights(sample_weight, chosen.shape[0])
        given = read_labels(y, chosen.shape[0], self.label_separator, may_be_empty=True)
        return overall_f1(chosen, given, self.classes_, np.ones(chosen.shape[0]) if weight is None else weight)

    def _choose(self, X: Any) -> Any:
        """Return the labels predicted as a sparse indicator, the best first in each row."""
        chooser = self._chooser_of_fitted()
        scores = self._log_odds(self._cosines(self._vectors(X)))
        blocks = [scores[start : start + _BLOCK] for start in range(0, len(scores), _BLOCK)]
        return sparse.csr_array(sparse.vstack([chooser.choose(block, None)[0] for block in blocks], "csr"))

    def _chooser_of_fitted(self) -> LabelChooser:
        check_is_fitted(self, "label_vectors_")
        validate_params(self)
        return self._chooser()

    # Vectors ------------------------------------------------------------------------------------------------------

    def _cosines(self, rows: np.ndarray) -> np.ndarray:
        """Return the cosines of images (n, d) and labels, (n, n_labels) float32."""
        cosines: np.ndarray = unit_rows(rows) @ self.label_vectors_.T
        return cosines

    def _read(self, X: Any, *, reset: bool) -> tuple[Any, int]:
        if self.image_encoder is None:
            refuse_unreadable(X)
            X = check_features(self, X, reset=reset)
            return X, X.shape[0]
        check_sequence(X)
        return X, n_rows_of(X)

    def _fit_images(self, X: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return the vectors of the images that can be read, and their rows."""
        if self.image_encoder is None:
            self.image_encoder_ = None
            self._note_scale()
            return _dense(X), np.arange(X.shape[0])
        self.image_encoder_ = ready_encoder(self.image_encoder, "image_encoder").fit(X, None)
        self._note_scale()
        rows, kept = take_readable(self.image_encoder_.transform(X))
        rows = _dense(as_features(rows))
        return rows, np.arange(len(rows)) if kept is None else kept

    def _note_scale(self) -> None:
        """Take note of what the models were trained with; of the texts', after they are embedded."""
        found = self.image_encoder_
        self._scale, self._bias = _scale_and_bias(found)

    def _vectors(self, X: Any) -> np.ndarray:
        check_is_fitted(self, "label_vectors_")
        X, n_rows = self._read(X, reset=False)
        if self.image_encoder_ is not None:
            X = self.image_encoder_.transform(X)
            refuse_unreadable(X)
            X = as_features(X)
            if X.shape[0] != n_rows:
                raise ValueError(f"expected a vector for each of {n_rows} images, got {X.shape[0]}; mend or drop some")
            check_finite_rows(X, "what the image encoder gave", "mend or drop these rows")
        return _dense(X)

    def _embed_labels(self) -> np.ndarray:
        """Embed each sentence once, and average those of a label: (n_labels, d) float32 of unit length."""
        flat = [prompt for own in self.prompts_ for prompt in own]
        if self.text_encoder is None:
            ranker: Any = self.image_encoder_
            vectors = ranker.transform_text(flat)
        else:
            encoder = ready_encoder(self.text_encoder, "text_encoder").fit(flat, None)
            vectors = _dense(as_features(encoder.transform(flat)))
            scale, bias = _scale_and_bias(encoder)
            self._scale, self._bias = self._scale or scale, bias if self._bias is None else self._bias
        self._scale = self._scale or _UNKNOWN_SCALE
        label = np.repeat(np.arange(len(self.prompts_)), list(map(len, self.prompts_)))
        sums = np.zeros((len(self.prompts_), vectors.shape[1]), dtype=np.float32)
        np.add.at(sums, label, unit_rows(vectors))
        return unit_rows(sums)

    def _prompts_of(self, label: Any) -> list[str]:
        names: Any = (self.label_names or {}).get(label, label_text(label))
        listed = [names] if isinstance(names, str) else list(names)
        if not listed or not all(isinstance(name, str) and name.strip() for name in listed):
            raise ValueError(f"label_names calls {label!r} {names!r}; expected a name, or several")
        return [template.replace("{}", name) for name in listed for template in self.templates]

    # Parameters ---------------------------------------------------------------------------------------------------

    def _check_parameters(self) -> None:
        validate_params(self)
        if not len(self.templates):
            raise ValueError("expected one template at least, such as 'a photo of a {}.'")
        for template in self.templates:
            if not isinstance(template, str) or "{}" not in template:
                raise ValueError(f"expected {{}} in the place of the name in every template, got {template!r}")
        if self.text_encoder is None and not hasattr(self.image_encoder, "transform_text"):
            raise ValueError(
                "expected a text_encoder of the space of the images, or a ranker as image_encoder, which embeds texts "
                "too, got neither"
            )

    def _check_number(self) -> None:
        if not isinstance(self.label_count, str) and self.label_count > len(self.classes_):
            raise ValueError(f"label_count={self.label_count} is more than the {len(self.classes_)} labels there are")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = False
        tags.classifier_tags.multi_label = True
        tags.input_tags.sparse = True
        return tags


def _scale_and_bias(encoder: Any) -> tuple[float | None, float | None]:
    """Return by what an encoder, or the loss of a ranker, was trained to multiply cosines, and what is added."""
    loss = getattr(encoder, "loss_", None)
    if loss is not None:
        temperature = getattr(loss, "temperature", None)
        return (None if temperature is None else 1 / float(temperature)), getattr(loss, "bias", None)
    return getattr(encoder, "logit_scale_", None), getattr(encoder, "logit_bias_", None)


def _as_labels(labels: Sequence[Any]) -> np.ndarray:
    listed = list(labels)
    if not listed or len(set(listed)) < len(listed):
        raise ValueError("expected different labels, at least one, in labels")
    return np.array(listed, dtype=object if isinstance(listed[0], str) else None)


def _dense(rows: Any) -> np.ndarray:
    dense: np.ndarray = np.asarray(rows.toarray() if sparse.issparse(rows) else rows, dtype=np.float32)
    return dense
