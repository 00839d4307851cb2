"""Supervised sequence embedding, the most specialised text encoder of the global ranking objective."""

import os
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from sklearn_mm._docs import shared_docs
from sklearn_mm._params import positive_int
from sklearn_mm.features._text_base import TextEncoderBase
from sklearn_mm.nn.text_sequence import TextSequence
from sklearn_mm.registry import stored_as

__all__ = ["TextSequenceEncoder"]


@shared_docs
@stored_as("features.TextSequenceEncoder")
class TextSequenceEncoder(TextEncoderBase):
    """Embed sentences by windows of words, weighted by position [1]_ [2]_.

    Each window of words, a phrase, is mapped to a vector by one linear map and tanh; the phrases are summed with
    learned weights of their positions; a perceptron follows.

    Parameters
    ----------
    n_components : int, default=1024
        Width of the embedding.
    window : int, default=3
        Words a phrase.
    phrase_dim : int, default=1024
        Length of the phrase vectors.
    n_positions : int, default=8
        How many weights are learned over the length of a sentence; 1 weighs all phrases alike.
    hidden_layer_sizes : sequence of int, default=()
        Layers between the sum of the phrases and the embedding; each with batch norm and ReLU. Without any, the
        embedding is a linear map of the sum.
    word_dim : int, default=300
        Length of the word vectors; that of `word_vectors`, where they are given.
    %(word_vectors)s
    word_learning_rate : float, default=1.0
        Factor on the learning rate of the word vectors, here and inside a ranker.
    dropout : float, default=0.0
        Share of words dropped from each text, and of hidden units, in training.
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
    module_ : TextSequence
    %(instance_history)s

    See Also
    --------
    TextNGramEncoder : A vector for each n-gram that was seen, and no positions.
    TextCNNEncoder : More layers of windows.

    Notes
    -----
    The parameters grow with the window, not with the number of different n-grams, and phrases never seen have vectors
    too. Nothing is padded to the length of other sentences. A sentence of no known word has no phrase, and the
    embedding of the zero sum.

    Of both sources only the abstracts are at hand: they say that phrases are modelled by the features of their words
    alone, and combined by weights that depend on their positions. **Our choices.** The weights belong to `n_positions`
    points spread evenly over a sentence of whatever length, all 1 at first; a phrase takes what lies, on a straight
    line, between the two points next to it. So sentences longer than any in training need no rule of their own. The sum
    is divided by the square root of the number of phrases. Each word ends a phrase, the first words' being filled up
    with zeros at the front, so that sentences shorter than the window have phrases as at the beginning of longer ones.

    %(threads)s

    References
    ----------
    .. [1] Bespalov, Qi, Bai, Shokoufandeh, "Sentiment Classification with Supervised Sequence Embedding", ECML PKDD
       2012, https://doi.org/10.1007/978-3-642-33460-3_16
    .. [2] Baqapuri, "Deep Learning Applied to Image and Text Matching", 2016, https://arxiv.org/abs/1601.03478

    Examples
    --------
    >>> from sklearn_mm.features import TextSequenceEncoder
    >>> texts = ["a red square", "the square is red", "two blue dots", "dots in blue"]
    >>> encoder = TextSequenceEncoder(n_components=8, phrase_dim=32, max_epochs=5, random_state=0)
    >>> encoder.fit(texts, y=[0, 0, 1, 1]).transform(["a blue square"]).shape
    (1, 8)
    """

    _parameter_constraints: dict[str, Any] = {
        **TextEncoderBase._parameter_constraints,
        "window": [positive_int],
        "phrase_dim": [positive_int],
        "n_positions": [positive_int],
        "hidden_layer_sizes": ["array-like"],
    }

    def __init__(
        self,
        n_components: int = 1024,
        *,
        window: int = 3,
        phrase_dim: int = 1024,
        n_positions: int = 8,
        hidden_layer_sizes: Sequence[int] = (),
        word_dim: int = 300,
        word_vectors: Any = None,
        trainable_words: bool = True,
        word_learning_rate: float = 1.0,
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
        self.window = window
        self.phrase_dim = phrase_dim
        self.n_positions = n_positions
        self.hidden_layer_sizes = hidden_layer_sizes
        self.word_dim = word_dim
        self.word_vectors = word_vectors
        self.trainable_words = trainable_words
        self.word_learning_rate = word_learning_rate
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

    def _make_module(self, n_words: int, word_dim: int) -> TextSequence:
        return TextSequence(
            n_words,
            self.n_components,
            window=self.window,
            word_dim=word_dim,
            phrase_dim=self.phrase_dim,
            n_positions=self.n_positions,
            hidden_layer_sizes=tuple(self.hidden_layer_sizes),
            dropout=self.dropout,
            word_learning_rate=self.word_learning_rate,
        )

    def _word_table(self) -> Tensor:
        table: Tensor = self.module_.words.weight
        return table
