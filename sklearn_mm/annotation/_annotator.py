"""Labels for images: as many as each deserves."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from numbers import Real
from typing import Any, ClassVar, Self

import numpy as np
from scipy import sparse
from scipy.special import expit, softmax
from sklearn.base import ClassifierMixin
from sklearn.callback import with_callbacks
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.validation import _check_sample_weight, check_is_fitted

from sklearn_mm._device import forked_rng, generator_from, resolve_device, resolve_dtype, torch_threads
from sklearn_mm._params import HasMethods, Integral, Interval, StrOptions, positive_int, validate_params
from sklearn_mm.annotation._base import AnnotationBase
from sklearn_mm.annotation._choosing import LabelChooser, check_number
from sklearn_mm.annotation._columns import read_inputs
from sklearn_mm.annotation._labels import GivenLabels, read_labels, warn_of_labels
from sklearn_mm.annotation._model import AnnotationModel, InputRows
from sklearn_mm.annotation._network import make_network
from sklearn_mm.annotation._overall_f1 import overall_f1
from sklearn_mm.annotation._plan import check_request, divide
from sklearn_mm.annotation._scores import Calibration, LabelScores
from sklearn_mm.annotation._stages import make_stages
from sklearn_mm.annotation._steps import CountTarget
from sklearn_mm.annotation._training_rows import TrainingRows, check_weights_and_groups, merge_rows, ranks_to_look_at
from sklearn_mm.annotation._tuning import Decisions, HeldOut, calibrate, tune, with_calibration
from sklearn_mm.features._tower import fit_encoder, is_trainable
from sklearn_mm.nn.annotation import AnnotationNetwork
from sklearn_mm.registry import stored_as

__all__ = ["MultiLabelAnnotator"]


@stored_as("annotation.MultiLabelAnnotator")
class MultiLabelAnnotator(ClassifierMixin, AnnotationBase):
    """Label images, each with as many labels as it deserves.

    Features of an image and, if there are some, its tags go through hidden layers of their own, are put side by side,
    and give the labels by one linear map. A second head, on the same features, estimates how many labels there are.

    Parameters
    ----------
    image_encoder : transformer, default=None
        From pictures to features. An encoder of this library that can be trained is trained with the annotator; any
        other is fitted and then frozen. None takes X as features.
    tag_features : slice, str, or array-like of bool, int or str, default=None
        Which columns of X are tags: a mask, numbers, or, where X is a DataFrame, names or a regular expression that
        matches names in full. They may be sparse, or hold weights instead of 1. With an `image_encoder` X is then a
        DataFrame of one column of pictures beside the tags.
    hidden_layer_sizes : sequence of int, default=(512,)
        Of the branch of the features; none for the features themselves.
    tag_hidden_layer_sizes : sequence of int, default=(512, 512)
        Of the branch of the tags, at least one.
    loss : {"bce", "softmax", "asymmetric"}, default="bce"
        Binary cross-entropy; a softmax against the normalised label vector; or the asymmetric loss [2]_, which plays
        down labels that are easily seen not to hold.
    gamma_negative, gamma_positive, margin : float, default=4.0, 1.0, 0.05
        Of the asymmetric loss.
    class_weight : dict from label to float, "balanced" or None, default=None
        What a true label counts in the loss. "balanced": inversely to how often it is true, on average 1.
    n_labels : {"predict", "threshold", "label-thresholds"} or int, default="predict"
        How many labels an image gets. "predict": as many as is estimated; "threshold": all above one threshold on the
        log odds, that of the best overall F1; "label-thresholds": the same with a threshold for each label, that of its
        own best F1; a number: the same number each. After `fit` with one of the strings, ``set_params`` may choose any
        other for `predict`, except that only "predict" estimates numbers.
    count_loss : {"classification", "regression"}, default="classification"
        Whether the count head gives the probability of each number that was seen, or estimates one number, as in [1]_.
    count_training : {"staged", "joint"}, default="staged"
        Whether the count head is trained after the labels, on features that stay as they are [1]_, or with them.
    count_hidden_layer_sizes : sequence of int, default=(512, 256)
    count_rounding : {"f1", "round", "floor"}, default="f1"
        How estimates become a number. "f1": the number with the best prospect of a high overall F1, given both the
        estimate and the scores of the labels; "round" and "floor": the expected number. [1]_ is taken to have rounded
        down.
    calibrate : bool, default=False
        Fit the probabilities to images held out: a slope for all labels, and an intercept for each.
    n_folds : int, "auto" or None, default="auto"
        How many labels an image gets, and what scores are worth, is learnt from images that the network has not been
        trained on. With a number of folds, networks trained on the others give the scores of each fold, and the final
        network is trained on all images; with None a share of them is held out. "auto" takes 4 folds where less than
        500 images would be held out, unless `early_stopping`, `warm_start` or an encoder that is trained ask for that.
    drop_unlabeled : bool, default=False
        Leave out images without a label in training, as [1]_ does. They teach that there may be none.
    max_epochs : int, default=15
        For the labels, and once more for a staged count head.
    batch_size : int, default=128
    optimizer : {"adamw", "adam", "sgd"}, default="adamw"
    learning_rate : float, default=2e-3
    weight_decay : float, default=1e-4
    lr_schedule : {"cosine", "linear", "step", "constant"}, default="cosine"
        "cosine" rises over a tenth of all steps; "step" falls to a tenth after half of them.
    clip_norm : float, default=2.0
        The largest norm of the gradient.
    dropout : float, default=0.5
        Share of features, tags and hidden units dropped in training.
    early_stopping : bool, default=False
        Stop when the best overall F1 that a threshold reaches on the images held out has not improved for
        `n_iter_no_change` epochs, and keep the best weights.
    validation_fraction : float, default=0.1
        Share of the images held out, whole groups at a time, none of fewer than ten. See `n_folds`.
    n_iter_no_change : int, default=5
    random_state : int, RandomState or None, default=None
    device : str or torch.device, default="auto"
    precision : {"auto", "float32", "bfloat16", "float16"}, default="float32"
    n_jobs : int, default=None
        Threads that torch computes with on the CPU; None leaves torch's number, -1 takes all.
    warm_start : bool, default=False
        `fit` goes on from the weights of the fit before, with its labels.
    checkpoint : path, default=None
        A folder that holds the state of training after every epoch. A `fit` of the same parameters and data goes on
        from there, to the same weights as one that was never stopped, bit for bit on the CPU with as many threads. Each
        combination of parameters and data has a file of its own. A run that has finished is read back. With a
        checkpoint, a `random_state` of None means one that is drawn from parameters and data.
    verbose : int, default=0
        Show a bar over epochs.

    Attributes
    ----------
    classes_ : ndarray of shape (n_labels,)
        The labels: those of lists, sorted; of an indicator the names of its columns, or their numbers.
    image_encoder_ : estimator or None
        The fitted encoder.
    network_ : Module
    is_tag_ : ndarray of shape (n_features_in_,), bool
        Which columns are tags.
    history_ : list of dict
        One record an epoch: ``epoch``, ``stage`` ("label" or "count"), ``train_loss``, ``learning_rate``, ``seconds``
        and, with images held out, ``val_f1``.
    n_epochs_ : int
        Epochs trained, over all stages and calls.
    n_features_in_ : int
        Width of X, where it is a matrix of features.

    See Also
    --------
    LabelCountPredictor : The count head as an estimator of its own.
    sklearn_mm.metrics.annotation_report : The numbers that papers print.

    Notes
    -----
    The labels of an image are an indicator row (dense or sparse), a list, or a single label. Rows of a list of lists
    that could be an indicator, of one length and with nothing but 0 and 1 in them, are taken as one. NaN in an
    indicator marks a label as not known: it takes no part in the loss, and in the number of labels of its image it
    counts as likely as it is elsewhere. An image without labels is kept; its number is 0, and only if there is such an
    image may `predict` give none. A label that is true of no image gets the probability 0.

    In cross-validation scikit-learn asks for dense indicators in two places. An integer `cv` is refused with lists of
    labels; pass a splitter, as ``KFold(3)``, or sets of labels. And ``cross_val_predict`` takes a dense indicator alone
    where the method is not "predict".

    Given one label a row, the annotator is a plain classifier: trained by a softmax, it predicts one label each.

    The overall F1 is the ratio of two sums over images, so that the best number of labels of an image depends on the
    F1 that can be had: a label is worth its place if its probability exceeds half of it. An estimate that is rounded
    knows nothing of that. Here a small logistic regression, fitted on images held out, turns the score, the rank and
    the estimated number into that probability.

    Rows that are equal in features, tags and labels are one image, their weights added. Training takes memory for the
    features, the labels as a sparse matrix and one batch; predicting for a block of images.

    References
    ----------
    .. [1] Niu, Lu, Wen, Xiang, Chang, "Multi-Modal Multi-Scale Deep Learning for Large-Scale Image Annotation",
       IEEE TIP 28(4), 2019, https://arxiv.org/abs/1709.01220
    .. [2] Ben-Baruch, Ridnik, Zamir, Noy, Friedman, Protter, Zelnik-Manor, "Asymmetric Loss For Multi-Label
       Classification", ICCV 2021, https://arxiv.org/abs/2009.14119

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_mm.annotation import MultiLabelAnnotator
    >>> rng = np.random.default_rng(0)
    >>> truth = rng.random((400, 4)) < 0.4
    >>> features = truth + rng.normal(0, 0.2, truth.shape)
    >>> names = np.array(["bird", "cloud", "sea", "tree"])
    >>> annotator = MultiLabelAnnotator(batch_size=32, random_state=0)
    >>> annotator.fit(features, [names[row].tolist() for row in truth])
    MultiLabelAnnotator(batch_size=32, random_state=0)
    >>> annotator.predict([[1, 0, 0.9, 0], [0, 0, 0, 1]])
    array([list(['bird', 'sea']), list(['tree'])], dtype=object)
    >>> annotator.predict_count([[1, 0, 0.9, 0], [0, 0, 0, 1]])
    array([2, 1])
    """

    classes_: np.ndarray
    network_: AnnotationNetwork

    _parameter_constraints: dict[str, Any] = {
        **AnnotationBase._parameter_constraints,
        "image_encoder": [HasMethods(["fit", "transform"]), None],
        "tag_features": [slice, str, "array-like", None],
        "hidden_layer_sizes": ["array-like"],
        "tag_hidden_layer_sizes": ["array-like"],
        "loss": [StrOptions({"softmax", "bce", "asymmetric"})],
        "gamma_negative": [Interval(Real, 0, None, closed="left")],
        "gamma_positive": [Interval(Real, 0, None, closed="left")],
        "margin": [Interval(Real, 0, 1, closed="left")],
        "class_weight": [dict, StrOptions({"balanced"}), None],
        "n_labels": [StrOptions({"predict", "threshold", "label-thresholds"}), positive_int],
        "count_training": [StrOptions({"staged", "joint"})],
        "drop_unlabeled": ["boolean"],
        "calibrate": ["boolean"],
        "n_folds": [Interval(Integral, 2, None, closed="left"), StrOptions({"auto"}), None],
    }

    # It changes what is returned, so it is not for a meta-estimator to route.
    __metadata_request__decision_function: ClassVar[dict[str, Any]] = {"return_count": UNUSED}

    def __init__(
        self,
        image_encoder: Any = None,
        *,
        tag_features: Any = None,
        hidden_layer_sizes: Sequence[int] = (512,),
        tag_hidden_layer_sizes: Sequence[int] = (512, 512),
        loss: str = "bce",
        gamma_negative: float = 4.0,
        gamma_positive: float = 1.0,
        margin: float = 0.05,
        class_weight: Any = None,
        n_labels: Any = "predict",
        count_loss: str = "classification",
        count_training: str = "staged",
        count_hidden_layer_sizes: Sequence[int] = (512, 256),
        count_rounding: str = "f1",
        calibrate: bool = False,
        n_folds: Any = "auto",
        drop_unlabeled: bool = False,
        max_epochs: int = 15,
        batch_size: int = 128,
        optimizer: str = "adamw",
        learning_rate: float = 2e-3,
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
        self.image_encoder = image_encoder
        self.tag_features = tag_features
        self.hidden_layer_sizes = hidden_layer_sizes
        self.tag_hidden_layer_sizes = tag_hidden_layer_sizes
        self.loss = loss
        self.gamma_negative = gamma_negative
        self.gamma_positive = gamma_positive
        self.margin = margin
        self.class_weight = class_weight
        self.n_labels = n_labels
        self.count_loss = count_loss
        self.count_training = count_training
        self.count_hidden_layer_sizes = count_hidden_layer_sizes
        self.count_rounding = count_rounding
        self.calibrate = calibrate
        self.n_folds = n_folds
        self.drop_unlabeled = drop_unlabeled
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

    # Training -----------------------------------------------------------------------------------------------------

    @with_callbacks
    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Train the network, and learn how many labels an image gets.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_images, n_features), or pictures for `image_encoder`
        y : labels
            An indicator of shape (n_images, n_labels), dense or sparse, of 0, 1 and, where it is not known, NaN; a
            sequence of sequences of str or int; or of shape (n_images,), one label for each image.
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
            Lengths differ; an indicator holds something else, or with `warm_start` a label is new (the message names
            the row); there is no label; a column of tags does not exist; `n_labels` is a number above that of the
            labels; `class_weight` names a label that is not there; layers have no sizes; features are not finite; or
            there are fewer than two different images.
        TypeError
            An entry of y is no list of labels, or labels are of several types.
        FloatingPointError
            Training diverged.

        Warns
        -----
        LabelWarning
            Labels are true of no image, or of every one.
        """
        validate_params(self)
        resumed = self.warm_start and hasattr(self, "network_")
        if y is None:
            read_labels(y, 0)
        images, tags, n_rows = read_inputs(self, X, reset=not resumed)
        given = read_labels(y, n_rows)
        labels = given.require(self.classes_) if resumed else given.matrix
        check_request(self, self.classes_ if resumed else given.classes)
        sample_weight, groups = check_weights_and_groups(sample_weight, groups, n_rows)
        before = self.network_.state_dict() if resumed else None
        identity, random_state = self._identify(before, images, tags, labels, sample_weight, groups)
        rng = generator_from(random_state)
        device = resolve_device(self.device)
        with torch_threads(self.n_jobs), forked_rng(random_state, device):
            inputs = self._encode(images, tags, random_state, resumed)
            if len(inputs) != n_rows:
                raise ValueError(
                    f"the image encoder gave {len(inputs)} rows for {n_rows} images; leave out the images it skips "
                    "(its errors_), and their labels, before fitting"
                )
            training = self._training_rows(inputs, labels, sample_weight, groups)
            if not resumed:
                self._prepare(given, training)
                self._split_seed = int(rng.integers(2**31))
            split_rng = np.random.default_rng(self._split_seed)
            folds, training, held_out = divide(self, training, split_rng, tunes=self._tunes())
            parts = []
            for number, (others, own) in enumerate(folds, start=1):
                network = self._make_network(inputs, others)
                fold = f"fold {number} of {len(folds)}"
                scores = self._scores(network)
                stages = make_stages(self, scores, inputs, others, None, rng, n_ranks=self._n_ranks, prefix=f"{fold}, ")
                kept = self._checkpoint(None if identity is None else f"{identity}-{number}")
                self._run_stages(stages, scores.model.modules, rng, kept, watched=False)
                parts.append(HeldOut(scores, inputs, own))
            if not resumed:
                self.network_ = self._make_network(inputs, training)
                self.history_, self.n_epochs_ = [], 0
            scores = self._scores(self.network_)
            stages = make_stages(self, scores, inputs, training, held_out, rng, n_ranks=self._n_ranks)
            self._run_stages(stages, scores.model.modules, rng, self._checkpoint(identity))
            self._decide(parts or [HeldOut(scores, inputs, training if held_out is None else held_out)])
        scores.model.to_cpu()
        return self

    def _encode(self, images: Any, tags: Any, random_state: np.random.RandomState, resumed: bool) -> InputRows:
        if resumed:
            return self._model(self.network_).prepare(images, tags)
        if images is None:
            self.image_encoder_ = None
            return InputRows(None, tags)
        self.image_encoder_, rows = fit_encoder(self.image_encoder, images, random_state)
        return InputRows(rows, tags)

    def _training_rows(
        self, inputs: InputRows, labels: Any, sample_weight: np.ndarray | None, groups: np.ndarray | None
    ) -> TrainingRows:
        parts = [part for part in (inputs.visual, inputs.tags) if part is not None]
        if self.drop_unlabeled:
            labeled = np.diff(labels.indptr) > 0
            if np.count_nonzero(labeled) < 2:
                raise ValueError(
                    f"drop_unlabeled=True leaves {np.count_nonzero(labeled)} of {len(labeled)} images, and at least 2 "
                    "are needed; set it to False, or give images with labels"
                )
            sample_weight = labeled.astype(float) if sample_weight is None else sample_weight * labeled
        return merge_rows([] if is_trainable(self.image_encoder_) else parts, labels, sample_weight, groups)

    def _prepare(self, given: GivenLabels, training: TrainingRows) -> None:
        """Look at the labels, and at what is asked for."""
        self.classes_, self._form = given.classes, given.form
        self._calibration: Calibration | None = None
        self._decisions: Decisions | None = None
        single = self._form.kind == "single"
        self._never = np.empty(0, np.int64) if single else warn_of_labels(training.labels, self.classes_)
        counts = not single and self.n_labels == "predict"
        self._counted = CountTarget.of(self.count_loss, training.counts, training.weight) if counts else None
        self._mean_count = float(np.average(training.counts, weights=training.weight))
        self._least = int(training.counts.min() >= 1)
        self._n_ranks = min(len(self.classes_), ranks_to_look_at(training.counts))

    def _tunes(self) -> bool:
        return self._form.kind != "single" and isinstance(self.n_labels, str)

    def _make_network(self, inputs: InputRows, training: TrainingRows) -> AnnotationNetwork:
        n_outputs = 0 if self._counted is None else self._counted.n_outputs
        return make_network(self, self.image_encoder_, inputs, training, n_outputs)

    def _decide(self, parts: Sequence[HeldOut]) -> None:
        """Calibrate scores and fit the rules on images that a network has not been trained on, if there are enough."""
        self._calibration = calibrate(parts) if self.calibrate else None
        if self._calibration is not None:
            parts = with_calibration(parts, self._calibration)
        self._decisions = tune(parts, self._n_ranks, self._least) if self._tunes() else None

    def _model(self, network: AnnotationNetwork) -> AnnotationModel:
        device = resolve_device(self.device)
        return AnnotationModel(self.image_encoder_, network, device, resolve_dtype(self.precision, device))

    def _scores(self, network: AnnotationNetwork) -> LabelScores:
        """Return the scores of a network, as they come."""
        kind = "single" if self._form.kind == "single" else "shared" if self.loss == "softmax" else "independent"
        return LabelScores(self._model(network), kind, self._counted, self._mean_count, self._never)

    # Use ----------------------------------------------------------------------------------------------------------

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
        if self._form.kind == "single" and scores.shape[1] == 2:
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
        """
        chosen = self._choose(X).astype(np.float64)
        weight = _check_sample_weight(sample_weight, chosen, dtype=np.float64)
        return overall_f1(chosen, read_labels(y, chosen.shape[0]), self.classes_, weight)

    @contextmanager
    def _scored(self, X: Any) -> Iterator[tuple[int, Iterator[tuple[slice, np.ndarray, np.ndarray | None]]]]:
        """Give the number of images, and block by block their rows, scores and counts."""
        check_is_fitted(self, "network_")
        images, tags, _ = read_inputs(self, X, reset=False)
        scores = replace(self._scores(self.network_), calibration=self._calibration)
        try:
            with torch_threads(self.n_jobs):
                inputs = scores.model.prepare(images, tags)
                yield len(inputs), scores.of_rows(inputs)
        finally:
            scores.model.to_cpu()

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
        """Return the rule of `n_labels`, which may have been set since `fit`."""
        check_is_fitted(self, "network_")
        validate_params(self)
        if self._form.kind == "single":
            return LabelChooser(1, self.count_rounding, self._never, None)
        check_number(self.n_labels, len(self.classes_))
        return LabelChooser(self.n_labels, self.count_rounding, self._never, self._decisions)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        tags.input_tags.sparse = True
        return tags
