"""A folder that remembers a vector for each picture, for every process that reads the same pictures."""

import json
import os
import socket
import sqlite3
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np

from sklearn_mm.exceptions import CacheWarning, ImageReadError
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
_UNWRITABLE = frozenset(
    {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM}
)
_READ_ONLY = ("mode=ro", "immutable=1")  # in the order in which they are tried
_CALLER = 6  # of the method of the estimator that opens the cache

Answer = TypeVar("Answer")


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

    Where the folder cannot be made or written (a read-only file system, a full disk), a warning says so, and what is
    new goes to a temporary file that ends with the cache: what is there is read all the same.

    The content of a file is hashed once: its path, size, inode and times of change (to the nanosecond) vouch
    for it afterwards, unless it was changed less than two seconds before it was read.

    Raises
    ------
    OSError
        The file is damaged, or another process holds it for longer than a minute; the message names it.

    Warns
    -----
    CacheWarning
        Nothing can be kept in the folder.

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
        self._new_files: list[tuple[str | bytes, str, bytes]] = []

    def __enter__(self) -> Self:
        self._opened: list[sqlite3.Connection] = []
        self._keeps = True
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            connection = self._open(str(self._path))
            connection.execute("PRAGMA page_size = 16384")  # vectors are tens of kilobytes
            connection.execute("PRAGMA journal_mode = WAL")
            # a loss of power may cost the last vectors, which are computed again, but never the file
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.executescript(_SCHEMA)
            # nothing so far has written to a file that is complete already; of this there are none
            connection.execute("DELETE FROM claims WHERE owner = ?", (self._owner,))
        except (OSError, sqlite3.DatabaseError) as error:
            if not _is_unwritable(error):
                self._close()
                raise self._unusable(error) from error
            self._keep_nothing(error)
        else:
            self._use(connection, "main")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            # others that wait for these vectors need not wait for the lease to end
            for connection in self._opened:
                with _transaction(connection):
                    connection.execute("DELETE FROM main.claims WHERE owner = ?", (self._owner,))
        except sqlite3.DatabaseError as failure:
            # where nothing can be written claims end with their lease; that has been told
            if not _is_unwritable(failure):
                raise self._unusable(failure) from failure
        finally:
            self._close()

    @property
    def _path(self) -> Path:
        return self.folder / _FILE_NAME

    def _open(self, path: str, **options: Any) -> sqlite3.Connection:
        # isolation_level=None: transactions are begun by hand; the connection is used by the reading threads too
        connection = sqlite3.connect(path, timeout=_WAIT_S, isolation_level=None, check_same_thread=False, **options)
        self._opened.append(connection)
        return connection

    def _use(self, connection: sqlite3.Connection, *places: str) -> None:
        """Write to a connection, and read from the data bases that it knows by these names."""
        self._connection = connection
        # in one piece, as threads that read look at it at any time
        self._sources = tuple((connection, place) for place in places)

    def _close(self) -> None:
        for connection in self._opened:
            connection.close()

    def _unusable(self, error: BaseException) -> OSError:
        return OSError(f"cannot use the cache {str(self._path)!r}: {error}; delete it, or pass another folder")

    def _keep_nothing(self, error: BaseException) -> None:
        """Write to a temporary file from now on, and read from the cache what can be read."""
        # "": on the disk where temporary files are, and gone with the connection
        connection = self._open("", uri=True)
        connection.executescript(_SCHEMA)
        try:
            is_read = any(self._attach(connection, options) for options in _READ_ONLY)
        except sqlite3.DatabaseError as damage:
            self._close()
            raise self._unusable(damage) from damage
        self._keeps = False
        self._use(connection, *(("main", "stored") if is_read else ("main",)))
        found = "what is there is read" if is_read else "nothing of it can be read"
        warnings.warn(
            f"the cache {str(self._path)!r} cannot be written ({error}): {found}, and what is new is computed and not "
            "kept",
            CacheWarning,
            stacklevel=_CALLER,
        )

    def _attach(self, connection: sqlite3.Connection, options: str) -> bool:
        """Let a connection read the file as "stored"; return whether it can."""
        if not self._path.is_file():
            return False
        # immutable asks for no other file beside it, but sees nothing of what is still in one
        if "immutable" in options and _has_content(Path(f"{self._path}-wal")):
            return False
        try:
            connection.execute("ATTACH ? AS stored", (f"{self._path.resolve().as_uri()}?{options}",))
        except sqlite3.OperationalError:
            return False
        try:
            connection.execute("SELECT count(*) FROM stored.notes")
        except sqlite3.OperationalError:  # it would have to write, if only beside it
            connection.execute("DETACH stored")
            return False
        return True

    def _write(self, write: Callable[[], Answer]) -> Answer:
        """Write as one; to a temporary file, if the cache cannot be written any more."""
        try:
            with _transaction(self._connection):
                return write()
        except sqlite3.DatabaseError as error:
            if not self._keeps or not _is_unwritable(error):
                raise self._unusable(error) from error
            self._keep_nothing(error)
        with _transaction(self._connection):
            return write()

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
        # ten times faster than Path, for every row. Not abspath: it takes ".." for the folder above, which the system
        # does not where a link stands before it.
        path = os.path.join(os.getcwd(), os.fsdecode(source))  # noqa: PTH109, PTH118
        try:
            stat = os.stat(path)  # noqa: PTH116  as above
        except (OSError, ValueError) as error:
            raise ImageReadError(reason_for(error)) from error
        # unlike that of modification, the time of change cannot be set back; a file put in the place of another
        # has another inode
        stamp = f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {stat.st_ino}"
        name = _as_stored(path)
        known = self._first("SELECT digest FROM {}.files WHERE path = ? AND stamp = ?", (name, stamp))
        if known is not None:
            return bytes(known)
        # before reading: a change while the file is read counts as recent too
        now = time.time()
        digest = reader.digest(source)
        if now - max(stat.st_mtime, stat.st_ctime) > _SETTLED_S:
            self._new_files.append((name, stamp, digest))
        return digest

    def remember_files(self) -> None:
        """Keep the digests of the files read since the last call."""
        new = self._new_files
        self._write(lambda: self._connection.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", new))
        self._new_files = []

    def note(self) -> Any:
        """Return what `set_note` stored for this configuration, or None."""
        found = self._first("SELECT note FROM {}.notes WHERE configuration = ?", (self.configuration,))
        return None if found is None else json.loads(found)

    def set_note(self, note: Any) -> None:
        """Store what can be written as JSON for this configuration."""
        row = (self.configuration, json.dumps(note))
        self._write(lambda: self._connection.execute("INSERT OR REPLACE INTO notes VALUES (?, ?)", row))

    def missing(self, keys: Sequence[bytes]) -> list[bytes]:
        """Return those of the keys without a vector, each once, in their order."""
        stored = {bytes(row[0]) for row in self._select("SELECT key FROM {}.vectors WHERE key IN ({})", keys)}
        return [key for key in dict.fromkeys(keys) if key not in stored]

    def get(self, keys: Sequence[bytes]) -> dict[bytes, np.ndarray]:
        """Return the vectors of those keys that have one: float32, read-only."""
        rows = self._select("SELECT key, value FROM {}.vectors WHERE key IN ({})", keys)
        # the byte order is the file's, not the machine's; frombuffer makes no copy, hence read-only
        return {bytes(key): np.frombuffer(value, dtype="<f4") for key, value in rows}

    def put(self, vectors: Mapping[bytes, np.ndarray]) -> None:
        """Store float32 vectors and give up the claims on them."""
        rows = [(key, np.ascontiguousarray(vector, dtype="<f4").data) for key, vector in vectors.items()]

        def write() -> None:
            self._connection.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", rows)
            self._delete_claims(list(vectors))
            self._connection.execute(
                "UPDATE claims SET expires = ? WHERE owner = ?", (time.time() + _LEASE_S, self._owner)
            )

        self._write(write)

    def claim(self, keys: Sequence[bytes]) -> list[bytes]:
        """Claim keys that have no vector, and return those that nobody else is computing."""

        def write() -> list[bytes]:
            # looked up under the lock: in between, nobody can store a vector or claim it
            open_keys = self.missing(keys)
            # where claims are written: in a file that cannot be written they would stand for ever
            rows = self._select("SELECT key, owner, expires FROM {}.claims WHERE key IN ({})", open_keys, places=1)
            taken = {bytes(key) for key, owner, expires in rows if self._is_alive(owner, expires)}
            mine = [key for key in open_keys if key not in taken]
            expires = time.time() + _LEASE_S
            self._connection.executemany(
                "INSERT OR REPLACE INTO claims VALUES (?, ?, ?)", ((key, self._owner, expires) for key in mine)
            )
            return mine

        return self._write(write)

    def release(self, keys: Sequence[bytes]) -> None:
        """Give up the claims on keys that got no vector."""
        self._write(lambda: self._delete_claims(keys))

    def _delete_claims(self, keys: Sequence[bytes]) -> None:
        # only its own: another process may have taken them over
        self._connection.executemany(
            "DELETE FROM claims WHERE key = ? AND owner = ?", ((key, self._owner) for key in keys)
        )

    def _select(self, statement: str, keys: Sequence[bytes], places: int | None = None) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of all places, or of the first ones."""
        try:
            for connection, place in self._sources[:places]:
                for start in range(0, len(keys), _PER_QUERY):
                    chunk = keys[start : start + _PER_QUERY]
                    yield from connection.execute(statement.format(place, ",".join("?" * len(chunk))), list(chunk))
        except sqlite3.DatabaseError as error:
            raise self._unusable(error) from error

    def _first(self, statement: str, values: tuple[Any, ...]) -> Any:
        """Return the first value of the first row, of the first place that has one; None, if none has."""
        try:
            for connection, place in self._sources:
                found = connection.execute(statement.format(place), values).fetchone()
                if found is not None:
                    return found[0]
        except sqlite3.DatabaseError as error:
            raise self._unusable(error) from error
        return None

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


def _is_unwritable(error: BaseException) -> bool:
    """Whether an error tells of a folder or a file that cannot be written, and not of a damaged one."""
    if isinstance(error, sqlite3.DatabaseError):
        code = getattr(error, "sqlite_errorcode", None)
        return code is not None and code & 0xFF in _UNWRITABLE  # the rest of the code says more exactly why
    return isinstance(error, OSError)


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    # the lock at once: what reads first and writes later fails, without a wait, if another process wrote meanwhile
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # a full disk may have ended it
            connection.execute("ROLLBACK")
        raise


def _has_content(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _as_stored(path: str) -> str | bytes:
    """Return a path as SQLite takes it: as bytes where the name of a file is no text."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return os.fsencode(path)
    return path
