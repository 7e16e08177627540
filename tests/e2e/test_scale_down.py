"""Three ingest processes become one while the store is away: what was acknowledged ends in one outcome, and no more."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from relayfile.clock import SystemClock
from relayfile.local.process import Command, LocalProcess
from relayfile.local.system import LocalSystem
from relayfile.v1 import ingest_pb2, types_pb2
from tests.support.client import Client, client_of
from tests.support.envelopes import upsert
from tests.support.system import started_system

pytestmark = pytest.mark.asyncio(loop_scope="session")
W = "acme"
QUICK = {"RELAYFILE_DRAIN_SHARDS": "300ms", "RELAYFILE_COALESCE_WINDOW": "500ms"}


class Oracle:
    """What was acknowledged, and what the files must be: times of the provider decide, whichever way a change went."""

    def __init__(self) -> None:
        self.acknowledged = 0
        self.newest: dict[str, bytes] = {}

    def delivery(self, provider: str, item: int, size: int = 0) -> types_pb2.Envelope:
        self.acknowledged += 1
        path, content = f"/{provider}/{item}.txt", b"%d " % self.acknowledged + b"x" * size
        self.newest[path] = content
        change = upsert(path, content, object_id=f"item/{item}", occurred_us=1_700_000_000_000_000 + self.acknowledged)
        return types_pb2.Envelope(
            workspace_id=W, provider=provider, delivery_id=f"d-{self.acknowledged}", changes=[change]
        )

    async def send(self, client: Client, count: int, size: int = 0) -> None:
        results = await client.publish(
            *(self.delivery(provider, item % 5, size) for item in range(count) for provider in ("crm", "desk"))
        )
        assert {each.status for each in results} == {ingest_pb2.PUBLISH_STATUS_ACCEPTED}

    async def check(self, client: Client) -> None:
        await client.settled(W, self.acknowledged, timeout_s=30)
        assert await client.contents(W) == self.newest


@asynccontextmanager
async def second(
    system: LocalSystem, name: str, first: Client, more: Mapping[str, str] | None = None
) -> AsyncIterator[tuple[LocalProcess, Client]]:
    """One more ingest process, whose peers are the first one and itself, with a client of it."""
    usual = system.processes["ingest"].command
    environment = {
        **usual.environment,
        "RELAYFILE_DATA_DIR": str(system.layout.data(name)),
        "RELAYFILE_ADDRESS_FILE": str(system.layout.address_file(name)),
        "RELAYFILE_INGEST_HTTP_ADDRESS": "127.0.0.1:0",
        "RELAYFILE_INGEST_GRPC_ADDRESS": "127.0.0.1:0",
        "RELAYFILE_INGEST_PEERS": first.ingest_address,
        **QUICK,
        **(more or {}),
    }
    process = LocalProcess(Command(name, usual.subcommand, environment), system.layout, SystemClock())
    addresses = await process.start()
    client = replace(first, ingest_address=addresses.grpc, _channels={})
    try:
        yield process, client
    finally:
        await client.close()
        await process.kill()


@asynccontextmanager
async def system_with_a_pause(root: Path) -> AsyncIterator[tuple[LocalSystem, Client, Oracle]]:
    only = frozenset({"store", "ingest"})
    async with started_system(root, nodes=1, only=only) as system, client_of(system) as client:
        await client.create_workspace(W)
        request = ingest_pb2.PauseRequest(workspace_id=W, provider="crm")
        await client.ingest().Pause(request, metadata=client.metadata, timeout=10)
        yield system, client, Oracle()


async def resume(client: Client) -> None:
    request = ingest_pb2.ResumeRequest(workspace_id=W, provider="crm")
    await client.ingest().Resume(request, metadata=client.metadata, timeout=10, wait_for_ready=True)


async def relayfile(system: LocalSystem, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "RELAYFILE_KEYS_DIR": str(system.layout.keys), "RELAYFILE_LOG_LEVEL": "error"}
    command = [sys.executable, "-m", "relayfile", *arguments]
    return await asyncio.to_thread(
        subprocess.run, command, env=environment, capture_output=True, text=True, check=False, timeout=60
    )


async def test_three_processes_become_one(tmp_path: Path) -> None:
    async with system_with_a_pause(tmp_path) as (system, client, oracle):
        async with (
            second(system, "ingest-2", client) as (two, at_two),
            second(system, "ingest-3", client) as (
                three,
                at_three,
            ),
        ):
            await oracle.send(at_two, 2)
            await client.settled(W, 2)
            await system.processes["store-0"].kill()
            for each in (client, at_two, at_three):
                await oracle.send(each, 40, size=5_000)
            assert set(await asyncio.gather(two.stop(20), three.stop(20))) == {0}
        for name in ("ingest-2", "ingest-3"):
            shown = await relayfile(system, "spool", "show", str(system.layout.data(name)))
            assert (shown.returncode, shown.stdout.splitlines()[-1]) == (0, "0 changes"), shown.stderr
        await system.start_one("store-0")
        await resume(client)
        await oracle.check(client)


@pytest.mark.full
async def test_a_process_that_dies_while_it_hands_over_loses_and_doubles_nothing(tmp_path: Path) -> None:
    fault = {"RELAYFILE_FAULT": "ingest.handover.after_answer_before_taken"}
    async with system_with_a_pause(tmp_path) as (system, client, oracle):
        async with second(system, "ingest-2", client, fault) as (two, at_two):
            await system.processes["store-0"].kill()
            await oracle.send(client, 5)
            await oracle.send(at_two, 400, size=5_000)
            assert await two.stop(20) < 0, "it was to kill itself"
        place = str(system.layout.data("ingest-2"))
        shown = await relayfile(system, "spool", "show", place)
        assert shown.stdout.splitlines()[-1] == "800 changes", shown.stderr
        adopted = await relayfile(system, "spool", "adopt", place, "--to", client.ingest_address)
        assert (adopted.returncode, adopted.stdout) == (0, f"800 of 800 changes taken, 0 left in {place}\n"), (
            adopted.stderr
        )
        await system.start_one("store-0")
        await resume(client)
        await oracle.check(client)


@pytest.mark.full
async def test_without_peers_what_is_left_is_said_and_adopted_by_the_shards(tmp_path: Path) -> None:
    async with system_with_a_pause(tmp_path) as (system, client, oracle):
        alone = {"RELAYFILE_INGEST_PEERS": "", "RELAYFILE_SHUTDOWN_GRACE": "1s"}
        async with second(system, "ingest-2", client, alone) as (two, at_two):
            await system.processes["store-0"].kill()
            await oracle.send(at_two, 5)
            assert await two.stop(20) == 3
        await system.start_one("store-0")
        await resume(client)
        place = str(system.layout.data("ingest-2"))
        os.environ["RELAYFILE_NODES"] = ",".join(client.node_addresses)
        try:
            adopted = await relayfile(system, "spool", "adopt", place)
        finally:
            del os.environ["RELAYFILE_NODES"]
        assert (adopted.returncode, adopted.stdout) == (0, f"10 of 10 changes taken, 0 left in {place}\n"), (
            adopted.stderr
        )
        await oracle.check(client)


async def parts(client: Client) -> dict[str, ingest_pb2.StatusPart]:
    """Of what the process asked knows, by source."""
    request = ingest_pb2.GetIngestStatusRequest(workspace_id=W)
    answer = await client.ingest().GetIngestStatus(request, metadata=client.metadata, timeout=10)
    return {part.source: part for part in answer.parts}


async def pending(client: Client, provider: str) -> int:
    request = ingest_pb2.GetIngestStatusRequest(workspace_id=W, provider=provider)
    answer = await client.ingest().GetIngestStatus(request, metadata=client.metadata, timeout=10)
    return sum(each.pending for each in answer.providers)


@pytest.mark.full
async def test_the_status_of_two_processes_is_one_and_says_how_old_the_part_of_a_dead_one_is(tmp_path: Path) -> None:
    async with system_with_a_pause(tmp_path) as (system, client, oracle):
        async with second(system, "ingest-2", client) as (two, at_two):
            await oracle.send(client, 3)
            await oracle.send(at_two, 4)
            async with asyncio.timeout(20):
                for each in (client, at_two):  # whichever is asked
                    while await pending(each, "") != 7:  # noqa: ASYNC110 - another process's report is awaited
                        await asyncio.sleep(0.05)
            here, there = await parts(client), await parts(at_two)
            assert here.keys() == there.keys()
            assert len(here) == 3, "the shard, and each process"
            assert not any(part.missing_reason for part in here.values())
            [gone] = [source for source, part in here.items() if part.pending == 4]
            await two.kill()
            async with asyncio.timeout(20):
                while (await parts(client))[gone].age.seconds < 1:  # noqa: ASYNC110 - as above
                    await asyncio.sleep(0.1)
            assert await pending(client, "crm") == 7, (
                "they are on its disk, and nobody else can say what became of them"
            )
        place = str(system.layout.data("ingest-2"))
        adopted = await relayfile(system, "spool", "adopt", place, "--to", client.ingest_address)
        assert adopted.returncode == 0, adopted.stderr
        await resume(client)
        await oracle.check(client)
