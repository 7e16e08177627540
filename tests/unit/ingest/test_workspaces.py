import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

import grpc.aio
import pytest

from relayfile.clock import ManualClock
from relayfile.errors import RelayfileError, Unavailable, WorkspaceDeleted, WorkspaceNotFound
from relayfile.ingest.workspaces import LOOKUPS_MAX, OwnerLookup, WorkspaceDirectory
from relayfile.interception import CallInterceptor
from relayfile.status import error_stage
from relayfile.v1 import workspace_pb2, workspace_pb2_grpc
from tests.unit.ingest.front import FakeStore


def directory(store: FakeStore, clock: ManualClock, *known: str, creates: bool = False) -> WorkspaceDirectory:
    return WorkspaceDirectory(known, store, store, clock, creates=creates)


async def test_what_is_known_is_not_asked_for() -> None:
    store = FakeStore()
    workspaces = directory(store, ManualClock(), "old")
    await workspaces.admit("old", has_secret=False)
    await workspaces.admit("acme", has_secret=False)
    await workspaces.admit("acme", has_secret=False)
    assert (store.asked, store.learned) == (["acme"], ["acme"])
    assert workspaces.is_known("acme")


async def test_what_is_missing_is_asked_for_again_after_a_while() -> None:
    store, clock = FakeStore(), ManualClock()
    workspaces = directory(store, clock)
    for _ in range(3):
        with pytest.raises(WorkspaceNotFound):
            await workspaces.admit("late", has_secret=True)
    assert store.asked == ["late"]
    store.existing.add("late")
    clock.advance(1.5)
    await workspaces.admit("late", has_secret=True)
    assert store.learned == ["late"]


async def test_with_the_owner_away_a_secret_decides_and_nothing_is_learned() -> None:
    store = FakeStore(away=Unavailable(what="node"))
    workspaces = directory(store, ManualClock())
    await workspaces.admit("acme", has_secret=True)
    with pytest.raises(Unavailable):
        await workspaces.admit("acme", has_secret=False)
    assert store.learned == []
    assert not workspaces.is_known("acme")


async def test_neither_a_slow_owner_nor_a_slow_disk_keeps_a_request_waiting() -> None:
    class Stalled(FakeStore):
        async def add_known(self, workspaces: Sequence[str], now_us: int) -> None:
            await asyncio.Event().wait()

        async def exists(self, workspace: str) -> bool:
            if workspace == "slow":
                await asyncio.Event().wait()
            return True

    store = Stalled()
    workspaces = WorkspaceDirectory((), store, store, ManualClock(), creates=False, ask_s_max=0.01, remember_s_max=0.01)
    async with asyncio.timeout(2):
        await workspaces.admit("acme", has_secret=False)
        assert workspaces.is_known("acme")
        await workspaces.admit("slow", has_secret=True)
        with pytest.raises(Unavailable):
            await workspaces.admit("slow", has_secret=False)


async def test_a_flood_of_unknown_names_asks_a_bounded_number_of_questions_at_once() -> None:
    class Slow(FakeStore):
        at_once = 0
        most = 0

        async def exists(self, workspace: str) -> bool:
            self.at_once += 1
            self.most = max(self.most, self.at_once)
            await asyncio.sleep(0)
            self.at_once -= 1
            return True

    store = Slow()
    workspaces = directory(store, ManualClock())
    await asyncio.gather(*(workspaces.admit(f"w{number}", has_secret=False) for number in range(3 * LOOKUPS_MAX)))
    assert store.most == LOOKUPS_MAX


class Owner(workspace_pb2_grpc.WorkspaceServiceServicer):
    """Answers `GetWorkspace` as it is told."""

    def __init__(self) -> None:
        self.error: RelayfileError | None = None
        self.seen: list[tuple[str, object]] = []

    async def GetWorkspace(
        self, request: workspace_pb2.GetWorkspaceRequest, context: "grpc.aio.ServicerContext[object, object]"
    ) -> workspace_pb2.GetWorkspaceResponse:
        self.seen.append((request.workspace_id, dict(context.invocation_metadata() or ()).get("authorization")))
        if self.error is not None:
            raise self.error
        return workspace_pb2.GetWorkspaceResponse()


@asynccontextmanager
async def owner() -> AsyncIterator[tuple[Owner, OwnerLookup]]:
    servicer = Owner()  # type: ignore[abstract]  # what it leaves out is not called
    interceptor = CallInterceptor([error_stage], lambda: "id", frozenset())
    server = grpc.aio.server(interceptors=[interceptor], options=[("grpc.so_reuseport", 0)])
    workspace_pb2_grpc.add_WorkspaceServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield servicer, OwnerLookup(lambda _: channel, lambda: (("authorization", "Bearer t"),), 5.0)
    await server.stop(0)


async def test_the_owner_is_asked_with_our_own_token() -> None:
    async with owner() as (servicer, lookup):
        assert await lookup.exists("w")
        assert servicer.seen == [("w", "Bearer t")]
        servicer.error = WorkspaceNotFound(workspace="w")
        assert not await lookup.exists("w")
        servicer.error = Unavailable(what="shard")
        with pytest.raises(Unavailable):
            await lookup.exists("w")


async def test_a_tombstone_counts_as_existing() -> None:
    async with owner() as (servicer, lookup):
        servicer.error = partial(WorkspaceDeleted.from_metadata, {"workspace": "w"})()
        assert await lookup.exists("w")
