"""Writing the log back into the file, beside the writer.

A long log takes the disk 50 to 150 ms to write back. That goes on beside the commits, on a connection and in a thread
of its own, and so does what they added meanwhile, until little is left: the next transaction waits a few milliseconds
for that, and without readers of old pages the log then begins anew.

Owns when that is and the thread. Refuses to say what a failure means: whoever waits next gets it as it is.
"""

import asyncio
from pathlib import Path

import apsw

from relayfile.store.sqlite.connection import open_writer
from relayfile.threads import started_threads

CACHE_BYTES = 64 << 10
PAGE_BYTES = 4096
ALONE_BYTES_MAX = 256 << 10
"""When no more than this is left to write back, the next transaction waits for it."""
RESTART_TIMEOUT_MS = 200


class Checkpoints:
    """Of one file. Used from the event loop."""

    def __init__(self, path: Path, log_bytes_max: int) -> None:
        """The log stays below `log_bytes_max`: half of it begins a checkpoint, five eighths wait for its end, and for
        readers of old pages too."""
        self._connection = open_writer(path, CACHE_BYTES)
        self._log_bytes_max = log_bytes_max
        self._thread = started_threads(1, "store-checkpoint")
        self._running: asyncio.Future[int] | None = None
        """Gives how many bytes of the log are in the file."""
        self._is_alone = False
        """The writer must rest until it has ended."""

    def begin(self, log_bytes: int) -> None:
        """After a commit: write back what is in the log, if it is long, while the writer goes on."""
        if self._running is None and self._is_long(log_bytes):
            self._start(alone=False, log_bytes=log_bytes)

    async def settle(self, log_bytes: int, *, last: bool = False) -> None:
        """Before a transaction, while nobody writes: end what has come far enough. Raises what failed, as apsw does.

        With `last` nothing runs any more on return. A caller that is cancelled leaves the rest to the next one.
        """
        if self._running is None:
            return
        if not (last or self._is_alone or self._running.done() or self._is_too_long(log_bytes)):
            return
        was_alone, written_bytes = self._is_alone, await self._end()
        if last or was_alone or not self._is_long(log_bytes):
            return
        is_near = log_bytes - written_bytes <= ALONE_BYTES_MAX or self._is_too_long(log_bytes)
        self._start(alone=is_near, log_bytes=log_bytes)
        if is_near:
            await self._end()

    def close(self) -> None:
        """After the last `settle`. The writer is closed later: whoever closes last writes the log back."""
        self._thread.shutdown()
        self._connection.close()

    def _is_long(self, log_bytes: int) -> bool:
        return log_bytes > self._log_bytes_max // 2

    def _is_too_long(self, log_bytes: int) -> bool:
        return log_bytes > self._log_bytes_max * 5 // 8

    def _start(self, *, alone: bool, log_bytes: int) -> None:
        self._is_alone = alone
        restarts = alone and self._is_too_long(log_bytes)
        self._running = asyncio.get_running_loop().run_in_executor(self._thread, self._write_back, restarts)

    async def _end(self) -> int:
        assert self._running is not None
        await asyncio.wait((self._running,))
        ended, self._running = self._running, None
        self._is_alone = False
        return ended.result()

    def _write_back(self, restarts: bool) -> int:
        """In the thread."""
        connection = self._connection
        _, written_pages = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        if restarts:
            connection.set_busy_timeout(RESTART_TIMEOUT_MS)
            try:
                connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_RESTART)
            except apsw.BusyError:
                pass  # A reader holds an old snapshot; it is tried again after the next commit.
            finally:
                connection.set_busy_timeout(0)
        return written_pages * PAGE_BYTES
