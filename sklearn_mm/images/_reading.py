"""Pictures of every kind become 8-bit RGB, upright."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from sklearn_mm.exceptions import ImageReadError

__all__ = ["cut_crops", "read_rgb"]


def read_rgb(source: Any) -> Image.Image:
    """Return the picture as an RGB PIL image."""
    try:
        if isinstance(source, str | Path):
            with Image.open(source) as image:
                return _upright_rgb(image)
        if isinstance(source, bytes):
            with Image.open(io.BytesIO(source)) as image:
                return _upright_rgb(image)
    except (OSError, UnidentifiedImageError, SyntaxError) as error:
        raise ImageReadError(str(error)) from error
    if isinstance(source, Image.Image):
        return _upright_rgb(source)
    return Image.fromarray(_rgb_array(source))


def _upright_rgb(image: Image.Image) -> Image.Image:
    image = ImageOps.exif_transpose(image)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        canvas = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(canvas, image)
    return image.convert("RGB")


def _rgb_array(source: Any) -> np.ndarray:
    pixels = np.asarray(source)
    if pixels.ndim == 3 and pixels.shape[0] in (1, 3, 4) and pixels.shape[2] not in (1, 3, 4):
        pixels = pixels.transpose(1, 2, 0)
    if pixels.dtype.kind == "f":
        pixels = np.rint(pixels * 255).astype(np.uint8)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)
    return np.ascontiguousarray(pixels[:, :, :3])


def cut_crops(image: Image.Image, image_size: int, resize_size: int, interpolation: str) -> np.ndarray:
    """Resize and cut the centre: uint8 (1, image_size, image_size, 3)."""
    if image.size != (image_size, image_size):
        scale = resize_size / min(image.size)
        size = tuple(max(resize_size, round(side * scale)) for side in image.size)
        resample = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[interpolation]
        image = image.resize(size, resample)
        left, top = ((side - image_size) // 2 for side in image.size)
        image = image.crop((left, top, left + image_size, top + image_size))
    return np.asarray(image)[None]
