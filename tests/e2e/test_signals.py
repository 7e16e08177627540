"""A signal says that an object changed, but not to what: the file of the object is marked as older than it."""

import hashlib
import hmac

import grpc
import pytest
from grpc import aio

from relayfile.local.delivery import Delivery, Sender
from relayfile.local.system import LocalSystem
from relayfile.v1 import file_pb2, types_pb2
from tests.support.client import Client
from tests.support.envelopes import envelope, upsert
from tests.support.provider_fixtures import request

pytestmark = pytest.mark.asyncio(loop_scope="session")

PATH = "/notion/pages/153104cd-477e-809d-8dc4-ff2d96ae3090.json"
OBJECT = "page/153104cd-477e-809d-8dc4-ff2d96ae3090"


async def post(system: LocalSystem, workspace: str, fixture: str) -> None:
    body = request("notion", fixture).body
    proof = hmac.digest(system.layout.webhook_secret(workspace, "notion").encode(), body, hashlib.sha256).hex()
    headers = {"content-type": "application/json", "x-notion-signature": f"sha256={proof}"}
    async with Sender(f"http://127.0.0.1:{system.ports.ingest_http}") as sender:
        answer = await sender.post(Delivery(f"/v1/workspaces/{workspace}/webhooks/notion", headers, body))
    assert answer.status == 200, answer


def page(workspace: str, content: bytes, occurred_us: int) -> types_pb2.Envelope:
    """What a service that asked Notion for the page publishes."""
    whole = envelope(workspace, upsert(PATH, content, object_id=OBJECT, occurred_us=occurred_us))
    whole.provider = "notion"
    return whole


async def meta(client: Client, workspace: str) -> types_pb2.FileMeta:
    asked = file_pb2.GetFileRequest(workspace_id=workspace, path=PATH)
    return (await client.files().GetFile(asked, metadata=client.metadata)).file


async def test_a_signal_marks_the_file_until_it_is_fetched(system: LocalSystem, client: Client, workspace: str) -> None:
    await client.publish(page(workspace, b"first", 1_733_000_000_000_000))
    await client.settled(workspace, 1)
    assert not (await meta(client, workspace)).HasField("stale_since")
    await post(system, workspace, "page_properties_updated")
    assert (await client.settled(workspace, 2))["applied"] == 2
    marked = await meta(client, workspace)
    assert marked.HasField("stale_since")
    assert (await client.workspace(workspace)).revision == marked.revision == 1, "a signal writes nothing"
    assert len(await client.all_events(workspace)) == 1
    await client.publish(page(workspace, b"second", 1_734_000_000_000_000))
    await client.settled(workspace, 3)
    assert not (await meta(client, workspace)).HasField("stale_since")
    assert await client.read(workspace, PATH) == b"second"


async def test_a_signal_of_an_object_without_a_file_is_applied_and_makes_none(
    system: LocalSystem, client: Client, workspace: str
) -> None:
    await post(system, workspace, "page_created")
    assert (await client.settled(workspace, 1))["applied"] == 1
    with pytest.raises(aio.AioRpcError) as refused:
        await meta(client, workspace)
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    assert (await client.workspace(workspace)).revision == 0
    # The file that comes later is not marked: it is what the signal asked for.
    await client.publish(page(workspace, b"fetched", 1_734_000_000_000_000))
    await client.settled(workspace, 2)
    assert not (await meta(client, workspace)).HasField("stale_since")
