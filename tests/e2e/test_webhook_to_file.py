"""A signed webhook becomes a file, an event and a counted outcome."""

import hashlib
import json

import grpc
import pytest
from grpc import aio

from relayfile.local.delivery import Sender
from relayfile.local.system import LocalSystem
from relayfile.v1 import event_pb2, file_pb2, types_pb2
from tests.support.client import Client, gaps
from tests.support.envelopes import envelope, upsert
from tests.support.system import NODES, owner_index
from tests.support.webhooks import Issue

pytestmark = pytest.mark.asyncio(loop_scope="session")


def url(system: LocalSystem) -> str:
    return f"http://127.0.0.1:{system.ports.ingest_http}"


async def test_a_webhook_is_a_file(system: LocalSystem, client: Client, workspace: str) -> None:
    secret = system.layout.webhook_secret(workspace, "github")
    issue = Issue(1, "first", action="opened")
    async with Sender(url(system)) as sender:
        answer = await sender.post(issue.delivery(workspace, secret))
    assert answer.status == 200, answer
    counts = await client.settled(workspace, 1)
    assert counts["applied"] == 1
    content = await client.read(workspace, issue.path)
    assert json.loads(content) == issue.content
    request = file_pb2.GetFileRequest(workspace_id=workspace, path=issue.path)
    meta = (await client.files().GetFile(request, metadata=client.metadata)).file
    assert meta.revision == 1
    assert meta.content_sha256 == hashlib.sha256(content).digest()
    assert meta.size_bytes == len(content)
    assert meta.provider == "github"
    assert meta.origin == types_pb2.ORIGIN_PROVIDER
    (event,) = await client.all_events(workspace)
    assert event.type == event_pb2.EVENT_TYPE_FILE_CREATED
    assert (event.revision, event.path, event.content_sha256) == (1, issue.path, meta.content_sha256)


async def test_many_quick_edits_are_few_writes(system: LocalSystem, client: Client, workspace: str) -> None:
    secret = system.layout.webhook_secret(workspace, "github")
    edits = [Issue(9, f"edit {number}", updated_us=(1_760_000_000 + number) * 1_000_000) for number in range(50)]
    async with Sender(url(system)) as sender:
        for edit in edits:
            assert (await sender.post(edit.delivery(workspace, secret))).status == 200
    counts = await client.settled(workspace, 50)
    assert counts["applied"] + counts["coalesced"] == 50, counts
    revision = (await client.workspace(workspace)).revision
    # The first edit at once, the rest when its window closes; a slow machine may need a second window.
    assert 2 <= revision <= 3
    assert counts["applied"] == revision
    assert json.loads(await client.read(workspace, edits[0].path)) == edits[-1].content


async def test_a_redelivery_is_a_duplicate(system: LocalSystem, client: Client, workspace: str) -> None:
    secret = system.layout.webhook_secret(workspace, "github")
    delivery = Issue(3, "once").delivery(workspace, secret)
    async with Sender(url(system)) as sender:
        assert (await sender.post(delivery)).status == 200
        await client.settled(workspace, 1)
        assert (await sender.post(delivery)).status == 200
    counts = await client.settled(workspace, 2)
    assert (counts["applied"], counts["duplicate"]) == (1, 1)
    assert (await client.workspace(workspace)).revision == 1


async def test_published_envelopes_are_files(client: Client, workspace: str) -> None:
    envelopes = [envelope(workspace, upsert(f"/notes/{number}.txt", b"%d" % number)) for number in range(1200)]
    results = await client.publish(*envelopes)
    assert len({result.envelope_id for result in results}) == 1200
    await client.settled(workspace, 1200)
    assert await client.contents(workspace) == {f"/notes/{number}.txt": b"%d" % number for number in range(1200)}
    assert not gaps(await client.all_events(workspace))


@pytest.mark.parametrize("node_index", range(NODES))
async def test_any_node_answers_for_all(client: Client, workspace: str, node_index: int) -> None:
    name = f"{workspace}-{node_index}"
    await client.publish(envelope(name, upsert("/a/b.txt", b"here")))
    await client.settled(name, 1)
    assert owner_index(name) in range(NODES)
    read = file_pb2.ReadFileRequest(workspace_id=name, path="/a/b.txt")
    chunks = [chunk async for chunk in client.files(node_index).ReadFile(read, metadata=client.metadata)]
    assert b"".join(chunk.data for chunk in chunks) == b"here"
    get = file_pb2.GetFileRequest(workspace_id=name, path="/a/b.txt")
    assert (await client.files(node_index).GetFile(get, metadata=client.metadata)).file.revision == 1
    digest = file_pb2.GetTreeDigestRequest(workspace_id=name)
    answer = await client.files(node_index).GetTreeDigest(digest, metadata=client.metadata)
    assert answer.directory.totals.file_count == 1


async def test_a_client_that_follows_the_map_is_told_the_owner(client: Client, workspace: str) -> None:
    await client.create_workspace(workspace)
    stranger = 1 - owner_index(workspace)
    request = file_pb2.GetTreeDigestRequest(workspace_id=workspace)
    metadata = (*client.metadata, ("relayfile-routing", "direct"))
    with pytest.raises(aio.AioRpcError) as refused:
        await client.files(stranger).GetTreeDigest(request, metadata=metadata)
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
