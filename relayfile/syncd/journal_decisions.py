"""Deletes that wait for somebody's decision (I4), and those that were approved, over restarts.

What is pending says what would be deleted; this says whether somebody has looked at it. An approval is of files, not of
a number: what comes to be deleted later needs another one.
"""

import hashlib
from collections import Counter
from collections.abc import Container
from dataclasses import dataclass
from typing import Final

import apsw

from relayfile.paths import ancestors
from relayfile.syncd.journal_rows import UNSETTLED, storage_errors, transaction

SAMPLE_MAX: Final = 100
_PLAN_HEX: Final = 32
_DOOMED: Final = (
    f"SELECT path, disk_hash, coalesce(disk_size, 0) FROM {UNSETTLED} "
    "WHERE state <> 1 AND state = 2 AND remote_hash IS NULL "
    "AND NOT EXISTS (SELECT 1 FROM approved_delete a WHERE a.path = file.path AND a.disk_hash IS file.disk_hash) "
    "ORDER BY path"
)


@dataclass(frozen=True, slots=True)
class Doomed:
    """What a plan would delete and nobody approved."""

    plan_id: str
    """Made of the files, moved ones included: the same plan has the same id after a restart."""
    count: int
    """Without moved ones: their content lives on."""
    size: int
    sample: tuple[str, ...]
    files_below: Counter[str]
    """For every directory, how many of its files."""


class Decisions:
    """In a mirror's journal."""

    def __init__(self, db: apsw.Connection) -> None:
        self._db = db

    def doomed(self, moved: Container[str] = ()) -> Doomed:
        """Files that the store no longer has, that are on disk and not approved. ``moved`` are not counted."""
        mark = hashlib.sha256()
        count = size = 0
        sample: list[str] = []
        below: Counter[str] = Counter()
        with storage_errors():
            for path, disk_hash, disk_size in self._db.execute(_DOOMED):
                mark.update(path.encode() + b"\0" + (disk_hash or b"") + b"\0")
                if path in moved:
                    continue
                count += 1
                size += disk_size
                below.update(ancestors(path))
                if len(sample) < SAMPLE_MAX:
                    sample.append(path)
        return Doomed(f"deletes-{mark.hexdigest()[:_PLAN_HEX]}", count, size, tuple(sample), below)

    def wait_for(self, plan_id: str, rule: str, now_us: int) -> int:
        """A plan waits for a decision; since when it does (microseconds), also if that was before a restart."""
        with transaction(self._db):
            self._db.execute(
                "INSERT INTO delete_plan (id, plan_id, rule, create_us) VALUES (1, ?1, ?2, ?3) ON CONFLICT (id) "
                "DO UPDATE SET create_us = CASE WHEN plan_id = ?1 THEN create_us ELSE ?3 END, plan_id = ?1, rule = ?2",
                (plan_id, rule, now_us),
            )
        waiting = self.waiting()
        assert waiting is not None, "it was just kept"
        return waiting[2]

    def waiting(self) -> tuple[str, str, int] | None:
        """(id, rule, since when) of the plan that waits for a decision, if one does."""
        with storage_errors():
            row = self._db.execute("SELECT plan_id, rule, create_us FROM delete_plan").fetchone()
        return None if row is None else (str(row[0]), str(row[1]), int(row[2]))

    def approve(self) -> None:
        """All deletes that are pending now may be carried out; no plan waits any more."""
        with transaction(self._db):
            self._db.execute(
                f"INSERT OR REPLACE INTO approved_delete SELECT path, disk_hash FROM {UNSETTLED} "
                "WHERE state <> 1 AND state = 2 AND remote_hash IS NULL"
            )
            self._db.execute("DELETE FROM delete_plan")

    def done(self) -> None:
        """Nothing is left to delete: approvals are used up, and no plan waits."""
        with transaction(self._db):
            self._db.execute("DELETE FROM approved_delete")
            self._db.execute("DELETE FROM delete_plan")
