"""Pretrained word vectors: read only what the vocabulary needs."""

import bz2
import csv
import gzip
import io
import lzma
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from typing import IO, Any

import numpy as np

from sklearn_mm._unicode import normal_form, same_texts

__all__ = ["read_word_vectors"]

_Hits = Iterable[tuple[str, np.ndarray]]
_SEPARATORS = (" ", "\t", ",")
_ENDS = " \t\r\n"  # of lines: other blanks of Unicode are words
_HEADER = re.compile(r"\d+[ \t](\d+)")  # word2vec's: how many words there are, and of how many numbers
_PACKED: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zX": lzma.open}


def read_word_vectors(source: Any, words: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
    """Look up the vectors of `words` without loading the others.

    Parameters
    ----------
    source : mapping, KeyedVectors, str or Path, or pair of them
        A ``{word: vector}`` mapping; what has ``key_to_index``, and ``vectors`` or ``source[word]``, as gensim's
        KeyedVectors; a GloVe or word2vec text file (a word and its numbers a line, between spaces, tabs or commas; a
        header line is skipped, and words may have spaces, as some of GloVe's have), also as .gz, .bz2, .xz, or in a
        .zip, where ``file.zip/member`` names one of several; or an npy pair ``(array of shape (n, dim) or its .npy
        path, words or a path with one a line)``.
    words : iterable of str
        Looked up in their normal form of Unicode. Of a word that stands there twice the first vector counts.

    Returns
    -------
    vectors : ndarray of shape (n_words, dim), float32
        Zero where a word has none.
    found : ndarray of shape (n_words,), bool

    Raises
    ------
    ValueError
        A file or pair is malformed, vectors have different lengths, or not one word was found.
    FileNotFoundError
        A named file does not exist.
    """
    words = list(words)
    rows_of: dict[str, list[int]] = {}
    for row, word in enumerate(words):
        rows_of.setdefault(normal_form(word), []).append(row)
    vectors: np.ndarray | None = None
    found = np.zeros(len(words), dtype=bool)
    n_left = len(rows_of)
    for word, vector in _open_source(source, rows_of):
        rows = rows_of[word]
        if found[rows[0]]:
            continue
        # the first hit says how long vectors are, and only those of the vocabulary are ever in memory
        if vectors is None:
            vectors = np.zeros((len(words), vector.size), dtype=np.float32)
        if vector.shape != vectors.shape[1:]:
            raise ValueError(f"word_vectors hold vectors of different shapes: {vectors.shape[1:]} and {vector.shape}")
        vectors[rows] = vector
        found[rows] = True
        n_left -= 1
        if not n_left:
            break
    if vectors is None:
        raise ValueError("word_vectors know none of the words of the vocabulary; is the case (lowercase) the same?")
    if not np.isfinite(vectors).all():
        raise ValueError("word_vectors hold NaN or infinity")
    return vectors, found


def _open_source(source: Any, wanted: Mapping[str, Any]) -> _Hits:
    """Return words that are wanted, in their normal form, and their vectors."""
    if isinstance(source, Mapping):
        return _from_mapping(source, source.__getitem__, wanted)
    places = getattr(source, "key_to_index", None)
    if isinstance(places, Mapping):
        table = getattr(source, "vectors", None)
        look_up = source.__getitem__ if table is None else lambda word: table[places[word]]
        return _from_mapping(places, look_up, wanted)
    if isinstance(source, tuple | list) and len(source) == 2:
        return _from_pair(source[0], source[1], wanted)
    if isinstance(source, str | Path):
        return _from_text_file(Path(source), wanted)
    raise ValueError(
        "word_vectors must be a {word: vector} mapping, gensim's KeyedVectors (of a model, its attribute wv), a text "
        f"file, or a pair (npy file, words), got {type(source).__name__}"
    )


def _from_mapping(known: Mapping[Any, Any], look_up: Callable[[str], Any], wanted: Mapping[str, Any]) -> _Hits:
    # over the wanted words: the mapping may hold millions, or look each up on a disk
    for word in wanted:
        form = next((form for form in same_texts(word) if form in known), None)
        if form is not None:
            yield word, np.asarray(look_up(form))


def _from_pair(array: Any, names: Any, wanted: Mapping[str, Any]) -> _Hits:
    # mapped, not read: only the rows of wanted words are; no pickles, which may run code
    table = np.load(array, mmap_mode="r", allow_pickle=False) if isinstance(array, str | Path) else np.asarray(array)
    listed = _read_words(Path(names)) if isinstance(names, str | Path) else list(names)
    if table.ndim != 2 or len(table) != len(listed):
        raise ValueError(f"word_vectors: expected one word per vector, got {len(listed)} words for shape {table.shape}")
    forms = ((row, normal_form(word)) for row, word in enumerate(listed))
    return ((word, np.asarray(table[row])) for row, word in forms if word in wanted)


def _read_words(path: Path) -> list[str]:
    """Read one word a line; an empty line is a word too, but for one at the end."""
    lines = path.read_bytes().decode("utf-8-sig").split("\n")
    if lines[-1] == "":
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


# Files of text ----------------------------------------------------------------------------------------------------


def _from_text_file(path: Path, wanted: Mapping[str, Any]) -> _Hits:
    """Parse the lines of wanted words."""
    with _opened(path) as lines:
        separator, dim, numbered = _form_of(enumerate(lines, start=1), path)
        # most lines are dismissed by their first word, before their hundreds of numbers are split
        beginnings = {word.partition(separator)[0] for word in wanted}
        for number, line in numbered:
            beginning = line.partition(separator)[0]
            is_quoted = separator == "," and beginning.startswith('"')  # tables quote words that are quotes or commas
            if not is_quoted and normal_form(beginning) not in beginnings:
                continue
            # from the right: what is left of the numbers is the word, spaces and all
            word, *numbers = next(csv.reader([line])) if is_quoted else line.rstrip(_ENDS).rsplit(separator, dim)
            word = normal_form(word)
            if word in wanted:
                yield word, _parsed(numbers, dim, path, number)


def _form_of(lines: Iterator[tuple[int, str]], path: Path) -> tuple[str, int, Iterator[tuple[int, str]]]:
    """Return what separates the fields, how many numbers a vector has, and the lines behind a header."""
    number, line = next(lines, (1, ""))
    header = _HEADER.fullmatch(line.rstrip(_ENDS))
    separator, dim = _separator_of(line)
    if header or not dim or (separator == "," and _are_names(line)):
        number, line = next(lines, (2, ""))
        separator, dim = _separator_of(line)
    expected = int(header.group(1)) if header else dim
    if not 0 < expected <= dim:
        raise ValueError(
            f"{path}, line {number}: expected a word and its {expected or ''} numbers, got {line!r:.60}; a file in "
            "word2vec's binary form is read by gensim: pass its KeyedVectors.load_word2vec_format(path, binary=True)"
        )
    return separator, expected, chain([(number, line)], lines)


def _separator_of(line: str) -> tuple[str, int]:
    """Return the separator that leaves the most numbers at the end of a line, and how many these are."""
    counts = {separator: _n_numbers(line.rstrip(_ENDS).partition(separator)[2], separator) for separator in _SEPARATORS}
    best = max(_SEPARATORS, key=counts.__getitem__)
    return best, counts[best]


def _are_names(line: str) -> bool:
    """Tell the names that a table has for its columns, a running number each, from numbers."""
    names = line.rstrip(_ENDS).split(",")[1:]
    return names in ([str(k + first) for k in range(len(names))] for first in (0, 1))


def _n_numbers(fields: str, separator: str) -> int:
    """Count the numbers at the end of fields."""
    listed = fields.split(separator)
    return next((place for place, field in enumerate(reversed(listed)) if not _is_number(field)), len(listed))


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _parsed(numbers: list[str], dim: int, path: Path, number: int) -> np.ndarray:
    try:
        vector = np.array(numbers, dtype=np.float32)
    except ValueError as error:
        raise ValueError(f"{path}, line {number}: expected a word and its {dim} numbers") from error
    if len(vector) != dim:
        raise ValueError(f"{path}, line {number}: expected a word and its {dim} numbers, got {len(vector)}")
    return vector


@contextmanager
def _opened(path: Path) -> Iterator[IO[str]]:
    """Open a file of text, whatever it is packed in."""
    with ExitStack() as stack:
        archive = next((place for place in (path, *path.parents) if place.is_file()), path)
        with archive.open("rb") as file:
            start = file.read(4)
        if start.startswith(b"PK"):
            packed = stack.enter_context(zipfile.ZipFile(archive))
            raw = stack.enter_context(packed.open(_member_of(packed, archive, path)))
        else:
            # by what they begin with: names of files are not to be trusted
            opener = next((opener for magic, opener in _PACKED.items() if start.startswith(magic)), open)
            raw = stack.enter_context(opener(path, "rb"))
        # words that are no UTF-8 are lost, where a file of millions has some
        text = stack.enter_context(io.TextIOWrapper(raw, encoding="utf-8-sig", errors="replace", newline="\n"))
        try:
            yield text
        except EOFError as error:
            raise ValueError(f"{path} ends before its end; was it downloaded as a whole?") from error


def _member_of(packed: zipfile.ZipFile, archive: Path, path: Path) -> str:
    if path != archive:
        return path.relative_to(archive).as_posix()
    names = [name for name in packed.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")]
    if len(names) != 1:
        raise ValueError(
            f"{archive} holds {len(names)} files: {', '.join(names[:6])}; name one of them: "
            f"{(archive / (names[0] if names else 'vectors.txt')).as_posix()!r}"
        )
    return names[0]
