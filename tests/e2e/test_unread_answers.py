"""A publisher that never reads its answers is held by flow control: it costs ingest little, and others nothing."""

import asyncio
import time
from pathlib import Path

import pytest
from grpc import aio

from relayfile.local.system import LocalSystem
from relayfile.v1 import ingest_pb2, ingest_pb2_grpc, types_pb2
from tests.support.client import Client
from tests.support.envelopes import envelope, upsert

pytestmark = pytest.mark.asyncio(loop_scope="session")

MEMORY_GROWTH_BYTES_MAX = 64 << 20
MESSAGES_MAX = 1_000
"""More than can be on the way: who has sent so many was not held."""
SMALL_WINDOW = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 1_024))
"""So that a few answers fill it."""
ENVELOPES = 500
HELD_S = 0.7
"""Who sent nothing for so long is held."""
ANOTHER_S = 5.0


def message(kind: str, workspace: str) -> ingest_pb2.PublishEnvelopesRequest:
    """One message: of the usual kind, or of the one whose answer would be so much larger than itself."""
    match kind:
        case "good":
            same = [envelope(workspace, upsert("/same.txt", b"x" * 200)) for _ in range(ENVELOPES)]
            return ingest_pb2.PublishEnvelopesRequest(envelopes=same)
        case _:
            bad = types_pb2.Envelope(changes=[types_pb2.FileChange()] * 9)
            return ingest_pb2.PublishEnvelopesRequest(envelopes=[bad] * 10_000)


def resident_bytes(pid: int) -> int:
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) << 10


@pytest.mark.parametrize("kind", ["good", "refused"])
async def test_it_is_held_and_costs_little(system: LocalSystem, client: Client, workspace: str, kind: str) -> None:
    name = f"{workspace}-{kind}"
    await client.publish(envelope(name, upsert("/first.txt", b"x")))
    await client.settled(name, 1)
    pid = system.processes["ingest"].pid
    before = peak = resident_bytes(pid)
    made = message(kind, name)
    narrow = aio.insecure_channel(client.ingest_address, options=SMALL_WINDOW)
    stub: ingest_pb2_grpc.IngestServiceAsyncStub = ingest_pb2_grpc.IngestServiceStub(narrow)
    call = stub.PublishEnvelopes(metadata=client.metadata)
    sent = 0

    async def flood() -> None:
        nonlocal sent
        while sent < MESSAGES_MAX:
            await call.write(made)
            sent += 1

    flooding = asyncio.ensure_future(flood())
    try:
        seen, since = -1, time.monotonic()
        while time.monotonic() - since < HELD_S:
            assert not flooding.done(), f"{sent} messages, and no end"
            if sent != seen:
                seen, since = sent, time.monotonic()
            await asyncio.sleep(0.02)
            peak = max(peak, resident_bytes(pid))
        assert peak - before < MEMORY_GROWTH_BYTES_MAX
        async with asyncio.timeout(ANOTHER_S):
            (result,) = await client.publish(envelope(name, upsert("/other.txt", b"x")))
        assert result.status == ingest_pb2.PUBLISH_STATUS_ACCEPTED, "another caller is not served"
        assert not flooding.done()
    finally:
        flooding.cancel()
        call.cancel()
        await narrow.close()
