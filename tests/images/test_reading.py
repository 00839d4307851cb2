import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from sklearn_mm.exceptions import ImageReadError
from sklearn_mm.images import PictureReader, describe

SMALL = PictureReader(image_size=32, resize_size=36)


@pytest.fixture(scope="module")
def scene():
    """An upright RGB picture of 60 x 44 pixels with structure in every direction."""
    y, x = np.mgrid[:44, :60]
    red, green = 4 * x, 5 * y
    blue = 128 + 127 * np.sin(x / 3) * np.cos(y / 5)
    return np.stack([red, green, blue], axis=2).astype(np.uint8)


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_every_kind_of_source_gives_the_same_squares(scene, tmp_path):
    image = Image.fromarray(scene)
    path = tmp_path / "scene.png"
    image.save(path)
    channels_first = np.ascontiguousarray(scene.transpose(2, 0, 1))
    alpha = np.full((*scene.shape[:2], 1), 255, dtype=np.uint8)
    sources = [
        path, str(path), path.read_bytes(), bytearray(path.read_bytes()), image, Image.open(path),
        scene, channels_first, scene / 255, (scene / 255).astype(np.float32), scene.astype(np.int64),
        torch.from_numpy(channels_first), torch.from_numpy(channels_first) / 255, torch.from_numpy(scene),
        np.concatenate([scene, alpha], axis=2), scene.tolist(),
    ]  # fmt: skip
    expected = SMALL.read(scene)
    assert expected.shape == (1, 32, 32, 3)
    assert expected.dtype == np.uint8
    for source in sources:
        np.testing.assert_array_equal(SMALL.read(source), expected, err_msg=describe(source))


@pytest.mark.parametrize("kind", ["array", "tensor", "one channel", "PIL", "bool"])
def test_grey_pictures_have_three_equal_channels(scene, kind):
    grey = scene[:, :, 0]
    sources = {
        "array": grey,
        "tensor": torch.from_numpy(grey.copy()),
        "one channel": grey[:, :, None],
        "PIL": Image.fromarray(grey),
        "bool": grey > 100,
    }
    crops = SMALL.read(sources[kind])
    reference = (grey > 100) * np.uint8(255) if kind == "bool" else grey
    np.testing.assert_array_equal(crops, SMALL.read(np.repeat(reference[:, :, None], 3, axis=2)))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LA", "RGBX"])
def test_pil_images_of_every_mode_are_read_as_their_rgb_version(scene, mode):
    image = Image.fromarray(scene).convert("L").convert("LA") if mode == "LA" else Image.fromarray(scene).convert(mode)
    np.testing.assert_array_equal(SMALL.read(image), SMALL.read(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_deep_grey_is_reduced_to_8_bits(scene, mode):
    grey = scene[:, :, 0]
    if mode == "F":
        image = Image.fromarray((grey / 255).astype(np.float32))
    else:
        image = Image.fromarray(grey.astype(np.uint16 if mode == "I;16" else np.int32) * 257)
    assert image.mode == mode
    np.testing.assert_array_equal(SMALL.read(image), SMALL.read(grey))


def test_a_16_bit_png_is_no_white_square(scene):
    grey = scene[:, :, 0].astype(np.uint16) * 257
    np.testing.assert_array_equal(SMALL.read(encoded(Image.fromarray(grey))), SMALL.read(scene[:, :, 0]))


def test_transparency_is_laid_on_white():
    half = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    half.paste((200, 0, 0, 255), (0, 0, 16, 32))
    half.paste((0, 0, 0, 128), (16, 0, 32, 16))
    pixels = SMALL.read(half)[0]
    assert pixels[8, 8].tolist() == [200, 0, 0]
    assert pixels[24, 24].tolist() == [255, 255, 255]
    assert pixels[8, 24].tolist() == [127, 127, 127]
    np.testing.assert_array_equal(SMALL.read(np.asarray(half)), SMALL.read(half))


def test_a_transparent_colour_of_a_palette_is_laid_on_white():
    image = Image.new("P", (32, 32), 0)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.paste(1, (0, 0, 16, 32))
    pixels = SMALL.read(encoded(image, transparency=0))[0]
    assert pixels[5, 5].tolist() == [200, 100, 50]
    assert pixels[5, 25].tolist() == [255, 255, 255]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_exif_orientation_turns_pictures_upright(scene, orientation, kind):
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    stored = Image.fromarray(scene)
    if orientation != 1:
        stored = stored.transpose(turns[orientation])
    exif = Image.Exif()
    exif[0x112] = orientation
    content = encoded(stored, kind, exif=exif, quality=95)
    upright = SMALL.read(scene).astype(int)
    assert np.abs(SMALL.read(content) - upright).mean() < (5 if kind == "JPEG" else 0.5)  # grey levels
    np.testing.assert_array_equal(SMALL.read(Image.open(io.BytesIO(content))), SMALL.read(content))


def test_the_first_frame_of_an_animation_is_read(scene):
    frames = [Image.fromarray(scene), Image.fromarray(255 - scene)]
    content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    first = Image.open(io.BytesIO(content)).convert("RGB")
    np.testing.assert_array_equal(SMALL.read(content), SMALL.read(first))


def test_a_picture_of_exactly_the_size_is_taken_as_it_is(scene):
    square = scene[:32, :32]
    np.testing.assert_array_equal(SMALL.read(square)[0], square)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_other_sizes_are_resized_and_cut_as_torchvision_does(scene, interpolation):
    reader = PictureReader(32, 36, interpolation)
    pixels = torch.from_numpy(scene).permute(2, 0, 1)
    resized = F.resize(pixels, [36], interpolation=InterpolationMode(interpolation), antialias=True)
    expected = F.center_crop(resized, [32, 32]).permute(1, 2, 0)
    np.testing.assert_array_equal(reader.read(scene)[0], expected)
    resized = F.resize(Image.fromarray(scene), [36], interpolation=InterpolationMode(interpolation))
    by_pillow = np.asarray(F.center_crop(resized, [32, 32]))
    assert np.abs(expected.numpy().astype(int) - by_pillow).max() <= 1


def test_ten_crops_are_the_corners_the_centre_and_their_mirror_images(scene):
    scene = scene[:, :44]
    crops = PictureReader(28, 32, crops="ten").read(scene)
    assert crops.shape == (10, 28, 28, 3)
    resized = F.resize(torch.from_numpy(scene).permute(2, 0, 1), [32], antialias=True).permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(crops[0], resized[:28, :28])
    np.testing.assert_array_equal(crops[1], resized[:28, -28:])
    np.testing.assert_array_equal(crops[2], resized[-28:, :28])
    np.testing.assert_array_equal(crops[3], resized[-28:, -28:])
    np.testing.assert_array_equal(crops[4], PictureReader(28, 32).read(scene)[0])
    np.testing.assert_array_equal(crops[5:], crops[[1, 0, 3, 2, 4], :, ::-1])


def test_the_centre_comes_with_its_mirror_image(scene):
    crops = PictureReader(28, 32, crops="mirrored").read(scene)
    assert crops.shape == (2, 28, 28, 3)
    np.testing.assert_array_equal(crops[0], PictureReader(28, 32).read(scene)[0])
    np.testing.assert_array_equal(crops[1], crops[0, :, ::-1])


def test_ten_crops_differ_even_where_the_network_wants_no_margin(scene):
    crops = PictureReader(32, 32, crops="ten").read(scene[:40, :40])
    assert not np.array_equal(crops[0], crops[3])


def test_a_very_long_picture_costs_no_more_than_its_middle():
    strip = np.zeros((2, 30_000, 3), dtype=np.uint8)
    strip[:, 14_990:15_010] = 255
    crops = PictureReader(224, 256).read(strip)  # 256 x 3,840,000 pixels if it were resized whole
    assert crops.shape == (1, 224, 224, 3)
    assert crops.min() == 255


def test_a_large_jpeg_read_at_reduced_size_looks_the_same(scene):
    content = encoded(Image.fromarray(scene).resize((1200, 880), Image.Resampling.BICUBIC), "JPEG", quality=95)
    decoded = np.array(Image.open(io.BytesIO(content)))
    reader = PictureReader(96, 100)
    difference = reader.read(content).astype(int) - reader.read(decoded)
    assert np.abs(difference).mean() < 1
    assert np.abs(difference).max() < 16


def test_what_is_read_is_never_changed(scene):
    image, before = Image.fromarray(scene), scene.copy()
    frozen = scene.copy()
    frozen.setflags(write=False)
    SMALL.read(image)
    SMALL.read(frozen)
    np.testing.assert_array_equal(np.asarray(image), before)


def test_one_lazily_opened_image_may_be_read_from_many_threads(scene):
    content = encoded(Image.fromarray(scene).resize((600, 440)), "PNG")
    expected = SMALL.read(content)
    for _ in range(5):
        image = Image.open(io.BytesIO(content))
        with ThreadPoolExecutor(8) as pool:
            for crops in pool.map(SMALL.read, [image] * 16):
                np.testing.assert_array_equal(crops, expected)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.9])
def test_truncated_files_are_errors(scene, tmp_path, kind, kept):
    content = encoded(Image.fromarray(scene).resize((240, 176)), kind)
    path = tmp_path / "cut"
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(ImageReadError):
        SMALL.read(path)


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", bytes(1000)])
def test_files_that_are_no_pictures_are_errors(content, tmp_path):
    path = tmp_path / "file.jpg"
    path.write_bytes(content)
    for source in (path, content):
        with pytest.raises(ImageReadError, match="picture|truncated|Truncated|broken"):
            SMALL.read(source)
        with pytest.raises(ImageReadError):
            SMALL.check(source)


@pytest.mark.parametrize("method", ["read", "check", "digest"])
def test_missing_files_and_folders_are_named_as_such(tmp_path, method):
    with pytest.raises(ImageReadError, match="no such file"):
        getattr(SMALL, method)(tmp_path / "absent.png")
    with pytest.raises(ImageReadError, match="folder"):
        getattr(SMALL, method)(tmp_path)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_pictures_of_absurd_size_are_errors_before_they_are_decoded(monkeypatch):
    content = encoded(Image.new("RGB", (300, 300)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40_000)
    for method in (SMALL.check, SMALL.read):
        with pytest.raises(ImageReadError, match="90000 pixels"):
            method(content)


BAD_ARRAYS = [
    (np.full((8, 8, 3), np.nan), r"\[0, 1\]"),
    (np.full((8, 8, 3), np.inf), r"\[0, 1\]"),
    (np.full((8, 8, 3), 1.5), "to 1.5"),
    (np.full((8, 8, 3), -0.1), "from -0.1"),
    (np.full((8, 8, 3), 256), "0..255"),
    (np.full((8, 8, 3), -1), "0..255"),
    (np.zeros((8, 8, 5), dtype=np.uint8), "channels"),
    (np.zeros((8, 8, 8, 3), dtype=np.uint8), "shape"),
    (np.zeros((0, 8, 3), dtype=np.uint8), "shape"),
    (np.zeros(8, dtype=np.uint8), "shape"),
    (np.zeros((8, 8, 3), dtype=complex), "complex"),
    (torch.full((3, 8, 8), float("nan")), r"\[0, 1\]"),
    (None, "NoneType"),
    (3, "shape"),
    ({"image": 1}, "dict"),
    ([[1, 2], [3]], "list"),
]


@pytest.mark.parametrize(("source", "message"), BAD_ARRAYS)
def test_what_is_no_array_of_pixels_is_an_error(source, message):
    with pytest.raises(ImageReadError, match=message):
        SMALL.read(source)


def test_looking_at_a_header_does_not_decode(scene, tmp_path):
    content = encoded(Image.fromarray(scene).resize((240, 176)), "PNG")
    SMALL.check(content[: len(content) // 2])
    path = tmp_path / "scene.png"
    path.write_bytes(content)
    for source in (path, Image.fromarray(scene), scene, torch.from_numpy(scene)):
        SMALL.check(source)


def test_the_digest_is_that_of_the_content(scene, tmp_path):
    path = tmp_path / "scene.png"
    image = Image.fromarray(scene)
    image.save(path)
    assert SMALL.digest(path) == SMALL.digest(path.read_bytes())
    assert SMALL.digest(image) == SMALL.digest(scene) == SMALL.digest(scene / 255)
    changed = scene.copy()
    changed[3, 3, 0] ^= 1
    assert SMALL.digest(changed) != SMALL.digest(scene)
    assert SMALL.digest(np.zeros((4, 8), dtype=np.uint8)) != SMALL.digest(np.zeros((8, 4), dtype=np.uint8))


@pytest.mark.parametrize(
    ("source", "shown"),
    [("a/b.png", "'a/b.png'"), (b"abc", "3 bytes"), (Image.new("L", (4, 5)), "4x5"), (np.zeros((2, 3)), "(2, 3)")],
)
def test_sources_are_described_by_what_a_user_knows(source, shown):
    assert shown in describe(source)
