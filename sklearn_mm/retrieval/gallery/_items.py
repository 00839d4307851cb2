"""What a gallery knows of its items beside their vectors: names, where the pictures lie, and metadata."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sklearn_mm._checks import did_you_mean
from sklearn_mm._tables import frame_column, frame_names, is_frame, is_missing, require_rows, shown, to_list

__all__ = ["Items", "check_metadata", "import_pandas", "metadata_frame", "paths_of"]

_N_NAMED = 3  # items that a message names


class Items:
    """Names, paths and columns of metadata, row by row.

    Attributes
    ----------
    ids : list of str or of int
    paths : list of (str or None)
        Where the picture lies, as far as it is known.
    columns : dict of str to ndarray of shape (n_items,)
        Numbers, truth values and times in their dtype, all else as objects; what is missing is NaN, NaT or None.
    """

    def __init__(self) -> None:
        self.ids: list[Any] = []
        self.paths: list[str | None] = []
        self.columns: dict[str, np.ndarray] = {}
        self._place: dict[Any, int] | None = None
        self._frame: Any = None

    def __len__(self) -> int:
        return len(self.ids)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_place": None, "_frame": None}  # made anew when asked for

    @property
    def place(self) -> dict[Any, int]:
        """Where each id stands."""
        if self._place is None:
            self._place = {own: place for place, own in enumerate(self.ids)}
        return self._place

    def places_of(self, ids: Any) -> np.ndarray:
        """Return where some ids stand, (n_ids,) int64, in the order given.

        Raises
        ------
        KeyError
            An id is not there; the message names it, and those like it.
        """
        listed = listed_ids(ids)
        known = self.place
        unknown = [each for each in listed if each not in known]
        if unknown:
            rest = f" and {len(unknown) - 1} more of {len(listed)}" if len(unknown) > 1 else ""
            raise KeyError(
                f"the gallery of {len(self)} pictures has no id {shown(unknown[0])}{rest}; {self._like(unknown[0])}"
            )
        return np.array([known[each] for each in listed], dtype=np.int64)

    def _like(self, unknown: Any) -> str:
        if not self.ids:
            return "it is empty"
        if isinstance(unknown, str) and isinstance(self.ids[0], str):
            # the comparison of names takes long: of many, those of the same last part are looked at
            last = Path(unknown).name
            near = [own for own in self.ids if last and last in own][:_N_NAMED]
            return did_you_mean(unknown, near or self.ids[:200])
        return f"ids are {type(self.ids[0]).__name__}, such as {shown(self.ids[0])}"

    def check_new(self, ids: list[Any]) -> None:
        """Check that ids are of one kind, each once, and none is there already.

        Raises
        ------
        ValueError
            An id stands twice, or is there; the message names the rows.
        TypeError
            They are neither all str nor all int, as those are that are there.
        """
        check_kind(ids, self.ids[0] if self.ids else None)
        check_once(ids)
        known = self.place
        there = [each for each in ids if each in known]
        if there:
            named = ", ".join(map(shown, there[:_N_NAMED])) + (", ..." if len(there) > _N_NAMED else "")
            raise ValueError(
                f"{len(there)} of {len(ids)} ids are in the gallery already: {named}; replace their pictures by "
                "update(), or give the new ones other ids"
            )

    def add(self, ids: list[Any], paths: list[str | None], columns: Mapping[str, np.ndarray]) -> None:
        """Put rows behind those that are there; columns that either lacks are missing there."""
        n_before, n_new = len(self), len(ids)
        names = dict.fromkeys([*self.columns, *columns])
        self.columns = {name: _joined(self.columns.get(name), n_before, columns.get(name), n_new) for name in names}
        if self._place is not None:
            self._place.update({own: n_before + row for row, own in enumerate(ids)})
        # not in place: who has been given the list keeps what it was
        self.ids, self.paths, self._frame = [*self.ids, *ids], [*self.paths, *paths], None

    def remove(self, places: np.ndarray) -> None:
        """Take rows out."""
        kept = np.ones(len(self), dtype=bool)
        kept[places] = False
        rows = np.flatnonzero(kept)
        self.ids, self.paths = [self.ids[row] for row in rows], [self.paths[row] for row in rows]
        self.columns = {name: column[rows] for name, column in self.columns.items()}
        self._place = self._frame = None

    def take(self, places: np.ndarray) -> dict[str, np.ndarray]:
        """Return the metadata of some rows."""
        return {name: column[places] for name, column in self.columns.items()}

    def frame(self) -> Any:
        """Return the metadata as a data frame of pandas, with the ids as its index; made once."""
        if self._frame is None:
            self._frame = metadata_frame(self.ids, self.columns)
        return self._frame


def metadata_frame(ids: Sequence[Any], columns: Mapping[str, np.ndarray]) -> Any:
    """Return columns as a data frame of pandas, with the ids as its index."""
    pandas = import_pandas("metadata as a data frame")
    # An index of the name of a column would make every query by that name ambiguous.
    index = pandas.Index(list(ids), name=None if "id" in columns else "id", dtype=None if ids else object)
    return pandas.DataFrame(dict(columns), index=index)


def import_pandas(what: str) -> Any:
    """Return pandas, or say how to get it."""
    try:
        import pandas
    except ImportError as error:
        raise ImportError(f"{what} needs pandas: pip install pandas") from error
    return pandas


def listed_ids(ids: Any) -> list[Any]:
    """Return ids as a list of plain str and int; one alone is a list of one."""
    if isinstance(ids, str | os.PathLike | int | np.integer) and not isinstance(ids, bool):
        ids = [ids]
    require_rows(ids, "ids")
    return [_plain(each) for each in to_list(ids)]


def _plain(each: Any) -> Any:
    if isinstance(each, os.PathLike):
        return os.fspath(each)
    if isinstance(each, str):
        return str(each)
    return int(each) if isinstance(each, np.integer) else each


def check_kind(ids: list[Any], like: Any) -> None:
    """Refuse ids that are neither all str nor all int."""
    kind = type(ids[0] if like is None else like) if ids else str
    expected = "all ids to be str, or all int" if like is None else f"ids of {kind.__name__}, as those in the gallery"
    for row, each in enumerate(ids):
        if type(each) not in (str, int) or type(each) is not kind:
            raise TypeError(f"expected {expected}, got {type(each).__name__} in row {row}: {shown(each)}")


def check_once(ids: list[Any]) -> None:
    """Refuse an id that stands twice."""
    if len(set(ids)) == len(ids):
        return
    twice, n_times = Counter(ids).most_common(1)[0]
    rows = [row for row, each in enumerate(ids) if each == twice][:_N_NAMED]
    raise ValueError(
        f"expected each id once, got {len(ids) - len(set(ids))} again: {shown(twice)} stands {n_times} times, in rows "
        f"{', '.join(map(str, rows))}{', ...' if n_times > _N_NAMED else ''}; a picture has one row: merge the rows of "
        "one picture, or give ids that differ"
    )


def paths_of(images: Any) -> list[str | None]:
    """Return the path of each picture that is given as one; None for others."""
    if is_frame(images):
        images = frame_column(images, 0)
    elif getattr(images, "ndim", 1) == 2 and images.dtype.kind in "OUT":
        images = images[:, 0]
    # of a container that reads pictures as they are asked for, none is read for this
    has_entries = isinstance(images, list | tuple) or hasattr(type(images), "to_list")
    if isinstance(images, np.ndarray) and images.dtype.kind in "OUT":
        has_entries = True
    if not has_entries:
        return [None] * len(images)
    return [os.fspath(each) if isinstance(each, str | os.PathLike) else None for each in to_list(images)]


def check_metadata(metadata: Any, n_rows: int) -> dict[str, np.ndarray]:
    """Return metadata as columns of n_rows entries.

    Parameters
    ----------
    metadata : data frame, mapping of names to columns, sequence of mappings (one a row), or None

    Raises
    ------
    ValueError
        There are other than n_rows rows, or two columns of one name.
    TypeError
        It is none of these, or a column's name is no str.
    """
    if metadata is None:
        return {}
    if is_frame(metadata):
        names = frame_names(metadata).tolist()
        listed = [(name, frame_column(metadata, number)) for number, name in enumerate(names)]
    elif isinstance(metadata, Mapping):
        listed = list(metadata.items())
    else:
        listed = _of_rows(metadata)
    repeated = [name for name, count in Counter(name for name, _ in listed).items() if count > 1]
    if repeated:
        raise ValueError(f"metadata has two columns of the name {shown(repeated[0])}; rename or drop one")
    columns = {}
    for name, values in listed:
        if not isinstance(name, str):
            raise TypeError(f"expected names of the metadata's columns as str, got {type(name).__name__}: {name!r}")
        columns[name] = _column(values, name, n_rows)
    return columns


def _of_rows(metadata: Any) -> list[tuple[str, Any]]:
    expected = "expected metadata as a data frame, a mapping of names to columns, or one mapping a picture"
    if isinstance(metadata, str | bytes) or not isinstance(metadata, Iterable):
        raise TypeError(f"{expected}, got {type(metadata).__name__}: {shown(metadata)}")
    rows = list(metadata)
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise TypeError(f"{expected}, got {type(row).__name__} in row {number}: {shown(row)}")
    names = dict.fromkeys(name for row in rows for name in row)
    return [(name, [row.get(name) for row in rows]) for name in names]


def _column(values: Any, name: str, n_rows: int) -> np.ndarray:
    if isinstance(values, str) or not (hasattr(values, "__len__") or hasattr(values, "__iter__")):
        raise TypeError(f"expected a list for the column {name!r} of the metadata, got {type(values).__name__}")
    kind = getattr(getattr(values, "dtype", None), "kind", None)
    plain = isinstance(getattr(values, "dtype", None), np.dtype) and kind in ("b", "i", "u", "f", "m", "M")
    if plain:
        array = np.array(values)
    else:
        listed = to_list(values)
        array = _typed(listed)
    if array.ndim != 1 or len(array) != n_rows:
        raise ValueError(
            f"expected metadata of one row for each of the {n_rows} pictures, got {len(array)} in the column {name!r}"
        )
    return array


def _typed(listed: list[Any]) -> np.ndarray:
    """Return a column of numbers or truth values in their dtype, anything else as objects."""
    kinds = {type(each) for each in listed}
    if kinds and (kinds <= {bool} or kinds <= {int} or kinds <= {int, float}):
        try:
            return np.array(listed)
        except OverflowError:  # a whole number of more than 64 bits
            pass
    array = np.empty(len(listed), dtype=object)
    array[:] = [None if is_missing(each) and not isinstance(each, float) else each for each in listed]
    if kinds <= {int, float, type(None)} and kinds & {int, float}:
        return np.array([np.nan if each is None else each for each in listed], dtype=np.float64)
    return array


def _joined(before: np.ndarray | None, n_before: int, new: np.ndarray | None, n_new: int) -> np.ndarray:
    if before is None or not n_before:
        before = _missing(n_before, new)
    if new is None:
        new = _missing(n_new, before)
    if before.dtype == new.dtype:
        return np.concatenate([before, new])
    if before.dtype.kind in "iuf" and new.dtype.kind in "iuf":
        return np.concatenate([before, new])
    return np.concatenate([before.astype(object), new.astype(object)])


def _missing(n_rows: int, like: np.ndarray | None) -> np.ndarray:
    """Return a column of what is missing, in the dtype of another if that has a way to say so."""
    kind = "O" if like is None else like.dtype.kind
    if like is not None and not n_rows:
        return like[:0]
    if kind in "iuf":
        return np.full(n_rows, np.nan)
    if like is not None and kind in "mM":
        return np.full(n_rows, "NaT", dtype=like.dtype)
    return np.full(n_rows, None, dtype=object)
