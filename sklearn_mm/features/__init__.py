"""Transformers that turn pictures and sentences into vectors."""

from sklearn_mm.features._full_network import FullNetworkEmbedding
from sklearn_mm.features._text_cnn import TextCNNEncoder
from sklearn_mm.features._text_ngram import TextNGramEncoder

__all__ = ["FullNetworkEmbedding", "TextCNNEncoder", "TextNGramEncoder"]
