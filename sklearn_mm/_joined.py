"""Several labels or tags in one str, as they come out of a CSV file: told from single ones, and split."""

import ast
import re
from collections import Counter
from collections.abc import Iterable

__all__ = ["joined_by", "split_joined", "split_printed"]

_QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""")
_BRACKETS = {"[": "]", "(": ")", "{": "}"}
_SEPARATORS = (",", ";", "|")


def split_printed(text: str) -> list[str] | None:
    """Return the entries of a list, tuple, set or array of str that was printed; None for any other text."""
    text = text.strip()
    if len(text) < 2 or _BRACKETS.get(text[0]) != text[-1]:
        return None
    inner = text[1:-1].strip()
    # numpy prints no commas; ast reads each str alone, as two without a comma would be one to it
    if _QUOTED.sub("", inner).strip(", \n\t"):
        return None
    if not inner:
        return [] if text[0] == "[" else None
    return [ast.literal_eval(part) for part in _QUOTED.findall(inner)]


def split_joined(text: str, separator: str | None) -> list[str]:
    """Split labels or tags in one str, without white space around them and without empty ones.

    Parameters
    ----------
    text : str
        With a separator, or a list as Python or numpy prints it.
    separator : str or None
        None for any white space.
    """
    printed = split_printed(text)
    return [part for part in map(str.strip, text.split(separator) if printed is None else printed) if part]


def joined_by(labels: Iterable[str]) -> str | None:
    """Return by what labels seem to be several in one str each, or None where they seem to be single ones.

    Lists in one str share their parts, as "bird, cloud" and "cloud, sea" do; names with a comma ("crane, bird") mostly
    do not. White space stands in many names ("teddy bear", "red square"): there some part has to be a label by itself
    too, and there are to be no more parts than labels.
    """
    texts = list(labels)
    if any(split_printed(text) for text in texts):
        return ","
    for separator in _SEPARATORS:
        parts = [set(split_joined(text, separator)) for text in texts]
        several = [own for own in parts if len(own) > 1]
        count = Counter(part for own in parts for part in own)
        if several and 2 * sum(any(count[part] > 1 for part in own) for own in several) >= len(several):
            return separator
    words = [text.split() for text in texts]
    joined = {word for own in words if len(own) > 1 for word in own}
    single = {own[0] for own in words if len(own) == 1}
    return " " if joined & single and len(joined | single) <= len(words) else None
