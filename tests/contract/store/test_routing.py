"""Two nodes: calls at the wrong one are passed on once, whatever their arity (D12)."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio
import pytest

from relayfile import errors
from relayfile.placement import node_of, shard_of
from relayfile.status import from_rpc_error
from relayfile.v1 import dead_letter_pb2, event_pb2, file_pb2, topology_pb2, workspace_pb2
from tests.support.store_node import SHARDS, TestNode, started_nodes


def workspace_on(node_index: int) -> str:
    return next(name for name in map("w{}".format, range(100)) if node_of(shard_of(name, SHARDS), 2) == node_index)


THERE = workspace_on(1)
LARGE = bytes(range(256)) * 10_000


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[list[TestNode]]:
    async with started_nodes(tmp_path, 2, mark_interval_s=0.3) as both:
        await both[1].writer.create_workspace(THERE)
        await both[1].writer.put(THERE, {f"/a/{n}": b"%d" % n for n in range(50)} | {"/large": LARGE})
        yield both


async def test_unary_calls(nodes: list[TestNode]) -> None:
    here = nodes[0].client
    request = file_pb2.GetFileRequest(workspace_id=THERE, path="/a/7")
    call = here.files.GetFile(request, metadata=(*here.metadata, ("x-correlation-id", "mine")))
    assert (await call).file.path == "/a/7"
    assert dict(await call.trailing_metadata())["x-correlation-id"] == "mine"
    made = workspace_pb2.CreateWorkspaceRequest(workspace_id=THERE + "-new")
    if node_of(shard_of(THERE + "-new", SHARDS), 2) == 1:
        await here.workspaces.CreateWorkspace(made, metadata=here.metadata)
        assert THERE + "-new" in nodes[1].writer.trees


async def test_errors_of_the_owner_arrive_whole(nodes: list[TestNode]) -> None:
    here = nodes[0].client
    cases = [
        (file_pb2.GetFileRequest(workspace_id=THERE, path="/none"), errors.FileNotFound),
        (file_pb2.GetFileRequest(workspace_id=THERE, path="/a/../b", min_revision=-1), errors.InvalidArgument),
        (file_pb2.GetFileRequest(workspace_id=workspace_on(1) + "x" * 90, path="/a"), errors.WorkspaceNotFound),
    ]
    for request, expected in cases:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await here.files.GetFile(request, metadata=here.metadata)
        assert isinstance(from_rpc_error(raised.value), expected)


async def test_streams_of_every_arity(nodes: list[TestNode]) -> None:
    here = nodes[0].client
    expected = nodes[1].writer.trees[THERE]
    pages = here.files.ListTree(file_pb2.ListTreeRequest(workspace_id=THERE, page_size=20), metadata=here.metadata)
    assert [entry.file.path async for page in pages for entry in page.entries] == sorted(expected.files)
    chunks = here.files.ReadFile(file_pb2.ReadFileRequest(workspace_id=THERE, path="/large"), metadata=here.metadata)
    assert b"".join([message.data async for message in chunks]) == LARGE

    async def paths() -> AsyncIterator[file_pb2.ReadFilesRequest]:
        for number in range(3):
            yield file_pb2.ReadFilesRequest(workspace_id=THERE, paths=[f"/a/{number}"])

    read = here.files.ReadFiles(paths(), metadata=here.metadata)
    assert [file.content async for message in read for file in message.files] == [b"0", b"1", b"2"]

    async def start() -> AsyncIterator[file_pb2.ExportTreeRequest]:
        yield file_pb2.ExportTreeRequest(start=file_pb2.ExportStart(workspace_id=THERE), have_complete=True)

    messages = [message async for message in here.files.ExportTree(start(), metadata=here.metadata)]
    assert messages[-1].end.totals.digest == expected.digest("/").to_bytes(32, "big")


async def test_a_watch_is_followed_through_the_wrong_node_and_ends_with_its_caller(nodes: list[TestNode]) -> None:
    here = nodes[0].client
    request = event_pb2.WatchEventsRequest(workspace_id=THERE, after_revision=-1)
    call = here.events.WatchEvents(request, metadata=here.metadata)
    seen: list[int] = []
    async with asyncio.timeout(10):
        async for message in call:
            seen += [event.revision for event in message.events]
            if not seen:
                await nodes[1].writer.put(THERE, {"/new": b"1"})
            if seen:
                break
    assert seen == [52]
    call.cancel()


async def test_a_caller_that_follows_the_map_learns_the_owner(nodes: list[TestNode]) -> None:
    here = nodes[0].client
    metadata = (*here.metadata, ("relayfile-routing", "direct"))
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await here.files.GetFile(file_pb2.GetFileRequest(workspace_id=THERE, path="/a/1"), metadata=metadata)
    error = from_rpc_error(raised.value)
    assert isinstance(error, errors.NotOwner)
    assert (error.shard, error.address) == (shard_of(THERE, SHARDS), nodes[1].address)
    there = nodes[0].caller(address=nodes[1].address)
    await there.files.GetFile(file_pb2.GetFileRequest(workspace_id=THERE, path="/a/1"), metadata=metadata)
    await there.channel.close()


async def test_no_call_is_passed_on_twice(nodes: list[TestNode]) -> None:
    here = nodes[0].client
    metadata = (*here.metadata, ("relayfile-proxied", "1"))
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await here.files.GetFile(file_pb2.GetFileRequest(workspace_id=THERE, path="/a/1"), metadata=metadata)
    assert isinstance(from_rpc_error(raised.value), errors.ProxyLoop)


async def test_credentials_are_checked_before_and_passed_on(nodes: list[TestNode]) -> None:
    stranger = nodes[0].caller(["elsewhere"])
    request = file_pb2.GetFileRequest(workspace_id=THERE, path="/a/1")
    for metadata, expected in ((stranger.metadata, errors.PermissionDenied), ((), errors.Unauthenticated)):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stranger.files.GetFile(request, metadata=metadata)
        assert isinstance(from_rpc_error(raised.value), expected)
    await stranger.channel.close()
    guest = nodes[0].caller([THERE])
    assert (await guest.files.GetFile(request, metadata=guest.metadata)).file.path == "/a/1"
    await guest.channel.close()


async def test_the_deadline_is_passed_on(nodes: list[TestNode]) -> None:
    here = nodes[0].client
    request = file_pb2.GetFileRequest(workspace_id=THERE, path="/a/1", min_revision=1_000)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await here.files.GetFile(request, metadata=here.metadata, timeout=0.3)
    assert isinstance(from_rpc_error(raised.value), errors.DeadlineExpired)


async def test_an_owner_that_is_away_is_unavailable(nodes: list[TestNode]) -> None:
    here = nodes[0].client
    await nodes[1].stop()
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await here.files.GetFile(file_pb2.GetFileRequest(workspace_id=THERE, path="/a"), metadata=here.metadata)
    assert isinstance(from_rpc_error(raised.value), errors.Unavailable)


async def test_topology_is_the_same_map_from_both(nodes: list[TestNode]) -> None:
    for index, node in enumerate(nodes):
        answer = await node.client.topology.GetTopology(
            topology_pb2.GetTopologyRequest(), metadata=node.client.metadata
        )
        topology = answer.topology
        assert topology.answering_node_index == index
        assert [each.address for each in topology.nodes] == [each.address for each in nodes]
        assert [list(each.shard_ids) for each in topology.assignments] == [[0, 2, 4, 6], [1, 3, 5, 7]]
        assert topology.assignments[index].epochs[0] == 1
        assert topology.placement_mode == topology_pb2.PLACEMENT_MODE_STATIC


async def test_workspaces_and_their_dead_letters(nodes: list[TestNode]) -> None:
    here = nodes[0].client
    answer = await here.workspaces.GetWorkspace(
        workspace_pb2.GetWorkspaceRequest(workspace_id=THERE), metadata=here.metadata
    )
    workspace = answer.workspace
    expected = nodes[1].writer.trees[THERE]
    assert (workspace.revision, workspace.history_id) == (expected.revision, expected.workspace.history_id)
    assert workspace.totals.digest == expected.digest("/").to_bytes(32, "big")
    assert workspace.oldest_event_revision == 1
    assert workspace.shard_id == shard_of(THERE, SHARDS)
    assert workspace.modify_time.seconds >= workspace.create_time.seconds > 0
    listed = await here.dead_letters.ListDeadLetters(
        dead_letter_pb2.ListDeadLettersRequest(workspace_id=THERE), metadata=here.metadata
    )
    assert (len(listed.dead_letters), listed.total_count) == (0, 0)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await here.dead_letters.GetDeadLetter(
            dead_letter_pb2.GetDeadLetterRequest(workspace_id=THERE, dead_letter_id="none"), metadata=here.metadata
        )
    assert isinstance(from_rpc_error(raised.value), errors.DeadLetterNotFound)
