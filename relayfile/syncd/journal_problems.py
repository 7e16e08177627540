"""Why paths are not as people expect them, listed up to a bound.

A path has at most one problem on its way to the disk (I7), and at most one on its way back: an edit that a provider
refused for good, which stands in the store all the same.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import apsw

from relayfile.syncd.journal_rows import BELOW, one, span, storage_errors, transaction
from relayfile.syncd.rows import Problem

PROBLEMS_MAX: Final = 10_000
"""Problems that are listed for one mirror, unless it is told otherwise."""
_COLUMNS: Final = "path, reason, message, revision, create_us, attempt_count, attempt_us"
_NOT_PUSHED: Final = "('NOT_PUSHED', 'PUSH_REFUSED')"
_ALL: Final = f"(SELECT {_COLUMNS} FROM problem UNION ALL SELECT {_COLUMNS} FROM refused_write)"
_UPSERT: Final = (
    "(path, reason, message, revision, create_us, attempt_us) VALUES (?1, ?2, ?3, ?4, ?5, ?5) "
    "ON CONFLICT (path) DO UPDATE SET reason = ?2, message = ?3, revision = ?4, attempt_us = ?5, "
    "attempt_count = attempt_count + 1, create_us = CASE WHEN reason = ?2 THEN create_us ELSE ?5 END"
)


class Problems:
    """The list of problems in a mirror's journal. Changes are part of the transaction around them."""

    def __init__(self, db: apsw.Connection, listed_max: int) -> None:
        self._db = db
        self._listed_max = listed_max
        self.changes = 0
        """Moves with every change, so that who shows the list knows when to look again."""

    def listed(self, limit: int) -> list[Problem]:
        """By path, the mirror's own (empty path) first."""
        return self.page(None, limit)

    def page(self, after: tuple[str, str] | None, limit: int, *, reason: str = "", below: str = "/") -> list[Problem]:
        """As ``listed``, after a path and reason; only with ``reason``, and only in the directory ``below``."""
        query = f"SELECT {_COLUMNS} FROM {_ALL} WHERE (?4 IS NULL OR (path, reason) > (?4, ?5))"
        query += " AND (?6 = '' OR reason = ?6)"
        if below != "/":
            query += f" AND {BELOW}"
        query += " ORDER BY path, reason LIMIT ?7"
        path, last_reason = after or (None, "")
        with storage_errors():
            rows = self._db.execute(query, (*span(below), path, last_reason, reason, limit))
            return [Problem(*row) for row in rows]

    def count(self) -> int:
        """Paths that are not on disk as the store has them, with the mirror's own trouble."""
        return int(one(self._db, "SELECT count(*) FROM problem")[0])

    def total(self) -> int:
        """Everything that is listed."""
        return int(one(self._db, f"SELECT count(*) FROM {_ALL}")[0])

    def add(self, problems: Sequence[Problem]) -> None:
        """Beyond the bound a file's state still says that it has a problem; only the reason is not kept."""
        self._add("problem", problems)

    def drop(self, paths: Iterable[str]) -> None:
        """The paths are on disk as the store has them."""
        self._drop("problem", paths)

    def on_disk_only(self, limit: int, *, pushable: bool = False) -> list[str]:
        """Places (relative, not remote paths) of what only the disk has: that no workspace can hold, or (``pushable``)
        that might be pushed and is not."""
        which = "IN" if pushable else "NOT IN"
        query = f"SELECT path FROM problem WHERE path <> '' AND path NOT GLOB '/*' AND reason {which} {_NOT_PUSHED} "
        with storage_errors():
            return [str(row[0]) for row in self._db.execute(query + "LIMIT ?", (limit,))]

    def gone(self, paths: Iterable[str]) -> None:
        """What was wrong with these is over."""
        with transaction(self._db):
            self._drop("problem", paths)

    def refused(self, writes: Sequence[Problem]) -> None:
        """Providers refused to take these for good."""
        with transaction(self._db):
            self._add("refused_write", writes)

    def accepted(self, paths: Iterable[str]) -> None:
        """Providers took the newest of these."""
        with transaction(self._db):
            self._drop("refused_write", paths)

    def _add(self, table: str, problems: Sequence[Problem]) -> None:
        if not problems:
            return
        room = self._listed_max - int(one(self._db, f"SELECT count(*) FROM {table}")[0])
        if room < len(problems):
            with storage_errors():
                known = {str(row[0]) for row in self._db.execute(f"SELECT path FROM {table}")}
            problems = [each for each in problems if each.path in known] + [
                each for each in problems if each.path not in known
            ][: max(0, room)]
        self._db.executemany(
            f"INSERT INTO {table} {_UPSERT}",
            [(each.path, each.reason, each.message, each.revision, each.create_time_us) for each in problems],
        )
        self.changes += 1

    def _drop(self, table: str, paths: Iterable[str]) -> None:
        before = self._db.total_changes()
        self._db.executemany(f"DELETE FROM {table} WHERE path = ?", [(path,) for path in paths])
        self.changes += self._db.total_changes() != before
