"""Which file of the journal has which place on disk, and the notes of a scan that compares the two, place by place.

Nearly every path is its own place. The few that are not have an index of their own, so that both ways are cheap.
"""

import json
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any, Final, NamedTuple

import apsw

from relayfile.paths import prefix_range
from relayfile.syncd.journal_rows import COLUMNS, file_row, storage_errors, transaction
from relayfile.syncd.rows import DiskStat, FileRow, FileState

_KNOWN: Final = (
    "SELECT coalesce(disk_path, substr(path, 2)), disk_hash, device, inode, disk_size, mtime_ns, ctime_ns FROM file "
    f"WHERE state <> {int(FileState.IGNORED)} AND "
)


class Known(NamedTuple):
    """What the journal says of a place: what was written there (None: nothing), and the stat that it had then."""

    place: str
    written_hash: bytes | None
    stat: tuple[int, ...] | None
    """In the order of `DiskStat`'s members; plain, because a scan makes one for every file."""


_place = attrgetter("place")


class Found(NamedTuple):
    """A regular file at a place that the journal does not know."""

    place: str
    stat: DiskStat


class Places:
    """Part of a mirror's journal. A place is a disk path."""

    def __init__(self, db: apsw.Connection) -> None:
        self._db = db
        self._scans = 0

    def rows(self, places: Iterable[str]) -> dict[str, FileRow]:
        """The rows of the files that have these places, ignored ones too; by place."""
        found: dict[str, FileRow] = {}
        with storage_errors():
            for place in places:
                for row in self._db.execute(
                    f"SELECT {COLUMNS} FROM file WHERE disk_path = ?1 "
                    f"UNION ALL SELECT {COLUMNS} FROM file WHERE path = '/' || ?1 AND disk_path IS NULL",
                    (place,),
                ):
                    found[place] = file_row(row)
        return found

    def of_files(self, files: Iterable[tuple[int, int]]) -> list[str]:
        """Places of these (device, inode), as they were written or sent. One pass over all rows: not for every edit."""
        wanted = set(files)
        query = "SELECT coalesce(disk_path, substr(path, 2)), device, inode FROM file WHERE inode IN "
        query += "(SELECT value FROM json_each(?))"
        with storage_errors():
            rows = self._db.execute(query, (json.dumps([inode for _, inode in wanted]),))
            return [str(place) for place, device, inode in rows if (device, inode) in wanted]

    def page(self, directory: str, after: str, limit: int) -> list[FileRow]:
        """Rows of remote files below ``directory`` (empty: all), after the remote path ``after``."""
        low, high = prefix_range(self.remote_path(directory) if directory else "/")
        with storage_errors():
            query = f"SELECT {COLUMNS} FROM file WHERE path > ? AND path < ? ORDER BY path LIMIT ?"
            return [file_row(row) for row in self._db.execute(query, (max(low, after), high, limit))]

    def remote_path(self, place: str) -> str:
        """The remote path that a file at ``place`` has, or would have: its directory may be named otherwise there."""
        with storage_errors():
            row = self._db.execute(
                "SELECT path FROM file WHERE disk_path = ?1 UNION ALL "
                "SELECT path FROM file WHERE path = '/' || ?1 AND disk_path IS NULL",
                (place,),
            ).fetchone()
            if row is not None:
                return str(row[0])
            above, _, name = place.rpartition("/")
            while above:
                row = self._db.execute(
                    "SELECT path FROM file WHERE disk_path >= ? AND disk_path < ? LIMIT 1", (above + "/", above + "0")
                ).fetchone()
                if row is not None:
                    depth = above.count("/") + 1
                    return "/".join([*str(row[0]).split("/")[: depth + 1], name])
                above, _, last = above.rpartition("/")
                name = f"{last}/{name}"
        return "/" + place

    # --- a scan -----------------------------------------------------------------------------------------------------

    def known(self, directory: str, after: str, limit: int) -> list[Known]:
        """What the journal has below ``directory`` (empty: anywhere) after the place ``after``, in order of place."""
        low, high = prefix_range(f"/{directory}" if directory else "/")
        if after:
            low = "/" + after
        with storage_errors():
            rows: list[tuple[Any, ...]] = self._db.execute(
                f"{_KNOWN} path > ? AND path < ? AND disk_path IS NULL ORDER BY path LIMIT ?", (low, high, limit)
            ).fetchall()
            named_high = high[1:] if directory else "\U0010ffff"
            rows += self._db.execute(
                f"{_KNOWN} disk_path > ? AND disk_path < ? ORDER BY disk_path LIMIT ?", (low[1:], named_high, limit)
            )
        known = [Known(row[0], row[1], None if row[3] is None else row[2:]) for row in rows]
        known.sort(key=_place)
        return known[:limit]

    def start_scan(self) -> int:
        """Room for the notes of one scan; its number."""
        self._scans += 1
        with storage_errors():
            for table in ("scan_new", "scan_gone"):
                self._db.execute(
                    f"CREATE TEMP TABLE IF NOT EXISTS {table} (scan INTEGER, device INTEGER, inode INTEGER, "
                    "size INTEGER, mtime_ns INTEGER, place TEXT, PRIMARY KEY (scan, device, inode, place)) "
                    "WITHOUT ROWID"
                )
        return self._scans

    def end_scan(self, scan: int) -> None:
        """Forget its notes."""
        with transaction(self._db):
            for table in ("scan_new", "scan_gone"):
                self._db.execute(f"DELETE FROM temp.{table} WHERE scan = ?", (scan,))

    def note(self, scan: int, new: Sequence[Found], gone: Sequence[Found]) -> None:
        """Files that nobody knew, and known ones (with the stat that was written) that are not there."""
        if not new and not gone:
            return
        with transaction(self._db):
            for table, noted in (("scan_new", new), ("scan_gone", gone)):
                self._db.executemany(
                    f"INSERT OR IGNORE INTO temp.{table} VALUES (?, ?, ?, ?, ?, ?)",
                    [
                        (scan, each.stat.device, each.stat.inode, each.stat.size, each.stat.mtime_ns, each.place)
                        for each in noted
                    ],
                )

    def take_moves(self, scan: int, limit: int) -> list[tuple[str, str]]:
        """Files that are gone here and new there, the same inode with the same size and time: renamed."""
        pairs: dict[str, str] = {}
        taken: set[str] = set()
        keys: list[tuple[int, int, str, str]] = []
        with transaction(self._db):
            for device, inode, gone, new in self._db.execute(
                "SELECT new.device, new.inode, gone.place, new.place FROM temp.scan_new AS new "
                "JOIN temp.scan_gone AS gone USING (scan, device, inode, size, mtime_ns) WHERE scan = ? LIMIT ?",
                (scan, limit),
            ):
                if gone not in pairs and new not in taken:
                    pairs[gone] = new
                    taken.add(new)
                    keys.append((device, inode, gone, new))
            self._forget("scan_gone", scan, [(device, inode, gone) for device, inode, gone, _ in keys])
            self._forget("scan_new", scan, [(device, inode, new) for device, inode, _, new in keys])
        return sorted(pairs.items())

    def take_rest(self, scan: int, limit: int) -> list[str]:
        """What is new or gone and was not renamed, in no order."""
        places: list[str] = []
        with transaction(self._db):
            for table in ("scan_gone", "scan_new"):
                keys: list[tuple[Any, ...]] = self._db.execute(
                    f"SELECT device, inode, place FROM temp.{table} WHERE scan = ? LIMIT ?", (scan, limit - len(places))
                ).fetchall()
                self._forget(table, scan, keys)
                places += [place for _, _, place in keys]
        return places

    def _forget(self, table: str, scan: int, keys: Iterable[tuple[Any, ...]]) -> None:
        self._db.executemany(
            f"DELETE FROM temp.{table} WHERE scan = ? AND device = ? AND inode = ? AND place = ?",
            [(scan, *key) for key in keys],
        )
