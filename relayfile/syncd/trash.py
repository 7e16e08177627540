"""What remote changes replaced or removed, kept for a while (I5): bounded by age and bytes, oldest out first.

Bytes that the store has not acknowledged are never evicted.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import apsw

from relayfile.syncd.apply import Trashed
from relayfile.syncd.journal_rows import storage_errors, transaction
from relayfile.syncd.rows import TrashReason

_COLUMNS: Final = (
    "trash_id, reason, remote_path, local_path, name, content_sha256, size, revision, acknowledged, create_us"
)
_STRAY_HEX: Final = 16


@dataclass(frozen=True, slots=True)
class TrashEntry:
    """A file in the trash."""

    trash_id: str
    reason: TrashReason
    path: str
    """In the workspace; empty when it was never there, or that is not known."""
    disk_path: str
    """Where it was; empty when that is not known."""
    name: str
    """Below `.relayfile/trash/`."""
    content_hash: bytes
    """Empty when it is not known."""
    size: int
    revision: int
    acknowledged: bool
    create_time_us: int


@dataclass(frozen=True, slots=True)
class Stray:
    """A file that is in the trash's directory and on no list."""

    name: str
    size: int
    content_hash: bytes
    """Empty when it cannot be told."""
    acknowledged: bool
    """These bytes are what the store has, or had, of some file: what nobody listed may be a user's only copy."""


class Trash:
    """The list of what is in `.relayfile/trash/`, in the mirror's journal."""

    def __init__(self, db: apsw.Connection) -> None:
        self._db = db

    def add(self, trashed: Sequence[Trashed], now_us: int) -> None:
        """Tell of files that are in the trash now."""
        if not trashed:
            return
        with transaction(self._db):
            self._put([(each, now_us) for each in trashed])
            self._db.execute(
                "UPDATE mirror SET trash_count = trash_count + ?, trash_bytes = trash_bytes + ?",
                (len(trashed), sum(each.size for each in trashed)),
            )

    def unlisted(self, found: Mapping[str, int]) -> list[str]:
        """Take off the list what is not in the directory (``found``: name to bytes). Returns what is only there."""
        with storage_errors():
            known = {str(row[0]): str(row[1]) for row in self._db.execute("SELECT name, trash_id FROM trash")}
        gone = [trash_id for name, trash_id in known.items() if name not in found]
        if gone:
            self.forget(gone)
        return [name for name in found if name not in known]

    def agreed(self, hashes: Collection[bytes], after: str, limit: int) -> tuple[set[bytes], str]:
        """Those that the journal knows as a version that the store has, or had when both sides last agreed.

        Only what the next ``limit`` rows after the path ``after`` say, and the last of these; empty: it was the last.
        """
        query = "SELECT path, remote_hash, disk_hash FROM file WHERE path > ? ORDER BY path LIMIT ?"
        with storage_errors():
            rows = self._db.execute(query, (after, limit)).fetchall()
        found = {each for row in rows for each in row[1:] if isinstance(each, bytes) and each in hashes}
        return found, str(rows[-1][0]) if len(rows) == limit else ""

    def add_strays(self, strays: Sequence[Stray], now_us: int) -> None:
        """List what a kill left in the directory and on no list."""
        with transaction(self._db):
            self._db.executemany(
                f"INSERT INTO trash ({_COLUMNS}) VALUES (?, ?, '', '', ?, ?, ?, 0, ?, ?)",
                [
                    (
                        _stray_id(each.name, now_us),
                        int(TrashReason.OVERWRITTEN),
                        each.name,
                        each.content_hash,
                        each.size,
                        each.acknowledged,
                        now_us,
                    )
                    for each in strays
                ],
            )
            self._count()

    def totals(self) -> tuple[int, int]:
        """Entries and bytes."""
        with storage_errors():
            count, size = self._db.execute("SELECT trash_count, trash_bytes FROM mirror").fetchone() or (0, 0)
        return int(count), int(size)

    def page(
        self, before: tuple[int, str] | None, limit: int, *, below: str = "", reason: TrashReason | None = None
    ) -> list[TrashEntry]:
        """Newest first, those older than ``before`` (time and id); only what was in the directory ``below``."""
        query = f"SELECT {_COLUMNS} FROM trash WHERE (?1 IS NULL OR (create_us, trash_id) < (?1, ?2))"
        query += " AND (?3 = '' OR local_path = ?3 OR (local_path >= ?3 || '/' AND local_path < ?3 || '0'))"
        query += " AND (?4 IS NULL OR reason = ?4) ORDER BY create_us DESC, trash_id DESC LIMIT ?5"
        create_us, trash_id = before or (None, "")
        with storage_errors():
            rows = self._db.execute(
                query, (create_us, trash_id, below, None if reason is None else int(reason), limit)
            ).fetchall()
        return [_entry(row) for row in rows]

    def load(self, trash_ids: Iterable[str]) -> dict[str, TrashEntry]:
        """Those of the entries that are there, by id."""
        found: dict[str, TrashEntry] = {}
        with storage_errors():
            for trash_id in trash_ids:
                for row in self._db.execute(f"SELECT {_COLUMNS} FROM trash WHERE trash_id = ?", (trash_id,)):
                    found[trash_id] = _entry(row)
        return found

    def forget(self, trash_ids: Iterable[str]) -> None:
        """The entries are in the trash no longer."""
        with transaction(self._db):
            self._db.executemany("DELETE FROM trash WHERE trash_id = ?", [(each,) for each in trash_ids])
            self._count()

    def evict(self, bytes_max: int, made_before_us: int, limit: int) -> list[TrashEntry]:
        """Take the oldest entries off the list, up to ``limit``, while it is too large or they are too old.

        Returns them, to be removed from the disk; what stays behind after a kill is listed anew at start.
        """
        _, size = self.totals()
        evicted: list[TrashEntry] = []
        with transaction(self._db):
            for row in self._db.execute(
                f"SELECT {_COLUMNS} FROM trash WHERE acknowledged ORDER BY trash_id LIMIT ?", (limit,)
            ):
                entry = _entry(row)
                if size <= bytes_max and entry.create_time_us >= made_before_us:
                    break
                evicted.append(entry)
                size -= entry.size
            self._db.executemany("DELETE FROM trash WHERE trash_id = ?", [(each.trash_id,) for each in evicted])
            self._db.execute(
                "UPDATE mirror SET trash_count = trash_count - ?, trash_bytes = trash_bytes - ?",
                (len(evicted), sum(each.size for each in evicted)),
            )
        return evicted

    def keep(self, entries: Sequence[TrashEntry]) -> None:
        """These stay after all, as they are now."""
        if not entries:
            return
        with transaction(self._db):
            self._put([(each, each.create_time_us) for each in entries])
            self._count()

    def _put(self, timed: Iterable[tuple[Trashed | TrashEntry, int]]) -> None:
        """List files, each with the time since when it is in the trash."""
        self._db.executemany(
            f"INSERT OR REPLACE INTO trash ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    each.trash_id,
                    int(each.reason),
                    each.path,
                    each.disk_path,
                    each.name,
                    each.content_hash,
                    each.size,
                    each.revision,
                    each.acknowledged,
                    since_us,
                )
                for each, since_us in timed
            ],
        )

    def _count(self) -> None:
        self._db.execute("UPDATE mirror SET trash_count = (SELECT count(*) FROM trash)")
        self._db.execute("UPDATE mirror SET trash_bytes = (SELECT coalesce(sum(size), 0) FROM trash)")


def _stray_id(name: str, now_us: int) -> str:
    """As long as other ids at most; sorted before them, so that what nobody listed is the first to go."""
    return f"{now_us:020}-{hashlib.sha256(name.encode()).hexdigest()[:_STRAY_HEX]}"


def _entry(row: tuple[Any, ...]) -> TrashEntry:
    trash_id, reason, path, disk_path, name, content_hash, size, revision, acknowledged, create_us = row
    return TrashEntry(
        trash_id,
        TrashReason(reason),
        path,
        disk_path,
        name,
        content_hash,
        size,
        revision,
        bool(acknowledged),
        create_us,
    )
