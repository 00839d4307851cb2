"""Images and sentences in one space, each found by the other."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.callback import CallbackSupportMixin, with_callbacks
from sklearn.utils import check_random_state
from torch import Tensor, nn

from sklearn_mm._content import FilesIn
from sklearn_mm._device import forked_rng, generator_from, precision_of, resolve_device, resolve_dtype, torch_threads
from sklearn_mm._docs import shared_docs
from sklearn_mm._params import (
    DEVICE_CONSTRAINTS,
    HasMethods,
    Interval,
    StrOptions,
    a_path,
    non_negative_int,
    positive_int,
    positive_real,
    validate_params,
)
from sklearn_mm.features import TextNGramEncoder
from sklearn_mm.losses import PAIR_LOSSES, SIMILARITIES, InstanceLoss, PairLoss, resolve_loss
from sklearn_mm.persistence import PickleStateMixin
from sklearn_mm.registry import stored_as
from sklearn_mm.retrieval._calibration import CALIBRATION_CONSTRAINTS, hold_out
from sklearn_mm.retrieval._data import CaptionedImages, JointBatches
from sklearn_mm.retrieval._format_1 import loss_parameters_as_objects
from sklearn_mm.retrieval._hubness import NearestNeighborNormalization
from sklearn_mm.retrieval._interpolation import best_share, copy_weights, mix_weights
from sklearn_mm.retrieval._search import SEARCH_CONSTRAINTS
from sklearn_mm.retrieval._towers import TwoTowersMixin
from sklearn_mm.retrieval._training import make_model, make_stages, make_validator
from sklearn_mm.towers import (
    fit_encoder,
    make_head,
    output_width,
)
from sklearn_mm.training import (
    OPTIMIZERS,
    SCHEDULES,
    EpochCallbacks,
    EpochRecord,
    TrainingSettings,
    continue_training,
    decisive_parameters,
    identify_run,
    join_processes,
    make_optimizer,
    make_scaler,
    open_checkpoint,
    train,
)

__all__ = ["JointEmbeddingRanker"]

# A share of the texts, so that small collections keep every word. On Flickr8k (30,000 texts) it leaves out the words
# that stand in one text only, which gains 4 points of RSum.
_DEFAULT_MIN_DF = 5e-5

_UNTRIED_SHARE = 0.5  # of what was trained, where nothing could be held out: what Wortsman et al. recommend


@shared_docs
@stored_as("retrieval.JointEmbeddingRanker")
class JointEmbeddingRanker(TwoTowersMixin, CallbackSupportMixin, PickleStateMixin, BaseEstimator):
    """Embed images and their texts in one space, and find each by the other.

    Parameters
    ----------
    text_encoder : estimator, default=None
        An encoder of this library (`TextCNNEncoder`, `TextNGramEncoder`) is trained with the ranker; any other
        scikit-learn transformer (`TfidfVectorizer`, or a `FunctionTransformer` around a sentence encoder pretrained
        elsewhere) is fitted on the captions, as they are written, then frozen under a trained head; it sees each once.
        None takes a `TextNGramEncoder` as wide as the joint space, without the words that fewer than one text in 20,000
        has: the best for its time that we measured.
    image_encoder : transformer, default=None
        An `ImageCNNEncoder` or a `MultiScaleCNNEncoder` is trained with the ranker, on pictures; any other
        transformer, from whatever X holds to features, is fitted and then frozen. None projects the features that it is
        given as X.
    n_components : int, default=1024
        Width of the joint space.
    hidden_layer_sizes : sequence of int, default=()
        Layers of the image head between features and joint space; none for one linear map.
    text_hidden_layer_sizes : sequence of int, default=()
        The same for the head on a text encoder. A trained encoder already as wide as the joint space has no head.
    heads : {"projection", "residual"}, default="projection"
        What stands between an encoder and the joint space. "projection": a linear map or a perceptron, drawn at random.
        "residual": the encoder's vector plus what a perceptron makes of it, which is nothing before training: for
        towers that are aligned already (`PretrainedImageEncoder` and `PretrainedTextEncoder` of one dual encoder),
        whose answers are there from the start. The joint space is as wide as the towers then, whatever `n_components`
        says.
    similarity : {"cosine", "order", "order-root"}, default="cosine"
        "order": minus the squared violation of "each component of the text is below the image's", on vectors of
        absolute values [3]_. "order-root": minus its root, on vectors of any sign, as in the code of [2]_.
    loss : {"infonce", "ranking", "sigmoid"} or PairLoss, default="infonce"
        What pairs are ranked by: an object of ``sklearn_mm.losses``, which holds its own parameters (a margin, a
        temperature, how negatives are chosen), or one of them with its defaults, by name; with ``heads="residual"``
        one by its name begins with the temperature and the bias that the towers were trained with.
    instance_loss : InstanceLoss, default=None
        Beside the ranking [4]_: each image (each group) with its texts is a class, and one linear classifier tells them
        apart by the image's embedding and by the text's; before the ranking, on its own, for `pretrain_epochs`.
    max_epochs : int, default=20
        Passes over the images, those of the instance loss alone not counted. 0 trains nothing: with residual heads,
        search by the towers as they come.
    batch_size : int, default=128
        Images a batch.
    chunk_size : int, default=None
        Send so many images or texts at a time through an encoder that is trained: a batch of any size takes the memory
        of so many, for one more pass without a gradient [6]_. None sends the whole batch at once.
    captions_per_image : int, default=2
        Captions drawn for each image and epoch; all of them, where it has fewer.
    optimizer : {"adamw", "adam", "sgd"}, default="adamw"
    learning_rate : float, default=1e-3
    weight_decay : float, default=1e-4
    %(schedule)s
    clip_norm : float, default=2.0
        The largest norm of the gradient.
    clip_tensors : bool, default=False
        Hold each weight tensor's own gradient to `clip_norm`, instead of all together.
    dropout : float, default=0.3
        Share of features, and of the heads' hidden units, dropped in training.
    early_stopping : bool, default=False
        Hold out images, stop when their RSum has not improved for `n_iter_no_change` epochs, and keep the best weights.
        As the learning rate falls to 0 the last weights are about the best, and held-out images are missed more.
    validation_fraction : float, default=0.1
        With `early_stopping`, share of the images held out, whole groups at a time; none of fewer than ten.
    n_iter_no_change : int, default=5
    interpolate : float or "auto", default=1.0
        Share of what was trained in the weights that are kept; the rest is of those that training began with [5]_. Of
        towers that came pretrained, 0.5 often keeps what they knew with most of what is new. "auto" holds out images as
        `early_stopping` does, and takes the share of 0, 0.1, ..., 1 of their highest RSum (0.5, where there are fewer
        than ten).
    random_state : int, RandomState or None, default=None
        Also of what is random in encoders that have no `random_state` of their own.
    device : str or torch.device, default="auto"
    %(precision)s
    n_jobs : int, default=None
        Threads on the CPU that torch computes with; None takes as many as torch is set to, -1 one for each core. An
        image encoder that is trained reads pictures in as many of its own.
    warm_start : bool, default=False
        `fit` goes on from the weights and the vocabulary of the fit before, without a stage of the instance loss alone.
        A pretrained encoder that held still then (``trainable="none"``) may learn from there on: set its `trainable`.
    %(resumed_and_shown)s
    %(search_parameters)s
    %(calibration)s

    Attributes
    ----------
    image_encoder_, text_encoder_ : estimator or None
        The fitted encoders.
    gallery_texts_ : ndarray of shape (n_gallery_texts,), object or y's dtype
        The texts that `search_texts` and `predict` choose from: after `fit` the different captions, sorted.
    history_ : list of dict
        One record an epoch: ``epoch``, ``stage`` ("instance" or "joint"), ``train_loss``, ``learning_rate``,
        ``seconds`` and, with images held out, ``val_rsum``.
    n_epochs_ : int
        Epochs trained, over all calls and stages.
    loss_ : PairLoss
        The loss, with what it has learnt itself (a trained temperature) as its parameters.
    %(hubness_)s
    interpolation_ : float
        The share of what was trained in the weights.
    n_features_in_ : int
        Width of X, where it is a matrix of features.
    %(fitted_precision)s

    See Also
    --------
    sklearn_mm.features.FullNetworkEmbedding : The features to put before it in a `Pipeline`.
    sklearn_mm.features.LinearNystroem : Comes between both, so that it trains on fewer columns, several times as fast.
    sklearn_mm.losses.PairLoss : What a loss of one's own derives from.
    sklearn_mm.metrics.RetrievalScorer : Recall@K for `GridSearchCV`.

    Notes
    -----
    One row is one image, with one caption (a str) or several (a list of str). Rows with equal features are one image,
    if of one group: their captions are joined, their weights added. So the pair form (one row per caption) can be given
    as well: pictures that stand in several rows by their paths, or as the same object, and equal features with a
    caption each, are one item of the gallery, found by the first of its rows, and a `MergedRowsWarning` tells how many
    are left. An encoder of this library before the ranker in a `Pipeline` looks at each once and passes that on.
    Captions of the same image, of the same group, or of the same wording are never negatives of each other.

    With `chunk_size` the gradient is that of the whole batch, to rounding: losses, heads and the instance loss's
    classifier see all of it, and the second pass drops what the first has dropped. Dropout inside of an encoder is
    drawn chunk by chunk, and a batch norm there that learns has the statistics of a chunk.

    Training takes memory for the features and one batch; the instance loss adds its classifier, ``4 * n_components``
    bytes for each image, and four times that for its gradients and the optimiser. After `fit` both galleries hold the
    training data, 4 bytes a component and item; `set_gallery` replaces them.

    %(threads)s

    References
    ----------
    .. [1] Kiros, Salakhutdinov, Zemel, "Unifying Visual-Semantic Embeddings with Multimodal Neural Language Models",
       2014, https://arxiv.org/abs/1411.2539
    .. [2] Faghri, Fleet, Kiros, Fidler, "VSE++: Improving Visual-Semantic Embeddings with Hard Negatives", BMVC 2018,
       https://arxiv.org/abs/1707.05612
    .. [3] Vendrov, Kiros, Fidler, Urtasun, "Order-Embeddings of Images and Language", ICLR 2016,
       https://arxiv.org/abs/1511.06361
    .. [4] Zheng, Zheng, Garrett, Yang, Xu, Shen, "Dual-Path Convolutional Image-Text Embeddings with Instance Loss",
       ACM TOMM 16(2), 2020, https://arxiv.org/abs/1711.05535
    .. [5] Wortsman et al., "Robust Fine-tuning of Zero-shot Models", CVPR 2022, https://arxiv.org/abs/2109.01903
    .. [6] Gao, Zhang, Han, Callan, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup",
       RepL4NLP 2021, https://arxiv.org/abs/2101.06983

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_mm.retrieval import JointEmbeddingRanker
    >>> captions = [f"a {colour} {shape}" for colour in ("red", "green", "blue") for shape in ("dot", "box")] * 8
    >>> features = np.tile(np.eye(6), (8, 1)) + np.random.default_rng(0).normal(0, 0.1, (48, 6))
    >>> ranker = JointEmbeddingRanker(n_components=16, batch_size=8, max_epochs=40, random_state=0)
    >>> ranker.fit(features, captions).predict(features[:3])
    array(['a red dot', 'a red box', 'a green dot'], dtype=object)
    >>> scores, indices = ranker.search_images(["a green dot"], k=3)
    >>> {captions[i].split()[1] for i in indices[0]}
    {'green'}
    """

    _parameter_constraints: dict[str, Any] = {
        **DEVICE_CONSTRAINTS,
        **SEARCH_CONSTRAINTS,
        **CALIBRATION_CONSTRAINTS,
        "text_encoder": [HasMethods(["fit", "transform"]), None],
        "image_encoder": [HasMethods(["fit", "transform"]), None],
        "n_components": [positive_int],
        "hidden_layer_sizes": ["array-like"],
        "text_hidden_layer_sizes": ["array-like"],
        "heads": [StrOptions({"projection", "residual"})],
        "similarity": [StrOptions(set(SIMILARITIES))],
        "loss": [StrOptions(set(PAIR_LOSSES)), PairLoss],
        "instance_loss": [InstanceLoss, None],
        "max_epochs": [non_negative_int],
        "batch_size": [Interval(Integral, 2, None, closed="left")],  # a lone image has no negative
        "chunk_size": [Interval(Integral, 2, None, closed="left"), None],  # as a batch norm needs two rows
        "captions_per_image": [positive_int],
        "optimizer": [StrOptions(set(OPTIMIZERS))],
        "learning_rate": [positive_real],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "lr_schedule": [StrOptions(set(SCHEDULES))],
        "clip_norm": [positive_real],
        "clip_tensors": ["boolean"],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [positive_int],
        "interpolate": [Interval(Real, 0, 1, closed="both"), StrOptions({"auto"})],
        "random_state": ["random_state"],
        "n_jobs": [Integral, None],
        "warm_start": ["boolean"],
        "checkpoint": [a_path, None],
        "verbose": [non_negative_int, "boolean"],
    }

    loss_: PairLoss
    _n_features_out: int

    _not_pickled = ("_told_words", "_continued")  # the last is what partial_fit hands from one call to the next

    def __init__(
        self,
        text_encoder: Any = None,
        image_encoder: Any = None,
        *,
        n_components: int = 1024,
        hidden_layer_sizes: Sequence[int] = (),
        text_hidden_layer_sizes: Sequence[int] = (),
        heads: str = "projection",
        similarity: str = "cosine",
        loss: str | PairLoss = "infonce",
        instance_loss: InstanceLoss | None = None,
        max_epochs: int = 20,
        batch_size: int = 128,
        chunk_size: int | None = None,
        captions_per_image: int = 2,
        optimizer: str = "adamw",
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
        lr_schedule: str = "cosine",
        clip_norm: float = 2.0,
        clip_tensors: bool = False,
        dropout: float = 0.3,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 5,
        interpolate: float | str = 1.0,
        random_state: Any = None,
        device: Any = "auto",
        precision: str = "auto",
        n_jobs: int | None = None,
        warm_start: bool = False,
        checkpoint: str | os.PathLike[str] | None = None,
        verbose: int = 0,
        hubness: str | NearestNeighborNormalization | None = "auto",
        index: Any = None,
        calibration_fraction: float | None = None,
    ) -> None:
        self.text_encoder = text_encoder
        self.image_encoder = image_encoder
        self.n_components = n_components
        self.hidden_layer_sizes = hidden_layer_sizes
        self.text_hidden_layer_sizes = text_hidden_layer_sizes
        self.heads = heads
        self.similarity = similarity
        self.loss = loss
        self.instance_loss = instance_loss
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.chunk_size = chunk_size
        self.captions_per_image = captions_per_image
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.lr_schedule = lr_schedule
        self.clip_norm = clip_norm
        self.clip_tensors = clip_tensors
        self.dropout = dropout
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.interpolate = interpolate
        self.random_state = random_state
        self.device = device
        self.precision = precision
        self.n_jobs = n_jobs
        self.warm_start = warm_start
        self.checkpoint = checkpoint
        self.verbose = verbose
        self.hubness = hubness
        self.index = index
        self.calibration_fraction = calibration_fraction

    @with_callbacks
    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Train both towers, and make the training data the galleries.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_images, n_features), or images for `image_encoder`
        y : sequence of (str or sequence of str), length n_images
            The captions of each image. A frame of one column is that column; several columns are several captions each,
            of which those that are missing are left out as long as one is left.
        sample_weight : array-like of shape (n_images,), optional
            How much each image counts; 0 leaves it out.
        groups : array-like of shape (n_images,), optional
            Images of one group (one scene, one person, near duplicates) are no negatives of each other, and are held
            out together.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            Lengths differ, an image has no caption or no group, a caption is empty (the message names the row),
            features are not finite, or there are fewer than two images.
        TypeError
            y is a mapping, a set or a file, or an entry is neither a str nor a sequence of str.
        FloatingPointError
            Training diverged.
        """
        self._check_parameters()
        resumed = self.warm_start and hasattr(self, "image_head_")
        given = self._check_training_data(X, y, sample_weight, groups, reset=not resumed)
        X, captions, place, sample_weight, groups = given.parts
        processes = join_processes(self.device)
        # How a model is searched decides nothing of its training.
        decisive = {key: value for key, value in self.get_params(deep=False).items() if key not in SEARCH_CONSTRAINTS}
        processes.check_alike(
            {"parameters": decisive_parameters(decisive), "X": FilesIn(X), "y": captions, "groups": groups}
            | {"sample_weight": sample_weight, "weights to go on from": self._learnt_before() if resumed else None}
        )
        # Also what the run starts from: with warm_start the same data and parameters lead elsewhere each time.
        identity, random_state = identify_run(
            self.checkpoint,
            self.random_state,
            type(self).__name__,
            decisive,
            self._learnt_before() if resumed else None,
            *(FilesIn(X), captions, groups, sample_weight),
            *processes.identity,
        )
        random_state = processes.agree(random_state)
        # Two streams come from one random state: numpy's for what is held out and for batches, torch's (seeded by
        # forked_rng) for first weights and dropout.
        rng = generator_from(random_state)
        # The optimiser of partial_fit has averages of gradients of weights that are left behind here.
        self.__dict__.pop("_continued", None)
        settings = self._settings(self._fitted_precision() if resumed else None)
        self.precision_ = precision_of(settings.dtype)
        sample_weight, kept_out = hold_out(self.calibration_fraction, sample_weight, groups, captions.n_images, rng)
        with torch_threads(self.n_jobs), forked_rng(random_state):
            rows, images, captions, place = self._encode_images(
                X, captions, place, sample_weight, groups, random_state, resumed
            )
            held_out = None
            # Before the texts are encoded, so that the vocabulary knows no caption that is held out.
            if self.early_stopping or self.interpolate == "auto":
                images, held_out = images.split(self.validation_fraction, rng)
            text_rows = self._encode_texts(rows, images, random_state, resumed)
            processes.check_enough(len(images))
            batches = replace(self._batches(rows, text_rows, images, rng), processes=processes)
            validate = None
            if held_out is not None:
                validate = make_validator(batches, rows[held_out.rows], held_out, self.similarity)
            model = make_model(
                batches,
                self.loss_,
                self.similarity,
                self.instance_loss,
                self._n_features_out,
                chunk_size=self.chunk_size,
            )
            towers = nn.ModuleList([batches.image_tower, batches.text_tower])
            start = None if self.interpolate == 1 else copy_weights(towers)
            stages = make_stages(
                model,
                batches,
                self.instance_loss,
                n_epochs=self.max_epochs,
                learning_rate=self.learning_rate,
                validate=validate,
                pretrains=not resumed,
                stops_early=self.early_stopping,
                # what is aligned before training is not to be worse after it
                keeps_start=self.heads == "residual",
            )
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
            self.loss_ = model.objective.learnt_loss()
            self.interpolation_ = 1.0 if start is None else self._interpolate(towers, start, validate)
        self._set_training_gallery(rows, captions, images, text_rows, given.rows_of(place), rng)
        return self._calibrate(captions, place, kept_out)

    def _interpolate(
        self, towers: nn.Module, start: dict[str, Tensor], validate: Callable[[], tuple[str, float]] | None
    ) -> float:
        """Go back a part of the way from the weights trained to those before; return the share of the former."""
        end = copy_weights(towers)
        share = self.interpolate
        if isinstance(share, str):
            share = _UNTRIED_SHARE
            if validate is not None:
                share = best_share(towers, start, end, lambda: validate()[1])
        mix_weights(towers, start, end, float(share))
        return float(share)

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Train for one pass over the given rows, at a constant learning rate and without holding any out.

        The first call sets the vocabulary and the statistics of the features; they stay. The rows become the galleries.

        Parameters
        ----------
        X, y, sample_weight, groups
            As in `fit`.

        Returns
        -------
        self
        """
        self._check_parameters()
        if self.instance_loss is not None and any(self.instance_loss.weights):
            raise ValueError(
                "partial_fit knows nothing of the images of later calls, which are classes of the instance loss; "
                "set instance_loss=None, or call fit with all images"
            )
        first = not hasattr(self, "image_head_")
        given = self._check_training_data(X, y, sample_weight, groups, reset=first)
        X, captions, place, sample_weight, groups = given.parts
        random_state = check_random_state(self.random_state)
        if not first and not isinstance(self.random_state, np.random.RandomState):
            # A seed drawn anew by every call would repeat the same batches and the same dropout.
            random_state = np.random.RandomState(
                [random_state.randint(2**31 - 1), self.n_epochs_] if self.random_state is not None else None
            )
        rng = generator_from(random_state)
        settings = self._settings(None if first else self._fitted_precision())
        self.precision_ = precision_of(settings.dtype)
        with torch_threads(self.n_jobs), forked_rng(random_state):
            rows, images, captions, place = self._encode_images(
                X, captions, place, sample_weight, groups, random_state, not first
            )
            text_rows = self._encode_texts(rows, images, random_state, not first)
            self._train_one_epoch(self._batches(rows, text_rows, images, rng), settings)
        return self._set_training_gallery(rows, captions, images, text_rows, given.rows_of(place), rng)

    def _train_one_epoch(self, batches: JointBatches, settings: TrainingSettings) -> None:
        """Train with the optimiser of the pass before, as long as all that it depends on is the same."""
        model = make_model(batches, self.loss_, self.similarity, None, self._n_features_out, chunk_size=self.chunk_size)
        loss = resolve_loss(self.loss, PairLoss, PAIR_LOSSES)
        asked = (settings, self.learning_rate, self.similarity, type(loss), loss.get_params())
        # Towers are made anew for each call, around the same modules: an optimiser kept from the call before still has
        # their weights. After unpickling there is none, and its averages begin anew.
        continued = getattr(self, "_continued", None)
        if continued is None or continued[0] != asked:
            optimizer = make_optimizer(
                self.optimizer, model, learning_rate=self.learning_rate, weight_decay=self.weight_decay
            )
            continued = (asked, model.objective, optimizer, make_scaler(settings))
        self._continued = continued
        # The objective is kept with its optimiser, which trains the scalars of that one (a temperature).
        _, model.objective, optimizer, scaler = continued
        (stage,) = make_stages(
            model, batches, None, n_epochs=1, learning_rate=self.learning_rate, validate=None, pretrains=False
        )
        self._keep_history(continue_training(stage, settings, optimizer, scaler, self.history_))
        self.loss_ = model.objective.learnt_loss()

    def _check_parameters(self) -> None:
        validate_params(self)
        self._check_search_parameters()
        for part in (self.loss, self.instance_loss):
            if not isinstance(part, str | None):
                validate_params(part)

    def _settings(self, fitted: str | None = None) -> TrainingSettings:
        device = resolve_device(self.device)
        return TrainingSettings(
            device=device,
            dtype=resolve_dtype(self.precision, device, fitted),
            optimizer=self.optimizer,
            weight_decay=self.weight_decay,
            lr_schedule=self.lr_schedule,
            clip_norm=self.clip_norm,
            clip_tensors=self.clip_tensors,
            n_iter_no_change=self.n_iter_no_change,
            verbose=self.verbose,
        )

    def _keep_history(self, history: list[EpochRecord]) -> None:
        self.history_, self.n_epochs_ = history, len(history)

    def _learnt_before(self) -> list[Any]:
        """Return all that a warm start goes on from."""
        towers = (self._image_tower(), self._text_tower())
        return [self.loss_.get_params(), *(tower.state_dict() for tower in towers)]

    def _encode_texts(
        self, rows: Any, images: CaptionedImages, random_state: np.random.RandomState, resumed: bool
    ) -> Any:
        """Return the prepared texts; build both towers, unless training goes on with those there are."""
        loss = resolve_loss(self.loss, PairLoss, PAIR_LOSSES)
        if resumed:
            self.loss_ = _gone_on(loss, self.loss_)
            self._let_learn(self.text_encoder_, self.text_encoder, random_state)
            return self._text_tower().prepare(images.texts)
        residual = self.heads == "residual"
        width = output_width(self.image_encoder_, rows) if residual else self.n_components
        encoder = self.text_encoder
        if encoder is None:
            encoder = TextNGramEncoder(width, word_dim=width, min_df=_DEFAULT_MIN_DF)
        # Text encoder, image head, text head: the first weights are drawn in this order, which is a part of what a seed
        # gives.
        self.text_encoder_, text_rows = fit_encoder(encoder, images.texts, random_state)
        if residual and (text_width := output_width(self.text_encoder_, text_rows)) != width:
            raise ValueError(
                f"heads='residual' starts from the vectors that both encoders give, but those of images have {width} "
                f"columns and those of texts {text_width}; take both encoders from one dual encoder, or "
                "heads='projection'"
            )
        self.image_head_ = make_head(
            self.image_encoder_,
            rows,
            images.rows,
            n_components=self.n_components,
            hidden_layer_sizes=self.hidden_layer_sizes,
            dropout=self.dropout,
            residual=residual,
        )
        self.text_head_ = make_head(
            self.text_encoder_,
            text_rows,
            np.arange(len(images.texts)),
            n_components=self.n_components,
            hidden_layer_sizes=self.text_hidden_layer_sizes,
            dropout=self.dropout,
            residual=residual,
        )
        if residual and isinstance(self.loss, str):
            loss = _of_the_towers(loss, self.image_encoder_, self.text_encoder_)
        self.loss_ = loss
        self.interpolation_ = 1.0
        self._keep_history([])
        # What get_feature_names_out counts to.
        self._n_features_out = width
        return text_rows

    def _batches(self, rows: Any, text_rows: Any, images: CaptionedImages, rng: np.random.Generator) -> JointBatches:
        return JointBatches(
            self._image_tower(),
            self._text_tower(),
            rows,
            text_rows,
            images,
            self.batch_size,
            self.captions_per_image,
            self.loss_.pool_size,
            rng,
        )

    @classmethod
    def _from_format(cls, state: dict[str, Any], number: int) -> dict[str, Any]:
        """Bring the state of an older format to today's."""
        # Models of before searched by plain scores, exactly.
        before = {"hubness": None, "index": None, "heads": "projection", "interpolate": 1.0, "chunk_size": None}
        learnt = {"hubness_": None, "interpolation_": 1.0} if "image_head_" in state else {}  # copies come by here too
        state = before | learnt | state
        return loss_parameters_as_objects(state) if number < 2 else state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.input_tags.sparse = True
        # float32 comes out, whatever goes in
        tags.transformer_tags.preserves_dtype = []
        return tags


def _gone_on(asked: PairLoss, before: PairLoss) -> PairLoss:
    """Return the loss asked for, with what it has learnt before if it is of the same kind."""
    learnt = before.initial()
    if type(asked) is not type(before) or asked.initial().keys() != learnt.keys():
        return asked
    return asked.with_learnt(learnt)


def _of_the_towers(loss: PairLoss, *encoders: Any) -> PairLoss:
    """Return the loss with the temperature and the bias that the first encoder knowing them was trained with."""
    scale = next((scale for each in encoders if (scale := getattr(each, "logit_scale_", None)) is not None), None)
    bias = next((bias for each in encoders if (bias := getattr(each, "logit_bias_", None)) is not None), None)
    known = {"temperature": None if scale is None else 1 / scale, "bias": bias}
    own = loss.get_params()
    return clone(loss).set_params(**{name: value for name, value in known.items() if name in own and value is not None})
