"""Shards in files: rows are written block by block, and read back as arrays."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from sklearn_mm.scaling._parquet import import_parquet

__all__ = ["SHARD_FORMATS", "ShardWriter", "read_shard", "writer_of"]

_ROW_GROUP_KEYS = b"sklearn_mm.dtype", b"sklearn_mm.n_features"


class ShardWriter(Protocol):
    """Writes the rows of one shard to files of one stem."""

    suffixes: tuple[str, ...]

    def add(self, rows: Sequence[int], ids: Sequence[str], vectors: np.ndarray) -> None:
        """Write some rows: their numbers in the source, their ids, and an array of shape (n, d)."""
        ...

    def close(self) -> None:
        """Finish the files."""
        ...


class _ParquetWriter:
    """One file: "row", "id" and "embedding", a row group for each block."""

    suffixes: tuple[str, ...] = (".parquet",)

    def __init__(self, stem: Path) -> None:
        self._path = stem.with_name(stem.name + self.suffixes[0])
        self._parquet = import_parquet()
        self._writer: Any = None

    def add(self, rows: Sequence[int], ids: Sequence[str], vectors: np.ndarray) -> None:
        import pyarrow as pa

        n_rows, width = vectors.shape
        if vectors.dtype == np.int8:
            # as the bytes they are: Parquet knows no number below 32 bits, and levels for each entry of a list would
            # cost more than all else (measured: 1.5 against 0.7 ms for a row of 21,008)
            kind = pa.binary(width)
            cells = pa.FixedSizeBinaryArray.from_buffers(kind, n_rows, [None, pa.py_buffer(vectors)])
        else:
            kind = pa.list_(pa.from_numpy_dtype(vectors.dtype), width)
            cells = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), width)
        fields = [("row", pa.int64()), ("id", pa.string()), ("embedding", kind)]
        notes = dict(zip(_ROW_GROUP_KEYS, (vectors.dtype.str, str(width)), strict=True))
        schema = pa.schema(fields, metadata=notes)
        if self._writer is None:
            # no dictionary of embeddings: they do not repeat
            self._writer = self._parquet.ParquetWriter(self._path, schema, compression="zstd", use_dictionary=["id"])
        columns = [pa.array(rows, pa.int64()), pa.array(list(map(_text, ids)), pa.string()), cells]
        self._writer.write_batch(pa.record_batch(columns, schema=schema))

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    @staticmethod
    def read(paths: Sequence[Path]) -> tuple[np.ndarray, list[str], np.ndarray]:
        table = import_parquet().read_table(paths[0])
        notes = table.schema.metadata
        dtype, width = np.dtype(notes[_ROW_GROUP_KEYS[0]].decode()), int(notes[_ROW_GROUP_KEYS[1]])
        parts = []
        for chunk in table.column("embedding").chunks:
            if dtype == np.int8:
                flat = np.frombuffer(chunk.buffers()[1], dtype, len(chunk) * width, chunk.offset * width)
            else:
                flat = chunk.flatten().to_numpy()
            parts.append(flat.reshape(-1, width))
        return table.column("row").to_numpy(), table.column("id").to_pylist(), np.concatenate(parts)


class _NpyWriter:
    """The array as .npy, which can be memory-mapped, and rows and ids beside it as JSON."""

    suffixes: tuple[str, ...] = (".npy", ".ids.json")

    def __init__(self, stem: Path) -> None:
        self._path, self._names = (stem.with_name(stem.name + suffix) for suffix in self.suffixes)
        self._file: Any = None
        self._rows: list[int] = []
        self._ids: list[str] = []

    def add(self, rows: Sequence[int], ids: Sequence[str], vectors: np.ndarray) -> None:
        if self._file is None:
            self._file = self._path.open("wb")
            self._dtype, self._width = vectors.dtype, vectors.shape[1]
            self._write_header(0)
        self._file.write(np.ascontiguousarray(vectors).data)
        self._rows.extend(rows)
        self._ids.extend(ids)

    def close(self) -> None:
        if self._file is None:
            return
        with self._file as file:
            file.seek(0)
            self._write_header(len(self._rows))
        self._names.write_text(json.dumps({"row": self._rows, "id": self._ids}), encoding="utf-8")

    def _write_header(self, n_rows: int) -> None:
        # numpy leaves room in it for any number of rows, so that it stays as long as it was
        header = {"descr": self._dtype.str, "fortran_order": False, "shape": (n_rows, self._width)}
        np.lib.format.write_array_header_1_0(self._file, header)

    @staticmethod
    def read(paths: Sequence[Path]) -> tuple[np.ndarray, list[str], np.ndarray]:
        names = json.loads(paths[1].read_text(encoding="utf-8"))
        return np.asarray(names["row"], dtype=np.int64), names["id"], np.load(paths[0], mmap_mode="r")


_FORMATS: dict[str, Any] = {"parquet": _ParquetWriter, "npy": _NpyWriter}
SHARD_FORMATS = tuple(_FORMATS)


def writer_of(shard_format: str, stem: Path) -> ShardWriter:
    """Open a writer; no file is made before the first rows."""
    writer: ShardWriter = _FORMATS[shard_format](stem)
    return writer


def read_shard(shard_format: str, paths: Sequence[Path]) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Read rows, ids and vectors of a shard."""
    rows, ids, vectors = _FORMATS[shard_format].read(paths)
    return rows, ids, vectors


def _text(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()  # names of files may hold bytes that are no text
