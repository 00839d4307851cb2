"""Image models that came pretrained, as they are or learning on."""

import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from sklearn_mm._docs import shared_docs
from sklearn_mm._params import StrOptions
from sklearn_mm.features._image_base import ImageEncoderBase
from sklearn_mm.features._pretrained import PretrainedEncoderBase
from sklearn_mm.images import PictureReader, PictureRows
from sklearn_mm.nn.pretrained import OpenedImageModel, open_image_model
from sklearn_mm.registry import stored_as
from sklearn_mm.towers import RunningMoments

__all__ = ["PretrainedImageEncoder"]


@shared_docs
@stored_as("features.PretrainedImageEncoder")
class PretrainedImageEncoder(PretrainedEncoderBase, ImageEncoderBase):
    """Embed pictures by a model that came pretrained.

    It is the image side of a dual encoder, or an image model alone.
    Pictures are resized, cut and normalised as the model's files say. It stays as it came, learns by adapters of low
    rank beside its weights (LoRA [1]_), or learns as a whole; inside of a ranker it trains with it. With the text side
    of the same model in a `PretrainedTextEncoder` and ``JointEmbeddingRanker(heads="residual", max_epochs=0)`` pictures
    are found without training.

    Parameters
    ----------
    model : str or path-like, default="openai/clip-vit-base-patch32"
        A folder or a name on the hub: of CLIP or SigLIP 1 and 2 of transformers
        (``"openai/clip-vit-base-patch32"``), of a model of open_clip, or of an image model of transformers or timm
        (``"facebook/dinov2-small"``); or "timm:" and the name of a model of timm.
    trainable : {"none", "lora", "all"}, default="none"
        Nothing learns, and each picture is embedded once, whoever trains on top of it; adapters; or all weights.
    lora_rank : int, default=8
        Of the adapters. They are added with a weight of 2, to each linear layer of the model's blocks.
    backbone_learning_rate : float or "auto", default="auto"
        Factor on the learning rate, here and inside a ranker: "auto" is 0.2 for adapters, and for all weights 0.02, or
        0.01 of a dual encoder: 1e-5 at a learning rate of 1e-3, above which it soon forgets how its sides are aligned.
    pooling : {"auto", "cls", "mean"}, default="auto"
        How the vectors of a picture's parts become one, where the model is no side of a dual encoder: its class
        token's, the mean of the others, or "auto": the class token where there is one.
    local_files_only : bool, default=True
        Open what this machine has; nothing is downloaded without being asked for. Where it has not, the error says how
        to get it.
    revision : str, default=None
        A branch, a tag or a commit of a name on the hub.
    crop_scale : (float, float) or None, default=None
        In training, the least and the largest share of a picture's area that is cut out at random and resized to the
        square. None takes the centre, as such models are used.
    crop_ratio : (float, float), default=(0.75, 1.3333333333333333)
        The least and the largest ratio of the width of that cut to its height.
    mirror : bool, default=False
        In training, mirror half of the pictures. Leave it off where texts tell left from right.
    color_jitter : float, default=0.0
        In training, by which share brightness, contrast and saturation go up or down at most.
    max_epochs : int, default=3
        Passes over the pictures in `fit` with y. These and the following parameters, up to `random_state`, are of no
        effect inside a ranker, which trains the model by its own settings; `batch_size` is also that of `transform`.
    batch_size : int, default=32
    %(trained_alone)s
    random_state : int, RandomState or None, default=None
    device : str or torch.device, default="auto"
    %(precision)s
    %(reading_threads)s
    on_error : {"raise", "nan", "skip"}, default="raise"
        What becomes of a picture that cannot be read, as in `ImageCNNEncoder`.
    extra_formats : sequence of str, default=()
        Formats that files may have beside JPEG, PNG, GIF, BMP, PPM, WebP, TIFF and AVIF, by Pillow's names.
    %(kept_and_shown)s

    Attributes
    ----------
    module_ : Module
        Opened where it is used first. It stays in evaluation mode, its norms and its dropout too, while it learns on.
    identity_ : str
        Digest of the weights that the model came with and of its configuration.
    trained_on_ : tuple of str or None
        The data that the model was trained on, as far as they are known.
    logit_scale_, logit_bias_ : float or None
        What a dual encoder multiplies the cosine by, and adds to it, before the softmax or sigmoid of its training.
    %(instance_history)s
    errors_ : list of ReadFailure
        ``(row, source, reason)`` for each picture of the last call that could not be read.

    Raises
    ------
    WeightsError
        In `fit`, or when a saved encoder is used: the model's files are not to be had.
    ImageReadError
        A picture does not exist, is none, is broken or too large, or has pixels out of range.

    See Also
    --------
    PretrainedTextEncoder : The other side.
    ImageCNNEncoder : A convolutional network of torchvision or timm that learns on.
    FullNetworkEmbedding : All layers of a frozen network.

    Notes
    -----
    Pictures are of any kind that `FullNetworkEmbedding` takes. What comes out is as the model gives it, before it is
    brought to unit length; a ranker does that. They are resized by torchvision as transformers does; open_clip and timm
    resize by Pillow, which differs by a grey level here and there.

    Models of SigLIP 2 that take pictures of any shape (NaFlex) are not known; those of a fixed size are.

    **Safety.** No code of a model is run, whatever its files ask for, and weights are read as tensors alone.

    **Saving.** What was trained travels in pickles and saved folders. What stayed as it came does not: with
    ``trainable="none"`` and "lora" the model has to be where `model` says when the encoder is used again, and its
    digest has to be the same.

    %(threads)s

    References
    ----------
    .. [1] Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022,
       https://arxiv.org/abs/2106.09685
    .. [2] Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021,
       https://arxiv.org/abs/2103.00020
    .. [3] Zhai, Mustafa, Kolesnikov, Beyer, "Sigmoid Loss for Language Image Pre-Training", ICCV 2023,
       https://arxiv.org/abs/2303.15343

    Examples
    --------
    >>> from sklearn_mm.features import PretrainedImageEncoder, PretrainedTextEncoder
    >>> from sklearn_mm.retrieval import JointEmbeddingRanker
    >>> clip = "openai/clip-vit-base-patch32"
    >>> images, texts = PretrainedImageEncoder(clip), PretrainedTextEncoder(clip)
    >>> zero_shot = JointEmbeddingRanker(texts, images, heads="residual", max_epochs=0)
    >>> zero_shot.get_params()["image_encoder__trainable"]
    'none'
    """

    _parameter_constraints: dict[str, Any] = {
        **ImageEncoderBase._parameter_constraints,
        **PretrainedEncoderBase._parameter_constraints,
        "pooling": [StrOptions({"auto", "cls", "mean"})],
    }

    # that of encoders by a name follows from their parameters
    trained_on_: tuple[str, ...] | None = None

    def __init__(
        self,
        model: str | os.PathLike[str] = "openai/clip-vit-base-patch32",
        *,
        trainable: str = "none",
        lora_rank: int = 8,
        backbone_learning_rate: float | str = "auto",
        pooling: str = "auto",
        local_files_only: bool = True,
        revision: str | None = None,
        crop_scale: tuple[float, float] | None = None,
        crop_ratio: tuple[float, float] = (3 / 4, 4 / 3),
        mirror: bool = False,
        color_jitter: float = 0.0,
        max_epochs: int = 3,
        batch_size: int = 32,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
        temperature: float = 0.05,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 5,
        random_state: Any = None,
        device: Any = "auto",
        precision: str = "auto",
        n_jobs: int | None = None,
        on_error: str = "raise",
        extra_formats: Sequence[str] = (),
        checkpoint: str | os.PathLike[str] | None = None,
        verbose: int = 0,
    ) -> None:
        self.model = model
        self.trainable = trainable
        self.lora_rank = lora_rank
        self.backbone_learning_rate = backbone_learning_rate
        self.pooling = pooling
        self.local_files_only = local_files_only
        self.revision = revision
        self.crop_scale = crop_scale
        self.crop_ratio = crop_ratio
        self.mirror = mirror
        self.color_jitter = color_jitter
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.temperature = temperature
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.random_state = random_state
        self.device = device
        self.precision = precision
        self.n_jobs = n_jobs
        self.on_error = on_error
        self.extra_formats = extra_formats
        self.checkpoint = checkpoint
        self.verbose = verbose

    def _open_pretrained(self) -> OpenedImageModel:
        opened = open_image_model(
            self.model,
            pooling=self.pooling,
            local_files_only=self.local_files_only,
            revision=self.revision,
        )
        self._pixels: dict[str, Any] = asdict(opened.pixels)
        return opened

    # The tower protocol -------------------------------------------------------------------------------------------

    def initialize(self, data: Any, random_state: Any = None) -> Self:
        """Open the model; the pictures are not read.

        Parameters
        ----------
        data : pictures
            Of any kind that `prepare` takes.
        random_state : int, RandomState or None
            From which adapters are drawn.

        Raises
        ------
        WeightsError
            The files of the model are not to be had.
        """
        self._check_parameters()
        if not isinstance(data, PictureRows):
            self._check_data(data)
            self.errors_ = []
        self._begin(random_state)
        self.history_ = []
        return self

    def readable(self, data: Any) -> tuple[Any, np.ndarray]:
        """Return the pictures that can be learnt from; where errors are no end, all are decoded once to find them."""
        if self.on_error != "raise" and not hasattr(self, "_pixels"):
            self._check_parameters()
            self._open_pretrained()  # which says how pictures are read
        return super().readable(data)

    def output_statistics(self, rows: PictureRows) -> tuple[Tensor, Tensor] | None:
        """Return the mean and the scale of the embedding, (n_features_out,) each, float32: what a head stands on.

        Parameters
        ----------
        rows : PictureRows
            As `prepare` returns them; 256 of them are read.
        """
        moments = RunningMoments()
        moments.update(self._embed(self._read_sample(rows), torch.from_numpy))
        return moments.for_head()

    def _reader(self) -> PictureReader:
        own = self._pixels
        return PictureReader(
            own["image_size"],
            own["resize_size"],
            own["interpolation"],
            extra_formats=tuple(self.extra_formats),
            resize_mode=own["resize_mode"],
            rounds_down=own["rounds_down"],
            keeps_squares=False,
        )
