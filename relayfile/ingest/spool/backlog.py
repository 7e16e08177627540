"""Rows that are to be worked on: those that just arrived, and those that had no room then and are read back.

Owns the turns: whatever one workspace brings, another one waits for a single row of it and no more, and the event loop
is given back after a few milliseconds of work. Refuses to know what becomes of a row.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Protocol

from relayfile.ingest.sending.lane import Lane, LeftRows
from relayfile.ingest.sending.node_stream import NodeStream
from relayfile.ingest.spool.payload import PayloadBuilder, parse_changes
from relayfile.ingest.spool.spool_file import RowHead, SpoolReader, StoredRow

READ_BYTES = 256 << 10
"""What the backlog reads of one workspace before it is the next one's turn."""
HEADS_PER_TURN = 500
"""Rows at which the backlog looks in one turn, where some are passed over without being read."""
SLICE_CHANGES = 64
"""Changes that are worked on before others have their turn in the loop; the last row may bring more."""
SLICE_PART = 32
"""Of many that wait this part is worked on in one go: what arrives faster than it is worked on takes memory."""
ARRIVED_BYTES_MAX = 4 << 20
"""Rows that arrived and wait in memory for their turn; more are left in the spool and read back."""
QUIET_ROW_BYTES = 16 << 10
"""A row of so much whose workspace has nothing waiting finds room beyond that, up to twice as much: what a noisy one
brings does not send it the long way."""
BURST_BYTES = 256 << 10
"""A commit of so much says that senders wait in line."""
BURST_S = 0.05
"""How long it says so."""
HELD_PAUSE_S = 0.04
"""Between slices of a burst whose changes are only held: they may as well wait in the spool, and senders do not."""


class Rows(Protocol):
    """What works on rows."""

    def arrived(self, row: PayloadBuilder) -> None:
        """A row became durable a moment ago."""
        ...

    def leave(self, row: PayloadBuilder) -> None:
        """As `arrived`, but it is to be read back from the spool."""
        ...

    def read_back(self, lane: Lane, row: StoredRow) -> Iterator[None]:
        """An unread row was read; it is worked on in steps."""
        ...

    def pass_over(self, lane: Lane, row: RowHead) -> bool:
        """Whether all of an unread row waits, so that it need not be read; its place is noted then."""
        ...

    def read_again(self, lane: Lane, row: StoredRow, providers: AbstractSet[str]) -> Iterator[None]:
        """A row was read for what was left in it of these providers."""
        ...

    def resumed(self, lane: Lane) -> Mapping[str, LeftRows]:
        """The providers of which something was left in the spool and may go now."""
        ...

    def has_room(self, lane: Lane) -> bool:
        """Whether a lane may take one more row into memory."""
        ...

    @property
    def held_total(self) -> int:
        """Changes that were held for a window so far."""
        ...

    def stream(self, lane: Lane) -> NodeStream:
        """Whose queue the lane's room is a part of."""
        ...


class Patience:
    """Whether what is to be worked on may wait, because senders wait in line and nothing is sent sooner by it."""

    def __init__(self) -> None:
        self._burst_until_s = 0.0
        self._held_before = 0
        self._only_holds = False

    def came(self, size_bytes: int) -> None:
        """A commit brought so much."""
        if size_bytes >= BURST_BYTES:
            self._burst_until_s = asyncio.get_running_loop().time() + BURST_S

    def worked(self, changes: int, held_total: int) -> None:
        """So many changes were worked on, and so many were held in all until now."""
        if changes:
            self._only_holds = (held_total - self._held_before) * 10 >= changes * 9
        self._held_before = held_total

    def pause_s(self) -> float:
        """How long to wait before the next slice."""
        return HELD_PAUSE_S if self._only_holds and asyncio.get_running_loop().time() < self._burst_until_s else 0.0


class Arrivals:
    """Rows in memory that became durable, workspaces in turns."""

    def __init__(self, rows: Callable[[], Rows], failed: Callable[[Exception], None]) -> None:
        """`failed` hears of faults: nobody waits for what is done here."""
        self.size_bytes = 0
        self.changes = 0
        self.patience = Patience()
        self._rows = rows
        self._failed = failed
        self._waiting: dict[str, deque[PayloadBuilder]] = {}
        self._is_working = False

    def put(self, rows: Sequence[PayloadBuilder]) -> None:
        """Work on these when it is their turn, the first ones at once. Rows of one workspace come in their order."""
        self.patience.came(sum([row.size_bytes for row in rows]))
        for row in rows:
            is_quiet = row.size_bytes <= QUIET_ROW_BYTES and row.workspace_id not in self._waiting
            if self.size_bytes > (2 * ARRIVED_BYTES_MAX if is_quiet else ARRIVED_BYTES_MAX):
                self._rows().leave(row)
                continue
            self.size_bytes += row.size_bytes
            self.changes += row.member_count
            self._waiting.setdefault(row.workspace_id, deque()).append(row)
        if not self._is_working:
            self._work()

    def _work(self) -> None:
        try:
            self._work_on_slice()
        except Exception as error:  # noqa: BLE001 - called by the loop, which would go on without these rows
            self._failed(error)
            return
        self._is_working = bool(self._waiting)
        if self._is_working:
            loop, pause_s = asyncio.get_running_loop(), self.patience.pause_s()
            if pause_s:
                loop.call_later(pause_s, self._work)
            else:
                loop.call_soon(self._work)

    def _work_on_slice(self) -> None:
        rows, waiting = self._rows(), self._waiting
        before = self.changes
        part = 0 if self.patience.pause_s() else before // SLICE_PART
        left = before - max(SLICE_CHANGES, part)
        while waiting and self.changes > left:
            workspace_id = next(iter(waiting))
            queue = waiting.pop(workspace_id)
            row = queue.popleft()
            if queue:
                waiting[workspace_id] = queue
            self.size_bytes -= row.size_bytes
            self.changes -= row.member_count
            rows.arrived(row)
        self.patience.worked(before - self.changes, rows.held_total)


class Backlog:
    """Reads rows that had no room when they came, one workspace after the other, as their lanes get room."""

    def __init__(self, rows: Callable[[], Rows], reader: SpoolReader, patience: Patience) -> None:
        self._rows = rows
        self._reader = reader
        self._patience = patience
        self._lanes: deque[Lane] = deque()
        self._starved: dict[NodeStream, deque[Lane]] = {}
        """Lanes with nothing in memory that found the queue of their node full; they come first when it has room."""
        self._marked = asyncio.Event()

    def wake(self) -> None:
        """A node's queue may have room."""
        if self._starved:
            self._marked.set()

    def mark(self, lane: Lane) -> None:
        """A lane has unread rows, and may have room."""
        if not lane.is_hungry:
            lane.is_hungry = True
            self._lanes.append(lane)
            self._marked.set()

    async def run(self) -> None:
        """Until cancelled. `DataCorrupted` or `StorageFailed` when the spool cannot be read: the process must end."""
        while True:
            lane = self._next()
            if lane is None:
                self._marked.clear()
                await self._marked.wait()
            else:
                await self._feed(lane)
                await asyncio.sleep(self._patience.pause_s())

    def _next(self) -> Lane | None:
        for stream, starved in self._starved.items():
            if self._rows().has_room(starved[0]):
                lane = starved.popleft()
                if not starved:
                    del self._starved[stream]
                return lane
        return self._lanes.popleft() if self._lanes else None

    async def _feed(self, lane: Lane) -> None:
        lane.is_hungry = False
        rows = self._rows()
        resumed = rows.resumed(lane) if lane.left_rows else {}
        if not lane.has_unread and not resumed:
            return
        if not rows.has_room(lane):
            if not lane.has_queued:
                lane.is_hungry = True
                self._starved.setdefault(rows.stream(lane), deque()).append(lane)
            return  # else it is marked again when its next sub-batch is taken
        if resumed:
            await self._read_waiting(lane, resumed)
        if lane.has_unread and lane.left_rows:
            await self._read_chosen(lane)
        elif lane.has_unread:
            await self._read(lane)
        self.mark(lane)

    async def _read(self, lane: Lane) -> None:
        """The next unread rows."""
        rows = self._rows()
        read = self._reader.rows_between(lane.workspace_id, lane.last_row_id, lane.newest_row_id, READ_BYTES)
        for row in read:
            for _ in rows.read_back(lane, row):
                await asyncio.sleep(0)
        self._patience.worked(sum([row.member_count for row in read]), rows.held_total)
        if not read:
            lane.last_row_id = lane.newest_row_id

    async def _read_chosen(self, lane: Lane) -> None:
        """As `_read`, but for rows of which everything waits: a provider that is paused for days may have most."""
        rows = self._rows()
        size = 0
        heads = self._reader.heads_between(lane.workspace_id, lane.last_row_id, lane.newest_row_id, HEADS_PER_TURN)
        for head in heads:
            if rows.pass_over(lane, head):
                continue
            row = self._reader.row(head.row_id)
            assert row is not None, f"row {head.row_id} was removed before it was read"
            for _ in rows.read_back(lane, row):
                await asyncio.sleep(0)
            size += len(row.payload)
            if size >= READ_BYTES:
                return
        if not heads:
            lane.last_row_id = lane.newest_row_id

    async def _read_waiting(self, lane: Lane, resumed: Mapping[str, LeftRows]) -> None:
        """The next rows in which something was left: from the first one, for all providers that have come so far."""
        rows = self._rows()
        size = 0
        first, last = min(each.after for each in resumed.values()), max(each.to for each in resumed.values())
        heads = self._reader.heads_between(lane.workspace_id, first, last, HEADS_PER_TURN)
        for head in heads:
            due = {name: each for name, each in resumed.items() if each.after < head.row_id <= each.to}
            wanted = due.keys() & parse_changes(head.providers).keys()
            row = self._reader.row(head.row_id) if wanted else None
            for each in due.values():
                each.after = head.row_id  # a pause that comes while the row is worked on may set it back
            if row is None:
                continue
            size += len(row.payload)
            for _ in rows.read_again(lane, row, wanted):
                size = READ_BYTES  # others had their turn, and may have paused something
                await asyncio.sleep(0)
            if size >= READ_BYTES:
                break
        for name, each in resumed.items():
            if not heads or each.after >= each.to:
                del lane.left_rows[name]
