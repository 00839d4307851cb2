"""Batches of texts with nothing padded: all tokens in one row, and where each text starts.

A causal convolution of width two needs only each position and the one before it. On packed tokens it is a gather
and one matrix product: no padding is ever computed, batch norm sees real positions only, and a text's features
cannot depend on how long its neighbours in the batch are.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from sklearn_mm.registry import stored_as

__all__ = ["PackedTexts", "WordLinear", "drop_words", "segment_ids", "segment_max", "segment_mean"]

_ROW_BLOCK = 64  # rows are rounded up to multiples of it; see WordLinear


class PackedTexts(NamedTuple):
    """Token ids of a batch of texts.

    Attributes
    ----------
    ids : Tensor of shape (n_tokens,), int64
        The ids of all texts, one text after the other.
    lengths : Tensor of shape (n_texts,), int64
        Tokens in each text; 0 is allowed.
    shifts : Tensor of shape (n_texts,), int64
        How many empty positions stand before each text.
    """

    ids: Tensor
    lengths: Tensor
    shifts: Tensor

    def take(self, rows: Tensor) -> "PackedTexts":
        """Return the batch of some texts, in the order given."""
        lengths = self.lengths[rows]
        starts = torch.cumsum(self.lengths, 0) - self.lengths
        first = torch.cumsum(lengths, 0) - lengths
        text = segment_ids(lengths)  # (n_tokens taken,)
        within = torch.arange(len(text), device=text.device) - first[text]
        return PackedTexts(self.ids[starts[rows][text] + within], lengths, self.shifts[rows])

    def join(self, other: "PackedTexts") -> "PackedTexts":
        """Return the batch of these texts, then of the other's."""
        return PackedTexts(*(torch.cat(parts) for parts in zip(self, other, strict=True)))


def segment_ids(lengths: Tensor) -> Tensor:
    """Return the segment of each element, shape (sum of lengths,), int64."""
    # with counts alone, torch repeats the positions themselves
    return torch.repeat_interleave(lengths)


def segment_max(values: Tensor, lengths: Tensor) -> Tensor:
    """Take the maximum over each segment; an empty segment gives 0.

    Parameters
    ----------
    values : Tensor of shape (n, d)
    lengths : Tensor of shape (n_segments,), int64

    Returns
    -------
    Tensor of shape (n_segments, d)
    """
    index = segment_ids(lengths)[:, None].expand_as(values)
    out = values.new_zeros(len(lengths), values.shape[1])
    # the zeros of `out` are for empty segments only: a maximum below 0 stays below 0
    return out.scatter_reduce(0, index, values, reduce="amax", include_self=False)


def segment_mean(values: Tensor, lengths: Tensor) -> Tensor:
    """Take the mean over each segment; an empty segment gives 0. Shapes as in `segment_max`."""
    out = values.new_zeros(len(lengths), values.shape[1])
    return out.index_add(0, segment_ids(lengths), values) / lengths.clamp(min=1)[:, None].to(values.dtype)


def drop_words(words: Tensor, share: float) -> Tensor:
    """Replace some word vectors, rows of (n_tokens, word_dim), by 0, and enlarge the others to keep the mean."""
    # one draw a word, over all of its components
    return words * nn.functional.dropout(words.new_ones(len(words), 1), share)


@stored_as("nn.WordLinear")
class WordLinear(nn.Linear):
    """A linear layer over the words of a batch, whose number differs from batch to batch.

    In bfloat16 a CPU compiles a kernel for each new number of rows. Rounded up, the numbers come again: in training,
    1.6 times as fast was measured for a convolutional network and 1.4 for phrases.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Map (n_words, in_features) to (n_words, out_features)."""
        n_words = len(input)
        n_missing = -n_words % _ROW_BLOCK
        # in float32 no kernel is compiled, and padding would only cost
        if n_missing and input.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            return super().forward(nn.functional.pad(input, (0, 0, 0, n_missing)))[:n_words]
        return super().forward(input)
