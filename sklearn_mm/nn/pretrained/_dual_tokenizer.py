"""How dual encoders read texts: cleaned, cut and filled up as they were trained."""

import string
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sklearn_mm.nn.pretrained._files import import_optional
from sklearn_mm.nn.pretrained._model import TextTokenizer
from sklearn_mm.registry import stored_as

__all__ = ["DualTokenizer"]

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


@stored_as("nn.DualTokenizer")
@dataclass
class DualTokenizer(TextTokenizer):
    """The tokeniser of a dual encoder.

    Attributes
    ----------
    spec : str
        The content of a tokenizer.json; "" for the one that open_clip brings along.
    max_length, pad_id, pad_to
        As in `TextTokenizer`.
    clean : {"none", "whitespace", "lower", "canonicalize"}
        What becomes of a text first: nothing; white space in one form; lower case as well; and without punctuation.
    spaced_underscores : bool
        Whether an underscore is a space to "canonicalize", as it is in open_clip, or punctuation.
    mends : bool
        Whether broken Unicode and HTML are mended first, as open_clip does.
    dropped_id : int or None
        An id in whose place 0 is put.
    prompt : str
        Stands before each text.
    """

    spec: str
    max_length: int
    pad_id: int
    pad_to: int | None = None
    clean: str = "none"
    spaced_underscores: bool = False
    mends: bool = False
    dropped_id: int | None = None
    prompt: str = ""

    @cached_property
    def _encode(self) -> Any:
        """From a cleaned text to its ids, and whether it was cut."""
        if not self.spec:
            own = import_optional("open_clip.tokenizer", "openclip").SimpleTokenizer(context_length=self.max_length)

            def simple(text: str) -> tuple[list[int], bool]:
                ids = [own.sot_token_id, *own.encode(text), own.eot_token_id]
                # What is cut keeps the token that the vector is read at.
                cut = len(ids) > self.max_length
                return ([*ids[: self.max_length - 1], own.eot_token_id] if cut else ids), cut

            return simple
        tokenizer = import_optional("tokenizers").Tokenizer.from_str(self.spec)
        tokenizer.no_padding()
        tokenizer.enable_truncation(self.max_length)

        def encode(text: str) -> tuple[list[int], bool]:
            own = tokenizer.encode(text)
            ids = [0 if token == self.dropped_id else token for token in own.ids]
            return ids or [self.pad_id], bool(own.overflowing)

        return encode

    def encode(self, texts: Sequence[str]) -> tuple[list[list[int]], list[int]]:
        """Return the ids of each text, not filled up, and the rows of those that were cut."""
        read = [self._encode(self.cleaned(self.prompt + text)) for text in texts]
        return [ids for ids, _ in read], [row for row, (_, cut) in enumerate(read) if cut]

    def cleaned(self, text: str) -> str:
        """Return a text as the tokeniser is given it."""
        if self.mends:
            text = import_optional("open_clip.tokenizer", "openclip").basic_clean(text)
        if self.clean == "none":
            return text
        if self.clean in ("lower", "canonicalize"):
            text = text.lower()
        if self.clean == "canonicalize":
            text = text.replace("_", " ") if self.spaced_underscores else text
            text = text.translate(_NO_PUNCTUATION)
        return " ".join(text.split())

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is made of the JSON."""
        return {name: value for name, value in vars(self).items() if name != "_encode"}
