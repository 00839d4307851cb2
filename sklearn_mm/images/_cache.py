"""A folder that remembers a vector for each picture, for every process that reads the same pictures."""

import json
import os
import socket
import sqlite3
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from sklearn_mm.exceptions import ImageReadError
from sklearn_mm.images._reading import PictureReader, reason_for

__all__ = ["RowCache"]

_FILE_NAME = "activations-1.sqlite"  # the number is the format's
# vectors keep their rowid: SQLite advises against WITHOUT ROWID for rows of many kilobytes
_SCHEMA = """
CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS claims (key BLOB PRIMARY KEY, owner TEXT NOT NULL, expires REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, stamp TEXT NOT NULL, digest BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS notes (configuration TEXT PRIMARY KEY, note TEXT NOT NULL) WITHOUT ROWID;
"""
_WAIT_S = 60.0  # for another process to finish writing
_LEASE_S = 300.0  # after which a claim of a process on another machine counts as abandoned
_SETTLED_S = 2.0  # a file changed later than this ago may change again under the same time stamp
_PER_QUERY = 500  # keys in one statement


class RowCache:
    """Vectors of pictures on disk, addressed by the content of the picture and by how it was computed.

    Parameters
    ----------
    folder : path
        Made if it is not there. It may be deleted at any time when no process uses it.
    configuration : str
        All that decides on a vector besides the picture.

    Notes
    -----
    One SQLite file in write-ahead mode holds everything, so that any number of processes of one machine may
    read and write at the same time, and a process that is killed leaves nothing half written. Processes that
    need the same vector at the same time do not compute it twice: one *claims* it, the others come back for
    it. The claims of a process that has died are taken over.

    The content of a file is hashed once: its path, size, inode and times of change (to the nanosecond) vouch
    for it afterwards, unless it was changed less than two seconds before it was read.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> with tempfile.TemporaryDirectory() as folder, RowCache(folder, "a network") as cache:
    ...     key = cache.key(b"content of a picture")
    ...     cache.put({key: np.zeros(3, dtype=np.float32)})
    ...     cache.get([key])[key]
    array([0., 0., 0.], dtype=float32)
    """

    def __init__(self, folder: str | os.PathLike[str], configuration: str) -> None:
        self.folder = Path(folder).expanduser()
        self.configuration = configuration
        # of fixed length, so that no configuration and digest can read as another pair
        self._prefix = sha256(configuration.encode()).digest()
        # a number of a process comes again, and one process may open a cache twice: hence the random part
        self._owner = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex}"
        self._new_files: list[tuple[str, str, bytes]] = []

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / _FILE_NAME
        # isolation_level=None: transactions are begun by hand; the connection is used by the reading threads too
        self._connection = sqlite3.connect(path, timeout=_WAIT_S, isolation_level=None, check_same_thread=False)
        try:
            self._connection.execute("PRAGMA page_size = 16384")  # vectors are tens of kilobytes
            self._connection.execute("PRAGMA journal_mode = WAL")
            # a loss of power may cost the last vectors, which are computed again, but never the file
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._connection.executescript(_SCHEMA)
        except sqlite3.DatabaseError as error:
            self._connection.close()
            raise OSError(f"cannot use the cache {str(path)!r}: {error}; delete it, or pass another folder") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with self._writing():
                # others that wait for these vectors need not wait for the lease to end
                self._connection.execute("DELETE FROM claims WHERE owner = ?", (self._owner,))
        finally:
            self._connection.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        # the lock at once: what reads first and writes later fails, without a wait, if another process wrote meanwhile
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def key(self, digest: bytes) -> bytes:
        """Return the key of the vector of a picture with this digest, under this cache's configuration."""
        return sha256(self._prefix + digest).digest()

    def digest(self, reader: PictureReader, source: Any) -> bytes:
        """Return ``reader.digest(source)``, from memory where a file has not changed; callable from threads.

        Raises
        ------
        ImageReadError
            The file does not exist, or this is no picture.
        """
        if not isinstance(source, str | os.PathLike):
            return reader.digest(source)
        path = os.path.abspath(os.fspath(source))  # noqa: PTH100  ten times faster than Path, for every row
        try:
            stat = os.stat(path)  # noqa: PTH116  as above
        except (OSError, ValueError) as error:
            raise ImageReadError(reason_for(error)) from error
        # unlike that of modification, the time of change cannot be set back; a file put in the place of another
        # has another inode
        stamp = f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {stat.st_ino}"
        known = self._connection.execute(
            "SELECT digest FROM files WHERE path = ? AND stamp = ?", (path, stamp)
        ).fetchone()
        if known is not None:
            return bytes(known[0])
        # before reading: a change while the file is read counts as recent too
        now = time.time()
        digest = reader.digest(source)
        if now - max(stat.st_mtime, stat.st_ctime) > _SETTLED_S:
            self._new_files.append((path, stamp, digest))
        return digest

    def remember_files(self) -> None:
        """Keep the digests of the files read since the last call."""
        with self._writing():
            self._connection.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", self._new_files)
        self._new_files = []

    def note(self) -> Any:
        """Return what `set_note` stored for this configuration, or None."""
        found = self._connection.execute(
            "SELECT note FROM notes WHERE configuration = ?", (self.configuration,)
        ).fetchone()
        return None if found is None else json.loads(found[0])

    def set_note(self, note: Any) -> None:
        """Store what can be written as JSON for this configuration."""
        with self._writing():
            self._connection.execute(
                "INSERT OR REPLACE INTO notes VALUES (?, ?)", (self.configuration, json.dumps(note))
            )

    def missing(self, keys: Sequence[bytes]) -> list[bytes]:
        """Return those of the keys without a vector, each once, in their order."""
        stored = {bytes(row[0]) for row in self._select("SELECT key FROM vectors WHERE key IN ({})", keys)}
        return [key for key in dict.fromkeys(keys) if key not in stored]

    def get(self, keys: Sequence[bytes]) -> dict[bytes, np.ndarray]:
        """Return the vectors of those keys that have one: float32, read-only."""
        rows = self._select("SELECT key, value FROM vectors WHERE key IN ({})", keys)
        # the byte order is the file's, not the machine's; frombuffer makes no copy, hence read-only
        return {bytes(key): np.frombuffer(value, dtype="<f4") for key, value in rows}

    def put(self, vectors: Mapping[bytes, np.ndarray]) -> None:
        """Store float32 vectors and give up the claims on them."""
        rows = [(key, np.ascontiguousarray(vector, dtype="<f4").data) for key, vector in vectors.items()]
        with self._writing():
            self._connection.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", rows)
            self._delete_claims(list(vectors))
            self._connection.execute(
                "UPDATE claims SET expires = ? WHERE owner = ?", (time.time() + _LEASE_S, self._owner)
            )

    def claim(self, keys: Sequence[bytes]) -> list[bytes]:
        """Claim keys that have no vector, and return those that nobody else is computing."""
        with self._writing():
            # looked up under the lock: in between, nobody can store a vector or claim it
            open_keys = self.missing(keys)
            rows = self._select("SELECT key, owner, expires FROM claims WHERE key IN ({})", open_keys)
            taken = {bytes(key) for key, owner, expires in rows if self._is_alive(owner, expires)}
            mine = [key for key in open_keys if key not in taken]
            expires = time.time() + _LEASE_S
            self._connection.executemany(
                "INSERT OR REPLACE INTO claims VALUES (?, ?, ?)", ((key, self._owner, expires) for key in mine)
            )
        return mine

    def release(self, keys: Sequence[bytes]) -> None:
        """Give up the claims on keys that got no vector."""
        with self._writing():
            self._delete_claims(keys)

    def _delete_claims(self, keys: Sequence[bytes]) -> None:
        # only its own: another process may have taken them over
        self._connection.executemany(
            "DELETE FROM claims WHERE key = ? AND owner = ?", ((key, self._owner) for key in keys)
        )

    def _select(self, statement: str, keys: Sequence[bytes]) -> Iterator[tuple[Any, ...]]:
        for start in range(0, len(keys), _PER_QUERY):
            chunk = keys[start : start + _PER_QUERY]
            yield from self._connection.execute(statement.format(",".join("?" * len(chunk))), list(chunk))

    def _is_alive(self, owner: str, expires: float) -> bool:
        """Whether a claim stands: it is not too old, and its process, if it is one of this machine, runs."""
        if owner == self._owner or expires < time.time():
            return False
        host, pid, _ = owner.rsplit(":", 2)
        # whether a process runs can be asked on its own machine only; and on Windows, signal 0 is Ctrl+C
        if host != socket.gethostname() or os.name != "posix":
            return True
        try:
            os.kill(int(pid), 0)  # sends nothing, only asks
        except ProcessLookupError:
            return False
        except PermissionError:  # another user's, and so there
            return True
        return True
