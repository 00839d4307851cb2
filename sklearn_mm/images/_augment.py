"""Changes to pictures in training, drawn before they are read and made in the threads that read them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sklearn_mm.images._reading import PictureReader
from sklearn_mm.images._transforms import functional, interpolation_mode

__all__ = ["Augmentation"]

_N_DRAWS = 8  # area, ratio, top, left, mirror, brightness, contrast, saturation


@dataclass(frozen=True)
class Augmentation:
    """How the pictures of a training batch are changed.

    Parameters
    ----------
    crop_scale : pair of float or None
        Least and largest share of the picture's area that a random rectangle has. None takes the centre crop.
    crop_ratio : pair of float
        Least and largest ratio of its width to its height.
    mirror : bool
        Whether half of the pictures are mirrored.
    color_jitter : float
        By which share brightness, contrast and saturation go up or down at most.

    Notes
    -----
    All chance is in `draw`, in the order of the rows, so that a batch does not depend on the number of threads. The
    rectangle is drawn once: its area uniformly, its ratio uniformly in the logarithm, and a side that is longer than
    the picture is cut to it (torchvision draws again, up to ten times, and then takes the centre).
    """

    crop_scale: tuple[float, float] | None
    crop_ratio: tuple[float, float]
    mirror: bool
    color_jitter: float

    @property
    def is_on(self) -> bool:
        """Whether anything is changed at all."""
        return self.crop_scale is not None or self.mirror or self.color_jitter > 0

    def draw(self, n_pictures: int, rng: np.random.Generator) -> np.ndarray:
        """Draw what `read` needs for each picture: (n_pictures, 8), float64."""
        # all eight, needed or not: with one change switched off, the others stay as they were
        return rng.random((n_pictures, _N_DRAWS))

    def read(self, reader: PictureReader, source: Any, drawn: np.ndarray) -> np.ndarray:
        """Return the crop of a picture for training: (image_size, image_size, 3), uint8.

        Raises
        ------
        ImageReadError
            As in `PictureReader.read`.
        """
        if self.crop_scale is None:
            crop = torch.from_numpy(reader.read(source)[0]).permute(2, 0, 1)
        else:
            pixels = torch.from_numpy(reader.decode(source)).permute(2, 0, 1)  # (3, h, w)
            # cut out of the whole picture and resized once, not out of what `read` has resized already
            crop = self._cropped(reader, pixels, drawn)
        if self.mirror and drawn[4] < 0.5:
            crop = functional().horizontal_flip(crop)
        if self.color_jitter > 0:
            brightness, contrast, saturation = 1 + self.color_jitter * (2 * drawn[5:8] - 1)
            crop = functional().adjust_brightness(crop, brightness)
            crop = functional().adjust_contrast(crop, contrast)
            crop = functional().adjust_saturation(crop, saturation)
        # copied by numpy: torch would start threads of its own for it, in every thread that reads
        return np.ascontiguousarray(crop.permute(1, 2, 0).numpy())

    def _cropped(self, reader: PictureReader, pixels: torch.Tensor, drawn: np.ndarray) -> torch.Tensor:
        top, left, height, width = self.rectangle(pixels.shape[1], pixels.shape[2], drawn)
        return functional().resized_crop(
            pixels,
            top,
            left,
            height,
            width,
            [reader.image_size, reader.image_size],
            interpolation=interpolation_mode(reader.interpolation),
            antialias=True,
        )

    def rectangle(self, height: int, width: int, drawn: np.ndarray) -> tuple[int, int, int, int]:
        """Return top, left, height and width of the rectangle drawn in a picture of this size, in pixels."""
        scale, (low, high) = self.crop_scale or (1.0, 1.0), np.log(self.crop_ratio)
        area = height * width * (scale[0] + (scale[1] - scale[0]) * drawn[0])
        ratio = np.exp(low + (high - low) * drawn[1])
        crop_height = min(height, max(1, round(float(np.sqrt(area / ratio)))))
        crop_width = min(width, max(1, round(float(np.sqrt(area * ratio)))))
        top, left = int(drawn[2] * (height - crop_height + 1)), int(drawn[3] * (width - crop_width + 1))
        return top, left, crop_height, crop_width
