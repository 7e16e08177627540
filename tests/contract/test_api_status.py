"""docs/api-status.md says exactly what is not served: by the servicers, and by a node that is called."""

import importlib
import inspect
import pkgutil
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

import relayfile
from relayfile import errors
from relayfile.interception import is_served
from relayfile.status import from_rpc_error
from relayfile.v1 import ingest_pb2, mirror_pb2, shard_pb2
from tests.support.store_node import TestNode, started_nodes

OTHER_SERVICES = ("Ingest", "Mirror", "Shard")
PAGE = Path(__file__).resolve().parents[2] / "docs" / "api-status.md"
DESCRIBED_IN = (ingest_pb2, mirror_pb2, shard_pb2)  # and in what the node imports
STORE_SERVICES = ("File", "Event", "Workspace", "DeadLetter", "Topology", "Writeback", "Route", "Admin")


def listed() -> list[str]:
    """What the page lists, `Service/Rpc` in its order."""
    whole_rpcs = PAGE.read_text().split("## Parts")[0]
    return re.findall(r"^- `relayfile\.v1\.(\w+/\w+)`$", whole_rpcs, re.MULTILINE)


def service(name: str) -> ServiceDescriptor:
    return descriptor_pool.Default().FindServiceByName(f"relayfile.v1.{name}Service")


def servicers() -> dict[str, type]:
    """Service to the class of ours that serves it."""
    found: dict[str, type] = {}
    for package in ("ingest", "store", "syncd"):
        path = [str(Path(folder) / package) for folder in relayfile.__path__]
        for module in pkgutil.walk_packages(path, f"relayfile.{package}."):
            for _, each in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
                for base in each.__mro__[1:]:
                    if base.__module__.endswith("_pb2_grpc") and base.__name__.endswith("ServiceServicer"):
                        found[base.__name__.removesuffix("Servicer")] = each
    return found


def test_no_rpc_is_listed_twice_and_all_exist() -> None:
    names = listed()
    assert len(names) == len(set(names))
    for name in names:
        service_name, rpc = name.split("/")
        assert rpc in service(service_name.removesuffix("Service")).methods_by_name, name


def test_the_page_agrees_with_every_servicer() -> None:
    found = servicers()
    assert found.keys() == {f"{name}Service" for name in (*STORE_SERVICES, *OTHER_SERVICES)}
    for name, servicer in found.items():
        rpcs = service(name.removesuffix("Service")).methods
        unserved = [f"{name}/{rpc.name}" for rpc in rpcs if not is_served(getattr(servicer, rpc.name))]
        assert unserved == [each for each in listed() if each.startswith(f"{name}/")]


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[TestNode]:
    async with started_nodes(tmp_path) as nodes:
        yield nodes[0]


async def test_every_rpc_of_a_node_answers_as_the_page_says(node: TestNode) -> None:
    later: list[str] = []
    for name in STORE_SERVICES:
        for rpc in service(name).methods:
            error = await answer(node, rpc)
            if isinstance(error, errors.ServedLater):
                later.append(f"{name}Service/{rpc.name}")
            else:
                assert error is None or isinstance(error, errors.InvalidArgument), (rpc.full_name, error)
    expected = [each for each in listed() if each.split("Service/")[0] in STORE_SERVICES]
    assert sorted(later) == sorted(expected)


async def answer(node: TestNode, rpc: MethodDescriptor) -> errors.RelayfileError | None:
    """How an empty request is answered; None when it succeeds."""
    path = f"/{rpc.containing_service.full_name}/{rpc.name}"
    request = message_factory.GetMessageClass(rpc.input_type)().SerializeToString()
    options: dict[str, Any] = {"metadata": node.client.metadata, "timeout": 5}

    async def requests() -> AsyncIterator[bytes]:
        yield request

    sent: Any = requests() if rpc.client_streaming else request
    arity = ("stream_" if rpc.client_streaming else "unary_") + ("stream" if rpc.server_streaming else "unary")
    call = getattr(node.client.channel, arity)(path)(sent, **options)
    try:
        if rpc.server_streaming:
            async for _ in call:
                break
        else:
            await call
    except grpc.aio.AioRpcError as error:
        return from_rpc_error(error)
    return None
