"""Pictures of every kind become 8-bit RGB, upright, and then the crops that a network looks at."""

import hashlib
import io
import os
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from sklearn_mm.exceptions import ImageReadError

__all__ = ["PictureReader", "describe", "reason_for"]

_CHANNELS = (1, 3, 4)
_WHITE = (255, 255, 255, 255)
_TEN_CROPS_MARGIN = 256 / 224  # room around the square that ten different crops need at least
_REDUCIBLE = 4  # a JPEG this many times larger than needed is decoded at a fraction of its size
_LONGEST = 8  # times the shorter side: what sticks out further is cut before resizing
# one image may stand in several rows, and Pillow cannot load it from two threads at once
_LOADING = tuple(Lock() for _ in range(64))
# Pillow tells of broken files by all of these
_PILLOW_ERRORS = (
    # the warning of a decompression bomb is an error only where warnings are errors
    OSError, UnidentifiedImageError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError,
    OverflowError, MemoryError, Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip


@dataclass(frozen=True)
class PictureReader:
    """Reads pictures as a network is to see them.

    Parameters
    ----------
    image_size : int
        Side of the square, in pixels.
    resize_size : int
        Length of the shorter side to which a picture is resized before crops are cut out of it.
    interpolation : {"bilinear", "bicubic"}, default="bilinear"
        How it is resized; always antialiased.
    crops : {"center", "ten"}, default="center"
        The centre; or the corners and the centre, and these mirrored. A picture that has exactly the
        square's size is its own centre and is not resized.

    Notes
    -----
    A picture is a path (str or Path), the bytes of a file, a PIL image, or an array or tensor of shape (h, w),
    (h, w, c) or (c, h, w) with 1, 3 or 4 channels, uint8 in 0..255 or float in [0, 1], which is rounded to 8
    bits. Where both readings of the shape are possible, arrays are (h, w, c) and tensors (c, h, w).
    Files and PIL images are turned upright by their EXIF orientation; transparency is laid on white; of an
    animation the first frame is read (of a PIL image its current one); 16 bits are reduced to 8.
    A JPEG file whose shorter side is at least four times `resize_size` is decoded at a fraction of its size
    that is still at least twice `resize_size`: several times faster, 0.2 grey levels different in the mean.
    """

    image_size: int
    resize_size: int
    interpolation: str = "bilinear"
    crops: str = "center"

    def check(self, source: Any) -> None:
        """Look at the header of a file, or the shape and the values of an array, without decoding or resizing.

        Raises
        ------
        ImageReadError
            This is no picture, or the file does not exist; the message does not name the row.
        """
        if isinstance(source, str | os.PathLike):
            try:
                with Path(source).open("rb") as file:
                    _open(file)
            except OSError as error:
                raise ImageReadError(reason_for(error)) from error
        elif isinstance(source, bytes | bytearray | memoryview):
            _open(io.BytesIO(source))
        elif not isinstance(source, Image.Image):
            _checked_array(source)

    def read(self, source: Any) -> np.ndarray:
        """Return the crops of a picture: (n_crops, image_size, image_size, 3), uint8.

        Raises
        ------
        ImageReadError
            This is no picture, or it cannot be decoded; the message does not name the row.
        """
        pixels = torch.from_numpy(self.decode(source)).permute(2, 0, 1)  # (3, h, w)
        side = self.image_size
        if self.crops == "center":
            # what has exactly the size is taken as it is, without the margin that resizing would cut off
            if pixels.shape[1:] != (side, side):
                pixels = F.center_crop(self._resize(pixels, self.resize_size), [side, side])
            crops = [pixels]
        else:
            resize_size = max(self.resize_size, round(side * _TEN_CROPS_MARGIN))
            crops = F.ten_crop(self._resize(pixels, resize_size), [side, side])
        # copied by numpy: torch would start threads of its own for it, in every thread that reads
        return np.stack([crop.permute(1, 2, 0).numpy() for crop in crops])

    def digest(self, source: Any) -> bytes:
        """Return what tells a picture's content from any other's, 32 bytes.

        A path and the bytes of its file are the same, and so are a PIL image and the array of its pixels.

        Raises
        ------
        ImageReadError
            The file does not exist, or this is no picture.
        """
        if isinstance(source, str | os.PathLike):
            source = _read_bytes(source)
        if isinstance(source, bytes | bytearray | memoryview):
            return hashlib.sha256(source).digest()
        pixels = self.decode(source)
        # with the shape: the same bytes may be another picture in another shape
        return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).digest()

    def _resize(self, pixels: torch.Tensor, resize_size: int) -> torch.Tensor:
        height, width = pixels.shape[1:]
        longest = _LONGEST * min(height, width)
        # resized as a whole, a strip one pixel wide would fill the memory, only for its middle to be cut out
        if max(height, width) > longest:
            pixels = F.center_crop(pixels, [min(height, longest), min(width, longest)])
        mode = InterpolationMode(self.interpolation)
        return F.resize(pixels, [resize_size], interpolation=mode, antialias=True)

    def decode(self, source: Any) -> np.ndarray:
        """Return the pixels of a picture, upright: (h, w, 3), uint8.

        Raises
        ------
        ImageReadError
            As in `read`.
        """
        if isinstance(source, str | os.PathLike):
            source = _read_bytes(source)
        if isinstance(source, bytes | bytearray | memoryview):
            return self._decode_file(bytes(source))
        if isinstance(source, Image.Image):
            return _rgb_pixels(source)
        return _array_pixels(source)

    def _decode_file(self, content: bytes) -> np.ndarray:
        image = _open(io.BytesIO(content))
        if image.format == "JPEG" and min(image.size) >= _REDUCIBLE * self.resize_size:
            # None keeps the mode; twice the size leaves the antialiased resizing something to average over
            image.draft(None, (2 * self.resize_size, 2 * self.resize_size))
        return _rgb_pixels(image)


def describe(source: Any) -> str:
    """Return what to call a picture in a message: its path, or what it is."""
    if isinstance(source, str | os.PathLike):
        return repr(os.fspath(source))
    if isinstance(source, bytes | bytearray | memoryview):
        return f"{len(source)} bytes"
    if isinstance(source, Image.Image):
        return f"PIL image of {source.width}x{source.height}, mode {source.mode}"
    shape = getattr(source, "shape", None)
    if shape is not None:
        return f"{type(source).__name__} of shape {tuple(shape)}"
    return f"{type(source).__name__}: {source!r:.60}"


def reason_for(error: BaseException) -> str:
    """Return why a picture could not be read, for a user."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, IsADirectoryError):
        return "this is a folder, not a picture"
    if isinstance(error, UnidentifiedImageError):
        return "not a picture, or of a kind that Pillow does not know"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def _read_bytes(path: str | os.PathLike[str]) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ImageReadError(reason_for(error)) from error


def _open(file: Any) -> Image.Image:
    """Read the header of a file, which names the size."""
    try:
        return Image.open(file)
    except _PILLOW_ERRORS as error:
        raise ImageReadError(reason_for(error)) from error


def _rgb_pixels(image: Image.Image) -> np.ndarray:
    try:
        with _LOADING[id(image) % len(_LOADING)]:
            image.load()
        # a copy: pixels of a PIL image are read-only, and torch wants to be able to write
        return np.array(_to_rgb(ImageOps.exif_transpose(image)))
    except _PILLOW_ERRORS as error:
        raise ImageReadError(reason_for(error)) from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):
        # Pillow's own conversion cuts at 255: a picture of 16 bits would be white
        return Image.fromarray(_deep_grey_to_8_bits(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        # convert("RGB") alone would show whatever colour stands under transparent pixels
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, _WHITE), image).convert("RGB")
    return image.convert("RGB")


def _deep_grey_to_8_bits(grey: np.ndarray) -> np.ndarray:
    """Reduce grey values of 16 bits, or floats in [0, 1], to 8 bits."""
    if grey.dtype.kind == "f":
        _check_float_range(grey)
        return np.rint(grey * 255).astype(np.uint8)
    if grey.min() < 0 or grey.max() > 65535:
        raise ImageReadError(f"expected grey values of 16 bits, got values from {grey.min()} to {grey.max()}")
    return np.rint(grey / 257).astype(np.uint8)  # 257 = 65535 / 255


def _check_float_range(pixels: np.ndarray) -> None:
    low, high = pixels.min(), pixels.max()
    if not (low >= 0 and high <= 1):  # NaN fails too
        raise ImageReadError(
            f"expected float pixels in [0, 1], got values from {low:.4g} to {high:.4g}; "
            "divide by the largest possible value, or pass uint8"
        )


def _as_array(source: Any) -> np.ndarray:
    if isinstance(source, torch.Tensor):
        tensor = source.detach().cpu()
        # numpy has no bfloat16
        return (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    try:
        array = np.asarray(source)
    except (ValueError, TypeError) as error:
        raise ImageReadError(f"expected pixels, got a {type(source).__name__}: {error}") from error
    if array.dtype.kind not in "biuf":
        raise ImageReadError(
            "expected a path, bytes, a PIL image, or an array of pixels, got "
            f"{type(source).__name__}{f' of dtype {array.dtype}' if isinstance(source, np.ndarray) else ''}"
        )
    return array


def _array_layout(pixels: np.ndarray, is_tensor: bool) -> int:
    """Return the axis of the channels, or -1 if there is none."""
    if 0 in pixels.shape or pixels.ndim not in (2, 3):
        raise ImageReadError(f"expected pixels of shape (h, w), (h, w, c) or (c, h, w), got {pixels.shape}")
    if pixels.ndim == 2:
        return -1
    # a picture 3 pixels wide or high fits both: torch puts channels first, everybody else last
    axes = [axis for axis in ((0, 2) if is_tensor else (2, 0)) if pixels.shape[axis] in _CHANNELS]
    if not axes:
        raise ImageReadError(f"expected pixels with 1, 3 or 4 channels, first or last, got shape {pixels.shape}")
    return axes[0]


def _checked_array(source: Any) -> tuple[np.ndarray, int]:
    """Return pixels of a valid shape and in the range of their type, and the axis of the channels or -1."""
    pixels = _as_array(source)
    channel_axis = _array_layout(pixels, isinstance(source, torch.Tensor))
    if pixels.dtype.kind == "f":
        _check_float_range(pixels)
    elif pixels.dtype != np.uint8 and (pixels.min() < 0 or pixels.max() > 255):
        raise ImageReadError(
            f"expected int pixels in 0..255, got values from {pixels.min()} to {pixels.max()}; "
            "pass uint8, or float in [0, 1]"
        )
    return pixels, channel_axis


def _array_pixels(source: Any) -> np.ndarray:
    pixels, channel_axis = _checked_array(source)
    if channel_axis == 0:
        pixels = pixels.transpose(1, 2, 0)
    if pixels.dtype.kind == "f":
        pixels = np.rint(pixels * pixels.dtype.type(255)).astype(np.uint8)
    elif pixels.dtype.kind == "b":
        pixels = pixels.astype(np.uint8) * np.uint8(255)
    if pixels.ndim == 2 or pixels.shape[2] == 1:
        return np.repeat(pixels.reshape(*pixels.shape[:2], 1), 3, axis=2).astype(np.uint8, copy=False)
    if pixels.shape[2] == 4:
        return np.array(_to_rgb(Image.fromarray(np.ascontiguousarray(pixels, dtype=np.uint8))))
    return np.array(pixels, dtype=np.uint8, order="C")  # always a copy: torch wants to be able to write
