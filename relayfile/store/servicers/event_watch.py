"""WatchEvents: every event after a cursor exactly once and in order, at any reader's speed, with marks.

Owns the stream's rhythm. It reads the log page by page, and only when it is level with the log does it wait for the
feed, which carries nothing and only wakes. While the peer does not read, nothing is read either. A mark tells what the
roots hold at a revision up to which everything was sent: with the first level page, during traffic at most every
100 ms, 50 ms after a burst, and at least once per interval. A reader that is behind for longer gets marks without
roots, as a cursor and a sign of life: the snapshot is then ahead of what was sent. So does one whose roots take longer
to be summed up than the interval, because it may read only a part of them; events are sent meanwhile.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from relayfile.clock import Clock
from relayfile.paths import ROOT, TreePath
from relayfile.store.access import ReadAccess, Tree
from relayfile.store.cursor_holds import CursorHolds, Hold
from relayfile.store.engine import WorkspaceKey
from relayfile.store.plan.rows import EventRow
from relayfile.store.servicers.checks import Checks
from relayfile.store.servicers.event_filter import Predicate, check_filter, chosen, compile_filter
from relayfile.store.servicers.event_reading import LogPage, expired, read_log, start_of_log
from relayfile.store.servicers.mark_totals import MarkTotals
from relayfile.store.servicers.reading import Reading, Snapshot
from relayfile.store.servicers.wire import fill_event, fill_totals
from relayfile.v1 import event_pb2
from relayfile.wire import set_us

MARK_PATHS_MAX = 64
MARK_INTERVAL_MIN_S = 1.0
MARK_INTERVAL_MAX_S = 10.0
QUIET_S = 0.05
"""So long after the last event a burst is over."""
BUSY_MARK_S = 0.1
"""During traffic marks are at least so far apart."""
ONLY_NEW = -1


@dataclass(frozen=True, slots=True)
class _Question:
    """A checked request."""

    key: WorkspaceKey
    after_revision: int
    history_id: str
    passes: Predicate | None
    roots: tuple[TreePath, ...]
    interval_s: float
    access: ReadAccess
    partial: bool
    """Whether a root that the caller may read in part is described as far as it may."""


@dataclass(slots=True)
class _Position:
    """Where a stream is."""

    cursor: int
    history_id: str
    marked_revision: int = -1
    marked_at: float = float("-inf")
    quiet: bool = False


@dataclass(slots=True)
class _Found:
    """What one snapshot gave."""

    page: LogPage
    events: Sequence[EventRow]
    """Those of the page that were asked for and that the caller may see."""
    marked: bool
    trees: Sequence[Tree | None] = ()
    """None: the caller may not read all of the root, and did not ask for what it may. Empty: not known."""


class EventWatch:
    """Serves watch streams."""

    def __init__(self, reading: Reading, clock: Clock, mark_interval_s: float, holds: CursorHolds) -> None:
        self._reading = reading
        self._clock = clock
        self._mark_interval_s = mark_interval_s
        self._holds = holds

    async def messages(
        self, request: event_pb2.WatchEventsRequest
    ) -> AsyncGenerator[event_pb2.WatchEventsResponse, None]:
        """Events and marks, until the call ends."""
        question = self._checked(request)
        async with self._reading.snapshot(question.key) as snapshot:
            position = await _start(snapshot, question)
        hold = self._holds.open(question.key, position.cursor)
        try:
            async with aclosing(self._following(question, position, hold)) as messages:
                async for message in messages:
                    yield message
        finally:
            self._holds.close(hold)

    async def _following(
        self, question: _Question, position: _Position, hold: Hold
    ) -> AsyncGenerator[event_pb2.WatchEventsResponse, None]:
        totals = MarkTotals(self._reading, question.key, question.access, question.roots, partial=question.partial)
        try:
            while True:
                async with self._reading.snapshot(question.key) as snapshot:
                    if snapshot.workspace.history_id != position.history_id:
                        raise await expired(snapshot)
                    found = await self._read(snapshot, question, position, totals)
                message = self._message(question, position, found)
                position.cursor = found.page.cursor
                if message is not None:
                    yield message
                hold.cursor = position.cursor  # only now: what is not sent may have to be sent again
                if found.page.level:
                    position.quiet = not await self._news(question, position, totals)
                elif message is None:
                    await asyncio.sleep(0)
        finally:
            await totals.close()

    async def _read(self, snapshot: Snapshot, question: _Question, position: _Position, totals: MarkTotals) -> _Found:
        page = await read_log(snapshot, position.cursor)
        sight = await question.access.sight(snapshot.view)
        events = await sight.events(chosen(page.events, question.passes))
        if not self._mark_is_due(question, position, page):
            return _Found(page, events, marked=False)
        if not page.level:
            return _Found(page, events, marked=True)
        trees = await totals.of(sight, has_events=bool(events))
        if trees is None:
            return _Found(page, events, marked=self._is_overdue(question, position))
        return _Found(page, events, marked=True, trees=trees)

    def _mark_is_due(self, question: _Question, position: _Position, page: LogPage) -> bool:
        since = self._clock.monotonic() - position.marked_at
        if since >= question.interval_s:
            return page.level or position.marked_at > float("-inf") or self._begin(position)
        if not page.level:
            return False
        return page.cursor != position.marked_revision and (position.quiet or since >= BUSY_MARK_S)

    def _is_overdue(self, question: _Question, position: _Position) -> bool:
        """Whether a sign of life cannot wait for the totals."""
        if position.marked_at == float("-inf"):
            return self._begin(position)
        return self._clock.monotonic() - position.marked_at >= question.interval_s

    def _begin(self, position: _Position) -> bool:
        """A stream that starts behind, or whose totals take long, has its first interval from now."""
        position.marked_at = self._clock.monotonic()
        return False

    def _message(self, question: _Question, position: _Position, found: _Found) -> event_pb2.WatchEventsResponse | None:
        if not found.events and not found.marked:
            return None
        message = event_pb2.WatchEventsResponse()
        for event in found.events:
            fill_event(message.events.add(), event)
        if found.marked:
            position.marked_revision = found.page.cursor if found.trees else -1
            position.marked_at = self._clock.monotonic()
            message.mark.revision = found.page.cursor
            message.mark.history_id = position.history_id
            set_us(message.mark.mark_time, self._clock.now_us())
            for path, tree in zip(question.roots, found.trees, strict=False):
                root = message.mark.roots.add(path=path)
                if tree is not None:
                    fill_totals(root.totals, tree.row)
                    root.partial = tree.partial
        return message

    async def _news(self, question: _Question, position: _Position, totals: MarkTotals) -> bool:
        """Wait until something may have to be sent; False when that is only a mark."""
        left = question.interval_s - (self._clock.monotonic() - position.marked_at)
        owes_mark = position.cursor != position.marked_revision and not totals.is_gathering
        patience = min(left, QUIET_S) if owes_mark else left
        try:
            async with asyncio.timeout(max(patience, 0)) as until:
                with totals.interrupting(until):
                    await self._reading.feed.wait(question.key.workspace_id, position.cursor)
            return True
        except TimeoutError:
            return False

    def _checked(self, request: event_pb2.WatchEventsRequest) -> _Question:
        checks = Checks()
        checks.workspace(request.workspace_id)
        after = request.after_revision
        checks.require(after >= ONLY_NEW, "after_revision", f"is {after}, and must be -1 or more")
        checks.require(after <= 0 or bool(request.history_id), "history_id", "is required with a cursor")
        check_filter(checks, request.filter)
        checks.at_most(len(request.mark_paths), MARK_PATHS_MAX, "mark_paths", "paths")
        roots = tuple(
            checks.directory_path(raw, f"mark_paths[{index}]")
            for index, raw in enumerate(request.mark_paths[:MARK_PATHS_MAX])
        )
        interval = self._mark_interval_s
        if request.HasField("mark_interval"):
            asked = request.mark_interval.seconds + request.mark_interval.nanos / 1e9
            in_range = MARK_INTERVAL_MIN_S <= asked <= MARK_INTERVAL_MAX_S
            checks.require(in_range, "mark_interval", f"is {asked:g} s, and must be 1 s to 10 s")
            interval = min(asked, self._mark_interval_s)
        checks.done()
        return _Question(
            self._reading.key(request.workspace_id),
            after,
            request.history_id,
            compile_filter(request.filter),
            roots or (ROOT,),
            interval,
            ReadAccess.current(),
            request.partial_digests,
        )


async def _start(snapshot: Snapshot, question: _Question) -> _Position:
    workspace = snapshot.workspace
    if question.history_id and question.history_id != workspace.history_id:
        raise await expired(snapshot)
    cursor = question.after_revision
    if cursor == ONLY_NEW:
        cursor = workspace.revision
    elif cursor == 0:
        cursor = await start_of_log(snapshot)
    elif cursor > workspace.revision:
        checks = Checks()
        checks.refuse("after_revision", f"is {cursor}, after the newest revision {workspace.revision}")
        checks.done()
    return _Position(cursor, workspace.history_id)
