"""Following a workspace: events become journal rows and pending work, in batches, as fast as they come.

A reader takes messages off the stream, bounded in events; whatever has come meanwhile is one batch: learned in one
transaction with the cursor, then brought to disk together. A mark is compared with the journal's own digest.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from opentelemetry.trace import SpanKind

from relayfile.errors import Draining, Unavailable
from relayfile.paths import contains
from relayfile.syncd.audit import AuditResult, compare
from relayfile.syncd.bring import bring_all
from relayfile.syncd.feed import tree_sum
from relayfile.syncd.open_mirror import OpenMirror
from relayfile.syncd.progress import Progress
from relayfile.syncd.refused_writes import learn_refusals
from relayfile.syncd.rows import Cursor, RemoteFile
from relayfile.telemetry.conventions import MIRROR, messaging
from relayfile.telemetry.exemplars import observe
from relayfile.v1 import event_pb2

_WRITTEN: Final = frozenset({event_pb2.EVENT_TYPE_FILE_CREATED, event_pb2.EVENT_TYPE_FILE_UPDATED})
HEALTHY_AFTER_S: Final = 1.0
"""A stream that lived so long is opened anew at once."""


@dataclass(slots=True)
class Burst:
    """Messages that were there together."""

    events: list[event_pb2.Event] = field(default_factory=list)
    mark: event_pb2.Mark | None = None
    """The last one, if nothing came after it."""


class Backlog:
    """Events read ahead of what is on disk: at most ``events_max``, and one message more."""

    def __init__(self, events_max: int) -> None:
        self._events_max = events_max
        self._messages: deque[event_pb2.WatchEventsResponse] = deque()
        self._events = 0
        self._changed = asyncio.Condition()

    async def put(self, message: event_pb2.WatchEventsResponse) -> None:
        """Waits while it is full."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._events < self._events_max)
            self._messages.append(message)
            self._events += len(message.events)
            self._changed.notify_all()

    async def take(self) -> Burst:
        """Everything that is there; waits for the first message."""
        async with self._changed:
            await self._changed.wait_for(lambda: bool(self._messages))
            burst = Burst()
            for message in self._messages:
                burst.events += message.events
                burst.mark = message.mark if message.HasField("mark") else None
            self._messages.clear()
            self._events = 0
            self._changed.notify_all()
            return burst


async def follow(
    mirror: OpenMirror,
    turn: asyncio.Lock,
    progress: Progress,
    told: Callable[[AuditResult | None, bool], Awaitable[None]],
) -> None:
    """Apply events from the journal's cursor on, for ever. ``told`` hears of each batch: of an audit at a mark behind
    it, and whether access changed.

    ``turn`` is held while the journal and the disk are touched. Ends only with an error: the store's, the disk's,
    ``RootLost`` or ``MassDelete``.
    """
    backlog = Backlog(mirror.settings.sync_events_max)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_read(mirror, backlog))
        while True:
            burst = await backlog.take()
            async with turn:
                audited = await take_burst(mirror, burst, progress)
                await told(audited, tells_of_access(burst.events, mirror.remote_paths))


async def take_burst(mirror: OpenMirror, burst: Burst, progress: Progress) -> AuditResult | None:
    """Learn a burst and bring it to disk; the audit, when a mark with digests came at its end."""
    seen = mirror.journal.cursor.revision
    changes = changes_of((event for event in burst.events if event.revision > seen), mirror.remote_paths)
    await learn_refusals(mirror, (event for event in burst.events if event.revision > seen))
    cursor = _cursor_after(mirror.journal.cursor, burst)
    if changes or cursor != mirror.journal.cursor:
        mirror.journal.learn(changes, cursor)
    if changes:
        await _bring(mirror, changes, progress)
    mark = burst.mark
    if mark is None or not mark.roots or mark.revision != mirror.journal.cursor.revision:
        return None
    remote = {root.path or "/": tree_sum(root.totals) for root in mark.roots}
    partial = [root.path or "/" for root in mark.roots if root.partial]
    return compare(mirror, remote, Cursor(mark.revision, mark.history_id), partial)


async def _bring(mirror: OpenMirror, changes: Sequence[RemoteFile], progress: Progress) -> None:
    parents = (change.traceparent for change in changes)
    attributes = messaging("write", "process", "mirror", len(changes))
    with mirror.tracing.batch("write mirror", parents, SpanKind.CONSUMER, attributes) as span:
        span.set(MIRROR, mirror.root.marker.mirror_id)
        await bring_all(mirror, progress, {change.path: change for change in changes})
    now_us = mirror.clock.now_us()
    for change in (changes[0], changes[-1]) if len(changes) > 1 else changes:
        if change.event_time_us:
            lag_s = max(0, now_us - change.event_time_us) / 1e6
            observe(mirror.instruments.event_lag_seconds, lag_s, change.traceparent)


async def _read(mirror: OpenMirror, backlog: Backlog) -> None:
    """Read ahead. Connections end when they are old, and nodes restart: a stream that has lived is opened anew at once
    where it was cut, and nobody hears of it. One that ends soon tells that the store is away.
    """
    cursor = mirror.journal.cursor
    while True:
        began_s = mirror.clock.monotonic()
        try:
            async for message in mirror.feed.watch(cursor, mirror.remote_paths):
                await backlog.put(message)
                mark = message.mark if message.HasField("mark") else None
                cursor = _cursor_after(cursor, Burst(list(message.events), mark))
        except (Unavailable, Draining):
            if mirror.clock.monotonic() - began_s < HEALTHY_AFTER_S:
                raise


def tells_of_access(events: Iterable[event_pb2.Event], roots: Sequence[str]) -> bool:
    """Whether rules changed who may read what at, below or above one of ``roots``."""
    return any(
        event.type == event_pb2.EVENT_TYPE_ACCESS_CHANGED
        and any(contains(root, event.path) or contains(event.path, root) for root in roots)
        for event in events
    )


def changes_of(events: Iterable[event_pb2.Event], roots: Sequence[str]) -> list[RemoteFile]:
    """What events say of files below ``roots``, in order."""
    changes: list[RemoteFile] = []
    for event in events:
        if not any(contains(root, event.path) for root in roots):
            continue
        if event.type in _WRITTEN:
            changes.append(
                RemoteFile(
                    event.path,
                    event.revision,
                    event.content_sha256,
                    event.size_bytes,
                    moved_from=event.moved_from,
                    moved=bool(event.moved_from),
                    traceparent=event.traceparent,
                    event_time_us=event.event_time.ToMicroseconds() if event.HasField("event_time") else 0,
                )
            )
        elif event.type == event_pb2.EVENT_TYPE_FILE_DELETED:
            # Only a move inside the mirror keeps the content here.
            moved = bool(event.moved_to) and any(contains(root, event.moved_to) for root in roots)
            changes.append(RemoteFile(event.path, event.revision, None, moved=moved, traceparent=event.traceparent))
    return changes


def _cursor_after(cursor: Cursor, burst: Burst) -> Cursor:
    revision = max([cursor.revision, *(event.revision for event in burst.events[-1:])])
    if burst.mark is None:
        return Cursor(revision, cursor.history_id)
    return Cursor(max(revision, burst.mark.revision), burst.mark.history_id or cursor.history_id)
