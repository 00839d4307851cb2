"""Pictures that look alike: the same one, encoded anew, resized or mirrored.

A picture is brought to 32 x 32 grey values. Which of its lowest frequencies are clearly positive are 64 bits, of which
copies share nearly all [1]_; of the pairs that do, the grey values themselves decide.

References
----------
.. [1] C. Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010: the hash by a DCT.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from threading import Lock
from typing import Any

import numpy as np
from PIL import Image
from scipy.fft import dctn

from sklearn_mm._threads import in_threads
from sklearn_mm.exceptions import ImageReadError

__all__ = ["Looks", "find_alike", "look_at"]

_SIDE = 32  # of the grey values
_FINE = 16  # of those that are kept to decide by
_FREQUENCIES = 8
# Of their mean size. Above 0 or their median, as in [1]_, would be noise of what is symmetric (half are 0):
# of 1,200 emoji 77 % are within 8 bits of their copies by the median, 99.7 % so. For photos both are alike.
_CLEAR = 0.2
_FLAT = 2.0  # grey levels: of a picture that varies less the frequencies are noise
_MOST_BITS = 12  # that copies differ in
_LEAST_CORRELATION = 0.97
_QUERIES, _ITEMS = 8, 8192  # compared at once: half a megabyte, which stays in the cache of a core


@dataclass(frozen=True)
class Looks:
    """What pictures look like.

    Attributes
    ----------
    rows : ndarray of shape (n_pictures,), int64
        Where each stood; what is no picture or has one colour is left out.
    bits, mirrored_bits : ndarray of shape (n_pictures,), uint64
        Of each picture, and of its mirror image.
    grey : ndarray of shape (n_pictures, 16, 16), uint8
    n_unreadable : int
        Files that are no pictures.
    """

    rows: np.ndarray
    bits: np.ndarray
    mirrored_bits: np.ndarray
    grey: np.ndarray
    n_unreadable: int


def look_at(sources: Iterable[tuple[int, Any]]) -> Looks:
    """Read pictures, in as many threads as there are.

    Parameters
    ----------
    sources : iterable of (int, picture)
        Rows, and paths, bytes, PIL images or arrays of pixels.
    """
    from sklearn_mm.images import PictureReader  # and torch with it, which no other part of this package needs

    tasks = list(sources)
    # A JPEG is decoded at the fraction of its size that this asks for.
    reader = PictureReader(image_size=_SIDE, resize_size=_SIDE)
    found: dict[int, np.ndarray] = {}
    unreadable: list[int] = []  # files; an array may hold anything
    lock = Lock()

    def read(own: Iterator[tuple[int, Any]]) -> None:
        for row, source in own:
            try:
                pixels = Image.fromarray(reader.decode(source)).convert("L")
            except ImageReadError:  # reported as a number: who reads it next will say what is wrong with it
                if isinstance(source, PurePath | bytes):
                    with lock:
                        unreadable.append(row)
                continue
            values = np.asarray(pixels.resize((_SIDE, _SIDE), Image.Resampling.BOX))
            with lock:
                found[row] = values

    in_threads(read, tasks)
    rows = np.array(sorted(found), dtype=np.int64)
    grey = np.array([found[row] for row in rows.tolist()], dtype=np.uint8).reshape(-1, _SIDE, _SIDE)
    textured = grey.std(axis=(1, 2)) >= _FLAT
    rows, grey = rows[textured], grey[textured]
    frequencies = dctn(grey.astype(np.float32), axes=(1, 2), norm="ortho")[:, :_FREQUENCIES, :_FREQUENCIES]
    # The mirror image has the odd frequencies across with the other sign.
    mirror = np.where(np.arange(_FREQUENCIES) % 2, -1, 1).astype(np.float32)
    step = _SIDE // _FINE
    fine = grey.reshape(len(grey), _FINE, step, _FINE, step).mean(axis=(2, 4)).round().astype(np.uint8)
    return Looks(rows, _signs(frequencies), _signs(frequencies * mirror), fine, len(unreadable))


def _signs(frequencies: np.ndarray) -> np.ndarray:
    """Return which frequencies (n, 8, 8) are clearly positive, as (n,) uint64."""
    flat = frequencies.reshape(-1, _FREQUENCIES**2)
    size = np.abs(flat[:, 1:]).mean(axis=1, keepdims=True)  # the first is the brightness, which tells nothing
    positive = flat > _CLEAR * size
    positive[:, 0] = False
    bits: np.ndarray = np.packbits(positive, axis=1).view(np.uint64).ravel()
    return bits


def find_alike(queries: Looks, items: Looks) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the pairs of pictures that look alike.

    Returns
    -------
    query_rows, item_rows : ndarray of shape (n_pairs,), int64
        Sorted by the first, then by the second.
    mirrored : ndarray of shape (n_pairs,), bool
        Whether one is alike the mirror image of the other.
    """
    plain = _decide(queries, items, *_near_bits(queries.bits, items.bits), mirrored=False)
    mirror = _decide(queries, items, *_near_bits(queries.mirrored_bits, items.bits), mirrored=True)
    query, item = (np.concatenate(both) for both in zip(plain, mirror, strict=True))
    is_mirror = np.repeat([False, True], [len(plain[0]), len(mirror[0])])
    # A symmetric picture is alike its mirror image: such a pair is named once, as plain.
    order = np.lexsort((is_mirror, item, query))
    query, item, is_mirror = query[order], item[order], is_mirror[order]
    first = np.r_[True, (np.diff(query) != 0) | (np.diff(item) != 0)][: len(query)]
    return queries.rows[query[first]], items.rows[item[first]], is_mirror[first]


def _near_bits(queries: np.ndarray, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the pairs of bits that differ in few: all are compared, block by block."""

    def compare(parts: Iterator[slice]) -> tuple[np.ndarray, np.ndarray]:
        found: list[tuple[np.ndarray, np.ndarray]] = []
        # Written over by each block: to allocate them would take longer than to fill them.
        differing, counts = np.empty((_QUERIES, _ITEMS), np.uint64), np.empty((_QUERIES, _ITEMS), np.uint8)
        for part in parts:
            own = queries[part, None]
            for start in range(0, len(items), _ITEMS):
                others = items[start : start + _ITEMS]
                block = slice(None, len(own)), slice(None, len(others))
                np.bitwise_xor(own, others, out=differing[block])
                count = np.bitwise_count(differing[block], out=counts[block])
                if count.min() <= _MOST_BITS:
                    query, item = np.nonzero(count <= _MOST_BITS)
                    found.append((query + part.start, item + start))
        return _joined(found)

    if not len(items):
        return _joined([])
    blocks = [slice(start, min(start + _QUERIES, len(queries))) for start in range(0, len(queries), _QUERIES)]
    return _joined(in_threads(compare, blocks))


def _decide(
    queries: Looks, items: Looks, query: np.ndarray, item: np.ndarray, *, mirrored: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Keep the pairs of which the grey values go together."""
    kept: list[tuple[np.ndarray, np.ndarray]] = []
    for start in range(0, len(query), _ITEMS):
        pair = query[start : start + _ITEMS], item[start : start + _ITEMS]
        one = queries.grey[pair[0]]
        first = _standardised(one[:, :, ::-1] if mirrored else one)
        alike = np.einsum("ij,ij->i", first, _standardised(items.grey[pair[1]])) >= _LEAST_CORRELATION
        kept.append((pair[0][alike], pair[1][alike]))
    return _joined(kept)


def _standardised(grey: np.ndarray) -> np.ndarray:
    values = grey.reshape(len(grey), -1).astype(np.float32)
    values -= values.mean(axis=1, keepdims=True)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def _joined(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    if not pairs:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    first, second = (np.concatenate(both) for both in zip(*pairs, strict=True))
    return first, second
