"""EventService: the log in pages, and the stream that follows it.

Owns ListEvents; the stream has a module of its own.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING

from relayfile.clock import Clock
from relayfile.page_token import seal, unseal
from relayfile.store.access import ReadAccess
from relayfile.store.cursor_holds import CursorHolds
from relayfile.store.servicers.checks import Checks
from relayfile.store.servicers.event_filter import check_filter, chosen, compile_filter
from relayfile.store.servicers.event_reading import PAGE_EVENTS, expired, read_log, start_of_log
from relayfile.store.servicers.event_watch import EventWatch
from relayfile.store.servicers.reading import Reading
from relayfile.store.servicers.wire import fill_event
from relayfile.v1 import event_pb2, event_pb2_grpc

if TYPE_CHECKING:
    from relayfile.interception import Context

PAGE_DEFAULT = 1_000
PAGE_MAX = 20_000
LOOKED_AT_MAX = 20_000
"""Events that one call looks at, however few pass its filter."""
PAGE_BYTES_MAX = 3 << 20


class EventService(event_pb2_grpc.EventServiceServicer):
    """Events of this node's workspaces."""

    def __init__(self, reading: Reading, clock: Clock, mark_interval_s: float, holds: CursorHolds) -> None:
        self._reading = reading
        self._watch = EventWatch(reading, clock, mark_interval_s, holds)

    async def ListEvents(
        self, request: event_pb2.ListEventsRequest, context: "Context"
    ) -> event_pb2.ListEventsResponse:
        checks = Checks()
        checks.workspace(request.workspace_id)
        checks.not_negative(request.after_revision, "after_revision")
        check_filter(checks, request.filter)
        size = checks.page_size(request.page_size, PAGE_DEFAULT, PAGE_MAX)
        checks.page_token(request.page_token)
        checks.done()
        passes = compile_filter(request.filter)
        key = self._reading.key(request.workspace_id)
        async with self._reading.snapshot(key) as snapshot:
            history_id = snapshot.workspace.history_id
            if request.history_id not in ("", history_id):
                raise await expired(snapshot)
            filter_text = request.filter.SerializeToString(deterministic=True).hex()
            binding = ("ListEvents", request.workspace_id, history_id, str(request.after_revision), filter_text)
            token = unseal(binding, request.page_token)
            cursor = int(token) if token else request.after_revision or await start_of_log(snapshot)
        access = ReadAccess.current()
        answer = event_pb2.ListEventsResponse(history_id=history_id, revision=cursor)
        looked_at = answer_bytes = 0
        level = False
        while not level and looked_at < LOOKED_AT_MAX and len(answer.events) < size and answer_bytes < PAGE_BYTES_MAX:
            limit = min(PAGE_EVENTS, size - len(answer.events))
            async with self._reading.snapshot(key) as snapshot:
                page = await read_log(snapshot, answer.revision, limit)
                sight = await access.sight(snapshot.view)
                events = await sight.events(chosen(page.events, passes))
            for row in events:
                fill_event(answer.events.add(), row)
            looked_at += len(page.events)
            answer_bytes = answer.ByteSize()
            answer.revision = page.cursor
            level = page.level
            await asyncio.sleep(0)
        if not level:
            answer.next_page_token = seal(binding, str(answer.revision))
        return answer

    async def WatchEvents(
        self, request: event_pb2.WatchEventsRequest, context: "Context"
    ) -> AsyncIterator[event_pb2.WatchEventsResponse]:
        async with aclosing(self._watch.messages(request)) as messages:
            async for message in messages:
                yield message
