"""How far a mirror's first pull is: what is staged, up to which barrier it is on disk, and from which revision it is.

Rows of staged files are written with the sums over them, so that a pull that was killed goes on where it was.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import apsw

from relayfile.syncd.digest import EMPTY, TreeSum, element
from relayfile.syncd.journal_held import Held
from relayfile.syncd.journal_problems import Problems
from relayfile.syncd.journal_rows import (
    BELOW,
    COLUMNS,
    StagedRow,
    durable,
    file_row,
    insert,
    load,
    one,
    span,
    storage_errors,
    transaction,
)
from relayfile.syncd.journal_standing import Standing
from relayfile.syncd.rows import Cursor, FileRow, Problem


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


class FirstPull:
    """The first pull in a mirror's journal."""

    def __init__(self, db: apsw.Connection, standing: Standing, problems: Problems) -> None:
        self._db = db
        self._standing = standing
        self._problems = problems
        self.held = Held(db)

    def mark(self) -> PullMark:
        phase, revision, history_id, barrier = one(
            self._db, "SELECT pull_phase, pull_revision, pull_history_id, barrier FROM mirror"
        )
        return PullMark(PullPhase(phase), Cursor(int(revision), str(history_id)), int(barrier))

    def start(self, cursor: Cursor) -> None:
        """Forget everything and start at ``cursor``: what is staged under another one is of no use."""
        with transaction(self._db):
            self._db.execute("DELETE FROM file; DELETE FROM name; DELETE FROM problem;")
            self._db.execute("UPDATE root SET file_count = 0, total_bytes = 0, digest = zeroblob(32), pulled = 0")
            self._db.execute(
                "UPDATE mirror SET revision = 0, history_id = '', pull_phase = 1, pull_revision = ?, "
                "pull_history_id = ?, barrier = 1",
                (cursor.revision, cursor.history_id),
            )
        self._standing.load()

    def stage(self, root: str, rows: Sequence[StagedRow], added: TreeSum, problems: Sequence[Problem] = ()) -> None:
        """Files of ``root`` that are staged, or that the store has and cannot be. Each path only once."""
        with transaction(self._db):
            insert(self._db, rows)
            self._problems.add(problems)
            self._standing.add({root: added})
        self._standing.load()

    def stage_unordered(self) -> None:
        """From now on files are staged as they come, not by path."""
        with transaction(self._db):
            self._db.execute("UPDATE mirror SET pull_phase = 3")

    def staged_after(self, root: str) -> str:
        """The last path of ``root`` that was staged; empty when none was."""
        return str(one(self._db, f"SELECT max(path) FROM file WHERE {BELOW}", span(root))[0] or "")

    def passed_barrier(self) -> None:
        """Everything staged up to now is on disk, and so is the journal of it when this returns."""
        with durable(self._db), transaction(self._db):
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
        lost: dict[str, TreeSum] = {}
        for path, row in load(self._db, paths).items():
            root = self._standing.root_of(path)
            assert root is not None, path
            assert row.remote_hash is not None, path
            lost[root] = lost.get(root, EMPTY) + TreeSum(-1, -row.size, -element(path, row.remote_hash))
        with transaction(self._db):
            self._db.executemany("DELETE FROM file WHERE path = ?", [(path,) for path in paths])
            self._problems.drop(paths)
            self._standing.add(lost)
        self._standing.load()

    def staged_all(self) -> None:
        """Everything is staged and behind a barrier: from now on files move into place. Durable."""
        with durable(self._db), transaction(self._db):
            self._db.execute("UPDATE mirror SET pull_phase = 2, barrier = barrier + 1")

    def renamed(self) -> dict[str, str]:
        """Disk path to remote path of every file whose name on disk differs."""
        with storage_errors():
            rows = self._db.execute("SELECT disk_path, path FROM file WHERE disk_path IS NOT NULL")
            return {str(disk): str(path) for disk, path in rows}

    def has_named(self, name: str) -> bool:
        """Whether a file is called ``name``, in whatever directory."""
        query = "SELECT EXISTS (SELECT 1 FROM file WHERE substr(path, -length(?1)) = ?1)"
        return bool(one(self._db, query, ("/" + name,))[0])

    def finish(self, *, now_us: int) -> None:
        """The files are in place: the journal holds from the revision at which the pull began."""
        with transaction(self._db):
            self._db.execute(
                "UPDATE mirror SET pull_phase = 0, revision = pull_revision, history_id = pull_history_id, "
                "last_pull_us = ?, last_full_pull_us = ?",
                (now_us, now_us),
            )
        self._standing.load()
