"""The blocks of transformers and ConvNeXts, what they answer, and which of their tokens are none of the patches."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sklearn_mm.nn.pooling import pooled

__all__ = ["Block", "find_blocks"]

# Tokens before those of the picture's patches, by the last part of their parameter's name in the networks of timm,
# torchvision, transformers and open_clip.
_CLASS_TOKENS = {"cls_token", "class_token", "class_embedding"}
_OTHER_TOKENS = {"dist_token", "distillation_token", "reg_token", "register_tokens", "storage_tokens"}


@dataclass(frozen=True)
class Block:
    """How to read what a block answers.

    Attributes
    ----------
    n_prefix : int
        Tokens before those of the patches: the class token, one of distillation, registers. A block that runs before
        they are added (CaiT, XCiT) shows it by a number of tokens that is a square, as patches of a square picture are.
    has_class : bool
        Whether the first of them is the class token.
    width : int
        Channels; 0 where they are not known.
    has_maps : bool
        Whether a four-dimensional answer is (n, c, h, w) where its shape leaves that open; else (n, h, w, c).
    rows_second : bool
        Whether tokens are (n_tokens, n, c), as torch's own attention has them by default.
    """

    n_prefix: int
    has_class: bool
    width: int
    has_maps: bool
    rows_second: bool

    def pooled(self, answer: Any, n_rows: int, ways: Sequence[str]) -> dict[str, Tensor] | None:
        """Return the class token, and what is pooled of the others: by part, float32 (n_rows, width).

        None if these are no tokens and no maps, or not those of each picture, as of a block that sees windows.
        """
        value = answer[0] if isinstance(answer, tuple | list) and answer else answer
        if not isinstance(value, Tensor) or value.ndim < 3:
            return None
        if value.ndim == 3 and self.rows_second:
            value = value.transpose(0, 1)
        if value.shape[0] != n_rows:
            return None
        if value.ndim != 3:
            return pooled(value, self._channel_dim(value), ways)
        n_prefix = self._n_prefix_among(value.shape[1])
        # a copy, as what comes next may change it in place
        parts = {"class": value[:, 0].to(torch.float32, copy=True)} if self.has_class and n_prefix else {}
        patches = value[:, n_prefix:]
        return {**parts, **pooled(patches, -1, ways)} if patches.shape[1] else parts

    def _n_prefix_among(self, n_tokens: int) -> int:
        is_bare = _is_square(n_tokens) and not _is_square(n_tokens - self.n_prefix)
        return 0 if is_bare else self.n_prefix

    def _channel_dim(self, value: Tensor) -> int:
        places = [dim for dim in (1, -1) if value.shape[dim] == self.width]
        return places[0] if len(places) == 1 else 1 if self.has_maps else -1


def find_blocks(network: nn.Module) -> dict[str, Block]:
    """Return the blocks of a network by name; none for one that is made of plain convolutions.

    A block is an item of a ``nn.Sequential`` or a ``nn.ModuleList`` that has a layer norm (or an RMS norm) and two or
    more linear maps (fully connected, or convolutions of kernel 1) in it, and no smaller block: what ViTs, DeiTs,
    Swins, ConvNeXts and MLP mixers repeat, in whatever library.
    """
    modules = dict(network.named_modules())
    found: dict[str, nn.Module] = {}
    # what holds others comes before them: backwards, the smaller are met first
    for name, module in reversed(modules.items()):
        parent = modules[name.rpartition(".")[0]] if name else None
        is_item = isinstance(parent, nn.Sequential | nn.ModuleList)
        if is_item and _is_block(module) and not any(other.startswith(f"{name}.") for other in found):
            found[name] = module
    # the one attention block of a network of convolutions does not make it a transformer
    if len(found) < 2:
        return {}
    prefix = _prefix(network)
    return {name: _block(found[name], *prefix) for name in reversed(found)}


def _is_block(module: nn.Module) -> bool:
    inner = list(module.modules())[1:]
    n_linear = sum(
        isinstance(part, nn.Linear) or (isinstance(part, nn.Conv2d) and part.kernel_size == (1, 1)) for part in inner
    )
    return n_linear > 1 and any(map(_is_norm, inner))


def _is_norm(module: nn.Module) -> bool:
    name = type(module).__name__.lower()
    return isinstance(module, nn.LayerNorm | nn.RMSNorm) or name.endswith(("layernorm", "rmsnorm"))


def _block(module: nn.Module, n_prefix: int, has_class: bool) -> Block:
    inner = list(module.modules())[1:]
    # timm's have a kernel over space where they are given maps
    has_maps = any(isinstance(part, nn.Conv2d) for part in inner)
    rows_second = any(isinstance(part, nn.MultiheadAttention) and not part.batch_first for part in inner)
    weights = list(next(part for part in inner if _is_norm(part)).parameters())
    width = weights[0].numel() if weights else 0
    return Block(n_prefix, has_class, width, has_maps, rows_second)


def _prefix(network: nn.Module) -> tuple[int, bool]:
    """Return how many tokens stand before those of the patches, and whether the first is the class token."""
    tokens = {name.rpartition(".")[2]: parameter for name, parameter in network.named_parameters()}
    has_class = any(name in tokens for name in _CLASS_TOKENS)
    declared = getattr(network, "num_prefix_tokens", None)  # timm's networks say it
    if isinstance(declared, int):
        return declared, has_class and declared > 0
    # (1, n, width); or (width,), which is one
    counts = [tokens[name].shape[-2] if tokens[name].ndim > 1 else 1 for name in _OTHER_TOKENS & tokens.keys()]
    return has_class + sum(counts), has_class


def _is_square(number: int) -> bool:
    return number >= 0 and math.isqrt(number) ** 2 == number
