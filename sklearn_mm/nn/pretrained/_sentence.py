"""Sentence encoders: a transformer, its pooling, and what follows, as the files of sentence-transformers say."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sklearn_mm.exceptions import WeightsError
from sklearn_mm.nn.pretrained._files import find_files, import_optional, quiet_loading, read_json
from sklearn_mm.nn.pretrained._model import OpenedModel, PretrainedModule, TokenBatch, rebuild
from sklearn_mm.nn.pretrained._tokenizer import JsonTokenizer
from sklearn_mm.nn.training_data import data_in_card, training_data
from sklearn_mm.nn.weights import read_state
from sklearn_mm.registry import stored_as

__all__ = ["POOLINGS", "SentenceModule", "open_sentence_model"]

POOLINGS = ("mean", "cls", "max", "last")

# as sentence-transformers calls them in its files, older and newer
_POOLING_NAMES = {
    "mean": "mean",
    "mean_tokens": "mean",
    "cls": "cls",
    "cls_token": "cls",
    "max": "max",
    "max_tokens": "max",
    "lasttoken": "last",
    "weightedmean": "weightedmean",
    "weightedmean_tokens": "weightedmean",
    "mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
}
_ACTIVATIONS = {"Identity": nn.Identity, "Tanh": nn.Tanh, "ReLU": nn.ReLU, "GELU": nn.GELU, "Sigmoid": nn.Sigmoid}
# Entries of a configuration that name code, or a kernel that would be downloaded; what stays is numbers and words.
_CODE = ("auto_map", "_attn_implementation", "_attn_implementation_internal", "attn_implementation", "custom_pipelines")
_MAX_LENGTH = 512  # of a model that names no limit


@stored_as("nn.SentenceModule")
class SentenceModule(PretrainedModule):
    """A transformer of the library of that name, the pooling of its tokens, and the layers after that.

    Parameters
    ----------
    architecture : str
        The JSON of its configuration.
    pooling : sequence of str
        How the tokens' vectors become one; several are put side by side.
    layers : sequence of dict
        What follows: ``{"type": "Normalize"}``, or ``{"type": "Dense", ...}`` with the sizes of a linear layer.

    Attributes
    ----------
    backbone : Module
    width : int
    """

    def __init__(self, architecture: str, *, pooling: Sequence[str], layers: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__()
        self.config = {"architecture": architecture, "pooling": list(pooling), "layers": [dict(own) for own in layers]}
        config = json.loads(architecture)
        model_type = config.pop("model_type")
        self.backbone = _build(import_optional("transformers").AutoConfig.for_model(model_type, **config))
        _drop_pooler(self.backbone)
        self._pooling = tuple(pooling)
        self.width = _hidden_size(self.backbone.config) * len(self._pooling)
        self.layers = nn.Sequential()
        for own in layers:
            self.layers.append(_UnitRows() if own["type"] == "Normalize" else _dense(own))
            self.width = own.get("out_features", self.width)
        self.lora_targets = _linear_of_blocks(self.backbone)

    def forward(self, batch: TokenBatch) -> Tensor:
        """Map a batch to (n_texts, width), float32."""
        tokens = self.backbone(input_ids=batch.ids, attention_mask=batch.mask).last_hidden_state  # (n, t, d)
        pooled = torch.cat([_POOL[name](tokens, batch.mask) for name in self._pooling], dim=1)
        # outside of autocast, as sums over many tokens were: what follows is small
        with torch.autocast(pooled.device.type, enabled=False):
            out: Tensor = self.layers(pooled)
        return out


class _UnitRows(nn.Module):
    def forward(self, rows: Tensor) -> Tensor:
        return nn.functional.normalize(rows, dim=1)


def _dense(own: Mapping[str, Any]) -> nn.Module:
    linear = nn.Linear(own["in_features"], own["out_features"], bias=own.get("bias", True))
    return nn.Sequential(linear, _ACTIVATIONS[own.get("activation", "Tanh")]())


# Pooling: tokens (n, t, d) and their mask (n, t) to (n, d), float32 -----------------------------------------------


def _mean(tokens: Tensor, mask: Tensor) -> Tensor:
    weights = mask[:, :, None].float()
    return (tokens * weights).sum(dim=1, dtype=torch.float32) / weights.sum(dim=1).clamp(min=1e-9)


def _mean_of_root(tokens: Tensor, mask: Tensor) -> Tensor:
    return _mean(tokens, mask) * mask.sum(dim=1, keepdim=True).float().sqrt()


def _weighted_mean(tokens: Tensor, mask: Tensor) -> Tensor:
    return _mean(tokens, mask * torch.arange(1, mask.shape[1] + 1, device=mask.device))


def _first(tokens: Tensor, mask: Tensor) -> Tensor:
    return tokens[:, 0].float()


def _last(tokens: Tensor, mask: Tensor) -> Tensor:
    return tokens[torch.arange(len(tokens), device=tokens.device), mask.sum(dim=1) - 1].float()


def _largest(tokens: Tensor, mask: Tensor) -> Tensor:
    return tokens.masked_fill(mask[:, :, None] == 0, -torch.inf).amax(dim=1).float()


_POOL = {
    "mean": _mean,
    "mean_sqrt_len_tokens": _mean_of_root,
    "weightedmean": _weighted_mean,
    "cls": _first,
    "last": _last,
    "max": _largest,
}


# Opening ----------------------------------------------------------------------------------------------------------


def open_sentence_model(
    folder: Path, *, name: str, pooling: str = "auto", prompt: str | None = "auto", max_length: int | None = None
) -> OpenedModel:
    """Open a sentence encoder from its folder; the parameters are those of `open_text_model`.

    Parameters
    ----------
    folder : Path
    name : str
        What the user calls it.
    pooling, prompt, max_length
        As in `open_text_model`.
    """
    stages = _stages(folder)
    root = folder / stages[0].pop("path", "") if stages else folder
    config = _clean_config(root, name)
    own_pooling, layers, weights = _read_stages(folder, stages[1:])
    chosen = own_pooling if pooling == "auto" else [pooling]
    state = {f"backbone.{key}": value for key, value in _backbone_state(root, config).items()}
    state |= {
        f"layers.{number}.0.{key.removeprefix('linear.')}": w
        for number, own in weights.items()
        for key, w in own.items()
    }
    settings = {"architecture": json.dumps(config.to_dict(), default=str), "pooling": chosen, "layers": layers}
    module = rebuild("nn.SentenceModule", settings, state)
    tokenizer = _tokenizer(folder, root, config, prompt=prompt, max_length=max_length)
    return OpenedModel(module, tokenizer, trained_on=data_in_card(folder) or training_data(name))


def _stages(folder: Path) -> list[dict[str, Any]]:
    """Return the modules of a sentence-transformer, none for a transformer alone."""
    stages: list[dict[str, Any]] = []
    for entry in read_json(folder / "modules.json", []):
        # by its last word: no class is imported because a file names it
        kind = str(entry.get("type", "")).rpartition(".")[2]
        if kind not in ("Transformer", "Pooling", "Dense", "Normalize", "Dropout") or (kind == "Transformer") == bool(
            stages
        ):
            raise WeightsError(
                f"{str(folder / 'modules.json')!r} names {entry.get('type')!r} in place {len(stages)}; a transformer "
                "first, then Pooling, Dense, Normalize and Dropout are what can be opened, and no code of a model's own"
            )
        path = Path(str(entry.get("path", "")))
        if path.is_absolute() or ".." in path.parts:
            raise WeightsError(f"{str(folder / 'modules.json')!r} leads out of its folder: {str(path)!r}")
        stages.append({"kind": kind, "path": str(path)})
    return stages


def _read_stages(
    folder: Path, stages: Sequence[Mapping[str, Any]]
) -> tuple[list[str], list[dict[str, Any]], dict[int, dict[str, Tensor]]]:
    """Return the poolings, the layers after them, and the weights of those that have some, by number."""
    poolings, layers, weights = ["mean"], [], {}
    for stage in stages:
        own = folder / stage["path"]
        config = read_json(own / "config.json", {})
        if stage["kind"] == "Pooling":
            poolings = _poolings(config, own)
        elif stage["kind"] == "Normalize":
            layers.append({"type": "Normalize"})
        elif stage["kind"] == "Dense":
            file = find_files(own, ["model.safetensors", "pytorch_model.bin"])
            if file is None:
                raise WeightsError(f"{str(own)!r} holds no weights of its linear layer (model.safetensors)")
            weights[len(layers)] = read_state(file)
            layers.append(_dense_config(config, own))
    return poolings, layers, weights


def _poolings(config: Mapping[str, Any], own: Path) -> list[str]:
    named = config.get("pooling_mode")
    if named is None:
        named = [key.removeprefix("pooling_mode_") for key, on in config.items() if key.startswith("pooling_") and on]
    found = [named] if isinstance(named, str) else list(named) or ["mean"]
    unknown = [name for name in found if name not in _POOLING_NAMES]
    if unknown:
        raise WeightsError(f"{str(own)!r} pools by {unknown[0]!r}, which is not known; pass pooling='mean'")
    return [_POOLING_NAMES[name] for name in found]


def _dense_config(config: Mapping[str, Any], own: Path) -> dict[str, Any]:
    activation = str(config.get("activation_function", "Tanh")).rpartition(".")[2]
    if activation not in _ACTIVATIONS or config.get("use_residual"):
        raise WeightsError(f"{str(own)!r} holds a linear layer of a kind that is not known: {dict(config)}")
    sizes = {key: config[key] for key in ("in_features", "out_features")}
    return {"type": "Dense", **sizes, "bias": bool(config.get("bias", True)), "activation": activation}


def _clean_config(root: Path, name: str) -> Any:
    """Return the configuration of the transformer, without anything that names code."""
    raw = read_json(root / "config.json")
    if raw is None:
        raise WeightsError(f"{name!r} is no model of transformers: {str(root)!r} has no config.json")
    transformers = import_optional("transformers")
    model_type = raw.get("model_type")
    if model_type not in transformers.CONFIG_MAPPING:
        raise WeightsError(
            f"{name!r} is of the type {model_type!r}, which this transformers does not know, or which would run code "
            "of its own; models like that are not opened"
        )
    kept = {key: value for key, value in raw.items() if key not in (*_CODE, "model_type", "quantization_config")}
    # float32 weights, whatever they were saved in; autocast chooses what is computed in
    kept.pop("torch_dtype", None)
    kept.pop("dtype", None)
    return transformers.AutoConfig.for_model(model_type, **kept)


def _build(config: Any) -> Any:
    """Build a transformer with random weights, in evaluation mode."""
    transformers = import_optional("transformers")
    # of encoders with decoders, the first half embeds
    encoders = {"t5": "T5EncoderModel", "mt5": "MT5EncoderModel"}
    factory = getattr(transformers, encoders.get(config.model_type, "AutoModel"))
    make = factory.from_config if hasattr(factory, "from_config") else factory._from_config
    try:
        return make(config, attn_implementation="sdpa", dtype=torch.float32).eval()
    except ValueError:  # an architecture without it
        return make(config, attn_implementation="eager", dtype=torch.float32).eval()


def _backbone_state(root: Path, config: Any) -> dict[str, Tensor]:
    """Read the weights of a transformer by its library, which knows what older files call them."""
    has_safe = any(root.glob("*.safetensors"))
    if not has_safe and find_files(root, ["pytorch_model.bin", "pytorch_model.bin.index.json"]) is None:
        raise WeightsError(f"{str(root)!r} holds no weights (model.safetensors)")
    with torch.device("meta"):
        like: Any = _build(config)
    with quiet_loading():
        # A pickle of the old format is read as tensors alone (weights_only), which runs no code.
        loaded, report = type(like).from_pretrained(
            str(root),
            config=config,
            attn_implementation=like.config._attn_implementation,
            dtype=torch.float32,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=has_safe,
            weights_only=True,
            output_loading_info=True,
        )
    _drop_pooler(loaded)
    state: dict[str, Tensor] = loaded.state_dict()
    missing = sorted(set(report["missing_keys"]) & state.keys())
    if missing:
        raise WeightsError(f"the weights in {str(root)!r} lack {len(missing)} of the model's, {missing[0]!r} for one")
    return state


def _drop_pooler(backbone: Any) -> None:
    # Of no part in the tokens' vectors; what is not used has no gradient, and would travel with the model.
    if getattr(backbone, "pooler", None) is not None:
        backbone.pooler = None


def _hidden_size(config: Any) -> int:
    return int(config.hidden_size)


def _linear_of_blocks(backbone: nn.Module) -> tuple[str, ...]:
    """Return the names of the linear layers of the repeated blocks: attention and perceptron."""
    return tuple(
        f"backbone.{name}"
        for name, module in backbone.named_modules()
        if isinstance(module, nn.Linear) and re.search(r"\.\d+\.", f".{name}.")
    )


def _tokenizer(folder: Path, root: Path, config: Any, *, prompt: str | None, max_length: int | None) -> JsonTokenizer:
    transformers = import_optional("transformers")
    own = transformers.AutoTokenizer.from_pretrained(str(root), local_files_only=True, trust_remote_code=False)
    backend = getattr(own, "backend_tokenizer", None)
    if backend is None:
        raise WeightsError(
            f"the tokeniser of {str(root)!r} ({type(own).__name__}) has no tokenizer.json; save the model with a fast "
            "tokeniser by transformers"
        )
    settings = read_json(
        find_files(
            root,
            [
                "sentence_bert_config.json",
                "sentence_roberta_config.json",
                "sentence_distilbert_config.json",
                "sentence_xlm-roberta_config.json",
            ],
        ),
        {},
    )
    limits = [getattr(config, "max_position_embeddings", None), own.model_max_length]
    longest = min([limit for limit in limits if limit] or [_MAX_LENGTH])
    limit = settings.get("max_seq_length") or min(longest, 10**6)
    if max_length is not None and max_length > longest:
        raise ValueError(f"max_length={max_length}, but this model reads {longest} tokens at most")
    return JsonTokenizer(
        backend.to_str(),
        max_length=int(limit if max_length is None else max_length),
        pad_id=int(own.pad_token_id if own.pad_token_id is not None else own.eos_token_id or 0),
        prompt=_prompt(folder) if prompt == "auto" else prompt or "",
        lowercase=bool(settings.get("do_lower_case", False)),
    )


def _prompt(folder: Path) -> str:
    config = read_json(folder / "config_sentence_transformers.json", {})
    name = config.get("default_prompt_name")
    return str((config.get("prompts") or {}).get(name, "")) if name else ""
