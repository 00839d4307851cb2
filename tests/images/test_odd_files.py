"""Files that are no pictures, or pictures of a kind that nobody expects."""

import io
import os
import socket
import struct
import zlib

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, ImageFile, features

from sklearn_mm.exceptions import ImageReadError
from sklearn_mm.features import FullNetworkEmbedding, ImageCNNEncoder, MultiScaleCNNEncoder
from sklearn_mm.images import PICTURE_FORMATS, PictureReader

SMALL = PictureReader(image_size=16, resize_size=16)
GENEROUS = PictureReader(image_size=16, resize_size=16, extra_formats=("EPS", "tga", "JPEG2000", "ICO"))
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n%%EndComments\nshowpage\n%%EOF\n"
SCENE = Image.fromarray(np.random.default_rng(0).integers(256, size=(24, 16, 3), dtype=np.uint8))
OTHER_FORMATS = ("TGA", "ICO", "DDS", "PCX", "SGI", "JPEG2000", "PDF")
SPARSE_BYTES = 3 * 2**30


def encoded(image=SCENE, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture
def started(monkeypatch):
    """What Ghostscript would have been started on."""
    files = []

    def ghostscript(tile, size, fp, scale, transparency):
        files.append(fp)
        return Image.new("RGB", size).im

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", ghostscript)
    return files


# Formats --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["read", "check"])
@pytest.mark.parametrize("form", ["path", "bytes", "open file", "PIL image"])
def test_a_postscript_file_called_photo_jpg_starts_no_program(tmp_path, started, form, method):
    path = tmp_path / "photo.jpg"
    path.write_bytes(EPS)
    with path.open("rb") as file, Image.open(io.BytesIO(EPS)) as image:
        source = {"path": path, "bytes": EPS, "open file": file, "PIL image": image}[form]
        with pytest.raises(ImageReadError, match="format that is not opened"):
            getattr(SMALL, method)(source)
        assert started == []
        assert GENEROUS.read(source).shape == (1, 16, 16, 3)
        assert len(started) == 1


def test_a_pil_image_that_its_owner_has_loaded_is_read(started):
    image = Image.open(io.BytesIO(EPS))
    image.load()
    assert len(started) == 1
    assert not SMALL.read(image).any()


@pytest.mark.parametrize("kind", PICTURE_FORMATS)
def test_the_usual_formats_are_read(kind):
    if kind in ("WEBP", "AVIF") and not features.check(kind.lower()):
        pytest.skip(f"this Pillow was built without {kind}")
    content = encoded(kind=kind)
    SMALL.check(content)
    assert SMALL.read(content).shape == (1, 16, 16, 3)


@pytest.mark.parametrize("kind", OTHER_FORMATS)
def test_other_formats_are_refused_and_their_plugins_not_asked(kind, monkeypatch):
    content = encoded(kind=kind)
    asked = []
    opened = Image.OPEN.get(kind)
    if opened is not None:
        monkeypatch.setitem(Image.OPEN, kind, (lambda *args: asked.append(args), opened[1]))
    with pytest.raises(ImageReadError, match="extra_formats"):
        SMALL.read(content)
    assert asked == []


@pytest.mark.parametrize("kind", ["TGA", "JPEG2000", "ICO"])
def test_extra_formats_are_read_beside_the_usual(kind, tmp_path):
    path = tmp_path / "picture"
    path.write_bytes(encoded(kind=kind))
    with Image.open(path) as image:
        np.testing.assert_array_equal(GENEROUS.read(path), GENEROUS.read(image.convert("RGB")))
    assert GENEROUS.read(encoded()).any()


def test_of_several_pictures_in_a_file_the_first_is_read():
    content = encoded(kind="MPO", save_all=True, append_images=[SCENE.rotate(180)])
    assert Image.open(io.BytesIO(content)).format == "MPO"
    np.testing.assert_array_equal(SMALL.read(content), SMALL.read(Image.open(io.BytesIO(content))))
    first = np.asarray(SCENE).astype(int)
    assert np.abs(SMALL.decode(content) - first).mean() < np.abs(SMALL.decode(content)[::-1, ::-1] - first).mean()


@pytest.mark.parametrize("make", [FullNetworkEmbedding, ImageCNNEncoder, MultiScaleCNNEncoder])
def test_every_image_encoder_takes_extra_formats(make):
    encoder = make("resnet18", weights=None, image_size=32, batch_size=2)
    rows = [encoded(kind="TGA"), encoded(), encoded(kind="JPEG2000")]
    with pytest.raises(ImageReadError, match="row 0 .*row 2 .*extra_formats"):
        encoder.fit([SCENE, SCENE]).transform(rows)
    encoder.set_params(extra_formats=["TGA", "JPEG2000"])
    assert len(encoder.transform(rows)) == 3
    with pytest.raises(ValueError, match="'TGI', which Pillow cannot open; did you mean"):
        encoder.set_params(extra_formats=["TGI"]).fit([SCENE, SCENE])
    with pytest.raises(ValueError, match="extra_formats"):
        encoder.set_params(extra_formats="TGA").fit([SCENE, SCENE])


# What a path leads to -------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes among its files")
@pytest.mark.parametrize("method", ["read", "check", "digest"])
def test_pipes_sockets_and_devices_are_refused_without_being_opened(tmp_path, method):
    pipe = tmp_path / "pipe.jpg"
    os.mkfifo(pipe)
    place = str(tmp_path / "s.jpg")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(place)
        for source in (pipe, place, "/dev/zero"):
            with pytest.raises(ImageReadError, match="no regular file"):
                getattr(SMALL, method)(source)


@pytest.mark.parametrize("method", ["read", "check", "digest"])
def test_a_huge_file_is_refused_without_being_read(tmp_path, method):
    path = tmp_path / "video.jpg"
    with path.open("wb") as file:
        file.write(encoded(kind="JPEG"))
        file.truncate(SPARSE_BYTES)
    with pytest.raises(ImageReadError, match=f"a file of {SPARSE_BYTES} bytes"):
        getattr(SMALL, method)(path)
    with path.open("rb") as file, pytest.raises(ImageReadError, match=f"a file of {SPARSE_BYTES} bytes"):
        getattr(SMALL, method)(file)


def test_a_file_is_read_only_if_it_begins_as_a_picture(tmp_path, monkeypatch):
    path = tmp_path / "dump.jpg"
    path.write_bytes(bytes(2**20))
    n_bytes = []
    monkeypatch.setattr(
        "sklearn_mm.images._reading.open",
        lambda *args: _Counting(open(*args), n_bytes),  # noqa: PTH123, SIM115
        raising=False,
    )
    with pytest.raises(ImageReadError, match="not a picture"):
        SMALL.read(path)
    assert sum(n_bytes) <= 16


class _Counting:
    def __init__(self, file, n_bytes):
        self.file, self.n_bytes = file, n_bytes

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()

    def read(self, *args):
        content = self.file.read(*args)
        self.n_bytes.append(len(content))
        return content

    def seek(self, *args):
        return self.file.seek(*args)


@pytest.mark.parametrize("method", ["read", "check", "digest"])
@pytest.mark.parametrize("path", ["a\0b.jpg", "a\ud800.jpg", "x" * 5000, "i/VBORw0KGgo" * 100_000])
def test_names_that_no_file_can_have_are_errors_of_their_row(path, method):
    with pytest.raises(ImageReadError) as caught:
        getattr(SMALL, method)(path)
    assert len(str(caught.value)) < 300


def test_a_picture_in_base64_is_told_to_be_decoded():
    with pytest.raises(ImageReadError, match="b64decode"):
        SMALL.read("iVBORw0KGgo" * 10_000)


def test_names_in_bytes_and_in_other_encodings_are_read(tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9.png")
    path.write_bytes(encoded())
    (entry,) = os.scandir(os.fsencode(tmp_path))
    for source in (entry, path, str(path)):
        np.testing.assert_array_equal(SMALL.read(source), SMALL.read(SCENE))
        SMALL.check(source)
        assert SMALL.digest(source) == SMALL.digest(encoded())


# What stands in a file ------------------------------------------------------------------------------------------------


def exif_of(orientation, *fields):
    """EXIF of an orientation and of other fields (tag, type, count, 4 bytes)."""
    entries = [(0x0112, 3, 1, struct.pack("<HH", orientation, 0)), *fields]
    body = b"".join(struct.pack("<HHI", *field[:3]) + field[3] for field in sorted(entries))
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries)) + body + bytes(4)


FLOAT_IN_A_SHORT_FIELD = (0x0103, 11, 1, struct.pack("<f", 1.5))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "MPO"])
def test_a_picture_is_turned_upright_whatever_else_its_exif_holds(kind):
    options = {"save_all": True, "append_images": [SCENE]} if kind == "MPO" else {}
    stored = SCENE.transpose(Image.Transpose.ROTATE_90)
    content = encoded(stored, kind, exif=exif_of(6, FLOAT_IN_A_SHORT_FIELD), **options)
    decoded = SMALL.decode(content)
    assert decoded.shape == (24, 16, 3)
    np.testing.assert_array_equal(decoded, np.rot90(np.asarray(Image.open(io.BytesIO(content)).convert("RGB")), k=-1))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", exif_of(6)[:16], exif_of(77)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_picture_whose_exif_cannot_be_read_is_upright(kind, exif):
    content = encoded(kind=kind, exif=exif)
    assert SMALL.decode(content).shape == (24, 16, 3)


@pytest.mark.parametrize("error", [struct.error("4 bytes"), AttributeError("seek"), RuntimeError(""), IndexError(3)])
@pytest.mark.parametrize("where", ["open", "load"])
def test_whatever_a_plugin_raises_is_the_error_of_its_picture(monkeypatch, error, where):
    def broken(*args, **kwargs):
        raise error

    monkeypatch.setattr(*{"open": (Image, "open"), "load": (ImageFile.ImageFile, "load")}[where], broken)
    with pytest.raises(ImageReadError, match=type(error).__name__):
        SMALL.read(encoded())


@pytest.mark.parametrize("error", [MemoryError("no memory"), OSError(24, "Too many open files")])
def test_a_lack_of_memory_or_of_handles_is_no_fault_of_a_picture(monkeypatch, tmp_path, error):
    def broken(*args, **kwargs):
        raise error

    monkeypatch.setattr(ImageFile.ImageFile, "load", broken)
    with pytest.raises(type(error), match=str(error.args[-1])) as caught:
        SMALL.read(encoded())
    assert not isinstance(caught.value, ImageReadError)


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (0, 0)])
def test_a_picture_without_pixels_is_an_error(size):
    with pytest.raises(ImageReadError, match="without pixels"):
        SMALL.read(Image.new("RGB", size))


def test_a_scan_beyond_the_limit_of_pillow_names_the_way_out(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ImageReadError, match="MAX_IMAGE_PIXELS"):
        SMALL.read(encoded())


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_values_of_few_bits_in_a_16_bit_file_are_not_black(bits):
    grey = np.asarray(SCENE.convert("L"))
    largest = 2**bits - 1
    deep = np.rint(grey / 255 * largest).astype(np.uint16)
    deep[0, 0] = largest
    seen = SMALL.decode(encoded(Image.fromarray(deep)))[:, :, 0].astype(int)
    assert np.abs(seen - grey)[1:].max() <= 1


def colours_of_16_bits(pixels):
    """A PNG file of uint16 colours (h, w, 3), which Pillow does not write."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    height, width, _ = pixels.shape
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in pixels)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_colours_of_few_bits_in_a_16_bit_file_are_not_black(bits):
    colours = np.asarray(SCENE)
    deep = np.rint(colours / 255 * (2**bits - 1)).astype(np.uint16)
    deep[0, 0] = 2**bits - 1
    seen = SMALL.decode(colours_of_16_bits(deep)).astype(int)
    assert np.abs(seen - colours)[1:].max() <= 1
    SMALL.check(colours_of_16_bits(deep))


def test_grey_with_alpha_is_laid_on_white_in_every_form():
    grey, alpha = np.full((20, 16), 40, np.uint8), np.zeros((20, 16), np.uint8)
    alpha[:10] = 255
    pair = np.stack([grey, alpha], axis=2)
    image = Image.fromarray(pair)
    assert image.mode == "LA"
    expected = SMALL.read(image.convert("RGBA"))
    for source in (image, image.convert("La"), pair, np.ascontiguousarray(pair.transpose(2, 0, 1)), pair / 255):
        np.testing.assert_array_equal(SMALL.read(source), expected)
    assert expected.max() == 255
    assert expected.min() == 40


# Files that somebody has opened ---------------------------------------------------------------------------------------


def test_an_open_file_is_read_from_its_beginning_and_left_where_it_was(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encoded())
    with path.open("rb") as file:
        for source in (file, io.BytesIO(encoded())):
            source.seek(5)
            for _ in range(2):
                np.testing.assert_array_equal(SMALL.read(source), SMALL.read(SCENE))
            SMALL.check(source)
            assert SMALL.digest(source) == SMALL.digest(encoded())
            assert source.tell() == 5


def test_text_files_and_streams_are_errors(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("text")
    reading, writing = os.pipe()
    with path.open() as text, pytest.raises(ImageReadError, match="opened as text"):
        SMALL.read(text)
    with os.fdopen(reading, "rb") as stream, os.fdopen(writing, "wb"), pytest.raises(ImageReadError, match="once"):
        SMALL.read(stream)
