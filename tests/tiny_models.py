"""Pretrained models of a few kilobytes, with random weights, in the files that their libraries write."""

import json
from pathlib import Path

import torch

WORDS = ["a", "the", "red", "green", "blue", "square", "dot", "box", "two", "dog", "cat", "runs", "##s", "##ning", "in"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def write_bert(folder, *, pooling="mean_tokens", normalize=True, dense=None, max_seq_length=16, seed=0, prompts=None):
    """Write a sentence encoder as sentence-transformers would; with pooling=None a transformer alone."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join([*SPECIAL, *WORDS]))
    BertTokenizerFast(vocab={word: i for i, word in enumerate([*SPECIAL, *WORDS])}).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(SPECIAL) + len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = BertModel(config).eval()
        for parameter in model.parameters():  # the library's own start is so small that all texts are alike
            parameter.data.add_(torch.randn_like(parameter) * 0.2)
        model.save_pretrained(folder)
        if pooling is not None:
            _write_stages(folder, pooling, normalize, dense, max_seq_length, prompts)
    return folder


def _write_stages(folder, pooling, normalize, dense, max_seq_length, prompts):
    stages = [("", "Transformer"), ("1_Pooling", "Pooling")]
    _write(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": 16, f"pooling_mode_{pooling}": True})
    if dense is not None:
        from safetensors.torch import save_file

        stages.append((f"{len(stages)}_Dense", "Dense"))
        sizes = {"in_features": 16, "out_features": dense, "bias": True}
        _write(
            folder / stages[-1][0] / "config.json",
            {**sizes, "activation_function": "torch.nn.modules.activation.Tanh"},
        )
        weights = {"linear.weight": torch.randn(dense, 16), "linear.bias": torch.randn(dense)}
        save_file(weights, folder / stages[-1][0] / "model.safetensors")
    if normalize:
        stages.append((f"{len(stages)}_Normalize", "Normalize"))
        (folder / stages[-1][0]).mkdir(exist_ok=True)
    _write(
        folder / "modules.json",
        [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (path, kind) in enumerate(stages)
        ],
    )
    _write(folder / "sentence_bert_config.json", {"max_seq_length": max_seq_length, "do_lower_case": False})
    if prompts is not None:
        _write(
            folder / "config_sentence_transformers.json",
            {"prompts": prompts, "default_prompt_name": next(iter(prompts))},
        )


def _write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
