"""Writes that say which history their revisions are of: done in that one only."""

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import pytest

from relayfile.errors import CursorExpired, HistoryMismatch, InvalidArgument
from relayfile.status import from_rpc_error
from relayfile.syncd.delivery import Delivery, Outcome, Parcel
from relayfile.syncd.rows import EditKind, Entry, EntryState
from relayfile.v1 import file_pb2, types_pb2, workspace_pb2
from tests.support.store_node import TestNode, started_nodes

W = "acme"
CALLS = ("write", "many", "delete", "move", "upload")


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[TestNode]:
    async with started_nodes(tmp_path) as [node]:
        await node.writer.create_workspace(W)
        await node.writer.put(W, {"/a": b"first"})
        yield node


async def history_of(node: TestNode) -> str:
    request = workspace_pb2.GetWorkspaceRequest(workspace_id=W)
    return (await node.client.workspaces.GetWorkspace(request, metadata=node.client.metadata)).workspace.history_id


async def call(node: TestNode, which: str, history_id: str) -> object:
    """A mutation of `/a` at revision 1, which is there."""
    files, metadata = node.client.files, node.client.metadata
    if which == "write":
        write = file_pb2.WriteFileRequest(
            workspace_id=W, path="/a", content=b"2", if_revision=1, request_id="r", history_id=history_id
        )
        return await files.WriteFile(write, metadata=metadata)
    if which == "many":
        item = file_pb2.WriteFilesItem(write=file_pb2.WriteItem(path="/a", content=b"2"), if_revision=1)
        many = file_pb2.WriteFilesRequest(workspace_id=W, items=[item], request_id="r", history_id=history_id)
        return await files.WriteFiles(many, metadata=metadata)
    if which == "delete":
        delete = file_pb2.DeleteFileRequest(workspace_id=W, path="/a", if_revision=1, history_id=history_id)
        return await files.DeleteFile(delete, metadata=metadata)
    if which == "move":
        move = file_pb2.MoveFileRequest(workspace_id=W, path="/a", to_path="/b", if_revision=1, history_id=history_id)
        return await files.MoveFile(move, metadata=metadata)
    head = file_pb2.WriteFileRequest(workspace_id=W, path="/a", if_revision=1, history_id=history_id)
    chunk = types_pb2.ContentChunk(data=b"2", last=True)
    return await files.UploadFile(
        iter([file_pb2.UploadFileRequest(head=head, size_bytes=1, chunk=chunk)]), metadata=metadata
    )


async def revision_of(node: TestNode) -> int:
    request = workspace_pb2.GetWorkspaceRequest(workspace_id=W)
    return (await node.client.workspaces.GetWorkspace(request, metadata=node.client.metadata)).workspace.revision


@pytest.mark.parametrize("which", CALLS)
async def test_what_speaks_of_another_history_is_refused_and_does_nothing(node: TestNode, which: str) -> None:
    before = await revision_of(node)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call(node, which, "of-before")
    error = from_rpc_error(raised.value)
    assert isinstance(error, HistoryMismatch)
    assert (error.expected, error.current) == ("of-before", await history_of(node))
    assert raised.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert await revision_of(node) == before
    await call(node, which, await history_of(node))
    assert await revision_of(node) > before


@pytest.mark.parametrize("which", CALLS)
async def test_a_history_that_is_none_is_named_as_wrong(node: TestNode, which: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call(node, which, "h" * 129)
    error = from_rpc_error(raised.value)
    assert isinstance(error, InvalidArgument)
    assert [each.field.rpartition(".")[2] for each in error.violations] == ["history_id"]


async def test_what_a_mirror_sends_says_its_history(node: TestNode) -> None:
    delivery = Delivery(node.client.channel, W, lambda: node.client.metadata, 10.0)
    large = b"x" * (1 << 21)
    entry = Entry("/a", "a", 1, EditKind.WRITE, EntryState.SENT, 1, 1, None, None)
    for content in (b"x", large):
        with pytest.raises(CursorExpired) as raised:
            await delivery.deliver(Parcel(f"r{len(content)}", [entry], [content], "of-before"))
        assert raised.value.history_id == await history_of(node)
    with pytest.raises(CursorExpired):
        await delivery.held(["/a"], "of-before")
    here = await history_of(node)
    files, _ = await delivery.held(["/a"], here)
    [answer] = await delivery.deliver(Parcel("r", [entry], [large], here))
    assert files["/a"].revision == 1
    assert answer.outcome is Outcome.TAKEN
