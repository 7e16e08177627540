"""RouteService: which workspace a customer of an app has.

Owns the checks of requests, and reading routes from the files of the app's system workspace, which need not exist: an
app without routes has none. Changes are `relayfile.store.routes`' business.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from relayfile.errors import DeadlineExpired, PageTokenInvalid, RouteNotFound
from relayfile.interception import current_call
from relayfile.page_token import seal, unseal
from relayfile.placement import app_workspace, check_workspace_id
from relayfile.route_file import ROUTES, RouteFile, check_app, check_tenant, read_route, route_path
from relayfile.store.engine import TreeView, WorkspaceKey
from relayfile.store.existence import WorkspaceExistence
from relayfile.store.once import RequestMark, mark_of
from relayfile.store.order import Order, current_order
from relayfile.store.plan.file_write import MUST_NOT_EXIST
from relayfile.store.plan.rows import FileRow, WorkspaceRow
from relayfile.store.routes import RouteChange, RouteChanged
from relayfile.store.servicers.checks import Checks
from relayfile.store.servicers.reading import Reading, TimeLeft
from relayfile.v1 import route_pb2, route_pb2_grpc
from relayfile.wire import set_us

if TYPE_CHECKING:
    from relayfile.interception import Context

PAGE_DEFAULT = 1_000
PAGE_MAX = 10_000
_SLICE_FILES = 1_000
"""Routes read without a pause: about 5 ms."""
_PAGE_FILES_MAX = 20_000
"""Looked at for one page that is for one workspace only."""


class RouteStore(Protocol):
    """Changes routes, durably."""

    async def change(self, app: str, change: RouteChange, mark: RequestMark | None) -> RouteChanged:
        """The route after it, once it is on disk. `RevisionConflict`, `RouteNotFound`, `RequestIdReused`."""
        ...


@dataclass(frozen=True, slots=True)
class _Position:
    """Where a listing is, and where it began."""

    after: str = ""
    revision: int = 0
    history_id: str = ""


class RouteService(route_pb2_grpc.RouteServiceServicer):
    """Routes of the apps whose system workspaces this node owns."""

    def __init__(self, reading: Reading, store: RouteStore, existence: WorkspaceExistence) -> None:
        self._reading = reading
        self._store = store
        self._existence = existence

    async def PutRoute(self, request: route_pb2.PutRouteRequest, context: "Context") -> route_pb2.PutRouteResponse:
        checks = Checks()
        _check_names(checks, request.app, request.tenant)
        why = check_workspace_id(request.workspace_id) if request.workspace_id else "is required"
        if why is not None:
            checks.refuse("workspace_id", why)
        checks.not_negative(request.if_revision, "if_revision")
        _check_order(checks, request.reason, request.request_id)
        checks.done()
        await self._existence.require(request.workspace_id)
        change = RouteChange(
            request.tenant,
            request.workspace_id,
            request.if_revision if request.HasField("if_revision") else None,
            *_caller(request.reason, request.request_id),
        )
        mark = mark_of("relayfile.v1.RouteService/PutRoute", request)
        changed = await self._store.change(request.app, change, mark)
        answer = route_pb2.PutRouteResponse(created=changed.created, replayed_dead_letter_count=changed.replayed_count)
        route = RouteFile(request.tenant, changed.workspace_id, changed.created_us)
        _fill(answer.route, request.app, route, changed.revision, changed.modified_us)
        return answer

    async def DeleteRoute(
        self, request: route_pb2.DeleteRouteRequest, context: "Context"
    ) -> route_pb2.DeleteRouteResponse:
        checks = Checks()
        _check_names(checks, request.app, request.tenant)
        expected = request.if_revision if request.HasField("if_revision") else None
        checks.require(
            expected is None or expected > MUST_NOT_EXIST,
            "if_revision",
            f"is {expected}, and must be the revision of a route, or absent",
        )
        _check_order(checks, request.reason, request.request_id)
        checks.done()
        change = RouteChange(request.tenant, "", expected, *_caller(request.reason, request.request_id))
        mark = mark_of("relayfile.v1.RouteService/DeleteRoute", request)
        changed = await self._store.change(request.app, change, mark)
        return route_pb2.DeleteRouteResponse(revision=changed.revision)

    async def GetRoute(self, request: route_pb2.GetRouteRequest, context: "Context") -> route_pb2.GetRouteResponse:
        checks = Checks()
        _check_names(checks, request.app, request.tenant)
        checks.not_negative(request.min_revision, "min_revision")
        checks.done()
        key = self._reading.key(app_workspace(request.app))
        await self._reached(key, request.min_revision, context)
        async with self._reading.engine.view(key) as view:
            row = await view.file(route_path(request.tenant))
            routes = [] if row is None else await _routes(view, [row])
        if row is None:
            raise RouteNotFound(app=request.app, tenant=request.tenant)
        answer = route_pb2.GetRouteResponse()
        _fill(answer.route, request.app, routes[0], row.revision, row.modified_us)
        return answer

    async def ListRoutes(
        self, request: route_pb2.ListRoutesRequest, context: "Context"
    ) -> route_pb2.ListRoutesResponse:
        checks = Checks()
        _check_app(checks, request.app)
        if request.workspace_id and (why := check_workspace_id(request.workspace_id)) is not None:
            checks.refuse("workspace_id", why)
        size = checks.page_size(request.page_size, PAGE_DEFAULT, PAGE_MAX)
        checks.page_token(request.page_token)
        checks.not_negative(request.min_revision, "min_revision")
        checks.done()
        binding = ("ListRoutes", request.app, request.workspace_id)
        key = self._reading.key(app_workspace(request.app))
        position = _unsealed(unseal(binding, request.page_token))
        await self._reached(key, request.min_revision, context)
        answer = route_pb2.ListRoutesResponse()
        after = await self._fill_page(key, answer, request, position, size)
        if after:
            token = f"{answer.revision} {answer.history_id} {after}"
            answer.next_page_token = seal(binding, token)
        return answer

    async def _fill_page(
        self,
        key: WorkspaceKey,
        answer: route_pb2.ListRoutesResponse,
        request: route_pb2.ListRoutesRequest,
        position: _Position | None,
        size: int,
    ) -> str:
        """The path after which the next page goes on; empty at the end.

        Slices of a page may be of different revisions, as pages are: the events after the first one tell the rest.
        """
        after = "" if position is None else position.after
        looked_at = 0
        while len(answer.routes) < size and looked_at < max(size, _PAGE_FILES_MAX):
            limit = min(_SLICE_FILES, size - len(answer.routes))
            async with self._reading.engine.view(key) as view:
                workspace = await view.workspace()
                position = position or _beginning(workspace)
                if workspace is not None and position.history_id != workspace.history_id:
                    raise PageTokenInvalid(why="the app's routes have another history since")
                rows = await view.list_files(ROUTES, after, limit)
                routes = await _routes(view, rows)
            for row, route in zip(rows, routes, strict=True):
                if request.workspace_id in ("", route.workspace_id):
                    _fill(answer.routes.add(), request.app, route, row.revision, row.modified_us)
            answer.revision, answer.history_id = position.revision, position.history_id
            if len(rows) < limit:
                return ""
            after = rows[-1].path
            looked_at += len(rows)
            await asyncio.sleep(0)
        return after

    async def _reached(self, key: WorkspaceKey, min_revision: int, call: TimeLeft) -> None:
        """As `Reading.reached`, of a workspace that its first route will make."""
        if min_revision <= 0:
            return
        remaining = call.time_remaining()
        try:
            async with asyncio.timeout(self._reading.wait_s_max if remaining is None else remaining):
                while (revision := await self._revision(key)) < min_revision:
                    await self._reading.feed.wait(key.workspace_id, revision)
        except TimeoutError:
            raise DeadlineExpired(what=f"revision {min_revision} of workspace {key.workspace_id!r}") from None

    async def _revision(self, key: WorkspaceKey) -> int:
        async with self._reading.engine.view(key) as view:
            workspace = await view.workspace()
        return 0 if workspace is None else workspace.revision


def _check_app(checks: Checks, app: str) -> None:
    why = check_app(app) if app else "is required"
    if why is not None:
        checks.refuse("app", why)


def _check_names(checks: Checks, app: str, tenant: str) -> None:
    _check_app(checks, app)
    if (why := check_tenant(tenant)) is not None:
        checks.refuse("tenant", why)


def _check_order(checks: Checks, reason: str, request_id: str) -> None:
    checks.reason(reason)
    checks.request_id(request_id)


def _caller(reason: str, request_id: str) -> tuple[Order, str]:
    return current_order(reason, request_id), current_call().traceparent


def _beginning(workspace: WorkspaceRow | None) -> _Position:
    return _Position() if workspace is None else _Position("", workspace.revision, workspace.history_id)


def _unsealed(token: str) -> _Position | None:
    """None: the first page."""
    if not token:
        return None
    revision, history_id, after = token.split(" ", 2)
    return _Position(after, int(revision), history_id)


async def _routes(view: TreeView, rows: Sequence[FileRow]) -> list[RouteFile]:
    contents = await view.contents([row.content_id for row in rows])
    return [read_route(contents[row.content_id]) for row in rows]


def _fill(into: route_pb2.Route, app: str, route: RouteFile, revision: int, modified_us: int) -> None:
    into.app = app
    into.tenant = route.tenant
    into.workspace_id = route.workspace_id
    into.revision = revision
    set_us(into.create_time, route.created_us)
    set_us(into.modify_time, modified_us)
