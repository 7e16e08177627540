"""A listing of the store being held against the journal: what it named, and so what the store no longer has."""

from collections.abc import Iterable
from typing import cast

import apsw

from relayfile.paths import prefix_range
from relayfile.syncd.journal_rows import BELOW, SPAN_AFTER, span, span_after, storage_errors, transaction


class Listing:
    """The paths that a listing named; kept for as long as the journal is open, one listing at a time."""

    def __init__(self, db: apsw.Connection) -> None:
        self._db = db

    def start(self) -> None:
        """Forget the one before."""
        with storage_errors():
            self._db.execute("CREATE TEMP TABLE IF NOT EXISTS listed (path TEXT PRIMARY KEY) WITHOUT ROWID")
            self._db.execute("DELETE FROM temp.listed")

    def named(self, paths: Iterable[str]) -> None:
        """The listing has these."""
        with transaction(self._db):
            self._db.executemany("INSERT OR IGNORE INTO temp.listed VALUES (?)", [(path,) for path in paths])

    def hashes(self, below: str, after: str, limit: int) -> list[tuple[str, bytes, int]]:
        """(path, hash, size) of what the store has at and below a path, by path."""
        query = f"SELECT path, remote_hash, size FROM file WHERE {SPAN_AFTER} AND remote_hash IS NOT NULL "
        query += "ORDER BY path LIMIT ?5"
        with storage_errors():
            rows = self._db.execute(query, (*span_after(below, after), limit)).fetchall()
        return cast("list[tuple[str, bytes, int]]", rows)  # as in the schema; not copied, there may be very many

    def entries_in(self, directory: str, first: str, limit: int) -> tuple[list[tuple[str, bytes]], list[str], str]:
        """(path, hash) of files directly in a directory, names of directories in it, and where to go on.

        By path, from ``first`` on. Where to go on is empty at the end.
        """
        low, high = prefix_range(directory)
        query = (
            "SELECT path, remote_hash FROM file WHERE path >= ? AND path < ? AND remote_hash IS NOT NULL ORDER BY path"
        )
        start = len(directory) + (directory != "/")
        found: list[tuple[str, bytes]] = []
        directories: list[str] = []
        with storage_errors():
            while True:
                skip = ""
                for row in self._db.execute(query, (max(low, first), high)):
                    slash = row[0].find("/", start)
                    if slash >= 0:
                        directories.append(row[0][start:slash])
                        skip = row[0][:slash] + "0"  # behind everything in that directory, before anything else
                        break
                    found.append(row)
                    if len(found) >= limit:
                        return found, directories, row[0] + "\0"
                if not skip:
                    return found, directories, ""
                first = skip
                if len(directories) >= limit:
                    return found, directories, first

    def unnamed(self, root: str, limit: int) -> list[str]:
        """Paths of ``root`` that the store was thought to have, and that the listing did not name."""
        query = (
            f"SELECT path FROM file WHERE {BELOW} AND remote_hash IS NOT NULL "
            "AND path NOT IN (SELECT path FROM temp.listed) ORDER BY path LIMIT ?4"
        )
        with storage_errors():
            return [str(row[0]) for row in self._db.execute(query, (*span(root), limit))]
