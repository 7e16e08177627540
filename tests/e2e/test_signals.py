"""A signal says that an object changed, but not to what: the file of the object is marked as older than it."""

import hashlib
import hmac

import grpc
import pytest
from grpc import aio

from relayfile.local.delivery import Delivery, Sender
from relayfile.local.system import LocalSystem
from relayfile.v1 import file_pb2, ingest_pb2, types_pb2
from tests.support.client import OUTCOMES, Client
from tests.support.envelopes import envelope, upsert
from tests.support.provider_fixtures import request

pytestmark = pytest.mark.asyncio(loop_scope="session")

PATH = "/notion/pages/153104cd-477e-809d-8dc4-ff2d96ae3090.json"
OBJECT = "page/153104cd-477e-809d-8dc4-ff2d96ae3090"


async def post(system: LocalSystem, workspace: str, fixture: str, *, is_whole: bool = True) -> None:
    body = request("notion", fixture).body
    body = body if is_whole else body[:-2]
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


async def status(client: Client, workspace: str) -> tuple[dict[str, int], int, bool, str, set[str]]:
    """Of notion: the outcomes that there are, what is pending, whether it is paused, its health, and whose figures."""
    asked = ingest_pb2.GetIngestStatusRequest(workspace_id=workspace, provider="notion")
    answer = await client.ingest().GetIngestStatus(asked, metadata=client.metadata, timeout=10)
    parts = {"ingest" if "ingest" in part.source else part.source for part in answer.parts if not part.missing_reason}
    if not answer.providers:
        return {}, 0, False, "", parts
    (found,) = answer.providers
    outcomes = {name: int(getattr(found, name)) for name in OUTCOMES if getattr(found, name)}
    assert found.accepted == sum(outcomes.values()) + found.pending
    health = ingest_pb2.ProviderHealth.Name(found.health).removeprefix("PROVIDER_HEALTH_").lower()
    return outcomes, found.pending, found.paused, health, parts


async def test_the_status_of_signals_in_every_state(system: LocalSystem, client: Client, workspace: str) -> None:
    """Waiting in ingest, applied, repeated, ignored and not understood: each is counted once, where it is."""
    both = {"shard", "ingest"}
    await client.create_workspace(workspace)
    assert await status(client, workspace) == ({}, 0, False, "", both)
    pause = ingest_pb2.PauseRequest(workspace_id=workspace, provider="notion")
    await client.ingest().Pause(pause, metadata=client.metadata)
    await post(system, workspace, "page_properties_updated")
    assert await status(client, workspace) == ({}, 1, True, "healthy", both)
    await client.ingest().Resume(
        ingest_pb2.ResumeRequest(workspace_id=workspace, provider="notion"), metadata=client.metadata
    )
    await client.settled(workspace, 1)
    assert await status(client, workspace) == ({"applied": 1}, 0, False, "healthy", both)
    await post(system, workspace, "page_properties_updated")
    await post(system, workspace, "unknown")
    await client.settled(workspace, 3)
    outcomes = {"applied": 1, "duplicate": 1, "ignored": 1}
    assert await status(client, workspace) == (outcomes, 0, False, "healthy", both)
    await post(system, workspace, "page_created", is_whole=False)
    await client.settled(workspace, 4)
    assert await status(client, workspace) == (outcomes | {"dead_lettered": 1}, 0, False, "error", both)
    assert (await client.workspace(workspace)).revision == 0
