"""Pictures as the displays show them: small squares."""

from typing import Any

import numpy as np

from sklearn_mm.exceptions import ImageReadError
from sklearn_mm.images import PictureReader, Pictures, describe

__all__ = ["read_pictures"]

_PICTURE_PX = 224


def read_pictures(images: Any, rows: np.ndarray) -> dict[int, np.ndarray]:
    """Read the pictures of some rows as squares (_PICTURE_PX, _PICTURE_PX, 3)."""
    pictures = Pictures(images)
    reader = PictureReader(image_size=_PICTURE_PX, resize_size=_PICTURE_PX)
    read = {}
    for row in rows.tolist():
        try:
            read[row] = reader.read(pictures[row])[0]
        except ImageReadError as error:
            raise ImageReadError(f"row {row} of images ({describe(pictures[row])}): {error}") from error
    return read
