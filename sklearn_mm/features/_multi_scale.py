"""Features of all scales of a network, fused (Niu et al. 2019)."""

import os
from collections.abc import Sequence
from typing import Any

from torch import nn

from sklearn_mm._docs import shared_docs
from sklearn_mm._params import positive_int, positive_real
from sklearn_mm.features._image_base import ImageEncoderBase
from sklearn_mm.nn.multi_scale import MultiScaleCNN
from sklearn_mm.registry import stored_as

__all__ = ["MultiScaleCNNEncoder"]


@shared_docs
@stored_as("features.MultiScaleCNNEncoder")
class MultiScaleCNNEncoder(ImageEncoderBase):
    """Embed pictures by the maps of all scales of a network, fused fine to coarse.

    The last map of each scale of a pretrained network, from the finest on, is brought to the size and the channels of
    the next coarser one and added to it; the coarsest is averaged over space and mapped to the embedding [1]_.

    Parameters
    ----------
    backbone : str or nn.Module, default="resnet50"
        As in `ImageCNNEncoder`; its maps have to become smaller on the way.
    weights : "default", path or None, default="default"
        The pretrained weights of the library the network comes from, a state dict (or a checkpoint of a training that
        holds one), or random ones.
    n_components : int, default=2048
        Width of the embedding.
    width : float, default=1.0
        Factor on the channels inside of the fusion blocks; most of their weights stand before and behind these.
    trainable : {"none", "all"}, int or str, default="none"
        Which layers of the network learn beside the fusion; as in `ImageCNNEncoder`.
    fix_batch_norm : bool, default=True
        Layers of the network that learn keep the statistics of their batch norms, too; layers that do not learn keep
        them in any case.
    backbone_learning_rate : float, default=0.02
        Factor on the learning rate of the network, here and inside a ranker.
    image_size : int, default=None
        Side of the square that the network sees, in pixels; by default the one it was trained on.
    crop_scale : (float, float) or None, default=(0.36, 1.0)
        In training, the least and the largest share of a picture's area that is cut out at random and resized to the
        square. None takes the centre.
    %(augmentation)s
    max_epochs : int, default=10
        Passes over the pictures in `fit` with y. These and the following parameters, up to `random_state`, are of no
        effect inside a ranker or an annotator, which train the network by their own settings; `batch_size` is also that
        of `transform`.
    batch_size : int, default=32
    %(trained_alone)s
    random_state : int, RandomState or None, default=None
    device : str or torch.device, default="auto"
    %(precision)s
    %(reading_threads)s
    on_error : {"raise", "nan", "skip"}, default="raise"
        What becomes of a picture that cannot be read; as in `ImageCNNEncoder`.
    extra_formats : sequence of str, default=()
        Formats that files may have beside JPEG, PNG, GIF, BMP, PPM, WebP, TIFF and AVIF, by Pillow's names
        (``("JPEG2000", "TGA")``). Name one only for files that you trust: Pillow's plugin of EPS starts Ghostscript.
    %(kept_and_shown)s

    Attributes
    ----------
    module_ : MultiScaleCNN
        Its ``scales`` say which maps are fused.
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
        A backbone, a module or a parameter is unknown, the maps of the network have one size only, or X is a table.

    See Also
    --------
    ImageCNNEncoder : The features of the last scale alone, pretrained as they are.
    FullNetworkEmbedding : All layers of a frozen network, without training.

    Notes
    -----
    Each step of the fusion is a 3x3 convolution of stride 2 to half of the coarser scale's channels, batch norm, ReLU,
    a 1x1 convolution to all of them, batch norm, and the sum with the coarser map; then the average over space, a fully
    connected layer, batch norm and a sigmoid. The last batch norm of each step starts from scale 0: the network begins
    as its last scale alone, and learns what to add of the finer ones; without y `fit` gives one that knows nothing of
    them yet. At `width` 1 on a ResNet-50 the fusion has 15 million weights, and the layer behind it 4, beside the
    backbone's 24.

    Scales are found by following one black picture through the network: wherever its maps become smaller by half, the
    map before is the last of its scale. Layers behind the last map are taken out. In training the maps of a batch are
    held, of which the finest are the largest: 3 MB for a picture of 224 pixels in a ResNet. A frozen backbone runs
    without gradient, but anew in each epoch.

    The source was read from an unofficial implementation, from which this differs: it uses a ResNet-101 that was
    fine-tuned on the labels alone first, with batch statistics where here they are fixed, and squashes pictures to the
    square, unaugmented, where here the centre is cut and training augments. It starts its fusion from scale 1, and
    trains it by a layer on the labels that is then discarded; here that is the classifier of the instance loss, or what
    the ranker or the annotator puts on top. Which of two widths its first block has inside is open there; here all have
    half of the channels that leave them.

    %(threads)s

    References
    ----------
    .. [1] Niu, Lu, Wen, Xiang, Chang, "Multi-Modal Multi-Scale Deep Learning for Large-Scale Image Annotation", IEEE
       Transactions on Image Processing 28(4), 2019, https://arxiv.org/abs/1709.01220

    Examples
    --------
    >>> from sklearn_mm.datasets import make_captioned_shapes
    >>> from sklearn_mm.features import MultiScaleCNNEncoder
    >>> images = make_captioned_shapes(8, image_size=32, random_state=0).images
    >>> encoder = MultiScaleCNNEncoder(
    ...     "resnet18", weights=None, image_size=32, n_components=16, width=0.1, max_epochs=1, random_state=0
    ... )
    >>> encoder.fit(images, y=[0, 1, 0, 1, 0, 1, 0, 1]).transform(images).shape
    (8, 16)
    >>> [(scale.tap, scale.size) for scale in encoder.module_.scales]
    [('relu', 16), ('layer1.1', 8), ('layer2.1', 4), ('layer3.1', 2), ('layer4.1', 1)]
    """

    _parameter_constraints: dict[str, Any] = {
        **ImageEncoderBase._parameter_constraints,
        "n_components": [positive_int],
        "width": [positive_real],
    }

    def __init__(
        self,
        backbone: str | nn.Module = "resnet50",
        *,
        weights: str | os.PathLike[str] | None = "default",
        n_components: int = 2048,
        width: float = 1.0,
        trainable: int | str = "none",
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
        self.width = width
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

    def _make_module(self) -> MultiScaleCNN:
        return MultiScaleCNN(
            self.backbone,
            weights=self.weights,
            n_components=self.n_components,
            width=self.width,
            image_size=self.image_size,
            trainable=self.trainable,
            fix_batch_norm=self.fix_batch_norm,
            backbone_learning_rate=self.backbone_learning_rate,
            average_mirrored=self.average_mirrored,
        )
