"""What a word is, in the scripts of the world: with its marks; and where no spaces are, a character."""

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import islice

__all__ = ["looks_unsplit", "split_words"]

_ASCII_WORD = re.compile(r"\w+")

# Thai, Lao, Burmese, Khmer, Tai, kana; then Chinese characters. Korean sets spaces.
_BLOCKS_WITHOUT_SPACES = (
    (0x0E00, 0x0EFF),
    (0x1000, 0x109F),
    (0x1780, 0x17FF),
    (0x1950, 0x19DF),
    (0x1A20, 0x1AAF),
    (0x3040, 0x30FF),
    (0x31F0, 0x31FF),
    (0xA9E0, 0xA9FF),
    (0xAA60, 0xAA7F),
    (0xFF66, 0xFF9F),
)
_CHINESE = "\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
# The others, of Chinese characters, Hangul and pictures, have none, and going through them takes time.
_BLOCKS_WITH_MARKS = (
    (0x0300, 0x30FF),
    (0xA66F, 0xABFF),
    (0xFB00, 0xFE2F),
    (0x10000, 0x11FFF),
    (0x13430, 0x1345F),
    (0x16100, 0x1614F),
    (0x16A00, 0x16FFF),
    (0x1BC00, 0x1BCFF),
    (0x1CF00, 0x1EFFF),
)

# Of texts that are looked at, and letters for one word: words of these scripts have 1.5 to 3 on average.
_N_LOOKED_AT = 1000
_TOO_LONG = 4


def _ranges(blocks: Iterable[tuple[int, int]], *, marks: bool) -> str:
    """Return the characters of blocks that are marks, or those that are none, for a set of a regular expression."""
    codes = [code for first, last in blocks for code in range(first, last + 1) if _is_mark(chr(code)) == marks]
    starts = [code for code, before in zip(codes, [-1, *codes[:-1]], strict=True) if code != before + 1]
    ends = [code for code, after in zip(codes, [*codes[1:], -1], strict=True) if code + 1 != after]
    return "".join(f"\\U{start:08x}-\\U{end:08x}" for start, end in zip(starts, ends, strict=True))


def _is_mark(character: str) -> bool:
    """Tell a sign that belongs to the letter in front of it: `re` counts none of them among the letters of a word."""
    # selectors of variants choose how a sign is drawn, not which it is
    return unicodedata.category(character) in ("Mn", "Mc") and not "\ufe00" <= character <= "\ufe0f"


# Made at their first use: going through the blocks takes some hundredths of a second.


@cache
def _marks() -> str:
    return _ranges(_BLOCKS_WITH_MARKS, marks=True)


@cache
def _word() -> "re.Pattern[str]":
    return re.compile(rf"\w[\w{_marks()}]*")


@cache
def _without_spaces() -> str:
    return _ranges(_BLOCKS_WITHOUT_SPACES, marks=False) + _CHINESE


@cache
def _letter_without_spaces() -> "re.Pattern[str]":
    return re.compile(f"[{_without_spaces()}]")


@cache
def _character_or_rest() -> "re.Pattern[str]":
    return re.compile(rf"[{_without_spaces()}][{_marks()}]*|[^{_without_spaces()}]+")


def split_words(text: str) -> list[str]:
    r"""Return the words of a text: runs of letters, digits and underscores, with the marks that stand on them.

    Of scripts that set no spaces each character is one, with its marks. Where there are neither, this is what ``\w+``
    finds.
    """
    if text.isascii():
        return _ASCII_WORD.findall(text)
    words = _word().findall(text)
    if not _letter_without_spaces().search(text):
        return words
    return [part for word in words for part in _character_or_rest().findall(word)]


def looks_unsplit(texts: Sequence[str], tokenize: Callable[[str], list[str]]) -> str | None:
    """Return the first of texts whose words are whole sentences, if that is so of most that set no spaces."""
    candidates = (text for text in texts if not text.isascii() and _letter_without_spaces().search(text))
    looked_at = list(islice(candidates, _N_LOOKED_AT))
    unsplit = [text for text in looked_at if _is_unsplit(text, tokenize)]
    return unsplit[0] if len(unsplit) > len(looked_at) / 2 else None


def _is_unsplit(text: str, tokenize: Callable[[str], list[str]]) -> bool:
    words = [word for word in tokenize(text) if _letter_without_spaces().search(word)]
    n_letters = sum(not _is_mark(letter) for word in words for letter in word)
    return n_letters >= _TOO_LONG * max(len(words), 1)
