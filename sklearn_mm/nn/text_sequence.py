"""Supervised sequence embedding: windows of words, weighted by where they stand (Bespalov et al. 2012)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sklearn_mm.nn.heads import mlp
from sklearn_mm.nn.packed import PackedTexts, WordLinear, drop_words, segment_ids
from sklearn_mm.registry import stored_as

__all__ = ["TextSequence"]


@stored_as("nn.TextSequence")
class TextSequence(nn.Module):
    """Embed texts by phrases: windows of words, mapped to vectors and summed with weights of their positions.

    Parameters
    ----------
    n_words : int
        Words of the vocabulary; ids run from 1 to n_words.
    n_components : int
        Width of the output.
    window : int
        Words a phrase.
    word_dim : int
        Length of the word vectors.
    phrase_dim : int
        Length of the phrase vectors.
    n_positions : int
        Weights learned over the length of a text; 1 for equal weights.
    hidden_layer_sizes : sequence of int
        Layers between the sum of the phrases and the output.
    dropout : float
        Share of words dropped from each text, and of hidden units, in training.
    word_learning_rate : float
        Factor on the learning rate of the word vectors.

    Notes
    -----
    Input is a `PackedTexts`; its shifts are not looked at. Each word ends one phrase; in the phrases of the first
    words, what stands before the text is a zero vector. So a text has as many phrases as words, however short it is.

    The weights belong to points spread evenly from the beginning of a text to its end; a phrase has what lies between
    the two points nearest to it. The sum is divided by the square root of the number of phrases.
    """

    def __init__(
        self,
        n_words: int,
        n_components: int,
        *,
        window: int = 3,
        word_dim: int = 300,
        phrase_dim: int = 1024,
        n_positions: int = 8,
        hidden_layer_sizes: Sequence[int] = (),
        dropout: float = 0.0,
        word_learning_rate: float = 1.0,
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "n_words": n_words,
            "n_components": n_components,
            "window": window,
            "word_dim": word_dim,
            "phrase_dim": phrase_dim,
            "n_positions": n_positions,
            "hidden_layer_sizes": list(hidden_layer_sizes),
            "dropout": dropout,
            "word_learning_rate": word_learning_rate,
        }
        self.learning_rate_factors = {"words": word_learning_rate}
        self.words = nn.Embedding(n_words + 1, word_dim)
        self.window = window
        self.phrase = WordLinear(window * word_dim, phrase_dim)
        # alike at first: a plain sum until training says otherwise
        self.position_weights = nn.Parameter(torch.ones(n_positions))
        self.dropout = dropout
        self.hidden = mlp(phrase_dim, hidden_layer_sizes, n_components, dropout=dropout)
        # a word vector then has about unit length
        nn.init.normal_(self.words.weight, std=word_dim**-0.5)
        nn.init.normal_(self.phrase.weight, std=window**-0.5)  # then what enters tanh has variance 1
        nn.init.zeros_(self.phrase.bias)

    def forward(self, texts: PackedTexts) -> Tensor:
        """Embed `texts`: (n_texts, n_components) float32."""
        text = segment_ids(texts.lengths)  # (n_tokens,)
        first = torch.cumsum(texts.lengths, 0) - texts.lengths
        within = torch.arange(len(text), device=text.device) - first[text]
        words = self.words(texts.ids)  # (n_tokens, word_dim)
        if self.training and self.dropout:
            words = drop_words(words, self.dropout)
        phrases = torch.tanh(self.phrase(self._windows(words, within)))  # (n_tokens, phrase_dim)
        weighted = phrases * self._weights(within, texts.lengths[text])[:, None]
        total = weighted.new_zeros(len(texts.lengths), weighted.shape[1]).index_add(0, text, weighted)
        # a text without words is a sum of nothing: 0 times 1, not 0 times infinity
        return self.hidden(total * texts.lengths.clamp(min=1).to(total.dtype).rsqrt()[:, None])

    def _windows(self, words: Tensor, within: Tensor) -> Tensor:
        """Join each word to those before it, shape (n_tokens, window * word_dim)."""
        padded = torch.cat([words.new_zeros(1, words.shape[1]), words])  # row 0 stands for "before the text"
        row = torch.arange(1, len(words) + 1, device=words.device)
        back = torch.arange(self.window - 1, -1, -1, device=words.device)  # (window,), the first word of a phrase first
        # packed texts follow each other: without this the end of the text before would be read
        rows = torch.where(within[:, None] >= back, row[:, None] - back, 0)  # (n_tokens, window)
        return padded[rows].flatten(1)

    def _weights(self, within: Tensor, lengths: Tensor) -> Tensor:
        """Return the weight of each phrase, shape (n_tokens,)."""
        last = len(self.position_weights) - 1
        place = (within.to(self.position_weights.dtype) + 0.5) / lengths * last  # between 0 and last
        low = place.long()
        high = (low + 1).clamp(max=last)  # of one point, the point itself
        return torch.lerp(self.position_weights[low], self.position_weights[high], place - low)
