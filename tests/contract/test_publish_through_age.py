"""A publisher's stream is ended when its connection is old: what was not answered is sent again, and applied once."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio

from relayfile.auth import EVERY_SCOPE, KeyStore, TokenSigner
from relayfile.client.recommended import channel_arguments
from relayfile.clock import SystemClock
from relayfile.ingest.app import run
from relayfile.lifecycle import EXIT_OK, Stop
from relayfile.model import Outcome
from relayfile.settings import IngestSettings
from relayfile.v1 import ingest_pb2, ingest_pb2_grpc, types_pb2
from tests.support.running_node import running_node

W = "acme"
ANY = "127.0.0.1:0"
CUTS = 3
BATCH = 20
ENDS = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL)


@asynccontextmanager
async def ingest_of(directory: Path, node: str) -> AsyncIterator[str]:
    """The address of a whole ingest process, whose connections are old in a moment, and streams cut in the next."""
    told = directory / "ingest.json"
    settings = IngestSettings(
        data_dir=directory / "ingest",
        keys_dir=directory / "keys",
        address_file=told,
        nodes=(node,),
        http_address=ANY,
        grpc_address=ANY,
        admin_http_address=ANY,
        admin_grpc_address=ANY,
        create_workspaces="on-first-write",
        stream_age_max_s=0.2,
        stream_age_grace_s=0.2,
    )
    stop = Stop()
    process = asyncio.ensure_future(run(settings, stop))
    try:
        while not told.exists():
            assert not process.done(), process.result()
            await asyncio.sleep(0.01)
        yield json.loads(told.read_text())["grpc"]
    finally:
        stop.ask("the test is over")
        assert await process == EXIT_OK


def batch_of(number: int) -> list[types_pb2.Envelope]:
    """Always the same: what was not answered is sent again under its delivery ids."""
    made = []
    for each in range(number * BATCH, (number + 1) * BATCH):
        envelope = types_pb2.Envelope(workspace_id=W, provider="crm", delivery_id=f"d{each}")
        envelope.changes.add(kind=types_pb2.CHANGE_KIND_UPSERT, path=f"/{each}", content=b"%d" % each)
        made.append(envelope)
    return made


async def test_a_stream_that_is_cut_loses_and_doubles_nothing(tmp_path: Path) -> None:
    token = TokenSigner(KeyStore(tmp_path / "keys").signing_key(), SystemClock()).mint(
        "test", workspaces="*", ttl_s=600, scopes=(EVERY_SCOPE,)
    )
    metadata = (("authorization", f"Bearer {token}"),)
    answered = cuts = 0
    async with running_node(tmp_path / "store") as store:
        async with (
            ingest_of(tmp_path, store.address) as address,
            grpc.aio.insecure_channel(address, options=channel_arguments()) as channel,
        ):
            stub: ingest_pb2_grpc.IngestServiceAsyncStub = ingest_pb2_grpc.IngestServiceStub(channel)
            while cuts < CUTS or not answered:
                stream = stub.PublishEnvelopes(metadata=metadata)
                try:
                    while True:
                        request = ingest_pb2.PublishEnvelopesRequest(
                            batch_number=answered, envelopes=batch_of(answered)
                        )
                        await stream.write(request)
                        answer = await stream.read()
                        assert isinstance(answer, ingest_pb2.PublishEnvelopesResponse)
                        assert {each.status for each in answer.results} == {ingest_pb2.PUBLISH_STATUS_ACCEPTED}
                        answered += 1
                except (grpc.aio.AioRpcError, asyncio.InvalidStateError):  # the latter: a write to what has ended
                    cuts += 1
                # gRPC's own INTERNAL: a message was being written when the stream was cut.
                assert await stream.code() in ENDS, await stream.details()
        async with store.engine.view(store.node.ownership.local_key(W)) as view:
            workspace = await view.workspace()
            (crm,) = await view.outcomes()
    assert workspace is not None
    # The last batch of the last stream may have come, without its answer.
    assert workspace.revision in (answered * BATCH, (answered + 1) * BATCH)
    assert crm.counts[Outcome.APPLIED] == workspace.revision
