"""The journal of one mirror: what the store has, what was written, and how far both are known to agree.

One SQLite database per mirror, used by one task at a time. Remote hashes, the digest summed from them and the event
cursor change in one transaction; what was written is told only after it is on disk. A commit survives a kill at once;
after a power cut a few may be missing, never half of one: the store is asked again for what they said.
Refuses to look at the disk or at the store.
"""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from importlib import resources
from pathlib import Path
from typing import Any, Final

import apsw

from relayfile.errors import StartRefused
from relayfile.paths import contains, prefix_range
from relayfile.syncd import names
from relayfile.syncd.digest import EMPTY, MODULUS, TreeSum, element
from relayfile.syncd.journal_rows import COLUMNS, StagedRow, Value, file_row, stat_columns, storage_errors
from relayfile.syncd.rows import Cursor, FileRow, FileState, Problem, RemoteFile, Settled
from relayfile.syncd.trash import Trash

_FORMAT: Final = 1
_BUSY_MS: Final = 5_000
_CHECKPOINT_PAGES: Final = 8_000
_ROW_OF: Final = f"SELECT {COLUMNS} FROM file WHERE path = ?"
_INSERT: Final = f"INSERT OR REPLACE INTO file ({COLUMNS}, barrier) VALUES ({'?, ' * 12}?)"

PROBLEMS_MAX: Final = 10_000
"""Problems that are listed for one mirror, unless it is told otherwise."""
_BELOW: Final = "(path = ?1 OR (path >= ?2 AND path < ?3))"


class PullPhase(IntEnum):
    """The numbers are stored."""

    NONE = 0
    STAGING = 1
    """In order of path: what is staged is everything up to its last path."""
    PLACING = 2
    STAGING_UNORDERED = 3


@dataclass(frozen=True, slots=True)
class PullMark:
    """How far the first pull is."""

    phase: PullPhase
    cursor: Cursor
    barrier: int


@dataclass(frozen=True, slots=True)
class Unsettled:
    """Files that are not materialised, by state, with their bytes."""

    files: dict[FileState, int]
    total_bytes: int


class Journal:
    """An open journal. Not thread-safe: its mirror's lock is held while it is used."""

    def __init__(
        self, path: Path, remote_paths: Sequence[str], *, folds: bool = False, problems_max: int = PROBLEMS_MAX
    ) -> None:
        self._folds = folds
        self._problems_max = problems_max
        with storage_errors():
            self._db = apsw.Connection(str(path))
            self.trash = Trash(self._db)
            self._db.set_busy_timeout(_BUSY_MS)
            self._db.execute("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;")
            self._db.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}; PRAGMA cache_size = -32768;")
            self._db.execute(resources.files("relayfile.syncd").joinpath("journal.sql").read_text())
            self._db.execute("INSERT OR IGNORE INTO mirror (id, format) VALUES (1, ?)", (_FORMAT,))
            found = self._db.execute("SELECT format FROM mirror").get
            if found != _FORMAT:
                raise StartRefused(
                    why=f"the journal {path} has format {found}, this release knows {_FORMAT}; start a newer one"
                )
            for root in remote_paths:
                self._db.execute("INSERT OR IGNORE INTO root (path, digest) VALUES (?, ?)", (root, bytes(32)))
        self._load_sums()
        row = self._one("SELECT revision, history_id FROM mirror")
        self._cursor = Cursor(int(row[0]), str(row[1]))

    def close(self) -> None:
        with storage_errors():
            self._db.close()

    # --- what is known ----------------------------------------------------------------------------------------------

    @property
    def cursor(self) -> Cursor:
        """Up to which event the remote hashes are known."""
        return self._cursor

    @property
    def sums(self) -> dict[str, TreeSum]:
        """For each remote path of the mirror: the journal's own count, bytes and digest, at the cursor."""
        return self._sums

    def pull_mark(self) -> PullMark:
        phase, revision, history_id, barrier = self._one(
            "SELECT pull_phase, pull_revision, pull_history_id, barrier FROM mirror"
        )
        return PullMark(PullPhase(phase), Cursor(int(revision), str(history_id)), int(barrier))

    def load(self, paths: Iterable[str]) -> dict[str, FileRow]:
        """The rows of those paths that have one."""
        found: dict[str, FileRow] = {}
        with storage_errors():
            for path in paths:
                for row in self._db.execute(_ROW_OF, (path,)):
                    found[path] = file_row(row)
        return found

    def rows(self, after: str, limit: int, *, state: FileState | None = None, below: str = "/") -> list[FileRow]:
        """Rows by path, after ``after``; only of one state, if named."""
        where = f"path > ?4 AND {_BELOW}" + ("" if state is None else f" AND state = {int(state)}")
        with storage_errors():
            query = f"SELECT {COLUMNS} FROM file WHERE {where} ORDER BY path LIMIT ?5"
            return [file_row(row) for row in self._db.execute(query, (*_below(below), after, limit))]

    def pending_deletes(self, limit: int) -> list[FileRow]:
        """Files that the store no longer has and that are still on disk."""
        query = f"SELECT {COLUMNS} FROM file WHERE state = 2 AND remote_hash IS NULL ORDER BY path LIMIT ?"
        with storage_errors():
            return [file_row(row) for row in self._db.execute(query, (limit,))]

    def has_remote_below(self, directory: str) -> bool:
        """Whether the store has a file below ``directory``."""
        query = f"SELECT EXISTS (SELECT 1 FROM file WHERE {_BELOW} AND remote_hash IS NOT NULL)"
        return bool(self._one(query, _below(directory))[0])

    def unsettled(self) -> Unsettled:
        with storage_errors():
            query = "SELECT state, count(*), sum(size) FROM file WHERE state <> 1 AND remote_hash IS NOT NULL"
            query += " GROUP BY state"
            rows = [(FileState(row[0]), int(row[1]), int(row[2])) for row in self._db.execute(query)]
        return Unsettled({state: count for state, count, _ in rows}, sum(size for _, _, size in rows))

    def problems(self, limit: int) -> list[Problem]:
        """By path, the mirror's own (empty path) first."""
        query = "SELECT path, reason, message, revision, create_us, attempt_count FROM problem ORDER BY path LIMIT ?"
        with storage_errors():
            return [Problem(*row) for row in self._db.execute(query, (limit,))]

    def problem_count(self) -> int:
        return int(self._one("SELECT count(*) FROM problem")[0])

    def unfolded(self, path: str) -> str:
        """The disk path of a path that may be written, kept from its first use on."""
        if not self._folds:
            return names.shortened(path)
        disk, taken = names.unfolded(path, self._owner_of)
        self._db.executemany("INSERT OR REPLACE INTO name (folded, remote) VALUES (?, ?)", taken)
        return disk

    # --- the first pull ---------------------------------------------------------------------------------------------

    def start_pull(self, cursor: Cursor) -> None:
        """Forget everything and start at ``cursor``: what is staged under another one is of no use."""
        with self._transaction():
            self._db.execute("DELETE FROM file; DELETE FROM name; DELETE FROM problem;")
            self._db.execute("UPDATE root SET file_count = 0, total_bytes = 0, digest = zeroblob(32), pulled = 0")
            self._db.execute(
                "UPDATE mirror SET revision = 0, history_id = '', pull_phase = 1, pull_revision = ?, "
                "pull_history_id = ?, barrier = 1",
                (cursor.revision, cursor.history_id),
            )
        self._cursor = Cursor(0, "")
        self._load_sums()

    def stage(self, root: str, rows: Sequence[StagedRow], added: TreeSum, problems: Sequence[Problem] = ()) -> None:
        """Files of ``root`` that are staged, or that the store has and cannot be. Each path only once."""
        with self._transaction():
            self._db.executemany(_INSERT, rows)
            self._list(problems)
            self._add({root: added})
        self._load_sums()

    def stage_unordered(self) -> None:
        """From now on files are staged as they come, not by path."""
        with self._transaction():
            self._db.execute("UPDATE mirror SET pull_phase = 3")

    def renamed(self) -> dict[str, str]:
        """Disk path to remote path of every file whose name on disk differs."""
        with storage_errors():
            rows = self._db.execute("SELECT disk_path, path FROM file WHERE disk_path IS NOT NULL")
            return {str(disk): str(path) for disk, path in rows}

    def staged_after(self, root: str) -> str:
        """The last path of ``root`` that was staged; empty when none was."""
        return str(self._one(f"SELECT max(path) FROM file WHERE {_BELOW}", _below(root))[0] or "")

    def passed_barrier(self) -> None:
        """Everything staged up to now is on disk."""
        with self._transaction():
            self._db.execute("UPDATE mirror SET barrier = barrier + 1")

    def staged_since_barrier(self, limit: int, after: str) -> list[FileRow]:
        """What a power cut may have undone, by path."""
        query = (
            f"SELECT {COLUMNS} FROM file WHERE path > ? AND barrier >= (SELECT barrier FROM mirror) "
            "ORDER BY path LIMIT ?"
        )
        with storage_errors():
            return [file_row(row) for row in self._db.execute(query, (after, limit))]

    def unstage(self, paths: Sequence[str]) -> None:
        """Forget staged files that turned out not to be there."""
        self.learn([RemoteFile(path, 0, None) for path in paths], None, forget=True)

    def staged_all(self) -> None:
        """Everything is staged and behind a barrier: from now on files move into place."""
        with self._transaction():
            self._db.execute("UPDATE mirror SET pull_phase = 2, barrier = barrier + 1")

    def finish_pull(self, *, now_us: int) -> None:
        """The files are in place: the journal holds from the revision at which the pull began."""
        with self._transaction():
            self._db.execute(
                "UPDATE mirror SET pull_phase = 0, revision = pull_revision, history_id = pull_history_id, "
                "last_pull_us = ?, last_full_pull_us = ?",
                (now_us, now_us),
            )
        row = self._one("SELECT revision, history_id FROM mirror")
        self._cursor = Cursor(int(row[0]), str(row[1]))

    # --- following --------------------------------------------------------------------------------------------------

    def learn(self, changes: Sequence[RemoteFile], cursor: Cursor | None, *, forget: bool = False) -> list[str]:
        """Take what the store says, in order, and the cursor with it. Returns the paths that are now pending.

        A file that is gone keeps its row, without a remote hash, until it is gone from the disk; with ``forget`` the
        row goes at once.
        """
        newest = {change.path: change for change in changes}
        old = self.load(newest)
        added: dict[str, TreeSum] = {}
        pending: list[str] = []
        with self._transaction():
            for path, change in newest.items():
                root = self._root_of(path)
                if root is None:
                    continue
                added[root] = added.get(root, EMPTY) + _difference(path, old.get(path), change)
                if change.content_hash is None:
                    if self._learn_gone(old.get(path), forget=forget):
                        pending.append(path)
                elif self._learn_file(old.get(path), change):
                    pending.append(path)
            self._add(added)
            if cursor is not None:
                self._db.execute("UPDATE mirror SET revision = ?, history_id = ?", (cursor.revision, cursor.history_id))
        if added:
            self._load_sums()
        if cursor is not None:
            self._cursor = cursor
        return pending

    def settle(self, settled: Sequence[Settled]) -> None:
        """What was written or removed, after it is on disk."""
        written = [each for each in settled if each.disk_hash is not None]
        with self._transaction():
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
            self._db.executemany("DELETE FROM problem WHERE path = ?", [(each.path,) for each in settled])

    def list_problems(self, problems: Sequence[Problem]) -> None:
        """Keep why paths are not on disk; a path has one problem at a time."""
        with self._transaction():
            self._list(problems)
            self._db.executemany("UPDATE file SET state = 5 WHERE path = ?", [(each.path,) for each in problems])

    def try_again(self, paths: Iterable[str]) -> None:
        """Files with a problem are pending again; what is known of the problem stays until it is gone."""
        with self._transaction():
            self._db.executemany("UPDATE file SET state = 2 WHERE state = 5 AND path = ?", [(path,) for path in paths])

    def move_cursor(self, cursor: Cursor) -> None:
        self.learn((), cursor)

    # --- a complete listing -----------------------------------------------------------------------------------------

    def start_listing(self) -> None:
        with storage_errors():
            self._db.execute("CREATE TEMP TABLE IF NOT EXISTS listed (path TEXT PRIMARY KEY) WITHOUT ROWID")
            self._db.execute("DELETE FROM temp.listed")

    def listed(self, paths: Iterable[str]) -> None:
        with self._transaction():
            self._db.executemany("INSERT OR IGNORE INTO temp.listed VALUES (?)", [(path,) for path in paths])

    def unlisted(self, root: str, limit: int) -> list[str]:
        """Paths of ``root`` that the store was thought to have, and that the listing did not name."""
        query = (
            f"SELECT path FROM file WHERE {_BELOW} AND remote_hash IS NOT NULL "
            "AND path NOT IN (SELECT path FROM temp.listed) ORDER BY path LIMIT ?4"
        )
        with storage_errors():
            return [str(row[0]) for row in self._db.execute(query, (*_below(root), limit))]

    def pulled(self, *, now_us: int, full: bool) -> None:
        with self._transaction():
            self._db.execute("UPDATE mirror SET last_pull_us = ?", (now_us,))
            if full:
                self._db.execute("UPDATE mirror SET last_full_pull_us = ?", (now_us,))

    def last_pulls_us(self) -> tuple[int, int]:
        """When the last pull and the last full pull ended well; 0: never."""
        row = self._one("SELECT last_pull_us, last_full_pull_us FROM mirror")
        return int(row[0]), int(row[1])

    # --- inside -----------------------------------------------------------------------------------------------------

    def _learn_gone(self, old: FileRow | None, *, forget: bool) -> bool:
        if old is None:
            return False
        if forget or old.disk_hash is None:
            self._db.execute("DELETE FROM file WHERE path = ?", (old.path,))
            self._db.execute("DELETE FROM problem WHERE path = ?", (old.path,))
            return False
        self._db.execute("UPDATE file SET remote_hash = NULL, size = 0, state = 2 WHERE path = ?", (old.path,))
        return True

    def _learn_file(self, old: FileRow | None, change: RemoteFile) -> bool:
        if old is not None:
            same = old.state in (FileState.MATERIALISED, FileState.PENDING) and old.disk_hash == change.content_hash
            if old.state is FileState.PROBLEM and old.remote_hash == change.content_hash:
                state = FileState.PROBLEM
            elif old.state is FileState.IGNORED:
                state = FileState.IGNORED
            else:
                state = FileState.MATERIALISED if same else FileState.PENDING
            self._db.execute(
                "UPDATE file SET revision = ?, remote_hash = ?, size = ?, state = ? WHERE path = ?",
                (change.revision, change.content_hash, change.size, int(state), change.path),
            )
            return state is FileState.PENDING
        state, disk_path, problem = self._place(change)
        self._db.execute(
            _INSERT,
            (change.path, change.revision, change.content_hash, change.size, int(state), disk_path, *(None,) * 6, 0),
        )
        if problem is not None:
            self._list((problem,))
        return state is FileState.PENDING

    def _place(self, change: RemoteFile) -> tuple[FileState, str | None, Problem | None]:
        if names.is_ignored(change.path):
            return FileState.IGNORED, None, None
        why = names.refusal(change.path)
        if why is not None:
            return FileState.PROBLEM, None, Problem(change.path, "NAME_REFUSED", f"The name {why}.", change.revision)
        disk = self.unfolded(change.path)
        return FileState.PENDING, None if disk == change.path[1:] else disk, None

    def _owner_of(self, folded: str) -> str | None:
        row = self._db.execute("SELECT remote FROM name WHERE folded = ?", (folded,)).fetchone()
        return None if row is None else str(row[0])

    def _root_of(self, path: str) -> str | None:
        for root in self._sums:
            if contains(root, path):
                return root
        return None

    def _add(self, added: dict[str, TreeSum]) -> None:
        for root, more in added.items():
            total = self._sums[root] + more
            self._db.execute(
                "UPDATE root SET file_count = ?, total_bytes = ?, digest = ? WHERE path = ?",
                (total.file_count, total.total_bytes, total.digest_bytes(), root),
            )

    def _list(self, problems: Sequence[Problem]) -> None:
        """Beyond the bound a file's state still says that it has a problem; only the reason is not kept."""
        if not problems:
            return
        room = self._problems_max - self.problem_count()
        if room < len(problems):
            known = {each.path for each in self.problems(self._problems_max)}
            problems = [each for each in problems if each.path in known] + [
                each for each in problems if each.path not in known
            ][: max(0, room)]
        self._db.executemany(
            "INSERT INTO problem (path, reason, message, revision, create_us, attempt_us) "
            "VALUES (?1, ?2, ?3, ?4, ?5, ?5) "
            "ON CONFLICT (path) DO UPDATE SET reason = ?2, message = ?3, revision = ?4, attempt_us = ?5, "
            "attempt_count = attempt_count + 1, create_us = CASE WHEN reason = ?2 THEN create_us ELSE ?5 END",
            [(each.path, each.reason, each.message, each.revision, each.create_time_us) for each in problems],
        )

    def _load_sums(self) -> None:
        with storage_errors():
            self._sums = {
                str(path): TreeSum(int(files), int(size), int.from_bytes(digest, "big") % MODULUS)
                for path, files, size, digest in self._db.execute(
                    "SELECT path, file_count, total_bytes, digest FROM root"
                )
            }

    def _one(self, query: str, bindings: tuple[Value, ...] = ()) -> tuple[Any, ...]:
        with storage_errors():
            row = self._db.execute(query, bindings).fetchone()
        assert row is not None, query
        return tuple(row)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with storage_errors(), self._db:
            yield


def _below(root: str) -> tuple[str, str, str]:
    return (root, *prefix_range(root))


def _difference(path: str, old: FileRow | None, change: RemoteFile) -> TreeSum:
    files = size = digest = 0
    if old is not None and old.remote_hash is not None:
        files, size, digest = -1, -old.size, -element(path, old.remote_hash)
    if change.content_hash is not None:
        files, size, digest = files + 1, size + change.size, digest + element(path, change.content_hash)
    return TreeSum(files, size, digest)
