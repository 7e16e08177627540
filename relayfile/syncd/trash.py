"""What remote changes replaced or removed, kept for a while (I5): bounded by age and bytes, oldest out first.

Bytes that the store has not acknowledged are never evicted; today everything in the trash came from the store.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import apsw

from relayfile.syncd.apply import Trashed
from relayfile.syncd.journal_rows import storage_errors

_REPLACED, _DELETED = 1, 2  # relayfile.v1.TrashReason


class Trash:
    """The list of what is in `.relayfile/trash/`, in the mirror's journal."""

    def __init__(self, db: apsw.Connection) -> None:
        self._db = db

    def add(self, trashed: Sequence[Trashed], now_us: int) -> None:
        """Tell of files that are in the trash now."""
        if not trashed:
            return
        with storage_errors(), self._db:
            self._db.executemany(
                "INSERT OR REPLACE INTO trash VALUES (?, ?, ?, ?, ?, ?, ?, ?, 1, ?)",
                [
                    (
                        each.trash_id,
                        _REPLACED if each.replaced else _DELETED,
                        each.path,
                        each.disk_path,
                        each.name,
                        each.content_hash,
                        each.size,
                        each.revision,
                        now_us,
                    )
                    for each in trashed
                ],
            )
            self._db.execute(
                "UPDATE mirror SET trash_count = trash_count + ?, trash_bytes = trash_bytes + ?",
                (len(trashed), sum(each.size for each in trashed)),
            )

    def take_in(self, found: Mapping[str, int], now_us: int) -> None:
        """List what is in the directory (name to bytes) and not on the list: a kill came between the two."""
        with storage_errors(), self._db:
            known = {str(row[0]) for row in self._db.execute("SELECT name FROM trash")}
            strays = {name: size for name, size in found.items() if name not in known}
            self._db.executemany(
                "INSERT INTO trash VALUES (?, ?, '', '', ?, zeroblob(0), ?, 0, 1, ?)",
                [(f"{now_us:020}-{name}", _REPLACED, name, size, now_us) for name, size in strays.items()],
            )
            self._db.execute("UPDATE mirror SET trash_count = (SELECT count(*) FROM trash)")
            self._db.execute("UPDATE mirror SET trash_bytes = (SELECT coalesce(sum(size), 0) FROM trash)")

    def totals(self) -> tuple[int, int]:
        """Entries and bytes."""
        with storage_errors():
            count, size = self._db.execute("SELECT trash_count, trash_bytes FROM mirror").fetchone() or (0, 0)
        return int(count), int(size)

    def evict(self, bytes_max: int, made_before_us: int, limit: int) -> list[str]:
        """Take the oldest entries off the list, up to ``limit``, while it is too large or they are too old.

        Returns their names, to be removed from the disk; a name that stays behind after a kill is swept at start.
        """
        _, size = self.totals()
        evicted: list[tuple[str, str, int]] = []
        with storage_errors(), self._db:
            rows: list[tuple[Any, ...]] = self._db.execute(
                "SELECT trash_id, name, size, create_us FROM trash WHERE acknowledged ORDER BY trash_id LIMIT ?",
                (limit,),
            ).fetchall()
            for trash_id, name, entry_bytes, made_us in rows:
                if size <= bytes_max and made_us >= made_before_us:
                    break
                evicted.append((str(trash_id), str(name), int(entry_bytes)))
                size -= entry_bytes
            self._db.executemany("DELETE FROM trash WHERE trash_id = ?", [(trash_id,) for trash_id, _, _ in evicted])
            self._db.execute(
                "UPDATE mirror SET trash_count = trash_count - ?, trash_bytes = trash_bytes - ?",
                (len(evicted), sum(entry_bytes for _, _, entry_bytes in evicted)),
            )
        return [name for _, name, _ in evicted]
