"""What an opened pretrained model is, whichever library it is of."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from sklearn_mm._content import content_digest, weights_digest
from sklearn_mm.registry import find, name_of, stored_as

__all__ = ["OpenedModel", "PretrainedModule", "TextTokenizer", "TokenBatch", "pad_tokens", "rebuild"]


@stored_as("nn.TokenBatch")
class TokenBatch(NamedTuple):
    """Token ids of a batch of texts, filled up at the end.

    Attributes
    ----------
    ids : Tensor of shape (n_texts, n_tokens), int64
    mask : Tensor of shape (n_texts, n_tokens), int64
        1 where a token is, 0 where there is filling.
    pad : int
        The id that fills: some models count their positions by it.
    """

    ids: Tensor
    mask: Tensor
    pad: int

    def take(self, rows: Tensor) -> "TokenBatch":
        """Return the batch of some texts, in the order given."""
        return TokenBatch(self.ids[rows], self.mask[rows], self.pad)

    def join(self, other: "TokenBatch") -> "TokenBatch":
        """Return the batch of these texts, then of the other's."""
        n_tokens = max(self.ids.shape[1], other.ids.shape[1])
        parts = [batch.widened(n_tokens) for batch in (self, other)]
        return TokenBatch(torch.cat([part.ids for part in parts]), torch.cat([part.mask for part in parts]), self.pad)

    def widened(self, n_tokens: int) -> "TokenBatch":
        """Return the same texts, filled up to so many tokens each."""
        missing = (0, n_tokens - self.ids.shape[1])
        pad = nn.functional.pad
        return TokenBatch(pad(self.ids, missing, value=self.pad), pad(self.mask, missing), self.pad)


class TextTokenizer(ABC):
    """From texts to token ids, as a model was trained to read them; a dataclass of plain values, as it is saved.

    Attributes
    ----------
    max_length : int
        Tokens of a text at most, those that begin and end each text with them.
    pad_id : int
        The id that fills up texts.
    pad_to : int or None
        The length to which all texts are filled up; None for that of the longest in the batch.
    """

    max_length: int
    pad_id: int
    pad_to: int | None

    @abstractmethod
    def encode(self, texts: Sequence[str]) -> tuple[list[list[int]], list[int]]:
        """Return the ids of each text, not filled up, and the rows of those that were cut."""


def pad_tokens(ids: np.ndarray, lengths: np.ndarray, tokenizer: TextTokenizer) -> TokenBatch:
    """Fill up texts, given as their ids one after the other (n_tokens,) and how many each has (n_texts,)."""
    width = tokenizer.pad_to or int(lengths.max(initial=1))
    mask = np.arange(width) < lengths[:, None]
    filled = np.full(mask.shape, tokenizer.pad_id, dtype=np.int64)
    filled[mask] = ids  # row by row, as the ids stand
    return TokenBatch(torch.from_numpy(filled), torch.from_numpy(mask.astype(np.int64)), tokenizer.pad_id)


class PretrainedModule(nn.Module):
    """A network that came pretrained: a text tower maps a `TokenBatch`, an image tower crops (n, s, s, 3) uint8.

    A subclass is decorated by `stored_as`, and is built from ``config`` alone, with random weights.

    Attributes
    ----------
    config : dict
        The constructor's arguments, plain values.
    width : int
        Of the output, (n, width) float32.
    lora_targets : tuple of str
        Names of the linear layers that LoRA may enter.
    """

    config: dict[str, Any]
    width: int
    lora_targets: tuple[str, ...] = ()
    learning_rate_factors: dict[str, float]  # see `make_optimizer`; set by whoever trains it

    def restore_buffers(self, names: Collection[str]) -> None:
        """Fill buffers that no state dict holds, such as tables of positions."""
        # Not by forked_rng: transformers puts its own functions in the place of those that torch draws by.
        with torch.random.fork_rng(devices=[]):
            fresh = dict(type(self)(**self.config).named_buffers())
        for name in names:
            self.get_buffer(name).copy_(fresh[name])


def rebuild(name: str, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> Any:
    """Build a module from the name it is stored under, its ``config`` and its state dict."""
    with torch.device("meta"):
        module: Any = find(name)(**config)
    unsaved = {key for key, _ in module.named_buffers()} - state.keys()
    module.to_empty(device="cpu")
    module.load_state_dict(state, strict=True)
    if unsaved:
        module.restore_buffers(unsaved)
    return module.eval()


@dataclass
class OpenedModel:
    """One tower of a pretrained model, in evaluation mode, on the CPU.

    Attributes
    ----------
    module : PretrainedModule
    tokenizer : TextTokenizer or None
        Of a text tower.
    logit_scale, logit_bias : float or None
        What a dual encoder multiplies the cosine by and adds to it before its softmax or sigmoid.
    trained_on : tuple of str or None
        Names of the data it was trained on; None where they are not known.
    """

    module: PretrainedModule
    tokenizer: TextTokenizer | None = None
    logit_scale: float | None = None
    logit_bias: float | None = None
    trained_on: tuple[str, ...] | None = None

    @property
    def identity(self) -> str:
        """Return what tells the model from others: a digest of its weights, its configuration and its tokens."""
        module = self.module
        return content_digest(name_of(type(module)), module.config, weights_digest(module.state_dict()), self.tokenizer)
