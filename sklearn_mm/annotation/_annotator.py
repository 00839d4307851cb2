"""Labels for images: as many as each deserves."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.callback import CallbackSupportMixin, with_callbacks
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.validation import _check_feature_names
from torch import nn

from sklearn_mm._checks import check_features, check_weights
from sklearn_mm._content import FilesIn
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
from sklearn_mm._params import HasMethods, Integral, Interval, StrOptions, positive_int, validate_params
from sklearn_mm._tables import frame_column, frame_names, is_frame
from sklearn_mm._unreadable import n_pictures_of, refuse_unreadable, take_readable
from sklearn_mm.annotation._columns import split_columns, split_frame, tag_mask
from sklearn_mm.annotation._corrections import (
    Corrections,
    FeatureSample,
    join_labels,
    keep_sample,
    learn_corrections,
    look_at,
    widen,
    with_labels,
)
from sklearn_mm.annotation._count_predictor import LabelCountPredictor
from sklearn_mm.annotation._data import LabeledImages, check_weights_and_groups, merge_labeled, n_ranks_for
from sklearn_mm.annotation._given_away import warn_of_tags_as_labels
from sklearn_mm.annotation._label_names import name_likeness
from sklearn_mm.annotation._labelling import LabelsImages
from sklearn_mm.annotation._labels import (
    GivenLabels,
    LabelForm,
    label_weights,
    read_labels,
    warn_of_joined,
    warn_of_labels,
)
from sklearn_mm.annotation._members import LabelMembers, fit_members
from sklearn_mm.annotation._model import (
    AnnotationModel,
    CountTarget,
    InputRows,
    Scoring,
    check_layer_sizes,
    make_network,
)
from sklearn_mm.annotation._old_annotators import annotator_from_format
from sklearn_mm.annotation._parameters import check_members, check_number, check_something_known, is_something_known
from sklearn_mm.annotation._training import (
    TRAINING_CONSTRAINTS,
    FrozenFeatures,
    HeldOut,
    best_f1,
    calibrate,
    count_batches,
    divide,
    fit_rules,
    label_batches,
    training_settings,
    weigh_members,
    with_calibration,
)
from sklearn_mm.images import check_sequence
from sklearn_mm.losses import LABEL_LOSSES, LabelLoss, SoftmaxLoss, resolve_loss
from sklearn_mm.nn.annotation import AnnotationNetwork
from sklearn_mm.persistence import PickleStateMixin
from sklearn_mm.registry import stored_as
from sklearn_mm.towers import Tower, TrainedRows, fit_image_encoder, is_trainable, n_rows_of
from sklearn_mm.training import (
    EpochCallbacks,
    EpochRecord,
    Processes,
    Stage,
    decisive_parameters,
    identify_run,
    join_processes,
    open_checkpoint,
    train,
)

__all__ = ["MultiLabelAnnotator"]


@shared_docs
@stored_as("annotation.MultiLabelAnnotator")
class MultiLabelAnnotator(LabelsImages, CallbackSupportMixin, ClassifierMixin, PickleStateMixin, BaseEstimator):
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
    loss : {"bce", "softmax", "asymmetric"} or LabelLoss, default="bce"
        Binary cross-entropy; a softmax against the normalised label vector; or the asymmetric loss [2]_, which plays
        down labels that are easily seen not to hold. A str stands for the loss of ``sklearn_mm.losses`` with its
        defaults; an object may have others, as ``AsymmetricLoss(gamma_negative=2.0)``, or be a loss of your own.
    class_weight : dict from label to float, "balanced" or None, default=None
        What a true label counts in the loss. "balanced": inversely to how often it is true, on average 1.
    label_count : {"predict", "threshold", "label-thresholds"}, int or LabelCountPredictor, default="predict"
        How many labels an image gets. "predict": as many as a `LabelCountPredictor` with its default parameters
        estimates from the features of the network; a `LabelCountPredictor` says how that is estimated, of which its
        training parameters are of no effect here. "threshold": all above one threshold on the log odds, that of the
        best overall F1; "label-thresholds": the same with a threshold for each label, that of its own best F1; a
        number: the same number each. After `fit` with anything but a number, ``set_params`` may choose any other for
        `predict`, and another `rounding`, except that numbers are estimated only where they were in `fit`.
    label_separator : str, default=None
        What stands between the labels of an image where they are given as one str, as in a column of a CSV file:
        "," reads "bird, cloud", and also "['bird', 'cloud']", as two labels. None reads one label.
    calibrate : bool, default=False
        Fit the probabilities to images held out: a slope for all labels, and an intercept for each.
    members : list of {"neighbors", "ridge", "kernel"} or None, default=("neighbors", "kernel")
        What scores labels beside the network, in closed form: a Gaussian process on the features and tags as they come
        ("kernel"); and, on the features the network makes, votes of the images nearest to one, and a ridge regression.
        What each counts is learnt from the images held out. None leaves the network alone, as published.
    name_encoder : transformer, default=None
        From the names of labels to vectors: a `PretrainedTextEncoder` with ``trainable="none"``, or any other that is
        not to be trained. Then labels that are called alike are expected to look alike: the kernel finds rare labels
        better, and also labels that are true of no image. None knows labels by their images alone.
    bank_size : int, default=20000
        How many images the neighbours are sought among, and at most, the kernel is solved for; drawn where there are
        more.
    n_folds : int, "auto" or None, default="auto"
        How many labels an image gets, and what scores are worth, is learnt from images that the network has not been
        trained on. With a number of folds, networks trained on the others give the scores of each fold, and the final
        network is trained on all images; with None a share of them is held out. "auto" takes 4 folds where less than
        500 images would be held out, unless `early_stopping`, `warm_start` or an encoder that is trained ask for that.
    max_epochs : int, default=15
        For the labels, and once more for a count head that is trained after them.
    batch_size : int, default=128
    optimizer : {"adamw", "adam", "sgd"}, default="adamw"
    learning_rate : float, default=2e-3
    weight_decay : float, default=1e-4
    %(schedule)s
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
    %(precision)s
    n_jobs : int, default=None
        Threads on the CPU that torch computes with and pictures are read with; None leaves torch's number, -1 takes
        all.
    warm_start : bool, default=False
        `fit` goes on from the weights of the fit before, with its labels.
    %(resumed_and_shown)s

    Attributes
    ----------
    classes_ : ndarray of shape (n_labels,)
        The labels: those of lists, sorted; of an indicator the names of its columns, or their numbers.
    image_encoder_ : estimator or None
        The fitted encoder.
    network_ : Module
    member_weights_ : dict from str to float
        What the log odds of the "network", and the scores of each of the `members`, count; where there are members.
    is_tag_ : ndarray of shape (n_features_in_,), bool
        Which columns are tags.
    history_ : list of dict
        One record an epoch: ``epoch``, ``stage`` ("label" or "count"), ``train_loss``, ``learning_rate``, ``seconds``
        and, with images held out, ``val_f1``.
    n_epochs_ : int
        Epochs trained, over all stages and calls.
    n_features_in_ : int
        Width of X, where it is a matrix of features.
    %(fitted_precision)s

    See Also
    --------
    LabelCountPredictor : How many labels an image has: inside of this, or alone.
    sklearn_mm.losses.LabelLoss : What a loss of your own derives from.
    sklearn_mm.metrics.annotation_report : The numbers that papers print.

    Notes
    -----
    The labels of an image are an indicator row (dense or sparse), a list, or a single label. Rows of a list of lists
    that could be an indicator, of one length and with nothing but 0 and 1 in them, are taken as one. NaN in an
    indicator marks a label as not known: it takes no part in the loss, and in the number of labels of its image it
    counts as likely as it is elsewhere. An image without labels is kept, unlike in [1]_, which drops them: it teaches
    that there may be none. Its number is 0, and only if there is such an image may `predict` give none; leave such rows
    out, or give them the weight 0, to do as [1]_ does. A label that is true of no image gets the probability 0, unless
    there is a `name_encoder`.

    In cross-validation scikit-learn asks for dense indicators in two places. An integer `cv` is refused with lists of
    labels; pass a splitter, as ``KFold(3)``, or sets of labels. And ``cross_val_predict`` takes a dense indicator alone
    where the method is not "predict".

    Given one label a row, the annotator is a plain classifier: trained by a softmax, it predicts one label each.

    The overall F1 is the ratio of two sums over images, so that the best number of labels of an image depends on the
    F1 that can be had: a label is worth its place if its probability exceeds half of it. An estimate that is rounded
    knows nothing of that. Here a small logistic regression, fitted on images held out, turns the score, the rank and
    the estimated number into that probability.

    The overall F1 counts a label as often as it is true: of a rare one it asks for more than that it is ranked first,
    and by default, as with one threshold for all, it may never be given. Where each label counts alike (the "C-F1" of
    `AnnotationScorer`), choose ``label_count="label-thresholds"``, also after `fit`: a label that is true of five
    images held out has a threshold of its own. ``class_weight="balanced"`` raises the scores of rare labels.

    Of `members`, "neighbors" and "ridge" see what the network hands to its heads, of pictures, features and tags alike.
    The 64 nearest images by cosine vote, each by a softmax of it at a temperature of 0.05; the strength of the ridge is
    the best for images left out, which costs no other fit. The "kernel" sees what comes before any hidden layer: the
    covariance of two images is ``exp(s (cos - 1))`` of their standardised features, and beside it ``0.4 exp(cos - 1)``
    of their tags; s, of 1 and 2, and the variance of the noise, of 0.1 to 3, are the best for up to 1,024 images left
    out, one of each group. It is solved for at most 8,192 images, fewer of more than 16,384 features, drawn where there
    are more, which takes up to 1.1 GB and some seconds of a core, a minute of that many features. What it says of up to
    2,048 labels goes through one linear map of all of them: a ridge on what it would say of each image without its
    group, drawn to the identity as if by 300 images, so that a label is found by others that go with it. What members
    say is added to the network's log odds, with the weights of the best mean average precision of images held out,
    where these are clearly better than weights that are good elsewhere; or one of them, or the network, scores alone,
    where that is. Each label is raised by what makes it as likely as it was there, and by less where images of one
    group err alike. Then members are fitted again, to the images held out, too; all kernels of one `fit` have one
    scale and one noise.
    Given one label a row the network scores alone; without hidden layers and with more than 2,048 features the ridge is
    left out, and with more than 65,536 labels or 524,288 features the kernel. Rules, weights and members are
    those of the images of one `fit`: `partial_fit` leaves them, and `warm_start` fits them anew. Neighbours take two
    bytes a hidden unit and image, the kernel two bytes a feature and four a label for each of its images; once a CPU
    has scored, six in the place of two.

    With a `name_encoder` the kernel is one over labels, too, as in [3]_: the covariance of two labels is
    ``exp(2 (cos - 1))`` of the vectors of their names, less what all names have in common, and the more images a label
    is true of, the less others say of it: one counts as much as a noise of a variance of 1 lets it. A label that is
    true of no image, a column of an indicator of 0 or NaN throughout, gets the score that labels of like names give it;
    network and neighbours say nothing of it. Underscores of a name are spaces.

    Rows that are equal in features, tags and labels, and of one group where there are groups, are one image, their
    weights added. Training takes memory for the features, the labels as a sparse matrix and one batch; predicting for a
    block of images.

    %(threads)s

    References
    ----------
    .. [1] Niu, Lu, Wen, Xiang, Chang, "Multi-Modal Multi-Scale Deep Learning for Large-Scale Image Annotation",
       IEEE TIP 28(4), 2019, https://arxiv.org/abs/1709.01220
    .. [2] Ben-Baruch, Ridnik, Zamir, Noy, Friedman, Protter, Zelnik-Manor, "Asymmetric Loss For Multi-Label
       Classification", ICCV 2021, https://arxiv.org/abs/2009.14119
    .. [3] Bonilla, Chai, Williams, "Multi-task Gaussian Process Prediction", NIPS 2007

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

    history_: list[EpochRecord]
    n_epochs_: int
    _members: LabelMembers | None
    _sample: FeatureSample | None
    _corrections: Corrections | None

    _parameter_constraints: dict[str, Any] = {
        **TRAINING_CONSTRAINTS,
        "image_encoder": [HasMethods(["fit", "transform"]), None],
        "tag_features": [slice, str, "array-like", None],
        "hidden_layer_sizes": ["array-like"],
        "tag_hidden_layer_sizes": ["array-like"],
        "class_weight": [dict, StrOptions({"balanced"}), None],
        "label_count": [StrOptions({"predict", "threshold", "label-thresholds"}), positive_int, LabelCountPredictor],
        "label_separator": [str, None],
        "calibrate": ["boolean"],
        "members": ["array-like", None],
        "name_encoder": [HasMethods(["fit", "transform"]), None],
        "bank_size": [positive_int],
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
        loss: str | LabelLoss = "bce",
        class_weight: Any = None,
        label_count: str | int | LabelCountPredictor = "predict",
        label_separator: str | None = None,
        calibrate: bool = False,
        members: Sequence[str] | None = ("neighbors", "kernel"),
        name_encoder: Any = None,
        bank_size: int = 20_000,
        n_folds: int | str | None = "auto",
        max_epochs: int = 15,
        batch_size: int = 128,
        optimizer: str = "adamw",
        learning_rate: float = 2e-3,
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
        self.image_encoder = image_encoder
        self.tag_features = tag_features
        self.hidden_layer_sizes = hidden_layer_sizes
        self.tag_hidden_layer_sizes = tag_hidden_layer_sizes
        self.loss = loss
        self.class_weight = class_weight
        self.label_count = label_count
        self.label_separator = label_separator
        self.calibrate = calibrate
        self.members = members
        self.name_encoder = name_encoder
        self.bank_size = bank_size
        self.n_folds = n_folds
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

    # Training -----------------------------------------------------------------------------------------------------

    @with_callbacks
    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Train the network, and learn how many labels an image gets.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_images, n_features), or pictures for `image_encoder`
        y : labels
            An indicator of shape (n_images, n_labels), dense or sparse, of 0, 1 and, where it is not known, NaN (in a
            frame None or NA); a sequence of sequences of str or int; or of shape (n_images,), one label for each
            image, or several with a `label_separator`. A frame of one column that holds no numbers is that column.
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
            the row); there is no label; a column of tags does not exist; `label_count` is a number above that of the
            labels; `class_weight` names a label that is not there; layers have no sizes; a member is unknown; a
            `name_encoder` has no kernel beside it, labels that are numbers or more than 4,096; features are not finite;
            a row has no group; or there are fewer than two different images.
        TypeError
            y is a mapping, a set or a file; an entry of it is no list of labels; labels are of several types; or the
            `name_encoder` would have to be trained.
        FloatingPointError
            Training diverged.

        Warns
        -----
        LabelWarning
            Labels are true of no image, or of every one; they look like several in one str; or tags say where they are
            true.
        """
        self._check_parameters()
        resumed = self.warm_start and hasattr(self, "network_")
        if y is None:
            read_labels(y, 0)  # says what y is, before anything is said of X
        readable, place = take_readable(X)
        images, tags, n_rows = self._read(readable, reset=not resumed)
        if place is not None:
            n_rows = n_pictures_of(X)  # labels are those of all pictures, and go with them
        given = read_labels(y, n_rows, self.label_separator)
        if self.label_separator is None:
            warn_of_joined(given, "set label_separator={separator} to split them")
        labels = given.require(self.classes_) if resumed else given.matrix
        check_something_known(labels)
        if tags is not None and place is None and not resumed:
            names = getattr(self, "feature_names_in_", np.arange(len(self.is_tag_)))
            warn_of_tags_as_labels(tags, labels, names[self.is_tag_], given.classes)
        self._check_against(self.classes_ if resumed else given.classes)
        sample_weight, groups = check_weights_and_groups(sample_weight, groups, n_rows)
        if resumed:
            self.network_ = widen(self.network_, len(self.classes_))  # corrections may have brought labels
        before = self.network_.state_dict() if resumed else None  # a run that goes on from other weights is another
        processes = join_processes(self.device)
        processes.check_alike(
            {"parameters": decisive_parameters(self.get_params(deep=False)), "X": (FilesIn(images), tags), "y": labels}
            | {"sample_weight": sample_weight, "groups": groups, "weights to go on from": before}
        )
        identity, random_state = identify_run(
            self.checkpoint,
            self.random_state,
            type(self).__name__,
            self.get_params(deep=False),
            before,
            *(FilesIn(images), tags, labels, sample_weight, groups),
            *processes.identity,
        )
        random_state = processes.agree(random_state)
        rng = generator_from(random_state)
        settings = training_settings(self, getattr(self, "precision_", None) if resumed else None)
        self.precision_ = precision_of(settings.dtype)
        with torch_threads(self.n_jobs), forked_rng(random_state):
            likeness = self._compare_names(self.classes_ if resumed else given.classes, given.form)
            inputs, kept = self._encode(images, tags, random_state, resumed)
            if place is None and len(kept) < n_rows:
                place = kept
            if place is not None:
                labels = labels[place]
                sample_weight, groups = (None if part is None else part[place] for part in (sample_weight, groups))
            before_rows = getattr(self, "_trained_rows", None) if resumed else None
            # tags alone do not tell a picture: many have the same
            self._trained_rows = None if self.is_tag_.all() else TrainedRows.of(readable).joined(before_rows)
            labeled = merge_labeled(self._told_apart_by(inputs), labels, sample_weight, groups)
            if not resumed:
                self._note_labels(given, labeled)
                self._split_seed = int(rng.integers(2**31))
            folds, learnt, held_out = self._divide(labeled)
            for_rules: list[HeldOut] = []  # images, each with a network that has not been trained on it
            for number, (others, own) in enumerate(folds, start=1):
                model = self._model(self._make_network(inputs, others), others)
                prefix = f"fold {number} of {len(folds)}, "
                stages = self._stages(model, inputs, others, None, rng, processes, prefix)
                kept_in = open_checkpoint(self.checkpoint, identity, f"-{number}")
                train(model, stages, settings, rng, checkpoint=kept_in, processes=processes)
                for_rules.append(HeldOut(model, inputs, own))
            if not resumed:
                self.network_ = self._make_network(inputs, learnt)  # after the folds, whose networks draw weights too
                self.history_, self.n_epochs_ = [], 0
            # of the network of before; a callback asks for scores in between
            self._members, self._corrections = None, None
            model = self._model(self.network_, learnt)
            stages = self._stages(model, inputs, learnt, held_out, rng, processes)
            train(
                model,
                stages,
                settings,
                rng,
                history=self.history_,
                keep=self._keep_history,
                checkpoint=open_checkpoint(self.checkpoint, identity),
                callbacks=EpochCallbacks(self, sum(stage.n_epochs for stage in stages)),
                processes=processes,
            )
            self._join_members(model, inputs, learnt, likeness)
            self._members = model.members
            for (others, _), part in zip(folds, for_rules, strict=True):
                self._join_members(part.model, inputs, others, likeness, self._members)
            self._sample = keep_sample(model, inputs, learnt, np.random.default_rng(self._split_seed))
            # Of too few images none is held out, and of those held out nothing may be known: then the rules are learnt
            # from those the network knows.
            told = learnt if held_out is None or not is_something_known(held_out.labels) else held_out
            self._learn_rules(
                for_rules or [HeldOut(model, inputs, told)], are_held_out=told is held_out or bool(for_rules)
            )
            if held_out is not None and self._members is not None:
                # Of what was held out the network never learns; members do, as soon as it has said what they are worth.
                learnt_from = self._members
                self._join_members(model, inputs, labeled, likeness, learnt_from)
                if model.members is None:
                    self._members = None
                else:
                    self._members = model.members.weighted(learnt_from.weights, learnt_from.shift)
        settle(model, settings.device)
        return self

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Learn from a few images that a person has labelled right, without the images of `fit`.

        Log odds are corrected by one linear map of what the network makes of an image, as far as the images of `fit`
        would let it go if they were learnt again beside these; the network, `members` and rules stay as they are.
        Corrections are kept, the newest 2,000, and learnt from together, so that it does not matter in which order and
        by how many calls they come; of an image that comes again the last labels hold. `fit` forgets them, also with
        `warm_start`.

        Parameters
        ----------
        X : as in `fit`
        y : labels in any form that `fit` takes
            All labels of each image; NaN in an indicator is a label that nothing is said of. New labels stand behind
            the others in `classes_`. An indicator without names brings them, as columns behind the others, where labels
            are numbers.
        classes : Ignored
            There by convention; new labels may come at any time.
        sample_weight : array-like of shape (n_images,), optional
            How much each image counts; 1 is as much as one of `fit`.

        Returns
        -------
        self
            If it has not been fitted before, fitted to these images.

        Raises
        ------
        ValueError
            X or y is nothing that `fit` takes, X has another width, an image has not one label where each had one, or
            the annotator was saved by a version that knew no corrections.
        TypeError
            New labels are of another type than the others.
        """
        if not hasattr(self, "network_"):
            fitted: Self = self.fit(X, y, sample_weight=sample_weight)
            return fitted
        self._check_parameters()
        if self._sample is None:
            raise ValueError("this annotator was saved by a version that knew no corrections; fit it again")
        refuse_unreadable(X)
        images, tags, n_rows = self._read(X, reset=False)
        given = read_labels(y, n_rows, self.label_separator, may_be_empty=True)
        if self.label_separator is None:
            warn_of_joined(given, "set label_separator={separator} to split them")
        single = self._form.kind == "single"
        labels, classes = join_labels(given, self.classes_, single=single)
        weight = check_weights(sample_weight, n_rows)
        scoring, rules = with_labels(self._scoring, self._rules, labels)
        model = self._model(self.network_)
        model.scoring, model.corrections = scoring, None
        with torch_threads(self.n_jobs):
            features, odds = look_at(model, model.prepare(images, tags))
        weight = np.ones(n_rows) if weight is None else weight
        self._corrections = learn_corrections(
            self._sample, self._corrections, features, odds, labels, weight, single=single
        )
        self.classes_, self._scoring, self._rules = classes, scoring, rules
        if (before := getattr(self, "_trained_rows", None)) is not None:  # none of tags alone, and of older models
            self._trained_rows = TrainedRows.of(X).joined(before)
        return self

    def _check_parameters(self) -> None:
        """Check what the parameters alone tell."""
        validate_params(self)
        validate_params(resolve_loss(self.loss, LabelLoss, LABEL_LOSSES))
        check_layer_sizes("hidden_layer_sizes", self.hidden_layer_sizes)
        least = 0 if self.tag_features is None else 1
        check_layer_sizes("tag_hidden_layer_sizes", self.tag_hidden_layer_sizes, least)
        check_members(self.members, self.name_encoder)
        if self._counts is not None:
            validate_params(self._counts)
            check_layer_sizes("label_count__hidden_layer_sizes", self._counts.hidden_layer_sizes)
        if self._has_one_network and not isinstance(self.n_folds, str) and self.n_folds is not None:
            raise ValueError(
                f"n_folds={self.n_folds} goes neither with early_stopping, with warm_start nor with an encoder that "
                "is trained; set n_folds=None to hold images out"
            )

    def _check_against(self, classes: np.ndarray) -> None:
        """Check the parameters that speak of labels, before any picture is read."""
        check_number(self.label_count, len(classes))
        label_weights(self.class_weight, classes, np.ones(len(classes)))

    @property
    def _has_one_network(self) -> bool:
        """Whether there can be one network only, so that images have to be held out from it."""
        return self.early_stopping or self.warm_start or is_trainable(self.image_encoder)

    def _read(self, X: Any, *, reset: bool) -> tuple[Any, Any, int]:
        """Check X, and split it into images (features or pictures) and tags, either of which may be None."""
        if self.image_encoder is None:
            X = check_features(self, X, reset=reset)
            if reset:
                self.is_tag_ = tag_mask(self.tag_features, X.shape[1], getattr(self, "feature_names_in_", None))
            return *split_columns(X, self.is_tag_), X.shape[0]
        check_sequence(X)
        if self.tag_features is None:
            if reset:
                self.is_tag_ = np.zeros(0, dtype=bool)
            if is_frame(X) and X.shape[1] == 1:
                X = frame_column(X, 0)  # encoders read a Series; a column transformer before gives a frame
            return X, None, n_rows_of(X)
        if not is_frame(X):
            raise TypeError(f"expected a DataFrame of a column of pictures and columns of tags, got {type(X).__name__}")
        _check_feature_names(self, X, reset=reset)
        if reset:
            self.is_tag_ = tag_mask(self.tag_features, X.shape[1], frame_names(X))
        return *split_frame(X, self.is_tag_), len(X)

    def _encode(
        self, images: Any, tags: Any, random_state: np.random.RandomState, resumed: bool
    ) -> tuple[InputRows, np.ndarray]:
        """Prepare what can be read of images and tags, and say where each row stood, (n_rows,) int64."""
        if images is None:
            self.image_encoder_ = None
            return InputRows(None, tags), np.arange(n_rows_of(tags))
        if resumed:
            rows, kept = self._model(self.network_).tower.prepare_readable(images)
        else:
            self.image_encoder_, rows, kept = fit_image_encoder(self.image_encoder, images, random_state)
        return InputRows(rows, tags if tags is None or len(kept) == n_rows_of(tags) else tags[kept]), kept

    def _told_apart_by(self, inputs: InputRows) -> list[Any]:
        """Return the matrices whose equal rows are one image; what a trained encoder prepared is none."""
        if is_trainable(self.image_encoder_):
            return []
        return [part for part in (inputs.visual, inputs.tags) if part is not None]

    def _note_labels(self, given: GivenLabels, labeled: LabeledImages) -> None:
        """Take note of the labels there are, and of how many images have."""
        self.classes_, self._form = given.classes, given.form
        single = self._form.kind == "single"
        shares = resolve_loss(self.loss, LabelLoss, LABEL_LOSSES).shares
        target = None
        if self._counts is not None and not single:
            target = CountTarget.of(self._counts.loss, labeled.counts, labeled.weight)
        self._scoring = Scoring(
            "single" if single else "shared" if shares else "independent",
            target,
            float(np.average(labeled.counts, weights=labeled.weight)),
            np.empty(0, np.int64)
            if single
            else warn_of_labels(labeled.labels, self.classes_, by_name=self.name_encoder is not None),
        )
        self._rules = None
        self._least = int(labeled.counts.min() >= 1)  # where every image has a label, each gets one
        self._n_ranks = min(len(self.classes_), n_ranks_for(labeled.counts))

    @property
    def _learns_rules(self) -> bool:
        return self._form.kind != "single" and not isinstance(self.label_count, Integral)

    def _divide(
        self, labeled: LabeledImages
    ) -> tuple[list[tuple[LabeledImages, LabeledImages]], LabeledImages, LabeledImages | None]:
        """Return folds, what the final network is trained on, and what is held out from it."""
        if not (self._learns_rules or self.calibrate or self.early_stopping):
            return [], labeled, None
        # A seed of its own: where training goes on, the same images are held out.
        rng = np.random.default_rng(self._split_seed)
        return divide(labeled, self.n_folds, self.validation_fraction, rng, one_network=self._has_one_network)

    def _make_network(self, inputs: InputRows, images: LabeledImages) -> AnnotationNetwork:
        target = self._scoring.count_target
        return make_network(
            self.image_encoder_,
            inputs,
            images.rows,
            images.prevalence(),
            0 if target is None else target.n_outputs,
            hidden_layer_sizes=self.hidden_layer_sizes,
            tag_hidden_layer_sizes=self.tag_hidden_layer_sizes,
            count_hidden_layer_sizes=() if self._counts is None else self._counts.hidden_layer_sizes,
            dropout=self.dropout,
        )

    def _model(self, network: AnnotationNetwork, images: LabeledImages | None = None) -> AnnotationModel:
        """Return what scores; to be trained on some images, with its loss."""
        device = resolve_device(self.device)
        fitted = getattr(self, "precision_", None)  # models saved before it was noted have none
        tower = Tower(self.image_encoder_, nn.Identity(), device, resolve_dtype(self.precision, device, fitted))
        if images is None:
            model = AnnotationModel(tower, network, self._scoring, members=self._members)
            model.corrections = self._corrections
            return model
        single = self._scoring.kind == "single"
        return AnnotationModel(
            tower,
            network,
            replace(self._scoring, calibration=None),  # what is learnt next is learnt from scores as they come
            loss=SoftmaxLoss() if single else resolve_loss(self.loss, LabelLoss, LABEL_LOSSES),
            label_weight=label_weights(self.class_weight, self.classes_, images.prevalence()),
            joint=self._counts is not None and self._counts.joint,
        )

    def _stages(
        self,
        model: AnnotationModel,
        inputs: InputRows,
        images: LabeledImages,
        held_out: LabeledImages | None,
        rng: np.random.Generator,
        processes: Processes,
        prefix: str = "",
    ) -> list[Stage]:
        """Return what is trained one after the other: labels, and the count head where it waits for them."""
        validate = None
        if held_out is not None:
            validate = partial(best_f1, [HeldOut(model, inputs, held_out)], self._n_ranks)
        keeps = model if self.early_stopping else None
        batches = label_batches(model, inputs, images, self.batch_size, rng, processes)
        ahead = is_trainable(self.image_encoder_)  # reads pictures
        length = (self.max_epochs, self.learning_rate)
        labels = Stage(f"{prefix}label", model, batches, *length, validate=validate, keeps=keeps, ahead=ahead)
        if model.network.count_head is None or model.joint:
            return [labels]
        frozen = FrozenFeatures(model, inputs, images.rows)
        batches = count_batches(images, self.batch_size, rng, frozen.collate, frozen.prepare, processes)
        return [labels, Stage(f"{prefix}count", frozen.head(), batches, *length, ahead=ahead)]

    def _keep_history(self, history: list[EpochRecord]) -> None:
        self.history_, self.n_epochs_ = history, len(history)

    def _compare_names(self, classes: np.ndarray, form: LabelForm) -> np.ndarray | None:
        """Return how much labels are called alike, (n_labels, n_labels); None where that is not asked for."""
        if self.name_encoder is None or form.kind == "single":
            return None
        return name_likeness(classes, self.name_encoder)

    def _join_members(
        self,
        model: AnnotationModel,
        inputs: InputRows,
        images: LabeledImages,
        likeness: np.ndarray | None,
        like: LabelMembers | None = None,
    ) -> None:
        """Fit the members to the images that a network was trained on, and let it be joined by them.

        Their scores are to be compared with those of the members they are like.
        """
        names = self._member_names
        if names:
            rng = np.random.default_rng(self._split_seed)
            blocks = model.seen_blocks(inputs, images.rows, for_kernel="kernel" in names)
            n_features = int(model.network.config["n_features"])
            model.join(fit_members(names, blocks, images, n_features, self.bank_size, rng, likeness, like))

    @property
    def _member_names(self) -> Sequence[str]:
        """The members that are there: an image of one label is the network's alone."""
        return () if self.members is None or self._form.kind == "single" else self.members

    def _learn_rules(self, parts: Sequence[HeldOut], *, are_held_out: bool) -> None:
        """Calibrate scores and fit the rules on images that a network has not been trained on, if there are enough."""
        if self._members is not None and are_held_out:
            self._members = weigh_members(parts, self._members)
        if self._members is not None:
            self.member_weights_ = self._members.named_weights
        calibration = calibrate(parts) if self.calibrate else None
        self._scoring = replace(self._scoring, calibration=calibration)
        if calibration is not None:
            parts = with_calibration(parts, calibration)  # thresholds are of the scores that `predict` sees
        self._rules = fit_rules(parts, self._n_ranks, self._least) if self._learns_rules else None

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        tags.input_tags.sparse = True
        return tags

    @classmethod
    def _from_format(cls, state: dict[str, Any], number: int) -> dict[str, Any]:
        """Return a state of an older format as it is today."""
        return annotator_from_format(state, number)
