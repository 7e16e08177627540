"""Which parts of a workspace a journal is about, and the files that leave because that, or what may be read, changed.

A journal that is opened for other remote paths than before keeps every row that is in both: their files do not move.
Rows that are in none any more are put aside, for their files to go to the trash; the sums of new paths start with what
is there already, and an audit finds the rest.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

import apsw

from relayfile.paths import contains, prefix_range
from relayfile.syncd.apply import Trashed
from relayfile.syncd.digest import EMPTY, TreeSum, element
from relayfile.syncd.journal_rows import BELOW, COLUMNS, file_row, span, storage_errors, transaction
from relayfile.syncd.rows import FileRow, TrashReason

_OUTSIDE: Final = (
    "NOT EXISTS (SELECT 1 FROM temp.scope s WHERE file.path = s.path OR (file.path >= s.low AND file.path < s.high))"
)


def rescope(db: apsw.Connection, paths: Sequence[str]) -> None:
    """Make the journal one of ``paths``. As long as the rows take to be read and hashed, and only when they differ."""
    with transaction(db):
        old = {str(row[0]) for row in db.execute("SELECT path FROM root")}
        if old == set(paths):
            return
        (phase,) = db.execute("SELECT pull_phase FROM mirror").fetchone() or (0,)
        if phase:  # the first pull was not finished: it starts again
            db.execute("DELETE FROM file; DELETE FROM name; DELETE FROM problem; UPDATE mirror SET pull_phase = 0;")
        if old:
            _put_aside(db, paths)
        for path in old - set(paths):
            db.execute("DELETE FROM root WHERE path = ?", (path,))
        for path in set(paths) - old:
            total = _sum(db, path) if old else EMPTY
            db.execute(
                "INSERT INTO root (path, file_count, total_bytes, digest) VALUES (?, ?, ?, ?)",
                (path, total.file_count, total.total_bytes, total.digest_bytes()),
            )


def _put_aside(db: apsw.Connection, paths: Iterable[str]) -> None:
    db.execute("CREATE TEMP TABLE IF NOT EXISTS scope (path TEXT, low TEXT, high TEXT); DELETE FROM temp.scope;")
    db.executemany("INSERT INTO temp.scope VALUES (?, ?, ?)", [(path, *prefix_range(path)) for path in paths])
    db.execute(f"INSERT OR REPLACE INTO leaving SELECT {COLUMNS} FROM file WHERE disk_hash IS NOT NULL AND {_OUTSIDE}")
    for table in ("problem", "refused_write"):
        db.execute(f"DELETE FROM {table} WHERE path <> '' AND path IN (SELECT path FROM file WHERE {_OUTSIDE})")
    db.execute(f"DELETE FROM file WHERE {_OUTSIDE}")


def _sum(db: apsw.Connection, root: str) -> TreeSum:
    count = size = digest = 0
    query = f"SELECT path, remote_hash, size FROM file WHERE {BELOW} AND remote_hash IS NOT NULL"
    for path, content_hash, file_bytes in db.execute(query, span(root)):
        assert isinstance(content_hash, bytes), path
        count, size, digest = count + 1, size + int(file_bytes), digest + element(str(path), content_hash)
    return EMPTY + TreeSum(count, size, digest)


class Scopes:
    """Files that leave the mirror, in its journal."""

    def __init__(self, db: apsw.Connection) -> None:
        self._db = db

    def leaving(self, limit: int) -> list[FileRow]:
        """Written files that are in no remote path any more, by path."""
        with storage_errors():
            return [
                file_row(row)
                for row in self._db.execute(f"SELECT {COLUMNS} FROM leaving ORDER BY path LIMIT ?", (limit,))
            ]

    def left(self, paths: Iterable[str]) -> None:
        """They are in the trash, or nobody's."""
        with transaction(self._db):
            self._db.executemany("DELETE FROM leaving WHERE path = ?", [(path,) for path in paths])

    def lost(self, paths: Iterable[str]) -> None:
        """The mirror's token may not read these any more."""
        with transaction(self._db):
            self._db.executemany("INSERT OR IGNORE INTO access_lost VALUES (?)", [(path,) for path in paths])

    def labelled(self, trashed: Sequence[Trashed]) -> list[Trashed]:
        """With the reason of those that were deleted here because they may not be read; each is asked about once."""
        lost: set[str] = set()
        query = "DELETE FROM access_lost WHERE path = ? RETURNING path"
        with transaction(self._db):
            for each in trashed:
                if each.reason is TrashReason.DELETED:
                    lost.update(str(path) for (path,) in self._db.execute(query, (each.path,)))
        return [replace(each, reason=TrashReason.ACCESS_LOST) if each.path in lost else each for each in trashed]


def dropped(old: Iterable[str], new: Sequence[str]) -> bool:
    """Whether a part of the workspace is in ``old`` and not in ``new``."""
    return any(not any(contains(path, each) for path in new) for each in old)
