"""The spool's SQLite file: its tables, its one writing transaction, and its short reads.

Owns every SQL statement of ingest but those of routes and pauses. Synchronous: the writing connection lives in the
committer's thread, the reading one in the event loop, where a read costs microseconds. Refuses to know when a
transaction is worth its fsync.
"""

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import apsw

from relayfile.errors import DataCorrupted, StartRefused, StorageFailed
from relayfile.ingest.spool import spool_pauses, spool_routes
from relayfile.ingest.spool.spool_checkpoints import SpoolCheckpoints, write_back
from relayfile.ingest.spool.spool_pauses import read_pauses, write_pauses
from relayfile.ingest.spool.spool_room import (
    PAGE_BYTES,
    Occupancy,
    disk_bytes,
    free_bytes,
    needed_bytes,
    row_pages,
    size_bytes,
)
from relayfile.ingest.spool.spool_routes import RouteUpdate, SavedRoutes, read_routes, write_routes

FILE_NAME = "spool.db"
FILE_NAMES = (FILE_NAME, FILE_NAME + "-wal")
SCHEMA_VERSION = 2
"""1 differs in the text of `batch.providers` alone and is read as it is."""
_BUSY_MS = 5_000
CHECKPOINT_PAGES = 4_000
"""A log of so many pages is written back into the file before anything else is written; from half of it on, beside."""
CHECKPOINT_PAGES_MIN = 32
ROWS_PER_STATEMENT = 64
LOG_PART = 16
"""The log of a small spool is written back when it has this part of the spool's size."""

# Payloads come last, so that scans over the other columns never read them. `settled` is a table of its own, because
# setting a bit must not rewrite a payload.
_SCHEMA = f"""
CREATE TABLE batch (
    row_id INTEGER PRIMARY KEY AUTOINCREMENT,
    workspace_id TEXT NOT NULL,
    received_us INTEGER NOT NULL,
    member_count INTEGER NOT NULL,
    providers TEXT NOT NULL,
    payload BLOB NOT NULL
);
CREATE INDEX batch_of_workspace ON batch (workspace_id, row_id);
CREATE TABLE settled (row_id INTEGER PRIMARY KEY, bits BLOB NOT NULL);
CREATE TABLE known_workspace (workspace_id TEXT PRIMARY KEY, known_us INTEGER NOT NULL) WITHOUT ROWID;
PRAGMA user_version = {SCHEMA_VERSION};
"""


class NewRow(NamedTuple):
    """A row to insert."""

    row_id: int
    workspace_id: str
    received_us: int
    """Of its oldest envelope."""
    member_count: int
    providers: str
    """See `PayloadBuilder.provider_text`: what a restart needs without reading payloads."""
    payload: bytes
    """A serialised `EnvelopeBatch`."""


class StoredRow(NamedTuple):
    """A row that is read to be sent."""

    row_id: int
    member_count: int
    bits: int
    """Bit i is set when the outcome of member i is durable."""
    providers: str
    payload: bytes


class RowHead(NamedTuple):
    """A row without its payload."""

    row_id: int
    providers: str


class Remainder(NamedTuple):
    """What is left of one row, without its payload."""

    row_id: int
    workspace_id: str
    received_us: int
    member_count: int
    providers: str
    payload_bytes: int
    bits: int


@dataclass(slots=True)
class Transaction:
    """What is written together."""

    rows: list[NewRow] = field(default_factory=list)
    known: list[tuple[str, int]] = field(default_factory=list)
    """Workspaces that exist, with the time at which that was learned."""
    bits: list[tuple[int, bytes]] = field(default_factory=list)
    """Row id and all its bits, little-endian."""
    finished: list[int] = field(default_factory=list)
    """Rows to remove."""
    routes: list[RouteUpdate] = field(default_factory=list)
    """Of apps; the store has them too."""
    pauses: list[tuple[str, str]] | None = None
    """(workspace, provider) of all pauses that are known, in place of those before; None: nothing new."""

    @property
    def must_last(self) -> bool:
        """Whether somebody waits for it to survive a power cut. What is settled may be settled again."""
        return bool(self.rows or self.known or self.pauses is not None)

    def __bool__(self) -> bool:
        return bool(self.must_last or self.bits or self.finished or self.routes)


def prepare(directory: Path, *, verify: bool) -> None:
    """Make the file, or check the one that is there; `StartRefused` when it is damaged or of another version."""
    path = directory / FILE_NAME
    try:
        connection = _open(directory)
        try:
            (version,) = connection.execute("PRAGMA user_version").fetchone() or (0,)
            if version not in (0, 1, SCHEMA_VERSION):
                raise StartRefused(
                    why=f"{path} has schema version {version}, this release knows {SCHEMA_VERSION}; start the release "
                    "that wrote it"
                )
            if version == 0:
                with connection:
                    connection.execute(_SCHEMA)
            # Beside the numbered schema, because an older release passes over it.
            connection.execute(spool_routes.SCHEMA + spool_pauses.SCHEMA)
            if version and verify:
                problems = [str(row[0]) for row in connection.execute("PRAGMA quick_check(3)")]
                if problems != ["ok"]:
                    raise StartRefused(
                        why=f"{path} is damaged ({'; '.join(problems)}); what it holds is accepted and not yet sent: "
                        "keep the file, and start with an empty data directory"
                    )
            if version == 1:
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        finally:
            connection.close()
    except apsw.Error as error:
        raise StartRefused(why=f"{path} cannot be read: {error}") from error


class SpoolWriter:
    """The writing connection. Used by one thread, the one that made it."""

    def __init__(self, directory: Path, bytes_max: int) -> None:
        """`bytes_max`: what the file may come to take."""
        self._directory = directory
        self._connection = _open(directory)
        self._connection.set_wal_hook(self._note_wal_size)
        log_pages = min(bytes_max, disk_bytes(directory) or bytes_max) // LOG_PART // PAGE_BYTES
        self._checkpoint_pages = min(CHECKPOINT_PAGES, max(CHECKPOINT_PAGES_MIN, log_pages))
        self._checkpoints = SpoolCheckpoints(_open(directory), self._checkpoint_pages)
        self._pages = self._free_pages = 0
        self._measure()
        self._wal_pages = 0
        """Of the log after the last commit; 0 when all of it is in the file."""
        self._lasting = True
        self._failed = False

    @property
    def used_bytes(self) -> int:
        """Of the file, without free pages and without the log, after the last commit."""
        return (self._pages - self._free_pages) * PAGE_BYTES

    def write(self, transaction: Transaction, before_commit: Callable[[Transaction], None]) -> None:
        """Commit everything or nothing; with `must_last`, return after the fsync. `before_commit` is for crash tests.

        `SpoolFull` leaves the file as it was. `StorageFailed`: what is on the disk is unknown, the process must end.
        """
        connection = self._connection
        try:
            if self._checkpoints.is_near(self._wal_pages):
                self._checkpoint()
            if transaction.rows:
                self._make_room(transaction.rows)
            self._choose_sync(transaction.must_last)
            connection.execute("BEGIN IMMEDIATE")
            try:
                if transaction.rows:
                    self._insert(transaction.rows)
                if transaction.known:
                    connection.executemany("INSERT OR IGNORE INTO known_workspace VALUES (?,?)", transaction.known)
                if transaction.bits:
                    connection.executemany("INSERT OR REPLACE INTO settled VALUES (?,?)", transaction.bits)
                if transaction.finished:
                    ids = (json.dumps(transaction.finished),)
                    connection.execute("DELETE FROM batch WHERE row_id IN (SELECT value FROM json_each(?))", ids)
                    connection.execute("DELETE FROM settled WHERE row_id IN (SELECT value FROM json_each(?))", ids)
                write_routes(connection, transaction.routes)
                if transaction.pauses is not None:
                    write_pauses(connection, transaction.pauses)
                before_commit(transaction)
                connection.execute("COMMIT")
            except apsw.FullError:
                self._roll_back()
                raise
            self._measure()
            self._checkpoints.begin(self._wal_pages)
        except apsw.FullError as error:
            raise SpoolFull from error
        except apsw.Error as error:
            self._failed = True
            raise StorageFailed(what=f"spool: {type(error).__name__}: {error}") from error

    def close(self) -> None:
        """Write the log back into the file, as far as readers and the disk's room allow, and close. After a failure:
        leave all as it is.

        `StorageFailed` when the disk failed behind the last transaction, or fails now.
        """
        connection = self._connection
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        error = self._checkpoints.close()
        if not self._failed and error is None:
            error = self._empty_log()
        connection.close()
        if error is not None and not self._failed:
            raise StorageFailed(what=f"spool: {type(error).__name__}: {error}") from error

    def _empty_log(self) -> apsw.Error | None:
        """What failed."""
        try:
            self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        except (apsw.FullError, apsw.BusyError):
            return None  # What was committed stays in the log.
        except apsw.Error as failed:
            return failed
        return None

    def _insert(self, rows: list[NewRow]) -> None:
        """Many rows in a statement: after each one the thread asks a busy event loop for the interpreter lock again."""
        for first in range(0, len(rows), ROWS_PER_STATEMENT):
            some = rows[first : first + ROWS_PER_STATEMENT]
            places = ",".join(["(?,?,?,?,?,?)"] * len(some))
            self._connection.execute(f"INSERT INTO batch VALUES {places}", [value for row in some for value in row])

    def _note_wal_size(self, _connection: apsw.Connection, _database: str, pages: int) -> int:
        self._wal_pages = pages
        return apsw.SQLITE_OK

    def _checkpoint(self) -> None:
        in_log, written_back = write_back(self._connection)
        if in_log == written_back:
            self._wal_pages = 0  # the next commit begins the log anew, in the place of the old one

    def _measure(self) -> None:
        pages, free = (self._connection.execute(f"PRAGMA {name}").get for name in ("page_count", "freelist_count"))
        self._pages, self._free_pages = int(pages), int(free)

    def _make_room(self, rows: list[NewRow]) -> None:
        """`SpoolFull` when there is none, even with all of the log written back: then it is begun anew."""
        if not self._has_room(rows):
            if self._wal_pages:
                self._checkpoints.rest()
                self._checkpoint()
            if not self._has_room(rows):
                raise SpoolFull

    def _has_room(self, rows: list[NewRow]) -> bool:
        """Whether rows may come in: never so many that the disk has no room left to remove them."""
        free = free_bytes(self._directory)
        if free is None:
            return True
        file_bytes, log_bytes = (size_bytes(self._directory / name) for name in FILE_NAMES)
        now = Occupancy(file_bytes, log_bytes, self._pages, self._free_pages, self._wal_pages)
        return needed_bytes(now, row_pages(len(row.payload) for row in rows), self._checkpoint_pages) <= free

    def _choose_sync(self, lasting: bool) -> None:
        if lasting is not self._lasting:
            # In WAL mode NORMAL commits without an fsync; the next FULL commit makes these frames last too.
            self._connection.execute("PRAGMA synchronous=" + ("FULL" if lasting else "NORMAL"))
            self._lasting = lasting

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")


class SpoolFull(Exception):
    """The disk has no room; nothing was written and nothing is lost."""


class SpoolReader:
    """The reading connection, for the event loop: every read is one short snapshot."""

    def __init__(self, directory: Path) -> None:
        """`DataCorrupted` or `StorageFailed` when it is no spool, as from every method that reads rows."""
        with _reading():
            self._connection = _open(directory)
        self._connection.execute("PRAGMA query_only=ON")
        # The last connection to close would write the log back, after a failed fsync too.
        self._connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)

    def last_row_id(self) -> int:
        """The greatest row id that was ever given out; 0 in a new file."""
        row = self._connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'batch'").fetchone()
        return int(row[0]) if row else 0

    def known_workspaces(self) -> set[str]:
        """Every workspace that was learned to exist."""
        return {str(row[0]) for row in self._connection.execute("SELECT workspace_id FROM known_workspace")}

    def routes(self, app: str) -> SavedRoutes:
        """What is kept of an app's routes."""
        return read_routes(self._connection, app)

    def pauses(self) -> list[tuple[str, str]]:
        """(workspace, provider) of the pauses that were known last."""
        return read_pauses(self._connection)

    def remainders(self) -> Iterator[Remainder]:
        """Every row that is left, in row order, without payloads; none of a file whose process died making it."""
        query = (
            "SELECT row_id, workspace_id, received_us, member_count, providers, length(payload), bits"
            " FROM batch LEFT JOIN settled USING (row_id) ORDER BY row_id"
        )
        with _reading():
            if not self._connection.execute("PRAGMA user_version").get:
                return
            for row_id, workspace_id, received_us, count, providers, size, bits in self._connection.execute(query):
                yield Remainder(row_id, workspace_id, received_us, count, providers, size, _bits(bits))

    def rows_between(self, workspace_id: str, after: int, to: int, bytes_max: int) -> list[StoredRow]:
        """The next rows of a workspace, at least one if there is any, until `bytes_max` of payload are together."""
        query = (
            "SELECT row_id, member_count, bits, providers, payload FROM batch LEFT JOIN settled USING (row_id)"
            " WHERE workspace_id = ? AND row_id > ? AND row_id <= ? ORDER BY row_id"
        )
        rows: list[StoredRow] = []
        size = 0
        with _reading():
            cursor = self._connection.execute(query, (workspace_id, after, to))
            for row_id, member_count, bits, providers, payload in cursor:
                rows.append(StoredRow(row_id, member_count, _bits(bits), providers, payload))
                size += len(payload)
                if size >= bytes_max:
                    break
            cursor.close()
        return rows

    def heads_between(self, workspace_id: str, after: int, to: int, limit: int) -> list[RowHead]:
        """The next rows of a workspace without their payloads."""
        query = (
            "SELECT row_id, providers FROM batch WHERE workspace_id = ? AND row_id > ? AND row_id <= ?"
            " ORDER BY row_id LIMIT ?"
        )
        with _reading():
            return [RowHead(*row) for row in self._connection.execute(query, (workspace_id, after, to, limit))]

    def row(self, row_id: int) -> StoredRow | None:
        """One row; None when it was removed."""
        query = (
            "SELECT row_id, member_count, bits, providers, payload FROM batch LEFT JOIN settled USING (row_id)"
            " WHERE row_id = ?"
        )
        with _reading():
            found = self._connection.execute(query, (row_id,)).fetchone()
        if found is None:
            return None
        row_id, member_count, bits, providers, payload = found
        return StoredRow(row_id, member_count, _bits(bits), providers, payload)

    def piece(self, row_id: int, offset: int, length: int) -> bytes:
        """A part of a row's payload. `DataCorrupted` when the row is not there."""
        try:
            blob = self._connection.blob_open("main", "batch", "payload", row_id, False)
            try:
                blob.seek(offset)
                return blob.read(length)
            finally:
                blob.close()
        except (apsw.Error, ValueError) as error:
            raise DataCorrupted(what=f"row {row_id} of the spool cannot be read: {error}") from error

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    """What SQLite says of a read that it cannot do, in our words."""
    try:
        yield
    except (apsw.CorruptError, apsw.NotADBError, apsw.FormatError) as error:
        raise DataCorrupted(what=f"{FILE_NAME}: {error}") from error
    except apsw.Error as error:
        raise StorageFailed(what=f"spool: {type(error).__name__}: {error}") from error


def _open(directory: Path) -> apsw.Connection:
    connection = apsw.Connection(str(directory / FILE_NAME))
    connection.set_busy_timeout(_BUSY_MS)
    connection.execute(f"PRAGMA page_size={PAGE_BYTES}")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.wal_autocheckpoint(0)
    connection.execute("PRAGMA journal_size_limit=67108864")
    return connection


def _bits(stored: bytes | None) -> int:
    return 0 if stored is None else int.from_bytes(stored, "little")
