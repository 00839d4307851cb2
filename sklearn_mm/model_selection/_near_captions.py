"""Captions that are nearly the same: but for case and punctuation, a word left out, or a word spelt another way."""

import re
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher

import numpy as np

from sklearn_mm._unicode import normal_form

__all__ = ["find_near_captions"]

_WORD = re.compile(r"\w+")
_LEAST_SHARED = 5  # words: of shorter sentences one word is much of what they say
_LEAST_ALIKE = 0.75  # of two spellings of a word: "colour" and "color", "dog" and "dogs"
_MOST_SHARING = 64  # sentences that differ from each other at one place: more are filled into a form, not copied

Words = tuple[str, ...]


def find_near_captions(queries: Sequence[str], items: Sequence[str]) -> Iterator[tuple[int, list[int]]]:
    """Find, for each caption, those of another set that are nearly the same.

    Parameters
    ----------
    queries, items : sequence of str

    Yields
    ------
    query : int
        A caption of the first that has one in the second.
    found : list of int
        Its near ones, ascending; those of the same words among them.
    """
    own: dict[Words, list[int]] = {}
    for place, text in enumerate(items):
        own.setdefault(_words(text), []).append(place)
    wordings = list(own)
    keys, holder = _keys(wordings)
    known: dict[Words, list[int]] = {}
    for query, text in enumerate(queries):
        words = _words(text)
        if words not in known:
            near = {number for number in _candidates(words, keys, holder) if _is_near(words, wordings[number])}
            known[words] = sorted(place for number in near for place in own[wordings[number]])
        if known[words]:
            yield query, known[words]


def _words(text: str) -> Words:
    words = tuple(_WORD.findall(normal_form(text).casefold()))
    return words or (text,)  # of signs alone


def _shortened(words: Words) -> list[Words]:
    """Return the words, and what is left without each of them where that says enough."""
    if len(words) <= _LEAST_SHARED:
        return [words]
    return [words, *(words[:place] + words[place + 1 :] for place in range(len(words)))]


def _keys(wordings: Sequence[Words]) -> tuple[np.ndarray, np.ndarray]:
    """Return the hashes of all shortened wordings, sorted, and whose each is."""
    hashes = [[hash(words) for words in _shortened(wording)] for wording in wordings]
    keys = np.fromiter((key for own in hashes for key in own), dtype=np.int64)
    holder = np.repeat(np.arange(len(hashes)), [len(own) for own in hashes])
    order = np.argsort(keys, kind="stable")
    return keys[order], holder[order]


def _candidates(words: Words, keys: np.ndarray, holder: np.ndarray) -> set[int]:
    wanted = np.array([hash(part) for part in _shortened(words)], dtype=np.int64)
    start, stop = np.searchsorted(keys, wanted, side="left"), np.searchsorted(keys, wanted, side="right")
    found: set[int] = set()
    for first, last in zip(start.tolist(), stop.tolist(), strict=True):
        if last - first <= _MOST_SHARING:
            found.update(holder[first:last].tolist())
    return found


def _is_near(one: Words, other: Words) -> bool:
    """Tell whether two wordings with a shortened form in common are nearly the same."""
    if one == other:
        return True
    if len(one) != len(other):
        shorter, longer = sorted((one, other), key=len)
        return shorter in _shortened(longer)
    places = [place for place, pair in enumerate(zip(one, other, strict=True)) if pair[0] != pair[1]]
    if len(places) != 1:  # a word that has moved
        return False
    return SequenceMatcher(None, one[places[0]], other[places[0]]).ratio() >= _LEAST_ALIKE
