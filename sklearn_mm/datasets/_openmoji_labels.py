"""OpenMoji as a task of annotation: many labels for each picture, and words that people might have tagged it with."""

import re
from collections.abc import Sequence
from hashlib import sha256

import numpy as np

__all__ = ["label_signs"]

_MIN_SIGNS = 10  # that a word names, to be a label
_KEPT = 2 / 3  # of the words that are no labels, as tags
_FOREIGN = 1 / 5  # of the pictures get a word of another one

_WORD = re.compile(r"[^\W\d_]{2,}")  # two letters or more
_STOP_WORDS = {"and", "for", "in", "of", "on", "the", "to", "with"}
_TONE = re.compile(r"\b(?:medium-)?(?:light|medium|dark) skin tone\b")
_GENDERS = {"woman": re.compile(r"\bwom[ae]n\b"), "man": re.compile(r"\bm[ae]n\b")}
_PERSON_WORDS = {"woman", "women", "man", "men", "person", "persons", "people", "womans", "mans"}


def label_signs(
    names: Sequence[Sequence[str]], groups: Sequence[str], categories: Sequence[Sequence[str]], keys: Sequence[str]
) -> tuple[list[list[str]], list[list[str]]]:
    """Give each picture its labels, and noisy tags that are no labels.

    Parameters
    ----------
    names : sequence of sequences of str, length n_images
        Names and aliases.
    groups : sequence of str, length n_images
        Variants of one sign share a group.
    categories : sequence of sequences of str, length n_images
        Category and subcategory.
    keys : sequence of str, length n_images
        All different; the noise of a picture's tags depends on its key alone.

    Returns
    -------
    labels : list of list of str
        Category, subcategory, skin tones, genders, and those words that name at least ten signs.
    tags : list of list of str
        Of the other words two thirds, by lot; and with one picture in five a word of the others.
    """
    texts = [" | ".join(row).casefold() for row in names]
    words = [_words(text) for text in texts]
    # by group: five skin tones of one sign do not make its words frequent
    signs: dict[str, set[str]] = {}
    for row, group in zip(words, groups, strict=True):
        for word in row:
            signs.setdefault(word, set()).add(group)
    frequent = {word for word, own in signs.items() if len(own) >= _MIN_SIGNS}

    labels = [
        list(dict.fromkeys([*own, *_tones_and_genders(text, own), *(word for word in row if word in frequent)]))
        for own, text, row in zip(categories, texts, words, strict=True)
    ]
    in_labels = {word for row in labels for label in row for word in _WORD.findall(label.casefold())}
    vocabulary = sorted(signs.keys() - in_labels)
    tags = [
        _draw_tags([word for word in row if word not in in_labels], vocabulary, key)
        for row, key in zip(words, keys, strict=True)
    ]
    return labels, tags


def _words(text: str) -> list[str]:
    """Return what a text's words say besides tone and gender, each once, in order."""
    found = _WORD.findall(_TONE.sub(" ", text))
    return [word for word in dict.fromkeys(found) if word not in _STOP_WORDS | _PERSON_WORDS]


def _tones_and_genders(text: str, categories: Sequence[str]) -> list[str]:
    if categories and categories[0] != "People & Body":  # the Isle of Man is not one
        return []
    return [*_TONE.findall(text), *(gender for gender, pattern in _GENDERS.items() if pattern.search(text))]


def _draw_tags(words: list[str], vocabulary: list[str], key: str) -> list[str]:
    # hash() of a str differs from process to process; a stream for each key, so that no picture moves another's lots
    rng = np.random.default_rng(list(sha256(key.encode()).digest()))
    tags = [word for word in words if rng.random() < _KEPT]
    if rng.random() < _FOREIGN:
        tags.append(str(rng.choice(vocabulary)))
    # the foreign word may be one of the picture's own
    return list(dict.fromkeys(tags))
