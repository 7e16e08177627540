"""The journal of one mirror: what the store has, what was written, and how far both are known to agree.

One SQLite database per mirror, used by one task at a time. Remote hashes, the digest summed from them and the event
cursor change in one transaction; what was written is told only after it is on disk. A commit survives a kill at once;
after a power cut a few may be missing, never half of one: the store is asked again for what they said.
Refuses to look at the disk or at the store.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final

import apsw

from relayfile.errors import StartRefused
from relayfile.syncd import names
from relayfile.syncd.digest import EMPTY, TreeSum, element
from relayfile.syncd.journal_conflicts import Conflicts
from relayfile.syncd.journal_decisions import Decisions
from relayfile.syncd.journal_listing import Listing
from relayfile.syncd.journal_outbox import Outbox
from relayfile.syncd.journal_places import Places
from relayfile.syncd.journal_problems import PROBLEMS_MAX, Problems
from relayfile.syncd.journal_pull import FirstPull
from relayfile.syncd.journal_rows import (
    BELOW,
    COLUMNS,
    INSERT,
    SPAN_AFTER,
    UNSETTLED,
    file_row,
    load,
    one,
    span,
    span_after,
    stat_columns,
    storage_errors,
    transaction,
)
from relayfile.syncd.journal_scopes import Scopes, rescope
from relayfile.syncd.journal_standing import Standing
from relayfile.syncd.rows import Cursor, DiskStat, FileRow, FileState, Problem, RemoteFile, Settled
from relayfile.syncd.trash import Trash

_FORMAT: Final = 3
_UPGRADES: Final = {
    1: "ALTER TABLE mirror ADD COLUMN last_sequence INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE mirror ADD COLUMN last_acknowledged_us INTEGER NOT NULL DEFAULT 0;",
    2: "ALTER TABLE file ADD COLUMN base_revision INTEGER NOT NULL DEFAULT 0;",
}
"""From a format to the next: what `CREATE ... IF NOT EXISTS` cannot do."""
_MOVES_ON: Final = "base_revision = CASE WHEN disk_hash IS remote_hash THEN revision ELSE base_revision END"
"""The store has another version: the one on disk was the revision that the row names until now, if they agreed."""
_BUSY_MS: Final = 5_000
_PRAGMAS: Final = ("journal_mode = WAL", "synchronous = NORMAL", "wal_autocheckpoint = 8000")
"""Commits in the write-ahead log wait for no disk; `durable` says where one has to."""


@dataclass(frozen=True, slots=True)
class Unsettled:
    """Files that are not materialised, by state, with their bytes."""

    files: dict[FileState, int]
    total_bytes: int


class Journal:
    """An open journal. Not thread-safe: its mirror's lock is held while it is used.

    ``first_pull``, ``listing``, ``places``, ``problems``, ``outbox``, ``conflicts``, ``decisions``, ``scopes`` and
    ``trash`` are parts of it, on the same connection.
    """

    def __init__(
        self, path: Path, remote_paths: Sequence[str], *, folds: bool = False, problems_max: int = PROBLEMS_MAX
    ) -> None:
        self._folds = folds
        self.ignores: Callable[[str], bool] = names.is_ignored
        """Whether a remote path is left alone."""
        with storage_errors():
            self._db = apsw.Connection(str(path))
            self._db.set_busy_timeout(_BUSY_MS)
            # One at a time: a pragma that answers a row ends the text there, and what follows it is never run.
            for pragma in _PRAGMAS:
                self._db.execute(f"PRAGMA {pragma}")
            _upgrade(self._db, path)
            rescope(self._db, remote_paths)
        self._standing = Standing(self._db)
        self.trash = Trash(self._db)
        self.problems = Problems(self._db, problems_max)
        self.listing = Listing(self._db)
        self.places = Places(self._db)
        self.decisions = Decisions(self._db)
        self.scopes = Scopes(self._db)
        self.outbox = Outbox(self._db, self.problems)
        self.conflicts = Conflicts(self._db)
        self.first_pull = FirstPull(self._db, self._standing, self.problems)

    def close(self) -> None:
        with storage_errors():
            self._db.close()

    # --- what is known ----------------------------------------------------------------------------------------------

    @property
    def cursor(self) -> Cursor:
        """Up to which event the remote hashes are known."""
        return self._standing.cursor

    @property
    def sums(self) -> dict[str, TreeSum]:
        """For each remote path of the mirror: the journal's own count, bytes and digest, at the cursor."""
        return self._standing.sums

    def load(self, paths: Iterable[str]) -> dict[str, FileRow]:
        """The rows of those paths that have one."""
        return load(self._db, paths)

    def root_of(self, path: str) -> str | None:
        """The mirror's remote path that holds ``path``."""
        return self._standing.root_of(path)

    def rows(self, after: str, limit: int, *, state: FileState | None = None, below: str = "/") -> list[FileRow]:
        """Rows by path, after ``after``; only of one state, if named."""
        where = SPAN_AFTER
        table = "file"
        if state is not None:
            where += f" AND state = {int(state)}"
            if state is not FileState.MATERIALISED:
                table, where = UNSETTLED, f"state <> 1 AND {where}"
        with storage_errors():
            query = f"SELECT {COLUMNS} FROM {table} WHERE {where} ORDER BY path LIMIT ?5"
            return [file_row(row) for row in self._db.execute(query, (*span_after(below, after), limit))]

    def pending_deletes(self, limit: int, after: str = "") -> list[FileRow]:
        """Files that the store no longer has and that are still on disk, by path, after ``after``."""
        query = f"SELECT {COLUMNS} FROM {UNSETTLED} WHERE state <> 1 AND state = 2 AND remote_hash IS NULL"
        query += " AND path > ? ORDER BY path LIMIT ?"
        with storage_errors():
            return [file_row(row) for row in self._db.execute(query, (after, limit))]

    def has_remote_below(self, directory: str) -> bool:
        """Whether the store has a file below ``directory``."""
        query = f"SELECT EXISTS (SELECT 1 FROM file WHERE {BELOW} AND remote_hash IS NOT NULL)"
        return bool(one(self._db, query, span(directory))[0])

    def has_local_below(self, directory: str) -> bool:
        """Whether the disk has, or will have, a file of the mirror below ``directory``."""
        query = f"SELECT EXISTS (SELECT 1 FROM file WHERE {BELOW} AND state <> 4 AND path NOT IN "
        query += "(SELECT path FROM outbox WHERE content_hash IS NULL AND state <> 3))"
        return bool(one(self._db, query, span(directory))[0])

    def differing(self, limit: int) -> tuple[int, list[str]]:
        """What is not yet on the other side and no list names: how many files, and the first of them by path."""
        which = f"FROM {UNSETTLED} WHERE state <> 1 AND (state = 2 OR (state = 6 AND EXISTS (SELECT 1 FROM outbox "
        which += "WHERE outbox.path = file.path AND outbox.state NOT IN (3, 4))))"
        count = int(one(self._db, f"SELECT count(*) {which}")[0])
        with storage_errors():
            return count, [
                str(row[0]) for row in self._db.execute(f"SELECT path {which} ORDER BY path LIMIT ?", (limit,))
            ]

    def has_pending(self) -> bool:
        """Whether any file waits to be written or removed; asked after each request, whatever else is unsettled."""
        query = f"SELECT EXISTS (SELECT 1 FROM {UNSETTLED} WHERE state <> 1 AND state = 2)"
        return bool(one(self._db, query)[0])

    def unsettled(self) -> Unsettled:
        with storage_errors():
            query = f"SELECT state, count(*), sum(size) FROM {UNSETTLED} WHERE state <> 1 AND remote_hash IS NOT NULL"
            query += " GROUP BY state"
            rows = [(FileState(row[0]), int(row[1]), int(row[2])) for row in self._db.execute(query)]
        return Unsettled({state: count for state, count, _ in rows}, sum(size for _, _, size in rows))

    def unfolded(self, path: str) -> str:
        """The disk path of a path that may be written, kept from its first use on."""
        if not self._folds:
            return names.shortened(path)
        disk, taken = names.unfolded(path, self._owner_of)
        self._db.executemany("INSERT OR REPLACE INTO name (folded, remote) VALUES (?, ?)", taken)
        return disk

    # --- following --------------------------------------------------------------------------------------------------

    def learn(self, changes: Sequence[RemoteFile], cursor: Cursor | None) -> list[str]:
        """Take what the store says, in order, and the cursor with it. Returns the paths that are now pending.

        A file that is gone keeps its row, without a remote hash, until it is gone from the disk.
        """
        newest = {change.path: change for change in changes}
        old = self.load(newest)
        added: dict[str, TreeSum] = {}
        pending: list[str] = []
        with transaction(self._db):
            for path, change in newest.items():
                root = self._standing.root_of(path)
                if root is None:
                    continue
                added[root] = added.get(root, EMPTY) + _difference(path, old.get(path), change)
                if change.content_hash is None:
                    if self._learn_gone(old.get(path), change.revision):
                        pending.append(path)
                elif self._learn_file(old.get(path), change):
                    pending.append(path)
            self._standing.add(added)
            if cursor is not None:
                self._db.execute("UPDATE mirror SET revision = ?, history_id = ?", (cursor.revision, cursor.history_id))
                self.outbox.told()
        self._standing.load()
        return pending

    def settle(self, settled: Sequence[Settled]) -> None:
        """What was written or removed, after it is on disk."""
        written = [each for each in settled if each.disk_hash is not None]
        with transaction(self._db):
            self._db.executemany(
                "UPDATE file SET disk_hash = ?1, device = ?2, inode = ?3, disk_size = ?4, mtime_ns = ?5, "
                "ctime_ns = ?6, state = CASE WHEN remote_hash IS ?1 THEN 1 ELSE 2 END WHERE path = ?7",
                [(each.disk_hash, *stat_columns(each.disk_stat), each.path) for each in written],
            )
            gone = [(each.path,) for each in settled if each.disk_hash is None]
            self._db.executemany("DELETE FROM file WHERE path = ? AND remote_hash IS NULL", gone)
            self._db.executemany(
                "UPDATE file SET disk_hash = NULL, inode = NULL, state = 2 WHERE path = ? AND state <> 4", gone
            )
            self.problems.drop(each.path for each in settled)
            self.outbox.forget(each.path for each in settled)

    def list_problems(self, problems: Sequence[Problem]) -> None:
        """Keep why paths are not on disk; a path has one problem at a time."""
        with transaction(self._db):
            self.problems.add(problems)
            self.outbox.forget(each.path for each in problems)
            self._db.executemany(
                "UPDATE file SET state = 5 WHERE path = ? "
                "AND NOT EXISTS (SELECT 1 FROM outbox WHERE outbox.path = file.path)",
                [(each.path,) for each in problems],
            )

    def try_again(self, paths: Iterable[str]) -> None:
        """Files with a problem are pending again; what is known of the problem stays until it is gone."""
        with transaction(self._db):
            self._db.executemany("UPDATE file SET state = 2 WHERE state = 5 AND path = ?", [(path,) for path in paths])

    def ignore(self, ignored: Sequence[str], heeded: Sequence[str]) -> None:
        """Rules cover files, or no longer: these are left alone from now on, those are not."""
        if not ignored and not heeded:
            return
        with transaction(self._db):
            rows = [(path,) for path in ignored]
            self._db.executemany("DELETE FROM file WHERE path = ? AND remote_hash IS NULL", rows)
            self._db.executemany("UPDATE file SET state = 4 WHERE path = ?", rows)
            self.problems.drop(ignored)
            self.outbox.forget(ignored)
            for row in self.load(heeded).values():
                disk = self.unfolded(row.path)
                self._db.execute(
                    "UPDATE file SET state = CASE WHEN disk_hash IS remote_hash THEN 1 ELSE 2 END, disk_path = ? "
                    "WHERE path = ? AND state = 4",
                    (None if disk == row.path[1:] else disk, row.path),
                )

    def look_again(self, paths: Iterable[str]) -> None:
        """These are pending: what is on disk is not what was thought."""
        with transaction(self._db):
            self._db.executemany(
                "UPDATE file SET state = 2 WHERE path = ? AND state <> 4 "
                "AND NOT EXISTS (SELECT 1 FROM outbox WHERE outbox.path = file.path AND outbox.state IN (2, 3))",
                [(path,) for path in paths],
            )

    def forget_local(self, paths: Iterable[str]) -> None:
        """Files that only the disk has are none of the mirror's business."""
        with transaction(self._db):
            self._db.executemany(
                "DELETE FROM file WHERE path = ? AND remote_hash IS NULL AND disk_hash IS NULL",
                [(path,) for path in paths],
            )

    def touch(self, stats: Iterable[tuple[str, DiskStat | None]]) -> None:
        """The files are what was written; only their stat is another."""
        with transaction(self._db):
            self._db.executemany(
                "UPDATE file SET device = ?, inode = ?, disk_size = ?, mtime_ns = ?, ctime_ns = ? WHERE path = ?",
                [(*stat_columns(stat), path) for path, stat in stats],
            )

    def together(self) -> AbstractContextManager[None]:
        """All that is told inside, or nothing of it."""
        return transaction(self._db)

    def move_cursor(self, cursor: Cursor) -> None:
        self.learn((), cursor)

    def pulled(self, *, now_us: int, full: bool) -> None:
        with transaction(self._db):
            self._db.execute("UPDATE mirror SET last_pull_us = ?", (now_us,))
            if full:
                self._db.execute("UPDATE mirror SET last_full_pull_us = ?", (now_us,))

    def last_pulls_us(self) -> tuple[int, int]:
        """When the last pull and the last full pull ended well; 0: never."""
        row = one(self._db, "SELECT last_pull_us, last_full_pull_us FROM mirror")
        return int(row[0]), int(row[1])

    # --- inside -----------------------------------------------------------------------------------------------------

    def _learn_gone(self, old: FileRow | None, revision: int) -> bool:
        if old is None:
            return False
        gone = f"UPDATE file SET remote_hash = NULL, size = 0, {_MOVES_ON}, revision = ?, state = ? WHERE path = ?"
        # Without a base an edit that waits is a new file again, also where `bring` was about to compare the versions.
        ahead = old.state is FileState.OUTGOING or old.disk_hash is None
        if ahead and not self.outbox.met(old, revision, None):
            self._db.execute(gone, (revision, int(FileState.OUTGOING), old.path))
            return False
        if old.disk_hash is None or old.state is FileState.IGNORED:
            self._db.execute("DELETE FROM file WHERE path = ?", (old.path,))
            self.problems.drop((old.path,))
            return False
        self._db.execute(gone, (revision, int(FileState.PENDING), old.path))
        return True

    def _learn_file(self, old: FileRow | None, change: RemoteFile) -> bool:
        if old is not None:
            # Pending with the same hash is not settled: the file may be on its way to the trash, untold after a kill.
            same = old.state is FileState.MATERIALISED and old.disk_hash == change.content_hash
            if old.state is FileState.PROBLEM and old.remote_hash == change.content_hash:
                state = FileState.PROBLEM
            elif old.state is FileState.IGNORED:
                state = FileState.IGNORED
            elif old.state is FileState.OUTGOING and not self.outbox.met(old, change.revision, change.content_hash):
                state = FileState.OUTGOING
            else:
                state = FileState.MATERIALISED if same else FileState.PENDING
            self._db.execute(
                f"UPDATE file SET {_MOVES_ON}, revision = ?, remote_hash = ?, size = ?, state = ? WHERE path = ?",
                (change.revision, change.content_hash, change.size, int(state), change.path),
            )
            return state is FileState.PENDING
        state, disk_path, problem = self._place(change)
        self._db.execute(
            INSERT,
            (change.path, change.revision, change.content_hash, change.size, int(state), disk_path, *(None,) * 6, 0),
        )
        self.problems.drop((disk_path or change.path[1:],))  # told of it as of a file that only the disk has
        if problem is not None:
            self.problems.add((problem,))
        return state is FileState.PENDING

    def _place(self, change: RemoteFile) -> tuple[FileState, str | None, Problem | None]:
        if self.ignores(change.path):
            return FileState.IGNORED, None, None
        why = names.refusal(change.path)
        if why is not None:
            return FileState.PROBLEM, None, Problem(change.path, "NAME_REFUSED", f"The name {why}.", change.revision)
        disk = self.unfolded(change.path)
        return FileState.PENDING, None if disk == change.path[1:] else disk, None

    def _owner_of(self, folded: str) -> str | None:
        row = self._db.execute("SELECT remote FROM name WHERE folded = ?", (folded,)).fetchone()
        return None if row is None else str(row[0])


def _upgrade(db: apsw.Connection, path: Path) -> None:
    """The schema, made or brought to this format; a newer one is not touched."""
    with db:
        there = db.execute("SELECT 1 FROM sqlite_master WHERE name = 'mirror'").get
        found = _FORMAT if there is None else int(db.execute("SELECT format FROM mirror").get or _FORMAT)
        if found > _FORMAT:
            raise StartRefused(
                why=f"the journal {path} has format {found}, this release knows {_FORMAT}; start a newer one"
            )
        for step in range(found, _FORMAT):
            db.execute(_UPGRADES[step])
        db.execute(resources.files("relayfile.syncd").joinpath("journal.sql").read_text())
        # Earlier releases lost the row of an edit at times: it is not sent, and hides its file from every look.
        db.execute("DELETE FROM outbox WHERE state IN (1, 4, 5) AND path NOT IN (SELECT path FROM file)")
        db.execute("INSERT OR IGNORE INTO mirror (id, format) VALUES (1, ?)", (_FORMAT,))
        db.execute("UPDATE mirror SET format = ?", (_FORMAT,))


def _difference(path: str, old: FileRow | None, change: RemoteFile) -> TreeSum:
    files = size = digest = 0
    if old is not None and old.remote_hash is not None:
        files, size, digest = -1, -old.size, -element(path, old.remote_hash)
    if change.content_hash is not None:
        files, size, digest = files + 1, size + change.size, digest + element(path, change.content_hash)
    return TreeSum(files, size, digest)
