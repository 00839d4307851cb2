"""Dual encoders and image models of a few kilobytes, with random weights, in the files that their libraries write."""

import json
from pathlib import Path

import torch

WORDS = ["a", "the", "red", "green", "blue", "square", "dot", "box", "two", "dog", "cat", "photo", "of", "circle"]
PUNCTUATION = [".", ",", "!", "'", "-", "_", "(", ")"]
SIDE, WIDTH = 32, 16  # pixels, components
_VISION = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": SIDE,
    "patch_size": 8,
}
_TEXT = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


def write_clip(folder, *, seed=0, scale=3.0):
    """Write a CLIP of transformers; its tokeniser knows letters, in lower case, and ends texts by id 1."""
    import transformers

    folder = _made(folder)
    letters = sorted({letter for word in [*WORDS, *PUNCTUATION] for letter in word})
    units = [*letters, *(f"{letter}</w>" for letter in letters)]
    vocab = {token: i for i, token in enumerate([*units, "<|startoftext|>", "<|endoftext|>"])}
    # as in OpenAI's: texts are filled up by the token that ends them, which has the largest id
    tokenizer = transformers.CLIPTokenizerFast(vocab=vocab, merges=[])
    config = transformers.CLIPConfig(
        text_config={
            **_TEXT,
            "vocab_size": len(vocab),
            "max_position_embeddings": 20,
            "bos_token_id": vocab["<|startoftext|>"],
            "eos_token_id": vocab["<|endoftext|>"],
            "attention_dropout": 0.3,
        },
        vision_config={**_VISION, "attention_dropout": 0.3},
        projection_dim=WIDTH,
        logit_scale_init_value=scale,
    )
    pixels = transformers.CLIPImageProcessor(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}, image_mean=[0.4, 0.5, 0.6]
    )
    _save(transformers.CLIPModel, config, folder, seed)
    transformers.CLIPProcessor(pixels, tokenizer).save_pretrained(folder)
    return folder


def write_siglip(folder, *, seed=0, generation=1):
    """Write a SigLIP of transformers of a fixed size; its tokeniser knows words and their case."""
    import tokenizers
    import transformers

    folder = _made(folder)
    words = [*WORDS, *(word.title() for word in WORDS), *PUNCTUATION]
    vocab = {word: i for i, word in enumerate(["<pad>", "</s>", "<unk>", *words])}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocab, unk_token="<unk>"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    # the first generation fills up by the token that ends a text, the second by one of its own
    pad = "</s>" if generation == 1 else "<pad>"
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=pad,
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=12,
        padding_side="right",
    )
    config = transformers.SiglipConfig(
        text_config={
            **_TEXT,
            "vocab_size": len(vocab),
            "max_position_embeddings": 12,
            "projection_size": 24,
            "pad_token_id": vocab[pad],
            "eos_token_id": 1,
            "bos_token_id": 1,
        },
        vision_config=_VISION,
    )
    pixels = transformers.SiglipImageProcessor(
        size={"height": SIDE, "width": SIDE},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
        resample=2 if generation == 2 else 3,
    )
    _save(transformers.SiglipModel, config, folder, seed)
    tokenizer.save_pretrained(folder)
    pixels.save_pretrained(folder)
    return folder


def write_open_clip(folder, *, seed=0, siglip=False, custom_text=False):
    """Write a model of open_clip, as its `push_to_hf_hub` does."""
    import open_clip
    from safetensors.torch import save_file

    folder = _made(folder)
    text = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
    model = {
        "embed_dim": WIDTH,
        "vision_cfg": {"image_size": SIDE, "layers": 2, "width": 24, "head_width": 12, "patch_size": 8},
        "text_cfg": text,
    }
    if siglip:
        text.update(no_causal_mask=True, pool_type="last", proj_type="linear", proj_bias=True)
        text.update(tokenizer_kwargs={"clean": "canonicalize"})
        model.update(custom_text=True, init_logit_bias=-10, init_logit_scale=2.3)
    if custom_text:
        model["custom_text"] = True
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        kept = {name: value for name, value in model.items() if name != "custom_text"}
        kind = open_clip.CustomTextCLIP if model.get("custom_text") else open_clip.CLIP
        network = kind(**{**kept, "text_cfg": {k: v for k, v in text.items() if k != "tokenizer_kwargs"}})
        _stir(network)
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, folder / WEIGHTS)
    pixels = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "interpolation": "bicubic"}
    pixels["resize_mode"] = "squash" if siglip else "shortest"
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model, "preprocess_cfg": pixels}))
    return folder


WEIGHTS = "open_clip_model.safetensors"


def write_vit(folder, *, seed=0, kind="dinov2"):
    """Write an image model of transformers that stands alone: "dinov2", "vit" or "convnext"."""
    import transformers

    folder = _made(folder)
    processor = transformers.BitImageProcessor(
        size={"shortest_edge": 36}, crop_size={"height": SIDE, "width": SIDE}, do_center_crop=True
    )
    if kind == "dinov2":
        sizes = {name: _VISION[name] for name in _VISION if name != "intermediate_size"}
        kind_of, config = transformers.Dinov2Model, transformers.Dinov2Config(**sizes)
    elif kind == "vit":
        kind_of, config = transformers.ViTModel, transformers.ViTConfig(**_VISION)
        processor = transformers.ViTImageProcessor(size={"height": SIDE, "width": SIDE})
    else:
        kind_of = transformers.ConvNextModel
        config = transformers.ConvNextConfig(hidden_sizes=[8, 12, 16, 24], depths=[1, 1, 1, 1], image_size=SIDE)
        processor = transformers.ConvNextImageProcessor(size={"shortest_edge": SIDE}, crop_pct=0.875)
    _save(kind_of, config, folder, seed)
    processor.save_pretrained(folder)
    return folder


def write_timm(folder, *, seed=0):
    """Write a vision transformer of timm, as timm does for the hub."""
    import timm

    folder = _made(folder)
    sizes = {"embed_dim": 24, "depth": 2, "num_heads": 2, "img_size": SIDE, "patch_size": 8}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = timm.create_model("vit_tiny_patch16_224", num_classes=5, **sizes)
        _stir(network)
    timm.models.save_for_hf(
        network, folder, model_config={"input_size": (3, SIDE, SIDE), "crop_pct": 0.8}, model_args=sizes
    )
    return folder


def _made(folder):
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _save(kind, config, folder, seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = kind(config).eval()
        _stir(model)
        model.save_pretrained(folder)


def _stir(model):
    for name, parameter in model.named_parameters():  # libraries' own starts are so small that all answers are alike
        if name == "logit_bias":
            parameter.data.fill_(-7.0)
        elif name != "logit_scale":
            parameter.data.add_(torch.randn_like(parameter) * 0.2)
        elif not parameter.data.any():
            parameter.data.fill_(2.0)  # by its logarithm
