"""Ingest's view of routes against running store nodes: listed, followed, read singly; over expiry and restart."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio
import pytest

from relayfile.auth import EVERY_SCOPE
from relayfile.clock import SystemClock
from relayfile.ingest.apps import route_feed
from relayfile.ingest.apps.route_feed import Metadata, RouteFeed
from relayfile.ingest.apps.route_follower import RouteFollower
from relayfile.ingest.apps.route_table import RouteTable
from relayfile.ingest.spool.spool_routes import RoutesAt, RouteUpdate, SavedRoutes
from relayfile.v1 import event_pb2, event_pb2_grpc, route_pb2
from tests.support.store_node import TestNode, started_nodes

TENANTS = ("1", "two", "Ä 3")


class Kept:
    """A spool for routes alone."""

    def __init__(self, saved: SavedRoutes | None = None) -> None:
        self.saved = saved or SavedRoutes({}, None)

    async def add_routes(self, update: RouteUpdate) -> None:
        routes = {tenant: name for tenant, name in self.saved.routes.items() if tenant not in update.drops}
        self.saved = SavedRoutes({**routes, **dict(update.puts)}, update.at)


async def put(node: TestNode, tenant: str, workspace: str = "acme") -> None:
    request = route_pb2.PutRouteRequest(app="crm", tenant=tenant, workspace_id=workspace)
    await node.client.routes.PutRoute(request, metadata=node.client.metadata)


async def delete(node: TestNode, tenant: str) -> None:
    request = route_pb2.DeleteRouteRequest(app="crm", tenant=tenant)
    await node.client.routes.DeleteRoute(request, metadata=node.client.metadata)


def feed_of(node: TestNode) -> RouteFeed:
    token = node.signer.mint("ingest", workspaces="*", ttl_s=3600, scopes=(EVERY_SCOPE,), service="ingest")
    metadata = (("authorization", f"Bearer {token}"),)
    return RouteFeed(lambda _: node.client.channel, lambda: metadata, 5.0)


@asynccontextmanager
async def following(node: TestNode, kept: Kept) -> AsyncIterator[RouteTable]:
    table = RouteTable(1_000)
    follower = RouteFollower("crm", kept.saved, table, feed_of(node), kept, SystemClock())
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(follower.run())
        yield table
        running.cancel()


async def soon(condition: Callable[[], bool]) -> None:
    for _ in range(1_000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came true")


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[list[TestNode]]:
    async with started_nodes(tmp_path, 2, mark_interval_s=0.3) as both:
        for name in ("acme", "bolt"):
            for node in both:
                if node.ownership.epoch_of(node.ownership.owner_of(name).key.shard_id):
                    await node.writer.create_workspace(name)
        yield both


@pytest.mark.parametrize("index", [0, 1])
async def test_routes_are_learned_from_any_node_as_they_change(nodes: list[TestNode], index: int) -> None:
    node, kept = nodes[index], Kept()
    async with following(node, kept) as table:
        await put(nodes[0], TENANTS[0])
        await soon(lambda: table.workspace_of("crm", TENANTS[0]) == "acme")
        for tenant in TENANTS:
            await put(nodes[1], tenant, "bolt")
        await delete(nodes[0], TENANTS[0])
        await soon(lambda: table.of("crm") == {TENANTS[1]: "bolt", TENANTS[2]: "bolt"})
        await soon(lambda: kept.saved.routes == table.of("crm"))
    assert kept.saved.at is not None
    assert kept.saved.at.revision == 5


async def test_a_long_list_comes_in_pages(nodes: list[TestNode], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(route_feed, "PAGE_ROUTES", 2)
    for number in range(5):
        await put(nodes[0], str(number))
    kept = Kept()
    async with following(nodes[0], kept) as table:
        await soon(lambda: kept.saved.at is not None)
        assert table.of("crm") == {str(number): "acme" for number in range(5)}


async def test_what_changed_while_nobody_followed_is_told(nodes: list[TestNode]) -> None:
    kept = Kept()
    await put(nodes[0], "1")
    async with following(nodes[0], kept):
        await soon(lambda: kept.saved.at is not None)
    await delete(nodes[0], "1")
    await put(nodes[0], "2")
    async with following(nodes[0], kept) as table:
        assert table.of("crm") == {"1": "acme"}
        await soon(lambda: table.of("crm") == {"2": "acme"})


@pytest.mark.parametrize("wrong", [RoutesAt(1, "another history"), RoutesAt(99, "")])
async def test_a_position_that_the_store_does_not_know_leads_to_the_list(
    nodes: list[TestNode], wrong: RoutesAt
) -> None:
    await put(nodes[0], "1")
    [first] = [page async for page in feed_of(nodes[0]).pages("crm")]
    assert first.at is not None
    kept = Kept(SavedRoutes({"9": "gone"}, wrong if wrong.history_id else RoutesAt(99, first.at.history_id)))
    async with following(nodes[0], kept) as table:
        await soon(lambda: table.of("crm") == {"1": "acme"})
        await soon(lambda: kept.saved.at == first.at)


async def test_a_single_route(nodes: list[TestNode]) -> None:
    await put(nodes[0], "1")
    feed = feed_of(nodes[1])
    assert (await feed.workspace_of("crm", "1"), await feed.workspace_of("crm", "2")) == ("acme", None)


async def test_a_silent_stream_is_dead(nodes: list[TestNode], monkeypatch: pytest.MonkeyPatch) -> None:
    """The first stream says nothing; the follower gives it up and opens another, which does."""
    monkeypatch.setattr(route_feed, "SILENCE_S_MAX", 0.5)
    await put(nodes[0], "1")
    kept = Kept()
    silent = asyncio.Event()
    real = event_pb2_grpc.EventServiceStub

    class SilentOnce:
        def __init__(self, channel: grpc.aio.Channel) -> None:
            self._stub = real(channel)

        def WatchEvents(self, request: event_pb2.WatchEventsRequest, metadata: Metadata) -> object:
            if not silent.is_set():
                silent.set()
                return _Silence()
            return self._stub.WatchEvents(request, metadata=metadata)

    monkeypatch.setattr(route_feed, "EventServiceStub", SilentOnce)
    async with following(nodes[0], kept) as table:
        await silent.wait()
        await put(nodes[0], "2")
        await soon(lambda: table.workspace_of("crm", "2") == "acme")


class _Silence:
    def __aiter__(self) -> "_Silence":
        return self

    async def __anext__(self) -> None:
        await asyncio.Event().wait()

    def cancel(self) -> None:
        pass
