"""A pretrained image network that learns on with what stands on top of it."""

import os
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from sklearn_mm._device import autocast, resolve_device, resolve_dtype, settle
from sklearn_mm._docs import shared_docs
from sklearn_mm._params import Interval, InvalidParameterError, Real, positive_int
from sklearn_mm.features._image_base import ImageEncoderBase
from sklearn_mm.images import PictureRows
from sklearn_mm.nn.image_cnn import ImageCNN
from sklearn_mm.registry import stored_as
from sklearn_mm.towers import RunningMoments

__all__ = ["ImageCNNEncoder"]


@shared_docs
@stored_as("features.ImageCNNEncoder")
class ImageCNNEncoder(ImageEncoderBase):
    """Embed pictures by a pretrained network that learns on.

    The features that the network's class layer was given, and optionally a linear map or a perceptron on top of them.
    Inside a `JointEmbeddingRanker` the network is trained with the ranker, end to end, from the pictures on.

    Parameters
    ----------
    backbone : str or nn.Module, default="resnet50"
        As in `FullNetworkEmbedding`: a torchvision classification model by name, "efficientnet_lite0",
        "efficientnet_lite1" or "efficientnet_lite2", "timm:" and the name of a timm model, or a module that takes float
        pixels (n, 3, h, w), normalised by ImageNet's mean and standard deviation. A module is copied.
    weights : "default", path or None, default="default"
        The pretrained weights of the library the network comes from, a state dict (or a checkpoint of a training that
        holds one), or random ones.
    n_components : int, default=None
        Width of the embedding. None gives the features of the network themselves; a ranker then puts its own head on
        them.
    hidden_layer_sizes : sequence of int, default=()
        Layers between the features and the embedding, where `n_components` is given; each with batch norm and ReLU.
    dropout : float, default=0.0
        Share of the features, and of hidden units, dropped in training, where `n_components` is given.
    trainable : {"all", "none"}, int or str, default="all"
        Which layers of the network learn. "none": it is frozen. An int n: the last n of its scales, a scale being the
        layers whose maps have about the same size (five in a ResNet, which calls them stages), and what comes after the
        last maps belonging to the last scale. Another str: a regular expression that must match names of modules in
        full, with all that is inside of them (``"layer[34]"``); for networks without maps, such as a ViT, the way to
        train a part.
    fix_batch_norm : bool, default=True
        Layers that learn keep the statistics of their batch norms, too; layers that do not learn keep them in any case.
    backbone_learning_rate : float, default=0.02
        Factor on the learning rate of the network, here and inside a ranker: 2e-5 at a learning rate of 1e-3, as in the
        fine-tuning of [1]_.
    image_size : int, default=None
        Side of the square that the network sees, in pixels; by default the one it was trained on.
    crop_scale : (float, float) or None, default=(0.36, 1.0)
        In training, the least and the largest share of a picture's area that is cut out at random and resized to the
        square: sides of 0.6 to 1, as in [2]_. (0.08, 1) in [1]_, (0.64, 1) in [3]_. None takes the centre.
    %(augmentation)s
    max_epochs : int, default=10
        Passes over the pictures in `fit` with y. These and the following parameters, up to `random_state`, are of no
        effect inside a ranker, which trains the network by its own settings; `batch_size` is also that of `transform`.
    batch_size : int, default=32
    %(trained_alone)s
    random_state : int, RandomState or None, default=None
    device : str or torch.device, default="auto"
    %(precision)s
    %(reading_threads)s
    on_error : {"raise", "nan", "skip"}, default="raise"
        What becomes of a picture that cannot be read in `transform`: an error that names the row, a row of NaN, or no
        row. With the last two, all pictures are decoded once in `fit`, and those that cannot be are left out of
        everything that is learnt. Inside a ranker or an annotator `fit` leaves them out likewise, with their captions
        or labels; what it answers matches the pictures row for row, and so is an error for them.
    extra_formats : sequence of str, default=()
        Formats that files may have beside JPEG, PNG, GIF, BMP, PPM, WebP, TIFF and AVIF, by Pillow's names
        (``("JPEG2000", "TGA")``). Name one only for files that you trust: Pillow's plugin of EPS starts Ghostscript.
    %(kept_and_shown)s

    Attributes
    ----------
    module_ : ImageCNN
    %(instance_history)s
    errors_ : list of ReadFailure
        ``(row, source, reason)`` for each picture of the last call that could not be read.
    trained_on_ : tuple of str or None
        The data that the network's weights were learnt from, as their makers call them: empty for random weights, None
        where they are not known. Of weights of one's own they are not.

    Raises
    ------
    ImageReadError
        A picture does not exist, is none, is broken or too large, or has pixels out of range.
    WeightsError
        Pretrained weights are not to be had.
    ValueError
        A backbone, a module or a parameter is unknown; X is a table of numbers.

    See Also
    --------
    MultiScaleCNNEncoder : Fuses the maps of all scales.
    FullNetworkEmbedding : All layers of a frozen network; read once, and not in every epoch.

    Notes
    -----
    Pictures are of any kind that `FullNetworkEmbedding` takes, and seen as it sees them: resized by the shorter side,
    then cut to the centre square. They stay unread until their batch, and are read anew in every epoch.

    Chance in training comes from one generator in the order of the rows, so that it does not depend on `n_jobs`.

    Batch norms of a network whose weights are frozen can still follow the statistics of batches; the code of [3]_ lets
    them, and uses others at test. Here they are fixed, and so is dropout inside of the frozen part.

    With `n_components`, or inside a ranker, features are standardised by their mean and standard deviation over 256
    pictures, as the network answers before training, in front of the layers on top; `fit` and a ranker take these
    statistics once.

    %(threads)s

    References
    ----------
    .. [1] Faghri, Fleet, Kiros, Fidler, "VSE++: Improving Visual-Semantic Embeddings with Hard Negatives", BMVC 2018,
       https://arxiv.org/abs/1707.05612
    .. [2] Chen, Hu, Wu, Jiang, Wang, "Learning the Best Pooling Strategy for Visual Semantic Embedding", CVPR 2021,
       https://arxiv.org/abs/2011.04305
    .. [3] Zheng, Zheng, Garrett, Yang, Xu, Shen, "Dual-Path Convolutional Image-Text Embeddings with Instance Loss",
       ACM TOMM 16(2), 2020, https://arxiv.org/abs/1711.05535

    Examples
    --------
    >>> from sklearn_mm.datasets import make_captioned_shapes
    >>> from sklearn_mm.features import ImageCNNEncoder
    >>> images = make_captioned_shapes(8, image_size=32, random_state=0).images
    >>> encoder = ImageCNNEncoder("resnet18", weights=None, image_size=32, trainable=1, max_epochs=1, random_state=0)
    >>> encoder.fit(images, y=[0, 1, 0, 1, 0, 1, 0, 1]).transform(images).shape
    (8, 512)
    """

    _parameter_constraints: dict[str, Any] = {
        **ImageEncoderBase._parameter_constraints,
        "n_components": [positive_int, None],
        "hidden_layer_sizes": ["array-like"],
        "dropout": [Interval(Real, 0, 1, closed="left")],
    }

    def __init__(
        self,
        backbone: str | nn.Module = "resnet50",
        *,
        weights: str | os.PathLike[str] | None = "default",
        n_components: int | None = None,
        hidden_layer_sizes: Sequence[int] = (),
        dropout: float = 0.0,
        trainable: int | str = "all",
        fix_batch_norm: bool = True,
        backbone_learning_rate: float = 0.02,
        image_size: int | None = None,
        crop_scale: tuple[float, float] | None = (0.36, 1.0),
        crop_ratio: tuple[float, float] = (3 / 4, 4 / 3),
        mirror: bool = True,
        color_jitter: float = 0.0,
        average_mirrored: bool = False,
        max_epochs: int = 10,
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
        self.backbone = backbone
        self.weights = weights
        self.n_components = n_components
        self.hidden_layer_sizes = hidden_layer_sizes
        self.dropout = dropout
        self.trainable = trainable
        self.fix_batch_norm = fix_batch_norm
        self.backbone_learning_rate = backbone_learning_rate
        self.image_size = image_size
        self.crop_scale = crop_scale
        self.crop_ratio = crop_ratio
        self.mirror = mirror
        self.color_jitter = color_jitter
        self.average_mirrored = average_mirrored
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

    def initialize(self, data: Any, random_state: Any = None) -> Self:
        """Build the network, with its weights; take the statistics that its layers on top need, if it has any.

        Parameters
        ----------
        data : pictures
            Of any kind that `prepare` takes.
        random_state : int, RandomState or None
        """
        super().initialize(data, random_state)
        if self.n_components is not None:
            self.module_.head.standardize_by(*self._feature_statistics(self._rows_of(data)))
        return self

    def output_statistics(self, rows: PictureRows) -> tuple[Tensor, Tensor] | None:
        """Return the mean and the scale of the embedding, (n_features_out,) each, float32: what a head stands on.

        None with `n_components`, as the embedding is then learnt here.

        Parameters
        ----------
        rows : PictureRows
            As `prepare` returns them; 256 of them are read.
        """
        return self._feature_statistics(rows) if self.n_components is None else None

    def _feature_statistics(self, rows: PictureRows) -> tuple[Tensor, Tensor]:
        """Return mean and scale of the network's features over some pictures, of those that can be read."""
        crops = self._read_sample(rows)
        device = resolve_device(self.device)
        module = self.module_
        # As the network answers before training: in evaluation mode, and without a gradient.
        settle(module, device)
        with torch.inference_mode(), autocast(device, resolve_dtype(self.precision, device)):
            chunks = torch.split(torch.from_numpy(crops), module.chunk_size)
            features = torch.cat([module.features(module.normalised(chunk.to(device))).cpu() for chunk in chunks])
        moments = RunningMoments()
        moments.update(features.numpy())
        return moments.for_head()

    def _make_module(self) -> ImageCNN:
        return ImageCNN(
            self.backbone,
            weights=self.weights,
            n_components=self.n_components,
            hidden_layer_sizes=self.hidden_layer_sizes,
            dropout=self.dropout,
            image_size=self.image_size,
            trainable=self.trainable,
            fix_batch_norm=self.fix_batch_norm,
            backbone_learning_rate=self.backbone_learning_rate,
            average_mirrored=self.average_mirrored,
        )

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if len(self.hidden_layer_sizes) and self.n_components is None:
            raise InvalidParameterError(
                f"hidden_layer_sizes={self.hidden_layer_sizes!r} lead to an embedding of n_components, which is None"
            )
