"""The durable spool (D1, D4): what is accepted is here until its outcome is durable elsewhere.

One transaction and one fsync serve everything that arrived while the previous one ran; under load a commit waits a
moment for company, so that ten thousand envelopes cost a few hundred fsyncs. Envelopes of one workspace that commit
together share a row. Removing rows and setting bits rides along, and needs no fsync of its own: what is settled once
more changes nothing.

Owns row ids (never used twice), the grouping, and the end of the process's promises when the disk fails. Used from the
event loop; only transactions run in the one writing thread. Refuses to know what is done with a row.
"""

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from relayfile.data_directory import DataDirectory
from relayfile.errors import StorageFailed, Unavailable
from relayfile.ingest.sending.pauses import PauseTable
from relayfile.ingest.spool.payload import PayloadBuilder
from relayfile.ingest.spool.spool_commits import Commits, Done, Group
from relayfile.ingest.spool.spool_file import (
    FILE_NAMES,
    SpoolFull,
    SpoolReader,
    SpoolWriter,
    StoredRow,
    Transaction,
    prepare,
)
from relayfile.ingest.spool.spool_groups import Groups
from relayfile.ingest.spool.spool_linger import Linger
from relayfile.ingest.spool.spool_routes import RouteUpdate
from relayfile.telemetry import get_logger
from relayfile.v1 import types_pb2

_log = get_logger(__name__)
ROW_BYTES_MAX = 256 * 1024
"""A row that has as much is closed; the next envelope of its workspace starts another. Rows are what is read back."""
ROW_CHANGES_MAX = 250
"""As above: a row is worked on in one go."""
COMPANY_ENVELOPES = 64
"""A commit that has as many envelopes waits for no more."""
GONE = -1
"""Instead of the bits of a row that is finished."""
SETTLE_LINGER_S = 0.02
"""How long settled rows wait for a commit to ride along with."""
FULL_LINGER_S = 0.25
"""How long they wait when the disk had no room for them."""


@dataclass(frozen=True, slots=True)
class SpoolLimits:
    """How commits are grouped."""

    commit_linger_s: float
    """Longest wait for company; see `Linger`."""
    commit_bytes_max: int
    bytes_max: int
    """What the file may come to take; its log is kept to a small part of it."""
    verify: bool


@dataclass(slots=True)
class SpoolCounters:
    """Since the process started."""

    transactions: int = 0
    fsyncs: int = 0
    """Transactions that were waited for with an fsync; checkpoints come on top."""
    envelopes: int = 0
    rows: int = 0


class Spool:
    """Appends, settles and reads. Everything here runs in the event loop and nothing blocks it."""

    def __init__(
        self,
        directory: DataDirectory,
        limits: SpoolLimits,
        *,
        stored: Callable[[Sequence[PayloadBuilder]], None],
        arrived: Callable[[Sequence[PayloadBuilder]], None],
        refused: Callable[[Sequence[PayloadBuilder]], None] = lambda rows: None,
        reached: Callable[[str], None] = lambda point: None,
    ) -> None:
        """`stored` gets the rows of each commit once they are durable, to count them; `arrived` gets them after their
        senders were answered, to work on them; `refused` gets those that a full disk did not take. `reached` hears
        fault points.
        """
        self.counters = SpoolCounters()
        self.paused: PauseTable = {}
        """What is paused: rows of paused providers hold nothing else, so that the others leave nothing behind."""
        self.waiting_bytes = 0
        """Envelopes that are not durable yet, whether or not their sender still waits."""
        self._directory = directory
        self._limits = limits
        self._stored = stored
        self._arrived = arrived
        self._refused = refused
        self._reached = reached
        self._groups = Groups(limits.commit_bytes_max)
        self._settling = Transaction()
        self._unwritten: dict[int, int] = {}
        """Bits of rows that are on their way into the file; of removed rows `GONE`."""
        self._commits = Commits(self._committed)
        self._timer: asyncio.TimerHandle | None = None
        self._linger = Linger(limits.commit_linger_s)
        self._settles_alone = False
        """The disk was full: what is settled makes room, and must not be refused along with what wants room."""

    # ... opening and closing

    def open(self) -> SpoolReader:
        """Verify and open the file; the reader stays valid until `close`. `StartRefused` when it cannot be trusted."""
        directory = self._directory
        failure = directory.failure()
        if failure is not None:
            directory.drop_cached_pages(FILE_NAMES)
        prepare(directory.path, verify=self._limits.verify or failure is not None)
        directory.sync()
        if failure is not None:
            directory.clear_failure()
        reader = SpoolReader(directory.path)
        writer = SpoolWriter(directory.path, self._limits.bytes_max)
        self._commits.start(writer, next_row_id=reader.last_row_id() + 1)
        return reader

    async def close(self) -> None:
        """Commit what waits, and stop the thread. Call once, after the last `append`.

        `StorageFailed` when the disk failed and nobody was told of it yet.
        """
        while (self._groups or self._settling or self._commits.running) and self._commits.failure is None:
            self._commit()
            await self._commits.idle()
        self._stop_timer()
        try:
            self._commits.stop()
        except StorageFailed as failure:
            self._directory.mark_failed(str(failure))
            raise

    @property
    def used_bytes(self) -> int:
        """What the file had in use after the last commit, without its log; free pages are used again."""
        return self._commits.used_bytes

    @property
    def is_sound(self) -> bool:
        """Whether the disk did not fail yet."""
        return self._commits.failure is None

    async def failed(self) -> StorageFailed:
        """Return when the disk has failed: the process must end then."""
        return await self._commits.until_failed()

    # ... writing

    async def append(
        self, envelopes: Sequence[types_pb2.Envelope], raws: Sequence[bytes], timeout_s: float | None = None
    ) -> None:
        """Return when all of them are durable; `raws` are the same, serialised. See `Intake.accept`.

        `TimeoutError` when that takes longer than `timeout_s`; they may become durable all the same.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.offer(envelopes, raws, partial(tell_future, future), timeout_s)
        await future

    def offer(
        self,
        envelopes: Sequence[types_pb2.Envelope],
        raws: Sequence[bytes],
        done: Done,
        timeout_s: float | None = None,
    ) -> None:
        """As `append`, for callers that are no task: a webhook costs a third less so."""
        self._require_sound()
        workspaces = {envelope.workspace_id for envelope in envelopes}
        group = self._groups.choose(workspaces, self.paused)
        open_rows, paused = group.open_rows, group.paused
        for envelope, raw in zip(envelopes, raws, strict=True):
            workspace_id = envelope.workspace_id
            place: str | tuple[str, str] = workspace_id
            if paused and envelope.provider in paused.get(workspace_id, ()):
                place = (workspace_id, envelope.provider)
            row = open_rows.get(place)
            if row is None or row.size_bytes >= ROW_BYTES_MAX or row.member_count >= ROW_CHANGES_MAX:
                row = PayloadBuilder(self._commits.new_row_id(), workspace_id)
                open_rows[place] = row
                group.rows.append(row)
                group.row_counts[workspace_id] = group.row_counts.get(workspace_id, 0) + 1
            added = row.add(envelope, raw)
            group.size_bytes += added
            self.waiting_bytes += added
        group.envelopes += len(envelopes)
        self._wait(group, done, timeout_s)

    async def add_known(self, workspaces: Sequence[str], now_us: int) -> None:
        """Remember that these workspaces exist; return when that is durable."""
        group = self._soonest_group()
        group.known += [(workspace_id, now_us) for workspace_id in workspaces]
        await self._written(group)

    async def add_routes(self, update: RouteUpdate) -> None:
        """Remember what changed of an app's routes; return when it is in the file. A power cut may undo it, whole."""
        group = self._soonest_group()
        group.routes.append(update)
        await self._written(group)

    def settle(self, finished: Sequence[int], bits: Sequence[tuple[int, int]] = ()) -> None:
        """Remove rows, and set the bits of others, with a coming commit."""
        unwritten = self._unwritten
        unwritten.update(bits)
        for row_id in finished:
            unwritten[row_id] = GONE
        self._settling.finished += finished
        self._settling.bits += [
            (row_id, value.to_bytes((value.bit_length() + 7) // 8, "little")) for row_id, value in bits
        ]
        if self._timer is None and not self._commits.running:
            self._start_timer(SETTLE_LINGER_S)

    def bits_of(self, row: StoredRow) -> int:
        """The bits of a row that was read just now, with those that are not written yet; `GONE` when it is to go."""
        unwritten = self._unwritten.get(row.row_id, 0)
        return GONE if unwritten == GONE else row.bits | unwritten

    def remember_pauses(self, pauses: list[tuple[str, str]], table: PauseTable) -> None:
        """Keep (workspace, provider) of what is paused for the next start; `table` is the same."""
        self.paused = table
        self._settling.pauses = pauses
        if not self._commits.running:
            self._commit()

    # ... grouping

    async def _written(self, group: Group) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._wait(group, partial(tell_future, future), None)
        await future

    def _require_sound(self) -> None:
        if self._commits.failure is not None:
            raise self._commits.failure

    def _soonest_group(self) -> Group:
        self._require_sound()
        return self._groups.soonest(self.paused)

    def _wait(self, group: Group, done: Done, timeout_s: float | None) -> None:
        """Have `done` told when the group is durable. One timer for all of a group: `asyncio.timeout` would cost a
        webhook four times as much, and a timer for each still as much as signing."""
        if timeout_s is None:
            group.waiters.append((math.inf, done))
        else:
            loop = asyncio.get_running_loop()
            group.waiters.append((loop.time() + timeout_s, done))
            if group.give_up is None:
                group.give_up = loop.call_later(timeout_s, _give_up, loop, group)
        if not self._commits.running:
            self._schedule()

    def _schedule(self) -> None:
        """Decide whether the first group goes now or waits for company. Nothing is being committed."""
        group = self._groups.first
        enough = group.envelopes >= COMPANY_ENVELOPES or group.size_bytes >= self._limits.commit_bytes_max
        wait_s = 0.0 if enough else self._linger.wait_s(asyncio.get_running_loop().time())
        if not wait_s:
            self._commit()
        elif self._timer is None or len(group.waiters) == 1:
            self._start_timer(wait_s)

    def _start_timer(self, delay_s: float) -> None:
        self._stop_timer()
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._commit)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _commit(self) -> None:
        self._stop_timer()
        if self._commits.running or self._commits.failure or not (self._groups or self._settling):
            return
        alone = self._settles_alone and bool(self._settling)
        self._settles_alone = False
        group = self._groups.next() if self._groups and not alone else Group(self.paused)
        if group.waiters:
            self._linger.came(len(group.waiters), asyncio.get_running_loop().time())
        transaction, self._settling = self._settling, Transaction()
        transaction.known = group.known
        transaction.routes = group.routes
        self._commits.begin(group, transaction, self._reached)

    def _committed(self, group: Group, transaction: Transaction, failure: Exception | None) -> None:
        """In the event loop, after each transaction."""
        self.waiting_bytes -= group.size_bytes
        if isinstance(failure, SpoolFull):
            # Before what was settled meanwhile: of two bit sets of one row the later one is written last.
            self._settling.finished[:0] = transaction.finished
            self._settling.bits[:0] = transaction.bits
            if self._settling.pauses is None:
                self._settling.pauses = transaction.pauses
            self._settles_alone = bool(group.rows)
            self._refused(group.rows)
            group.tell(Unavailable(what="spool's disk (it is full)", retry_after_s=5.0))
        elif isinstance(failure, StorageFailed):
            self._directory.mark_failed(str(failure))
            for each in (group, *self._groups):
                each.tell(failure)
            self._groups.clear()
            return
        else:
            self._forget_written(transaction)
            self._count(group, transaction)
            self._answer(group)
        if self._groups:
            self._schedule()
        elif self._settling:
            self._start_timer(FULL_LINGER_S if failure is not None and not group.rows else SETTLE_LINGER_S)

    def _forget_written(self, transaction: Transaction) -> None:
        unwritten = self._unwritten
        for row_id in transaction.finished:
            unwritten.pop(row_id, None)
        for row_id, bits in transaction.bits:
            if unwritten.get(row_id) == int.from_bytes(bits, "little"):
                del unwritten[row_id]

    def _answer(self, group: Group) -> None:
        self._stored(group.rows)
        if group.waiters:
            self._reached("ingest.spool.after_fsync_before_answer")
        group.tell(None)
        if group.rows:
            # The answers are queued in the loop already: they leave before the rows are worked on.
            asyncio.get_running_loop().call_soon(self._arrived, group.rows)

    def _count(self, group: Group, transaction: Transaction) -> None:
        self.counters.transactions += 1
        self.counters.fsyncs += transaction.must_last
        self.counters.envelopes += group.envelopes
        self.counters.rows += len(group.rows)


def _give_up(loop: asyncio.AbstractEventLoop, group: Group) -> None:
    """Tell those whose time is over, and come again for the next one."""
    now_s = loop.time()
    over = [waiter for waiter in group.waiters if waiter[0] <= now_s]
    group.waiters = [waiter for waiter in group.waiters if waiter[0] > now_s]
    next_s = min((end_s for end_s, _ in group.waiters), default=math.inf)
    group.give_up = loop.call_at(next_s, _give_up, loop, group) if next_s < math.inf else None
    for _, done in over:
        done(TimeoutError())


def tell_future(future: asyncio.Future[None], failure: Exception | None) -> None:
    """A `Done` for who awaits a future."""
    if future.done():
        return  # its caller was cancelled
    if failure is None:
        future.set_result(None)
    else:
        future.set_exception(failure)
