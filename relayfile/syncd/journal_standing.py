"""Where the remote side of a journal stands: at which cursor, and for each remote path what it sums up to there."""

from collections.abc import Mapping

import apsw

from relayfile.paths import contains
from relayfile.syncd.digest import MODULUS, TreeSum
from relayfile.syncd.journal_rows import one, storage_errors
from relayfile.syncd.rows import Cursor


class Standing:
    """Read once and kept beside the database: whoever changes it there calls ``load`` after the commit."""

    def __init__(self, db: apsw.Connection) -> None:
        self._db = db
        self.load()

    def load(self) -> None:
        """Read what is committed."""
        revision, history_id = one(self._db, "SELECT revision, history_id FROM mirror")
        with storage_errors():
            self.sums = {
                str(path): TreeSum(int(files), int(size), int.from_bytes(digest, "big") % MODULUS)
                for path, files, size, digest in self._db.execute(
                    "SELECT path, file_count, total_bytes, digest FROM root"
                )
            }
        self.cursor = Cursor(int(revision), str(history_id))

    def root_of(self, path: str) -> str | None:
        """The mirror's remote path that holds ``path``."""
        for root in self.sums:
            if contains(root, path):
                return root
        return None

    def add(self, added: Mapping[str, TreeSum]) -> None:
        """Part of the transaction that changes the rows."""
        for root, more in added.items():
            total = self.sums[root] + more
            self._db.execute(
                "UPDATE root SET file_count = ?, total_bytes = ?, digest = ? WHERE path = ?",
                (total.file_count, total.total_bytes, total.digest_bytes(), root),
            )
