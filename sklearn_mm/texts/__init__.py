"""Sentences at the border of torch: tokenising, vocabularies, ragged token rows, word vector files."""

from sklearn_mm.texts._token_rows import TokenRows
from sklearn_mm.texts._vocabulary import Vocabulary, build_tokenizer
from sklearn_mm.texts._word_vectors import read_word_vectors
from sklearn_mm.texts._words import looks_unsplit

__all__ = ["TokenRows", "Vocabulary", "build_tokenizer", "looks_unsplit", "read_word_vectors"]
