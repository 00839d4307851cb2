"""How many labels an image deserves, from its features."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Self

import numpy as np
import torch
from scipy import sparse
from sklearn.callback import with_callbacks
from sklearn.utils import column_or_1d
from sklearn.utils.validation import _check_sample_weight, check_is_fitted

from sklearn_mm._checks import check_features
from sklearn_mm._device import forked_rng, generator_from, resolve_device, resolve_dtype, torch_threads
from sklearn_mm._params import validate_params
from sklearn_mm.annotation._base import AnnotationBase, check_layer_sizes
from sklearn_mm.annotation._decisions import Evidence, F1Rule, Truth, expected_counts, fit_f1_rule
from sklearn_mm.annotation._labels import read_labels
from sklearn_mm.annotation._steps import CountStep, CountTarget
from sklearn_mm.annotation._training_rows import TrainingRows, count_labels, merge_rows, prevalence_of
from sklearn_mm.features._tower import Tower, feature_statistics
from sklearn_mm.nn.annotation import CountNetwork
from sklearn_mm.registry import stored_as
from sklearn_mm.sampling import n_batches, row_batches
from sklearn_mm.training import Stage, embed

__all__ = ["LabelCountPredictor"]

_BLOCK = 4096


@stored_as("annotation.LabelCountPredictor")
class LabelCountPredictor(AnnotationBase):
    """Predict how many labels an image has.

    A perceptron on features, trained by regression or by classification over numbers: the label quantity prediction
    of [1]_ as an estimator of its own.

    Parameters
    ----------
    count_loss : {"regression", "classification"}, default="classification"
        Whether one number is estimated, or the probability of each number that was seen.
    count_hidden_layer_sizes : sequence of int, default=(512, 256)
    count_rounding : {"f1", "round", "floor"}, default="f1"
        How an estimate becomes a number: "f1" is the number that gives the best overall F1 where labels are
        rightly ranked, learnt on images held out; "round" and "floor" take the expected number. [1]_ is taken to
        have rounded down.
    max_epochs : int, default=10
    batch_size : int, default=128
    optimizer : {"adamw", "adam", "sgd"}, default="adamw"
    learning_rate : float, default=1e-3
    weight_decay : float, default=1e-4
    lr_schedule : {"cosine", "linear", "step", "constant"}, default="cosine"
        "cosine" rises over a tenth of all steps; "step" falls to a tenth after half of them.
    clip_norm : float, default=2.0
        The largest norm of the gradient.
    dropout : float, default=0.5
        Share of hidden units dropped in training.
    early_stopping : bool, default=False
        Stop when the error on the images held out has not improved for `n_iter_no_change` epochs, and keep the best
        weights.
    validation_fraction : float, default=0.1
        Share of images held out, none of fewer than ten; with `early_stopping` or "f1".
    n_iter_no_change : int, default=5
    random_state : int, RandomState or None, default=None
    device : str or torch.device, default="auto"
    precision : {"auto", "float32", "bfloat16", "float16"}, default="float32"
    n_jobs : int, default=None
        Threads that torch computes with on the CPU; None leaves torch's number, -1 takes all.
    warm_start : bool, default=False
        `fit` goes on from the weights of the fit before.
    checkpoint : path, default=None
        A folder that holds the state of training after every epoch, as in `MultiLabelAnnotator`.
    verbose : int, default=0
        Show a bar over epochs.

    Attributes
    ----------
    network_ : Module
    history_ : list of dict
        One record an epoch: ``epoch``, ``stage``, ``train_loss``, ``learning_rate``, ``seconds`` and, with images
        held out, ``val_count_mae`` (negative: higher is better).
    n_epochs_ : int
    n_features_in_ : int

    See Also
    --------
    MultiLabelAnnotator : Has such a head on its own features, and ranks labels as well.

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

    def __init__(
        self,
        count_loss: str = "classification",
        *,
        count_hidden_layer_sizes: Sequence[int] = (512, 256),
        count_rounding: str = "f1",
        max_epochs: int = 10,
        batch_size: int = 128,
        optimizer: str = "adamw",
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
        lr_schedule: str = "cosine",
        clip_norm: float = 2.0,
        dropout: float = 0.5,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 5,
        random_state: Any = None,
        device: Any = "auto",
        precision: str = "float32",
        n_jobs: int | None = None,
        warm_start: bool = False,
        checkpoint: Any = None,
        verbose: int = 0,
    ) -> None:
        self.count_loss = count_loss
        self.count_hidden_layer_sizes = count_hidden_layer_sizes
        self.count_rounding = count_rounding
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.lr_schedule = lr_schedule
        self.clip_norm = clip_norm
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
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Learn from features and numbers.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_images, n_features)
        y : array-like of shape (n_images,), or labels
            How many labels each image has: whole numbers, 0 or more. Or the labels themselves, in any form that
            `MultiLabelAnnotator.fit` takes; they are counted.
        sample_weight : array-like of shape (n_images,), optional
            How much each image counts; 0 leaves it out.

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
        check_layer_sizes(self, "count_hidden_layer_sizes")
        resumed = self.warm_start and hasattr(self, "network_")
        if y is None:
            read_labels(y, 0)
        X = check_features(self, X, reset=not resumed)
        counts = _counts_of(y, X.shape[0])
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        before = self.network_.state_dict() if resumed else None
        identity, random_state = self._identify(before, X, counts, sample_weight)
        rng = generator_from(random_state)
        device = resolve_device(self.device)
        with torch_threads(self.n_jobs), forked_rng(random_state, device):
            training = merge_rows([X], _as_column(counts), sample_weight)
            training = replace(training, counts=counts[training.rows])
            if not resumed:
                self._split_seed = int(rng.integers(2**31))
            held_out = None
            if self.early_stopping or self.count_rounding == "f1":  # the same images, whenever training goes on
                training, held_out = training.split(self.validation_fraction, np.random.default_rng(self._split_seed))
            if not resumed:
                self._initialize(X, training)
            stages = [self._stage(X, training, held_out, rng)]
            self._run_stages(stages, [self.network_], rng, self._checkpoint(identity))
            self._decide(X, training if held_out is None else held_out)
        self.network_.cpu()
        return self

    def _initialize(self, X: Any, training: TrainingRows) -> None:
        self._target = CountTarget.of(self.count_loss, training.counts, training.weight)
        self._least = int(training.counts.min() >= 1)
        self.network_ = CountNetwork(
            X.shape[1],
            self._target.n_outputs,
            hidden_layer_sizes=self.count_hidden_layer_sizes,
            dropout=self.dropout,
        )
        statistics = feature_statistics(X, training.rows)
        self.network_.features.standardize_by(*map(torch.from_numpy, statistics))
        self.history_ = []
        self.n_epochs_ = 0

    def _stage(self, X: Any, training: TrainingRows, held_out: TrainingRows | None, rng: np.random.Generator) -> Stage:
        tower = self._tower()
        step = CountStep(
            lambda batch: tower.collate(X[training.rows[batch]]),
            lambda features: tower.forward(features).float(),
            self._target,
            training.counts,
            training.weight,
        )
        return Stage(
            "count",
            self.max_epochs,
            self.learning_rate,
            parts=tower.modules,
            batches=lambda: row_batches(len(training), self.batch_size, rng),
            n_batches=n_batches(len(training), self.batch_size),
            make_step=lambda: step,
            validate=None if held_out is None else partial(self._validation, X, held_out),
            keeps=tower.modules if self.early_stopping else (),
        )

    def _validation(self, X: Any, held_out: TrainingRows) -> tuple[str, float]:
        """Score the estimates of images held out by their mean absolute error."""
        expected = expected_counts(self._estimates(X[held_out.rows]))
        return "val_count_mae", -float(np.average(np.abs(expected - held_out.counts), weights=held_out.weight))

    def _decide(self, X: Any, held_out: TrainingRows) -> None:
        """Fit the rule as if labels were ranked rightly: the label of rank r is true of images that have r labels."""
        self.rule_: F1Rule | None = None
        if self.count_rounding == "f1":
            counts = self._estimates(X[held_out.rows])
            n_ranks = max(1, 2 * self._target.largest)
            correct = held_out.counts[:, None] >= np.arange(1, n_ranks + 1)
            truth = Truth(correct.astype(np.float32), held_out.counts.astype(np.float64), held_out.weight.astype(float))
            self.rule_ = fit_f1_rule(Evidence(counts), truth, self._least)

    def predict(self, X: Any) -> np.ndarray:
        """Return how many labels each image has, shape (n_images,), int64."""
        check_is_fitted(self, "network_")
        validate_params(self)  # `count_rounding` may have been set since
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
        weight = _check_sample_weight(sample_weight, predicted, dtype=np.float64)
        return -float(np.average(np.abs(predicted - _counts_of(y, len(predicted))), weights=weight))

    def _number(self, counts: np.ndarray) -> np.ndarray:
        if self.count_rounding == "f1":
            if self.rule_ is None:
                raise ValueError("count_rounding='f1' is learnt in fit, which was called with another; fit again")
            return self.rule_.choose(Evidence(counts), max(1, 2 * self._target.largest))
        rounded = np.rint if self.count_rounding == "round" else np.floor
        return rounded(expected_counts(counts)).astype(np.int64)

    def _estimates(self, X: Any) -> np.ndarray:
        """Return what `Evidence.counts` holds."""
        tower = self._tower()
        with torch_threads(self.n_jobs):
            return embed(
                tower.modules,
                tower.collate,
                X,
                batch_size=_BLOCK,
                device=tower.device,
                dtype=tower.dtype,
                finish=lambda outputs: self._target.estimate(outputs.float()),
            )

    def _tower(self) -> Tower:
        device = resolve_device(self.device)
        return Tower(None, self.network_, device, resolve_dtype(self.precision, device))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.target_tags.positive_only = True
        tags.input_tags.sparse = True
        return tags


def _counts_of(y: Any, n_rows: int) -> np.ndarray:
    """Return how many labels each row has, (n_rows,) float32, from numbers or labels."""
    array = y if sparse.issparse(y) or not hasattr(y, "__array__") else np.asarray(y)
    numbers = None
    if isinstance(array, list | tuple) and array and all(np.isscalar(entry) for entry in array):
        array = np.asarray(array)
    if isinstance(array, np.ndarray) and (array.ndim == 1 or (array.ndim == 2 and array.shape[1] == 1)):
        if array.dtype.kind == "O" and all(np.isscalar(entry) for entry in array.ravel()):
            array = array.astype(np.float64)
        numbers = column_or_1d(array, warn=True) if array.dtype.kind in "biuf" else None
    if numbers is None:
        given = read_labels(y, n_rows).matrix
        return count_labels(given, prevalence_of(given, np.ones(n_rows)))
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
    return sparse.csr_array(counts[:, None] + 1)
