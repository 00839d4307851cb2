"""From what a user names as the source to its rows."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from sklearn_mm._picture_files import PICTURE_SUFFIXES
from sklearn_mm.scaling._parquet import ParquetColumn, ParquetRows
from sklearn_mm.scaling._sources import PathRows, Rows, is_tar, list_files
from sklearn_mm.scaling._tars import TarRows

__all__ = ["Source", "open_source"]

Source: TypeAlias = str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | ParquetColumn


def open_source(source: Any) -> Rows:
    """Open what is to be embedded.

    Raises
    ------
    FileNotFoundError
        There is no such file or folder, or nothing fits the pattern.
    ValueError
        It holds nothing to embed.
    TypeError
        It is no source.
    """
    if isinstance(source, ParquetColumn):
        rows: Rows = ParquetRows(source)
    elif isinstance(source, str | os.PathLike):
        rows = _rows_of(*list_files(source, PICTURE_SUFFIXES))
    elif isinstance(source, Iterable) and not isinstance(source, Mapping | bytes):
        rows = _rows_of(_texts(source), None)
    else:
        raise TypeError(
            "expected a folder, a pattern, a list of paths, archives or a ParquetColumn as the source, got a "
            f"{type(source).__name__}"
        )
    if rows.n_rows == 0:
        raise ValueError(f"the source holds no pictures: {_described(source)}")
    return rows


def _texts(source: Iterable[Any]) -> list[str]:
    texts = []
    for row, entry in enumerate(source):
        if not isinstance(entry, str | os.PathLike):
            raise TypeError(
                f"expected a path in each row of the source, got a {type(entry).__name__} in row {row}; "
                "what is in memory needs no shards: the transformer's transform takes it"
            )
        texts.append(os.fspath(entry))
    return texts


def _rows_of(paths: list[str], folder: str | None) -> Rows:
    if folder is None and any(path.lower().endswith(".parquet") for path in paths[:1]):
        raise ValueError(f"which column of {paths[0]!r}? Pass ParquetColumn({paths[0]!r}, 'its name') as the source")
    n_archives = sum(map(is_tar, paths))
    if n_archives == 0:
        # absolute where these are paths for certain: what stands in a list may be texts
        return PathRows(paths, None if folder is None else str(Path(folder).absolute()))
    if n_archives < len(paths):
        other = next(path for path in paths if not is_tar(path))
        raise ValueError(f"{n_archives} of {len(paths)} files of the source are archives, but {other!r} is none")
    return TarRows([str(Path(path).absolute()) for path in paths])


def _described(source: Any) -> str:
    if isinstance(source, str | os.PathLike) and Path(source).is_dir():
        looked_for = ", ".join(PICTURE_SUFFIXES)
        others = [name for name in os.listdir(source) if is_tar(name) or name.endswith(".parquet")]  # noqa: PTH208  names alone
        text = f"no file in {os.fspath(source)!r} or below it ends with {looked_for}"
        if not others:
            return text
        example = os.path.join(os.fspath(source), f"*{Path(others[0]).suffix}")  # noqa: PTH118  as the user writes it
        ways = f"{example!r}" if is_tar(others[0]) else f"ParquetColumn({example!r}, 'its column')"
        return f"{text}; it holds {others[0]!r}: pass {ways}"
    if isinstance(source, str | os.PathLike | ParquetColumn):
        return str(source)
    return "an empty list"
