"""The text path of the dual-path network: residual blocks of causal 1x2 convolutions over words.

Zheng, Zheng, Garrett, Yang, Xu and Shen, Dual-Path Convolutional Image-Text Embeddings with Instance Loss,
ACM TOMM 16(2), 2020, section 3; stage widths and strides as in the authors' released code.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sklearn_mm.nn.packed import PackedTexts, WordLinear, segment_ids, segment_max
from sklearn_mm.registry import stored_as

__all__ = ["SHIFT_PERIOD", "TextCNN"]


class _Stage(NamedTuple):
    n_blocks: int
    first_width: int  # the first block of a stage is no bottleneck
    width: int
    out_width: int
    stride: int


_STAGES = (
    _Stage(3, 128, 64, 256, 1),
    _Stage(4, 512, 128, 512, 2),
    _Stage(6, 1024, 256, 1024, 2),
    _Stage(1, 2048, 512, 2048, 1),
)
_BATCH_NORM_EPS = 1e-3  # of the released code
_LEAST_WIDTH = 8  # small factors on the widths leave no layer without channels

SHIFT_PERIOD = 4
"""The product of the strides: shifting a text by so many empty positions changes none of its features."""


class _Window(NamedTuple):
    """Where the two inputs of each output position of a causal 1x2 convolution stand, 0 meaning "empty"."""

    previous: Tensor  # (n_out,), row of the input plus 1
    current: Tensor  # (n_out,)


def _windows(lengths: Tensor, offsets: Tensor, stride: int) -> tuple[_Window, Tensor, Tensor]:
    """Lay out one convolution over packed texts.

    Parameters
    ----------
    lengths, offsets : Tensor of shape (n_texts,), int64
        Positions in each text, and the position of its first one.
    stride : {1, 2}

    Returns
    -------
    window : _Window
    lengths, offsets : Tensor of shape (n_texts,), int64
        The same for the output: output j reads positions ``stride * j - 1`` and ``stride * j``.
    """
    ends = offsets + lengths  # one past the last position
    # Output j stands at position stride * j; the first is the first at or behind the first word. The last one is the
    # last whose window sees the text; with stride 1 the one that sees only its last word, as "previous", is left
    # out, and the length stays.
    out_offsets = (offsets + stride - 1) // stride
    out_ends = torch.where(lengths > 0, (ends - 1 + stride - 1) // stride + 1, out_offsets)
    out_lengths = out_ends - out_offsets
    text = segment_ids(out_lengths)  # (n_out,)
    first_out = torch.cumsum(out_lengths, 0) - out_lengths
    first_in = torch.cumsum(lengths, 0) - lengths
    within = torch.arange(len(text), device=lengths.device) - first_out[text]  # (n_out,)
    position = (out_offsets[text] + within) * stride
    row = first_in[text] + position - offsets[text] + 1  # row 0 is the empty one
    is_current = position < ends[text]
    is_previous = position > offsets[text]
    zero = row.new_zeros(())
    window = _Window(torch.where(is_previous, row - 1, zero), torch.where(is_current, row, zero))
    return window, out_lengths, out_offsets


def _with_empty_row(values: Tensor) -> Tensor:
    return torch.cat([values.new_zeros(1, values.shape[1]), values])


def _batch_norm(width: int) -> nn.BatchNorm1d:
    return nn.BatchNorm1d(width, eps=_BATCH_NORM_EPS)


@stored_as("nn.TextCNNBlock")
class _Block(nn.Module):
    """1x1, causal 1x2, 1x1 convolutions, each with batch norm, around a shortcut."""

    def __init__(self, in_width: int, width: int, out_width: int, *, project: bool) -> None:
        super().__init__()
        # no biases: a batch norm follows each layer and takes its mean away
        self.reduce = WordLinear(in_width, width, bias=False)
        self.reduce_norm = _batch_norm(width)
        self.window = WordLinear(2 * width, width, bias=False)  # the 1x2 convolution
        self.window_norm = _batch_norm(width)
        self.expand = WordLinear(width, out_width, bias=False)
        self.expand_norm = _batch_norm(out_width)
        self.shortcut = WordLinear(in_width, out_width, bias=False) if project else None
        self.shortcut_norm = _batch_norm(out_width) if project else None

    def forward(self, x: Tensor, window: _Window, strided: bool) -> Tensor:
        h = torch.relu(self.reduce_norm(self.reduce(x)))
        # behind norm and ReLU: it is the convolution that is padded by 0, as published
        h = _with_empty_row(h)
        h = self.window(torch.cat([h[window.previous], h[window.current]], dim=1))  # (n_out, width)
        h = torch.relu(self.window_norm(h))
        h = self.expand_norm(self.expand(h))
        if strided:
            # the shortcut has the stride of the convolution beside it, and no window
            x = _with_empty_row(x)[window.current]
        if self.shortcut is not None and self.shortcut_norm is not None:
            x = self.shortcut_norm(self.shortcut(x))
        return torch.relu(h + x)


@stored_as("nn.TextCNN")
class TextCNN(nn.Module):
    """Embed texts by a residual convolutional network with maximum over time.

    Parameters
    ----------
    n_words : int
        Words of the vocabulary; ids run from 1 to n_words.
    n_components : int
        Width of the output.
    width : float
        Factor on the published widths of the stages (256, 512, 1024, 2048).
    word_dim : int
        Length of the word vectors.
    dropout : float
        Share of the pooled features dropped in training.
    average_shifts : bool
        In evaluation mode, average over the shifts 0 to 3 instead of using the one given.
    final_relu : bool
        In training, end with a ReLU; in evaluation mode, with what would enter it.
    word_learning_rate : float
        Factor on the learning rate of the word vectors and of their common bias.

    Notes
    -----
    Input is a `PackedTexts`. Positions outside a text are empty in every layer, where the published network, padded
    to a fixed length, carries batch-norm constants there and lets them into the maximum. So features do not depend
    on the batch, and shifts by multiples of four are one and the same.
    """

    def __init__(
        self,
        n_words: int,
        n_components: int,
        *,
        width: float = 1.0,
        word_dim: int = 300,
        dropout: float = 0.0,
        average_shifts: bool = True,
        final_relu: bool = False,
        word_learning_rate: float = 1.0,
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "n_words": n_words,
            "n_components": n_components,
            "width": width,
            "word_dim": word_dim,
            "dropout": dropout,
            "average_shifts": average_shifts,
            "final_relu": final_relu,
            "word_learning_rate": word_learning_rate,
        }
        self.learning_rate_factors = {"words": word_learning_rate, "word_bias": word_learning_rate}
        self.words = nn.Embedding(n_words + 1, word_dim, padding_idx=0)
        # conv0 of the source, a 1x1 convolution over one-hot words, has a bias; its slow rate is of both
        self.word_bias = nn.Parameter(torch.zeros(word_dim))
        self.word_norm = _batch_norm(word_dim)
        self.stages = nn.ModuleList()
        in_width = word_dim
        for stage in _STAGES:
            first_width, middle_width, out_width = (
                max(_LEAST_WIDTH, round(width * published))
                for published in (stage.first_width, stage.width, stage.out_width)
            )
            blocks = nn.ModuleList()
            for number in range(stage.n_blocks):
                middle = first_width if number == 0 else middle_width
                # only where the width or the length changes, at the start of a stage, can the shortcut not be plain
                blocks.append(_Block(in_width, middle, out_width, project=number == 0))
                in_width = out_width
            self.stages.append(blocks)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(in_width, n_components, bias=False)
        self.output_norm = _batch_norm(n_components)
        self.average_shifts = average_shifts
        self.final_relu = final_relu
        self._initialize()

    def _initialize(self) -> None:
        """Draw the weights as He et al. (2015): normal, variance 2 / fan-in; words with variance 1 / word_dim.

        Blocks with a plain shortcut start as that shortcut alone (Goyal et al., Accurate, Large Minibatch SGD, 2017,
        section 5.1): fourteen random blocks in a row leave little of the words to learn from.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            elif isinstance(module, _Block) and module.shortcut is None:
                nn.init.zeros_(module.expand_norm.weight)
        nn.init.normal_(self.words.weight, std=self.words.embedding_dim**-0.5)
        with torch.no_grad():
            # padding_idx keeps row 0 from learning, but normal_ has drawn it as well
            self.words.weight[0] = 0

    def forward(self, texts: PackedTexts) -> Tensor:
        """Embed `texts`: (n_texts, n_components) float32."""
        if self.training:
            embedding = self._embed(texts)
            # the source trains behind the last ReLU and searches before it
            return torch.relu(embedding) if self.final_relu else embedding
        if not self.average_shifts:
            return self._embed(texts)
        # the source sums all shifts of a text in its fixed length; all that differ are four here
        shifted = [self._embed(texts._replace(shifts=torch.full_like(texts.shifts, n))) for n in range(SHIFT_PERIOD)]
        return torch.stack(shifted).mean(dim=0)

    def _embed(self, texts: PackedTexts) -> Tensor:
        lengths, offsets = texts.lengths, texts.shifts
        x = self.word_norm(self.words(texts.ids) + self.word_bias)  # (n_tokens, word_dim)
        for stage, blocks in zip(_STAGES, self.stages, strict=True):
            for number, block in enumerate(blocks.children()):
                strided = number == 0 and stage.stride > 1
                if number == 0:
                    window, out_lengths, out_offsets = _windows(lengths, offsets, stage.stride)
                    lengths, offsets = out_lengths, out_offsets
                elif number == 1:
                    # laid out once: the other blocks of a stage all have stride 1 and the same positions
                    window, _, _ = _windows(lengths, offsets, 1)
                x = block(x, window, strided)
        # the maximum is what the released code takes
        pooled = segment_max(x, lengths)  # (n_texts, top width)
        return self.output_norm(self.output(self.dropout(pooled)))
