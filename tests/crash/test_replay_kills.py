"""kill -9 of a store node and of ingest in the middle of a replay: it goes on, and nothing is applied twice."""

import asyncio
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from relayfile.local.system import LocalSystem
from relayfile.v1 import dead_letter_pb2, types_pb2
from tests.support.client import Client, client_of
from tests.support.envelopes import envelope, upsert
from tests.support.system import started_system
from tests.support.webhooks import Issue

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(120)]

CHANGES = 24
REQUESTS = 6
SETTINGS = {
    "RELAYFILE_COALESCE_WINDOW": "0s",
    "RELAYFILE_REPLAYS_PER_SECOND_MAX": "8",
    "RELAYFILE_REDOS_QUEUED_MAX": "1",
}


def broken(workspace: str, number: int) -> types_pb2.Envelope:
    """What an ingest process could not normalise then, and can now."""
    made = types_pb2.Envelope(workspace_id=workspace, provider="github", delivery_id=f"request-{number}")
    made.failure.reason = "UNEXPECTED_SHAPE"
    made.raw.body = Issue(number, "kept").body
    made.raw.headers["x-github-event"] = "issues"
    return made


async def dead_letters_of(client: Client, workspace: str) -> int:
    """Changes below a file that is gone since, and requests of an older adapter; returns what was accepted."""
    await client.create_workspace(workspace)
    blocked = [envelope(workspace, upsert(f"/d/{number}", b"text")) for number in range(CHANGES)]
    requests = [broken(workspace, number) for number in range(REQUESTS)]
    await client.publish(envelope(workspace, upsert("/d", b"in the way", object_id="thing/1")))
    await client.settled(workspace, 1)
    await client.publish(*blocked, *requests)
    gone = types_pb2.FileChange(kind=types_pb2.CHANGE_KIND_DELETE, provider_object_id="thing/1")
    await client.publish(envelope(workspace, gone))
    accepted = 2 + CHANGES + REQUESTS
    counts = await client.settled(workspace, accepted)
    assert counts["dead_lettered"] == CHANGES + REQUESTS
    return accepted


@pytest.mark.full
async def test_a_replay_goes_on_after_kills(tmp_path: Path) -> None:
    workspace = "replayed"
    async with (
        started_system(tmp_path, nodes=1, overrides=SETTINGS, only=frozenset({"store", "ingest"})) as system,
        client_of(system) as client,
    ):
        accepted = await dead_letters_of(client, workspace)
        await start_with_fault(system, "store-0", "store.replay.after_batch:2")
        request = dead_letter_pb2.ReplayDeadLettersRequest(workspace_id=workspace)
        request.filter.SetInParent()
        answer = await client.dead_letters().ReplayDeadLetters(request, metadata=client.metadata, timeout=10)
        assert answer.queued_count == CHANGES + REQUESTS
        assert await asyncio.wait_for(system.processes["store-0"].exit_code(), 30) == -signal.SIGKILL
        await start_with_fault(system, "store-0", "")
        left = [letter.state for letter in await client.dead_letter_list(workspace)]
        assert 0 < len(left) < CHANGES + REQUESTS
        assert set(left) == {dead_letter_pb2.DEAD_LETTER_STATE_REPLAYING}
        await system.processes["ingest"].kill()
        await system.start_one("ingest")
        for _ in range(600):
            if not await client.dead_letter_list(workspace):
                break
            await asyncio.sleep(0.05)
        counts = await client.settled(workspace, accepted)
        assert counts["applied"] == accepted, counts
        files = await client.contents(workspace)
        assert sorted(files) == sorted(
            [*(f"/d/{number}" for number in range(CHANGES)), *(Issue(number, "").path for number in range(REQUESTS))]
        )
        assert (await client.workspace(workspace)).revision == accepted, "each of them once"


async def start_with_fault(system: LocalSystem, name: str, point: str) -> None:
    """Start a process anew, to die at a fault point or, without one, to live."""
    process = system.processes[name]
    await process.kill()
    whole = {key: value for key, value in process.command.environment.items() if key != "RELAYFILE_FAULT"}
    process.command = replace(process.command, environment={**whole, "RELAYFILE_FAULT": point} if point else whole)
    await system.start_one(name)
