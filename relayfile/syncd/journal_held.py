"""Contents that were on the disk when a first pull began: where each is, by its hash.

Claims, which somebody else may make untrue at any time: whoever uses one reads the bytes and compares their hash. Kept
for as long as the journal is open.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import apsw

from relayfile.syncd.journal_rows import one, storage_errors, transaction

HASHES_MAX: Final = 1_000_000
"""The store takes no more."""
_PAGE: Final = 8_000


class Held:
    """Hash to place, relative to the mirror's directory."""

    def __init__(self, db: apsw.Connection) -> None:
        self._db = db

    def start(self) -> None:
        """Forget what was held before."""
        with storage_errors():
            self._db.execute("CREATE TEMP TABLE IF NOT EXISTS held (hash BLOB PRIMARY KEY, place TEXT) WITHOUT ROWID")
            self._db.execute("DELETE FROM temp.held")

    def add(self, found: Iterable[tuple[bytes, str]]) -> None:
        """These are on the disk; of equal contents the first is enough."""
        with transaction(self._db):
            self._db.executemany("INSERT OR IGNORE INTO temp.held VALUES (?, ?)", found)

    def count(self) -> int:
        return int(one(self._db, "SELECT count(*) FROM temp.held")[0])

    def hashes(self) -> Iterator[bytes]:
        """All of them, some hundred KiB together at a time, one hash after the other."""
        after = b""
        query = "SELECT hash FROM temp.held WHERE hash > ? ORDER BY hash LIMIT ?"
        while True:
            with storage_errors():
                page = [row[0] for row in self._db.execute(query, (after, _PAGE))]
            if not page:
                return
            yield b"".join(page)
            after = page[-1]

    def places(self, hashes: Sequence[bytes]) -> list[str | None]:
        """Where each is; None where it is not held."""
        with storage_errors():
            query = "SELECT place FROM temp.held WHERE hash = ?"
            return [self._db.execute(query, (each,)).get for each in hashes]
