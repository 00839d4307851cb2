"""Which words of a query a text encoder has never seen."""

from collections.abc import Callable
from typing import Any

from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import FeatureUnion, Pipeline

from sklearn_mm._picture_files import names_picture

__all__ = ["looks_like_picture", "words_unknown_to"]


def words_unknown_to(encoder: Any, texts: list[str]) -> list[str]:
    """Return the words of texts that have no say in what a fitted encoder makes of them, each once.

    None has where the encoder knows no words, but pieces of them, or where nobody can tell.
    """
    parts = _parts_of(encoder)
    split = [_words_and_vocabulary(part) for part in parts]
    if not split or any(one is None for one in split):
        return []
    unknown: dict[str, None] = {}
    for place, (words_of, vocabulary) in enumerate(one for one in split if one is not None):
        own = dict.fromkeys(word for text in texts for word in words_of(text) if word not in vocabulary)
        # beside each other, what one of several encoders knows is known
        unknown = own if place == 0 else {word: None for word in unknown if word in own}
    return list(unknown)


def _parts_of(encoder: Any) -> list[Any]:
    """Return the encoders that stand beside each other, without what is around them."""
    if isinstance(encoder, FrozenEstimator):
        return _parts_of(encoder.estimator)
    if isinstance(encoder, FeatureUnion):
        return [part for _, one in encoder.transformer_list if one != "drop" for part in _parts_of(one)]
    if isinstance(encoder, Pipeline):
        return _parts_of(encoder.steps[0][1])
    return [encoder]


def _words_and_vocabulary(encoder: Any) -> tuple[Callable[[str], list[str]], Any] | None:
    """Return how an encoder splits texts into words, and those it knows; None for one of no words."""
    if hasattr(encoder, "known_words"):  # of this library
        known: tuple[Callable[[str], list[str]], Any] | None = encoder.known_words()
        return known
    is_vectorizer = hasattr(encoder, "build_analyzer") and isinstance(getattr(encoder, "vocabulary_", None), dict)
    if not is_vectorizer or encoder.analyzer != "word" or encoder.ngram_range[0] != 1:
        return None
    terms_of = encoder.build_analyzer()
    # pairs of words, too, are terms of a vectorizer, with a blank between
    return (lambda text: [term for term in terms_of(text) if " " not in term]), encoder.vocabulary_


def looks_like_picture(text: str) -> bool:
    """Whether what should be a sentence is the name of a file of a picture."""
    return names_picture(text.strip()) and ("/" in text or len(text.split()) == 1)
