"""What ingest asks of the store about routes: the list, what changes in it, and single ones.

Owns the calls, their deadlines, and that a stream which says nothing for 30 s is dead. Statuses become our errors.
Refuses to retry and to remember: the follower does.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple

import grpc
import grpc.aio

from relayfile.errors import DeadlineExpired, RouteNotFound, Unavailable
from relayfile.ingest.spool.spool_routes import RoutesAt
from relayfile.pinned_json import NotJson
from relayfile.placement import app_workspace
from relayfile.route_file import ROUTES, read_route, tenant_of
from relayfile.status import from_rpc_error
from relayfile.v1 import event_pb2, file_pb2, route_pb2
from relayfile.v1.event_pb2_grpc import EventServiceStub
from relayfile.v1.file_pb2_grpc import FileServiceStub
from relayfile.v1.route_pb2_grpc import RouteServiceStub

SILENCE_S_MAX: Final = 30.0
"""A stream that is silent for so long is dead: marks come at least every 10 s."""
PAGE_ROUTES: Final = 10_000
Metadata = tuple[tuple[str, str], ...]


class RoutesPage(NamedTuple):
    """A part of an app's routes."""

    routes: Sequence[tuple[str, str]]
    """Tenant and workspace."""
    at: RoutesAt | None
    """Where the list began; None while the app has no system workspace."""


class RouteNews(NamedTuple):
    """What happened to an app's routes, in order."""

    puts: Sequence[tuple[str, str]]
    drops: Sequence[str]
    at: RoutesAt


class RouteFeed:
    """Routes as the store has them."""

    def __init__(
        self,
        channel_to: Callable[[str], grpc.aio.Channel],
        metadata: Callable[[], Metadata],
        call_timeout_s: float,
    ) -> None:
        """``channel_to`` gives the channel to a workspace's owner."""
        self._channel_to = channel_to
        self._metadata = metadata
        self._call_timeout_s = call_timeout_s

    async def first_route(self, app: str) -> None:
        """Return when the app has, or had, a route; at the latest after 30 s."""
        request = route_pb2.ListRoutesRequest(app=app, page_size=1, min_revision=1)
        try:
            await self._list(request, SILENCE_S_MAX)
        except DeadlineExpired:
            return

    async def pages(self, app: str) -> AsyncIterator[RoutesPage]:
        """All routes, page after page."""
        token = ""
        while True:
            request = route_pb2.ListRoutesRequest(app=app, page_size=PAGE_ROUTES, page_token=token)
            answer = await self._list(request, self._call_timeout_s)
            at = RoutesAt(answer.revision, answer.history_id) if answer.history_id else None
            yield RoutesPage([(route.tenant, route.workspace_id) for route in answer.routes], at)
            token = answer.next_page_token
            if not token:
                return

    async def news(self, app: str, at: RoutesAt) -> AsyncIterator[RouteNews]:
        """What is committed after ``at``, as it is committed. Ends only with an error, such as `CursorExpired`."""
        workspace_id = app_workspace(app)
        request = event_pb2.WatchEventsRequest(
            workspace_id=workspace_id, after_revision=at.revision, history_id=at.history_id, mark_paths=[ROUTES]
        )
        request.filter.path_globs.append(f"{ROUTES}/*")
        stub = EventServiceStub(self._channel_to(workspace_id))
        call = stub.WatchEvents(request, metadata=self._metadata())
        try:
            source = aiter(call)
            while True:
                message = await _next(source)
                changed = {tenant: event for event in message.events if (tenant := tenant_of(event.path)) is not None}
                deleted = event_pb2.EVENT_TYPE_FILE_DELETED
                drops = [tenant for tenant, event in changed.items() if event.type == deleted]
                paths = [event.path for event in changed.values() if event.type != deleted]
                puts = await self._read(workspace_id, paths) if paths else []
                # One that is not there any more has a later event, which drops it.
                newest = message.mark.revision if message.HasField("mark") else message.events[-1].revision
                yield RouteNews(puts, drops, RoutesAt(newest, at.history_id))
        finally:
            call.cancel()

    async def workspace_of(self, app: str, tenant: str) -> str | None:
        """The workspace that the store's route leads to now; None: there is no route."""
        stub = RouteServiceStub(self._channel_to(app_workspace(app)))
        request = route_pb2.GetRouteRequest(app=app, tenant=tenant)
        try:
            with _errors():
                answer = await stub.GetRoute(request, metadata=self._metadata(), timeout=self._call_timeout_s)
        except RouteNotFound:
            return None
        return answer.route.workspace_id

    async def _list(self, request: route_pb2.ListRoutesRequest, timeout_s: float) -> route_pb2.ListRoutesResponse:
        stub = RouteServiceStub(self._channel_to(app_workspace(request.app)))
        with _errors():
            return await stub.ListRoutes(request, metadata=self._metadata(), timeout=timeout_s)

    async def _read(self, workspace_id: str, paths: Sequence[str]) -> list[tuple[str, str]]:
        """The routes at these paths, as they are now."""
        stub = FileServiceStub(self._channel_to(workspace_id))
        request = file_pb2.ReadFilesRequest(workspace_id=workspace_id, paths=paths)
        call = stub.ReadFiles(iter([request]), metadata=self._metadata(), timeout=self._call_timeout_s)
        found: list[tuple[str, str]] = []
        with _errors():
            async for message in call:
                for each in message.files:
                    try:
                        route = read_route(each.content)
                    except NotJson as error:
                        raise Unavailable(what=f"route at {each.file.path!r} ({error})") from None
                    found.append((route.tenant, route.workspace_id))
        return found


async def _next(source: AsyncIterator[event_pb2.WatchEventsResponse]) -> event_pb2.WatchEventsResponse:
    try:
        async with asyncio.timeout(SILENCE_S_MAX):
            with _errors():
                return await anext(source)
    except StopAsyncIteration:
        raise Unavailable(what="stream of routes (the store ended it)") from None
    except TimeoutError:
        raise Unavailable(what=f"stream of routes (silent for {SILENCE_S_MAX:g} s)") from None


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from error
