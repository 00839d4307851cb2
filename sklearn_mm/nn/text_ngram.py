"""Bag of words or n-grams through a multi-layer perceptron (Baqapuri 2016)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sklearn_mm.nn.heads import mlp
from sklearn_mm.nn.packed import PackedTexts
from sklearn_mm.registry import stored_as

__all__ = ["TextNGram"]


@stored_as("nn.TextNGram")
class TextNGram(nn.Module):
    """Embed texts by the weighted sum of their terms' vectors, then a multi-layer perceptron.

    Parameters
    ----------
    n_terms : int
        Terms of the vocabulary; ids run from 1 to n_terms.
    n_components : int
        Width of the output.
    term_dim : int
        Length of the term vectors: the first layer of the perceptron, computed from the sparse bag alone.
    hidden_layer_sizes : sequence of int
    dropout : float
        Share of terms dropped from each text, and of hidden units, in training.
    word_learning_rate : float
        Factor on the learning rate of the term vectors.

    Notes
    -----
    Each term has a learned weight besides its vector, so that rare and telling words may count for more. The sum is
    divided by the square root of the number of terms: between the mean, which forgets how much was said, and the sum.
    """

    def __init__(
        self,
        n_terms: int,
        n_components: int,
        *,
        term_dim: int = 300,
        hidden_layer_sizes: Sequence[int] = (1024,),
        dropout: float = 0.0,
        word_learning_rate: float = 1.0,
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "n_terms": n_terms,
            "n_components": n_components,
            "term_dim": term_dim,
            "hidden_layer_sizes": list(hidden_layer_sizes),
            "dropout": dropout,
            "word_learning_rate": word_learning_rate,
        }
        self.learning_rate_factors = {"terms": word_learning_rate}
        # summed while it is looked up: a row for each term of the batch is never in memory
        self.terms = nn.EmbeddingBag(n_terms + 1, term_dim, mode="sum", padding_idx=0)
        self.weights = nn.Parameter(torch.ones(n_terms + 1))
        self.dropout = dropout
        self.hidden = mlp(term_dim, hidden_layer_sizes, n_components, dropout=dropout)
        nn.init.normal_(self.terms.weight, std=term_dim**-0.5)
        with torch.no_grad():
            # padding_idx keeps row 0 from learning, but normal_ has drawn it as well
            self.terms.weight[0] = 0

    def forward(self, texts: PackedTexts) -> Tensor:
        """Embed `texts`: (n_texts, n_components) float32."""
        starts = torch.cumsum(texts.lengths, 0) - texts.lengths
        weights = self.weights[texts.ids]
        if self.training and self.dropout:
            # a term of weight 0 is out of the sum: whole terms are dropped
            weights = nn.functional.dropout(weights, self.dropout)
        bag = self.terms(texts.ids, starts, per_sample_weights=weights)  # (n_texts, term_dim)
        # an empty bag is 0 times 1, not 0 times infinity
        return self.hidden(bag * texts.lengths.clamp(min=1).rsqrt()[:, None])
