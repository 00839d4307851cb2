"""The global ranking objective's bag-of-words and n-gram text encoder."""

import os
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from typing import Any

from torch import Tensor

from sklearn_mm._docs import shared_docs
from sklearn_mm._params import Integral, InvalidParameterError, non_negative_int
from sklearn_mm.features._text_base import TextEncoderBase
from sklearn_mm.nn.text_ngram import TextNGram
from sklearn_mm.registry import stored_as
from sklearn_mm.texts import build_tokenizer

__all__ = ["TextNGramEncoder"]


@shared_docs
@stored_as("features.TextNGramEncoder")
class TextNGramEncoder(TextEncoderBase):
    """Embed sentences by a bag of words or n-grams through a perceptron [1]_.

    The first layer of the perceptron is the weighted sum of the terms' vectors, computed from the sparse bag.

    Parameters
    ----------
    n_components : int, default=1024
        Width of the embedding.
    ngram_range : (int, int), default=(1, 1)
        The shortest and the longest n-grams that count as terms, as in `CountVectorizer`.
    skip : int, default=0
        An n-gram of two words or more may leave out so many words between its first and its last: "dog jumps high"
        has with 1 the bigram "dog high" as well. The same words with and without a gap are one term.
    hidden_layer_sizes : sequence of int, default=()
        Layers between the sum of the term vectors and the embedding; each with batch norm and ReLU. Without any, the
        embedding is a linear map of the sum.
    word_dim : int, default=1024
        Length of the term vectors; that of `word_vectors`, where they are given.
    word_vectors : mapping, KeyedVectors, path, or (npy path, words) pair, default=None
        Pretrained vectors: ``{term: vector}``, gensim's KeyedVectors, a GloVe or word2vec text file, packed or not
        (``glove.6B.zip/glove.6B.50d.txt`` is one in an archive), or an array (or its npy file) with its terms. Only the
        vocabulary's are read; a warning says where they are few.
    trainable_words : bool, default=True
        Train the term vectors. Otherwise they stay as given in `word_vectors`, but for one factor that brings them all
        to the size the network expects, and those that it lacks stay as drawn.
    word_learning_rate : float, default=1.0
        Factor on the learning rate of the term vectors, here and inside a ranker.
    dropout : float, default=0.4
        Share of terms dropped from each text, and of hidden units, in training.
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
        The known terms, by falling frequency.
    word_coverage_ : float or None
        Share of them that `word_vectors` hold; None without word vectors.
    module_ : TextNGram
    %(instance_history)s

    Raises
    ------
    ValueError
        `skip` with a callable `analyzer`, whose terms are as it forms them.

    See Also
    --------
    TextSequenceEncoder : Windows of words, weighted by position.
    TextCNNEncoder : Knows the order of words beyond n-grams.
    TextGRUEncoder : A recurrent network.

    Notes
    -----
    Of the source only the abstract is at hand. Its variants are, as we read it: bag of words, ``ngram_range=(1, 1)``;
    bigrams, ``(1, 2)``; trigrams, ``(1, 3)``; trigrams and skip-grams together, ``(1, 3)`` with ``skip=1``, as [2]_
    defines skip-grams. Which n-grams stand beside the longest ones, how far a skip-gram reaches, layer sizes and the
    terms' learned weights are our choice.

    The bag is never made dense: time and gradient of a text are those of the terms it has. The term vectors and the
    optimiser's two averages of them take ``12 * word_dim`` bytes for each term of the vocabulary, and a step of the
    optimiser goes over all of them. Captions have some hundred thousand different trigrams: set `min_df` to 2 or more,
    or `max_features`.

    %(threads)s

    References
    ----------
    .. [1] Baqapuri, "Deep Learning Applied to Image and Text Matching", 2016, https://arxiv.org/abs/1601.03478
    .. [2] Guthrie, Allison, Liu, Guthrie, Wilks, "A Closer Look at Skip-gram Modelling", LREC 2006

    Examples
    --------
    >>> from sklearn_mm.features import TextNGramEncoder
    >>> texts = ["a red square", "the square is red", "two blue dots", "dots in blue"]
    >>> encoder = TextNGramEncoder(n_components=8, max_epochs=5, random_state=0)
    >>> encoder.fit(texts, y=[0, 0, 1, 1]).transform(["a blue square"]).shape
    (1, 8)
    """

    _parameter_constraints: dict[str, Any] = {
        **TextEncoderBase._parameter_constraints,
        "ngram_range": [tuple, list],
        "skip": [non_negative_int],
        "hidden_layer_sizes": ["array-like"],
    }

    def __init__(
        self,
        n_components: int = 1024,
        *,
        ngram_range: tuple[int, int] = (1, 1),
        skip: int = 0,
        hidden_layer_sizes: Sequence[int] = (),
        word_dim: int = 1024,
        word_vectors: Any = None,
        trainable_words: bool = True,
        word_learning_rate: float = 1.0,
        dropout: float = 0.4,
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
        self.ngram_range = ngram_range
        self.skip = skip
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

    def _make_module(self, n_words: int, word_dim: int) -> TextNGram:
        return TextNGram(
            n_words,
            self.n_components,
            term_dim=word_dim,
            hidden_layer_sizes=tuple(self.hidden_layer_sizes),
            dropout=self.dropout,
            word_learning_rate=self.word_learning_rate,
        )

    def _word_table(self) -> Tensor:
        table: Tensor = self.module_.terms.weight
        return table

    def _ngram_range(self) -> tuple[int, int]:
        given: Any = tuple(self.ngram_range)
        if len(given) != 2 or not all(isinstance(n, Integral) for n in given) or not 1 <= given[0] <= given[1]:
            raise InvalidParameterError(
                f"ngram_range must be (shortest, longest), two ints of at least 1, got {self.ngram_range!r}"
            )
        return given

    def _tokenizer(self) -> Callable[[str], list[str]]:
        if not self.skip:  # scikit-learn forms n-grams without gaps
            return super()._tokenizer()
        if callable(self.analyzer):
            raise ValueError(
                f"skip={self.skip} needs analyzer='word', got a callable; set skip=0 and let it form the terms itself"
            )
        words_of = build_tokenizer(self.lowercase, self.token_pattern, self.analyzer, unicode_form=self.unicode_form)
        low, high = self._ngram_range()

        def terms(text: str) -> list[str]:
            words = words_of(text)
            return [" ".join(gram) for n in range(low, high + 1) for gram in _skip_grams(words, n, self.skip)]

        return terms


def _skip_grams(words: list[str], n: int, skip: int) -> Iterator[tuple[str, ...]]:
    """Choose n words in their order, at most `skip` others between the first and the last of them."""
    for start, word in enumerate(words):
        # The first word is fixed, so that no choice comes twice; n = 1 has one empty rest, and is the word alone.
        for rest in combinations(words[start + 1 : start + n + skip], n - 1):
            yield (word, *rest)
