"""What all trainable text encoders share: words to numbers, stand-alone training, and the tower protocol."""

import warnings
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from sklearn_mm._checks import check_texts
from sklearn_mm._device import forked_rng, generator_from, resolve_device, resolve_dtype
from sklearn_mm._params import (
    DEVICE_CONSTRAINTS,
    TOKENIZER_CONSTRAINTS,
    Interval,
    Real,
    non_negative_int,
    positive_int,
    positive_real,
    validate_params,
)
from sklearn_mm.exceptions import UnknownWordsWarning
from sklearn_mm.features._instance_training import as_instances, train_by_instance
from sklearn_mm.nn.packed import PackedTexts
from sklearn_mm.persistence import PickleStateMixin
from sklearn_mm.texts import TokenRows, Vocabulary, build_tokenizer, read_word_vectors
from sklearn_mm.training import EpochRecord, embed

__all__ = ["TextEncoderBase"]

TOKEN_PATTERN = r"(?u)\b\w+\b"
_EMBED_BATCH = 512


class TextEncoderBase(ClassNamePrefixFeaturesOutMixin, TransformerMixin, PickleStateMixin, BaseEstimator):
    """A text encoder: a vocabulary and a network over it.

    A subclass stores its parameters, and says in `_make_module` which network they describe.
    """

    _parameter_constraints: dict[str, Any] = {
        **TOKENIZER_CONSTRAINTS,
        **DEVICE_CONSTRAINTS,
        "n_components": [positive_int],
        "word_dim": [positive_int],
        "word_vectors": "no_validation",
        "trainable_words": ["boolean"],
        "word_learning_rate": [positive_real],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "max_epochs": [positive_int],
        "batch_size": [positive_int],
        "learning_rate": [positive_real],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "temperature": [positive_real],
        "random_state": ["random_state"],
        "verbose": [non_negative_int, "boolean"],
    }

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
        self.vocabulary_ = Vocabulary.fit(
            texts, self._tokenizer(), min_df=self.min_df, max_features=self.max_features
        ).words
        vectors = None
        word_dim = self.word_dim
        if self.word_vectors is not None:
            vectors, found = read_word_vectors(self.word_vectors, self.vocabulary_)
            word_dim = vectors.shape[1]
        with forked_rng(random_state, torch.device("cpu")):
            self.module_: Any = self._make_module(len(self.vocabulary_), word_dim)
        if vectors is not None:
            table = self._word_table()
            # Bring the pretrained vectors to the size of the drawn ones, so that they suit the layers above.
            size = float(np.sqrt(np.square(vectors[found], dtype=np.float64).mean()))
            scale = table[1:].square().mean().sqrt() / (size or 1.0)
            with torch.no_grad():
                table[1:][torch.from_numpy(found)] = torch.from_numpy(vectors[found]) * scale
        self._word_table().requires_grad_(self.trainable_words)
        self._n_features_out = self.n_components
        return self

    def prepare(self, data: Any) -> TokenRows:
        """Turn texts into rows of word ids, once, for many calls of `collate`."""
        rows = Vocabulary(self.vocabulary_).encode(check_texts(data), self._tokenizer())
        _warn_unknown(rows)
        return rows

    def collate(self, rows: TokenRows, rng: np.random.Generator | None = None) -> PackedTexts:
        """Make a batch for `module_`; with `rng`, one for training, with its augmentations."""
        return PackedTexts(
            torch.from_numpy(rows.ids),
            torch.from_numpy(rows.lengths),
            torch.from_numpy(self._draw_shifts(len(rows), rng)),
        )

    # scikit-learn -------------------------------------------------------------------------------------------------

    def fit(self, texts: Any, y: Any = None) -> Self:
        """Build the vocabulary and train the network by instance loss.

        Parameters
        ----------
        texts : sequence of str, length n_texts
        y : sequence of hashables, length n_texts, optional
            The instance that each text describes. Without it every text is an instance of its own.

        Returns
        -------
        self
        """
        validate_params(self)
        listed = check_texts(texts)
        random_state = check_random_state(self.random_state)
        device = resolve_device(self.device)
        with forked_rng(random_state, device):
            self.initialize(listed, random_state)
            instance = np.arange(len(listed)) if y is None else as_instances(y, len(listed), "text")
            self._train(listed, instance, generator_from(random_state), device)
        self.module_.cpu().eval()
        return self

    def _train(self, texts: list[str], instance: np.ndarray, rng: np.random.Generator, device: torch.device) -> None:
        rows = self.prepare(texts)
        self.history_: list[EpochRecord] = train_by_instance(
            self,
            rows,
            lambda batch: PackedTexts(*(part.to(device) for part in self.collate(batch, rng))),
            instance,
            rng,
            device,
        )

    def transform(self, texts: Any) -> np.ndarray:
        """Embed texts.

        Parameters
        ----------
        texts : sequence of str, length n_texts
            A text without one known word is embedded as unknown, with an `UnknownWordsWarning`.

        Returns
        -------
        ndarray of shape (n_texts, n_components), float32
            Not normalised.
        """
        check_is_fitted(self, "module_")
        rows = self.prepare(texts)
        device = resolve_device(self.device)
        out = embed(
            [self.module_],
            lambda batch: PackedTexts(*(part.to(device) for part in self.collate(batch))),
            rows,
            batch_size=_EMBED_BATCH,
            device=device,
            dtype=resolve_dtype(self.precision, device),
        )
        self.module_.cpu()
        return out

    def _tokenizer(self) -> Callable[[str], list[str]]:
        return build_tokenizer(self.lowercase, self.token_pattern, self.analyzer, self._ngram_range())

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        return tags


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
