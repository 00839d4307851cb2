"""The full-network embedding: all layers of a network, standardised and discretised."""

import copy
import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from math import inf
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn import get_config
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_array, check_is_fitted, validate_data
from torch import nn

from sklearn_mm._checks import Captions, check_captions, check_finite_rows, refuse_text_columns
from sklearn_mm._device import precision_of, resolve_device, resolve_dtype
from sklearn_mm._docs import shared_docs
from sklearn_mm._params import (
    DEVICE_CONSTRAINTS,
    Integral,
    InvalidParameterError,
    Real,
    StrOptions,
    a_path,
    positive_int,
    validate_params,
)
from sklearn_mm._repeated import Repeats
from sklearn_mm._unreadable import mark_features, raise_unreadable, summarise
from sklearn_mm.exceptions import ImageReadWarning
from sklearn_mm.features._activations import ActivationPass, RowWriter
from sklearn_mm.features._aligned import agreeing_layers, sample_rows
from sklearn_mm.features._network_on_demand import NetworkOnDemandMixin
from sklearn_mm.images import PictureReader, Pictures, ReadFailure, check_formats, is_table
from sklearn_mm.nn.backbones import gains_in_half_precision, pixel_convention
from sklearn_mm.nn.engines import ENGINES, check_engine, settled_engine
from sklearn_mm.nn.pooling import POOLINGS
from sklearn_mm.registry import stored_as
from sklearn_mm.towers import RunningMoments, discretise, standardise, ternary_limits

__all__ = ["FullNetworkEmbedding"]

_CACHE_SIZE = 2**34  # bytes: all that is kept of EfficientNet-Lite0 for 85,000 pictures


@shared_docs
@stored_as("features.FullNetworkEmbedding")
class FullNetworkEmbedding(TransformerMixin, NetworkOnDemandMixin, BaseEstimator):
    """Embed pictures by all layers of a network, standardised and discretised.

    Every convolution of a pretrained network is averaged over space (or its maximum taken), the hidden fully connected
    layers are taken as they are, and all are put side by side. Each activation is then standardised by its mean and
    standard deviation over the pictures of `fit`, and set to -1, 0 or 1: clearly below its mean, unremarkable,
    clearly above.

    Parameters
    ----------
    backbone : str or nn.Module, default="resnet50"
        A torchvision classification model by name, "efficientnet_lite0", "efficientnet_lite1" or
        "efficientnet_lite2", "timm:" and the name of a timm model, or a module that takes float pixels
        (n, 3, h, w), normalised by ImageNet's mean and standard deviation as torchvision's models want them.
    weights : "default", path or None, default="default"
        "default": the pretrained weights of the library the network comes from (Lite: of the packages of
        ``sklearn-mm[weights]``; torchvision and timm: downloaded on first use). A path: a state dict written by
        ``torch.save`` or as safetensors, or a checkpoint of a training that holds one (of Lightning, DataParallel,
        ...). None: random weights, the same ones every time. A module keeps its
        own weights for "default" and None.
    layers : "auto", "last", "aligned", str, int or list of str, default="auto"
        "auto": every convolution and every hidden fully connected layer, without the class layer; of a network of
        transformer or ConvNeXt blocks (ViT, DeiT, Swin, ConvNeXt and the like, of any library) every block: its class
        token, an entry of its own whose name ends with "_class", and the mean of the patches' tokens, or that of its
        map where it has no tokens. "last": what the class layer is given, the one-layer baseline (the pooled maps of
        most networks, fc7 behind its activation for VGG). "aligned": of the "auto" ones those in which pictures are
        near each other that are so by their captions; `fit` then needs captions as y. An int n: the last n of the
        "auto" ones. Another str: a regular expression that must match names of convolutions, fully connected layers and
        blocks in full. A list: names of any modules.
    activation : {"pre", "post"}, default="pre"
        Whether layers are read before or after the activation function directly behind them or behind their
        batch norm. A layer without one, such as the last of a residual branch, is read before it either way.
    pooling : {"mean", "max", "mean+max"}, default="mean"
        What is taken of a layer over space: the mean, as published, the maximum, or both, which one pass reads. Of
        both the columns go layer by layer, the mean of all of its filters and then the maximum of all. What has no
        positions, such as a hidden fully connected layer, is taken once, as it is. With ``layers="last"`` the maximum
        is that of the map whose average the class layer is given; where it is given none that is an error.
    discretize : bool, default=True
        Whether to set each standardised activation to -1, 0 or 1.
    thresholds : tuple of (float, float), default=(-0.25, 0.15)
        Below the first, in standard deviations from the mean, is -1, above the second 1; equal to one is 0.
    crops : {"center", "mirrored", "ten"}, default="center"
        The centre of the picture; the mean activations of the centre and its mirror image, for twice the time; or of
        ten crops: corners and centre, and mirrored. But for ten, a picture that has exactly the network's size is
        taken as it is.
    image_size : int, default=None
        Side of the square that the network sees, in pixels; by default the one it was trained on.
    batch_size : int, default=32
        Pictures read and passed on at once. A GPU sees them together, a CPU in chunks that fit its caches.
    device : str or torch.device, default="auto"
        Where the network runs; "auto" takes a GPU if there is one.
    precision : {"auto", "float32", "bfloat16", "float16"}, default="auto"
        In which the network computes; "auto" is bfloat16 where the hardware has it, but for MobileNetV3 on a
        CPU, which is no faster in it. Averages and statistics are float32 and float64 in any case.
    engine : {"auto", "torch", "compile", "openvino"}, default="auto"
        What runs the network. "torch": with batch norm folded into the convolutions on the CPU, and each convolution
        with what follows it as one operator. "compile": ``torch.compile``, which takes about a minute to start and
        needs a C++ compiler. "openvino": OpenVINO, on the CPU, not in float16 (``sklearn-mm[openvino]``). "auto": on
        the CPU in float32 "torch" from 500 pictures in a call on, and from 5,000 on OpenVINO, if it is installed; in
        bfloat16, where engines round otherwise, "torch" for good (`engine_`), if `fit` sees 500 pictures, or they come
        in parts, or there is a `cache`; otherwise the network as it is.
    n_jobs : int, default=None
        Threads on the CPU, both those that torch computes with and those that read pictures meanwhile; None takes as
        many as torch is set to, -1 one for each core.
    cache : path, default=None
        A folder that remembers the activations of each picture, by its content and by all that decides on
        them. It is shared by folds, candidates and processes: in a grid search the network sees each picture
        once. It may be deleted at any time between calls. Of a module its weights and all of its attributes
        decide; where one of them cannot be looked into, an attribute `cache_identity` of the module, a str, may
        stand for them.

        Of a picture all is kept that "auto" and "last" read, before and after the activation function, so that the
        network sees it once, whatever of these `layers`, `activation`, `discretize` and `thresholds` are tried; and
        what else `layers` has named. Maxima are kept once `pooling` has asked for one.
    cache_size : int or None, default=2**34
        Bytes that the activations in the folder may take, 16 GiB by default; None sets no bound. Where more come, those
        go that nobody has asked for yet, and then those that were used longest ago; of these the network sees the
        pictures again. Pictures of which not all fit at once are passed on as well, each seen once in a call.
    cache_dtype : {"float32", "float16"}, default="float32"
        In which activations are stored. float16 takes half the room, and rounds each activation by at most 2**-11 of
        it (by 2**-25 below 2**-14) before the statistics are taken: a standardised value moves by about that over
        `scale_`. One whose standard deviation is below 2**-8 of its mean counts as constant. Of the ternary values of
        EfficientNet-Lite0 over 1,000 photographs 0.09 % come out otherwise. What is stored in one is not read in the
        other.
    on_error : {"raise", "nan", "skip"}, default="raise"
        What becomes of a picture that cannot be read. "raise": an error that names the row, for what the
        headers of the files tell before the network starts. "nan": its row is NaN, or 0 throughout when
        discretised (in a DataFrame NaN all the same, and all is float32). "skip": its row is left out, so that y
        needs the same rows left out: see `errors_`; a DataFrame, with its index, cannot come out then, which is an
        error. The last two warn, and such pictures do not count in
        the statistics. The array that comes out says which they are to a ranker or an annotator of this library: its
        `fit` leaves them out with their captions or labels, and anything else is an error that names the row.
        A step of another library in between does not pass that on: before one, drop what `find_unreadable` finds.
    extra_formats : sequence of str, default=()
        Formats that files may have beside JPEG, PNG, GIF, BMP, PPM, WebP, TIFF and AVIF, by Pillow's names
        (``("JPEG2000", "TGA")``). Name one only for files that you trust: Pillow's plugin of EPS starts Ghostscript.
    verbose : int, default=0
        Whether to show a progress bar.

    Attributes
    ----------
    mean_ : ndarray of shape (n_features_out_,), float64
        Mean of each activation.
    scale_ : ndarray of shape (n_features_out_,), float64
        Standard deviation of each activation, of the population (divided by n); 0 for one that does not vary.
    layers_ : list of (str, int)
        Name and width of the layers read, in the order of the columns; the class token and the maximum of a layer are
        entries of their own, its name followed by "_class", before it, and "_max", behind it. Empty when fitted on
        activations.
    n_features_out_ : int
        Number of activations.
    n_samples_seen_ : int
        Number of pictures in the statistics: one that stands in several rows of a call, by its path or as the same
        object, is one, and the network sees it once.
    errors_ : list of ReadFailure
        ``(row, source, reason)`` for each picture of the last call that could not be read.
    precision_ : {"float32", "bfloat16", "float16"}
        In which `fit` has computed activations, and `transform` goes on under ``precision="auto"``.
    engine_ : {"auto", "torch", "compile", "openvino"}
        What has run the network in `fit`, and goes on under ``engine="auto"``: "auto" still looks at the number of
        pictures of a call, or is the network as it is in half precision. Only when fitted on pictures.
    n_features_in_ : int
        Number of columns of X; only when fitted on activations.
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
        A backbone, a layer or a parameter is unknown; the network's activations are not finite; or the module, or
        the file of its weights, has changed since `fit`, and the network has to be built anew.

    See Also
    --------
    sklearn_mm.retrieval.JointEmbeddingRanker : Ranks sentences by pictures so embedded, and the reverse.

    Notes
    -----
    X is a sequence of pictures (list, tuple, object array, Series, frame of one column, or anything with a
    length that gives a picture for ``X[row]``, of which no picture is held that is not needed), or a uint8 or float
    array or tensor of shape (n, h, w), (n, h, w, c) or (n, c, h, w). A picture is a path, the bytes of a file, a file
    open for reading bytes, a PIL image of any mode, or an array or tensor; floats are in [0, 1]. A row may also be a
    picture and its label, as data sets of torchvision have it, or a mapping of "bytes" and "path", as those of Hugging
    Face store it. A two-dimensional numeric X holds activations computed before: it is only
    standardised and discretised, and no network is built.

    A hook on each layer pools its map as it appears and lets it go. `fit_transform` keeps the activations
    of all pictures as float32 until the statistics are known: up to 256 MB in memory, more in a temporary file
    or in the cache. The output takes a byte for each activation when discretised.

    An activation whose standard deviation is below what its floats resolve counts as constant and becomes 0.

    The authors of the embedding published neither whether they read layers before or after the activation, nor
    how crops are treated: `activation` and `crops` leave both open. The default is what their own package does,
    and thresholds are compared strictly as in their first scripts. Batch norm, which VGG lacks, changes nothing
    before the activation but the sign of filters with a negative weight, as features are standardised.

    ``layers="aligned"`` keeps the layers whose agreement with the captions, beyond chance, is at least 0.7 of the best
    layer's: the share of a picture's ten nearest neighbours that are so by tf-idf of the words as well, over up to a
    thousand pictures of `fit` (after STRUCTURE, see References). `fit` goes through the activations twice, as
    `fit_transform` does, and `transform` runs the whole network and leaves the other layers out. Of EfficientNet-Lite2
    on Flickr8k it keeps the last eleven convolutions. The layers that agree best alone or together would be two or
    three, too few for a ranker, which learns what it compares.

    %(threads)s

    References
    ----------
    D. Garcia-Gasulla, A. Vilalta et al., "An Out-of-the-box Full-network Embedding for Convolutional Neural
    Networks", arXiv 1705.07706, ICBK 2018.
    A. Vilalta, D. Garcia-Gasulla et al., "Full-Network Embedding in a Multimodal Embedding Pipeline", arXiv
    1707.09872, SemDeep-2, 2017.
    STRUCTURE (NeurIPS 2025), hhxk233/STRUCTURE: layers chosen by mutual nearest neighbours of the two modalities.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_mm.features import FullNetworkEmbedding
    >>> images = np.random.default_rng(0).integers(256, size=(6, 40, 50, 3), dtype=np.uint8)
    >>> embedding = FullNetworkEmbedding("resnet18", weights=None, image_size=32, layers=4)
    >>> embedding.fit_transform(images).shape
    (6, 2048)
    >>> embedding.layers_[-1]
    ('layer4.1.conv2', 512)
    >>> embedding.get_feature_names_out()[-1]
    'layer4.1.conv2_511'
    """

    _kept: np.ndarray | None = None  # columns of the network's activations, where fit has chosen among them

    _parameter_constraints = {
        "backbone": [str, nn.Module],
        "weights": [a_path, None],
        "layers": [str, positive_int, list, tuple],
        "activation": [StrOptions({"pre", "post"})],
        "pooling": [StrOptions(set(POOLINGS))],
        "discretize": ["boolean"],
        "thresholds": [tuple, list],
        "crops": [StrOptions({"center", "mirrored", "ten"})],
        "image_size": [positive_int, None],
        "batch_size": [positive_int],
        **DEVICE_CONSTRAINTS,
        "engine": [StrOptions(set(ENGINES))],
        "n_jobs": [Integral, None],
        "cache": [a_path, None],
        "cache_size": [positive_int, None],
        "cache_dtype": [StrOptions({"float32", "float16"})],
        "on_error": [StrOptions({"raise", "nan", "skip"})],
        "extra_formats": ["array-like"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        backbone: str | nn.Module = "resnet50",
        *,
        weights: str | os.PathLike[str] | None = "default",
        layers: str | int | Sequence[str] = "auto",
        activation: str = "pre",
        pooling: str = "mean",
        discretize: bool = True,
        thresholds: tuple[float, float] = (-0.25, 0.15),
        crops: str = "center",
        image_size: int | None = None,
        batch_size: int = 32,
        device: str = "auto",
        precision: str = "auto",
        engine: str = "auto",
        n_jobs: int | None = None,
        cache: str | os.PathLike[str] | None = None,
        cache_size: int | None = _CACHE_SIZE,
        cache_dtype: str = "float32",
        on_error: str = "raise",
        extra_formats: Sequence[str] = (),
        verbose: int = 0,
    ) -> None:
        self.backbone = backbone
        self.weights = weights
        self.layers = layers
        self.activation = activation
        self.pooling = pooling
        self.discretize = discretize
        self.thresholds = thresholds
        self.crops = crops
        self.image_size = image_size
        self.batch_size = batch_size
        self.device = device
        self.precision = precision
        self.engine = engine
        self.n_jobs = n_jobs
        self.cache = cache
        self.cache_size = cache_size
        self.cache_dtype = cache_dtype
        self.on_error = on_error
        self.extra_formats = extra_formats
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn the mean and the standard deviation of each activation.

        Parameters
        ----------
        X : pictures, or array-like of shape (n_samples, n_features)
            Pictures in rows, or activations computed before.
        y : sequence of (str or sequence of str), optional
            The captions of each picture, with ``layers="aligned"``; ignored otherwise.

        Returns
        -------
        self
        """
        return self._fit(X, y)

    def _fit(self, X: Any, y: Any, is_part: bool = False) -> Self:
        """Fit; with `is_part` more pictures are to be expected."""
        self._restart()
        captions = self._captions_to_align(X, y)
        if is_table(X):
            return self._learn_table(self._check_table(X, reset=True), RunningMoments())
        if is_part:
            self._settle_engine(inf)
        repeats = Repeats.of(X)
        with self._open_pass(X, repeats) as activations:
            return self._learn(activations, RunningMoments(), captions, keep=captions is not None, repeats=repeats)

    def fit_transform(self, X: Any, y: Any = None) -> np.ndarray:
        """Fit, and return the embedding of X; the network sees each picture once.

        Parameters
        ----------
        X : pictures, or array-like of shape (n_samples, n_features)
            Pictures in rows, or activations computed before.
        y : sequence of (str or sequence of str), optional
            The captions of each picture, with ``layers="aligned"``; ignored otherwise.

        Returns
        -------
        ndarray of shape (n_samples, n_features_out_), int8 or float32
            As `transform` returns it.
        """
        self._restart()
        captions = self._captions_to_align(X, y)
        if is_table(X):
            table = self._check_table(X, reset=True)
            return self._learn_table(table, RunningMoments())._embedder(table.dtype)(table)
        repeats = Repeats.of(X)
        with self._open_pass(X, repeats) as activations:
            self._learn(activations, RunningMoments(), captions, keep=True, repeats=repeats)
            writer = self._writer(activations)
            activations.each_block_again(writer.take)
            return self._marked(writer, activations, repeats)

    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """Take more rows into the statistics; the result is that of one `fit` on all rows seen.

        Parameters
        ----------
        X : pictures, or array-like of shape (n_samples, n_features)
            Pictures in rows, or activations computed before.
        y : sequence of (str or sequence of str), optional
            The captions of each picture, with ``layers="aligned"`` and in the first call, which chooses the layers;
            ignored otherwise.

        Returns
        -------
        self
        """
        if not hasattr(self, "mean_"):
            return self._fit(X, y, is_part=True)
        self._check_parameters()
        moments = copy.deepcopy(self._moments)  # an error on the way leaves the old ones
        if is_table(X):
            return self._learn_table(self._check_table(X, reset=False), moments)
        repeats = Repeats.of(X)
        with self._open_pass(X, repeats) as activations:
            return self._learn(activations, moments, repeats=repeats)

    def get_statistics(self) -> dict[str, Any]:
        """Return what `fit` has learnt of its pictures, to be merged with what others have learnt of theirs.

        Returns
        -------
        dict
            Arrays, and numbers and names that JSON can hold: "n_rows", "mean", "squares", "resolution", "layers",
            "precision" and "engine".
        """
        check_is_fitted(self, "mean_")
        if self._kept is not None:
            raise ValueError(
                "layers='aligned' has chosen layers by its own pictures, which others would not; name them"
            )
        moments = self._moments
        return {
            **{name: getattr(moments, name) for name in ("n_rows", "mean", "squares", "resolution")},
            "layers": [list(layer) for layer in self.layers_],
            "precision": getattr(self, "precision_", None),
            "engine": getattr(self, "engine_", "auto"),
        }

    def set_statistics(self, parts: Iterable[Mapping[str, Any]]) -> Self:
        """Become fitted on the pictures of several fits together, as if all had been seen by one.

        Parameters
        ----------
        parts : iterable of mappings
            What `get_statistics` gives of embeddings of the same parameters, fitted on pictures. They are merged in
            their order, one at a time. Of none, it is as if no picture had been seen, and `partial_fit` goes on from
            there.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            They are of different networks, precisions or engines.
        """
        if hasattr(self, "mean_"):
            self._check_parameters()  # the network stays, as it does in partial_fit
        else:
            self._restart()
            self._settle_engine(inf)
        moments = RunningMoments()
        first: Mapping[str, Any] = {"layers": [], "precision": None}
        for place, stored in enumerate(parts):
            part = {"engine": "auto", **stored}  # as it was before it was written down
            first = part if place == 0 else first
            for name in ("layers", "precision", "engine"):
                if part[name] != first[name]:
                    raise ValueError(
                        f"statistics {place} are of {name} {part[name]!r}, those before of {first[name]!r}"
                    )
            moments.merge(RunningMoments(*(part[name] for name in ("n_rows", "mean", "squares", "resolution"))))
        self.layers_: list[tuple[str, int]] = [(name, width) for name, width in first["layers"]]
        if first["precision"] is not None:
            self.precision_, self.engine_ = first["precision"], first["engine"]
        self.errors_: list[ReadFailure] = []
        return self._finish_learning(moments)

    def transform(self, X: Any) -> np.ndarray:
        """Embed pictures.

        Parameters
        ----------
        X : pictures, or array-like of shape (n_samples, n_features)
            Pictures in rows, or activations computed before.

        Returns
        -------
        ndarray of shape (n_samples, n_features_out_), int8 or float32
            -1, 0 and 1 as int8 when discretised, standardised activations as float32 otherwise. Under
            ``on_error="skip"`` without the rows that `errors_` lists.
        """
        check_is_fitted(self, "mean_")
        self._check_parameters()
        if is_table(X):
            table = self._check_table(X, reset=False)
            self.errors_ = []
            return self._embedder(table.dtype)(table)
        repeats = Repeats.of(X)
        with self._open_pass(X, repeats) as activations:
            writer = self._writer(activations)
            activations.each_block(writer.take)
            self._report(activations, repeats)
            return self._marked(writer, activations, repeats)

    def get_feature_names_out(self, input_features: ArrayLike | None = None) -> np.ndarray:
        """Name the columns of the output: ``layer4.2.conv3_17`` is the mean of filter 17 of that layer.

        Its maximum is ``layer4.2.conv3_max_17``.

        Parameters
        ----------
        input_features : array-like of str, optional
            Names of the columns of a numeric X; not used for pictures.

        Returns
        -------
        ndarray of shape (n_features_out_,), str objects
        """
        check_is_fitted(self, "mean_")
        if not self.layers_:
            # Fitted on a table, whose columns keep their names.
            return OneToOneFeatureMixin.get_feature_names_out(self, input_features)
        names = [f"{name}_{unit}" for name, width in self.layers_ for unit in range(width)]
        return np.asarray(names, dtype=object)

    def _restart(self) -> None:
        self._check_parameters()
        for learned in ("precision_", "engine_", "_kept"):  # by the fit before
            self.__dict__.pop(learned, None)
        self._forget_network()

    def _settle_engine(self, n_pictures: float) -> None:
        device, dtype = self._resolve()
        # one choice for all who share a cache, or their pictures would pass the network once for each
        self.engine_ = settled_engine(self.engine, device, dtype, n_pictures if self.cache is None else inf)

    def _captions_to_align(self, X: Any, y: Any) -> Captions | None:
        """Return the captions that decide on the layers, if they do."""
        if not (isinstance(self.layers, str) and self.layers == "aligned"):
            return None
        if is_table(X):
            raise ValueError("layers='aligned' needs pictures: activations computed before have no layers to choose")
        if y is None:
            raise ValueError(
                "layers='aligned' chooses layers by their agreement with the captions and requires y to be passed, but "
                "the target y is None; pass the captions of each picture, fit(images, captions)"
            )
        captions = check_captions(y, X)
        repeats = Repeats.of(X)
        return captions if repeats is None else captions.merge(repeats.place, len(repeats.rows))

    def _check_parameters(self) -> None:
        validate_params(self)
        thresholds = self.thresholds
        if len(thresholds) != 2 or not all(isinstance(value, Real) for value in thresholds):
            raise InvalidParameterError(f"thresholds must be two numbers, got {thresholds!r}")
        if not thresholds[0] < thresholds[1]:
            raise InvalidParameterError(f"thresholds must be (lower, upper), lower first, got {thresholds!r}")
        if isinstance(self.layers, list | tuple) and not (
            self.layers and all(isinstance(name, str) for name in self.layers)
        ):
            raise InvalidParameterError(f"layers must name at least one module, each by a str, got {self.layers!r}")
        check_formats(self.extra_formats)

    def _check_table(self, X: Any, reset: bool) -> np.ndarray:
        """Validate activations computed before: float32 or float64."""
        refuse_text_columns(X)
        # After a fit on pictures there is no n_features_in_ for scikit-learn to compare with: activations of that
        # network are compared with its own width. What is not finite is left to check_finite_rows, which names the row.
        if reset or hasattr(self, "n_features_in_"):
            table = validate_data(self, X, dtype=[np.float64, np.float32], reset=reset, ensure_all_finite=False)
        else:
            table = check_array(X, dtype=[np.float64, np.float32], estimator=self, ensure_all_finite=False)
            self._of_known_width(table)
        check_finite_rows(table)
        return table

    def _of_known_width(self, block: np.ndarray) -> np.ndarray:
        if block.shape[1] != self.n_features_out_:
            raise ValueError(
                f"X has {block.shape[1]} features, but {type(self).__name__} is expecting "
                f"{self.n_features_out_} features as input: one for each activation it was fitted on"
            )
        return block

    def _learn_table(self, table: np.ndarray, moments: RunningMoments) -> Self:
        if moments.n_rows == 0:
            self.layers_ = []
            self.errors_ = []
        moments.update(table)
        return self._finish_learning(moments)

    def _learn(
        self,
        activations: ActivationPass,
        moments: RunningMoments,
        captions: Captions | None = None,
        keep: bool = False,
        repeats: Repeats | None = None,
    ) -> Self:
        """Take the activations into the moments; with `keep` they can be gone through again."""
        starts = moments.n_rows == 0
        dtype = "float32" if self.cache is None else self.cache_dtype

        def take(rows: list[int], block: np.ndarray) -> None:
            if not starts:
                self._kept_of(block)  # says so if it is another network's
            moments.update(block, dtype)

        activations.each_block(take, keep)
        if starts:
            self.layers_ = activations.layers()
            if captions is not None:
                self._choose_layers(activations, moments, captions)
            self.precision_ = precision_of(self._resolve()[1])
            # A fit on a table before left these; pictures have none.
            for of_a_table in ("n_features_in_", "feature_names_in_"):
                if hasattr(self, of_a_table):
                    delattr(self, of_a_table)
        self._report(activations, repeats)
        return self._finish_learning(moments)

    def _choose_layers(self, activations: ActivationPass, moments: RunningMoments, captions: Captions) -> None:
        """Keep the layers that agree with the captions."""
        chosen = sample_rows(activations.n_rows)
        found: list[tuple[int, np.ndarray]] = []

        def take(rows: list[int], block: np.ndarray) -> None:
            own = np.flatnonzero(np.isin(rows, chosen))
            values = standardise(block[own], moments.mean, moments.scale)
            found.extend((rows[place], row) for place, row in zip(own, values, strict=True))

        activations.each_block_again(take)
        rows = np.array([row for row, _ in found], dtype=np.int64)
        agrees = agreeing_layers(np.stack([values for _, values in found]), rows, self.layers_, captions)
        self._kept = np.flatnonzero(np.repeat(agrees, [width for _, width in self.layers_]))
        self.layers_ = [layer for layer, is_kept in zip(self.layers_, agrees, strict=True) if is_kept]

    def _kept_of(self, block: np.ndarray) -> np.ndarray:
        """Return the columns of a network's activations that are embedded."""
        if self._kept is None:
            return self._of_known_width(block)
        if block.shape[1] != len(self._moments.mean):
            raise ValueError(
                f"the network has {block.shape[1]} activations now, but had {len(self._moments.mean)} in fit, which "
                "chose among them"
            )
        return block[:, self._kept]

    def _finish_learning(self, moments: RunningMoments) -> Self:
        self._moments = moments
        kept = slice(None) if self._kept is None else self._kept
        self.mean_ = moments.mean[kept]
        self.scale_ = moments.scale[kept]
        self.n_samples_seen_ = moments.n_rows
        self.n_features_out_ = len(self.mean_)
        return self

    def _embedder(self, dtype: np.dtype) -> Callable[[np.ndarray], np.ndarray]:
        """Return the function from activations of this dtype to the embedding."""
        if not self.discretize:
            return lambda rows: standardise(rows, self.mean_, self.scale_)
        low, high = ternary_limits(self.mean_, self.scale_, self.thresholds, dtype)
        return lambda rows: discretise(rows, low, high)

    def _writer(self, activations: ActivationPass) -> RowWriter:
        # Activations of a network are float32, whatever it computes in.
        embed = self._embedder(np.dtype(np.float32))
        dtype = np.dtype(np.int8 if self.discretize else np.float32)
        out = np.empty((activations.n_rows, self.n_features_out_), dtype=dtype)
        return RowWriter(out, lambda block: embed(self._kept_of(block)), self.on_error == "skip")

    def _marked(self, writer: RowWriter, activations: ActivationPass, repeats: Repeats | None) -> np.ndarray:
        """Return the embedding, which tells a ranker or an annotator of pictures that are repeated or unreadable."""
        failures, n_rows = _failures_of(activations, repeats)
        first = None
        out = writer.close(activations.failures)
        if repeats is not None:
            first = repeats.first
            out = out[repeats.places_in(len(out), activations.failures)]
        if failures and self._gives_frames():
            if self.on_error == "skip":
                raise_unreadable(failures)
            # A frame cannot say which of its rows are no pictures, and rows of 0 would be learnt from.
            out = out.astype(np.float32, copy=False)
            out[[failure.row for failure in failures]] = np.nan
        return mark_features(out, failures, n_rows, first)

    def _gives_frames(self) -> bool:
        """Whether `set_output` asks for frames, here or everywhere."""
        own = getattr(self, "_sklearn_output_config", {}).get("transform")
        return (get_config()["transform_output"] if own is None else own) != "default"

    def _open_pass(self, X: Any, repeats: Repeats | None) -> ActivationPass:
        pictures = Pictures(X)
        if repeats is not None:
            pictures = Pictures([pictures[row] for row in repeats.rows.tolist()])
        pixels = pixel_convention(self.backbone)
        if self.image_size is not None:
            pixels = pixels.resized(self.image_size)
        reader = PictureReader(
            pixels.image_size, pixels.resize_size, pixels.interpolation, self.crops, tuple(self.extra_formats)
        )
        device, dtype = self._resolve()
        if not hasattr(self, "engine_"):
            self._settle_engine(len(pictures))
        return ActivationPass(
            pictures,
            reader,
            partial(self._open_network, pixels, device, dtype),
            batch_size=self.batch_size,
            n_jobs=self.n_jobs,
            on_error=self.on_error,
            cache=self._open_cache(reader, dtype),
            verbose=bool(self.verbose),
            names=None if repeats is None else repeats.rows.tolist(),
        )

    def _resolve(self) -> tuple[torch.device, torch.dtype]:
        """Return where the network runs, and in which precision."""
        device = resolve_device(self.device)
        # what it was fitted in counts: in another precision the statistics would not suit
        precision = getattr(self, "precision_", "auto") if self.precision == "auto" else self.precision
        check_engine(self.engine, device, precision)
        gains = device.type != "cpu" or gains_in_half_precision(self.backbone)
        if precision == "auto" and not gains:
            precision = "float32"
        return device, resolve_dtype(precision, device)

    def _report(self, activations: ActivationPass, repeats: Repeats | None) -> None:
        failures, n_rows = _failures_of(activations, repeats)
        self.errors_ = failures
        if failures:
            what = {"skip": "left out", "nan": "marked"}[self.on_error]
            warnings.warn(
                f"{len(failures)} of {n_rows} pictures could not be read and were {what}: {summarise(failures)}",
                ImageReadWarning,
                stacklevel=3,
            )

    @classmethod
    def _from_format(cls, state: dict[str, Any], number: int) -> dict[str, Any]:
        """Bring an older state to today's: any file was opened without a question, and only means were read."""
        added = {"extra_formats": (), "pooling": "mean", "engine": "auto"}
        learnt = {"engine_": "auto"} if "precision_" in state else {}
        return {**added, **learnt, "cache_size": _CACHE_SIZE, "cache_dtype": "float32", **state}

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.input_tags.string = True
        tags.transformer_tags.preserves_dtype = [] if self.discretize else ["float32"]
        return tags


def _failures_of(activations: ActivationPass, repeats: Repeats | None) -> tuple[list[ReadFailure], int]:
    """Return what could not be read, by the rows that were given, and how many these are."""
    if repeats is not None:
        return repeats.in_all_rows(activations.failures), len(repeats.place)
    return [failure for _, failure in sorted(activations.failures.items())], activations.n_rows
