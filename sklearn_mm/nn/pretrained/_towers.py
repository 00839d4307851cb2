"""The networks of pretrained image models, and of both sides of dual encoders, whichever library they are of."""

import json
from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from sklearn_mm.nn.pixels import cpu_chunk_size, normalise, scale_and_shift
from sklearn_mm.nn.pretrained._files import import_optional
from sklearn_mm.nn.pretrained._model import PretrainedModule, TokenBatch
from sklearn_mm.registry import stored_as

__all__ = ["DUAL_TYPES", "DualTextModule", "PretrainedImageModule", "clean_open_clip", "transformers_config"]

_GPU_CHUNK = 128  # pictures that fit a GPU where no gradient is wanted

# model types of transformers: the classes of both sides and the name of the vector in what they answer
DUAL_TYPES = {
    "clip": ("CLIPModel", "CLIPVisionModelWithProjection", "CLIPTextModelWithProjection"),
    "siglip": ("SiglipModel", "SiglipVisionModel", "SiglipTextModel"),
    "siglip2": ("Siglip2Model", "Siglip2VisionModel", "Siglip2TextModel"),
}
_SIDES = {
    "clip_vision_model": ("CLIPVisionModelWithProjection", "image_embeds"),
    "clip_text_model": ("CLIPTextModelWithProjection", "text_embeds"),
    "siglip_vision_model": ("SiglipVisionModel", "pooler_output"),
    "siglip_text_model": ("SiglipTextModel", "pooler_output"),
    "siglip2_text_model": ("Siglip2TextModel", "pooler_output"),
}


class _AsTrained(PretrainedModule):
    """A network that stays in evaluation mode while it learns on: its norms and its dropout are as they came."""

    def train(self, mode: bool = True) -> Self:
        """Leave all in evaluation mode, in which such networks are fine-tuned."""
        return super().train(False)


@stored_as("nn.PretrainedImageModule")
class PretrainedImageModule(_AsTrained):
    """An image model: crops (n, s, s, 3), uint8, to (n, width), float32.

    Parameters
    ----------
    library : {"transformers", "open_clip", "timm"}
    architecture : str
        The JSON of its configuration.
    mean, std : sequence of 3 floats
        Of red, green and blue for pixels in [0, 1].
    pooling : {"auto", "cls", "mean"}
        How tokens become one vector, where the model is no side of a dual encoder: the class token's, the mean of all
        others, or "auto": the class token where there is one.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, library: str, architecture: str, *, mean: Sequence[float], std: Sequence[float], pooling: str = "auto"
    ) -> None:
        super().__init__()
        self.config = {
            "library": library,
            "architecture": architecture,
            "mean": list(mean),
            "std": list(std),
            "pooling": pooling,
        }
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))
        self.net, self.width, self._look = _IMAGE_NETS[library](json.loads(architecture), pooling)
        self.lora_targets = linear_of_blocks(self.net, "net")
        self.train(False)

    def forward(self, crops: Tensor) -> Tensor:
        """Map crops to vectors, in chunks where no gradient is wanted."""
        if torch.is_grad_enabled():
            return self._embed(crops)
        size = cpu_chunk_size() if crops.device.type == "cpu" else _GPU_CHUNK
        return torch.cat([self._embed(chunk) for chunk in torch.split(crops, size)])

    def _embed(self, crops: Tensor) -> Tensor:
        pixels = normalise(crops, *scale_and_shift(self.mean, self.std, crops.shape[2]))
        return self._look(self.net, pixels).float()


@stored_as("nn.DualTextModule")
class DualTextModule(_AsTrained):
    """The text side of a dual encoder: a `TokenBatch` to (n, width), float32.

    Parameters
    ----------
    library : {"transformers", "open_clip"}
    architecture : str
        The JSON of its configuration.
    """

    def __init__(self, library: str, architecture: str) -> None:
        super().__init__()
        self.config = {"library": library, "architecture": architecture}
        own = json.loads(architecture)
        if library == "open_clip":
            self.net, self.width = _open_clip_side(own, "text"), int(own["embed_dim"])
            self._read: Callable[[nn.Module, TokenBatch], Tensor] = _read_ids
        else:
            self.net, self.width, answer = _transformers_side(own)
            # The sigmoid models see filled up positions as any others: no mask is what they were trained with.
            self._read = _read_masked if own["model_type"] == "clip_text_model" else _read_unmasked
            self._answer = answer
        self.lora_targets = linear_of_blocks(self.net, "net")
        self.train(False)

    def forward(self, batch: TokenBatch) -> Tensor:
        """Map a batch to (n_texts, width), float32."""
        out: Any = self._read(self.net, batch)
        return (out if isinstance(out, Tensor) else getattr(out, self._answer)).float()


def _read_ids(net: nn.Module, batch: TokenBatch) -> Any:
    return net(batch.ids)


def _read_masked(net: nn.Module, batch: TokenBatch) -> Any:
    return net(input_ids=batch.ids, attention_mask=batch.mask)


def _read_unmasked(net: nn.Module, batch: TokenBatch) -> Any:
    return net(input_ids=batch.ids)


def linear_of_blocks(net: nn.Module, prefix: str) -> tuple[str, ...]:
    """Return the names of the linear layers of the repeated blocks, which LoRA may enter."""
    # Not those inside of torch's own attention, which reads their weights without calling them.
    closed = [name for name, module in net.named_modules() if isinstance(module, nn.MultiheadAttention)]
    return tuple(
        f"{prefix}.{name}"
        for name, module in net.named_modules()
        if isinstance(module, nn.Linear)
        and any(part.isdigit() for part in name.split("."))
        and not any(name.startswith(f"{each}.") for each in closed)
    )


# transformers -----------------------------------------------------------------------------------------------------


def transformers_config(own: dict[str, Any]) -> Any:
    """Return a configuration of transformers of what `to_dict` gave."""
    kept = dict(own)
    return import_optional("transformers").AutoConfig.for_model(kept.pop("model_type"), **kept)


def _transformers_side(own: dict[str, Any]) -> tuple[nn.Module, int, str]:
    """Build one side of a dual encoder; return it, its width, and where its vector is."""
    name, answer = _SIDES[own["model_type"]]
    config = transformers_config(own)
    net = getattr(import_optional("transformers"), name)(config)
    widths = ("projection_dim",) if answer != "pooler_output" else ("projection_size", "hidden_size")
    width = next(int(value) for each in widths if (value := getattr(config, each, None)) is not None)
    return net.eval(), width, answer


def _transformers_image(own: dict[str, Any], pooling: str) -> tuple[nn.Module, int, Callable[..., Tensor]]:
    if own["model_type"] in _SIDES:
        net, width, answer = _transformers_side(own)
        return net, width, lambda net, pixels: getattr(net(pixel_values=pixels), answer)
    config = transformers_config(own)
    net = import_optional("transformers").AutoModel.from_config(config, trust_remote_code=False).eval()
    # A pooler over a class token belongs to a task of its training, and is left out.
    if _has_class_token(net) and getattr(net, "pooler", None) is not None:
        net.pooler = None
    takes_class = _has_class_token(net) if pooling == "auto" else pooling == "cls"
    skipped = _n_extra_tokens(config) if _has_class_token(net) else 0

    def look(net: nn.Module, pixels: Tensor) -> Tensor:
        answer: Any = net(pixel_values=pixels)
        tokens = answer.last_hidden_state  # (n, t, d), or maps (n, d, h, w)
        if tokens.ndim == 4:
            pooled = answer.pooler_output
            return tokens.float().mean(dim=(2, 3)) if pooled is None else pooled.flatten(1)
        return tokens[:, 0] if takes_class else tokens[:, skipped:].float().mean(dim=1)

    return net, _width(config), look


def _has_class_token(net: nn.Module) -> bool:
    return any(name.split(".")[-1] in ("cls_token", "class_embedding") for name, _ in net.named_parameters())


def _n_extra_tokens(config: Any) -> int:
    return 1 + int(getattr(config, "num_register_tokens", 0) or 0)


def _width(config: Any) -> int:
    size = getattr(config, "hidden_size", None)
    return int(config.hidden_sizes[-1] if size is None else size)


# open_clip --------------------------------------------------------------------------------------------------------


def clean_open_clip(own: dict[str, Any]) -> dict[str, Any]:
    """Return a model's configuration without what would download weights while it is built.

    Raises
    ------
    ValueError
        Its text side is another model of a hub, or it describes pictures as well.
    """
    vision, text = dict(own["vision_cfg"]), dict(own["text_cfg"])
    if text.get("hf_model_name") or "multimodal_cfg" in own or ":" in str(vision.get("timm_model_name")):
        raise ValueError("its parts are models of a hub, or it writes captions; such models of open_clip are not known")
    vision["timm_model_pretrained"] = False
    for part in (vision, text):
        part.pop("output_tokens", None)
    kept = ("embed_dim", "quick_gelu", "init_logit_bias", "init_logit_scale", "nonscalar_logit_scale")
    return {**{name: own[name] for name in kept if name in own}, "vision_cfg": vision, "text_cfg": text}


def _open_clip_side(own: dict[str, Any], side: str) -> nn.Module:
    model = import_optional("open_clip.model", "openclip")
    build = model._build_vision_tower if side == "visual" else model._build_text_tower
    part = own["vision_cfg" if side == "visual" else "text_cfg"]
    net: nn.Module = build(own["embed_dim"], dict(part), own.get("quick_gelu", False))
    return net.eval()


def _open_clip_image(own: dict[str, Any], pooling: str) -> tuple[nn.Module, int, Callable[..., Tensor]]:
    return _open_clip_side(own, "visual"), int(own["embed_dim"]), lambda net, pixels: net(pixels)


# timm -------------------------------------------------------------------------------------------------------------


def _timm_image(own: dict[str, Any], pooling: str) -> tuple[nn.Module, int, Callable[..., Tensor]]:
    timm = import_optional("timm", "timm")
    pool = {} if pooling == "auto" else {"global_pool": {"cls": "token", "mean": "avg"}[pooling]}
    arguments = {**own.get("model_args", {}), **pool}
    net = timm.create_model(own["architecture"], pretrained=False, num_classes=0, **arguments).eval()
    width = int(getattr(net, "head_hidden_size", None) or net.num_features)
    return net, width, lambda net, pixels: net(pixels)


_IMAGE_NETS: dict[str, Callable[[dict[str, Any], str], tuple[nn.Module, int, Callable[..., Tensor]]]] = {
    "transformers": _transformers_image,
    "open_clip": _open_clip_image,
    "timm": _timm_image,
}
