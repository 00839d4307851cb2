"""Images and sentences in one space, each found by the other."""

from collections.abc import Callable, Iterator, Sequence
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.callback import CallbackSupportMixin, with_callbacks
from sklearn.utils import check_random_state, column_or_1d
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from sklearn_mm._checks import Captions, check_captions, check_texts
from sklearn_mm._device import forked_rng, generator_from, resolve_device, resolve_dtype
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
from sklearn_mm.losses import SIMILARITIES
from sklearn_mm.metrics import RetrievalScorer, retrieval_report
from sklearn_mm.persistence import PickleStateMixin
from sklearn_mm.retrieval._epochs import joint_epochs, n_batches
from sklearn_mm.retrieval._gallery import Gallery
from sklearn_mm.retrieval._objective import Objective
from sklearn_mm.retrieval._tower import Tower, as_features, fit_encoder, is_trainable, make_head
from sklearn_mm.retrieval._training_rows import TrainingRows, merge_rows, row_digests
from sklearn_mm.sampling import NEGATIVES
from sklearn_mm.training import (
    OPTIMIZERS,
    SCHEDULES,
    BestWeights,
    EpochRecord,
    make_optimizer,
    make_schedule,
    progress,
)

__all__ = ["JointEmbeddingRanker"]

# A share of the texts, so that small collections keep every word. On Flickr8k (30,000 texts) it leaves out the words
# that stand in one text only, which gains 4 points of RSum.
_DEFAULT_MIN_DF = 5e-5


class JointEmbeddingRanker(
    ClassNamePrefixFeaturesOutMixin, TransformerMixin, CallbackSupportMixin, PickleStateMixin, BaseEstimator
):
    """Embed images and their texts in one space, and find each by the other.

    Parameters
    ----------
    text_encoder : estimator, default=None
        An encoder of this library (`TextCNNEncoder`, `TextNGramEncoder`) is trained with the ranker; any other
        scikit-learn transformer (`TfidfVectorizer`) is fitted on the captions, then frozen under a trained head. None
        takes a `TextNGramEncoder` as wide as the joint space, without the words that fewer than one text in 20,000
        has: the best for its time that we measured.
    image_encoder : transformer, default=None
        From images to features, fitted and then frozen. None projects the features that it is given as X.
    n_components : int, default=1024
        Width of the joint space.
    hidden_layer_sizes : sequence of int, default=()
        Layers of the image head between features and joint space; none for one linear map.
    text_hidden_layer_sizes : sequence of int, default=()
        The same for the head on a text encoder. A trained encoder already as wide as the joint space has no head.
    similarity : {"cosine", "order"}, default="cosine"
        "order": minus the squared violation of "each component of the text is below the image's", on vectors of
        absolute values [3]_.
    loss : {"ranking", "infonce"}, default="infonce"
        Hinges with a margin, or a softmax over the batch.
    margin : float, default=0.2
        Of the ranking loss: by how much the true pair's score has to be the higher one.
    temperature : float, default=0.07
        Of InfoNCE: scores are divided by it.
    negatives : {"all", "hardest", "semi-hard", "random"}, default="all"
        Which of a batch's negatives each pair is set against.
    negative_side : {"both", "text", "image"}, default="both"
        Whether the text of a pair is replaced by a wrong one, or the image, or each in turn.
    max_epochs : int, default=20
        Passes over the images.
    batch_size : int, default=128
        Images a batch.
    captions_per_image : int, default=2
        Captions drawn for each image and epoch; all of them, where it has fewer.
    optimizer : {"adamw", "adam", "sgd"}, default="adamw"
    learning_rate : float, default=1e-3
    weight_decay : float, default=1e-4
    lr_schedule : {"cosine", "linear", "constant"}, default="cosine"
        "cosine" rises over a tenth of all steps.
    dropout : float, default=0.3
        Share of features, and of the heads' hidden units, dropped in training.
    early_stopping : bool, default=False
        Hold out images, stop when their RSum has not improved for `n_iter_no_change` epochs, and keep the best weights.
        As the learning rate falls to 0 the last weights are about the best, and held-out images are missed more.
    validation_fraction : float, default=0.1
        With `early_stopping`, share of the images held out, whole groups at a time; none of fewer than ten.
    n_iter_no_change : int, default=5
    random_state : int, RandomState or None, default=None
    device : str or torch.device, default="auto"
    precision : {"auto", "float32", "bfloat16", "float16"}, default="float32"
    warm_start : bool, default=False
        `fit` goes on from the weights and the vocabulary of the fit before.
    verbose : int, default=0
        Show a bar over epochs.

    Attributes
    ----------
    image_encoder_, text_encoder_ : estimator or None
        The fitted encoders.
    gallery_texts_ : ndarray of shape (n_gallery_texts,), object or y's dtype
        The texts that `search_texts` and `predict` choose from: after `fit` the different captions, sorted.
    history_ : list of dict
        One record an epoch: ``epoch``, ``train_loss``, ``learning_rate``, ``seconds`` and, with images held out,
        ``val_rsum``.
    n_epochs_ : int
        Epochs trained, over all calls.
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

    Training takes memory for the features and one batch. After `fit` both galleries hold the training data, 4 bytes a
    component and item; `set_gallery` replaces them.

    References
    ----------
    .. [1] Kiros, Salakhutdinov, Zemel, "Unifying Visual-Semantic Embeddings with Multimodal Neural Language Models",
       2014, https://arxiv.org/abs/1411.2539
    .. [2] Faghri, Fleet, Kiros, Fidler, "VSE++: Improving Visual-Semantic Embeddings with Hard Negatives", BMVC 2018,
       https://arxiv.org/abs/1707.05612
    .. [3] Vendrov, Kiros, Fidler, Urtasun, "Order-Embeddings of Images and Language", ICLR 2016,
       https://arxiv.org/abs/1511.06361

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
        "negatives": [StrOptions(set(NEGATIVES))],
        "negative_side": [StrOptions({"both", "text", "image"})],
        "max_epochs": [positive_int],
        "batch_size": [Interval(Integral, 2, None, closed="left")],
        "captions_per_image": [positive_int],
        "optimizer": [StrOptions(set(OPTIMIZERS))],
        "learning_rate": [positive_real],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "lr_schedule": [StrOptions(set(SCHEDULES))],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [positive_int],
        "random_state": ["random_state"],
        "warm_start": ["boolean"],
        "verbose": [non_negative_int, "boolean"],
    }

    _not_pickled = ("_optimizer",)

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
        negatives: str = "all",
        negative_side: str = "both",
        max_epochs: int = 20,
        batch_size: int = 128,
        captions_per_image: int = 2,
        optimizer: str = "adamw",
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
        lr_schedule: str = "cosine",
        dropout: float = 0.3,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 5,
        random_state: Any = None,
        device: Any = "auto",
        precision: str = "float32",
        warm_start: bool = False,
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
        self.negatives = negatives
        self.negative_side = negative_side
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.captions_per_image = captions_per_image
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
        self.warm_start = warm_start
        self.verbose = verbose

    # Training -----------------------------------------------------------------------------------------------------

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
        random_state = check_random_state(self.random_state)
        rng = generator_from(random_state)
        device = resolve_device(self.device)
        with forked_rng(random_state, device):
            rows, training = self._encode_images(X, captions, groups, sample_weight, random_state, resumed)
            held_out = None
            if self.early_stopping:
                training, held_out = training.split(self.validation_fraction, rng)
            if not resumed:
                self._initialize_towers(rows, training, random_state)
            self._train(rows, training, held_out, rng)
        return self._set_training_gallery(rows, captions)

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
        first = not hasattr(self, "image_head_")
        X, captions = self._check_training_data(X, y, reset=first)
        random_state = check_random_state(self.random_state)
        if not first and not isinstance(self.random_state, np.random.RandomState):
            # A seed drawn anew by every call would repeat the same batches and the same dropout.
            random_state = np.random.RandomState(
                [random_state.randint(2**31 - 1), self.n_epochs_] if self.random_state is not None else None
            )
        rng = generator_from(random_state)
        device = resolve_device(self.device)
        with forked_rng(random_state, device):
            rows, training = self._encode_images(X, captions, groups, sample_weight, random_state, not first)
            if first:
                self._initialize_towers(rows, training, random_state)
            if not hasattr(self, "_optimizer"):
                self._optimizer = self._make_optimizer()
            constant = make_schedule("constant", self._optimizer, 1)
            for record in self._epochs(rows, training, self._optimizer, constant, 1, rng):
                self._keep(record)
        return self._set_training_gallery(rows, captions)

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
        if groups is not None:
            groups = column_or_1d(groups)
            if len(groups) != captions.n_images:
                raise ValueError(f"expected one group per image, got {len(groups)} for {captions.n_images} images")
        if sample_weight is not None:
            sample_weight = _check_sample_weight(
                sample_weight, np.empty((captions.n_images, 0)), dtype=np.float64, ensure_non_negative=True
            )
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

    def _initialize_towers(self, rows: Any, training: TrainingRows, random_state: np.random.RandomState) -> None:
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
        self.history_: list[EpochRecord] = []
        self.n_epochs_ = 0
        self._n_features_out = self.n_components
        self.__dict__.pop("_optimizer", None)

    def _train(
        self,
        rows: Any,
        training: TrainingRows,
        held_out: TrainingRows | None,
        rng: np.random.Generator,
    ) -> None:
        """Run all epochs, with early stopping and callbacks."""
        optimizer = self._make_optimizer()
        n_steps = self.max_epochs * n_batches(training, self.batch_size)
        schedule = make_schedule(self.lr_schedule, optimizer, n_steps)
        best = BestWeights([*self._image_tower().modules, *self._text_tower().modules])
        validate = self._validator(rows, held_out) if held_out is not None else None
        context = self._init_callback_context(max_subtasks=self.max_epochs)
        context.call_on_fit_task_begin(estimator=self)
        records = self._epochs(rows, training, optimizer, schedule, self.max_epochs, rng)
        for record in progress(records, n_epochs=self.max_epochs, title=type(self).__name__, verbose=self.verbose):
            epoch = context.subcontext(task_name="epoch").call_on_fit_task_begin(estimator=self)
            if validate is not None:
                record["val_rsum"] = validate()
                best.update(record["val_rsum"])
            self._keep(record)
            stop = epoch.call_on_fit_task_end(
                estimator=self, metadata=record, reconstruction_attributes=self._fitted_attributes
            )
            if stop or best.n_epochs_without_improvement >= self.n_iter_no_change:
                break
        if validate is not None:
            best.restore()
        context.call_on_fit_task_end(estimator=self, reconstruction_attributes=self._fitted_attributes)

    def _epochs(
        self,
        rows: Any,
        training: TrainingRows,
        optimizer: torch.optim.Optimizer,
        schedule: Any,
        n_epochs: int,
        rng: np.random.Generator,
    ) -> Iterator[EpochRecord]:
        return joint_epochs(
            self._image_tower(),
            self._text_tower(),
            rows,
            training,
            Objective(self.similarity, self.loss, self.margin, self.temperature, self.negatives, self.negative_side),
            optimizer,
            schedule,
            n_epochs=n_epochs,
            batch_size=self.batch_size,
            captions_per_image=self.captions_per_image,
            rng=rng,
        )

    def _keep(self, record: EpochRecord) -> None:
        self.n_epochs_ += 1
        record["epoch"] = self.n_epochs_
        self.history_.append(record)

    def _validator(self, rows: Any, held_out: TrainingRows) -> Callable[[], float]:
        """Return the function that computes the RSum on the images held out."""
        image_tower, text_tower = self._image_tower(), self._text_tower()
        image_rows = rows[held_out.rows]
        text_rows = text_tower.prepare(held_out.texts)
        text_to_image = np.repeat(np.arange(len(held_out)), np.diff(held_out.starts))

        def rsum() -> float:
            report = retrieval_report(image_tower.embed(image_rows), text_tower.embed(text_rows), text_to_image)
            return float(report["rsum"])

        return rsum

    def _make_optimizer(self) -> torch.optim.Optimizer:
        modules = [*self._image_tower().modules, *self._text_tower().modules]
        for module in modules:
            module.to(resolve_device(self.device))
        return make_optimizer(self.optimizer, modules, learning_rate=self.learning_rate, weight_decay=self.weight_decay)

    def _fitted_attributes(self) -> dict[str, Any]:
        """Return what a callback needs to see the estimator as it stands between two epochs."""
        return {name: value for name, value in vars(self).items() if name.endswith("_") or name == "_n_features_out"}

    def _image_tower(self) -> Tower:
        return self._tower(self.image_encoder_, self.image_head_)

    def _text_tower(self) -> Tower:
        return self._tower(self.text_encoder_, self.text_head_)

    def _tower(self, encoder: Any, head: torch.nn.Module) -> Tower:
        device = resolve_device(self.device)
        return Tower(encoder, head, device, resolve_dtype(self.precision, device), self.similarity == "order")

    # Embedding ----------------------------------------------------------------------------------------------------

    def transform(self, X: Any) -> np.ndarray:
        """Embed images.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_images, n_features), or images for `image_encoder`

        Returns
        -------
        ndarray of shape (n_images, n_components), float32
            Unit vectors.
        """
        check_is_fitted(self, "image_head_")
        return self._embed(self._image_tower(), self._check_images(X, reset=False))

    def transform_text(self, texts: Any) -> np.ndarray:
        """Embed texts.

        Parameters
        ----------
        texts : sequence of str, length n_texts
            A text without one known word is embedded as unknown, with an `UnknownWordsWarning`.

        Returns
        -------
        ndarray of shape (n_texts, n_components), float32
            Unit vectors.
        """
        check_is_fitted(self, "image_head_")
        return self._embed(self._text_tower(), check_texts(texts))

    def _embed(self, tower: Tower, data: Any) -> np.ndarray:
        embedding = tower.embed(tower.prepare(data))
        tower.to_cpu()
        return embedding

    def _check_images(self, X: Any, *, reset: bool) -> Any:
        """Check X where it is a matrix of features: int8 stays, anything else becomes float32."""
        if self.image_encoder is not None:
            return X
        X = validate_data(self, X, reset=reset, accept_sparse="csr", dtype="numeric")
        return as_features(X)

    # Search -------------------------------------------------------------------------------------------------------

    def set_gallery(self, images: Any = None, texts: Any = None) -> Self:
        """Replace what is searched, without training; None leaves that side as it is.

        Parameters
        ----------
        images : as X in `fit`, optional
        texts : sequence of str, optional
            Kept in the order given, equal texts included.

        Returns
        -------
        self
        """
        check_is_fitted(self, "image_head_")
        if images is not None:
            self._image_gallery = Gallery(self.transform(images), self.similarity)
        if texts is not None:
            listed = check_texts(texts)
            self._text_gallery = Gallery(self.transform_text(listed), self.similarity)
            self.gallery_texts_ = np.array(listed, dtype=object)
        return self

    def _set_training_gallery(self, rows: Any, captions: Captions) -> Self:
        if captions.numbers is not None:
            self.gallery_texts_ = np.unique(captions.numbers)
        else:
            self.gallery_texts_ = np.array(sorted(set(captions.texts)), dtype=object)
        texts = self._embed(self._text_tower(), [str(text) for text in self.gallery_texts_.tolist()])
        self._text_gallery = Gallery(texts, self.similarity)
        image_tower = self._image_tower()
        self._image_gallery = Gallery(image_tower.embed(rows), self.similarity)
        image_tower.to_cpu()
        return self

    def search_images(self, texts: Any, k: int = 10) -> tuple[np.ndarray, np.ndarray]:
        """Find the gallery's images for texts.

        Parameters
        ----------
        texts : sequence of str, length n_texts
        k : int, default=10

        Returns
        -------
        scores : ndarray of shape (n_texts, k), float32
            The highest first.
        indices : ndarray of shape (n_texts, k), int64
            Rows of the image gallery: after `fit`, of its X.
        """
        check_is_fitted(self, "image_head_")
        return self._image_gallery.search(self.transform_text(texts), k, query_is_image=False)

    def search_texts(self, X: Any, k: int = 10) -> tuple[np.ndarray, np.ndarray]:
        """Find the gallery's texts for images.

        Parameters
        ----------
        X : as in `transform`, n_images rows
        k : int, default=10

        Returns
        -------
        scores : ndarray of shape (n_images, k), float32
            The highest first.
        indices : ndarray of shape (n_images, k), int64
            Positions in `gallery_texts_`.
        """
        check_is_fitted(self, "image_head_")
        return self._text_gallery.search(self.transform(X), k, query_is_image=True)

    def predict(self, X: Any) -> np.ndarray:
        """Return the best text of the gallery for each image, shape (n_images,), in the dtype of `gallery_texts_`."""
        check_is_fitted(self, "image_head_")
        return self.gallery_texts_[self.search_texts(X, 1)[1][:, 0]]

    def decision_function(self, X: Any) -> np.ndarray:
        """Score every text of the gallery for each image: shape (n_images, n_gallery_texts), float32."""
        check_is_fitted(self, "image_head_")
        return self._text_gallery.scores(self.transform(X), query_is_image=True)

    def score(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> float:
        """Return the mean of hit@1, hit@5 and hit@10 both ways, among the images and captions given.

        Parameters
        ----------
        X, y : as in `fit`
        sample_weight : array-like of shape (n_images,), optional
        groups : array-like of shape (n_images,), optional
            Accepted for metadata routing.

        Returns
        -------
        float
            Between 0 and 1.
        """
        check_is_fitted(self, "image_head_")
        report = RetrievalScorer()(self, X, y, sample_weight=sample_weight, groups=groups)
        return float(report["rsum"]) / 600

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = []
        return tags
