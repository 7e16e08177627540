"""What a node says of all nodes: the list of workspaces, merged, and the shard map as a stream."""

from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio
import pytest

from relayfile import errors
from relayfile.status import from_rpc_error
from relayfile.store.ownership import Remote
from relayfile.store.servicers import topology_service
from relayfile.v1 import topology_pb2, workspace_pb2
from tests.support.store_node import TestNode, started_nodes

NAMES = sorted([*(f"team-{number:03d}" for number in range(60)), "a", "Z.z", "team"])


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[list[TestNode]]:
    async with started_nodes(tmp_path, 3) as nodes:
        for name in NAMES:
            owner = nodes[owner_of(nodes, name)]
            await owner.writer.create_workspace(name)
        yield nodes


def owner_of(nodes: list[TestNode], name: str) -> int:
    owner = nodes[0].ownership.owner_of(name)
    return owner.node_index if isinstance(owner, Remote) else 0


async def listed(node: TestNode, **fields: object) -> workspace_pb2.ListWorkspacesResponse:
    request = workspace_pb2.ListWorkspacesRequest(**fields)  # type: ignore[arg-type]
    return await node.client.workspaces.ListWorkspaces(request, metadata=node.client.metadata)


def names_of(answer: workspace_pb2.ListWorkspacesResponse) -> list[str]:
    return [workspace.workspace_id for workspace in answer.workspaces]


class TestListWorkspaces:
    async def test_any_node_lists_those_of_all_by_name(self, nodes: list[TestNode]) -> None:
        assert {owner_of(nodes, name) for name in NAMES} == {0, 1, 2}
        for node in nodes:
            answer = await listed(node)
            assert names_of(answer) == NAMES
            assert not answer.next_page_token
            assert not answer.unreachable_node_indexes

    async def test_pages_go_on_at_any_node(self, nodes: list[TestNode]) -> None:
        seen: list[str] = []
        token = ""
        for turn in range(100):
            answer = await listed(nodes[turn % 3], page_size=7, page_token=token)
            assert len(answer.workspaces) <= 7
            seen += names_of(answer)
            token = answer.next_page_token
            if not token:
                break
        assert seen == NAMES
        wrong = (await listed(nodes[0], page_size=7)).next_page_token
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await listed(nodes[0], page_token=wrong, workspace_id_prefix="team")
        assert isinstance(from_rpc_error(raised.value), errors.PageTokenInvalid)

    async def test_a_prefix_and_what_is_told_of_each(self, nodes: list[TestNode]) -> None:
        tree = await nodes[owner_of(nodes, "team-007")].writer.put("team-007", {"/a/b": b"1234"})
        answer = await listed(nodes[0], workspace_id_prefix="team-00")
        assert names_of(answer) == [f"team-{number:03d}" for number in range(10)]
        seventh = answer.workspaces[7]
        assert (seventh.revision, seventh.totals.file_count, seventh.totals.total_bytes) == (1, 1, 4)
        assert seventh.totals.digest == tree.digest("/").to_bytes(32, "big")
        assert seventh.oldest_event_revision == 1
        assert not seventh.providers

    async def test_a_node_that_does_not_answer_is_named(self, nodes: list[TestNode]) -> None:
        await nodes[2].stop()
        answer = await listed(nodes[0])
        assert list(answer.unreachable_node_indexes) == [2]
        assert names_of(answer) == [name for name in NAMES if owner_of(nodes, name) != 2]

    async def test_tombstones_and_the_systems_own_only_when_asked_for(self, nodes: list[TestNode]) -> None:
        request = workspace_pb2.DeleteWorkspaceRequest(workspace_id="team-001")
        client = nodes[0].client
        deleted = await client.workspaces.DeleteWorkspace(request, metadata=client.metadata)
        await nodes[owner_of(nodes, "_app/x")].writer.create_workspace("_app/x")
        assert names_of(await listed(nodes[1])) == [name for name in NAMES if name != "team-001"]
        answer = await listed(nodes[1], show_deleted=True, workspace_id_prefix="team-001")
        [tombstone] = answer.workspaces
        assert tombstone.delete_time.seconds
        assert tombstone.expire_time == deleted.expire_time
        assert "_app/x" in names_of(await listed(nodes[1], show_system=True))

    async def test_a_bad_page_size(self, nodes: list[TestNode]) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await listed(nodes[0], page_size=-1)
        assert isinstance(from_rpc_error(raised.value), errors.InvalidArgument)


class TestWatchTopology:
    async def test_the_map_comes_at_once_unless_it_is_known(self, nodes: list[TestNode]) -> None:
        client = nodes[1].client
        call = client.topology.WatchTopology(topology_pb2.WatchTopologyRequest(), metadata=client.metadata)
        first = await call.read()
        assert isinstance(first, topology_pb2.WatchTopologyResponse)
        call.cancel()
        got = await client.topology.GetTopology(topology_pb2.GetTopologyRequest(), metadata=client.metadata)
        assert first.topology == got.topology
        assert first.map_version == got.topology.map_version > 0

    async def test_who_knows_the_map_gets_signs_of_life(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(topology_service, "SIGN_OF_LIFE_S", 0.01)
        async with started_nodes(tmp_path) as [node]:
            client = node.client
            got = await client.topology.GetTopology(topology_pb2.GetTopologyRequest(), metadata=client.metadata)
            request = topology_pb2.WatchTopologyRequest(known_map_version=got.topology.map_version)
            call = client.topology.WatchTopology(request, metadata=client.metadata)
            for _ in range(3):
                answer = await call.read()
                assert isinstance(answer, topology_pb2.WatchTopologyResponse)
                assert not answer.HasField("topology")
                assert answer.map_version == got.topology.map_version
            call.cancel()

    async def test_a_negative_version(self, nodes: list[TestNode]) -> None:
        client = nodes[0].client
        request = topology_pb2.WatchTopologyRequest(known_map_version=-1)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await client.topology.WatchTopology(request, metadata=client.metadata).read()
        assert isinstance(from_rpc_error(raised.value), errors.InvalidArgument)
