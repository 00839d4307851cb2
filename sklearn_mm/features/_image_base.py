"""What the image encoders that read pictures by a backbone share: pictures to crops."""

import warnings
from abc import abstractmethod
from collections.abc import Mapping
from numbers import Real
from typing import Any, Self

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from sklearn_mm._content import FilesIn
from sklearn_mm._device import forked_rng, n_threads
from sklearn_mm._params import (
    Interval,
    InvalidParameterError,
    StrOptions,
    a_path,
    positive_int,
    positive_real,
    validate_params,
)
from sklearn_mm._repeated import Repeats
from sklearn_mm._unreadable import mark_features, summarise
from sklearn_mm.exceptions import ImageReadError, ImageReadWarning
from sklearn_mm.images import (
    Augmentation,
    PictureReader,
    PictureRows,
    Pictures,
    ReadFailure,
    check_formats,
    describe,
    is_table,
    read_ahead,
    read_crops,
)
from sklearn_mm.nn.backbones import backbone_training_data, pixel_convention
from sklearn_mm.nn.image_cnn import BackboneTower
from sklearn_mm.towers import TrainableEncoder

__all__ = ["ImageEncoderBase"]

_HEADERS_AHEAD = 256
_SAMPLE = 256  # pictures that the statistics of an output are taken from


class ImageEncoderBase(TrainableEncoder):
    """An image encoder: a network that reads pictures as it was trained to.

    A subclass stores its parameters, and says in `_make_module` which network they describe.
    """

    _parameter_constraints: dict[str, Any] = {
        **TrainableEncoder._parameter_constraints,
        "backbone": [str, nn.Module],
        "weights": [a_path, Mapping, None],
        "trainable": [positive_int, str],
        "fix_batch_norm": ["boolean"],
        "backbone_learning_rate": [positive_real],
        "image_size": [positive_int, None],
        "crop_scale": [tuple, list, None],
        "crop_ratio": [tuple, list],
        "mirror": ["boolean"],
        "color_jitter": [Interval(Real, 0, 1, closed="left")],
        "average_mirrored": ["boolean"],
        "on_error": [StrOptions({"raise", "nan", "skip"})],
        "extra_formats": ["array-like"],
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
        if not isinstance(data, PictureRows):
            _check_pictures(data)
            self.errors_: list[ReadFailure] = []
        # Weights are drawn on the CPU and moved: a seed gives the same ones on every device.
        with forked_rng(random_state):
            self.module_: Any = self._make_module()
        self.history_ = []
        return self

    def prepare(self, data: Any) -> PictureRows:
        """Look at the headers of files; return rows, none of them decoded, for many calls of `collate`.

        Raises
        ------
        ImageReadError
            A picture does not exist, or is none; the message names the row.
        """
        if isinstance(data, PictureRows):
            return data
        pictures = _check_pictures(data)
        if not pictures.is_lazy:
            _raise_for(self._unreadable_headers(pictures))
        return PictureRows(pictures, n_threads=n_threads(self.n_jobs))

    def collate(self, rows: PictureRows, rng: np.random.Generator | None = None) -> Tensor:
        """Read the pictures of a batch for `module_`, (n, s, s, 3) uint8; with `rng` for training, changed at random.

        Raises
        ------
        ImageReadError
            A picture cannot be decoded; the message names the row of `prepare`'s data.
        """
        crops, failures = read_crops(rows, self._reader(), self._augmentation(), rng)
        _raise_for(failures)
        return torch.from_numpy(crops)

    @property
    def n_features_out(self) -> int:
        """Width of the embedding."""
        check_is_fitted(self, "module_")
        return int(self.module_.n_components)

    @property
    def embed_batch_size(self) -> int:
        """Pictures embedded at once: the maps of more would fill the memory."""
        return int(self.batch_size)

    @property
    def trained_on_(self) -> tuple[str, ...] | None:
        """The data that the weights it began with were learnt from: empty for random ones, None if not known."""
        return backbone_training_data(self.backbone, self.weights)

    def freeze_pretrained(self, frozen: bool) -> None:
        """Hold the backbone still, or let those of its layers learn that `trainable` says."""
        self.module_.freeze_backbone(frozen)

    # What differs from other encoders on their own ----------------------------------------------------------------

    def _check_data(self, X: Any) -> Any:
        _check_pictures(X)
        return X

    def _identified(self, data: Any) -> Any:
        return FilesIn(data)

    def _instances_of(self, y: Any, n_rows: int) -> np.ndarray | None:
        """Number the instances; without y nothing is trained, as each picture for itself tells no two apart."""
        return None if y is None else super()._instances_of(y, n_rows)

    def readable(self, data: Any) -> tuple[Any, np.ndarray]:
        """Return the pictures that can be learnt from; where errors are no end, all are decoded once to find them."""
        pictures = _check_pictures(data)
        if self.on_error == "raise":
            return data, np.arange(len(pictures))
        self._check_parameters()
        answers = read_ahead(
            self._reader().read, pictures, range(len(pictures)), n_threads(self.n_jobs), self.batch_size
        )
        self._report([answer for _, answer in answers if isinstance(answer, ReadFailure)], len(pictures))
        bad = [failure.row for failure in self.errors_]
        if len(bad) == len(pictures):
            raise ImageReadError(f"not one picture could be read: {summarise(self.errors_)}")
        # Rows that the network's statistics, the batches and the losses never meet; they keep their numbers.
        kept = np.setdiff1d(np.arange(len(pictures)), bad)
        return PictureRows(pictures, kept, n_threads=n_threads(self.n_jobs)), kept

    def _train(self, rows: PictureRows, instance: np.ndarray, *settings: Any) -> None:
        learning = [part for part in self.module_.train().modules() if part.training]
        if len(rows) == 1 and any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in learning):
            raise ValueError(
                "expected at least 2 pictures to take the statistics of batch norms from, got 1 (n_samples=1); give "
                "more, or leave batch norms as they are (fix_batch_norm=True, and no layers on top that have some)"
            )
        super()._train(rows, instance, *settings)

    def _rows_of(self, data: Any) -> PictureRows:
        return data if isinstance(data, PictureRows) else PictureRows(Pictures(data), n_threads=n_threads(self.n_jobs))

    def transform(self, X: Any) -> np.ndarray:
        """Embed pictures.

        Parameters
        ----------
        X : sequence of pictures, length n_images

        Returns
        -------
        ndarray of shape (n_images, n_features_out), float32
            Not normalised. Under ``on_error="nan"`` rows of pictures that cannot be read are NaN, under "skip" they
            are left out; `errors_` lists them.
        """
        check_is_fitted(self, "module_")
        self._check_parameters()
        repeats = Repeats.of(X)
        out, failures = self._embed_readable(X, self.on_error, repeats)
        n_rows = len(X)
        self._report(failures, n_rows)
        return mark_features(out, failures, n_rows, None if repeats is None else repeats.first)

    def _embed_readable(
        self, images: Any, on_error: str, repeats: Repeats | None
    ) -> tuple[np.ndarray, list[ReadFailure]]:
        """Embed pictures, each once, and list the rows of those that could not be read."""
        pictures = _check_pictures(images)
        way_out = "mend or drop these rows, or use on_error='skip' or on_error='nan'"
        # Headers of files cost little, and save hours before a broken one; getting at a row of a lazy container costs
        # as much as reading it.
        if on_error == "raise" and not pictures.is_lazy:
            _raise_for(self._unreadable_headers(pictures), way_out)
        failures: list[ReadFailure] = []

        def collate(rows: PictureRows) -> Tensor:
            crops, failed = read_crops(rows, self._reader())
            if on_error == "raise":
                _raise_for(failed, way_out)
            failures.extend(failed)  # their crops are black, and so no other row's answer depends on them
            return torch.from_numpy(crops)

        rows = PictureRows(pictures, None if repeats is None else repeats.rows, n_threads=n_threads(self.n_jobs))
        out = self._embed(rows, collate, shown=self.verbose)
        if len(failures) == len(out):
            raise ImageReadError(f"not one picture could be read: {summarise(failures)}")
        if repeats is not None:
            failures = repeats.in_all_rows({int(repeats.place[failure.row]): failure for failure in failures})
            out = out[repeats.place]
        failed = [failure.row for failure in failures]
        if on_error == "skip":
            return np.delete(out, failed, axis=0), failures
        out[failed] = np.nan
        return out, failures

    def _unreadable_headers(self, pictures: Pictures) -> list[ReadFailure]:
        found = read_ahead(self._reader().check, pictures, range(len(pictures)), n_threads(self.n_jobs), _HEADERS_AHEAD)
        return [answer for _, answer in found if isinstance(answer, ReadFailure)]

    def _report(self, failures: list[ReadFailure], n_rows: int) -> None:
        self.errors_ = failures
        if failures:
            warnings.warn(
                f"{len(failures)} of {n_rows} pictures could not be read: {summarise(failures)}",
                ImageReadWarning,
                stacklevel=3,
            )

    def _read_sample(self, rows: PictureRows) -> np.ndarray:
        """Return the crops of some pictures, of those that can be read: what statistics of an output are taken from."""
        # Spread evenly and not drawn: the statistics depend on no seed, and sorted data are seen from end to end.
        positions = np.linspace(0, len(rows) - 1, min(_SAMPLE, len(rows))).astype(np.int64)
        crops, failures = read_crops(rows[positions], self._reader())
        if len(failures) == len(positions):
            raise ImageReadError(f"not one picture could be read: {summarise(failures)}")
        is_read = ~np.isin(rows.rows[positions], [failure.row for failure in failures])
        sample: np.ndarray = crops[is_read]
        return sample

    def _reader(self) -> PictureReader:
        pixels = pixel_convention(self.backbone)
        if self.image_size is not None:
            pixels = pixels.resized(self.image_size)
        formats = tuple(self.extra_formats)
        return PictureReader(pixels.image_size, pixels.resize_size, pixels.interpolation, extra_formats=formats)

    def _augmentation(self) -> Augmentation:
        return Augmentation(
            None if self.crop_scale is None else tuple(self.crop_scale),
            tuple(self.crop_ratio),
            self.mirror,
            self.color_jitter,
        )

    def _check_parameters(self) -> None:
        validate_params(self)
        check_formats(self.extra_formats)
        # True would pass the table as the int 1.
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

    @classmethod
    def _from_format(cls, state: dict[str, Any], number: int) -> dict[str, Any]:
        """Bring an older state to today's: files of other formats were opened without a question."""
        return {"extra_formats": (), **super()._from_format(state, number)}

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        # scikit-learn's own checks hand over tables, and skip an estimator that says so. sklearn_mm.testing has them
        # for pictures.
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.transformer_tags.preserves_dtype = []
        return tags


def _check_pictures(images: Any) -> Pictures:
    # An empty list has no picture in it, and so is a table to is_table; Pictures refuses it in better words.
    if is_table(images) and not (hasattr(images, "__len__") and len(images) == 0):
        raise ValueError(
            f"expected pictures, got {describe(images)}; pictures are paths, bytes, PIL images or arrays of shape "
            "(n, h, w, c); features computed before need no image encoder"
        )
    return Pictures(images)


def _raise_for(failures: list[ReadFailure], way_out: str = "mend or drop these rows") -> None:
    if failures:
        raise ImageReadError(f"{summarise(failures)}; {way_out}")
