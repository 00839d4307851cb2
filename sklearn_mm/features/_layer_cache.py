"""A cache of activations by layer, which serves any choice among the layers that it has."""

import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np

from sklearn_mm.images import PictureReader, RowCache
from sklearn_mm.nn.layer_table import LAST, Column, LayerTable
from sklearn_mm.nn.pooling import POOLINGS

__all__ = ["LayerCache"]

_KEPT = (("auto", "pre"), ("auto", "post"), ("last", "pre"))  # layers and activation
Group = tuple[tuple[Column, int], ...]  # columns that are stored as one vector, each with its width


class _Piece(NamedTuple):
    """Where columns of the answer, `first` to `first + stop - start`, are in the vector of a group."""

    group: int
    start: int
    stop: int
    first: int


class LayerCache:
    """The activations of pictures in a `RowCache`, for one choice of layers; a context manager.

    Parameters
    ----------
    rows : RowCache
        For all that decides on activations besides the picture and the layer.
    layers, activation, pooling : see FullNetworkEmbedding
    dtype : {"float32", "float16"}, default="float32"
        In which activations are stored, so that they come out rounded to it; a vector that float16 does not reach
        is stored in float32.

    Notes
    -----
    Layers that are mostly asked for together lie in one vector, a *group*: all of "auto" before the activation
    function, all of them behind it, what the class layer is given; the same of maxima, once those were asked for; and
    what beyond that a choice of layers has named. The note of the cache lists the groups, and what can be read of the
    network, so that a choice is understood without it.
    """

    def __init__(
        self, rows: RowCache, layers: str | int | Sequence[str], activation: str, pooling: str, dtype: str = "float32"
    ) -> None:
        self._rows = rows
        self._is_half = dtype == "float16"
        self._layers, self._activation, self._pooling = layers, activation, pooling
        self._is_known = False
        self._names: list[tuple[str, int]] = []
        self._pieces: list[_Piece] = []
        self._groups: list[Group] = []
        self._ways = POOLINGS["mean"] if pooling == "mean" else POOLINGS["mean+max"]  # as a TapReader for it reads
        self._read: list[tuple[Column, int]] = []  # what the network answers
        self._where: dict[int, np.ndarray | slice] = {}  # and which columns of it each group is

    def __enter__(self) -> Self:
        self._rows.__enter__()
        self._understand(self._rows.note())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._rows.__exit__(kind, error, trace)

    @property
    def folder(self) -> Path:
        """Where it is."""
        return self._rows.folder

    @property
    def layers(self) -> list[tuple[str, int]]:
        """Name and width of the layers, or of each part of them; none before they are known."""
        return self._names

    @property
    def width(self) -> int:
        """Columns of the answer; 0 before they are known."""
        return sum(width for _, width in self._names)

    @property
    def n_rows_held(self) -> int | None:
        """Rows of the answer that it can hold at once beside others'; None if any number, 0 before that is known."""
        if self._rows.size is None:
            return None
        row = (2 if self._is_half else 4) * sum(width for group in self._parts for _, width in self._groups[group])
        return self._rows.size // (2 * row) if row else 0

    @property
    def _parts(self) -> list[int]:
        return list(dict.fromkeys(piece.group for piece in self._pieces))

    def digest(self, reader: PictureReader, source: str | os.PathLike[str] | Any) -> bytes:
        """As `RowCache.digest`."""
        return self._rows.digest(reader, source)

    def remember_files(self) -> None:
        """As `RowCache.remember_files`."""
        self._rows.remember_files()

    def key(self, digest: bytes) -> bytes:
        """As `RowCache.key`."""
        return self._rows.key(digest)

    def missing(self, keys: Sequence[bytes]) -> list[bytes]:
        """Return those of the keys that lack a layer, each once, in their order."""
        if not self._is_known:  # somebody else may have found out meanwhile
            self._understand(self._rows.note())
        return self._rows.missing(keys, self._parts) if self._is_known else list(dict.fromkeys(keys))

    def claim(self, keys: Sequence[bytes]) -> list[bytes]:
        """Claim keys that lack a layer, and return those that nobody else is computing, whatever layers of them."""
        return self._rows.claim(keys, self.missing)

    def release(self, keys: Sequence[bytes]) -> None:
        """As `RowCache.release`."""
        self._rows.release(keys)

    def leave_out(self, keys: Sequence[bytes]) -> frozenset[str]:
        """Return the taps of which these pictures have all, so that a pass for them need not read them."""
        if not self._is_known or not keys:
            return frozenset()
        has_all = [not self._rows.missing(keys, (number,)) for number in range(len(self._groups))]
        there = {
            column for group, is_there in zip(self._groups, has_all, strict=True) if is_there for column, _ in group
        }
        # what a group lacks it needs whole; and of others what is read now is read once for all
        needed = {column.tap for number in self._parts if not has_all[number] for column, _ in self._groups[number]}
        read = {column for group in self._groups for column, _ in group if column.part in ("class", *self._ways)}
        return frozenset(column.tap for column in there) - needed - {column.tap for column in read - there}

    def learn(self, table: LayerTable | None, read: Sequence[tuple[Column, int]]) -> None:
        """Take note of what can be read of the network, and of what it answers.

        Parameters
        ----------
        table : LayerTable or None
            As a `TapReader` with `leave_out` has it after its first batch.
        read : sequence of (Column, int)
            With their widths, in the order of the answer.
        """
        if table is None:
            raise RuntimeError("only a network that is read for a cache knows what can be read of it")
        if self._is_known and self._read == read:
            return
        self._read = list(read)

        def extended(note: Any) -> Any:
            before = None if note is None else LayerTable.from_json(note["table"])
            merged = table if before is None else before.merged(table)
            groups = [] if note is None else _groups_of(note)
            groups += _new_groups(merged, groups, self._read, self._wanted(merged))
            return {"table": merged.to_json(), "groups": groups}

        self._understand(self._rows.change_note(extended))
        self._where = self._find_groups()

    def _wanted(self, table: LayerTable) -> list[tuple[Column, int]]:
        columns = table.columns(self._layers, self._activation, self._pooling)
        if columns is None:
            raise ValueError(f"layers={self._layers!r} cannot be found again in the network")
        return [(column, width) for column, _, width in columns]

    def _understand(self, note: Any) -> None:
        """Find the layers that are wanted in what the cache has."""
        if note is None:
            return
        self._groups = _groups_of(note)
        columns = LayerTable.from_json(note["table"]).columns(self._layers, self._activation, self._pooling)
        pieces = None if columns is None else _pieces([column for column, _, _ in columns], self._groups)
        self._is_known = pieces is not None
        if columns is not None and pieces is not None:
            self._names, self._pieces = [(name, width) for _, name, width in columns], pieces

    def _find_groups(self) -> dict[int, np.ndarray | slice]:
        """Return where the columns of each group are in what the network answers, of groups that it answers whole."""
        ends = np.cumsum([width for _, width in self._read]).tolist()
        place = {column: (end - width, end) for (column, width), end in zip(self._read, ends, strict=True)}
        found: dict[int, np.ndarray | slice] = {}
        for number, group in enumerate(self._groups):
            if all(column in place for column, _ in group):
                found[number] = _as_slice([place[column] for column, _ in group])
        return found

    def put(self, keys: Sequence[bytes], block: np.ndarray) -> None:
        """Store what the network answered for pictures, float32 (n, d), and give up the claims on them."""
        vectors = {}
        for number, places in self._where.items():
            part = self._rounded(block[:, places])
            vectors.update({(key, number): row for key, row in zip(keys, part, strict=True)})
        self._rows.put(vectors, spare=self._where.keys() - set(self._parts))

    def get(self, keys: Sequence[bytes], out: np.ndarray) -> list[int]:
        """Write the activations of pictures into rows of `out`, float32; return which rows have been lost."""
        rows_of: dict[bytes, list[int]] = {}
        for row, key in enumerate(keys):
            rows_of.setdefault(key, []).append(row)
        n_found = np.zeros(len(keys), dtype=np.intp)
        for group in self._parts:
            pieces = [piece for piece in self._pieces if piece.group == group]
            start, stop = min(piece.start for piece in pieces), max(piece.stop for piece in pieces)
            width = sum(width for _, width in self._groups[group])
            # of a vector that is wanted by half or more, reading all of it costs no more
            span = (start, stop) if 2 * (stop - start) < width else (0, None)
            for key, vector in self._rows.get(list(rows_of), group, *span):
                for row in rows_of[key]:
                    n_found[row] += 1
                    for _, first, last, place in pieces:
                        out[row, place : place + last - first] = vector[first - span[0] : last - span[0]]
        return np.flatnonzero(n_found < len(self._parts)).tolist()

    def chosen(self, block: np.ndarray) -> np.ndarray:
        """Return what is wanted of what the network answered: float32 (n, width)."""
        out = np.empty((len(block), self.width), dtype=np.float32)
        parts = {group: np.stack(self._rounded(block[:, self._where[group]])) for group in self._parts}
        for group, start, stop, first in self._pieces:
            out[:, first : first + stop - start] = parts[group][:, start:stop]
        return out

    def _rounded(self, block: np.ndarray) -> list[np.ndarray]:
        """Return vectors as they are stored."""
        if not self._is_half:
            return list(block)
        with np.errstate(over="ignore"):
            half = block.astype(np.float16)
        return [rounded if np.isfinite(rounded).all() else exact for rounded, exact in zip(half, block, strict=True)]


def _groups_of(note: Any) -> list[Group]:
    return [tuple((Column(*column), width) for column, width in group) for group in note["groups"]]


def _new_groups(
    table: LayerTable,
    groups: Sequence[Group],
    read: Sequence[tuple[Column, int]],
    wanted: Sequence[tuple[Column, int]],
) -> list[Group]:
    """Return the groups to be added for what a network answers: what is kept for others, and what is wanted now."""
    answered = {column for column, _ in read}
    known = {column for group in groups for column, _ in group}
    new: list[Group] = []
    standard = [(layers, activation, pooling) for pooling in ("mean", "max") for layers, activation in _KEPT]
    for layers, activation, pooling in standard:
        group = tuple((column, width) for column, _, width in table.columns(layers, activation, pooling) or ())
        if layers == "last":
            group = tuple((column, width) for column, width in group if column == Column(LAST, pooling))
        columns = {column for column, _ in group}
        # without an activation function both are the same, and without positions mean and maximum are
        if columns <= answered and not columns <= known:
            new.append(group)
            known |= columns
    rest = tuple((column, width) for column, width in dict.fromkeys(wanted) if column not in known)
    known |= {column for column, _ in rest}
    # what was read of these layers besides, behind the activation function or before it
    other = tuple((column, width) for column, width in read if column not in known)
    return [*new, *filter(None, (rest, other))]


def _pieces(columns: Sequence[Column], groups: Sequence[Group]) -> list[_Piece] | None:
    """Return where the columns are, in as few groups as are easily found; None if one is in no group."""
    places: list[dict[Column, tuple[int, int]]] = []
    for group in groups:
        ends = np.cumsum([width for _, width in group]).tolist()
        places.append({column: (end - width, end) for (column, width), end in zip(group, ends, strict=True)})
    group_of: dict[Column, int] = {}
    left = set(columns)
    while left:
        # the one that has most of them; of several, the smallest
        best = max(range(len(groups)), key=lambda n: (len(left & places[n].keys()), -len(groups[n])), default=None)
        if best is None or not left & places[best].keys():
            return None
        group_of.update(dict.fromkeys(left & places[best].keys(), best))
        left -= places[best].keys()
    pieces: list[_Piece] = []
    first = 0
    for column in columns:
        number = group_of[column]
        start, stop = places[number][column]
        last = pieces[-1] if pieces else None
        if last is not None and last.group == number and last.stop == start:
            pieces[-1] = last._replace(stop=stop)
        else:
            pieces.append(_Piece(number, start, stop, first))
        first += stop - start
    return pieces


def _as_slice(places: Sequence[tuple[int, int]]) -> np.ndarray | slice:
    columns = np.concatenate([np.arange(*place) for place in places])
    is_run = bool((np.diff(columns) == 1).all())
    return slice(int(columns[0]), int(columns[-1]) + 1) if is_run else columns
