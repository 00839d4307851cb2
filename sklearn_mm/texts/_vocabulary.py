"""Which words are known, and what number each has."""

from array import array
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer

from sklearn_mm._unicode import normal_form
from sklearn_mm.texts._token_rows import TokenRows
from sklearn_mm.texts._words import split_words

__all__ = ["Vocabulary", "build_tokenizer"]

Tokenizer = Callable[[str], list[str]]


def build_tokenizer(
    lowercase: bool,
    token_pattern: str | None,
    analyzer: str | Tokenizer,
    ngram_range: tuple[int, int] = (1, 1),
    unicode_form: str | None = None,
) -> Tokenizer:
    """Return the function from a text to its tokens, as `CountVectorizer` would build it.

    Parameters
    ----------
    lowercase : bool
    token_pattern : str or None
        None takes words with the marks on their letters, and characters of scripts that set no spaces.
    analyzer : "word" or callable
    ngram_range : (int, int)
    unicode_form : {"NFC", "NFD", "NFKC", "NFKD"} or None
        In which texts are brought first.
    """
    if callable(analyzer):
        split = analyzer  # an attribute would be told for a method
        return split if unicode_form is None else lambda text: split(normal_form(text, unicode_form))
    # only its analyzer: its matrix of counts would forget the order of the words
    vectorizer = CountVectorizer(
        lowercase=lowercase,
        # it comes behind the change of case, which may leave another form
        strip_accents=None if unicode_form is None else partial(normal_form, form=unicode_form),
        tokenizer=split_words if token_pattern is None else None,
        token_pattern=token_pattern,
        ngram_range=ngram_range,
    )
    return vectorizer.build_analyzer()


class Vocabulary:
    """A numbering of known words, by falling frequency; ties by the alphabet.

    Id 0 stands for "nothing" (padding); words have the ids 1 to ``len(vocabulary)``. Unknown words are dropped.

    Parameters
    ----------
    words : iterable of str
        The words in the order of their ids.
    """

    def __init__(self, words: Iterable[str]) -> None:
        self.words = list(words)
        self.index = {word: number for number, word in enumerate(self.words, start=1)}

    def __len__(self) -> int:
        return len(self.words)

    @classmethod
    def fit(
        cls,
        texts: Iterable[str],
        tokenize: Tokenizer,
        *,
        min_df: int | float = 1,
        max_features: int | None = None,
    ) -> "Vocabulary":
        """Collect the words of `texts`.

        Parameters
        ----------
        texts : iterable of str
        tokenize : callable
            From a text to its tokens.
        min_df : int or float
            A word must stand in that many texts (int), or in that share of them (float).
        max_features : int or None
            Keep only so many of the most frequent words.

        Raises
        ------
        ValueError
            No word is left.
        """
        count: Counter[str] = Counter()
        document_count: Counter[str] = Counter()
        n_texts = 0
        for text in texts:
            tokens = tokenize(text)
            count.update(tokens)
            # min_df counts texts, and a word said twice in one is in one text
            document_count.update(set(tokens))
            n_texts += 1
        # 1 and 1.0 differ, as in scikit-learn: one text, or all of them; numpy's ints are no int
        least = min_df if isinstance(min_df, int | np.integer) else min_df * n_texts
        kept = [word for word in count if document_count[word] >= least]
        # ties by the alphabet: ids do not depend on the order of the texts
        kept.sort(key=lambda word: (-count[word], word))
        if not kept:
            raise ValueError(
                f"empty vocabulary: none of the {len(count)} words of {n_texts} texts passes min_df={min_df}; "
                "lower min_df, or look at token_pattern"
            )
        return cls(kept[:max_features])

    def encode(self, texts: Iterable[str], tokenize: Tokenizer) -> TokenRows:
        """Turn texts into rows of word ids; unknown words are dropped."""
        index = self.index
        # flat from the start: what keeps a list for each text is gone through by every collection of garbage
        ids, ends = array("q"), array("q", [0])
        for text in texts:
            ids.extend([index[token] for token in tokenize(text) if token in index])
            ends.append(len(ids))
        return TokenRows(np.array(ids, dtype=np.int64), np.array(ends, dtype=np.int64))
