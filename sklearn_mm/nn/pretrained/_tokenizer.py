"""The tokenisers of the library tokenizers, held as the text of their file."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sklearn_mm.nn.pretrained._files import import_optional
from sklearn_mm.nn.pretrained._model import TextTokenizer
from sklearn_mm.registry import stored_as

__all__ = ["JsonTokenizer"]


@stored_as("nn.JsonTokenizer")
@dataclass
class JsonTokenizer(TextTokenizer):
    """A tokeniser as the JSON that describes it wholly.

    Attributes
    ----------
    spec : str
        The content of a tokenizer.json.
    max_length, pad_id, pad_to
        As in `TextTokenizer`.
    prompt : str
        Stands before each text.
    lowercase, strip : bool
        Whether texts are brought to lower case, and cut of white space around them, first.
    """

    spec: str
    max_length: int
    pad_id: int
    pad_to: int | None = None
    prompt: str = ""
    lowercase: bool = False
    strip: bool = False

    @cached_property
    def _tokenizer(self) -> Any:
        tokenizer = import_optional("tokenizers").Tokenizer.from_str(self.spec)
        tokenizer.no_padding()
        tokenizer.enable_truncation(self.max_length)
        return tokenizer

    def encode(self, texts: Sequence[str]) -> tuple[list[list[int]], list[int]]:
        """Return the ids of each text, not filled up, and the rows of those that were cut."""
        # One by one: a batch would start the library's own threads, which warn when a process forks after that. It
        # takes a second for 30,000 captions.
        encodings = [self._tokenizer.encode(self._prepared(text)) for text in texts]
        # An empty text has no token in some models: one that fills stands for it.
        ids = [encoding.ids or [self.pad_id] for encoding in encodings]
        return ids, [row for row, own in enumerate(encodings) if own.overflowing]

    def _prepared(self, text: str) -> str:
        text = self.prompt + text
        text = text.strip() if self.strip else text
        return text.lower() if self.lowercase else text

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is made of the JSON."""
        return {name: value for name, value in vars(self).items() if name != "_tokenizer"}
