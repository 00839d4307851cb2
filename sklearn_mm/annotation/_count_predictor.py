"""How many labels an image deserves, from its features."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Self

import numpy as np
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.callback import CallbackSupportMixin, with_callbacks
from sklearn.utils import column_or_1d
from sklearn.utils.validation import check_is_fitted

from sklearn_mm._checks import check_features, check_labels, check_weights
from sklearn_mm._device import (
    forked_rng,
    generator_from,
    precision_of,
    resolve_device,
    resolve_dtype,
    settle,
    torch_threads,
)
from sklearn_mm._docs import shared_docs
from sklearn_mm._params import StrOptions, validate_params
from sklearn_mm._tables import as_column, as_number_table, frame_names, is_frame, is_missing
from sklearn_mm._unreadable import refuse_unreadable
from sklearn_mm.annotation._data import (
    LabeledImages,
    check_weights_and_groups,
    count_labels,
    merge_labeled,
    prevalence_of,
)
from sklearn_mm.annotation._labels import read_labels, warn_of_joined
from sklearn_mm.annotation._model import CountModel, CountTarget, check_layer_sizes
from sklearn_mm.annotation._rules import (
    CountEstimates,
    F1Rule,
    HeldOutLabels,
    expected_counts,
    fit_f1_rule,
    round_counts,
)
from sklearn_mm.annotation._training import TRAINING_CONSTRAINTS, count_batches, training_settings
from sklearn_mm.nn.annotation import CountNetwork
from sklearn_mm.persistence import PickleStateMixin
from sklearn_mm.registry import stored_as
from sklearn_mm.towers import Tower, column_statistics, embed
from sklearn_mm.training import EpochCallbacks, EpochRecord, Stage, identify_run, open_checkpoint, train

__all__ = ["LabelCountPredictor"]

_BLOCK = 4096  # rows estimated at once
_RENAMED = {  # since format 1
    "count_loss": "loss",
    "count_hidden_layer_sizes": "hidden_layer_sizes",
    "count_rounding": "rounding",
    "rule_": "_rule",
}


@shared_docs
@stored_as("annotation.LabelCountPredictor")
class LabelCountPredictor(CallbackSupportMixin, PickleStateMixin, BaseEstimator):
    """Predict how many labels an image has.

    A perceptron on features, trained by regression or by classification over numbers: the label quantity prediction
    of [1]_, as an estimator of its own or as the `label_count` of a `MultiLabelAnnotator`, where it is a second head on
    the features of the annotator's network.

    Parameters
    ----------
    loss : {"regression", "classification"}, default="classification"
        Whether one number is estimated, as in [1]_, or the probability of each number that was seen.
    hidden_layer_sizes : sequence of int, default=(512, 256)
    rounding : {"f1", "round", "floor"}, default="f1"
        How an estimate becomes a number. "f1": the number with the best prospect of a high overall F1, learnt on images
        held out, given the estimate and, inside an annotator, the scores of the labels; alone, labels count as rightly
        ranked. "round" and "floor": the expected number. [1]_ is taken to have rounded down.
    joint : bool, default=False
        Inside an annotator: train with the labels, instead of after them on features that stay as they are [1]_. Of no
        effect alone.
    max_epochs : int, default=10
        Passes over the images in `fit`. These and the following parameters are of no effect inside an annotator, which
        trains its head by its own settings.
    batch_size : int, default=128
    optimizer : {"adamw", "adam", "sgd"}, default="adamw"
    learning_rate : float, default=1e-3
    weight_decay : float, default=1e-4
    %(schedule)s
    dropout : float, default=0.5
        Share of hidden units dropped in training.
    early_stopping : bool, default=False
        Stop when the error on the images held out has not improved for `n_iter_no_change` epochs, and keep the best
        weights.
    validation_fraction : float, default=0.1
        Share of images held out, whole groups at a time, none of fewer than ten; with `early_stopping` or "f1".
    n_iter_no_change : int, default=5
    random_state : int, RandomState or None, default=None
    device : str or torch.device, default="auto"
    %(precision)s
    n_jobs : int, default=None
        Threads on the CPU that torch computes with; None leaves torch's number, -1 takes all.
    warm_start : bool, default=False
        `fit` goes on from the weights of the fit before.
    %(resumed_and_shown)s

    Attributes
    ----------
    network_ : Module
    history_ : list of dict
        One record an epoch: ``epoch``, ``stage``, ``train_loss``, ``learning_rate``, ``seconds`` and, with images
        held out, ``val_count_mae`` (negative: higher is better).
    n_epochs_ : int
    n_features_in_ : int
    %(fitted_precision)s

    See Also
    --------
    MultiLabelAnnotator : Ranks labels as well, and takes one of these as its `label_count`.

    Notes
    -----
    %(threads)s

    References
    ----------
    .. [1] Niu, Lu, Wen, Xiang, Chang, "Multi-Modal Multi-Scale Deep Learning for Large-Scale Image Annotation",
       IEEE TIP 28(4), 2019, https://arxiv.org/abs/1709.01220

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_mm.annotation import LabelCountPredictor
    >>> rng = np.random.default_rng(0)
    >>> Y = rng.random((400, 4)) < 0.4
    >>> X = Y + rng.normal(0, 0.1, Y.shape)
    >>> predictor = LabelCountPredictor(batch_size=32, random_state=0).fit(X, Y)
    >>> predictor.predict([[1, 0, 1, 1], [0, 1, 0, 0]])
    array([3, 1])
    """

    network_: CountNetwork
    history_: list[EpochRecord]
    n_epochs_: int

    _parameter_constraints: dict[str, Any] = {
        **TRAINING_CONSTRAINTS,
        "loss": [StrOptions({"regression", "classification"})],
        "hidden_layer_sizes": ["array-like"],
        "rounding": [StrOptions({"f1", "round", "floor"})],
        "joint": ["boolean"],
    }

    def __init__(
        self,
        loss: str = "classification",
        *,
        hidden_layer_sizes: Sequence[int] = (512, 256),
        rounding: str = "f1",
        joint: bool = False,
        max_epochs: int = 10,
        batch_size: int = 128,
        optimizer: str = "adamw",
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
        lr_schedule: str = "cosine",
        dropout: float = 0.5,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 5,
        random_state: Any = None,
        device: Any = "auto",
        precision: str = "auto",
        n_jobs: int | None = None,
        warm_start: bool = False,
        checkpoint: Any = None,
        verbose: int = 0,
    ) -> None:
        self.loss = loss
        self.hidden_layer_sizes = hidden_layer_sizes
        self.rounding = rounding
        self.joint = joint
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.lr_schedule = lr_schedule
        self.dropout = dropout
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.random_state = random_state
        self.device = device
        self.precision = precision
        self.n_jobs = n_jobs
        self.warm_start = warm_start
        self.checkpoint = checkpoint
        self.verbose = verbose

    @with_callbacks
    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Learn from features and numbers.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_images, n_features)
        y : array-like of shape (n_images,), or labels
            How many labels each image has: whole numbers, 0 or more. Or the labels themselves, in any form that
            `MultiLabelAnnotator.fit` takes; they are counted.
        sample_weight : array-like of shape (n_images,), optional
            How much each image counts; 0 leaves it out.
        groups : array-like of shape (n_images,), optional
            Images of one group (one scene, near duplicates) are held out together.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            Lengths differ, a number is negative or not whole (the message names the row), features are not finite, or
            there are fewer than two different images.
        FloatingPointError
            Training diverged.
        """
        validate_params(self)
        check_layer_sizes("hidden_layer_sizes", self.hidden_layer_sizes)
        resumed = self.warm_start and hasattr(self, "network_")
        if y is None:
            read_labels(y, 0)  # says what y is, before anything is said of X
        refuse_unreadable(X)
        X = check_features(self, X, reset=not resumed)
        counts = _counts_of(y, X.shape[0])
        sample_weight, groups = check_weights_and_groups(sample_weight, groups, X.shape[0])
        before = self.network_.state_dict() if resumed else None
        identity, random_state = identify_run(
            self.checkpoint,
            self.random_state,
            type(self).__name__,
            self.get_params(deep=False),
            before,
            *(X, counts, sample_weight, groups),
        )
        rng = generator_from(random_state)
        settings = training_settings(self, getattr(self, "precision_", None) if resumed else None)
        self.precision_ = precision_of(settings.dtype)
        with torch_threads(self.n_jobs), forked_rng(random_state):
            # Numbers stand where labels would, to tell rows apart; they are what is learnt, not how many they would be.
            images = merge_labeled([X], _as_column(counts), sample_weight, groups)
            images = replace(images, counts=counts[images.rows])
            if not resumed:
                self._split_seed = int(rng.integers(2**31))
            held_out = None
            if self.early_stopping or self.rounding == "f1":  # the same images, whenever training goes on
                images, held_out = images.split(self.validation_fraction, np.random.default_rng(self._split_seed))
            if not resumed:
                self._initialize(X, images)
            tower = self._tower()
            model = CountModel(tower, self._target)
            stage = Stage(
                "count",
                model,
                count_batches(images, self.batch_size, rng, lambda batch: tower.collate(X[images.rows[batch]])),
                self.max_epochs,
                self.learning_rate,
                validate=None if held_out is None else partial(self._validation, X, held_out),
                keeps=model if self.early_stopping else None,
                ahead=False,  # it sees nothing but rows of features
            )
            train(
                model,
                [stage],
                settings,
                rng,
                history=self.history_,
                keep=self._keep_history,
                checkpoint=open_checkpoint(self.checkpoint, identity),
                callbacks=EpochCallbacks(self, self.max_epochs),
            )
            self._decide(X, images if held_out is None else held_out)
        settle(self.network_, settings.device)
        return self

    def _initialize(self, X: Any, images: LabeledImages) -> None:
        self._target = CountTarget.of(self.loss, images.counts, images.weight)
        self._least = int(images.counts.min() >= 1)
        self.network_ = CountNetwork(
            X.shape[1],
            self._target.n_outputs,
            hidden_layer_sizes=self.hidden_layer_sizes,
            dropout=self.dropout,
        )
        self.network_.features.standardize_by(*column_statistics(X, images.rows))
        self.history_, self.n_epochs_ = [], 0

    def _keep_history(self, history: list[EpochRecord]) -> None:
        self.history_, self.n_epochs_ = history, len(history)

    def _validation(self, X: Any, held_out: LabeledImages) -> tuple[str, float]:
        """Score the estimates of images held out by their mean absolute error."""
        expected = expected_counts(self._estimates(X[held_out.rows]))
        return "val_count_mae", -float(np.average(np.abs(expected - held_out.counts), weights=held_out.weight))

    def _decide(self, X: Any, held_out: LabeledImages) -> None:
        """Fit the rule as if labels were ranked rightly: the label of rank r is true of images that have r labels."""
        self._rule: F1Rule | None = None
        if self.rounding == "f1":
            estimates = CountEstimates(self._estimates(X[held_out.rows]))
            correct = (held_out.counts[:, None] >= np.arange(1, self._n_ranks + 1)).astype(np.float32)
            truth = HeldOutLabels(correct, held_out.counts.astype(np.float64), held_out.weight.astype(np.float64))
            self._rule = fit_f1_rule(estimates, truth, self._least)

    @property
    def _n_ranks(self) -> int:
        return max(1, 2 * self._target.largest)  # as an annotator's rule: new images may have more than any had

    def predict(self, X: Any) -> np.ndarray:
        """Return how many labels each image has, shape (n_images,), int64."""
        check_is_fitted(self, "network_")
        validate_params(self)  # `rounding` may have been set since
        refuse_unreadable(X)
        X = check_features(self, X, reset=False)
        counts = self._estimates(X)
        return np.concatenate([self._number(block) for block in np.split(counts, range(_BLOCK, len(counts), _BLOCK))])

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the mean absolute error of the numbers, negative: higher is better.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_images, n_features)
        y : array-like of shape (n_images,), or labels
            As in `fit`.
        sample_weight : array-like of shape (n_images,), optional

        Returns
        -------
        float
        """
        predicted = self.predict(X)
        weight = check_weights(sample_weight, len(predicted))
        return -float(np.average(np.abs(predicted - _counts_of(y, len(predicted), may_be_empty=True)), weights=weight))

    def _number(self, counts: np.ndarray) -> np.ndarray:
        if self.rounding != "f1":
            return round_counts(counts, self.rounding)
        if self._rule is None:
            raise ValueError("rounding='f1' is learnt in fit, which was called with another; fit again")
        return self._rule.choose(CountEstimates(counts), self._n_ranks)

    def _estimates(self, X: Any) -> np.ndarray:
        """Return what `CountEstimates.counts` holds."""
        tower = self._tower()
        with torch_threads(self.n_jobs):
            return embed(
                tower,
                tower.collate,
                X,
                batch_size=_BLOCK,
                device=tower.device,
                dtype=tower.dtype,
                finish=lambda outputs: self._target.estimate(outputs.float()),
            )

    def _tower(self) -> Tower:
        device = resolve_device(self.device)
        fitted = getattr(self, "precision_", None)  # models saved before it was noted have none
        return Tower(None, self.network_, device, resolve_dtype(self.precision, device, fitted))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.target_tags.positive_only = True
        tags.input_tags.sparse = True
        return tags

    @classmethod
    def _from_format(cls, state: dict[str, Any], number: int) -> dict[str, Any]:
        """Return a state of an older format as it is today."""
        if number == 1:
            state = {_RENAMED.get(name, name): value for name, value in state.items() if name != "clip_norm"}
            state["joint"] = False
        return state


def _counts_of(y: Any, n_rows: int, *, may_be_empty: bool = False) -> np.ndarray:
    """Return how many labels each row has, (n_rows,) float32, from numbers or labels."""
    if is_frame(y) and len(frame_names(y)) == 1:
        y = as_column(y, "numbers of labels")
    y = check_labels(y)
    array = y if sparse.issparse(y) or not hasattr(y, "__array__") else np.asarray(y)
    numbers = None
    if isinstance(array, list | tuple) and array and all(np.isscalar(entry) or is_missing(entry) for entry in array):
        array = as_number_table(array)
    if isinstance(array, np.ndarray) and (array.ndim == 1 or (array.ndim == 2 and array.shape[1] == 1)):
        array = as_number_table(array)
        numbers = column_or_1d(array, warn=True) if array.dtype.kind in "biuf" else None
    if numbers is None:
        given = read_labels(y, n_rows, may_be_empty=may_be_empty)
        warn_of_joined(given, "give lists, as [labels.split({separator}) for labels in y]")
        return count_labels(given.matrix, prevalence_of(given.matrix, np.ones(n_rows)))
    if len(numbers) != n_rows:
        raise ValueError(f"expected one number for each row of X, got {len(numbers)} for {n_rows} rows")
    wrong = np.flatnonzero(~((numbers >= 0) & (numbers % 1 == 0)))
    if len(wrong):
        raise ValueError(
            f"expected numbers of labels (whole, 0 or more), got {numbers[wrong[0]]} in row {wrong[0]}; "
            "NaN and infinity are none"
        )
    return numbers.astype(np.float32)


def _as_column(counts: np.ndarray) -> Any:
    """Return numbers as a matrix of one column, which tells rows apart."""
    return sparse.csr_array(counts[:, None] + 1)  # a 0 would not be stored
