"""Tends operations while nobody asks: claims that end go back, held changes become revisions, all at their time.

Owns the times: one for each workspace at which something is due, in memory, read from the rows at the start and
whenever operations of the workspace were written. It sleeps until the next; nothing is polled. What it does is an entry
of the workspace like any other.
"""

import asyncio
import heapq

from relayfile.clock import Clock
from relayfile.errors import Draining, NotOwner, Overloaded, RelayfileError, Unavailable
from relayfile.store.commit import Asker, Committer
from relayfile.store.engine import Engine, WorkspaceKey
from relayfile.store.operations.answering import TendOperations
from relayfile.store.operations.feed import OperationFeed
from relayfile.store.ownership import Ownership
from relayfile.store.plan.writeback.limits import WritebackLimits
from relayfile.telemetry import get_logger

REST_S_MAX = 60.0
"""Longest sleep: clocks may be set."""
RETRY_S = 1.0
MICROSECONDS = 1_000_000

_log = get_logger(__name__)


class OperationKeeper:
    """`run` it in a task."""

    def __init__(
        self,
        engine: Engine,
        committer: Committer,
        ownership: Ownership,
        clock: Clock,
        kind: TendOperations,
        feed: OperationFeed,
        limits: WritebackLimits,
    ) -> None:
        self._engine = engine
        self._committer = committer
        self._ownership = ownership
        self._clock = clock
        self._kind = kind
        self._limits = limits
        self._written: dict[str, None] = {}
        """Workspaces whose times are to be read again."""
        self._due: dict[WorkspaceKey, int] = {}
        self._heap: list[tuple[int, WorkspaceKey]] = []
        """May hold times that are no longer those of `_due`."""
        self._wake = asyncio.Event()
        feed.on_change = self._note

    async def run(self) -> None:
        """Until cancelled. Raises `StorageFailed` when the process must end."""
        for key in await self._engine.workspaces_at_work():
            self._written[key.workspace_id] = None
        while True:
            self._wake.clear()
            try:
                await self._read_times()
                await self._tend_due()
            except (Unavailable, Overloaded, Draining):
                # The disk is full, the queue is, or we stop: what is due stays so.
                await asyncio.sleep(RETRY_S)
                continue
            await self._rest()

    async def tend(self, key: WorkspaceKey) -> None:
        """Do what is due in a workspace."""
        await self._committer.submit(key, self._kind, None, change_count=1, byte_count=0, asker=Asker.NODE)

    def next_due_us(self) -> int | None:
        """When something is due next; None: nothing is."""
        while self._heap and self._due.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def _note(self, workspace_id: str) -> None:
        self._written[workspace_id] = None
        self._wake.set()

    async def _rest(self) -> None:
        due_us = self.next_due_us()
        rest_s = REST_S_MAX if due_us is None else (due_us - self._clock.now_us()) / MICROSECONDS
        try:
            async with asyncio.timeout(min(max(rest_s, 0.0), REST_S_MAX)):
                await self._wake.wait()
        except TimeoutError:
            pass  # It is time.

    async def _read_times(self) -> None:
        while self._written:
            workspace_id = next(iter(self._written))
            try:
                key = self._ownership.local_key(workspace_id)
            except NotOwner:
                del self._written[workspace_id]
                continue
            times: list[int] = []
            async with self._engine.view(key) as whole:
                workspace = await whole.workspace()
                if workspace is not None and workspace.deleted_us is None:
                    view = whole.operations()
                    times += (await view.claim_ends()).values()
                    if (held_us := await view.oldest_held_us()) is not None:
                        times.append(held_us + self._limits.hold_us)
            self._written.pop(workspace_id, None)
            self._set(key, min(times) if times else None)

    def _set(self, key: WorkspaceKey, due_us: int | None) -> None:
        if due_us is None:
            self._due.pop(key, None)
        elif self._due.get(key) != due_us:
            self._due[key] = due_us
            heapq.heappush(self._heap, (due_us, key))

    async def _tend_due(self) -> None:
        while (due_us := self.next_due_us()) is not None and due_us <= self._clock.now_us():
            key = self._heap[0][1]
            try:
                await self.tend(key)
            except NotOwner:
                self._set(key, None)
                continue
            except (RelayfileError, asyncio.CancelledError):
                raise
            except Exception:  # noqa: BLE001 - a fault of ours in one workspace: the others go on, and the node lives
                _log.exception("operations could not be tended", workspace=key.workspace_id)
                self._set(key, self._clock.now_us() + round(REST_S_MAX * MICROSECONDS))
                continue
            # What is left, or was written meanwhile, is read from the rows.
            self._written[key.workspace_id] = None
            await self._read_times()
