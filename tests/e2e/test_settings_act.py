"""The settings that operators know change what happens (each beside the default, on the same deliveries)."""

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from relayfile.local.system import LocalSystem
from relayfile.v1 import ingest_pb2
from tests.e2e.conftest import SHORT_WINDOW_S
from tests.support.client import Client, client_of
from tests.support.envelopes import envelope, upsert
from tests.support.system import started_system, workspace_on

pytestmark = pytest.mark.asyncio(loop_scope="session")


@asynccontextmanager
async def configured(root: Path, settings: Mapping[str, str]) -> AsyncIterator[tuple[LocalSystem, Client]]:
    async with (
        started_system(root, overrides=settings, only=frozenset({"store", "ingest"})) as system,
        client_of(system) as client,
    ):
        yield system, client


@asynccontextmanager
async def paused(system: LocalSystem, name: str) -> AsyncIterator[None]:
    """A process that does not run: its peers see silence, not an end."""
    process = system.processes[name]
    process.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.signal(signal.SIGCONT)


async def edits_become_revisions(client: Client, workspace: str) -> tuple[int, float]:
    """Twenty edits of one object, 10 ms apart: how many revisions, and when the last was there."""
    start = time.monotonic()
    for number in range(20):
        await client.publish(envelope(workspace, upsert("/one.txt", b"%d" % number, object_id="note/1")))
        await asyncio.sleep(0.01)
    await client.settled(workspace, 20)
    return (await client.workspace(workspace)).revision, time.monotonic() - start


async def test_coalesce_window(client: Client, tmp_path: Path, workspace: str) -> None:
    revisions, seconds = await edits_become_revisions(client, workspace)
    assert revisions <= 3
    assert seconds >= SHORT_WINDOW_S
    async with configured(tmp_path, {"RELAYFILE_COALESCE_WINDOW": "0s"}) as (_, without):
        revisions, _ = await edits_become_revisions(without, workspace)
        assert revisions > 5


async def applied_beside_a_silent_node(system: LocalSystem, client: Client, within_s: float) -> bool:
    """Whether one node's workspace is served while another node's batch has no answer."""
    silent, served = workspace_on(1, "silent"), workspace_on(0, "served")
    for name in (silent, served):
        await client.publish(envelope(name, upsert("/before.txt", b"x")))
        await client.settled(name, 1)
    async with paused(system, "store-1"):
        await client.publish(envelope(silent, upsert("/after.txt", b"x")))
        await asyncio.sleep(0.3)
        await client.publish(envelope(served, upsert("/after.txt", b"x")))
        deadline = time.monotonic() + within_s
        was_applied = False
        while not was_applied and time.monotonic() < deadline:
            was_applied = (await client.counts(served)).ended == 2
            await asyncio.sleep(0.03)
    await client.settled(silent, 2)
    await client.settled(served, 2)
    return was_applied


async def test_envelope_workers(system: LocalSystem, client: Client, tmp_path: Path) -> None:
    assert await applied_beside_a_silent_node(system, client, within_s=20)
    async with configured(tmp_path, {"RELAYFILE_ENVELOPE_WORKERS": "1"}) as (one, its_client):
        assert not await applied_beside_a_silent_node(one, its_client, within_s=0.7)


async def held_objects(system: LocalSystem, client: Client) -> int:
    """The most folded objects in ingest's memory when 300 wait for a node that is silent."""
    workspace, elsewhere = workspace_on(1, "held"), workspace_on(0, "elsewhere")
    await client.create_workspace(elsewhere)
    await client.publish(envelope(workspace, upsert("/first.txt", b"x")))
    await client.settled(workspace, 1)
    async with paused(system, "store-1"):
        await client.publish(*[envelope(workspace, upsert(f"/{number}.txt", b"x")) for number in range(300)])
        deadline, held = time.monotonic() + 0.5, 0
        request = ingest_pb2.GetIngestStatusRequest(workspace_id=elsewhere)  # its owner answers
        while time.monotonic() < deadline:
            status = await client.ingest().GetIngestStatus(request, metadata=client.metadata, timeout=10)
            held = max(held, status.queued_objects)
            await asyncio.sleep(0.02)
    await client.settled(workspace, 301)
    return held


async def test_envelope_queue_size(system: LocalSystem, client: Client, tmp_path: Path) -> None:
    assert await held_objects(system, client) > 100
    async with configured(tmp_path, {"RELAYFILE_ENVELOPE_QUEUE_SIZE": "20"}) as (small, its_client):
        assert await held_objects(small, its_client) <= 20


async def test_a_bad_setting_ends_the_process_with_one_line(system: LocalSystem) -> None:
    command = system.processes["ingest"].command
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "relayfile",
        "ingest",
        env={**command.environment, "RELAYFILE_COALESCE_WINDOW": "3"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 2
    (line,) = (out + err).decode().splitlines()
    assert "RELAYFILE_COALESCE_WINDOW" in line
