"""What a gallery is asked by: sentences, pictures, and mixtures of both."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sklearn_mm._checks import did_you_mean
from sklearn_mm._picture_files import names_picture
from sklearn_mm._tables import is_frame, require_rows, shown, to_list

__all__ = ["Part", "Queries", "read_queries"]

_WEIGHTS = {"image": 1.0, "text": 1.0, "minus": -0.5}
_STORED = {"bytes", "path"}  # how data sets of Hugging Face keep a picture


@dataclass(frozen=True)
class Part:
    """What a query asks for, or does not want, where its weight is negative.

    `row` counts sentences, or pictures, of all queries.
    """

    is_text: bool
    row: int
    weight: float


@dataclass
class Queries:
    """Queries, taken apart.

    Attributes
    ----------
    several : bool
        Whether they came as a list.
    texts : list of str
        All sentences in them.
    images : sequence of pictures, or features of them
        All pictures in them.
    names : list of str, length n_queries
        What each is called.
    parts : list of list of Part, length n_queries
    """

    several: bool
    texts: list[str] = field(default_factory=list)
    images: Any = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    parts: list[list[Part]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.parts)

    def take(self, query: Any) -> None:
        """Take in one query."""
        where = f" in query {len(self)}" if self.several else ""
        if isinstance(query, Mapping) and not (query and query.keys() <= _STORED):
            self._take_mixture(query, where)
        elif isinstance(query, str) and not is_path(query):
            self.names.append(query)
            self.parts.append([self._text(query, 1.0, where)])
        else:
            self.names.append(self._name_of(query))
            self.parts.append([self._image(query, 1.0, where)])

    def _take_mixture(self, query: Mapping[str, Any], where: str) -> None:
        unknown = [key for key in query if key not in _WEIGHTS]
        if unknown or not query:
            what = f"got {shown(unknown[0])}: {did_you_mean(str(unknown[0]), _WEIGHTS)}" if unknown else "got none"
            raise ValueError(f"expected the keys 'image', 'text' and 'minus' in a mixture{where}, {what}")
        parts, names = [], []
        for key, entry in query.items():
            for value, weight in _weighted(entry, _WEIGHTS[key], key, where):
                is_text = key == "text" or (key == "minus" and isinstance(value, str) and not is_path(value))
                parts.append((self._text if is_text else self._image)(value, weight, where))
                names.append(("- " if weight < 0 else "+ ") + (value if is_text else self._name_of(value)))
        if not any(part.weight > 0 for part in parts):
            raise ValueError(f"expected something to look for in a mixture{where}, got what is not wanted alone")
        self.parts.append(parts)
        self.names.append(" ".join(names).removeprefix("+ "))

    def _name_of(self, picture: Any) -> str:
        return os.fspath(picture) if isinstance(picture, str | os.PathLike) else f"query {len(self)}"

    def _text(self, text: Any, weight: float, where: str) -> Part:
        if not isinstance(text, str):
            raise TypeError(f"expected a sentence{where}, got {type(text).__name__}: {shown(text)}")
        if not text.strip():
            raise ValueError(f"expected a sentence or a picture{where}, got an empty text; say what to look for")
        self.texts.append(str(text))
        return Part(True, len(self.texts) - 1, weight)

    def _image(self, picture: Any, weight: float, where: str) -> Part:
        if isinstance(picture, str | os.PathLike) and not Path(picture).is_file():
            raise FileNotFoundError(
                f"expected a picture{where}, and there is no file {os.fspath(picture)!r} in {str(Path.cwd())!r}; of a "
                "sentence that ends like the name of a picture make a mixture: {'text': sentence}"
            )
        if picture is None or isinstance(picture, Real | list | tuple | set):
            raise TypeError(
                f"expected a sentence, a picture or a mixture{where}, got {type(picture).__name__}: {shown(picture)}"
            )
        self.images.append(picture)
        return Part(False, len(self.images) - 1, weight)


def _weighted(entry: Any, weight: float, key: str, where: str) -> list[tuple[Any, float]]:
    """Return what stands under a key of a mixture, one by one, each with its weight."""
    found = []
    for each in entry if isinstance(entry, list) else [entry]:
        value, own = each, abs(weight)
        if isinstance(each, tuple):
            if len(each) != 2 or not isinstance(each[1], Real) or not float(each[1]) > 0:
                raise ValueError(
                    f"expected (what, weight) with a weight above 0 for {key!r} of a mixture{where}, got {shown(each)}"
                )
            value, own = each[0], float(each[1])
        found.append((value, own if weight > 0 else -own))
    return found


def is_path(text: str) -> bool:
    """Whether a text is the path of a picture, and no sentence."""
    suffix = Path(text).suffix.lower()
    # a file that is there is meant as one, whatever it holds: that it is no picture is said when it is read
    return names_picture(text) or (bool(suffix) and len(text) < 1000 and "\0" not in text and Path(text).is_file())


def read_queries(query: Any) -> Queries:
    """Take apart one query, or a list of them.

    Raises
    ------
    TypeError
        It is no query.
    ValueError
        A sentence is empty, or a mixture wrong; the message says in which query.
    FileNotFoundError
        There is no picture of that path.
    """
    queries = Queries(several=not _is_one(query))
    if not queries.several:
        queries.take(query)
    elif _is_batch(query):
        queries.images = query
        n_queries = query.shape[0]
        queries.parts = [[Part(False, row, 1.0)] for row in range(n_queries)]
        queries.names = [f"query {row}" for row in range(n_queries)]
    else:
        require_rows(query, "queries")
        for each in to_list(query):
            queries.take(each)
    if not len(queries):
        raise ValueError("expected at least one query, got an empty list")
    if queries.images is not query and queries.images and all(_is_row(image) for image in queries.images):
        queries.images = np.stack([np.asarray(image) for image in queries.images])
    return queries


def _is_row(image: Any) -> bool:
    """Whether a picture is given by its features."""
    return len(getattr(image, "shape", ())) == 1 and _is_numeric(image)


def _is_numeric(array: Any) -> bool:
    dtype = getattr(array, "dtype", None)
    # never "" in "iufb", which is true
    return hasattr(array, "shape") and (getattr(dtype, "kind", "O") in "iufb" or str(dtype).startswith("torch."))


def _is_one(query: Any) -> bool:
    if isinstance(query, str | os.PathLike | bytes | bytearray | memoryview | Image.Image | Mapping) or hasattr(
        type(query), "readline"
    ):
        return True
    return query is None or isinstance(query, Real) or (_is_numeric(query) and query.ndim in (1, 3))


def _is_batch(query: Any) -> bool:
    """Whether this is pictures or features in one array, or features in a frame."""
    if is_frame(query):
        return query.shape[1] > 1
    return hasattr(query, "tocsr") or (_is_numeric(query) and query.ndim in (2, 4))
