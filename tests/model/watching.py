"""Watchers of a workspace's events that are cut off and go on where they were, and what each should have been told."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import grpc
import grpc.aio

from relayfile.auth import ALL
from relayfile.v1 import event_pb2, types_pb2
from tests.model.driver import Driver
from tests.model.wire import event_of
from tests.model.workspace import ACCESS, AGENT, CREATED, DELETED, UPDATED, Event
from tests.support.writeback import PROVIDER, W

if TYPE_CHECKING:
    from relayfile.v1.event_pb2_grpc import EventServiceAsyncStub

_GONE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
"""What a stream ends with when its node does."""
PATIENCE_S = 20.0
TreeDigest = tuple[int, int, bytes]


@dataclass(frozen=True, slots=True)
class Interest:
    """What a watcher asks for; what is empty lets everything pass."""

    path_globs: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    providers: tuple[str, ...] = ()
    directory: str = ""
    """All that the watcher may read; empty: everything."""

    def told(self, events: Sequence[Event]) -> list[Event]:
        """What it should hear of these events."""
        return [self._as_seen(event) for event in events if self._passes(event)]

    def message(self) -> event_pb2.EventFilter:
        """For the API."""
        return event_pb2.EventFilter(
            path_globs=self.path_globs,
            types=[event_pb2.EventType.Value("EVENT_TYPE_" + each.upper()) for each in self.types],
            origins=[types_pb2.Origin.Value("ORIGIN_" + each.upper()) for each in self.origins],
            providers=self.providers,
        )

    def _passes(self, event: Event) -> bool:
        provider = "" if event.origin == AGENT else PROVIDER
        return (
            (not self.path_globs or any(re.fullmatch(_pattern(glob), event.path) for glob in self.path_globs))
            and (not self.types or event.type in self.types)
            and (not self.origins or event.origin in self.origins)
            and (not self.providers or provider in self.providers)
            and (self._may_read(event.path) or self._is_below(event))
        )

    def _is_below(self, event: Event) -> bool:
        """A rule above what the watcher may read has changed who reads that."""
        return event.type == ACCESS and (self.directory + "/").startswith(event.path.rstrip("/") + "/")

    def _may_read(self, path: str) -> bool:
        return not self.directory or path == self.directory or path.startswith(self.directory + "/")

    def _as_seen(self, event: Event) -> Event:
        moved_to = event.moved_to if self._may_read(event.moved_to) else ""
        return replace(
            event, moved_to=moved_to, moved_from=event.moved_from if self._may_read(event.moved_from) else ""
        )


INTERESTS = (
    Interest(),
    Interest(path_globs=("/a/**",), types=(CREATED, DELETED)),
    Interest(path_globs=("/*/*.json", "**/.relayfile.acl"), origins=("provider", "agent")),
    Interest(types=("writeback_succeeded", "writeback_superseded", UPDATED), providers=(PROVIDER,)),
    Interest(directory="/linear"),
)


@dataclass(slots=True)
class Watcher:
    """One watcher, over all of its streams."""

    driver: Driver
    interest: Interest
    started_at: int
    """The revision after which it began."""
    cursor: int = field(init=False)
    """Of the last event or mark."""
    told: list[Event] = field(default_factory=list)
    marks: list[tuple[int, TreeDigest]] = field(default_factory=list)
    heard: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    def __post_init__(self) -> None:
        self.cursor = self.started_at

    def resume(self) -> None:
        """Watch on from the cursor, unless it watches."""

        async def resumed() -> None:
            self.task = asyncio.create_task(self._watch(), name="model-watcher")
            self.driver.listeners.add(self.task)
            self.task.add_done_callback(self.driver.listeners.discard)

        if self.task is None or self.task.done():
            self.cut()
            self.driver.wait(resumed())

    def cut(self) -> None:
        """The connection is gone."""
        task, self.task = self.task, None
        if task is not None:
            task.cancel()
            self.driver.wait(asyncio.wait([task]))
            if not task.cancelled():
                task.result()

    def level(self, events: Sequence[Event]) -> None:
        """Wait until it was told of all these."""
        expected = self.interest.told(events[self.started_at :])
        self.resume()

        async def heard() -> None:
            async with asyncio.timeout(PATIENCE_S):
                while len(self.told) < len(expected) and self.task is not None and not self.task.done():
                    self.heard.clear()
                    await self.heard.wait()

        self.driver.wait(heard())
        if self.task is not None and self.task.done():
            self.cut()
        assert self.told == expected, (self.interest, set(self.told) ^ set(expected))

    def check(self, events: Sequence[Event], digests: Mapping[int, TreeDigest]) -> None:
        """What it was told so far is the beginning of what it should be told, and every mark is true."""
        expected = self.interest.told(events[self.started_at :])
        assert self.told == expected[: len(self.told)]
        known = [each for each in expected if each.revision <= self.cursor]
        assert len(known) <= len(self.told), "a mark or an event came before what it follows"
        for revision, totals in self.marks:
            assert digests.get(revision, totals) == totals, f"mark of {revision}"
        self.marks.clear()

    async def _watch(self) -> None:
        stage, narrow = self.driver.stage, self.interest.directory
        metadata = stage.client.metadata
        if narrow:
            scopes = (f"relayfile:fs:read:{narrow}/**",)
            token = stage.node.signer.mint("agent-2", workspaces=ALL, ttl_s=3600, scopes=scopes)
            metadata = (("authorization", f"Bearer {token}"),)
        events: EventServiceAsyncStub = stage.client.events
        try:
            listed = await events.ListEvents(
                event_pb2.ListEventsRequest(workspace_id=W, page_size=1), metadata=stage.client.metadata
            )
            request = event_pb2.WatchEventsRequest(
                workspace_id=W,
                after_revision=self.cursor,
                history_id=listed.history_id,
                filter=self.interest.message(),
                partial_digests=not narrow,
            )
            async for message in events.WatchEvents(request, metadata=metadata):
                self._take(message)
                self.heard.set()
        except grpc.aio.AioRpcError as error:
            if error.code() not in _GONE:
                raise
        finally:
            self.heard.set()

    def _take(self, message: event_pb2.WatchEventsResponse) -> None:
        for event in message.events:
            self.told.append(event_of(event))
            self.cursor = event.revision
        if message.HasField("mark"):
            assert message.mark.revision >= self.cursor
            self.cursor = message.mark.revision
            for root in message.mark.roots:
                if root.HasField("totals"):
                    totals = root.totals
                    self.marks.append((self.cursor, (totals.file_count, totals.total_bytes, totals.digest)))


def _pattern(glob: str) -> str:
    parts = glob.removeprefix("/").split("/")
    return "".join(
        "(?:/[^/]+)*" if part == "**" else "/" + "[^/]*".join(map(re.escape, part.split("*"))) for part in parts
    )
