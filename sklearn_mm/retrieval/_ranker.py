"""Images and sentences in one space, each found by the other."""

import os
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.callback import with_callbacks
from sklearn.utils import check_random_state

from sklearn_mm._checks import Captions, check_captions
from sklearn_mm._device import forked_rng, generator_from, resolve_device, torch_threads
from sklearn_mm._params import (
    DEVICE_CONSTRAINTS,
    HasMethods,
    Interval,
    StrOptions,
    non_negative_int,
    positive_int,
    positive_real,
    validate_params,
)
from sklearn_mm.features import TextNGramEncoder
from sklearn_mm.features._rows import row_digests
from sklearn_mm.features._tower import fit_encoder, is_trainable, make_head
from sklearn_mm.losses import NEGATIVES, SIMILARITIES
from sklearn_mm.persistence import PickleStateMixin
from sklearn_mm.registry import stored_as
from sklearn_mm.retrieval._epochs import JointBatches
from sklearn_mm.retrieval._search import JointSpaceMixin
from sklearn_mm.retrieval._stages import instance_weights, make_objective, make_stages, make_validator
from sklearn_mm.retrieval._training_rows import TrainingRows, check_groups, check_weights, merge_rows
from sklearn_mm.training import OPTIMIZERS, SCHEDULES, StagedTrainingMixin, make_optimizer, make_schedule

__all__ = ["JointEmbeddingRanker"]

# A share of the texts, so that small collections keep every word. On Flickr8k (30,000 texts) it leaves out the words
# that stand in one text only, which gains 4 points of RSum.
_DEFAULT_MIN_DF = 5e-5
# What the optimiser and the objective are made of that partial_fit keeps from call to call.
_PASSED_ON = (
    *("optimizer", "learning_rate", "weight_decay", "device", "precision", "similarity", "loss", "margin"),
    *("temperature", "train_temperature", "negatives", "negative_side"),
)


@stored_as("retrieval.JointEmbeddingRanker")
class JointEmbeddingRanker(JointSpaceMixin, StagedTrainingMixin, PickleStateMixin, BaseEstimator):
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
    similarity : {"cosine", "order", "order-root"}, default="cosine"
        "order": minus the squared violation of "each component of the text is below the image's", on vectors of
        absolute values [3]_. "order-root": minus its root, on vectors of any sign, as in the code of [2]_.
    loss : {"ranking", "infonce"}, default="infonce"
        Hinges with a margin, or a softmax over the batch.
    margin : float, default=0.2
        Of the ranking loss: by how much the true pair's score has to be the higher one.
    temperature : float, default=0.07
        Of InfoNCE: scores are divided by it.
    train_temperature : bool, default=False
        Train the temperature with the rest, from the value given; it never falls below 0.01.
    negatives : {"all", "hardest", "hardest-anchor", "semi-hard", "random"} or two of them, default="all"
        Which of a batch's negatives each pair is set against; two names: among texts, among images. "hardest" is
        VSE++'s; "hardest-anchor" lets each negative count for the pair it violates most, as in the code of the
        full-network embedding.
    negative_side : {"both", "text", "image"}, default="both"
        Whether the text of a pair is replaced by a wrong one, or the image, or each in turn.
    text_pool_size : int, default=0
        In each step, look through so many texts of the whole training set for each image's hardest negative, and put
        it among the batch's (256 in [4]_). Takes one more pass of the text tower over them, without gradient.
    instance_weight : float or (float, float), default=0.0
        Of the instance loss [4]_ beside the ranking: each image (each group) with its texts is a class, and one linear
        classifier tells them apart by the image's embedding and by the text's. Two numbers: for images, for texts.
    instance_temperature : float or None, default=0.05
        The classifier's features and weights are of unit length and their cosines divided by it. None takes them as
        they are, as the source does.
    instance_dropout : float, default=0.0
        Share of the embedding dropped in front of the classifier in training.
    pretrain_epochs : int, default=0
        A stage before the ranking: so many passes by the instance loss alone, with a trainable image encoder's
        backbone frozen.
    pretrain_learning_rate : float, default=None
        Of that stage; None for `learning_rate`. Its schedule is `lr_schedule` again.
    final_relu : bool, default=False
        The losses see embeddings after a ReLU, search sees them before it, as in [4]_.
    max_epochs : int, default=20
        Passes over the images, those of `pretrain_epochs` not counted.
    batch_size : int, default=128
        Images a batch.
    captions_per_image : int, default=2
        Captions drawn for each image and epoch; all of them, where it has fewer.
    optimizer : {"adamw", "adam", "sgd"}, default="adamw"
    learning_rate : float, default=1e-3
    weight_decay : float, default=1e-4
    lr_schedule : {"cosine", "linear", "step", "constant"}, default="cosine"
        "cosine" rises over a tenth of all steps; "step" falls to a tenth after half of them.
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
    random_state : int, RandomState or None, default=None
        Also of what is random in encoders that have no `random_state` of their own.
    device : str or torch.device, default="auto"
    precision : {"auto", "float32", "bfloat16", "float16"}, default="float32"
    n_jobs : int, default=None
        Threads that torch computes with on the CPU; None leaves torch's number, -1 takes all.
    warm_start : bool, default=False
        `fit` goes on from the weights and the vocabulary of the fit before, without `pretrain_epochs`.
    checkpoint : path, default=None
        A folder that holds the state of training after every epoch. A `fit` of the same parameters and data goes on
        from there, to the same weights as one that was never stopped, bit for bit on the CPU with as many threads. Each
        combination of parameters and data has a file of its own, so that a grid search can share the folder. A run that
        has finished is read back, not trained again: remove the folder to do so. With a checkpoint, a `random_state` of
        None means one that is drawn from parameters and data.
    verbose : int, default=0
        Show a bar over epochs.

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
    temperature_ : float
        The temperature after training.
    n_features_in_ : int
        Width of X, where it is a matrix of features.

    See Also
    --------
    sklearn_mm.features.FullNetworkEmbedding : The features to put before it in a `Pipeline`.
    sklearn_mm.metrics.RetrievalScorer : Recall@K for `GridSearchCV`.

    Notes
    -----
    One row is one image, with one caption (a str) or several (a list of str). Rows with equal features are one image:
    their captions are joined, their weights added, so that the pair form (one row per caption) can be given as well.
    Captions of the same image, of the same group, or of the same wording are never negatives of each other.

    Training takes memory for the features and one batch; the instance loss adds its classifier, ``4 * n_components``
    bytes for each image, and four times that for its gradients and the optimiser. After `fit` both galleries hold the
    training data, 4 bytes a component and item; `set_gallery` replaces them.

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

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_mm.retrieval import JointEmbeddingRanker
    >>> captions = [f"a {colour} {shape}" for colour in ("red", "green", "blue") for shape in ("dot", "box")] * 8
    >>> features = np.tile(np.eye(6), (8, 1)) + np.random.default_rng(0).normal(0, 0.1, (48, 6))
    >>> ranker = JointEmbeddingRanker(n_components=16, batch_size=8, max_epochs=40, random_state=0)
    >>> ranker.fit(features, captions).predict(features[:3])
    array(['a red dot', 'a red box', 'a green dot'], dtype=object)
    >>> scores, indices = ranker.search_images(["something green"], k=3)
    >>> {captions[i].split()[1] for i in indices[0]}
    {'green'}
    """

    _parameter_constraints: dict[str, Any] = {
        **DEVICE_CONSTRAINTS,
        "text_encoder": [HasMethods(["fit", "transform"]), None],
        "image_encoder": [HasMethods(["fit", "transform"]), None],
        "n_components": [positive_int],
        "hidden_layer_sizes": ["array-like"],
        "text_hidden_layer_sizes": ["array-like"],
        "similarity": [StrOptions(set(SIMILARITIES))],
        "loss": [StrOptions({"ranking", "infonce"})],
        "margin": [Interval(Real, 0, None, closed="left")],
        "temperature": [positive_real],
        "train_temperature": ["boolean"],
        "negatives": [StrOptions(set(NEGATIVES)), tuple, list],
        "negative_side": [StrOptions({"both", "text", "image"})],
        "text_pool_size": [non_negative_int],
        "instance_weight": [Interval(Real, 0, None, closed="left"), "array-like"],
        "instance_temperature": [positive_real, None],
        "instance_dropout": [Interval(Real, 0, 1, closed="left")],
        "pretrain_epochs": [non_negative_int],
        "pretrain_learning_rate": [positive_real, None],
        "final_relu": ["boolean"],
        "max_epochs": [positive_int],
        "batch_size": [Interval(Integral, 2, None, closed="left")],
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
        "random_state": ["random_state"],
        "n_jobs": [Integral, None],
        "warm_start": ["boolean"],
        "checkpoint": [str, os.PathLike, None],
        "verbose": [non_negative_int, "boolean"],
    }

    _not_pickled = ("_continued",)  # what partial_fit hands from one call to the next

    def __init__(
        self,
        text_encoder: Any = None,
        image_encoder: Any = None,
        *,
        n_components: int = 1024,
        hidden_layer_sizes: Sequence[int] = (),
        text_hidden_layer_sizes: Sequence[int] = (),
        similarity: str = "cosine",
        loss: str = "infonce",
        margin: float = 0.2,
        temperature: float = 0.07,
        train_temperature: bool = False,
        negatives: str | tuple[str, str] = "all",
        negative_side: str = "both",
        text_pool_size: int = 0,
        instance_weight: float | tuple[float, float] = 0.0,
        instance_temperature: float | None = 0.05,
        instance_dropout: float = 0.0,
        pretrain_epochs: int = 0,
        pretrain_learning_rate: float | None = None,
        final_relu: bool = False,
        max_epochs: int = 20,
        batch_size: int = 128,
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
        random_state: Any = None,
        device: Any = "auto",
        precision: str = "float32",
        n_jobs: int | None = None,
        warm_start: bool = False,
        checkpoint: str | os.PathLike[str] | None = None,
        verbose: int = 0,
    ) -> None:
        self.text_encoder = text_encoder
        self.image_encoder = image_encoder
        self.n_components = n_components
        self.hidden_layer_sizes = hidden_layer_sizes
        self.text_hidden_layer_sizes = text_hidden_layer_sizes
        self.similarity = similarity
        self.loss = loss
        self.margin = margin
        self.temperature = temperature
        self.train_temperature = train_temperature
        self.negatives = negatives
        self.negative_side = negative_side
        self.text_pool_size = text_pool_size
        self.instance_weight = instance_weight
        self.instance_temperature = instance_temperature
        self.instance_dropout = instance_dropout
        self.pretrain_epochs = pretrain_epochs
        self.pretrain_learning_rate = pretrain_learning_rate
        self.final_relu = final_relu
        self.max_epochs = max_epochs
        self.batch_size = batch_size
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
        self.random_state = random_state
        self.device = device
        self.precision = precision
        self.n_jobs = n_jobs
        self.warm_start = warm_start
        self.checkpoint = checkpoint
        self.verbose = verbose

    @with_callbacks
    def fit(self, X: Any, y: Any, groups: Any = None, sample_weight: Any = None) -> Self:
        """Train both towers, and make the training data the galleries.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_images, n_features), or images for `image_encoder`
        y : sequence of (str or sequence of str), length n_images
            The captions of each image.
        groups : array-like of shape (n_images,), optional
            Images of one group (one scene, one person, near duplicates) are no negatives of each other, and are held
            out together.
        sample_weight : array-like of shape (n_images,), optional
            How much each image counts; 0 leaves it out.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            Lengths differ, an image has no caption, a caption is empty (the message names the row), features are not
            finite, or there are fewer than two images.
        FloatingPointError
            Training diverged.
        """
        validate_params(self)
        resumed = self.warm_start and hasattr(self, "image_head_")
        X, captions = self._check_training_data(X, y, reset=not resumed)
        before = [self.temperature_, *(part.state_dict() for part in self._tower_modules())] if resumed else None
        identity, random_state = self._identify(before, X, captions, groups, sample_weight)
        rng = generator_from(random_state)
        self.__dict__.pop("_continued", None)
        with torch_threads(self.n_jobs), forked_rng(random_state, resolve_device(self.device)):
            rows, training = self._encode_images(X, captions, groups, sample_weight, random_state, resumed)
            held_out = None
            if self.early_stopping:
                training, held_out = training.split(self.validation_fraction, rng)
            text_rows = self._prepare_texts(rows, training, random_state, resumed)
            data = self._batches(rows, text_rows, training, rng)
            validate = None
            if held_out is not None:
                towers = data.image_tower, data.text_tower
                validate = make_validator(*towers, rows[held_out.rows], held_out, self.similarity)
            objective = make_objective(self)
            stages = make_stages(self, data, objective, validate, pretrains=not resumed)
            self._run_stages(stages, stages[-1].parts, rng, self._checkpoint(identity))
            self.temperature_ = float(objective.temperature.detach())
        return self._set_training_gallery(rows, captions, training.texts, text_rows)

    def partial_fit(self, X: Any, y: Any, groups: Any = None, sample_weight: Any = None) -> Self:
        """Train for one pass over the given rows, at a constant learning rate and without holding any out.

        The first call sets the vocabulary and the statistics of the features; they stay. The rows become the galleries.

        Parameters
        ----------
        X, y, groups, sample_weight
            As in `fit`.

        Returns
        -------
        self
        """
        validate_params(self)
        if any(instance_weights(self.instance_weight)):
            raise ValueError(
                "partial_fit knows nothing of the images of later calls, which are classes of the instance loss; "
                "set instance_weight=0, or call fit with all images"
            )
        first = not hasattr(self, "image_head_")
        X, captions = self._check_training_data(X, y, reset=first)
        random_state = check_random_state(self.random_state)
        if not first and not isinstance(self.random_state, np.random.RandomState):
            # A seed drawn anew by every call would repeat the same batches and the same dropout.
            random_state = np.random.RandomState(
                [random_state.randint(2**31 - 1), self.n_epochs_] if self.random_state is not None else None
            )
        rng = generator_from(random_state)
        with torch_threads(self.n_jobs), forked_rng(random_state, resolve_device(self.device)):
            rows, training = self._encode_images(X, captions, groups, sample_weight, random_state, not first)
            text_rows = self._prepare_texts(rows, training, random_state, not first)
            data = self._batches(rows, text_rows, training, rng)
            self._train_one_epoch(data)
        return self._set_training_gallery(rows, captions, training.texts, text_rows)

    def _train_one_epoch(self, data: JointBatches) -> None:
        """Train with the optimiser of the pass before, as long as the parameters that it depends on are the same."""
        asked = {name: getattr(self, name) for name in _PASSED_ON}
        if getattr(self, "_continued", ({},))[0] != asked:
            objective = make_objective(self)
            parts = [*self._tower_modules(), objective]
            optimizer = make_optimizer(
                self.optimizer, parts, learning_rate=self.learning_rate, weight_decay=self.weight_decay
            )
            self._continued = (asked, objective, optimizer, self._make_scaler())
        _, objective, optimizer, scaler = self._continued
        (stage,) = make_stages(self, data, objective, None, pretrains=False)
        constant = make_schedule("constant", optimizer, 1)
        for record in self._stage_epochs(stage, 1, optimizer, constant, scaler):
            self._keep(record, stage.name)
        self.temperature_ = float(objective.temperature.detach())

    def _check_training_data(self, X: Any, y: Any, *, reset: bool) -> tuple[Any, Captions]:
        if y is None:
            check_captions(y)
        X = self._check_images(X, reset=reset)
        captions = check_captions(y, X)
        if captions.n_images < 2:
            raise ValueError(f"expected at least 2 images to train on, got {captions.n_images} (n_samples=1)")
        return X, captions

    def _encode_images(
        self,
        X: Any,
        captions: Captions,
        groups: Any,
        sample_weight: Any,
        random_state: np.random.RandomState,
        resumed: bool,
    ) -> tuple[Any, TrainingRows]:
        """Turn images into prepared rows, and bring them into the order of training."""
        groups = check_groups(groups, captions.n_images)
        sample_weight = check_weights(sample_weight, captions.n_images)
        if resumed:
            rows = self._image_tower().prepare(X)
        else:
            self.image_encoder_, rows = fit_encoder(self.image_encoder, X, random_state)
        n_rows = rows.shape[0] if hasattr(rows, "shape") else len(rows)
        if n_rows != captions.n_images:
            raise ValueError(
                f"the image encoder gave {n_rows} rows for {captions.n_images} images; leave out the images it skips "
                "(its errors_), and their captions, before fitting"
            )
        keys = range(n_rows) if is_trainable(self.image_encoder_) else row_digests(rows)
        training = merge_rows(keys, captions, groups, sample_weight)
        if len(training) < 2:
            raise ValueError(f"expected at least 2 different images to train on, got {len(training)}")
        return rows, training

    def _prepare_texts(
        self, rows: Any, training: TrainingRows, random_state: np.random.RandomState, resumed: bool
    ) -> Any:
        """Return the prepared texts; build both towers, unless training goes on with those there are."""
        if resumed:
            return self._text_tower().prepare(training.texts)
        encoder = self.text_encoder
        if encoder is None:
            encoder = TextNGramEncoder(self.n_components, word_dim=self.n_components, min_df=_DEFAULT_MIN_DF)
        self.text_encoder_, text_rows = fit_encoder(encoder, training.texts, random_state)
        self.image_head_ = make_head(
            self.image_encoder_,
            rows,
            training.rows,
            n_components=self.n_components,
            hidden_layer_sizes=self.hidden_layer_sizes,
            dropout=self.dropout,
        )
        self.text_head_ = make_head(
            self.text_encoder_,
            text_rows,
            np.arange(len(training.texts)),
            n_components=self.n_components,
            hidden_layer_sizes=self.text_hidden_layer_sizes,
            dropout=self.dropout,
        )
        self.history_ = []
        self.n_epochs_ = 0
        self.temperature_ = float(self.temperature)
        self._n_features_out = self.n_components
        return text_rows

    def _batches(self, rows: Any, text_rows: Any, training: TrainingRows, rng: np.random.Generator) -> JointBatches:
        return JointBatches(
            self._image_tower(),
            self._text_tower(),
            rows,
            text_rows,
            training,
            self.batch_size,
            self.captions_per_image,
            self.text_pool_size,
            rng,
        )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = []
        return tags
