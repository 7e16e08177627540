"""kill -9 of a store node at an acknowledgement, before and after its commit: claims live, the effect comes once."""

import asyncio
import signal
from pathlib import Path

import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration

from relayfile.v1 import event_pb2, file_pb2, writeback_pb2, writeback_pb2_grpc
from tests.crash.test_replay_kills import start_with_fault
from tests.support.client import Client, client_of
from tests.support.system import started_system

pytestmark = [pytest.mark.asyncio, pytest.mark.full, pytest.mark.timeout(120)]

W = "written"
FILES = 3


def writeback_stub(client: Client) -> "writeback_pb2_grpc.WritebackServiceAsyncStub":
    return writeback_pb2_grpc.WritebackServiceStub(client.channel(client.node_addresses[0]))


async def ack(client: Client, claim: writeback_pb2.ClaimedOperation, number: int) -> int:
    """The state after it."""
    head = writeback_pb2.AckOperationHead(
        workspace_id=W,
        operation_id=claim.operation.operation_id,
        claim_number=claim.claim_number,
        success=writeback_pb2.OperationSuccess(provider_object_id=f"issue/{number}"),
        request_id=f"ack-{number}",
    )
    stub = writeback_stub(client)
    requests = [writeback_pb2.AckOperationRequest(head=head)]
    answer = await stub.AckOperation(iter(requests), metadata=client.metadata, timeout=10)
    return int(answer.operation.state)


@pytest.mark.parametrize("point", ["store.commit.before_commit", "store.commit.after_commit_before_ack"])
async def test_an_acknowledgement_survives_kills(tmp_path: Path, point: str) -> None:
    async with (
        started_system(tmp_path, nodes=1, only=frozenset({"store"})) as system,
        client_of(system) as client,
    ):
        await client.create_workspace(W)
        for number in range(FILES):
            request = file_pb2.WriteFileRequest(
                workspace_id=W, path=f"/linear/_new/{number}.json", content=b"{}", force=True
            )
            await client.files().WriteFile(request, metadata=client.metadata, timeout=10)
        claim = writeback_pb2.ClaimOperationsRequest(
            workspace_id=W, worker_id="w", operation_count_max=10, request_id="claim", lease=Duration(seconds=300)
        )
        claims = (await writeback_stub(client).ClaimOperations(claim, metadata=client.metadata, timeout=10)).claims
        assert len(claims) == FILES
        for number, each in enumerate(claims):
            await start_with_fault(system, "store-0", f"{point}:1")
            with pytest.raises(grpc.aio.AioRpcError):
                await ack(client, each, number)
            assert await asyncio.wait_for(system.processes["store-0"].exit_code(), 30) == -signal.SIGKILL
            await start_with_fault(system, "store-0", "")
            again = await writeback_stub(client).ClaimOperations(claim, metadata=client.metadata, timeout=10)
            left = {kept.operation.operation_id for kept in again.claims}
            assert left >= {kept.operation.operation_id for kept in claims[number + 1 :]}, "claims live on"
            assert (each.operation.operation_id in left) is (point == "store.commit.before_commit")
            assert await ack(client, each, number) == writeback_pb2.OPERATION_STATE_SUCCEEDED
        events = await client.all_events(W)
        assert [event.revision for event in events] == list(range(1, len(events) + 1))
        done = [each for each in events if each.type == event_pb2.EVENT_TYPE_WRITEBACK_SUCCEEDED]
        assert sorted(each.operation_id for each in done) == sorted(each.operation.operation_id for each in claims)
        assert sorted(await client.contents(W)) == [f"/linear/issue_{number}.json" for number in range(FILES)]
