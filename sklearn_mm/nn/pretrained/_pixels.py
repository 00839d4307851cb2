"""What an image model wants to see, as its own files say."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sklearn_mm.exceptions import WeightsError
from sklearn_mm.nn.families import PixelConvention
from sklearn_mm.nn.pretrained._files import read_json

__all__ = ["open_clip_pixels", "timm_pixels", "transformers_pixels"]

_RESAMPLE = {2: "bilinear", 3: "bicubic"}  # by Pillow's numbers
_OPENAI = {"mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711)}
_SMALL_CONVNEXT = 384  # below it their pictures are cut, from it on they are squashed


def transformers_pixels(folder: Path) -> PixelConvention:
    """Read the pixels of a model of transformers from its preprocessor_config.json.

    Raises
    ------
    WeightsError
        There is none, or it asks for what cannot be done.
    """
    # newer folders hold one file of both sides
    own = read_json(folder / "preprocessor_config.json") or read_json(folder / "processor_config.json", {}).get(
        "image_processor"
    )
    if not own:
        raise WeightsError(
            f"{str(folder)!r} does not say what its model wants to see (preprocessor_config.json); save its processor "
            "beside the model"
        )
    interpolation = _RESAMPLE.get(own.get("resample", 3))
    if interpolation is None:
        raise WeightsError(f"{str(folder)!r} resizes pictures by resample={own['resample']}; 2 and 3 are known")
    if not own.get("do_resize", True) or not own.get("do_rescale", True) or own.get("do_pad"):
        raise WeightsError(f"{str(folder)!r} takes pictures in a way that is not known: {dict(own)}")
    side, mode, resize = _sides(own, folder)
    if not own.get("do_normalize", True):
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    else:
        mean, std = (_three(own[name]) for name in ("image_mean", "image_std"))
    return PixelConvention(mean, std, side, resize, interpolation, mode, rounds_down=True)


def _sides(own: Mapping[str, Any], folder: Path) -> tuple[int, str, int]:
    """Return the side of the square, and how and to which length pictures are resized before."""
    size = own.get("size", {"shortest_edge": 224})
    crops = bool(own.get("do_center_crop", own.get("crop_size") is not None))
    cut = own.get("crop_size", size)
    cut = cut["height"] if isinstance(cut, Mapping) and "height" in cut else cut
    if isinstance(size, Mapping) and "height" in size:
        if size["height"] != size["width"]:
            raise WeightsError(f"{str(folder)!r} resizes pictures to {dict(size)}; squares alone are known")
        return (int(cut) if crops else int(size["height"])), "squash", int(size["height"])
    shortest = int(size["shortest_edge"] if isinstance(size, Mapping) else size)
    if "crop_pct" in own:  # ConvNeXt's
        if shortest >= _SMALL_CONVNEXT:
            return shortest, "squash", shortest
        return shortest, "shortest", int(shortest / (own["crop_pct"] or 224 / 256))
    if crops:
        return (int(cut) if isinstance(cut, int) else shortest), "shortest", shortest
    if isinstance(size, int):  # an old file's way to write a square
        return shortest, "squash", shortest
    raise WeightsError(f"{str(folder)!r} resizes pictures by one side, and cuts no square out of them")


def open_clip_pixels(own: Mapping[str, Any], image_size: Any, folder: Path) -> PixelConvention:
    """Return the pixels of a model of open_clip, of ``preprocess_cfg`` in its configuration.

    Raises
    ------
    WeightsError
        It asks for what cannot be done.
    """
    side = image_size[0] if isinstance(image_size, list | tuple) else image_size
    mode = own.get("resize_mode") or "shortest"
    if mode not in ("shortest", "squash") or (isinstance(image_size, list | tuple) and len(set(image_size)) > 1):
        raise WeightsError(f"{str(folder)!r} resizes pictures to {image_size} by {mode!r}, which is not known")
    mean, std = (_three(own.get(name) or _OPENAI[name]) for name in ("mean", "std"))
    # "random" is one of training, and bicubic otherwise
    interpolation = "bilinear" if own.get("interpolation") == "bilinear" else "bicubic"
    return PixelConvention(mean, std, int(side), int(side), interpolation, mode)


def timm_pixels(own: Mapping[str, Any]) -> PixelConvention:
    """Return the pixels of a model of timm, of what ``timm.data.resolve_data_config`` gives."""
    side = own["input_size"][-1]
    squashes = own.get("crop_mode") == "squash"
    return PixelConvention(
        tuple(own["mean"]),
        tuple(own["std"]),
        side,
        int(side / own["crop_pct"]),  # rounded down, as timm's own evaluation does
        own["interpolation"] if own["interpolation"] in ("bilinear", "bicubic") else "bicubic",
        "squash" if squashes else "shortest",
    )


def _three(value: Any) -> tuple[float, float, float]:
    first, second, third = value if isinstance(value, list | tuple) else (value,) * 3
    return float(first), float(second), float(third)
