"""Checks of transformers of pictures."""

import io
from typing import Any

import numpy as np
from PIL import Image

from sklearn_mm.testing._case import Case, Check, expect, expect_error, expect_near, noted
from sklearn_mm.testing._media import as_objects, image_forms, picture_modes

__all__ = ["IMAGE_CHECKS"]

_BAD_ROW = 7


def check_every_form_of_pictures_is_answered_alike(case: Case) -> None:
    """Pictures may come as PIL images, paths, bytes and arrays, in lists, arrays and Series, in any mix with fit."""
    expected = case.fitted.transform(case.X)
    with image_forms(case.X) as forms:
        for form, held in forms.items():
            with noted(f"transform of {form}"):
                expect_near(case.fitted.transform(held), expected, f"{case.name}.transform of {form}")


def check_every_form_of_pictures_is_fitted_alike(case: Case) -> None:
    """`fit` learns the same from paths, a uint8 array and an object array as from PIL images."""
    expected = case.fitted.transform(case.X)
    with image_forms(case.X) as forms:
        for form in ("a list of paths", "a uint8 array", "an object array of PIL images"):
            # Pictures of one's own may differ in size, and make no array.
            if form in forms:
                with noted(f"fit on {form}"):
                    fitted = case.fresh().fit(forms[form], case.y)
                expect_near(fitted.transform(case.X), expected, f"{case.name} fitted on {form}")


def check_pictures_of_every_mode_and_size_are_embedded(case: Case) -> None:
    """Grey, palette, alpha, CMYK, 16-bit, tiny, tall and turned pictures mix freely in one call."""
    modes = picture_modes(case.X[0])
    for mode, picture in modes.items():
        with noted(f"transform of a picture {mode}"):
            case.fitted.transform([picture])
    embedding = case.fitted.transform(list(modes.values()))
    width = case.fitted.transform(case.X[:1]).shape[1]
    expect(embedding.shape == (len(modes), width), f"{case.name}.transform: shape {embedding.shape}")
    for mode, row in zip(modes, embedding, strict=True):
        expect(bool(np.isfinite(row).all()), f"{case.name}.transform of a picture {mode} is not finite")


def check_pictures_are_turned_upright(case: Case) -> None:
    """A photo turned by its EXIF orientation is embedded as the one turned by hand."""
    turned = picture_modes(case.X[0])["turned by EXIF"]
    with Image.open(io.BytesIO(turned)) as stored:
        # Orientation 6 is shown by a quarter turn clockwise. A copy, as rot90 gives a view with negative strides.
        upright = Image.fromarray(np.rot90(np.asarray(stored.convert("RGB")), k=-1).copy())
    expect_near(
        case.fitted.transform([turned]), case.fitted.transform([upright]), f"{case.name}.transform of a turned photo"
    )


def check_alpha_of_full_strength_changes_nothing(case: Case) -> None:
    """A picture with an opaque alpha channel is embedded as without it."""
    opaque = [image.convert("RGB").convert("RGBA") for image in case.X]
    plain = [image.convert("RGB") for image in case.X]
    expect_near(case.fitted.transform(opaque), case.fitted.transform(plain), f"{case.name}.transform of opaque RGBA")


def check_bad_pictures_are_named_by_their_row(case: Case) -> None:
    """What is no picture is refused with its row: None, numbers, missing files, bytes cut off or of something else."""
    buffer = io.BytesIO()
    case.X[0].save(buffer, format="PNG")
    raw = buffer.getvalue()
    bad: dict[str, Any] = {
        "None": None,
        "a number": 3,
        "a path to nothing": "no/such/picture.png",
        "bytes of no picture": b"no picture at all",
        "a picture cut off": raw[: len(raw) // 2],
        "a dict": {"image": 1},
    }
    for what, picture in bad.items():
        rows = list(case.X)
        rows[_BAD_ROW] = picture
        held = as_objects(rows)
        for form, X in (("list", rows), ("object array", held)):
            place = f"{case.name} given {what} in a {form}"
            # A model that stays as it came learns nothing from pictures, and looks at no more than their headers.
            if what != "a picture cut off" or getattr(case.fitted, "trains", True):
                expect_error(f"fit of {place}", case.fresh().fit, X, case.y, row=_BAD_ROW)
            expect_error(f"transform of {place}", case.fitted.transform, X, row=_BAD_ROW)


def check_one_picture_is_no_sequence(case: Case) -> None:
    """A single picture or path, not wrapped in a list, is refused."""
    for what, X in (("a PIL image", case.X[0]), ("a path", "picture.png"), ("bytes", b"\x89PNG")):
        expect_error(f"{case.name}.fit of {what} alone", case.fresh().fit, X, case.y)
        expect_error(f"{case.name}.transform of {what} alone", case.fitted.transform, X)


IMAGE_CHECKS: tuple[Check, ...] = (
    check_every_form_of_pictures_is_answered_alike,
    check_every_form_of_pictures_is_fitted_alike,
    check_pictures_of_every_mode_and_size_are_embedded,
    check_pictures_are_turned_upright,
    check_alpha_of_full_strength_changes_nothing,
    check_bad_pictures_are_named_by_their_row,
    check_one_picture_is_no_sequence,
)
