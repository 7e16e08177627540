"""A publisher whose stream is cut sends again what was not answered: nothing is lost, and nothing is there twice."""

import asyncio

import pytest

from relayfile.v1 import ingest_pb2
from tests.support.client import Client, gaps
from tests.support.envelopes import batches, envelope, upsert

pytestmark = pytest.mark.asyncio(loop_scope="session")

BATCHES, OF_A_BATCH, ANSWERED = 30, 20, 7


async def test_what_was_not_answered_is_sent_again(client: Client, workspace: str) -> None:
    files = {f"/notes/{number}.txt": b"%d" % number for number in range(BATCHES * OF_A_BATCH)}
    envelopes = [envelope(workspace, upsert(path, text), delivery_id=path) for path, text in files.items()]
    requests = list(batches(envelopes, OF_A_BATCH))
    call = client.ingest().PublishEnvelopes(iter(requests), metadata=client.metadata)
    answered: list[int] = []
    while len(answered) < ANSWERED:
        response = await call.read()
        assert isinstance(response, ingest_pb2.PublishEnvelopesResponse), "the stream ended by itself"
        answered.append(response.batch_number)
    call.cancel()
    assert answered == list(range(ANSWERED)), "in order"
    rest = client.ingest().PublishEnvelopes(iter(requests[ANSWERED:]), metadata=client.metadata)
    assert [response.batch_number async for response in rest] == list(range(ANSWERED, BATCHES))
    counts = await client.counts(workspace)
    for _ in range(600):
        if counts["applied"] >= len(files):
            break
        await asyncio.sleep(0.03)
        counts = await client.counts(workspace)
    assert counts["applied"] == len(files)
    # Of the cut stream more may have been accepted than was answered; that much may come twice.
    assert counts["applied"] + counts["duplicate"] == counts.ended
    assert counts["duplicate"] <= (BATCHES - ANSWERED) * OF_A_BATCH
    assert await client.contents(workspace) == files
    events = await client.all_events(workspace)
    assert len(events) == len(files)
    assert not gaps(events)
