"""How rows of the journal's `file` table and values become each other, and how SQLite's errors become ours.

What the parts of the journal share: they work on one connection, and each owns what it writes.
"""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, Final, TypeAlias

import apsw

from relayfile.errors import StorageFailed
from relayfile.paths import prefix_range
from relayfile.syncd.rows import DiskStat, FileRow, FileState

COLUMNS: Final = (
    "path, revision, remote_hash, size, state, disk_path, disk_hash, device, inode, disk_size, mtime_ns, ctime_ns"
)
_INTO: Final = f"INSERT OR REPLACE INTO file ({COLUMNS}, barrier) VALUES "
_VALUES: Final = f"({'?, ' * 12}?)"
INSERT: Final = _INTO + _VALUES
_INSERT_ROWS: Final = 100
_INSERT_MANY: Final = _INTO + ", ".join([_VALUES] * _INSERT_ROWS)
BELOW: Final = "(path = ?1 OR (path >= ?2 AND path < ?3))"
"""The path of ``span``'s bindings, or below it."""
SPAN_AFTER: Final = "path >= ?1 AND path < ?2 AND (path >= ?3 OR path = ?4)"
"""``BELOW`` for pages by path, with the bindings of ``span_after``: one range of the key. An OR of two is read whole
and sorted for each page, and of two lower bounds SQLite may seek the wrong one."""
UNSETTLED: Final = "file INDEXED BY file_unsettled"
"""For a query that says `state <> 1` itself: only then is the partial index used, and named, it cannot be forgotten."""
_ROW_OF: Final = f"SELECT {COLUMNS} FROM file WHERE path = ?"

Value: TypeAlias = int | float | bytes | str | None
StagedRow: TypeAlias = tuple[Value, ...]
"""A row of `file` in the order of the columns, and its barrier: made by the writer thread, no object per file."""


def file_row(row: tuple[Any, ...]) -> FileRow:
    """A row in the order of ``COLUMNS``; SQLite's types are those of the schema."""
    path, revision, remote_hash, size, state, disk_path, disk_hash, device, inode, disk_size, mtime, ctime = row
    stat = None if inode is None else DiskStat(device, inode, disk_size, mtime, ctime)
    place = path[1:] if disk_path is None else disk_path
    return FileRow(path, revision, remote_hash, size, FileState(state), place, disk_hash, stat)


def stat_columns(stat: DiskStat | None) -> tuple[Value, ...]:
    return (None,) * 5 if stat is None else (stat.device, stat.inode, stat.size, stat.mtime_ns, stat.ctime_ns)


def span(path: str) -> tuple[str, str, str]:
    """The bindings of ``BELOW``."""
    return (path, *prefix_range(path))


def span_after(path: str, after: str) -> tuple[str, str, str, str]:
    """The bindings of ``SPAN_AFTER``: ``path`` and what is below it, of that what comes after ``after``."""
    low, high = prefix_range(path)
    return max(path, after + "\0"), high, low, path


def insert(db: apsw.Connection, rows: Sequence[StagedRow]) -> None:
    """Add rows, a hundred in a step: at each step SQLite lets go of the interpreter lock, and the writer takes it."""
    whole = len(rows) - len(rows) % _INSERT_ROWS
    for start in range(0, whole, _INSERT_ROWS):
        db.execute(_INSERT_MANY, tuple(chain.from_iterable(rows[start : start + _INSERT_ROWS])))
    db.executemany(INSERT, rows[whole:])


def load(db: apsw.Connection, paths: Iterable[str]) -> dict[str, FileRow]:
    """The rows of those paths that have one."""
    found: dict[str, FileRow] = {}
    with storage_errors():
        for path in paths:
            for row in db.execute(_ROW_OF, (path,)):
                found[path] = file_row(row)
    return found


def one(db: apsw.Connection, query: str, bindings: tuple[Value, ...] = ()) -> tuple[Any, ...]:
    """The first row of an answer that always has one."""
    with storage_errors():
        row = db.execute(query, bindings).fetchone()
    assert row is not None, query
    return tuple(row)


@contextlib.contextmanager
def transaction(db: apsw.Connection) -> Iterator[None]:
    """All or nothing; inside another one, part of it."""
    with storage_errors(), db:
        yield


@contextlib.contextmanager
def durable(db: apsw.Connection) -> Iterator[None]:
    """What is committed in the block, and with it everything before, is there after a power cut too. Around it all:
    within a transaction nothing of this can be changed."""
    with storage_errors():
        db.execute("PRAGMA synchronous = FULL")
    try:
        yield
    finally:
        with storage_errors():
            db.execute("PRAGMA synchronous = NORMAL")


@contextlib.contextmanager
def storage_errors() -> Iterator[None]:
    """SQLite's errors as ours: a journal that cannot be written must stop its mirror, not lose what it knows."""
    try:
        yield
    except apsw.Error as error:
        first: BaseException = error
        # A transaction that found no room is over before it can be undone: what that says is not the trouble.
        while isinstance(first.__context__, apsw.Error | StorageFailed):
            first = first.__context__
        if isinstance(first, StorageFailed):
            raise first from first.__cause__
        raise StorageFailed(what=f"a mirror's journal: {first}") from first
