"""A listing of the store being held against the journal: what it named, and so what the store no longer has."""

from collections.abc import Iterable
from typing import cast

import apsw

from relayfile.syncd.journal_rows import BELOW, span, storage_errors, transaction


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
        query = f"SELECT path, remote_hash, size FROM file WHERE {BELOW} AND path > ?4 AND remote_hash IS NOT NULL "
        query += "ORDER BY path LIMIT ?5"
        with storage_errors():
            rows = self._db.execute(query, (*span(below), after, limit)).fetchall()
        return cast("list[tuple[str, bytes, int]]", rows)  # as in the schema; not copied, there may be very many

    def files_in(self, directory: str, first: str, limit: int) -> tuple[list[tuple[str, bytes]], str]:
        """(path, hash) of files directly in a directory, by path, from ``first`` on; and where to go on.

        That is empty at the end.
        """
        query = f"SELECT path, remote_hash FROM file WHERE {BELOW} AND path >= ?4 AND remote_hash IS NOT NULL"
        query += " ORDER BY path"
        start = len(directory) + (directory != "/")
        found: list[tuple[str, bytes]] = []
        with storage_errors():
            while True:
                skip = ""
                for path, content_hash in self._db.execute(query, (*span(directory), first)):
                    slash = path.find("/", start)
                    if slash >= 0:
                        skip = path[:slash] + "0"  # behind everything in that directory, before anything else
                        break
                    found.append((path, content_hash))
                    if len(found) >= limit:
                        return found, path + "\0"
                if not skip:
                    return found, ""
                first = skip

    def unnamed(self, root: str, limit: int) -> list[str]:
        """Paths of ``root`` that the store was thought to have, and that the listing did not name."""
        query = (
            f"SELECT path FROM file WHERE {BELOW} AND remote_hash IS NOT NULL "
            "AND path NOT IN (SELECT path FROM temp.listed) ORDER BY path LIMIT ?4"
        )
        with storage_errors():
            return [str(row[0]) for row in self._db.execute(query, (*span(root), limit))]
