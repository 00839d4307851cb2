"""Digests of pixels that this process has hashed before, found again by a hash that is many times faster."""

import os
from collections.abc import Callable, Hashable
from importlib import import_module
from threading import Lock
from typing import Any

_fast_hash: Callable[..., bytes] | None
try:
    _fast_hash = import_module("xxhash").xxh3_128_digest
except ImportError:  # everything is hashed anew then
    _fast_hash = None

__all__ = ["KnownDigests"]


class KnownDigests:
    """A bounded memory from contents to their digests; for any number of threads.

    A search looks at every picture again for each candidate and fold. SHA-256 of an array of 224 x 224 pixels takes
    140 us where the processor has instructions for it; XXH3, of 128 bits, 6.

    Parameters
    ----------
    size : int
        Entries that are kept, of about 300 bytes each; the oldest go first.

    Notes
    -----
    The content is read each time, so that what was changed in place is another one. Two contents of one kind have the
    same hash of 128 bits by chance alone: who would make such a pair would have to know the seed, which is drawn anew
    in each process and leaves it never.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._seed = int.from_bytes(os.urandom(8), "little")
        self._known: dict[tuple[Hashable, bytes], bytes] = {}
        self._changing = Lock()

    def digest(self, kind: Hashable, content: Any, compute: Callable[[], bytes]) -> bytes:
        """Return what `compute` returned for this content before, or does now.

        Parameters
        ----------
        kind : hashable
            What besides the bytes decides on the digest.
        content : contiguous buffer
        compute : callable
            Computes the digest.
        """
        if _fast_hash is None:
            return compute()
        key = (kind, _fast_hash(content, seed=self._seed))
        known = self._known.get(key)
        if known is not None:
            return known
        digest = compute()
        # another thread may have written to it meanwhile: the digest would be that of another content, for ever
        if _fast_hash(content, seed=self._seed) == key[1]:
            with self._changing:
                while len(self._known) >= self._size:
                    del self._known[next(iter(self._known))]
                self._known[key] = digest
        return digest
