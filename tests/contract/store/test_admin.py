"""AdminService of a running node: audits and scrubs, of the called node, of another one, of one workspace."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import pytest

from relayfile.errors import InvalidArgument, PlacementStatic, WorkspaceDeleted, WorkspaceNotFound
from relayfile.status import from_rpc_error
from relayfile.v1 import admin_pb2, event_pb2, workspace_pb2
from tests.support.store_node import TestNode, started_nodes
from tests.support.writeback import staged

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
    await owner.alter("UPDATE content SET data = CAST('TEXT 9' AS BLOB) WHERE data = CAST('text 9' AS BLOB)")
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


async def test_actions_of_all_nodes_are_one_list(nodes: list[TestNode]) -> None:
    names = [f"w{number}" for number in range(8)]
    for name in names:
        owner, other = home(nodes, name)
        await owner.writer.create_workspace(name)
        request = workspace_pb2.DeleteWorkspaceRequest(workspace_id=name, reason=name)
        await other.client.workspaces.DeleteWorkspace(request, metadata=other.client.metadata)
    assert {home(nodes, name)[0].address for name in names} == {node.address for node in nodes}
    for node in nodes:
        listed: list[str] = []
        page = admin_pb2.ListAdminActionsRequest(page_size=3)
        while page.page_token or not listed:
            answer = await node.client.admin.ListAdminActions(page, metadata=node.client.metadata)
            assert not answer.unreachable_node_indexes
            listed += [action.workspace_id for action in answer.actions]
            page.page_token = answer.next_page_token
        assert listed == names[::-1]
    await nodes[1].stop()
    client = nodes[0].client
    answer = await client.admin.ListAdminActions(admin_pb2.ListAdminActionsRequest(), metadata=client.metadata)
    assert list(answer.unreachable_node_indexes) == [1]
    own = [name for name in names if home(nodes, name)[0] is nodes[0]]
    assert [action.workspace_id for action in answer.actions] == own[::-1]


async def test_settings_of_a_node_without_secrets(nodes: list[TestNode]) -> None:
    client = nodes[0].client
    request = admin_pb2.GetConfigRequest(node_index=1, name_prefix="RELAYFILE_WAL")
    config = await client.admin.GetConfig(request, metadata=client.metadata)
    assert config.node_index == 1
    [setting] = config.settings
    assert (setting.name, setting.value, setting.default_value) == ("RELAYFILE_WAL_BYTES_MAX", "64MiB", "64MiB")
    assert (setting.source, setting.secret) == (admin_pb2.SETTING_SOURCE_DEFAULT, False)
    every = (await client.admin.GetConfig(admin_pb2.GetConfigRequest(), metadata=client.metadata)).settings
    names = [each.name for each in every]
    assert names == sorted(names)
    assert all(not each.value for each in every if each.secret)


async def test_figures_of_all_nodes(nodes: list[TestNode]) -> None:
    owner, other = home(nodes, "acme")
    await owner.writer.create_workspace("acme")
    await owner.writer.put("acme", FILES)
    client = other.client
    request = admin_pb2.GetStatsRequest(include_shards=True)
    answer = await client.admin.GetStats(request, metadata=client.metadata)
    assert [each.node.node_index for each in answer.nodes] == [0, 1]
    stats = answer.nodes[nodes.index(owner)]
    assert (stats.workspace_count, stats.file_count) == (1, 200)
    assert stats.total_bytes == sum(map(len, FILES.values()))
    assert stats.owned_shard_count == 4
    assert [shard.file_count for shard in stats.shards if shard.workspace_count] == [200]
    assert stats.resident_bytes > 0
    assert stats.thread_count > 0
    assert stats.data_bytes > 0
    [queue] = stats.queues
    assert (queue.name, queue.depth, queue.bytes_max) == ("commits", 0, 64 << 20)
    request = admin_pb2.GetStatsRequest(node_index=nodes.index(owner))
    [only] = (await client.admin.GetStats(request, metadata=client.metadata)).nodes
    assert only.file_count == 200
    await owner.stop()
    gone = await client.admin.GetStats(admin_pb2.GetStatsRequest(), metadata=client.metadata)
    assert list(gone.unreachable_node_indexes) == [nodes.index(owner)]


async def test_figures_of_what_a_node_does(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        client = stage.client
        await stage.deliver(b"{}", path="/linear/issues/1.json")
        for number in range(3):
            await stage.write(f"/linear/issues/{number}.json", b"12345678")
        assert len(await stage.claim(1)) == 1
        request = admin_pb2.GetStatsRequest(include_shards=True, top_workspaces_max=5)
        [stats] = (await client.admin.GetStats(request, metadata=client.metadata)).nodes
        assert dict(stats.operation_counts) == {"pending": 2, "claimed": 1, "quarantined": 0}
        assert stats.receive_to_commit.count == 1
        assert stats.commits.entry_count >= 5
        assert stats.commits.entry_count >= stats.commits.transaction_count
        revisions = {shard.shard_id: shard.revision_count for shard in stats.shards if shard.revision_count}
        assert set(revisions) == {stage.key.shard_id}
        assert revisions[stage.key.shard_id] >= 4
        [top] = stats.top_workspaces
        assert top.workspace_id == stage.key.workspace_id
        assert top.mutations_per_second >= 5 / 60
        assert top.bytes_per_second >= 24 / 60
        assert (top.waiting_count, top.watcher_count) == (0, 0)
        stage.clock.advance(120)
        [later] = (await client.admin.GetStats(request, metadata=client.metadata)).nodes
        assert not later.top_workspaces, "nothing changed in the last minute"
        none = await client.admin.GetStats(admin_pb2.GetStatsRequest(), metadata=client.metadata)
        assert not none.nodes[0].top_workspaces


async def test_nodes_with_files_cannot_be_drained(nodes: list[TestNode]) -> None:
    client = nodes[0].client
    for request, kind in (
        (admin_pb2.DrainNodeRequest(), InvalidArgument),
        (admin_pb2.DrainNodeRequest(node_index=9), InvalidArgument),
        (admin_pb2.DrainNodeRequest(node_index=1), PlacementStatic),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await client.admin.DrainNode(request, metadata=client.metadata)
        assert isinstance(from_rpc_error(raised.value), kind)
