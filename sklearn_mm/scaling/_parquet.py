"""Pictures, or texts, in a column of Parquet files."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from sklearn_mm.scaling._sources import FileRows, list_files

__all__ = ["ParquetColumn", "ParquetRows", "import_parquet"]

_BUFFER_BYTES = 2**20  # of a column that is read as a stream, and not a row group at once
_BATCH_ROWS = 128


@dataclass(frozen=True)
class ParquetColumn:
    """A column of Parquet files, as a source of `embed_shards`.

    Parameters
    ----------
    path : path, or list of paths
        A file, a folder of files that end with ".parquet", or a pattern (``"photos/*.parquet"``).
    column : str
        The column: paths, the bytes of files, or mappings of "bytes" and "path" as data sets of Hugging Face store
        pictures; or texts, for a transformer of texts. Relative paths are those of the working directory.
    ids : str, optional
        The column that names the rows. Without one a row is called by the name of its file and its place in there.

    See Also
    --------
    embed_shards : Embeds what is in it.

    Notes
    -----
    Needs the package ``pyarrow`` (``pip install 'sklearn-mm[ray]'`` brings it along).

    Examples
    --------
    >>> from sklearn_mm.scaling import ParquetColumn
    >>> ParquetColumn("photos/*.parquet", "image", ids="url")
    ParquetColumn(path='photos/*.parquet', column='image', ids='url')
    """

    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
    column: str
    ids: str | None = None


class ParquetRows(FileRows):
    """The rows of a column.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        A file lacks the column.
    """

    kind = "parquet"

    def __init__(self, source: ParquetColumn) -> None:
        self._column, self._ids = source.column, source.ids
        if isinstance(source.path, str | os.PathLike):
            found, folder = list_files(source.path, (".parquet",))
            paths = [path if folder is None else str(Path(folder) / path) for path in found]
            if not paths:
                raise FileNotFoundError(f"no .parquet file in {os.fspath(source.path)!r}")
        else:
            paths = [os.fspath(path) for path in source.path]
        super().__init__([str(Path(path).absolute()) for path in paths])

    def identity(self) -> str:
        """Digest files and columns."""
        return f"{super().identity()} {self._column} {self._ids}"

    def _count(self, paths: Sequence[str]) -> Iterable[int]:
        parquet = import_parquet()
        for path in paths:
            with parquet.ParquetFile(path) as file:
                names = file.schema_arrow.names
                for name in (self._column, self._ids):
                    if name is not None and name not in names:
                        raise ValueError(f"{path!r} has no column {name!r}, but {', '.join(map(repr, names))}")
                yield file.metadata.num_rows

    def _read(self, path: str, start: int, stop: int) -> Iterator[tuple[str, Any]]:
        with import_parquet().ParquetFile(path, buffer_size=_BUFFER_BYTES) as file:
            groups, first = _groups(file.metadata, start, stop)
            columns = [self._column] if self._ids is None else [self._column, self._ids]
            for batch in file.iter_batches(_BATCH_ROWS, row_groups=groups, columns=columns):
                skipped = max(start - first, 0)
                wanted = batch.slice(skipped, stop - first - skipped)
                items = wanted.column(self._column).to_pylist()
                for place, item in enumerate(items):
                    if self._ids is None:
                        yield f"{Path(path).name}:{first + skipped + place}", item
                    else:
                        yield str(wanted.column(self._ids)[place].as_py()), item
                first += len(batch)


def _groups(metadata: Any, start: int, stop: int) -> tuple[list[int], int]:
    """Return the row groups that hold the rows of a range, and the number of their first row."""
    chosen: list[int] = []
    first = place = 0
    for group in range(metadata.num_row_groups):
        n_rows = metadata.row_group(group).num_rows
        if place + n_rows <= start:
            first = place + n_rows
        elif place < stop:
            chosen.append(group)
        place += n_rows
    return chosen, first


def import_parquet() -> ModuleType:
    """Return pyarrow's module of Parquet.

    Raises
    ------
    ImportError
        It is not installed; the message says how to.
    """
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(
            "Parquet needs pyarrow: pip install 'sklearn-mm[ray]', or pyarrow alone; shards of format='npy' need none"
        ) from error
    return pyarrow.parquet
