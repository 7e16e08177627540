"""RouteService on running nodes: routes are files of the app's system workspace, and any node answers for all."""

from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio
import pytest

from relayfile import errors
from relayfile.placement import node_of, shard_of
from relayfile.route_file import route_path
from relayfile.status import from_rpc_error
from relayfile.v1 import admin_pb2, event_pb2, route_pb2, types_pb2, workspace_pb2
from tests.support.store_node import SHARDS, TestNode, started_nodes


def named_on(node_index: int, pattern: str) -> str:
    """A workspace, made of `pattern` and a number, that belongs to the node; `_app/...` for apps."""
    names = (pattern.format(number) for number in range(100))
    return next(name for name in names if node_of(shard_of(name, SHARDS), 2) == node_index)


HERE, THERE = named_on(0, "w{}"), named_on(1, "w{}")
APP_HERE, APP_THERE = (named_on(index, "_app/crm-{}").removeprefix("_app/") for index in (0, 1))
TENANTS = ("12345678", "a", "a b", "a-b", "a.b", "Ä/..%", "😀", "z" * 256)


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[list[TestNode]]:
    async with started_nodes(tmp_path, 2, mark_interval_s=0.3) as both:
        await both[0].writer.create_workspace(HERE)
        await both[1].writer.create_workspace(THERE)
        yield both


async def put(
    node: TestNode, app: str, tenant: str, workspace: str = HERE, **more: object
) -> route_pb2.PutRouteResponse:
    request = route_pb2.PutRouteRequest(app=app, tenant=tenant, workspace_id=workspace, **more)  # type: ignore[arg-type]
    return await node.client.routes.PutRoute(request, metadata=node.client.metadata, timeout=5)


async def delete(node: TestNode, app: str, tenant: str, **more: object) -> int:
    request = route_pb2.DeleteRouteRequest(app=app, tenant=tenant, **more)  # type: ignore[arg-type]
    return (await node.client.routes.DeleteRoute(request, metadata=node.client.metadata, timeout=5)).revision


async def get(node: TestNode, app: str, tenant: str, min_revision: int = 0, patience_s: float = 5) -> route_pb2.Route:
    request = route_pb2.GetRouteRequest(app=app, tenant=tenant, min_revision=min_revision)
    return (await node.client.routes.GetRoute(request, metadata=node.client.metadata, timeout=patience_s)).route


async def listing(
    node: TestNode, app: str, page_size: int = 0, workspace: str = ""
) -> tuple[list[route_pb2.Route], route_pb2.ListRoutesResponse]:
    """All pages' routes, and the first page."""
    found: list[route_pb2.Route] = []
    first: route_pb2.ListRoutesResponse | None = None
    token = ""
    while True:
        request = route_pb2.ListRoutesRequest(app=app, page_size=page_size, page_token=token, workspace_id=workspace)
        page = await node.client.routes.ListRoutes(request, metadata=node.client.metadata, timeout=5)
        first = first or page
        assert (page.revision, page.history_id) == (first.revision, first.history_id)
        found += page.routes
        token = page.next_page_token
        if not token:
            return found, first


async def refusal(call: object) -> errors.RelayfileError:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call  # type: ignore[misc]
    return from_rpc_error(raised.value)


@pytest.mark.parametrize("app", [APP_HERE, APP_THERE])
async def test_a_route_lives_from_put_to_delete_wherever_its_app_is(nodes: list[TestNode], app: str) -> None:
    node = nodes[0]
    assert await listing(node, app) == ([], route_pb2.ListRoutesResponse())
    made = await put(node, app, "t", THERE)
    assert (made.created, made.route.revision, made.replayed_dead_letter_count) == (True, 1, 0)
    assert made.route.create_time == made.route.modify_time
    assert await get(nodes[1], app, "t", min_revision=1) == made.route
    again = await put(nodes[1], app, "t", THERE)
    assert (again.created, again.route) == (False, made.route)
    changed = await put(node, app, "t", HERE)
    assert (changed.created, changed.route.revision, changed.route.workspace_id) == (False, 2, HERE)
    assert changed.route.create_time == made.route.create_time
    assert changed.route.modify_time.ToNanoseconds() > made.route.modify_time.ToNanoseconds()
    assert await delete(node, app, "t") == 3
    assert isinstance(await refusal(get(node, app, "t")), errors.RouteNotFound)
    assert isinstance(await refusal(delete(node, app, "t")), errors.RouteNotFound)
    found, first = await listing(node, app)
    assert (found, first.revision) == ([], 3)


async def test_if_revision(nodes: list[TestNode]) -> None:
    node = nodes[0]
    cases: list[tuple[int | None, int | None]] = []
    error = await refusal(put(node, APP_HERE, "t", if_revision=7))
    assert isinstance(error, errors.RevisionConflict)
    cases.append((error.expected, error.current))
    assert (await put(node, APP_HERE, "t", if_revision=0)).route.revision == 1
    for workspace in (HERE, THERE):
        for expected in (0, 9):
            error = await refusal(put(node, APP_HERE, "t", workspace, if_revision=expected))
            assert isinstance(error, errors.RevisionConflict)
            cases.append((error.expected, error.current))
    assert cases == [(7, 0), (0, 1), (9, 1), (0, 1), (9, 1)]
    assert (await put(node, APP_HERE, "t", THERE, if_revision=1)).route.revision == 2
    assert isinstance(await refusal(delete(node, APP_HERE, "t", if_revision=1)), errors.RevisionConflict)
    assert await delete(node, APP_HERE, "t", if_revision=2) == 3
    assert isinstance(await refusal(delete(node, APP_HERE, "t", if_revision=2)), errors.RouteNotFound)


async def test_routes_are_listed_by_tenant_in_pages(nodes: list[TestNode]) -> None:
    node = nodes[0]
    for number, tenant in enumerate(TENANTS):
        await put(node, APP_THERE, tenant, THERE if number % 2 else HERE)
    for size in (0, 3, 1):
        found, first = await listing(node, APP_THERE, size)
        assert [route.tenant for route in found] == sorted(TENANTS)
        assert first.revision == len(TENANTS)
    of_one, _ = await listing(node, APP_THERE, 2, workspace=THERE)
    assert [route.tenant for route in of_one] == sorted(TENANTS[1::2])
    page = route_pb2.ListRoutesRequest(app=APP_THERE, page_size=1)
    token = (await node.client.routes.ListRoutes(page, metadata=node.client.metadata)).next_page_token
    other = route_pb2.ListRoutesRequest(app=APP_HERE, page_token=token)
    error = await refusal(node.client.routes.ListRoutes(other, metadata=node.client.metadata))
    assert isinstance(error, errors.PageTokenInvalid)


async def test_a_page_that_follows_begins_where_the_first_one_was(nodes: list[TestNode]) -> None:
    node = nodes[0]
    for tenant in ("a", "c"):
        await put(node, APP_HERE, tenant)
    request = route_pb2.ListRoutesRequest(app=APP_HERE, page_size=1)
    page = await node.client.routes.ListRoutes(request, metadata=node.client.metadata)
    await put(node, APP_HERE, "b")
    request.page_token = page.next_page_token
    following = await node.client.routes.ListRoutes(request, metadata=node.client.metadata)
    assert (page.revision, following.revision, following.history_id) == (2, 2, page.history_id)
    assert [route.tenant for route in following.routes] == ["b"]


async def test_events_tell_of_every_change(nodes: list[TestNode]) -> None:
    node = nodes[0]
    metadata = (*node.client.metadata, ("x-correlation-id", "why"))
    request = route_pb2.PutRouteRequest(app=APP_THERE, tenant="t", workspace_id=HERE)
    await node.client.routes.PutRoute(request, metadata=metadata)
    await put(node, APP_THERE, "t", THERE)
    await delete(node, APP_THERE, "t")
    answer = await node.client.events.ListEvents(
        event_pb2.ListEventsRequest(workspace_id=f"_app/{APP_THERE}"), metadata=node.client.metadata
    )
    assert [(event.revision, event.type, event.path) for event in answer.events] == [
        (1, event_pb2.EVENT_TYPE_FILE_CREATED, route_path("t")),
        (2, event_pb2.EVENT_TYPE_FILE_UPDATED, route_path("t")),
        (3, event_pb2.EVENT_TYPE_FILE_DELETED, route_path("t")),
    ]
    assert {event.origin for event in answer.events} == {types_pb2.ORIGIN_SYSTEM}
    assert answer.events[0].correlation_id == "why"


async def test_a_repeat_gets_the_first_answer_and_what_was_ordered_is_recorded(nodes: list[TestNode]) -> None:
    node = nodes[0]
    made = await put(node, APP_THERE, "t", reason="new customer", request_id="1")
    await put(node, APP_THERE, "t", THERE)
    assert await put(node, APP_THERE, "t", reason="new customer", request_id="1") == made
    assert (await get(node, APP_THERE, "t")).workspace_id == THERE
    error = await refusal(put(node, APP_THERE, "u", reason="new customer", request_id="1"))
    assert isinstance(error, errors.RequestIdReused)
    assert await delete(node, APP_THERE, "t", request_id="1") == 3
    assert await delete(node, APP_THERE, "t", request_id="1") == 3
    listed = await node.client.admin.ListAdminActions(
        admin_pb2.ListAdminActionsRequest(workspace_id=f"_app/{APP_THERE}"), metadata=node.client.metadata
    )
    assert [(action.method.rpartition("/")[2], action.reason, action.actor) for action in listed.actions] == [
        ("DeleteRoute", "", "test"),
        ("PutRoute", "", "test"),
        ("PutRoute", "new customer", "test"),
    ]
    assert {action.subject for action in listed.actions} == {"tenant 't'"}


async def test_the_workspace_must_exist_at_its_owner(nodes: list[TestNode]) -> None:
    node = nodes[0]
    for index in (0, 1):
        missing = named_on(index, "missing-{}")
        error = await refusal(put(node, APP_HERE, "t", missing))
        assert isinstance(error, errors.WorkspaceNotFound)
        assert error.workspace == missing
    await nodes[1].stop()
    assert isinstance(await refusal(put(node, APP_HERE, "t", THERE)), errors.Unavailable)
    assert isinstance(await refusal(put(node, APP_THERE, "t", HERE)), errors.Unavailable)
    assert (await put(node, APP_HERE, "t", HERE)).created


@pytest.mark.parametrize(
    ("request_", "fields"),
    [
        (route_pb2.PutRouteRequest(), ["app", "tenant", "workspace_id"]),
        (
            route_pb2.PutRouteRequest(
                app="A b",
                tenant="t\n",
                workspace_id="_app/x",
                if_revision=-1,
                reason="r" * 1_001,
                request_id="i" * 129,
            ),
            ["app", "tenant", "workspace_id", "if_revision", "reason", "request_id"],
        ),
        (route_pb2.PutRouteRequest(app="a" * 65, tenant="é" * 129, workspace_id="w"), ["app", "tenant"]),
        (route_pb2.DeleteRouteRequest(if_revision=0), ["app", "tenant", "if_revision"]),
        (route_pb2.GetRouteRequest(app="x", min_revision=-1), ["tenant", "min_revision"]),
        (
            route_pb2.ListRoutesRequest(workspace_id="_x", page_size=-1, min_revision=-1),
            ["app", "workspace_id", "page_size", "min_revision"],
        ),
    ],
)
async def test_all_that_is_wrong_is_said_at_once(nodes: list[TestNode], request_: object, fields: list[str]) -> None:
    method = type(request_).__name__.removesuffix("Request")
    error = await refusal(getattr(nodes[0].client.routes, method)(request_, metadata=nodes[0].client.metadata))
    assert isinstance(error, errors.InvalidArgument)
    assert [violation.field for violation in error.violations] == fields


async def test_a_caller_that_follows_the_map_learns_the_owner(nodes: list[TestNode]) -> None:
    metadata = (*nodes[0].client.metadata, ("relayfile-routing", "direct"))
    request = route_pb2.GetRouteRequest(app=APP_THERE, tenant="t")
    error = await refusal(nodes[0].client.routes.GetRoute(request, metadata=metadata))
    assert isinstance(error, errors.NotOwner)
    assert error.address == nodes[1].address


async def test_waiting_for_a_revision(nodes: list[TestNode]) -> None:
    node = nodes[0]
    assert isinstance(await refusal(get(node, APP_HERE, "t", min_revision=1, patience_s=0.2)), errors.DeadlineExpired)
    await put(node, APP_HERE, "t")
    assert (await get(node, APP_HERE, "t", min_revision=1)).revision == 1


async def test_system_workspaces_are_not_for_users(nodes: list[TestNode]) -> None:
    node = nodes[0]
    request = workspace_pb2.CreateWorkspaceRequest(workspace_id=f"_app/{APP_HERE}")
    error = await refusal(node.client.workspaces.CreateWorkspace(request, metadata=node.client.metadata))
    assert isinstance(error, errors.InvalidArgument)
    stranger = node.caller([HERE])
    call = stranger.routes.PutRoute(
        route_pb2.PutRouteRequest(app=APP_HERE, tenant="t", workspace_id=HERE), metadata=stranger.metadata
    )
    assert isinstance(await refusal(call), errors.PermissionDenied)
    await stranger.channel.close()


async def test_routes_are_there_after_a_restart(tmp_path: Path) -> None:
    async with started_nodes(tmp_path) as [node]:
        await node.writer.create_workspace(HERE)
        made = await put(node, "crm", "t", request_id="1")
    async with started_nodes(tmp_path) as [node]:
        assert await get(node, "crm", "t") == made.route
        assert await put(node, "crm", "t", request_id="1") == made
