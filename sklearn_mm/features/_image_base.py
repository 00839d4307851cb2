"""What the trainable image encoders share: pictures to squares, stand-alone training, and the tower protocol."""

import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from numbers import Real
from typing import Any, Self

import numpy as np
import torch
from joblib import effective_n_jobs
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from sklearn_mm._device import autocast, forked_rng, generator_from, resolve_device, resolve_dtype
from sklearn_mm._params import (
    DEVICE_CONSTRAINTS,
    Integral,
    Interval,
    InvalidParameterError,
    StrOptions,
    non_negative_int,
    positive_int,
    positive_real,
    validate_params,
)
from sklearn_mm.exceptions import ImageReadError, ImageReadWarning
from sklearn_mm.features._activations import ActivationPass, RowWriter, summarise
from sklearn_mm.features._instance_training import as_instances, train_by_instance
from sklearn_mm.images import (
    Augmentation,
    PictureReader,
    PictureRows,
    Pictures,
    ReadFailure,
    describe,
    is_table,
    read_ahead,
    read_squares,
)
from sklearn_mm.nn.backbones import pixel_convention
from sklearn_mm.nn.image_cnn import BackboneTower
from sklearn_mm.persistence import PickleStateMixin
from sklearn_mm.training import EpochRecord

__all__ = ["ImageEncoderBase"]

_HEADERS_AHEAD = 256


class ImageEncoderBase(ClassNamePrefixFeaturesOutMixin, TransformerMixin, PickleStateMixin, BaseEstimator):
    """An image encoder: a network that reads pictures as it was trained to.

    A subclass stores its parameters, and says in `_make_module` which network they describe.
    """

    _parameter_constraints: dict[str, Any] = {
        **DEVICE_CONSTRAINTS,
        "backbone": [str, nn.Module],
        "weights": "no_validation",  # checked where they are read
        "trainable": [positive_int, str],
        "fix_batch_norm": ["boolean"],
        "backbone_learning_rate": [positive_real],
        "image_size": [positive_int, None],
        "crop_scale": [tuple, list, None],
        "crop_ratio": [tuple, list],
        "mirror": ["boolean"],
        "color_jitter": [Interval(Real, 0, 1, closed="left")],
        "average_mirrored": ["boolean"],
        "max_epochs": [positive_int],
        "batch_size": [positive_int],
        "learning_rate": [positive_real],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "temperature": [positive_real],
        "random_state": ["random_state"],
        "n_jobs": [Integral, None],
        "on_error": [StrOptions({"raise", "nan", "skip"})],
        "verbose": [non_negative_int, "boolean"],
    }

    @abstractmethod
    def _make_module(self) -> BackboneTower:
        """Build the network, under torch's current random state."""

    # The tower protocol -------------------------------------------------------------------------------------------

    def initialize(self, data: Any, random_state: Any = None) -> Self:
        """Build the network, with its weights; the pictures are not read.

        Parameters
        ----------
        data : pictures
            Of any kind that `prepare` takes.
        random_state : int, RandomState or None
        """
        self._check_parameters()
        _check_pictures(data)
        with forked_rng(random_state, torch.device("cpu")):
            self.module_: Any = self._make_module()
        self._n_features_out = self.module_.n_components
        self.history_: list[EpochRecord] = []
        self.errors_: list[ReadFailure] = []
        return self

    def prepare(self, data: Any) -> PictureRows:
        """Look at the headers of files; return rows, none of them decoded, for many calls of `collate`.

        Raises
        ------
        ImageReadError
            A picture does not exist, or is none; the message names the row.
        """
        pictures = _check_pictures(data)
        if not pictures.is_lazy:
            found = read_ahead(self._reader().check, pictures, range(len(pictures)), self._n_threads(), _HEADERS_AHEAD)
            _raise_for([answer for _, answer in found if isinstance(answer, ReadFailure)])
        return PictureRows(pictures)

    def collate(self, rows: PictureRows, rng: np.random.Generator | None = None) -> Tensor:
        """Read the pictures of a batch for `module_`, (n, s, s, 3) uint8; with `rng` for training, changed at random.

        Raises
        ------
        ImageReadError
            A picture cannot be decoded; the message names the row of `prepare`'s data.
        """
        squares, failures = read_squares(rows, self._reader(), self._n_threads(), self._augmentation(), rng)
        _raise_for(failures)
        return torch.from_numpy(squares)

    # scikit-learn -------------------------------------------------------------------------------------------------

    def fit(self, images: Any, y: Any = None) -> Self:
        """Build the network; with y, train what `trainable` says, and the layers on top, by instance loss.

        Parameters
        ----------
        images : sequence of pictures, length n_images
        y : sequence of hashables, length n_images, optional
            The class of each picture: a label, an instance, the place it shows. Without it nothing is trained.

        Returns
        -------
        self
        """
        self._check_parameters()
        pictures = _check_pictures(images)
        instance = None if y is None else as_instances(y, len(pictures), "picture")
        random_state = check_random_state(self.random_state)
        device = resolve_device(self.device)
        with forked_rng(random_state, device):
            self.initialize(images, random_state)
            rows = self._readable_rows(images)
            if instance is not None and any(parameter.requires_grad for parameter in self.module_.parameters()):
                self._train(rows, instance[rows.rows], generator_from(random_state), device)
        self.module_.cpu().eval()
        return self

    def _readable_rows(self, images: Any) -> PictureRows:
        """Return the rows to train on; where errors are no end, all pictures are decoded once to find them."""
        if self.on_error == "raise":
            return self.prepare(images)
        pictures = Pictures(images)
        answers = read_ahead(self._reader().read, pictures, range(len(pictures)), self._n_threads(), self.batch_size)
        self._report([answer for _, answer in answers if isinstance(answer, ReadFailure)], len(pictures))
        bad = [failure.row for failure in self.errors_]
        if len(bad) == len(pictures):
            raise ImageReadError(f"not one picture could be read: {summarise(self.errors_)}")
        return PictureRows(pictures, np.setdiff1d(np.arange(len(pictures)), bad))

    def _train(self, rows: PictureRows, instance: np.ndarray, rng: np.random.Generator, device: torch.device) -> None:
        self.history_ = train_by_instance(
            self, rows, lambda batch: self.collate(batch, rng).to(device), instance, rng, device
        )

    def transform(self, images: Any) -> np.ndarray:
        """Embed pictures.

        Parameters
        ----------
        images : sequence of pictures, length n_images

        Returns
        -------
        ndarray of shape (n_images, n_features_out), float32
            Not normalised. Under ``on_error="nan"`` rows of pictures that cannot be read are NaN, under "skip" they
            are left out; `errors_` lists them.
        """
        check_is_fitted(self, "module_")
        self._check_parameters()
        out, failures = self._embed(_check_pictures(images), self.on_error, bool(self.verbose))
        self._report(failures, len(images))
        return out

    def _embed(self, pictures: Pictures, on_error: str, verbose: bool) -> tuple[np.ndarray, list[ReadFailure]]:
        """Read and embed pictures; the network runs on a batch while the next one is read."""
        device = resolve_device(self.device)
        network = _Running(self.module_, device, resolve_dtype(self.precision, device))
        embedded = ActivationPass(
            pictures,
            self._reader(),
            lambda: network,
            batch_size=self.batch_size,
            n_threads=self._n_threads(),
            on_error=on_error,
            cache=None,
            verbose=verbose,
        )
        out = np.empty((len(pictures), self._n_features_out), dtype=np.float32)
        writer = RowWriter(out, lambda block: block, on_error == "skip")
        try:
            with embedded:
                embedded.each_block(writer.take)
        finally:
            self.module_.cpu()
        failures = [failure for _, failure in sorted(embedded.failures.items())]
        return writer.close(embedded.failures), failures

    def _report(self, failures: list[ReadFailure], n_rows: int) -> None:
        self.errors_ = failures
        if failures:
            warnings.warn(
                f"{len(failures)} of {n_rows} pictures could not be read: {summarise(failures)}",
                ImageReadWarning,
                stacklevel=3,
            )

    def _reader(self) -> PictureReader:
        pixels = pixel_convention(self.backbone)
        if self.image_size is not None:
            pixels = pixels.resized(self.image_size)
        return PictureReader(pixels.image_size, pixels.resize_size, pixels.interpolation)

    def _augmentation(self) -> Augmentation:
        return Augmentation(
            None if self.crop_scale is None else tuple(self.crop_scale),
            tuple(self.crop_ratio),
            self.mirror,
            self.color_jitter,
        )

    def _n_threads(self) -> int:
        return effective_n_jobs(self.n_jobs)

    def _check_parameters(self) -> None:
        validate_params(self)
        if isinstance(self.trainable, bool):
            raise InvalidParameterError(f"trainable must be 'all', 'none', an int or a regex, got {self.trainable!r}")
        for name in ("crop_scale", "crop_ratio"):
            pair = getattr(self, name)
            if pair is None:
                continue
            if len(pair) != 2 or not all(isinstance(value, Real) and float(value) > 0 for value in pair):
                raise InvalidParameterError(f"{name} must be two numbers above 0, got {pair!r}")
            if pair[0] > pair[1]:
                raise InvalidParameterError(f"{name} must be (least, largest), the least first, got {pair!r}")
        if self.crop_scale is not None and self.crop_scale[1] > 1:
            raise InvalidParameterError(
                f"crop_scale are shares of the picture's area, at most 1, got {self.crop_scale!r}"
            )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.transformer_tags.preserves_dtype = []
        return tags


class _Running:
    """An encoder's network, as `ActivationPass` runs it."""

    def __init__(self, module: BackboneTower, device: torch.device, dtype: torch.dtype) -> None:
        self._module, self._device, self._dtype = module, device, dtype
        self.layers: list[tuple[str, int]] = []

    @contextmanager
    def running(self) -> Iterator[Callable[[np.ndarray], np.ndarray]]:
        """Yield the function from squares (n, 1, s, s, 3), uint8, to embeddings (n, d), float32."""
        self._module.to(self._device).eval()
        with torch.inference_mode(), autocast(self._device, self._dtype):
            yield lambda squares: self._module(torch.from_numpy(squares[:, 0]).to(self._device)).float().cpu().numpy()


def _check_pictures(images: Any) -> Pictures:
    if is_table(images) and not (hasattr(images, "__len__") and len(images) == 0):
        raise ValueError(
            f"expected pictures, got {describe(images)}; pictures are paths, bytes, PIL images or arrays of shape "
            "(n, h, w, c); features computed before need no image encoder"
        )
    return Pictures(images)


def _raise_for(failures: list[ReadFailure]) -> None:
    if failures:
        raise ImageReadError(f"{summarise(failures)}; mend or drop these rows")
