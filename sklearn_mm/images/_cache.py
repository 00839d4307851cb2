"""A folder that remembers vectors of pictures, for every process that reads the same pictures."""

import json
import os
import socket
import sqlite3
import time
import uuid
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np

from sklearn_mm.exceptions import CacheWarning, ImageReadError
from sklearn_mm.images._reading import PictureReader, reason_for

__all__ = ["RowCache"]

_FORMAT = 2
_FILE_NAME, _OLD_NAMES = "activations-2.sqlite", ("activations-1.sqlite",)
# What is looked up and changed often, entries, is small. Vectors keep their rowid: SQLite advises it for rows of many
# kilobytes.
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS entries (picture BLOB, part INTEGER, vector INTEGER NOT NULL, size INTEGER NOT NULL, "
    "used REAL NOT NULL, PRIMARY KEY (picture, part)) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS vectors (id INTEGER PRIMARY KEY, value BLOB NOT NULL)",
    "CREATE TABLE IF NOT EXISTS sizes (what TEXT PRIMARY KEY, n_bytes INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS claims (key BLOB PRIMARY KEY, owner TEXT NOT NULL, expires REAL NOT NULL) "
    "WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, stamp TEXT NOT NULL, digest BLOB NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS notes (configuration TEXT PRIMARY KEY, note TEXT NOT NULL) WITHOUT ROWID",
    "INSERT OR IGNORE INTO sizes VALUES ('vectors', 0)",
    f"PRAGMA user_version = {_FORMAT}",
)
_PAGE = 16384  # bytes: vectors are tens of kilobytes
_MAPPED = 2**31 - 2**16  # bytes of the file that are read from memory, the most that SQLite allows
_ROOM = 0.05  # of the size that is made at once, as it takes a look at all entries
_UNTOUCHED_S = 600.0  # for so long after a vector was used no further use of it is written down
_SPARE_S = 1e10  # by so much earlier than others does a vector count as used that nobody has asked for yet
_WAIT_S = 60.0  # for another process to finish writing
_RETRY_S = 0.01  # where SQLite does not wait by itself
_LEASE_S = 300.0  # after which a claim of a process on another machine counts as abandoned
_SETTLED_S = 2.0  # a file changed later than this ago may change again under the same time stamp
_PER_QUERY = 500  # keys in one statement
_UNWRITABLE = frozenset(
    {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM}
)
_READ_ONLY = ("mode=ro", "immutable=1")  # in the order in which they are tried
_CALLER = 7  # of the method of the estimator that opens the cache

Answer = TypeVar("Answer")


class RowCache:
    """Vectors of pictures on disk, addressed by the content of the picture and by how it was computed.

    Of a picture there may be several, the *parts*, each known by a number that whoever uses the cache gives it.

    Parameters
    ----------
    folder : path
        Made if it is not there. It may be deleted at any time when no process uses it.
    configuration : str
        All that decides on a vector besides the picture and the number of its part.
    size : int or None, default=None
        Bytes that the vectors of the folder, of all configurations, may take in the file. When one is stored that does
        not fit, those go that were used longest ago, first of all those that nobody has asked for. None sets no bound.

    Notes
    -----
    One SQLite file in write-ahead mode holds everything, so that any number of processes of one machine may
    read and write at the same time, and a process that is killed leaves nothing half written. Processes that
    need the same vector at the same time do not compute it twice: one *claims* it, the others come back for
    it. The claims of a process that has died are taken over.

    Where the folder cannot be made or written (a read-only file system, a full disk), a warning says so, and what is
    new goes to a temporary file that ends with the cache: what is there is read all the same.

    The content of a file is hashed once: its path, size, inode and times of change (to the nanosecond) vouch
    for it afterwards, unless it was changed less than two seconds before it was read. These digests are kept beside
    the size: some 200 bytes for each file.

    When a vector was used is known to ten minutes. Of several sizes given to one folder each holds for what is stored
    under it.

    Raises
    ------
    OSError
        The file is damaged or of another format, or another process holds it for longer than a minute; the message
        names it.

    Warns
    -----
    CacheWarning
        Nothing can be kept in the folder; or it holds the file of an older version, which is not read.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> with tempfile.TemporaryDirectory() as folder, RowCache(folder, "a network") as cache:
    ...     key = cache.key(b"content of a picture")
    ...     cache.put({(key, 0): np.zeros(3, dtype=np.float32)})
    ...     dict(cache.get([key], part=0))[key]
    array([0., 0., 0.], dtype=float32)
    """

    def __init__(self, folder: str | os.PathLike[str], configuration: str, size: int | None = None) -> None:
        self.folder = Path(folder).expanduser()
        self.configuration = configuration
        self.size = size
        # of fixed length, so that no configuration and digest can read as another pair
        self._prefix = sha256(configuration.encode()).digest()
        # a number of a process comes again, and one process may open a cache twice: hence the random part
        self._owner = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex}"
        self._new_files: list[tuple[str | bytes, str, bytes]] = []
        self._touched: set[tuple[bytes, int]] = set()

    def __enter__(self) -> Self:
        self._opened: list[sqlite3.Connection] = []
        self._keeps = True
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            connection = self._open(str(self._path))
            # of what is there already each of these would be written anew, and synced with the disk at the end: 20 ms
            is_complete = self._check_format(connection)
            if not is_complete:
                connection.execute(f"PRAGMA page_size = {_PAGE}")
                # so that what a smaller size frees can be given back
                connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            _write_ahead(connection)
            # a loss of power may cost the last vectors, which are computed again, but never the file
            connection.execute("PRAGMA synchronous = NORMAL")
            with _transaction(connection):
                if not is_complete:
                    _make_tables(connection)
                # nothing so far has written to a file that is complete already; of this there are none
                connection.execute("DELETE FROM claims WHERE owner = ?", (self._owner,))
        except _OtherFormat:
            self._close()
            raise
        except (OSError, sqlite3.DatabaseError) as error:
            if not _is_unwritable(error):
                self._close()
                raise self._unusable(error) from error
            self._keep_nothing(error)
        else:
            self._use(connection, "main")
        self._tell_of_older()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            # others that wait for these vectors need not wait for the lease to end
            if error is None:
                self._touch()
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

    def _check_format(self, connection: sqlite3.Connection, place: str = "main") -> bool:
        """Return whether there is a cache, if there is no other data base."""
        # In this order: another process may make the tables meanwhile, which come with the number.
        has_tables = bool(connection.execute(f"SELECT count(*) FROM {place}.sqlite_master").fetchone()[0])
        found = connection.execute(f"PRAGMA {place}.user_version").fetchone()[0]
        if found != _FORMAT and has_tables:
            raise _OtherFormat(
                f"the cache {str(self._path)!r} has format {found}, where this version of the library reads and writes "
                f"{_FORMAT}; pass another folder, or delete it"
            )
        return has_tables

    def _tell_of_older(self) -> None:
        old = [path for path in (self.folder / name for name in _OLD_NAMES) if path.is_file()]
        if old:
            warnings.warn(
                f"the cache {str(old[0])!r} is of an older version of the library and is not read; "
                f"{old[0].stat().st_size / 2**20:,.0f} MiB are free once it is deleted",
                CacheWarning,
                stacklevel=_CALLER,
            )

    def _use(self, connection: sqlite3.Connection, *places: str) -> None:
        """Write to a connection, and read from the data bases that it knows by these names."""
        connection.execute(f"PRAGMA mmap_size = {_MAPPED}")  # vectors are copied once less
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
        _make_tables(connection)
        try:
            is_read = any(self._attach(connection, options) for options in _READ_ONLY)
        except sqlite3.DatabaseError as damage:
            self._close()
            raise self._unusable(damage) from damage
        except _OtherFormat:
            self._close()
            raise
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
            is_cache = self._check_format(connection, "stored")
        except sqlite3.OperationalError:  # it would have to write, if only beside it
            is_cache = False
        if not is_cache:
            connection.execute("DETACH stored")
        return is_cache

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
        """Return the key of the vectors of a picture with this digest, under this cache's configuration."""
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
            stat = os.stat(source)  # noqa: PTH116  as it was given, and so in messages
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

    def change_note(self, change: Callable[[Any], Any]) -> Any:
        """Store what a function makes of the note, or of None, and return it; nobody else stores one meanwhile."""

        def write() -> Any:
            note = change(self.note())
            row = (self.configuration, json.dumps(note))
            self._connection.execute("INSERT OR REPLACE INTO main.notes VALUES (?, ?)", row)
            return note

        return self._write(write)

    def missing(self, keys: Sequence[bytes], parts: Collection[int] = (0,)) -> list[bytes]:
        """Return those of the keys that lack a vector of one of these parts, each once, in their order."""
        found = self._entries(keys, parts)
        stale = time.time() - _UNTOUCHED_S
        # before anything is stored, which may take the place of what is about to be read
        self._touched.update(entry for entry, used in found.items() if used < stale)
        return [key for key in dict.fromkeys(keys) if any((key, part) not in found for part in parts)]

    def _entries(self, keys: Sequence[bytes], parts: Iterable[int]) -> dict[tuple[bytes, int], float]:
        """Return when each of these vectors that is there was used."""
        numbers = ",".join(str(int(part)) for part in parts)
        statement = f"SELECT picture, part, used FROM {{}}.entries WHERE picture IN ({{}}) AND part IN ({numbers})"
        return {(bytes(key), part): used for key, part, used in self._select(statement, keys)}

    def get(
        self, keys: Sequence[bytes], part: int = 0, start: int = 0, stop: int | None = None
    ) -> Iterator[tuple[bytes, np.ndarray]]:
        """Yield key and vector, in any order, of those keys that have it: float32 or float16, read-only.

        With `stop` only the columns from `start` to `stop` of the vector are read.
        """
        is_half, value = "length(value) % 2", "value"
        if stop is not None:
            single, half = (f"substr(value, {size * start + 1}, {size * (stop - start)})" for size in (4, 2))
            value = f"CASE WHEN {is_half} THEN {half} ELSE {single} END"
        statement = (
            f"SELECT picture, used, {is_half}, {value} FROM {{0}}.entries JOIN {{0}}.vectors ON id = vector "
            f"WHERE part = {int(part)} AND picture IN ({{1}})"
        )
        stale = time.time() - _UNTOUCHED_S
        for key, used, half, content in self._select(statement, keys):
            if used < stale:
                self._touched.add((key, part))
            # the byte order is the file's, not the machine's; frombuffer makes no copy, hence read-only
            yield key, np.frombuffer(content, "<f2" if half else "<f4", count=len(content) // (2 if half else 4))

    def _touch(self) -> None:
        """Write down that vectors were used."""
        touched, self._touched = self._touched, set()
        # where nothing can be written nothing goes either
        if touched and self._keeps:
            rows = [(time.time(), *entry) for entry in touched]
            statement = "UPDATE main.entries SET used = ? WHERE picture = ? AND part = ?"
            self._write(lambda: self._connection.executemany(statement, rows))

    def put(self, vectors: Mapping[tuple[bytes, int], np.ndarray], spare: Collection[int] = ()) -> None:
        """Store float32 or float16 vectors by key and part, and give up the claims on the keys.

        What is there already stays as it is. The parts in `spare` nobody has asked for.
        """
        keys = list(dict.fromkeys(key for key, _ in vectors))
        now = time.time()

        def write() -> None:
            there = self._entries(keys, {part for _, part in vectors})
            added = 0
            for (key, part), vector in vectors.items():
                if (key, part) in there:
                    continue
                content = _content_of(vector)
                number = self._connection.execute("INSERT INTO main.vectors (value) VALUES (?)", (content,)).lastrowid
                entry = (key, part, number, _size_in_file(len(content)), now - _SPARE_S * (part in spare))
                self._connection.execute("INSERT INTO main.entries VALUES (?, ?, ?, ?, ?)", entry)
                added += entry[3]
            self._delete_claims(keys)
            self._connection.execute(
                "UPDATE main.claims SET expires = ? WHERE owner = ?", (now + _LEASE_S, self._owner)
            )
            self._connection.execute("UPDATE main.sizes SET n_bytes = n_bytes + ?", (added,))
            self._make_room()

        self._touch()
        self._write(write)
        self._give_back()

    @property
    def n_bytes(self) -> int:
        """Bytes that the vectors of the folder take in the file."""
        return int(self._connection.execute("SELECT n_bytes FROM main.sizes").fetchone()[0])

    def _make_room(self) -> None:
        """Let the vectors go that were used longest ago, if there are more than may be."""
        if self.size is None or not self._keeps or self.n_bytes <= self.size:
            return
        excess = self.n_bytes - (1 - _ROOM) * self.size
        gone: list[tuple[bytes, int, int]] = []
        freed = 0
        by_use = "SELECT picture, part, vector, size FROM main.entries ORDER BY used"
        oldest = self._connection.execute(by_use)
        while freed < excess and (entry := oldest.fetchone()) is not None:
            gone.append(entry[:3])
            freed += entry[3]
        oldest.close()
        self._connection.executemany("DELETE FROM main.vectors WHERE id = ?", [(vector,) for _, _, vector in gone])
        self._connection.executemany(
            "DELETE FROM main.entries WHERE picture = ? AND part = ?", [(key, part) for key, part, _ in gone]
        )
        self._connection.execute("UPDATE main.sizes SET n_bytes = n_bytes - ?", (freed,))

    def _give_back(self) -> None:
        """Make the file smaller, if much of it is free: what is free is filled again, unless the size was reduced."""
        try:
            n_pages, n_free = (
                self._connection.execute(f"PRAGMA main.{what}").fetchone()[0]
                for what in ("page_count", "freelist_count")
            )
            if self._keeps and n_free > n_pages // 4:
                # a script, as execute takes the first step alone of what frees a page in each
                self._connection.executescript("PRAGMA main.incremental_vacuum")
        except sqlite3.DatabaseError as error:
            raise self._unusable(error) from error

    def claim(
        self, keys: Sequence[bytes], missing: Callable[[Sequence[bytes]], list[bytes]] | None = None
    ) -> list[bytes]:
        """Claim those of the keys that `missing`, or the method of that name, returns; return what nobody else has."""

        def write() -> list[bytes]:
            # looked up under the lock: in between, nobody can store a vector or claim it
            open_keys = self.missing(keys) if missing is None else missing(keys)
            # where claims are written: in a file that cannot be written they would stand for ever
            rows = self._select("SELECT key, owner, expires FROM {}.claims WHERE key IN ({})", open_keys, places=1)
            taken = {bytes(key) for key, owner, expires in rows if self._is_alive(owner, expires)}
            mine = [key for key in open_keys if key not in taken]
            expires = time.time() + _LEASE_S
            self._connection.executemany(
                "INSERT OR REPLACE INTO main.claims VALUES (?, ?, ?)", ((key, self._owner, expires) for key in mine)
            )
            return mine

        return self._write(write)

    def release(self, keys: Sequence[bytes]) -> None:
        """Give up the claims on keys that got no vectors."""
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


class _OtherFormat(OSError):
    """A file of another version of the library, or of another program."""


def _make_tables(connection: sqlite3.Connection) -> None:
    for statement in _SCHEMA:
        connection.execute(statement)


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Turn write-ahead mode on, which fails at once, however long a connection may wait, while others make the file."""
    until = time.monotonic() + _WAIT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            # the rest of the code says what others do meanwhile
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(_RETRY_S)
        else:
            return


def _content_of(vector: np.ndarray) -> bytes | memoryview:
    """Return what is stored: of float16 a byte more, so that its length, which is odd then, tells it from float32."""
    if vector.dtype == np.float16:
        return vector.astype("<f2").tobytes() + b"\0"
    return np.ascontiguousarray(vector, dtype="<f4").data.cast("B")


def _size_in_file(n_bytes: int) -> int:
    """Return what a vector takes: whole pages, if it fills one."""
    return n_bytes if n_bytes < _PAGE else -(-n_bytes // _PAGE) * _PAGE


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
