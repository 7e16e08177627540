"""An operator pauses a provider: only the others' files appear, over a restart too, until it is resumed."""

from pathlib import Path

import pytest

from relayfile.v1 import admin_pb2, admin_pb2_grpc, ingest_pb2, types_pb2
from tests.support.client import Client, client_of
from tests.support.command import relayfile
from tests.support.envelopes import upsert
from tests.support.system import started_system

pytestmark = pytest.mark.asyncio(loop_scope="session")
W = "acme"


def delivery(provider: str, number: int) -> types_pb2.Envelope:
    change = upsert(f"/{provider}/{number % 3}.txt", b"%d" % number, object_id=f"item/{number % 3}")
    return types_pb2.Envelope(workspace_id=W, provider=provider, delivery_id=f"{provider}-{number}", changes=[change])


async def paused(client: Client) -> dict[str, tuple[bool, int]]:
    request = ingest_pb2.GetIngestStatusRequest(workspace_id=W)
    status = await client.ingest().GetIngestStatus(request, metadata=client.metadata, timeout=10)
    return {each.provider: (each.paused, each.pending) for each in status.providers}


async def test_a_provider_is_paused_and_resumed(tmp_path: Path) -> None:
    only = frozenset({"store", "ingest"})
    async with started_system(tmp_path, nodes=1, only=only) as system, client_of(system) as client:
        await client.create_workspace(W)
        said = await relayfile(system, client, "pause", W, "--provider", "crm", "--reason", "their import runs")
        assert said.lines == ["crm of acme: paused; deliveries are accepted and wait"]
        for number in range(6):
            await client.publish(delivery("crm", number), delivery("desk", number))
        await client.settled(W, 6)
        assert (await client.contents(W)).keys() == {f"/desk/{number}.txt" for number in range(3)}
        assert await paused(client) == {"crm": (True, 6), "desk": (False, 0)}

        await system.processes["ingest"].kill()
        await system.start_one("ingest")
        await client.publish(delivery("crm", 6), delivery("desk", 6))
        await client.settled(W, 7)
        assert await paused(client) == {"crm": (True, 7), "desk": (False, 0)}

        resumed = await relayfile(system, client, "resume", W, "--provider", "crm")
        assert resumed.lines == ["crm of acme: resumed"]
        await client.settled(W, 14)
        newest = {0: b"6", 1: b"4", 2: b"5"}
        assert await client.contents(W) == {
            f"/{provider}/{number}.txt": content for provider in ("crm", "desk") for number, content in newest.items()
        }
        assert await paused(client) == {"crm": (False, 0), "desk": (False, 0)}
        stub: admin_pb2_grpc.AdminServiceAsyncStub = admin_pb2_grpc.AdminServiceStub(
            client.channel(client.node_addresses[0])
        )
        listed = await stub.ListAdminActions(
            admin_pb2.ListAdminActionsRequest(workspace_id=W), metadata=client.metadata, timeout=10
        )
        assert [(each.method.rpartition("/")[2], each.subject, each.reason) for each in listed.actions] == [
            ("Resume", "crm", ""),
            ("Pause", "crm", "their import runs"),
        ]
