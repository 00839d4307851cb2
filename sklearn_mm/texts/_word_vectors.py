"""Pretrained word vectors: read only what the vocabulary needs."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["read_word_vectors"]


def read_word_vectors(source: Any, words: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
    """Look up the vectors of `words` without loading the others.

    Parameters
    ----------
    source : mapping, str or Path, or pair of them
        A ``{word: vector}`` mapping; a GloVe or word2vec text file (a word and its numbers a line; a header line is
        skipped, and words may have spaces, as some of GloVe's have); or an npy pair ``(array of shape (n, dim) or its
        .npy path, words or a path with one a line)``.
    words : iterable of str

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
    wanted = {word: row for row, word in enumerate(words)}
    hits: Iterable[tuple[int, np.ndarray]]
    if isinstance(source, Mapping):
        # over the wanted words: the mapping may hold millions, or look each up on a disk
        hits = ((wanted[word], np.asarray(source[word])) for word in wanted if word in source)
    elif isinstance(source, tuple | list) and len(source) == 2:
        hits = _from_pair(source[0], source[1], wanted)
    elif isinstance(source, str | Path):
        hits = _from_text_file(Path(source), wanted)
    else:
        raise ValueError(
            "word_vectors must be a {word: vector} mapping, a text file, or a pair (npy file, words), "
            f"got {type(source).__name__}"
        )
    vectors: np.ndarray | None = None
    found = np.zeros(len(wanted), dtype=bool)
    for row, vector in hits:
        # the first hit says how long vectors are, and only those of the vocabulary are ever in memory
        if vectors is None:
            vectors = np.zeros((len(wanted), vector.size), dtype=np.float32)
        if vector.shape != vectors.shape[1:]:
            raise ValueError(f"word_vectors hold vectors of different shapes: {vectors.shape[1:]} and {vector.shape}")
        vectors[row] = vector
        found[row] = True
    if vectors is None:
        raise ValueError("word_vectors know none of the words of the vocabulary; is the case (lowercase) the same?")
    if not np.isfinite(vectors).all():
        raise ValueError("word_vectors hold NaN or infinity")
    return vectors, found


def _from_pair(array: Any, names: Any, wanted: dict[str, int]) -> Iterable[tuple[int, np.ndarray]]:
    # mapped, not read: only the rows of wanted words are; no pickles, which may run code
    table = np.load(array, mmap_mode="r", allow_pickle=False) if isinstance(array, str | Path) else np.asarray(array)
    listed = Path(names).read_text(encoding="utf-8").split("\n") if isinstance(names, str | Path) else list(names)
    if isinstance(names, str | Path) and listed and listed[-1] == "":
        listed.pop()
    if table.ndim != 2 or len(table) != len(listed):
        raise ValueError(f"word_vectors: expected one word per vector, got {len(listed)} words for shape {table.shape}")
    return ((wanted[word], np.asarray(table[row])) for row, word in enumerate(listed) if word in wanted)


def _from_text_file(path: Path, wanted: dict[str, int]) -> Iterable[tuple[int, np.ndarray]]:
    """Parse the lines of wanted words. A word may have spaces of its own: a vector is the last numbers of a line."""
    # most lines are dismissed by their first word, before their hundreds of numbers are split
    beginnings = {word.partition(" ")[0] for word in wanted}
    dim = None
    with path.open(encoding="utf-8", errors="replace", newline="\n") as lines:
        for number, line in enumerate(lines, start=1):
            beginning, _, rest = line.rstrip().partition(" ")
            if number == 1 and rest.isdigit():  # word2vec's header: how many words, and of how many numbers
                dim = int(rest)
                continue
            if dim is None:
                # GloVe has no header: the numbers at the end of the first line are counted
                dim = _n_numbers(rest)
            if beginning not in beginnings:
                continue
            # from the right: what is left of the numbers is the word, spaces and all
            word, *numbers = line.rstrip().rsplit(" ", dim)
            if word in wanted:
                yield wanted[word], _parsed(numbers, dim, path, number)


def _n_numbers(line: str) -> int:
    """Count the numbers at the end of a line."""
    fields = line.split(" ")
    n_numbers = next((place for place, field in enumerate(reversed(fields)) if not _is_number(field)), len(fields))
    return max(n_numbers, 1)


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
