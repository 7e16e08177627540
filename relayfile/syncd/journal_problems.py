"""Why paths are not on disk as the store has them (I7): one problem a path, listed up to a bound."""

from collections.abc import Iterable, Sequence
from typing import Final

import apsw

from relayfile.syncd.journal_rows import one, storage_errors
from relayfile.syncd.rows import Problem

PROBLEMS_MAX: Final = 10_000
"""Problems that are listed for one mirror, unless it is told otherwise."""


class Problems:
    """The list of problems in a mirror's journal. Changes are part of the transaction around them."""

    def __init__(self, db: apsw.Connection, listed_max: int) -> None:
        self._db = db
        self._listed_max = listed_max

    def listed(self, limit: int) -> list[Problem]:
        """By path, the mirror's own (empty path) first."""
        query = "SELECT path, reason, message, revision, create_us, attempt_count FROM problem ORDER BY path LIMIT ?"
        with storage_errors():
            return [Problem(*row) for row in self._db.execute(query, (limit,))]

    def count(self) -> int:
        return int(one(self._db, "SELECT count(*) FROM problem")[0])

    def add(self, problems: Sequence[Problem]) -> None:
        """Beyond the bound a file's state still says that it has a problem; only the reason is not kept."""
        if not problems:
            return
        room = self._listed_max - self.count()
        if room < len(problems):
            known = {each.path for each in self.listed(self._listed_max)}
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

    def drop(self, paths: Iterable[str]) -> None:
        """The paths have none any more."""
        self._db.executemany("DELETE FROM problem WHERE path = ?", [(path,) for path in paths])
