"""The log of one workspace: pages of it, and following it over every cut."""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from types import TracebackType
from typing import Final, Self

from google.protobuf.duration_pb2 import Duration
from grpc.aio import Channel

from relayfile.client.calls import Calls, Metadata, Reading
from relayfile.client.values import Cursor, Event, EventFilter
from relayfile.client.wire import event_filter, event_of
from relayfile.v1 import event_pb2, workspace_pb2
from relayfile.v1.event_pb2_grpc import EventServiceStub
from relayfile.v1.workspace_pb2_grpc import WorkspaceServiceStub

MARK_INTERVAL_S: Final = 10
SILENCE_MAX_S: Final = 30.0
"""A node sends a mark at least every ten seconds: a stream that is silent for three of them is dead."""
ALL: Final = EventFilter()
START: Final = Cursor(0, "")
"""The oldest event that is kept, of the present history."""


class Watch:
    """Events after a cursor, each once and in order, for as long as it is iterated. Use it as `async with`.

    `cursor` is where to go on another day: behind the event that was yielded last, or further where nothing that was
    asked for happened. Keep it after an event was dealt with.
    """

    def __init__(self, events: "Events", after: Cursor | None, chosen: EventFilter) -> None:
        self._events = events
        self._filter = chosen
        self._after = after
        self._running: AsyncGenerator[Event, None] | None = None
        self.cursor = START if after is None else after

    async def __aenter__(self) -> Self:
        """Raises `WorkspaceNotFound`, and what reaching a node raises."""
        if not self.cursor.history_id:
            present = await self._events.present()
            self.cursor = present if self._after is None else Cursor(self.cursor.revision, present.history_id)
        self._running = self._follow()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._running is not None:
            await self._running.aclose()

    def __aiter__(self) -> AsyncIterator[Event]:
        """`CursorExpired` where the log no longer reaches back: list or audit, and watch from the present."""
        assert self._running is not None, "a watch is used as `async with`"
        return self._running

    async def _follow(self) -> AsyncGenerator[Event, None]:
        async with contextlib.aclosing(self._events.stream(self._request)) as messages:
            async for message in messages:
                for event in message.events:
                    self.cursor = Cursor(event.revision, self.cursor.history_id)
                    yield event_of(event)
                if message.HasField("mark"):
                    self.cursor = Cursor(message.mark.revision, message.mark.history_id)

    def _request(self, workspace_id: str) -> event_pb2.WatchEventsRequest:
        return event_pb2.WatchEventsRequest(
            workspace_id=workspace_id,
            after_revision=self.cursor.revision,
            history_id=self.cursor.history_id,
            filter=event_filter(self._filter),
            mark_interval=Duration(seconds=MARK_INTERVAL_S),
        )


class Events:
    """Events of one workspace, as far as the caller may see them."""

    def __init__(self, calls: Calls, channel: Channel, workspace_id: str) -> None:
        self._calls = calls
        self._stub = EventServiceStub(channel)
        self._workspaces = WorkspaceServiceStub(channel)
        self._workspace_id = workspace_id

    async def present(self) -> Cursor:
        """Where the log ends now."""
        request = workspace_pb2.GetWorkspaceRequest(workspace_id=self._workspace_id)
        found = (await self._calls.unary(self._workspaces.GetWorkspace, request)).workspace
        return Cursor(found.revision, found.history_id)

    async def list(
        self, after: Cursor = START, chosen: EventFilter = ALL, *, page_size: int = 0
    ) -> AsyncIterator[Event]:
        """What is committed after a cursor, and no waiting for more. `CursorExpired`."""
        request = event_pb2.ListEventsRequest(
            workspace_id=self._workspace_id,
            after_revision=after.revision,
            history_id=after.history_id,
            filter=event_filter(chosen),
            page_size=page_size,
        )
        while True:
            page = await self._calls.unary(self._stub.ListEvents, request)
            for event in page.events:
                yield event_of(event)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def watch(self, after: Cursor | None = None, chosen: EventFilter = ALL) -> Watch:
        """Follow the log after a cursor; `START`: all that is kept; None: only what is new."""
        return Watch(self, after, chosen)

    def stream(
        self, request: Callable[[str], event_pb2.WatchEventsRequest]
    ) -> AsyncGenerator[event_pb2.WatchEventsResponse, None]:
        """Messages of a watch without end; `request` says from where, each time that it is opened."""

        def opened(metadata: Metadata) -> Reading[event_pb2.WatchEventsResponse]:
            return self._stub.WatchEvents(request(self._workspace_id), metadata=metadata)

        return self._calls.messages(opened, ended=lambda _: False, silence_max_s=SILENCE_MAX_S)
