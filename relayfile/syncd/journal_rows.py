"""How rows of the journal's `file` table and values become each other, and how SQLite's errors become ours."""

import contextlib
from collections.abc import Iterator
from typing import Any, Final, TypeAlias

import apsw

from relayfile.errors import StorageFailed
from relayfile.syncd.rows import DiskStat, FileRow, FileState

COLUMNS: Final = (
    "path, revision, remote_hash, size, state, disk_path, disk_hash, device, inode, disk_size, mtime_ns, ctime_ns"
)

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


@contextlib.contextmanager
def storage_errors() -> Iterator[None]:
    """SQLite's errors as ours: a journal that cannot be written must stop its mirror, not lose what it knows."""
    try:
        yield
    except apsw.Error as error:
        raise StorageFailed(what=f"a mirror's journal: {error}") from error
