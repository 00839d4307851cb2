"""What the text encoders over a vocabulary share: words to numbers."""

import warnings
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn
from tqdm.auto import tqdm

from sklearn_mm._checks import check_texts
from sklearn_mm._device import forked_rng
from sklearn_mm._params import (
    TOKENIZER_CONSTRAINTS,
    Interval,
    Real,
    path_or_vectors,
    positive_int,
    positive_real,
    validate_params,
)
from sklearn_mm.exceptions import TokenizationWarning, UnknownWordsWarning
from sklearn_mm.nn.packed import PackedTexts
from sklearn_mm.texts import TokenRows, Vocabulary, build_tokenizer, looks_unsplit, read_word_vectors
from sklearn_mm.towers import TrainableEncoder

__all__ = ["TextEncoderBase"]


_LOW_COVERAGE = 0.5  # of the vocabulary by word vectors: below it a warning says so


class TextEncoderBase(TrainableEncoder):
    """A text encoder: a vocabulary and a network over it.

    A subclass stores its parameters, and says in `_make_module` which network they describe.
    """

    _parameter_constraints: dict[str, Any] = {
        **TrainableEncoder._parameter_constraints,
        **TOKENIZER_CONSTRAINTS,
        "n_components": [positive_int],
        "word_dim": [positive_int],
        "word_vectors": [path_or_vectors],  # of which kind is checked where they are read
        "trainable_words": ["boolean"],
        "word_learning_rate": [positive_real],
        "dropout": [Interval(Real, 0, 1, closed="left")],
    }

    unicode_form: str | None = "NFC"  # of a subclass that has no such parameter

    @abstractmethod
    def _make_module(self, n_words: int, word_dim: int) -> nn.Module:
        """Build the network, under torch's current random state."""

    @abstractmethod
    def _word_table(self) -> Tensor:
        """Return the weights that hold the word vectors, shape (n_words + 1, word_dim)."""

    def _draw_shifts(self, n_texts: int, rng: np.random.Generator | None) -> np.ndarray:
        """Return how many empty positions stand before each text; `rng` is given in training."""
        return np.zeros(n_texts, dtype=np.int64)

    def _ngram_range(self) -> tuple[int, int]:
        return (1, 1)

    # The tower protocol -------------------------------------------------------------------------------------------

    def initialize(self, data: Any, random_state: Any = None) -> Self:
        """Build the vocabulary of `data` and an untrained network over it.

        Parameters
        ----------
        data : sequence of str
        random_state : int, RandomState or None
        """
        validate_params(self)
        texts = check_texts(data)
        tokenize = self._tokenizer()
        if self.analyzer == "word" and self.token_pattern is not None:
            # by single words, also where n-grams are the terms
            _warn_unsplit(texts, build_tokenizer(False, self.token_pattern, "word"))
        self.vocabulary_ = Vocabulary.fit(texts, tokenize, min_df=self.min_df, max_features=self.max_features).words
        vectors = self.word_coverage_ = None
        word_dim = self.word_dim
        if self.word_vectors is not None:
            vectors, found = read_word_vectors(self.word_vectors, self.vocabulary_)
            word_dim = vectors.shape[1]
            self.word_coverage_ = float(found.mean())
            self._tell_coverage(found)
        # Weights are drawn on the CPU and moved: a seed gives the same ones on every device.
        with forked_rng(random_state):
            self.module_: Any = self._make_module(len(self.vocabulary_), word_dim)
        if vectors is not None:
            # Row 0 stands for no word; words count from 1.
            table = self._word_table()
            # Bring the pretrained vectors to the size of the drawn ones, so that they suit the layers above.
            size = float(np.sqrt(np.square(vectors[found], dtype=np.float64).mean()))
            scale = table[1:].square().mean().sqrt() / (size or 1.0)  # 1: all vectors are 0
            with torch.no_grad():
                table[1:][torch.from_numpy(found)] = torch.from_numpy(vectors[found]) * scale
        self._word_table().requires_grad_(self.trainable_words)
        return self

    def prepare(self, data: Any) -> TokenRows:
        """Turn texts into rows of word ids, once, for many calls of `collate`."""
        rows = Vocabulary(self.vocabulary_).encode(check_texts(data), self._tokenizer())
        _warn_unknown(rows)
        return rows

    def collate(self, rows: TokenRows, rng: np.random.Generator | None = None) -> PackedTexts:
        """Make a batch for `module_`; with `rng`, one for training, with its augmentations."""
        # All words in a row without padding: a batch costs the words it has, and a text is embedded alike in any
        # company.
        return PackedTexts(
            torch.from_numpy(rows.ids),
            torch.from_numpy(rows.lengths),
            torch.from_numpy(self._draw_shifts(len(rows), rng)),
        )

    def known_words(self) -> tuple[Callable[[str], list[str]], Mapping[str, int] | frozenset[str]] | None:
        """Return the function from a text to its words, and those that are known; None for an encoder of letters."""
        check_is_fitted(self, "module_")
        if self.analyzer != "word" or self._ngram_range()[0] != 1:
            return None
        split = build_tokenizer(self.lowercase, self.token_pattern, self.analyzer, (1, 1), self.unicode_form)
        return split, frozenset(self.vocabulary_)

    def _tell_coverage(self, found: np.ndarray) -> None:
        missing = [word for word, is_there in zip(self.vocabulary_, found.tolist(), strict=True) if not is_there]
        told = f"word_vectors hold {len(found) - len(missing)} of the {len(found)} words of the vocabulary"
        # a few vectors of one's own are no fault
        is_chosen = isinstance(self.word_vectors, Mapping) and len(self.word_vectors) < len(found)
        if len(missing) > (1 - _LOW_COVERAGE) * len(found) and not is_chosen:
            shown = ", ".join(map(repr, missing[:5]))
            warnings.warn(
                f"{told}, and not {shown}; are they of this language, and is the case (lowercase) the same?",
                UnknownWordsWarning,
                stacklevel=4,
            )
        elif self.verbose:
            tqdm.write(told)

    @property
    def n_features_out(self) -> int:
        """Width of the embedding."""
        check_is_fitted(self, "module_")
        return int(self.module_.config["n_components"])

    def _check_data(self, X: Any) -> list[str]:
        return check_texts(X)

    def _tokenizer(self) -> Callable[[str], list[str]]:
        return build_tokenizer(
            self.lowercase, self.token_pattern, self.analyzer, self._ngram_range(), self.unicode_form
        )

    @classmethod
    def _from_format(cls, state: dict[str, Any], number: int) -> dict[str, Any]:
        """Bring the state of an older format to today's: texts were taken as they came, coverage was not counted."""
        fitted = {"word_coverage_": None} if "vocabulary_" in state else {}
        return super()._from_format({"unicode_form": None, **fitted, **state}, number)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        return tags


def _warn_unsplit(texts: list[str], tokenize: Callable[[str], list[str]]) -> None:
    unsplit = looks_unsplit(texts, tokenize)
    if unsplit is not None:
        warnings.warn(
            f"token_pattern takes whole sentences for words, as their script sets no spaces: {unsplit!r:.60}; no other "
            "text will hold the same ones. token_pattern=None takes characters (in a TextNGramEncoder with "
            "ngram_range=(1, 2) pairs of them too); or pass a function that splits texts into words as analyzer",
            TokenizationWarning,
            stacklevel=4,
        )


def _warn_unknown(rows: TokenRows) -> None:
    unknown = np.flatnonzero(rows.lengths == 0)
    if len(unknown):
        shown = ", ".join(map(str, unknown[:5])) + (", ..." if len(unknown) > 5 else "")
        warnings.warn(
            f"{len(unknown)} of {len(rows)} texts hold no known word and are embedded as unknown: rows {shown}; "
            "was the encoder fitted on texts of this kind?",
            UnknownWordsWarning,
            stacklevel=4,
        )
