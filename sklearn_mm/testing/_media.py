"""Drawn pictures and sentences for the checks, and the forms in which users hold them."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image

from sklearn_mm.datasets import make_captioned_shapes

__all__ = ["as_objects", "draw_media", "image_forms", "picture_modes", "series", "text_forms"]

_N_SAMPLES = 18
_IMAGE_SIZE = 32
_EXIF_ORIENTATION = 0x0112


def draw_media() -> tuple[list[Image.Image], list[list[str]]]:
    """Draw eighteen pictures of 32 pixels; every third has one caption, the others two."""
    drawn = make_captioned_shapes(_N_SAMPLES, image_size=_IMAGE_SIZE, captions_per_image=2, random_state=0)
    images = [Image.fromarray(pixels) for pixels in drawn.images]
    captions = [list(own[: 1 if row % 3 == 0 else 2]) for row, own in enumerate(drawn.captions)]
    return images, captions


@contextmanager
def image_forms(images: list[Image.Image]) -> Iterator[dict[str, Any]]:
    """Hold the same pictures in every usual form; the files live as long as the context."""
    with TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{row:03d}.png" for row in range(len(images))]
        for image, path in zip(images, paths, strict=True):
            image.save(path)
        pixels = [np.asarray(image.convert("RGB")) for image in images]
        forms: dict[str, Any] = {
            "a list of paths": paths,
            "a list of paths as str": [str(path) for path in paths],
            "a list of the bytes of files": [path.read_bytes() for path in paths],
            "a list of arrays": pixels,
            "an object array of PIL images": as_objects(images),
            "an object array of paths": as_objects(paths),
            "a str array of paths": np.array([str(path) for path in paths]),
        }
        if len({array.shape for array in pixels}) == 1:
            forms["a uint8 array"] = np.stack(pixels)
        for what, held in (("PIL images", images), ("paths", [str(path) for path in paths])):
            column = series(held)
            if column is not None:
                forms[f"a pandas Series of {what}"] = column
        yield forms


def text_forms(texts: list[str]) -> dict[str, Any]:
    """Hold the same texts in every usual form."""
    forms: dict[str, Any] = {
        "a tuple": tuple(texts),
        "a str array": np.array(texts),
        "an object array": as_objects(texts),
    }
    column = series(texts)
    if column is not None:
        forms["a pandas Series"] = column
    return forms


def series(rows: list[Any]) -> Any:
    """Hold rows in a pandas Series with an index that does not start at 0; None without pandas."""
    # pandas is optional: without it its forms are not checked.
    try:
        import pandas as pd
    except ImportError:
        return None
    return pd.Series(rows, index=range(100, 100 + len(rows)))


def as_objects(rows: list[Any]) -> np.ndarray:
    """Hold rows in an object array of one dimension."""
    held = np.empty(len(rows), dtype=object)
    # Not np.array(rows, dtype=object): captions and pictures of one size would become a matrix.
    held[:] = rows
    return held


def picture_modes(image: Image.Image) -> dict[str, Any]:
    """Return one picture in the modes and shapes that a folder of photos has."""
    turned = io.BytesIO()
    exif = Image.Exif()
    exif[_EXIF_ORIENTATION] = 6  # to be shown by a quarter turn clockwise
    image.convert("RGB").save(turned, format="JPEG", exif=exif.tobytes())
    grey = np.asarray(image.convert("L"))
    modes = {mode: image.convert(mode) for mode in ("L", "LA", "P", "RGBA", "CMYK", "1")}
    return {
        **modes,
        "16 bits": Image.fromarray(grey.astype(np.uint16) * 257),  # 255 becomes 65,535
        "tall": image.resize((20, 90)),
        "wide": image.resize((90, 20)),
        "large": image.resize((300, 200)),
        "one pixel": image.resize((1, 1)),
        "turned by EXIF": turned.getvalue(),
    }
