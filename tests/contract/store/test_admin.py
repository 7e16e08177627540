"""AdminService of a running node: audits and scrubs, of the called node, of another one, of one workspace."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import apsw
import grpc
import grpc.aio
import pytest

from relayfile.errors import InvalidArgument, WorkspaceDeleted, WorkspaceNotFound
from relayfile.status import from_rpc_error
from relayfile.v1 import admin_pb2, event_pb2, workspace_pb2
from tests.support.store_node import TestNode, started_nodes

OF_TREES = [check for check in admin_pb2.AuditCheck.values() if check not in (0, admin_pb2.AUDIT_CHECK_INDEXES)]
"""Trees are written without the objects that their files are of."""
FILES = {f"/docs/{number % 7}/{number}.txt": b"text %d" % number for number in range(200)}


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[list[TestNode]]:
    async with asyncio.timeout(60), started_nodes(tmp_path, 2) as nodes:
        yield nodes


def home(nodes: list[TestNode], workspace_id: str) -> tuple[TestNode, TestNode]:
    """(the owner of a workspace, the other node)."""
    owners = [node for node in nodes if not hasattr(node.ownership.owner_of(workspace_id), "address")]
    [owner] = owners
    return owner, next(node for node in nodes if node is not owner)


async def audit(node: TestNode, **fields: object) -> list[admin_pb2.AuditResponse]:
    request = admin_pb2.AuditRequest(**fields)  # type: ignore[arg-type]  # named by the tests
    return [message async for message in node.client.admin.Audit(request, metadata=node.client.metadata)]


async def test_a_sound_node_is_clean(nodes: list[TestNode]) -> None:
    owner, _ = home(nodes, "acme")
    await owner.writer.create_workspace("acme")
    await owner.writer.put("acme", FILES)
    [message] = await audit(owner, checks=OF_TREES)
    result = message.result
    assert (result.clean, result.finding_count, result.truncated) == (True, 0, False)
    assert (result.workspace_count, result.file_count, result.event_count) == (1, 200, 200)


async def test_calls_reach_the_node_or_workspace_that_they_are_about(nodes: list[TestNode]) -> None:
    owner, other = home(nodes, "acme")
    await owner.writer.create_workspace("acme")
    await owner.writer.put("acme", FILES)
    [of_workspace] = await audit(other, workspace_id="acme", checks=OF_TREES)
    assert of_workspace.result.file_count == 200
    index = nodes.index(owner)
    [of_node] = await audit(other, node_index=index, checks=OF_TREES)
    assert of_node.result.file_count == 200
    [of_called] = await audit(other)
    assert of_called.result.workspace_count == 0
    scrub = admin_pb2.ScrubRequest(node_index=index)
    [scrubbed] = [each async for each in other.client.admin.Scrub(scrub, metadata=other.client.metadata)]
    size = sum(map(len, FILES.values()))
    assert (scrubbed.result.clean, scrubbed.result.content_count, scrubbed.result.content_bytes) == (True, 200, size)


async def test_damage_comes_as_findings_before_the_result(nodes: list[TestNode]) -> None:
    owner, _ = home(nodes, "acme")
    await owner.writer.create_workspace("acme")
    await owner.writer.put("acme", FILES)
    connection = apsw.Connection(str(owner.database))
    connection.execute("UPDATE content SET data = CAST('TEXT 9' AS BLOB) WHERE data = CAST('text 9' AS BLOB)")
    connection.close()
    assert (await audit(owner, checks=[admin_pb2.AUDIT_CHECK_REFERENCES]))[-1].result.clean
    request = admin_pb2.ScrubRequest(workspace_id="acme", findings_max=5)
    found, end = [each async for each in owner.client.admin.Scrub(request, metadata=owner.client.metadata)]
    assert (found.finding.reason, found.finding.subject) == ("HASH_MISMATCH", "/docs/2/9.txt")
    assert found.finding.check == admin_pb2.AUDIT_CHECK_CONTENT
    assert (end.result.clean, end.result.finding_count) == (False, 1)


async def test_a_scrub_keeps_its_rate(nodes: list[TestNode]) -> None:
    owner, _ = home(nodes, "acme")
    await owner.writer.create_workspace("acme")
    await owner.writer.put("acme", {"/large": bytes(40_000)})
    request = admin_pb2.ScrubRequest(bytes_per_second_max=200_000)
    [end] = [each async for each in owner.client.admin.Scrub(request, metadata=owner.client.metadata)]
    assert end.result.duration.ToTimedelta().total_seconds() >= 0.2


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"workspace_id": "_odd"}, "workspace_id"),
        ({"checks": [99]}, "checks[0]"),
        ({"findings_max": -1}, "findings_max"),
        ({"node_index": 2}, "node_index"),
        ({"node_index": -1}, "node_index"),
    ],
)
async def test_bad_requests_are_named(nodes: list[TestNode], fields: dict[str, object], field: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await audit(nodes[0], **fields)
    error = from_rpc_error(raised.value)
    assert isinstance(error, InvalidArgument)
    assert [violation.field for violation in error.violations] == [field]


async def test_an_unknown_workspace_is_not_found(nodes: list[TestNode]) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await audit(nodes[0], workspace_id="nobody")
    assert isinstance(from_rpc_error(raised.value), WorkspaceNotFound)


async def test_a_whole_node_needs_a_token_for_all_workspaces(nodes: list[TestNode]) -> None:
    caller = nodes[0].caller("acme")
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        [each async for each in caller.admin.Audit(admin_pb2.AuditRequest(), metadata=caller.metadata)]
    assert raised.value.code() is grpc.StatusCode.PERMISSION_DENIED
    await caller.channel.close()


async def drained(watch: grpc.aio.UnaryStreamCall[event_pb2.WatchEventsRequest, event_pb2.WatchEventsResponse]) -> None:
    """Read to the end of a stream."""
    while await watch.read() is not grpc.aio.EOF:
        pass


async def test_a_deleted_workspace_is_gone_for_everybody(nodes: list[TestNode]) -> None:
    owner, other = home(nodes, "acme")
    await owner.writer.create_workspace("acme")
    await owner.writer.put("acme", FILES)
    client = other.client
    watched = event_pb2.WatchEventsRequest(workspace_id="acme", after_revision=-1)
    watch = client.events.WatchEvents(watched, metadata=client.metadata)
    await watch.read()

    request = workspace_pb2.DeleteWorkspaceRequest(workspace_id="acme", reason="they left", request_id="r1")
    deleted = await client.workspaces.DeleteWorkspace(request, metadata=client.metadata)
    assert deleted.deleted_file_count == 200
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await drained(watch)
    assert isinstance(from_rpc_error(ended.value), WorkspaceNotFound)
    about = workspace_pb2.GetWorkspaceRequest(workspace_id="acme")
    with pytest.raises(grpc.aio.AioRpcError) as described:
        await client.workspaces.GetWorkspace(about, metadata=client.metadata)
    assert isinstance(from_rpc_error(described.value), WorkspaceDeleted)
    assert await client.workspaces.DeleteWorkspace(request, metadata=client.metadata) == deleted

    listed = admin_pb2.ListAdminActionsRequest(workspace_id="acme")
    [action] = (await client.admin.ListAdminActions(listed, metadata=client.metadata)).actions
    assert (action.method, action.reason) == ("relayfile.v1.WorkspaceService/DeleteWorkspace", "they left")
    assert action.actor == "test"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "workspace_id"),
        ({"workspace_id": "_app/github"}, "workspace_id"),
        ({"workspace_id": "acme", "history_id": "x" * 129}, "history_id"),
        ({"workspace_id": "acme", "reason": "x" * 1_001}, "reason"),
        ({"workspace_id": "acme", "request_id": "x" * 129}, "request_id"),
    ],
)
async def test_bad_deletions_are_named(nodes: list[TestNode], fields: dict[str, str], field: str) -> None:
    client = nodes[0].client
    request = workspace_pb2.DeleteWorkspaceRequest(**fields)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await client.workspaces.DeleteWorkspace(request, metadata=client.metadata)
    error = from_rpc_error(raised.value)
    assert isinstance(error, InvalidArgument)
    assert [violation.field for violation in error.violations] == [field]
