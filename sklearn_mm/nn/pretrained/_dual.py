"""Opening the sides of dual encoders, and image models that stand alone."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sklearn_mm.exceptions import WeightsError
from sklearn_mm.nn.families import IMAGENET_PIXELS, PixelConvention
from sklearn_mm.nn.pretrained._dual_tokenizer import DualTokenizer
from sklearn_mm.nn.pretrained._files import find_files, find_model, import_optional, quiet_loading, read_json
from sklearn_mm.nn.pretrained._model import OpenedModel, rebuild
from sklearn_mm.nn.pretrained._pixels import open_clip_pixels, timm_pixels, transformers_pixels
from sklearn_mm.nn.pretrained._sentence import _CODE
from sklearn_mm.nn.pretrained._towers import DUAL_TYPES, clean_open_clip
from sklearn_mm.nn.training_data import data_in_card, training_data
from sklearn_mm.registry import find

__all__ = ["OpenedImageModel", "is_dual_encoder", "open_dual_text", "open_image_model"]

_OPEN_CLIP = "open_clip_config.json"
_OPEN_CLIP_WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "model.safetensors",
    "open_clip_pytorch_model.bin",
    "pytorch_model.bin",
)
_CONTEXT = 77  # tokens, of models of open_clip that name no number
_TIMM = "timm:"
_TIMM_OWN = ("num_classes", "pretrained", "pretrained_cfg", "checkpoint_path", "cache_dir")  # said otherwise
_CAUSAL_POOLS = ("argmax", "eos", "first")  # read at a token before all filling


@dataclass
class OpenedImageModel(OpenedModel):
    """An image model, in evaluation mode, on the CPU.

    Attributes
    ----------
    pixels : PixelConvention
        What it wants to see.
    """

    pixels: PixelConvention = IMAGENET_PIXELS


def is_dual_encoder(folder: Path) -> bool:
    """Return whether a folder holds a dual encoder of transformers or open_clip."""
    return (folder / _OPEN_CLIP).is_file() or _model_type(folder) in DUAL_TYPES


def open_dual_text(
    folder: Path, *, name: str, prompt: str | None = "auto", max_length: int | None = None
) -> OpenedModel:
    """Open the text side of a dual encoder.

    Parameters
    ----------
    folder : Path
    name : str
        What the user calls it.
    prompt : str or None
        What stands before each text; "auto" is nothing.
    max_length : int, optional
        Tokens of a text at most; None for as many as the model knows.

    Raises
    ------
    WeightsError
        The folder does not hold what it should.
    """
    text = "" if prompt in ("auto", None) else str(prompt)
    if _model_type(folder) in DUAL_TYPES:
        own = _clean(folder, name)
        side = own["text_config"]
        tokenizer = _transformers_tokenizer(folder, own["model_type"], side)
        module, numbers = _transformers_side(folder, own, "text")
    else:
        own, _, file = _open_clip_files(folder, name)
        tokenizer = _open_clip_tokenizer(folder, own)
        module, numbers = _open_clip_side(own, file, "text", {})
    tokenizer = replace(tokenizer, prompt=text)
    if max_length is not None:
        tokenizer = _shortened(tokenizer, max_length, name)
    return OpenedModel(module, tokenizer, *numbers, data_in_card(folder) or training_data(name))


def open_image_model(
    model: str | os.PathLike[str],
    *,
    pooling: str = "auto",
    local_files_only: bool = True,
    revision: str | None = None,
) -> OpenedImageModel:
    """Open the image side of a dual encoder, or an image model of timm or transformers, with its weights.

    Parameters
    ----------
    model : str or path-like
        A folder, a name on the hub, or "timm:" and the name of a model of timm.
    pooling : {"auto", "cls", "mean"}, default="auto"
        How tokens become one vector; of no effect on a dual encoder.
    local_files_only : bool, default=True
        Download nothing.
    revision : str, optional
        A branch, a tag or a commit of a name on the hub.

    Raises
    ------
    WeightsError
        The files are not to be had, or hold no such model.
    ImportError
        Its library is not installed.
    """
    name = os.fspath(model)
    if name.startswith(_TIMM):
        name = _timm_on_hub(name.removeprefix(_TIMM))
    folder = find_model(name, local_files_only=local_files_only, revision=revision)
    numbers: tuple[float | None, float | None] = (None, None)
    model_type = _model_type(folder)
    if model_type in DUAL_TYPES:
        own = _clean(folder, name)
        if model_type == "siglip2":
            raise WeightsError(
                f"{name!r} looks at pictures of any shape as patches (NaFlex), which is not known here; take one of "
                "the models of SigLIP 2 for a fixed size, such as 'google/siglip2-base-patch16-224'"
            )
        pixels = transformers_pixels(folder)
        module, numbers = _transformers_side(folder, own, "vision", mean=pixels.mean, std=pixels.std)
        _check_side(pixels, own["vision_config"]["image_size"], name)
    elif (folder / _OPEN_CLIP).is_file():
        own, look, file = _open_clip_files(folder, name)
        pixels = open_clip_pixels(look, look.get("size") or own["vision_cfg"].get("image_size", 224), folder)
        module, numbers = _open_clip_side(own, file, "visual", {"mean": pixels.mean, "std": pixels.std})
    elif "architecture" in (read_json(folder / "config.json") or {}):
        module, pixels = _timm(folder, name, pooling)
    else:
        module, pixels = _lone_transformer(folder, name, pooling)
    trained_on = data_in_card(folder) or training_data(name)
    return OpenedImageModel(module, None, *numbers, trained_on, pixels=pixels)


def _model_type(folder: Path) -> str | None:
    own = read_json(folder / "config.json", {})
    return own.get("model_type") if isinstance(own, Mapping) else None


def _check_side(pixels: PixelConvention, side: int, name: str) -> None:
    if pixels.image_size != side:
        raise WeightsError(
            f"{name!r} says that pictures are cut to {pixels.image_size} pixels, but its network looks at {side}"
        )


# transformers -----------------------------------------------------------------------------------------------------


def _clean(folder: Path, name: str) -> dict[str, Any]:
    """Return a configuration with all its defaults, without anything that names code.

    Raises
    ------
    WeightsError
        It asks for code of its own, or is of an unknown type.
    """
    raw = read_json(folder / "config.json")
    if raw is None:
        raise WeightsError(f"{name!r} is no model that is known: {str(folder)!r} has no config.json")
    transformers = import_optional("transformers")
    model_type = raw.get("model_type")
    if "auto_map" in raw or model_type not in transformers.CONFIG_MAPPING:
        raise WeightsError(
            f"{name!r} is of the type {model_type!r} and asks for code of its own, or is unknown to this transformers; "
            "code of models is never run"
        )
    config = transformers.AutoConfig.for_model(**_without_code(raw))
    own: dict[str, Any] = json.loads(json.dumps(_without_code(config.to_dict()), default=str))
    return own


def _without_code(own: Any) -> Any:
    # also what says in which precision it was saved: weights are float32
    dropped = (*_CODE, "quantization_config", "torch_dtype", "dtype")
    if isinstance(own, Mapping):
        return {key: _without_code(value) for key, value in own.items() if key not in dropped}
    return own


def _transformers_side(
    folder: Path, own: Mapping[str, Any], side: str, **pixels: Any
) -> tuple[Any, tuple[float | None, float | None]]:
    """Open one side of a dual encoder with its weights; return its scale and bias, too."""
    state = _transformers_state(folder, DUAL_TYPES[own["model_type"]][0], own)
    architecture = dict(own[f"{side}_config"])
    if own["model_type"] == "clip":
        architecture["projection_dim"] = own["projection_dim"]
    settings = {"library": "transformers", "architecture": json.dumps(architecture), **_listed(pixels)}
    name = "nn.DualTextModule" if side == "text" else "nn.PretrainedImageModule"
    numbers = _scale_and_bias(state)
    return _with_state(name, settings, state, prefix=f"{side}_model."), numbers


def _transformers_state(folder: Path, class_name: str, own: Mapping[str, Any]) -> dict[str, Tensor]:
    """Read all weights of a model by its library, which knows what older files call them."""
    transformers = import_optional("transformers")
    has_safe = any(folder.glob("*.safetensors"))
    if not has_safe and find_files(folder, ["pytorch_model.bin", "pytorch_model.bin.index.json"]) is None:
        raise WeightsError(f"{str(folder)!r} holds no weights (model.safetensors)")
    with quiet_loading():
        # A pickle of the old format is read as tensors alone (weights_only), which runs no code.
        loaded, report = getattr(transformers, class_name).from_pretrained(
            str(folder),
            config=transformers.AutoConfig.for_model(**own),
            dtype=torch.float32,
            local_files_only=True,
            use_safetensors=has_safe,
            weights_only=True,
            output_loading_info=True,
        )
    state: dict[str, Tensor] = loaded.state_dict()
    # a pooler that was never trained is none of what is used
    missing = sorted(key for key in set(report["missing_keys"]) & state.keys() if not key.startswith("pooler."))
    if missing:
        raise WeightsError(f"the weights in {str(folder)!r} lack {len(missing)} of the model's, {missing[0]!r} for one")
    return state


def _lone_transformer(folder: Path, name: str, pooling: str) -> tuple[Any, PixelConvention]:
    own = _clean(folder, name)
    transformers = import_optional("transformers")
    pixels = transformers_pixels(folder)
    with torch.device("meta"):
        kind = type(transformers.AutoModel.from_config(transformers.AutoConfig.for_model(**own)))
    if getattr(kind, "main_input_name", "") != "pixel_values":
        raise WeightsError(f"{name!r} ({own['model_type']}) is no image model")
    state = _transformers_state(folder, kind.__name__, own)
    settings = {
        "library": "transformers",
        "architecture": json.dumps(own),
        **_listed({"mean": pixels.mean, "std": pixels.std}),
        "pooling": pooling,
    }
    return _with_state("nn.PretrainedImageModule", settings, state), pixels


def _transformers_tokenizer(folder: Path, model_type: str, side: Mapping[str, Any]) -> DualTokenizer:
    transformers = import_optional("transformers")
    if (folder / "tokenizer.json").is_file():
        # By the class that reads this one file, and not by the name of a class in another file.
        own = transformers.PreTrainedTokenizerFast.from_pretrained(str(folder), local_files_only=True)
    elif model_type == "clip" and find_files(folder, ["vocab.json"]) is not None:
        own = transformers.CLIPTokenizerFast.from_pretrained(str(folder), local_files_only=True)
    else:
        raise WeightsError(
            f"{str(folder)!r} has no tokenizer.json; save the model's tokeniser beside it with a newer transformers"
        )
    length = int(side["max_position_embeddings"])
    pad = own.pad_token_id if own.pad_token_id is not None else side.get("pad_token_id")
    spec = own.backend_tokenizer.to_str()
    if model_type == "clip":
        # The vector is read at the token that ends a text, and no token sees those behind it: filling changes nothing.
        return DualTokenizer(spec, length, int(pad or 0))
    # Read at the last position of the full length, filled or not. All of both generations are trained on lower case,
    # and without punctuation they answer best; transformers' tokenisers bring texts to that in part only.
    return DualTokenizer(spec, length, int(pad or 0), length, "canonicalize")


# open_clip --------------------------------------------------------------------------------------------------------


def _open_clip_files(folder: Path, name: str) -> tuple[dict[str, Any], dict[str, Any], Path]:
    """Return what a folder of open_clip says of its model, of its pixels, and where its weights are."""
    both = read_json(folder / _OPEN_CLIP)
    if not isinstance(both, Mapping) or "model_cfg" not in both:
        raise WeightsError(f"{str(folder / _OPEN_CLIP)!r} describes no model (model_cfg)")
    file = find_files(folder, _OPEN_CLIP_WEIGHTS)
    if file is None:
        raise WeightsError(f"{str(folder)!r} holds no weights ({_OPEN_CLIP_WEIGHTS[0]})")
    try:
        return clean_open_clip(both["model_cfg"]), dict(both.get("preprocess_cfg") or {}), file
    except ValueError as error:
        raise WeightsError(f"{name!r} cannot be opened: {error}") from error


def _open_clip_side(
    own: Mapping[str, Any], file: Path, side: str, pixels: Mapping[str, Any]
) -> tuple[Any, tuple[float | None, float | None]]:
    model = import_optional("open_clip.model", "openclip")
    factory = import_optional("open_clip.factory", "openclip")
    # Not by forked_rng: libraries put functions of their own in the place of those that torch draws by.
    with torch.random.fork_rng(devices=[]):
        whole = model.CustomTextCLIP(
            **{**own, "vision_cfg": dict(own["vision_cfg"]), "text_cfg": dict(own["text_cfg"])}
        )
    # by the library, which knows what other projects call their weights; tensors alone, which run no code
    factory.load_checkpoint(whole, str(file), strict=True, weights_only=True)
    state = whole.state_dict()
    numbers = _scale_and_bias(state)
    prefix = "text." if side == "text" else "visual."
    kept = {f"net.{key.removeprefix(prefix)}": value for key, value in state.items() if key.startswith(prefix)}
    settings = {"library": "open_clip", "architecture": json.dumps(own), **_listed(pixels)}
    name = "nn.DualTextModule" if side == "text" else "nn.PretrainedImageModule"
    for part in pixels:
        kept[part] = torch.tensor(pixels[part])
    return rebuild(name, settings, kept), numbers


def _open_clip_tokenizer(folder: Path, own: Mapping[str, Any]) -> DualTokenizer:
    text = own["text_cfg"]
    length = int(text.get("context_length", _CONTEXT))
    # Where a token sees those behind it, or the last place is read, texts are filled up as in training.
    is_free = not text.get("no_causal_mask") and not text.get("embed_cls")
    pad_to = None if is_free and text.get("pool_type", "argmax") in _CAUSAL_POOLS else length
    options = dict(text.get("tokenizer_kwargs") or {})
    own_name = text.get("hf_tokenizer_name")
    if not own_name:
        if options.keys() - {"clean"}:
            raise WeightsError(f"{str(folder)!r} reads texts in a way that is not known: {options}")
        return DualTokenizer("", length, 0, pad_to, options.get("clean", "lower"), True, True)
    if text.get("tokenizer_mode") or options.keys() - {"clean", "strip_sep_token"}:
        raise WeightsError(f"{str(folder)!r} reads texts in a way that is not known: {text.get('tokenizer_mode')}")
    if not (folder / "tokenizer.json").is_file():
        raise WeightsError(
            f"{str(folder)!r} reads texts by the tokeniser of {own_name!r}, and its tokenizer.json is not in the folder"
        )
    tokenizer = import_optional("transformers").PreTrainedTokenizerFast.from_pretrained(
        str(folder), local_files_only=True
    )
    return DualTokenizer(
        tokenizer.backend_tokenizer.to_str(),
        length,
        int(tokenizer.pad_token_id or 0),
        length,
        options.get("clean", "whitespace"),
        True,
        True,
        tokenizer.sep_token_id if options.get("strip_sep_token") else None,
    )


# timm -------------------------------------------------------------------------------------------------------------


def _timm_on_hub(name: str) -> str:
    """Return the name on the hub of a model of timm, or the folder itself."""
    if Path(name).is_dir():
        return name
    timm = import_optional("timm", "timm")
    if not timm.is_model(name):
        raise WeightsError(f"timm has no model {name!r}; timm.list_pretrained() names those that there are")
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.hf_hub_id:
        raise WeightsError(f"timm has no pretrained weights of {name!r} on the hub")
    hub_id = str(config.hf_hub_id)
    # timm keeps the weights of a model under its name with the tag
    return f"{hub_id}{config.architecture}.{config.tag}" if hub_id.endswith("/") else hub_id


def _timm(folder: Path, name: str, pooling: str) -> tuple[Any, PixelConvention]:
    own = read_json(folder / "config.json")
    timm = import_optional("timm", "timm")
    architecture = str(own["architecture"])
    if ":" in architecture or not timm.is_model(architecture):
        raise WeightsError(f"{name!r} is of the architecture {architecture!r}, which this timm does not know")
    file = find_files(folder, ["model.safetensors", "pytorch_model.bin"])
    if file is None:
        raise WeightsError(f"{str(folder)!r} holds no weights (model.safetensors)")
    described = {**(own.get("pretrained_cfg") or {})}
    pixels = timm_pixels(timm.data.resolve_data_config({}, pretrained_cfg=described))
    arguments = {key: value for key, value in (own.get("model_args") or {}).items() if key not in _TIMM_OWN}
    settings = {
        "library": "timm",
        "architecture": json.dumps({"architecture": architecture, "model_args": arguments}),
        **_listed({"mean": pixels.mean, "std": pixels.std}),
        "pooling": pooling,
    }
    pool = {} if pooling == "auto" else {"global_pool": {"cls": "token", "mean": "avg"}[pooling]}
    overlay = {"file": str(file), "num_classes": own.get("num_classes", described.get("num_classes", 1000))}
    with torch.random.fork_rng(devices=[]):
        # by timm, which knows what other projects call their weights
        loaded: nn.Module = timm.create_model(
            architecture,
            pretrained=True,
            pretrained_cfg={**described, "hf_hub_id": None, "url": None},
            pretrained_cfg_overlay=overlay,
            num_classes=0,
            **{**arguments, **pool},
        )
    return _with_state("nn.PretrainedImageModule", settings, loaded.state_dict()), pixels


# Both -------------------------------------------------------------------------------------------------------------


def _listed(pixels: Mapping[str, Any]) -> dict[str, list[float]]:
    return {name: list(value) for name, value in pixels.items()}


def _with_state(name: str, settings: dict[str, Any], state: Mapping[str, Tensor], prefix: str = "") -> Any:
    """Build a module with those of the weights that are its own, with or without the name of its side."""
    with torch.device("meta"):
        wanted = find(name)(**settings).state_dict().keys()
    own = {f"net.{key.removeprefix(prefix)}": value for key, value in state.items() if key.startswith(prefix)}
    own |= {f"net.{key}": value for key, value in state.items()}
    own = {key: value for key, value in own.items() if key in wanted}
    own |= {part: torch.tensor(settings[part]) for part in ("mean", "std") if part in settings}
    missing = sorted(wanted - own.keys())
    if missing:
        raise WeightsError(f"the weights lack {len(missing)} of the model's, {missing[0]!r} for one")
    return rebuild(name, settings, own)


def _scale_and_bias(state: Mapping[str, Tensor]) -> tuple[float | None, float | None]:
    scale, bias = state.get("logit_scale"), state.get("logit_bias")
    return (
        None if scale is None else float(scale.double().reshape(-1)[0].exp()),
        None if bias is None else float(bias.reshape(-1)[0]),
    )


def _shortened(tokenizer: DualTokenizer, max_length: int, name: str) -> DualTokenizer:
    if max_length > tokenizer.max_length:
        raise ValueError(f"max_length={max_length}, but {name!r} reads {tokenizer.max_length} tokens at most")
    # what is read at a place of the full length stays filled up to it
    return replace(tokenizer, max_length=max_length)
