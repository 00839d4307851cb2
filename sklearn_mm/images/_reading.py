"""Pictures of every kind become 8-bit RGB, upright, and then the crops that a network looks at."""

import errno
import hashlib
import io
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import numpy as np
import torch

# each registers its format with Pillow, which would otherwise load the plugins of all formats to find one of these
from PIL import (  # noqa: F401
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from sklearn_mm._checks import did_you_mean
from sklearn_mm.exceptions import ImageReadError
from sklearn_mm.images._known_digests import KnownDigests
from sklearn_mm.images._transforms import functional, interpolation_mode

__all__ = ["PICTURE_FORMATS", "PictureReader", "check_formats", "describe", "is_its_own", "is_open_file", "reason_for"]

# What people have. Pillow knows more than forty formats: the plugin of EPS starts Ghostscript, whatever the file is
# called, and those of rare formats are where most of its security faults were found.
PICTURE_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "PPM", "WEBP", "TIFF", "AVIF")
_SHARED_PLUGINS = {"MPO": "JPEG"}  # no format of its own to Pillow: its first picture is a JPEG
_MOST_BYTES = 2**30  # of a file; the largest picture that Pillow opens takes 0.5 GB without any compression
_PREFIX = 16  # bytes by which Pillow tells formats apart
_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_SHOWN_SOURCE, _SHOWN_REASON = 300, 500  # characters in a message
_ORIENTATION = 0x0112  # the tag of EXIF
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_LARGEST_GREY = (255, 4095, 65535)  # of 8, 12 and 16 bits
_CHANNELS = (1, 3, 4)
_WITH_ALPHA = (2, 4)  # channels: of grey, of colours
_NUMPY_HAS = (torch.uint8, torch.float32)  # of the dtypes of tensors, those that pictures mostly have
_WHITE = (255, 255, 255, 255)
_TEN_CROPS_MARGIN = 256 / 224  # room around the square that ten different crops need at least
_REDUCIBLE = 4  # a JPEG this many times larger than needed is decoded at a fraction of its size
_LONGEST = 8  # times the shorter side: what sticks out further is cut before resizing
# one image may stand in several rows, and Pillow cannot load it from two threads at once
_LOADING = tuple(Lock() for _ in range(64))
_KNOWN = KnownDigests(2**16)  # of the pixels that were hashed by this process


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
    crops : {"center", "mirrored", "ten"}, default="center"
        The centre; the centre and its mirror image; or the corners and the centre, and these mirrored. A picture that
        has exactly the square's size is its own centre and is not resized.
    extra_formats : sequence of str, default=()
        Formats that files may have beside `PICTURE_FORMATS`, by Pillow's names.
    resize_mode : {"shortest", "squash"}, default="shortest"
        Resize by the shorter side, or both sides to `resize_size`.
    rounds_down : bool, default=False
        Where the centre lies between two pixels, take the upper or left one; otherwise as torchvision rounds.
    keeps_squares : bool, default=True
        Take a picture that has exactly the square's size as it is, without the margin that resizing would cut off.

    Notes
    -----
    A picture is a path (str or Path), the bytes of a file, a file open for reading bytes (such as a BytesIO), a PIL
    image, or an array or tensor of shape (h, w), (h, w, c) or (c, h, w) with 1 to 4 channels (the second of two and
    the last of four are alpha), uint8 in 0..255 or float in [0, 1], which is rounded to 8 bits. Where both readings of
    the shape are possible, arrays are (h, w, c) and tensors (c, h, w).
    Files and PIL images are turned upright by their EXIF orientation, where it can be read; transparency is laid on
    white; of an animation, and of a file of several pictures, the first is read (of a PIL image its current one);
    16 bits are reduced to 8, and values that all fit into 8 or 12 bits are taken for such.

    A path leads to a regular file of at most 1 GiB, which is read only if it begins as one of the formats does.
    Whatever goes wrong with one picture is an ImageReadError; a lack of memory or of file handles is not its fault,
    and is raised as it is.

    A JPEG file whose shorter side is at least four times `resize_size` is decoded at a fraction of its size
    that is still at least twice `resize_size`: several times faster, 0.2 grey levels different in the mean.
    """

    image_size: int
    resize_size: int
    interpolation: str = "bilinear"
    crops: str = "center"
    # not in the repr: the address of a cached vector is what decides on it, and how a file is opened does not
    extra_formats: Sequence[str] = field(default=(), repr=False)
    # nor these, which no reader of cached vectors has other than by default
    resize_mode: str = field(default="shortest", repr=False)
    rounds_down: bool = field(default=False, repr=False)
    keeps_squares: bool = field(default=True, repr=False)

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats that files may have."""
        return (*PICTURE_FORMATS, *self.extra_formats)

    def check(self, source: Any) -> None:
        """Look at the header of a file, or the shape and the values of an array, without decoding or resizing.

        Raises
        ------
        ImageReadError
            This is no picture, or the file does not exist; the message does not name the row.
        """
        if isinstance(source, str | os.PathLike):
            with _opened(source) as file:
                _open(file, self.formats)
        elif (content := _content(source, self.formats)) is not None:
            _open(io.BytesIO(content), self.formats)
        elif isinstance(source, Image.Image):
            _check_opened(source, self.formats)
        else:
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
        if self.crops != "ten":
            if not self.keeps_squares or pixels.shape[1:] != (side, side):
                pixels = self._centre(self._resize(pixels, self.resize_size))
            crops = [pixels, functional().horizontal_flip(pixels)] if self.crops == "mirrored" else [pixels]
        else:
            resize_size = max(self.resize_size, round(side * _TEN_CROPS_MARGIN))
            crops = functional().ten_crop(self._resize(pixels, resize_size), [side, side])
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
            # piece by piece: whether it is a picture is for whoever decodes it to say, and it may be large
            with _opened(source, buffering=0) as file:
                return hashlib.file_digest(file, "sha256").digest()
        content = _content(source, self.formats)
        if content is not None:
            return hashlib.sha256(content).digest()
        if (plain := _plain_pixels(source)) is None:
            return _pixel_digest(self.decode(source))
        kind = (isinstance(source, torch.Tensor), plain.dtype.str, plain.shape)
        return _KNOWN.digest(kind, plain, lambda: _pixel_digest(self.decode(source)))

    def _centre(self, pixels: torch.Tensor) -> torch.Tensor:
        side = self.image_size
        if not self.rounds_down:
            return functional().center_crop(pixels, [side, side])
        height, width = pixels.shape[1:]
        return functional().crop(pixels, (height - side) // 2, (width - side) // 2, side, side)

    def _resize(self, pixels: torch.Tensor, resize_size: int) -> torch.Tensor:
        if self.resize_mode == "squash":
            both = [resize_size, resize_size]
            return functional().resize(
                pixels, both, interpolation=interpolation_mode(self.interpolation), antialias=True
            )
        height, width = pixels.shape[1:]
        longest = _LONGEST * min(height, width)
        # resized as a whole, a strip one pixel wide would fill the memory, only for its middle to be cut out
        if max(height, width) > longest:
            pixels = functional().center_crop(pixels, [min(height, longest), min(width, longest)])
        mode = interpolation_mode(self.interpolation)
        return functional().resize(pixels, [resize_size], interpolation=mode, antialias=True)

    def decode(self, source: Any) -> np.ndarray:
        """Return the pixels of a picture, upright: (h, w, 3), uint8.

        Raises
        ------
        ImageReadError
            As in `read`.
        """
        content = _content(source, self.formats)
        if content is not None:
            return self._decode_file(content)
        if isinstance(source, Image.Image):
            _check_opened(source, self.formats)
            return _rgb_pixels(source)
        return _array_pixels(source)

    def _decode_file(self, content: bytes | bytearray | memoryview) -> np.ndarray:
        image: Any = _open(io.BytesIO(content), self.formats)
        if image.format == "JPEG" and min(image.size) >= _REDUCIBLE * self.resize_size:
            # None keeps the mode; twice the size leaves the antialiased resizing something to average over
            image.draft(None, (2 * self.resize_size, 2 * self.resize_size))
        has_deep_colours = image.format == "PNG" and [tile[3] for tile in image.tile] == ["RGB;16B"]
        pixels = _rgb_pixels(image)
        if has_deep_colours and pixels.max() < 16:  # of 12 bits or fewer, of which Pillow keeps the upper byte of 16
            low: Any = _open(io.BytesIO(content), self.formats)
            low.tile = [tile._replace(args="RGB;16L") for tile in low.tile]  # the other byte of each value
            deep = 256 * pixels.astype(np.uint16) + _rgb_pixels(low)
            return _deep_to_8_bits(deep)
        return pixels


def check_formats(extra_formats: Any) -> None:
    """Check names of formats to open beside the usual ones.

    Raises
    ------
    TypeError
        They are no sequence of str.
    ValueError
        Pillow can open no format of that name.
    """
    if isinstance(extra_formats, str) or not all(isinstance(name, str) for name in extra_formats):
        raise TypeError(f"extra_formats must be a sequence of names of formats, got {extra_formats!r:.60}")
    if extra_formats:
        Image.init()  # all plugins are loaded by it alone
    for name in extra_formats:
        if name.upper() not in Image.OPEN:
            raise ValueError(f"extra_formats has {name!r}, which Pillow cannot open; {did_you_mean(name, Image.OPEN)}")


def describe(source: Any) -> str:
    """Return what to call a picture in a message: its path, or what it is."""
    if isinstance(source, str | os.PathLike):
        return _shortened(repr(os.fspath(source)), _SHOWN_SOURCE)
    if isinstance(source, bytes | bytearray | memoryview):
        return f"{len(source)} bytes"
    if is_open_file(source):
        return f"{type(source).__name__} {getattr(source, 'name', '')!r:.60}"
    if isinstance(source, Image.Image):
        return f"PIL image of {source.width}x{source.height}, mode {source.mode}"
    shape = getattr(source, "shape", None)
    if shape is not None:
        return f"{type(source).__name__} of shape {tuple(shape)}"
    return f"{type(source).__name__}: {source!r:.60}"


def _shortened(text: str, most: int) -> str:
    """Return a text, or its beginning and its end where it has more than so many characters."""
    return text if len(text) <= most else f"{text[: most // 2]}...{text[-most // 4 :]} ({len(text)} characters)"


def reason_for(error: BaseException) -> str:
    """Return why a picture could not be read, for a user."""
    if isinstance(error, FileNotFoundError):
        name = error.filename
        is_relative = isinstance(name, str) and name and not os.path.isabs(name)  # noqa: PTH117  it may be odd
        return f"no such file, looked for from {os.getcwd()}" if is_relative else "no such file"  # noqa: PTH109
    if isinstance(error, IsADirectoryError):
        return "this is a folder, not a picture"
    if isinstance(error, UnidentifiedImageError):
        return _not_opened(PICTURE_FORMATS)
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return "too long for a path; of a picture in base64, pass the bytes: base64.b64decode(...)"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, Image.DecompressionBombError):
        return f"{error}; make it smaller, or set PIL.Image.MAX_IMAGE_PIXELS higher if you trust the file"
    text = _shortened(str(error), _SHOWN_REASON)
    if not text:
        return type(error).__name__
    # of errors that are not about values the words alone say little: "'NoneType' object has no attribute 'seek'"
    return text if isinstance(error, OSError | ValueError | SyntaxError) else f"{type(error).__name__}: {text}"


def is_its_own(error: BaseException) -> bool:
    """Whether an error in reading a picture is the picture's own fault, and not a lack of memory or of handles."""
    return not isinstance(error, MemoryError) and getattr(error, "errno", None) not in _SHORTAGES


@contextmanager
def _own_errors() -> Iterator[None]:
    """Turn whatever goes wrong with one picture into an ImageReadError."""
    try:
        yield
    except ImageReadError:
        raise
    except Exception as error:  # broken files meet all kinds of errors in Pillow, AttributeError and struct.error too
        if not is_its_own(error):
            raise
        raise ImageReadError(reason_for(error)) from error


@contextmanager
def _opened(path: str | os.PathLike[str], buffering: int = -1) -> Iterator[Any]:
    """Open a regular file of no absurd size; nothing else is opened, as a pipe would wait for somebody to write."""
    with _own_errors():
        name = os.fspath(path)
        found = os.stat(name)  # noqa: PTH116  a path may be bytes
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(found.st_mode):
            raise ImageReadError("this is no regular file but a pipe, a socket or a device")
        if found.st_size > _MOST_BYTES:
            raise ImageReadError(f"a file of {found.st_size} bytes; pictures of at most {_MOST_BYTES} are read")
        with open(name, "rb", buffering) as file:  # noqa: PTH123  as above
            yield file


def is_open_file(source: Any) -> bool:
    """Whether this is a file that somebody has opened."""
    return callable(getattr(source, "read", None))


def _content(source: Any, formats: Sequence[str]) -> bytes | bytearray | memoryview | None:
    """Return the bytes of a file that is there by its path, its content or opened; None for any other picture."""
    if isinstance(source, bytes | bytearray | memoryview):
        return source
    if isinstance(source, str | os.PathLike):
        return _read_bytes(source, formats)
    return _read_open_file(source, formats) if is_open_file(source) else None


def _read_open_file(file: Any, formats: Sequence[str]) -> bytes:
    """Read a file that somebody has opened, from its beginning; it is left where it was."""
    # one file may stand in several rows, and has one place where it is read
    with _own_errors(), _LOADING[id(file) % len(_LOADING)]:
        if isinstance(file, io.TextIOBase):
            raise ImageReadError("a file opened as text; open it with mode 'rb', or pass its path")
        if not file.seekable():
            raise ImageReadError("a stream that can be read once only; pass what it holds as bytes")
        place = file.tell()
        try:
            file.seek(0)
            if not _may_be_picture(file.read(_PREFIX), formats):
                raise ImageReadError(_not_opened(formats))
            file.seek(0, os.SEEK_END)
            if file.tell() > _MOST_BYTES:
                raise ImageReadError(f"a file of {file.tell()} bytes; pictures of at most {_MOST_BYTES} are read")
            file.seek(0)
            content: bytes = file.read()
            return content
        finally:
            file.seek(place)


def _read_bytes(path: str | os.PathLike[str], formats: Sequence[str]) -> bytes:
    """Read a file that begins as a picture does."""
    with _opened(path, buffering=0) as file:
        if not _may_be_picture(file.read(_PREFIX), formats):
            raise ImageReadError(_not_opened(formats))
        file.seek(0)
        content: bytes = file.read()
        return content


def _may_be_picture(prefix: bytes, formats: Sequence[str]) -> bool:
    for name in map(str.upper, formats):
        if name not in Image.OPEN:
            Image.init()  # loads the plugins of all formats
        accept = Image.OPEN[name][1]
        if accept is None or accept(prefix):
            return True
    return False


def _not_opened(formats: Sequence[str]) -> str:
    return f"not a picture, or of a format that is not opened ({', '.join(formats)} are; extra_formats names more)"


def _open(file: Any, formats: Sequence[str]) -> Image.Image:
    """Read the header of a file, which names the size."""
    with _own_errors():
        try:
            return Image.open(file, formats=tuple(formats))
        except UnidentifiedImageError as error:
            raise ImageReadError(_not_opened(formats)) from error


def _check_opened(image: Image.Image, formats: Sequence[str]) -> None:
    """Check the format of a PIL image whose file has not been read yet: reading it is what runs a plugin."""
    is_unread = isinstance(image, ImageFile.StubImageFile) or bool(getattr(image, "tile", None))
    name = _SHARED_PLUGINS.get(str(image.format), image.format)
    if is_unread and name is not None and name not in map(str.upper, formats):
        raise ImageReadError(
            f"a PIL image whose {image.format} file is still unread, a format that is not opened "
            f"({', '.join(formats)} are); call its load() first if you trust it, or name the format in extra_formats"
        )


def _rgb_pixels(image: Image.Image) -> np.ndarray:
    with _own_errors():
        with _LOADING[id(image) % len(_LOADING)]:
            image.load()
            turn = _turn_of(image)
        upright = image if turn is None else image.transpose(turn)
        # a copy: pixels of a PIL image are read-only, and torch wants to be able to write
        pixels = np.array(_to_rgb(upright))
        if not pixels.size:
            raise ImageReadError(f"a picture without pixels, of {image.width}x{image.height}")
        return pixels


def _turn_of(image: Image.Image) -> Image.Transpose | None:
    """Return how an image is turned upright; where its orientation cannot be read, it is upright."""
    # not ImageOps.exif_transpose: it writes all of EXIF anew, and fails for any field that was written wrongly
    try:
        orientation: Any = image.getexif().get(_ORIENTATION)
        return _TURNS.get(orientation)
    except MemoryError:
        raise
    except Exception:  # EXIF is written by programs of all kinds, and Pillow parses it as it comes
        return None


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):
        # Pillow's own conversion cuts at 255: a picture of 16 bits would be white
        return Image.fromarray(_deep_to_8_bits(np.asarray(image))).convert("RGB")
    if image.mode == "La":
        image = image.convert("LA")  # the only mode that Pillow converts it to
    if image.has_transparency_data:
        # convert("RGB") alone would show whatever colour stands under transparent pixels
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, _WHITE), image).convert("RGB")
    return image.convert("RGB")


def _deep_to_8_bits(grey: np.ndarray) -> np.ndarray:
    """Reduce values of 16 bits, or floats in [0, 1], to 8 bits.

    Cameras and microscopes write values of 8 or 12 bits into 16 as they are; taken for 16 bits they would be black.
    """
    if grey.dtype.kind == "f":
        _check_float_range(grey)
        return np.rint(grey * 255).astype(np.uint8)
    if grey.min() < 0 or grey.max() > _LARGEST_GREY[-1]:
        raise ImageReadError(f"expected grey values of 16 bits, got values from {grey.min()} to {grey.max()}")
    largest = next(largest for largest in _LARGEST_GREY if grey.max() <= largest)
    return np.rint(grey / (largest / 255)).astype(np.uint8)


def _check_float_range(pixels: np.ndarray) -> None:
    low, high = pixels.min(), pixels.max()
    if not (low >= 0 and high <= 1):  # NaN fails too
        raise ImageReadError(
            f"expected float pixels in [0, 1], got values from {low:.4g} to {high:.4g}; "
            "divide by the largest possible value, or pass uint8"
        )


def _plain_pixels(source: Any) -> np.ndarray | None:
    """Return the numbers of an array, or of a tensor on the CPU, where they lie in memory one after the other."""
    if isinstance(source, torch.Tensor):
        is_plain = source.device.type == "cpu" and source.layout == torch.strided and source.dtype in _NUMPY_HAS
        source = source.detach().resolve_neg().numpy() if is_plain else None
    is_plain = isinstance(source, np.ndarray) and source.dtype.kind in "biuf" and source.flags.c_contiguous
    return source if is_plain else None


def _pixel_digest(pixels: np.ndarray) -> bytes:
    # with the shape: the same bytes may be another picture in another shape
    digest = hashlib.sha256(repr(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.digest()


def _as_array(source: Any) -> np.ndarray:
    if isinstance(source, torch.Tensor):
        tensor = source.detach().cpu()
        # numpy has no bfloat16
        return (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    if isinstance(source, Mapping):
        names = _shortened(", ".join(map(repr, source)), _SHOWN_REASON)
        raise ImageReadError(f"expected a picture, got a {type(source).__name__} of {names}; pass the pictures alone")
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
    # a picture 3 pixels wide or high fits both: torch puts channels first, everybody else last; two channels are rarer
    # than a picture two pixels wide, and so are looked for last
    order = (0, 2) if is_tensor else (2, 0)
    for known in (_CHANNELS, (2,)):
        for axis in order:
            if pixels.shape[axis] in known:
                return axis
    raise ImageReadError(f"expected pixels with 1 to 4 channels, first or last, got shape {pixels.shape}")


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
    if pixels.shape[2] in _WITH_ALPHA:
        return np.array(_to_rgb(Image.fromarray(np.ascontiguousarray(pixels, dtype=np.uint8))))
    return np.array(pixels, dtype=np.uint8, order="C")  # always a copy: torch wants to be able to write
