"""A recurrent text encoder, as in Kiros et al.'s joint embedding and the full-network one's."""

import os
from collections.abc import Callable
from typing import Any

from torch import Tensor

from sklearn_mm._docs import shared_docs
from sklearn_mm._params import StrOptions, positive_int
from sklearn_mm.features._text_base import TextEncoderBase
from sklearn_mm.nn.text_rnn import POOLINGS, TextGRU
from sklearn_mm.registry import stored_as

__all__ = ["TextGRUEncoder"]


@shared_docs
@stored_as("features.TextGRUEncoder")
class TextGRUEncoder(TextEncoderBase):
    """Embed sentences by the last state of a gated recurrent network [1]_.

    Word vectors and one recurrent layer; the state after a sentence's last word is its embedding.

    Parameters
    ----------
    n_components : int, default=1024
        Width of the embedding (1024 to 2048 in the code of [2]_).
    hidden_size : int, default=None
        Width of the recurrent state; None for `n_components`. With another width, or two directions, a linear map
        leads from the pooled states to the embedding.
    word_dim : int, default=300
        Length of the word vectors; that of `word_vectors`, where they are given.
    %(word_vectors)s
    word_learning_rate : float, default=1.0
        Factor on the learning rate of the word vectors, here and inside a ranker.
    bidirectional : bool, default=False
        Read each sentence from its end as well, by a second layer, and join the states of both.
    pooling : {"last", "mean", "max"}, default="last"
        The state after the last word (of the backward layer: after the first), or the mean or the maximum of the states
        over all words.
    end_token : bool, default=False
        Read one more token, with a vector of its own, after the last word, as the code of [2]_ does.
    dropout : float, default=0.0
        Share of the words whose vector is replaced by 0 in training.
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
    module_ : TextGRU
    %(instance_history)s

    See Also
    --------
    TextCNNEncoder : Convolutions over words.
    TextNGramEncoder : Bag of words or n-grams, several times faster.

    Notes
    -----
    Sentences are read to their true length: nothing is padded, and an embedding does not depend on the other sentences
    of a batch. The steps of a batch follow one another, as many as its longest sentence has words; each is a product
    with the recurrent weights, ``3 * hidden_size ** 2`` numbers. A sentence without a known word is the state before
    the first step, zero (with `end_token`, the state that the token leads to).

    As in the code of [2]_: the reset gate acts on the recurrent product; recurrent matrices start orthogonal (as do
    input matrices, where they are square), word vectors and other input matrices uniform in -0.1 to 0.1, biases at 0.
    That code also pads each batch with token 0 and masks all but the first of it, so that every sentence ends with one
    token more than it has: `end_token=True`. It reads unknown words as a token of their own; here they are left out. It
    draws orthogonal word vectors where there are as many words as components of a vector; here they are uniform.

    %(threads)s

    References
    ----------
    .. [1] Kiros, Salakhutdinov, Zemel, "Unifying Visual-Semantic Embeddings with Multimodal Neural Language Models",
       2014, https://arxiv.org/abs/1411.2539
    .. [2] Vilalta, Garcia-Gasulla, Pares, Ayguade, Labarta, Moya-Sanchez, Cortes, "Studying the Impact of the
       Full-Network Embedding on Multimodal Pipelines", Semantic Web 10(5), 2019

    Examples
    --------
    >>> from sklearn_mm.features import TextGRUEncoder
    >>> texts = ["a red square", "the square is red", "two blue dots", "dots in blue"]
    >>> encoder = TextGRUEncoder(n_components=8, max_epochs=5, random_state=0)
    >>> encoder.fit(texts, y=[0, 0, 1, 1]).transform(["a blue square"]).shape
    (1, 8)
    """

    _parameter_constraints: dict[str, Any] = {
        **TextEncoderBase._parameter_constraints,
        "hidden_size": [positive_int, None],
        "bidirectional": ["boolean"],
        "pooling": [StrOptions(set(POOLINGS))],
        "end_token": ["boolean"],
    }

    def __init__(
        self,
        n_components: int = 1024,
        *,
        hidden_size: int | None = None,
        word_dim: int = 300,
        word_vectors: Any = None,
        trainable_words: bool = True,
        word_learning_rate: float = 1.0,
        bidirectional: bool = False,
        pooling: str = "last",
        end_token: bool = False,
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
        self.hidden_size = hidden_size
        self.word_dim = word_dim
        self.word_vectors = word_vectors
        self.trainable_words = trainable_words
        self.word_learning_rate = word_learning_rate
        self.bidirectional = bidirectional
        self.pooling = pooling
        self.end_token = end_token
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

    def _make_module(self, n_words: int, word_dim: int) -> TextGRU:
        return TextGRU(
            n_words,
            self.n_components,
            word_dim=word_dim,
            hidden_size=self.hidden_size,
            bidirectional=self.bidirectional,
            pooling=self.pooling,
            end_token=self.end_token,
            dropout=self.dropout,
            word_learning_rate=self.word_learning_rate,
        )

    def _word_table(self) -> Tensor:
        table: Tensor = self.module_.words.weight
        return table
