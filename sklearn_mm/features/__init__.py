"""Transformers that turn pictures and sentences into vectors."""

from sklearn_mm.features._full_network import FullNetworkEmbedding
from sklearn_mm.features._image_cnn import ImageCNNEncoder
from sklearn_mm.features._linear_nystroem import LinearNystroem
from sklearn_mm.features._multi_scale import MultiScaleCNNEncoder
from sklearn_mm.features._pretrained_image import PretrainedImageEncoder
from sklearn_mm.features._pretrained_text import PretrainedTextEncoder
from sklearn_mm.features._tags import TagVectorizer
from sklearn_mm.features._text_cnn import TextCNNEncoder
from sklearn_mm.features._text_gru import TextGRUEncoder
from sklearn_mm.features._text_ngram import TextNGramEncoder
from sklearn_mm.features._text_sequence import TextSequenceEncoder
from sklearn_mm.images import find_unreadable

__all__ = [
    "FullNetworkEmbedding",
    "ImageCNNEncoder",
    "LinearNystroem",
    "MultiScaleCNNEncoder",
    "PretrainedImageEncoder",
    "PretrainedTextEncoder",
    "TagVectorizer",
    "TextCNNEncoder",
    "TextGRUEncoder",
    "TextNGramEncoder",
    "TextSequenceEncoder",
    "find_unreadable",
]
