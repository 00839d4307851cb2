"""What a run has written: a table of shards, with all that tells whether they are whole, and whose they are."""

import json
import os
from dataclasses import asdict, dataclass
from hashlib import file_digest
from pathlib import Path
from typing import Any, Self

import numpy as np

from sklearn_mm.images import ReadFailure
from sklearn_mm.scaling._writers import read_shard

__all__ = ["FORMAT", "FORMAT_VERSION", "MANIFEST", "Manifest", "Shard", "ShardFile"]

FORMAT, FORMAT_VERSION = "sklearn_mm.scaling", 1
MANIFEST = "manifest.json"
_FIELDS = ("complete", "n_rows", "n_features", "dtype", "shards")  # beside the header


@dataclass(frozen=True)
class ShardFile:
    """A file of a shard: its name in the sink, its size and its SHA-256."""

    name: str
    n_bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path, name: str) -> Self:
        """Take the size and the digest of a file that is to have a name."""
        with path.open("rb") as file:
            return cls(name, path.stat().st_size, file_digest(file, "sha256").hexdigest())

    def is_whole(self, folder: Path, *, digest: bool) -> bool:
        """Whether the file is there, of its size, and, if asked for, of its content."""
        path = folder / self.name
        try:
            if path.stat().st_size != self.n_bytes:
                return False
        except FileNotFoundError:
            return False
        return not digest or ShardFile.of(path, self.name) == self


@dataclass(frozen=True)
class Shard:
    """One shard: the rows `start` to `stop` of the source, less those that could not be read.

    Attributes
    ----------
    number, start, stop : int
    n_rows : int
        Rows embedded.
    n_features : int or None
        None where no picture could be read: there is no file then.
    dtype : str or None
    files : tuple of ShardFile
    failures : tuple of ReadFailure
        ``(row, source, reason)``: the row of the source, and its id there.
    """

    number: int
    start: int
    stop: int
    n_rows: int
    n_features: int | None
    dtype: str | None
    files: tuple[ShardFile, ...] = ()
    failures: tuple[ReadFailure, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return {**asdict(self), "failures": [list(failure) for failure in self.failures]}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Self:
        """Make a shard of what `to_json` gave."""
        files = tuple(ShardFile(**file) for file in record["files"])
        failures = tuple(ReadFailure(*failure) for failure in record["failures"])
        return cls(**{**record, "files": files, "failures": failures})


@dataclass(frozen=True)
class Manifest:
    """What `embed_shards` has written: which rows of the source are in which shard.

    Parameters
    ----------
    folder : Path
        The sink.
    header : dict
        Whose shards these are: "transformer" (its class, and the "fingerprint" of its parameters and of what it has
        learnt), "source", "shard_size", "shard_format", "versions".
    shards : tuple of Shard
        In the order of the rows. Each knows the numbers of its rows (`start`, `stop`), how many were embedded
        (`n_rows`), its `files` with their sizes and SHA-256, and its `failures`.
    complete : bool
        Whether all rows of the source are in it.

    See Also
    --------
    embed_shards : Writes it.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> from sklearn.preprocessing import FunctionTransformer
    >>> from sklearn_mm.scaling import Manifest, embed_shards
    >>> temporary = TemporaryDirectory()
    >>> sink = Path(temporary.name) / "embedded"
    >>> lengths = FunctionTransformer(lambda texts: np.array([[len(text)] for text in texts], dtype=np.int8))
    >>> _ = embed_shards(lengths, ["a dog", "two cats", "a bird"], sink, shard_size=2, format="npy")
    >>> manifest = Manifest.open(sink)
    >>> manifest.n_rows, manifest.n_features, manifest.dtype, len(manifest.shards), manifest.verify()
    (3, 1, 'int8', 2, [])
    >>> rows, ids, vectors = manifest.read(0)
    >>> rows.tolist(), ids, vectors.tolist()
    ([0, 1], ['a dog', 'two cats'], [[5], [8]])
    >>> temporary.cleanup()
    """

    folder: Path
    header: dict[str, Any]
    shards: tuple[Shard, ...] = ()
    complete: bool = False

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Self:
        """Read the manifest of a sink; of a run that has not finished, what it knew when it began.

        Parameters
        ----------
        folder : path
            The sink of `embed_shards`.

        Returns
        -------
        Manifest

        Raises
        ------
        FileNotFoundError
            There is none.
        ValueError
            It is damaged, no manifest of this library, or of a later format.
        """
        path = Path(folder) / MANIFEST
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
            if known["format"] != FORMAT:
                raise ValueError(f"{path} is no manifest of {FORMAT}, but of {known['format']!r}")
            number = known["format_version"]
            if number > FORMAT_VERSION:
                raise ValueError(
                    f"{path} is of format {number}, this version of sklearn_mm reads up to {FORMAT_VERSION}; "
                    "use the sklearn_mm that wrote it, or another sink"
                )
            shards = tuple(Shard.from_json(record) for record in known["shards"])
            header = {name: value for name, value in known.items() if name not in _FIELDS}
            return cls(Path(folder), header, shards, known["complete"])
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is damaged, or no manifest of {FORMAT}: {error!r}") from error

    @property
    def n_rows(self) -> int:
        """How many rows were embedded."""
        return sum(shard.n_rows for shard in self.shards)

    @property
    def n_features(self) -> int | None:
        """Columns of the embedding; None if nothing could be read."""
        return next((shard.n_features for shard in self.shards if shard.n_features is not None), None)

    @property
    def dtype(self) -> str | None:
        """The dtype of the embedding, "int8" or "float32" of most; None if nothing could be read."""
        return next((shard.dtype for shard in self.shards if shard.dtype is not None), None)

    @property
    def failures(self) -> list[ReadFailure]:
        """The pictures that could not be read: ``(row, source, reason)``, by the rows and the ids of the source."""
        return [failure for shard in self.shards for failure in shard.failures]

    def read(self, number: int) -> tuple[np.ndarray, list[str], np.ndarray]:
        """Read a shard.

        Parameters
        ----------
        number : int
            Its place in ``shards``.

        Returns
        -------
        rows : ndarray of shape (n_rows,), int64
            The numbers of the rows in the source.
        ids : list of str
            What the source calls them.
        vectors : ndarray of shape (n_rows, n_features)
            The embedding; of .npy memory-mapped, and read-only.

        Raises
        ------
        ValueError
            Nothing of this shard could be read from the source.
        """
        shard = self.shards[number]
        if not shard.files:
            raise ValueError(f"shard {number} is empty: not one of its {shard.stop - shard.start} rows could be read")
        return read_shard(self.header["shard_format"], [self.folder / file.name for file in shard.files])

    def verify(self) -> list[str]:
        """Read all files, and return the names of those that are missing or not what was written."""
        files = [file for shard in self.shards for file in shard.files]
        return [file.name for file in files if not file.is_whole(self.folder, digest=True)]

    def to_frame(self) -> Any:
        """Return a data frame of a row for each shard; needs pandas."""
        import pandas as pd

        table = [
            {
                **{name: getattr(shard, name) for name in ("number", "start", "stop", "n_rows", "n_features", "dtype")},
                "n_failures": len(shard.failures),
                "files": [file.name for file in shard.files],
                "n_bytes": sum(file.n_bytes for file in shard.files),
            }
            for shard in self.shards
        ]
        return pd.DataFrame(table)

    def to_json(self) -> dict[str, Any]:
        """Return what manifest.json holds."""
        fields = (self.complete, self.n_rows, self.n_features, self.dtype, [shard.to_json() for shard in self.shards])
        return {**self.header, **dict(zip(_FIELDS, fields, strict=True))}
