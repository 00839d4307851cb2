"""A cache of activations that keeps means and maxima apart, so that each serves whoever asks for it."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from sklearn_mm.images import PictureReader, RowCache
from sklearn_mm.nn.pooling import pooled_name

__all__ = ["PooledRowCache"]

Layers = Sequence[tuple[str, int]]


class PooledRowCache:
    """Two caches of one folder, that of means and that of maxima, as the cache of both.

    It answers as a `RowCache` does. A picture counts as missing if either part of it is.

    Parameters
    ----------
    means, maxima : RowCache
        As they are used where only one of the two is asked for.
    """

    def __init__(self, means: RowCache, maxima: RowCache) -> None:
        self._caches = (means, maxima)
        self._stack = ExitStack()
        self._columns: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for cache in self._caches:
                stack.enter_context(cache)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    @property
    def folder(self) -> Path:
        """The folder of both."""
        return self._caches[0].folder

    def digest(self, reader: PictureReader, source: Any) -> bytes:
        """As `RowCache.digest`."""
        return self._caches[0].digest(reader, source)

    def remember_files(self) -> None:
        """As `RowCache.remember_files`."""
        self._caches[0].remember_files()

    def key(self, digest: bytes) -> bytes:
        """Return the keys of both parts, one behind the other."""
        return b"".join(cache.key(digest) for cache in self._caches)

    def note(self) -> list[tuple[str, int]] | None:
        """Return names and widths of the layers of both, the maximum behind the mean; None if either is not known."""
        means, maxima = (cache.note() for cache in self._caches)
        if means is None or maxima is None:
            return None
        return _merged(means, maxima)

    def set_note(self, layers: Layers) -> None:
        """Store names and widths of the layers of both."""
        for cache, part in zip(self._caches, _parts(layers), strict=True):
            cache.set_note([layers[place] for place in part])

    def missing(self, keys: Sequence[bytes]) -> list[bytes]:
        """Return those of the keys that lack a part, each once, in their order."""
        lacking = [set(cache.missing(parts)) for cache, parts in zip(self._caches, _split(keys), strict=True)]
        return [
            key
            for key in dict.fromkeys(keys)
            if any(part in some for part, some in zip(_halves(key), lacking, strict=True))
        ]

    def claim(self, keys: Sequence[bytes]) -> list[bytes]:
        """Claim keys that lack a part, and return those that nobody else is computing for both."""
        mine = [set(cache.claim(parts)) for cache, parts in zip(self._caches, _split(keys), strict=True)]
        lacking = set(self._caches[1].missing(_split(keys)[1]))
        # Who computes both is told by the maxima, whoever computes the means for itself.
        claimed = []
        for key in keys:
            mean, maximum = _halves(key)
            if maximum in mine[1] if maximum in lacking else mean in mine[0]:
                claimed.append(key)
        left = set(keys) - set(claimed)
        self._caches[0].release([_halves(key)[0] for key in left])
        return claimed

    def put(self, vectors: Mapping[bytes, np.ndarray]) -> None:
        """Store the parts of vectors and give up the claims on them."""
        for number, (cache, columns) in enumerate(zip(self._caches, self._places()[:2], strict=True)):
            cache.put({_halves(key)[number]: vector[columns] for key, vector in vectors.items()})

    def get(self, keys: Sequence[bytes]) -> dict[bytes, np.ndarray]:
        """Return the vectors of those keys that have both parts: float32."""
        means, maxima = (cache.get(parts) for cache, parts in zip(self._caches, _split(keys), strict=True))
        places = self._places()[2]
        return {
            key: np.concatenate([means[mean], maxima[maximum]])[places]
            for key in keys
            for mean, maximum in [_halves(key)]
            if mean in means and maximum in maxima
        }

    def release(self, keys: Sequence[bytes]) -> None:
        """Give up the claims on keys that got no vector."""
        for cache, parts in zip(self._caches, _split(keys), strict=True):
            cache.release(parts)

    def _places(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the columns of means and of maxima among those of both, and where those of both are in these two."""
        if self._columns is None:
            layers = self.note() or []
            widths = [width for _, width in layers]
            ends = np.cumsum(widths)
            means, maxima = (
                np.concatenate([np.arange(ends[layer] - widths[layer], ends[layer]) for layer in part])
                for part in _parts(layers)
            )
            places = np.empty(ends[-1], dtype=np.intp)
            places[maxima] = len(means) + np.arange(len(maxima))
            places[means] = np.arange(len(means))  # what has no positions is in both
            self._columns = means, maxima, places
        return self._columns


def _parts(layers: Layers) -> tuple[list[int], list[int]]:
    """Return which of the layers a pass for means reads, and which a pass for maxima."""
    names = [name for name, _ in layers]
    is_maximum = [False, *(name == pooled_name(before, "max") for before, name in pairwise(names))]
    has_maximum = [*is_maximum[1:], False]
    means = [place for place, is_other in enumerate(is_maximum) if not is_other]
    return means, [place for place, is_other in enumerate(has_maximum) if not is_other]


def _merged(means: Layers, maxima: Layers) -> list[tuple[str, int]]:
    """Return the layers of both, each maximum behind its mean."""
    layers = []
    for (name, width), (other, _) in zip(means, maxima, strict=True):
        layers += [(name, width)] if other == name else [(name, width), (other, width)]
    return layers


def _halves(key: bytes) -> tuple[bytes, bytes]:
    return key[: len(key) // 2], key[len(key) // 2 :]


def _split(keys: Iterable[bytes]) -> tuple[list[bytes], list[bytes]]:
    halves = [_halves(key) for key in keys]
    return [mean for mean, _ in halves], [maximum for _, maximum in halves]
