"""Conflicts of a mirror: each listed, with its kept version, until somebody resolves it."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

import apsw

from relayfile.syncd.journal_rows import BELOW, one, span, storage_errors, transaction
from relayfile.syncd.reconcile import ConflictKind
from relayfile.syncd.rows import Conflict

_COLUMNS: Final = (
    "conflict_id, kind, path, disk_path, kept_name, base_revision, remote_revision, remote_hash, remote_size, "
    "local_hash, local_size, create_us"
)
_BASE: Final = (
    "SELECT CASE WHEN disk_hash IS NULL THEN 0 WHEN disk_hash IS remote_hash THEN revision ELSE base_revision END "
    "FROM file WHERE path = ?"
)


class Conflicts:
    """The list of conflicts in a mirror's journal. Changes are part of the transaction around them."""

    def __init__(self, db: apsw.Connection) -> None:
        self._db = db

    def found(self, conflicts: Sequence[Conflict]) -> None:
        """As ``add``, with what the files' rows know of the revision on which both sides last agreed.

        To be told before what became of the files.
        """
        with storage_errors():
            self.add([replace(each, base_revision=self._base_revision(each.path)) for each in conflicts])

    def add(self, conflicts: Sequence[Conflict]) -> None:
        """A kept version is on the list once: the last that is said of it counts."""
        with transaction(self._db):
            self._db.executemany(
                "DELETE FROM conflict WHERE kept_name = ?", [(each.kept_name,) for each in conflicts if each.kept_name]
            )
            self._db.executemany(
                f"INSERT OR REPLACE INTO conflict ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (
                        each.conflict_id,
                        int(each.kind),
                        each.path,
                        each.disk_path,
                        each.kept_name,
                        each.base_revision,
                        each.remote_revision,
                        each.remote_hash,
                        each.remote_size,
                        each.local_hash,
                        each.local_size,
                        each.create_time_us,
                    )
                    for each in conflicts
                ],
            )

    def drop(self, conflict_ids: Iterable[str]) -> None:
        """They are resolved."""
        with transaction(self._db):
            self._db.executemany("DELETE FROM conflict WHERE conflict_id = ?", [(each,) for each in conflict_ids])

    def get(self, conflict_id: str) -> Conflict | None:
        with storage_errors():
            row = self._db.execute(f"SELECT {_COLUMNS} FROM conflict WHERE conflict_id = ?", (conflict_id,)).fetchone()
        return None if row is None else _conflict(row)

    def page(self, after: tuple[str, str], limit: int, *, below: str = "/") -> list[Conflict]:
        """By remote path and id, after ``after``."""
        query = f"SELECT {_COLUMNS} FROM conflict WHERE {BELOW} AND (path, conflict_id) > (?4, ?5) "
        query += "ORDER BY path, conflict_id LIMIT ?6"
        with storage_errors():
            return [_conflict(row) for row in self._db.execute(query, (*span(below), *after, limit))]

    def kept_names(self) -> set[str]:
        """Of all versions that are kept, below `.relayfile/conflicts/`."""
        with storage_errors():
            return {str(row[0]) for row in self._db.execute("SELECT kept_name FROM conflict WHERE kept_name <> ''")}

    def count(self) -> int:
        return int(one(self._db, "SELECT count(*) FROM conflict")[0])

    def files(self) -> int:
        """Files on disk with the store's version that have a conflict."""
        query = "SELECT count(*) FROM file WHERE state = 1 AND path IN (SELECT path FROM conflict)"
        return int(one(self._db, query)[0])

    def _base_revision(self, path: str) -> int:
        row = self._db.execute(_BASE, (path,)).fetchone()
        return 0 if row is None else int(row[0])


def _conflict(row: tuple[Any, ...]) -> Conflict:
    """A row in the order of the columns; SQLite's types are those of the schema."""
    return Conflict(row[0], ConflictKind(row[1]), *row[2:])
