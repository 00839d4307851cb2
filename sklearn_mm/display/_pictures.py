"""Pictures as the displays show them: small squares."""

from typing import Any

import numpy as np

from sklearn_mm.exceptions import ImageReadError
from sklearn_mm.images import PictureReader, Pictures, ReadFailure, describe

__all__ = ["read_pictures"]

_PICTURE_PX = 224


def read_pictures(images: Any, rows: np.ndarray) -> dict[int, np.ndarray]:
    """Read the pictures of some rows as squares (_PICTURE_PX, _PICTURE_PX, 3)."""
    pictures = Pictures(images)
    reader = PictureReader(image_size=_PICTURE_PX, resize_size=_PICTURE_PX)
    read = {}
    for row in rows.tolist():
        source = pictures.fetch(row)
        if isinstance(source, ReadFailure):
            raise ImageReadError(f"row {row} of images ({source.source}): {source.reason}")
        try:
            read[row] = reader.read(source)[0]
        except ImageReadError as error:
            raise ImageReadError(f"row {row} of images ({describe(source)}): {error}") from error
    return read
