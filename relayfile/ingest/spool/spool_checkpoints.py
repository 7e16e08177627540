"""Writing the spool's log back into its file, beside the transactions.

The disk takes 20 to 100 ms for a long log, and who waits for a transaction would wait for that too. So it goes on in a
thread and on a connection of its own while transactions are written, again for what they added meanwhile, until little
is left; that the writer does between two transactions, so that the next one begins the log anew.

Owns when that is, and the thread. Used by the writer's thread alone; what failed is raised there, as apsw does, or
told at the end.
"""

import contextlib
from concurrent.futures import Future
from typing import Final

import apsw

from relayfile.threads import started_threads

NEAR_PAGES: Final = 128
"""When no more is left to write back, the writer does it: 1 MiB, a few milliseconds."""
BEGIN_PART: Final = 2
"""A log of this part of its bound begins to be written back."""


class SpoolCheckpoints:
    """Of one file."""

    def __init__(self, connection: apsw.Connection, log_pages_max: int) -> None:
        """`connection` is used and closed here. A log of `log_pages_max` is written back before anything else is."""
        self._connection = connection
        self._log_pages_max = log_pages_max
        self._thread = started_threads(1, "spool-checkpoint")
        self._running: Future[int] | None = None
        """Gives how many pages of the log are in the file."""

    def begin(self, log_pages: int) -> None:
        """After a transaction: write the log back beside the next ones, if it is long."""
        if self._running is None and log_pages >= self._log_pages_max // BEGIN_PART:
            self._running = self._thread.submit(_write_back, self._connection)

    def is_near(self, log_pages: int) -> bool:
        """Before a transaction: whether the writer itself is to write back what is left of the log now."""
        if self._running is None or not (self._running.done() or log_pages >= self._log_pages_max):
            return False
        left = log_pages - self._end()
        if left <= NEAR_PAGES or log_pages >= self._log_pages_max:
            return True
        self.begin(log_pages)
        return False

    def rest(self) -> None:
        """Return when nothing runs."""
        if self._running is not None:
            self._end()

    def close(self) -> BaseException | None:
        """End; what failed since it was asked for last. What was committed stays in the log."""
        self._thread.shutdown()
        self._connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        self._connection.close()
        return None if self._running is None else self._running.exception()

    def _end(self) -> int:
        assert self._running is not None
        ended, self._running = self._running, None
        return ended.result()


def write_back(connection: apsw.Connection) -> tuple[int, int]:
    """(pages in the log, pages of them that are in the file), as far as readers and the disk allow."""
    # Not SQLite's own, inside a commit: it would hide that its fsync failed, and what follows in the log would be
    # acknowledged behind a hole.
    with contextlib.suppress(apsw.FullError, apsw.BusyError):
        return connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
    return 1, 0  # What was committed stays in the log; it is tried again after the next commit.


def _write_back(connection: apsw.Connection) -> int:
    return write_back(connection)[1]
