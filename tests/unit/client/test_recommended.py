"""The service config that is recommended to every client: what it names is there and safe, and gRPC takes it."""

import importlib
import json
import pkgutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc.aio
import pytest
from google.protobuf import descriptor_pool
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from relayfile import v1
from relayfile.auth.requirements import REQUIREMENTS
from relayfile.client import ClientLimits
from relayfile.client.recommended import channel_arguments, service_config
from relayfile.interception import not_served
from relayfile.v1 import workspace_pb2, workspace_pb2_grpc

HEAVY = {"Audit", "Scrub"}
"""They need a right to read, and read all of a node: a second one is somebody's decision."""


def config() -> dict[str, Any]:
    return dict(json.loads(service_config()))


def named() -> list[tuple[str, str]]:
    return [(each["service"], each["method"]) for methods in config()["methodConfig"] for each in methods["name"]]


def test_every_method_that_is_tried_again_is_there_and_only_reads() -> None:
    for module in pkgutil.iter_modules(v1.__path__, "relayfile.v1."):
        importlib.import_module(module.name)
    pool = descriptor_pool.Default()
    assert named()
    for service, method in named():
        request = pool.FindServiceByName(service).FindMethodByName(method).input_type
        assert "request_id" not in request.fields_by_name, f"{service}/{method} changes something"
        assert REQUIREMENTS[f"/{service}/{method}"].action.endswith(":read"), f"{service}/{method} needs more"


def test_every_read_is_tried_again() -> None:
    reads = {name for name, needs in REQUIREMENTS.items() if needs.action.endswith(":read")}
    assert {f"/{service}/{method}" for service, method in named()} == {
        name for name in reads if name.rpartition("/")[2] not in HEAVY
    }
    assert len(named()) == len(set(named()))


def test_only_a_node_that_is_away_is_a_reason() -> None:
    for methods in config()["methodConfig"]:
        assert methods["retryPolicy"]["retryableStatusCodes"] == ["UNAVAILABLE"]
        assert 1 < methods["retryPolicy"]["maxAttempts"] <= 5, "gRPC makes at most five"


def test_the_client_keeps_its_pauses() -> None:
    (methods,) = config()["methodConfig"]
    limits = ClientLimits()
    assert f"{limits.retry_wait_first_s:g}s" == methods["retryPolicy"]["initialBackoff"]
    assert f"{limits.retry_wait_max_s:g}s" == methods["retryPolicy"]["maxBackoff"]


class Node(workspace_pb2_grpc.WorkspaceServiceServicer):
    """Counts what it is asked, and is away for some of it."""

    def __init__(self) -> None:
        self.asked = 0
        self.away = 0
        self.health = health.aio.HealthServicer()
        self.port = 0

    async def GetWorkspace(self, request: Any, context: Any) -> workspace_pb2.GetWorkspaceResponse:
        await self._answer(context)
        return workspace_pb2.GetWorkspaceResponse()

    async def CreateWorkspace(self, request: Any, context: Any) -> workspace_pb2.CreateWorkspaceResponse:
        await self._answer(context)
        return workspace_pb2.CreateWorkspaceResponse()

    DeleteWorkspace = ListWorkspaces = not_served

    async def _answer(self, context: Any) -> None:
        self.asked += 1
        if self.away:
            self.away -= 1
            await context.abort(grpc.StatusCode.UNAVAILABLE, "away")


@asynccontextmanager
async def node() -> AsyncIterator[Node]:
    one = Node()
    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(one.health, server)
    workspace_pb2_grpc.add_WorkspaceServiceServicer_to_server(one, server)
    one.port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield one
    finally:
        await server.stop(0)


def stub_of(options: Any, *nodes: Node) -> tuple[grpc.aio.Channel, Any]:
    target = "ipv4:" + ",".join(f"127.0.0.1:{each.port}" for each in nodes)
    through = grpc.aio.insecure_channel(target, options=options)
    return through, workspace_pb2_grpc.WorkspaceServiceStub(through)


async def test_calls_go_round_and_leave_out_a_node_that_stops() -> None:
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(node()) for _ in range(2)]
        through, stub = stub_of(channel_arguments(), *nodes)
        await stack.enter_async_context(through)
        while not all(each.asked for each in nodes):
            await stub.GetWorkspace(workspace_pb2.GetWorkspaceRequest())
        await nodes[0].health.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
        in_a_row = 0
        while in_a_row < 10:  # both were asked in turn until the news arrived
            before = nodes[0].asked
            await stub.GetWorkspace(workspace_pb2.GetWorkspaceRequest())
            in_a_row = in_a_row + 1 if nodes[0].asked == before else 0


async def test_grpc_itself_repeats_reads_by_it_and_no_write() -> None:
    """What a client in another language gets."""
    async with node() as one:
        through, stub = stub_of([("grpc.service_config", service_config())], one)
        async with through:
            one.away = 2
            await stub.GetWorkspace(workspace_pb2.GetWorkspaceRequest())
            assert one.asked == 3
            one.away = 1
            with pytest.raises(grpc.aio.AioRpcError, match="away"):
                await stub.CreateWorkspace(workspace_pb2.CreateWorkspaceRequest())
            assert one.asked == 4
