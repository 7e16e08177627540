"""The spool's writing thread: one transaction at a time, and none after a failure.

Owns the thread and its connection, and the row ids that it will write. Refuses to decide what goes into a transaction.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from relayfile.errors import StartRefused, StorageFailed
from relayfile.ingest.sending.pauses import PauseTable
from relayfile.ingest.spool.payload import PayloadBuilder
from relayfile.ingest.spool.spool_file import (
    NewRow,
    SpoolFull,
    SpoolWriter,
    Transaction,
)
from relayfile.ingest.spool.spool_routes import RouteUpdate
from relayfile.telemetry import get_logger
from relayfile.threads import started_threads

_log = get_logger(__name__)


Done = Callable[[Exception | None], None]
"""Told once what became of an append: None when it is durable. It must not raise."""


@dataclass(slots=True)
class Group:
    """What will be one transaction."""

    paused: PauseTable
    """As it was when the group was begun: what goes apart goes apart in all of the group, or order would be lost."""
    open_rows: dict[str | tuple[str, str], PayloadBuilder] = field(default_factory=dict)
    """By workspace; by workspace and provider where the provider is paused by itself."""
    rows: list[PayloadBuilder] = field(default_factory=list)
    row_counts: dict[str, int] = field(default_factory=dict)
    """Of each workspace that has rows."""
    known: list[tuple[str, int]] = field(default_factory=list)
    routes: list[RouteUpdate] = field(default_factory=list)
    waiters: list[tuple[float, Done]] = field(default_factory=list)
    """Each with the time at which it gives up, by the loop's clock, in that order where one has a limit."""
    give_up: asyncio.TimerHandle | None = None
    envelopes: int = 0
    size_bytes: int = 0

    def tell(self, failure: Exception | None) -> None:
        """Tell everyone who waits."""
        if self.give_up is not None:
            self.give_up.cancel()
            self.give_up = None
        for _, done in self.waiters:
            done(failure)


class Commits:
    """The thread as the event loop sees it: everything but `_write` runs there."""

    def __init__(self, committed: Callable[[Group, Transaction, Exception | None], None]) -> None:
        self.running = False
        self.failure: StorageFailed | None = None
        """Set once, by a disk that failed; nothing is written after it."""
        self.used_bytes = 0
        """Of the file after the last transaction; see `SpoolWriter.used_bytes`."""
        self._is_full = False
        self._committed = committed
        self._thread = started_threads(1, "spool")
        self._writer: SpoolWriter | None = None
        self._next_row_id = 1
        self._changed = asyncio.Event()

    def start(self, writer: SpoolWriter, next_row_id: int) -> None:
        """Write with `writer`, which is closed by `stop`."""
        self._writer = writer
        self.used_bytes = writer.used_bytes
        self._next_row_id = next_row_id

    def stop(self) -> None:
        """Wait for the running transaction, then close. Blocks. `StorageFailed` as of `SpoolWriter.close`."""
        self._thread.shutdown(wait=True)
        if self._writer is not None:
            writer, self._writer = self._writer, None
            writer.close()

    def new_row_id(self) -> int:
        """One that no row had before, in any run of the process."""
        row_id = self._next_row_id
        self._next_row_id += 1
        return row_id

    def begin(self, group: Group, transaction: Transaction, reached: Callable[[str], None]) -> None:
        """Write in the thread; `committed` follows in the loop."""
        if self._writer is None:
            raise StartRefused(why="the spool is not open")
        self.running = True
        loop = asyncio.get_running_loop()
        future = self._thread.submit(_write, self._writer, group.rows, transaction, reached)

        def done(future: Future[None]) -> None:
            loop.call_soon_threadsafe(self._finish, group, transaction, future.exception())

        future.add_done_callback(done)

    async def idle(self) -> None:
        """Return when no transaction runs."""
        while self.running:
            self._changed.clear()
            await self._changed.wait()

    async def until_failed(self) -> StorageFailed:
        """Return the failure when there is one."""
        while self.failure is None:
            self._changed.clear()
            await self._changed.wait()
        return self.failure

    def _finish(self, group: Group, transaction: Transaction, error: BaseException | None) -> None:
        self.running = False
        if self._writer is not None:
            self.used_bytes = self._writer.used_bytes
        failure = error if isinstance(error, SpoolFull | StorageFailed) else None
        if error is not None and failure is None:
            failure = StorageFailed(what=f"spool: {type(error).__name__}: {error}")
        if isinstance(failure, StorageFailed):
            self.failure = failure
        self._tell(is_full=isinstance(failure, SpoolFull))
        self._committed(group, transaction, failure)
        self._changed.set()

    def _tell(self, *, is_full: bool) -> None:
        """Once when the disk fills up and once when it has room again: senders hear it, and so must operators."""
        if is_full is self._is_full:
            return
        self._is_full = is_full
        if is_full:
            _log.error("the spool's disk is full; what arrives is refused until it has room")
        else:
            _log.info("the spool's disk has room again")


def _write(
    writer: SpoolWriter, rows: Sequence[PayloadBuilder], transaction: Transaction, reached: Callable[[str], None]
) -> None:
    transaction.rows = [
        NewRow(row.row_id, row.workspace_id, row.received_us, row.member_count, row.provider_text(), row.payload())
        for row in rows
    ]

    def before_commit(transaction: Transaction) -> None:
        if transaction.rows:
            reached("ingest.spool.after_insert_before_fsync")

    writer.write(transaction, before_commit)
