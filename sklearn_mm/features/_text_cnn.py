"""The dual-path network's text encoder."""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from sklearn_mm._docs import shared_docs
from sklearn_mm._params import Interval, Real
from sklearn_mm.features._text_base import TextEncoderBase
from sklearn_mm.nn.text_cnn import SHIFT_PERIOD, TextCNN
from sklearn_mm.registry import stored_as

__all__ = ["TextCNNEncoder"]


@shared_docs
@stored_as("features.TextCNNEncoder")
class TextCNNEncoder(TextEncoderBase):
    """Embed sentences by the residual text CNN of the dual-path network [1]_.

    Word vectors, then fourteen residual blocks of causal 1x2 convolutions in four stages, the maximum over time and
    a linear map with batch norm.

    Parameters
    ----------
    n_components : int, default=1024
        Width of the embedding (2048 in the source).
    width : float, default=0.25
        Factor on the published widths of the stages, 256, 512, 1024 and 2048; 1.0 is the source's network.
    word_dim : int, default=300
        Length of the word vectors; that of `word_vectors`, where they are given.
    %(word_vectors)s
    word_learning_rate : float, default=1.0
        Factor on the learning rate of the word vectors, here and inside a ranker (1e-3 in the source).
    position_shift : bool, default=True
        In training, put each text at a random offset; in use, average over all offsets that differ.
    final_relu : bool, default=False
        Train on the embedding after a last ReLU, and embed without it, as the source does. Only for an encoder that
        ends in the joint space itself: a head on top of it would see one thing in training and another in use.
    dropout : float, default=0.0
        Share of the pooled features dropped in training.
    %(tokenizer)s
    max_epochs : int, default=30
        Passes over the texts in `fit`. These and the following parameters are of no effect inside a ranker, which
        trains the network by its own settings.
    batch_size : int, default=128
    %(trained_alone)s
    random_state : int, RandomState or None, default=None
    device : str or torch.device, default="auto"
    %(precision)s
    %(kept_and_shown)s

    Attributes
    ----------
    vocabulary_ : list of str
        The known words, by falling frequency.
    word_coverage_ : float or None
        Share of them that `word_vectors` hold; None without word vectors.
    module_ : TextCNN
    %(instance_history)s

    See Also
    --------
    TextNGramEncoder : Bag of words or n-grams, several times faster.
    TextGRUEncoder : A recurrent network.
    TextSequenceEncoder : Windows of words, weighted by position.

    Notes
    -----
    No position is padded: features do not depend on the other texts of a batch, batch norm sees words only, and the
    time is that of the words there are. The source pads each text to 32 or 56 positions and lets what batch norm makes
    of the empty ones into the maximum. Ten of the fourteen blocks start as their shortcut alone, from scale 0 of their
    last batch norm, where the source's start from scale 1: without that the network learns several times more slowly.
    The source sums over all offsets of the text in those positions; as the network
    looks the same at every fourth, we average over four. In `fit` the classifier's weights and the features are scaled
    to unit length; the source's are not.

    %(threads)s

    References
    ----------
    .. [1] Zheng, Zheng, Garrett, Yang, Xu, Shen, "Dual-Path Convolutional Image-Text Embeddings with Instance Loss",
       ACM TOMM 16(2), 2020, https://arxiv.org/abs/1711.05535

    Examples
    --------
    >>> from sklearn_mm.features import TextCNNEncoder
    >>> texts = ["a red square", "the square is red", "two blue dots", "dots in blue"]
    >>> encoder = TextCNNEncoder(n_components=8, width=0.05, max_epochs=5, random_state=0)
    >>> encoder.fit(texts, y=[0, 0, 1, 1]).transform(["a blue square"]).shape
    (1, 8)
    """

    _parameter_constraints: dict[str, Any] = {
        **TextEncoderBase._parameter_constraints,
        "width": [Interval(Real, 0, None, closed="neither")],
        "position_shift": ["boolean"],
        "final_relu": ["boolean"],
    }

    def __init__(
        self,
        n_components: int = 1024,
        *,
        width: float = 0.25,
        word_dim: int = 300,
        word_vectors: Any = None,
        trainable_words: bool = True,
        word_learning_rate: float = 1.0,
        position_shift: bool = True,
        final_relu: bool = False,
        dropout: float = 0.0,
        lowercase: bool = True,
        token_pattern: str | None = None,
        min_df: int | float = 1,
        max_features: int | None = None,
        analyzer: str | Callable[[str], list[str]] = "word",
        unicode_form: str | None = "NFC",
        max_epochs: int = 30,
        batch_size: int = 128,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
        temperature: float = 0.05,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 5,
        random_state: Any = None,
        device: Any = "auto",
        precision: str = "auto",
        checkpoint: str | os.PathLike[str] | None = None,
        verbose: int = 0,
    ) -> None:
        self.n_components = n_components
        self.width = width
        self.word_dim = word_dim
        self.word_vectors = word_vectors
        self.trainable_words = trainable_words
        self.word_learning_rate = word_learning_rate
        self.position_shift = position_shift
        self.final_relu = final_relu
        self.dropout = dropout
        self.lowercase = lowercase
        self.token_pattern = token_pattern
        self.min_df = min_df
        self.max_features = max_features
        self.analyzer = analyzer
        self.unicode_form = unicode_form
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.temperature = temperature
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.random_state = random_state
        self.device = device
        self.precision = precision
        self.checkpoint = checkpoint
        self.verbose = verbose

    def _make_module(self, n_words: int, word_dim: int) -> TextCNN:
        return TextCNN(
            n_words,
            self.n_components,
            width=self.width,
            word_dim=word_dim,
            dropout=self.dropout,
            word_learning_rate=self.word_learning_rate,
            average_shifts=self.position_shift,
            final_relu=self.final_relu,
        )

    def _word_table(self) -> Tensor:
        table: Tensor = self.module_.words.weight
        return table

    def _draw_shifts(self, n_texts: int, rng: np.random.Generator | None) -> np.ndarray:
        if rng is None or not self.position_shift:
            return super()._draw_shifts(n_texts, rng)
        return rng.integers(SHIFT_PERIOD, size=n_texts)  # more would be the same features again
