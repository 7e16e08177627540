"""While a node is away its webhooks are answered 200, and arrive when it is back; data survive restarts."""

import asyncio
import json
from pathlib import Path
from urllib.request import urlopen

import pytest

from relayfile.local.delivery import Sender
from relayfile.local.system import LocalSystem
from tests.support.client import Client, client_of
from tests.support.envelopes import envelope, upsert
from tests.support.system import started_system, workspace_on
from tests.support.webhooks import Issue

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def told(system: LocalSystem, *lines: str) -> None:
    """Until ingest's own /metrics has these lines."""
    address = f"http://{system.addresses['ingest'].admin_http}/metrics"
    async with asyncio.timeout(60):
        while True:
            answer = await asyncio.to_thread(urlopen, address, timeout=5)
            with answer:
                if set(lines) <= set(answer.read().decode().splitlines()):
                    return
            await asyncio.sleep(0.1)


async def test_webhooks_for_a_stopped_node_arrive_later(system: LocalSystem, client: Client) -> None:
    away, here = workspace_on(1, "away"), workspace_on(0, "here")
    url = f"http://127.0.0.1:{system.ports.ingest_http}"
    deliveries = {name: system.layout.webhook_secret(name, "github") for name in (away, here)}
    async with Sender(url) as sender:
        for name, secret in deliveries.items():
            assert (await sender.post(Issue(0, "known").delivery(name, secret))).status == 200
            await client.settled(name, 1)
        await told(system, "relayfile_ingest_streams_open 2.0", "relayfile_ingest_nodes_configured 2.0")
        await system.processes["store-1"].stop(20)
        await told(system, "relayfile_ingest_streams_open 1.0", "relayfile_ingest_nodes_configured 2.0")
        for number in range(1, 21):
            for name, secret in deliveries.items():
                assert (await sender.post(Issue(number, "while away").delivery(name, secret))).status == 200
        await client.settled(here, 21)
        await system.start_one("store-1")
    await client.settled(away, 21)
    assert json.loads(await client.read(away, Issue(20, "").path))["title"] == "while away"


@pytest.mark.full
async def test_data_survive_a_restart_of_everything(tmp_path: Path) -> None:
    issue = Issue(5, "kept")
    async with started_system(tmp_path, nodes=1) as system, client_of(system) as client:
        secret = system.layout.webhook_secret("kept", "github")
        async with Sender(f"http://127.0.0.1:{system.ports.ingest_http}") as sender:
            assert (await sender.post(issue.delivery("kept", secret))).status == 200
        await client.settled("kept", 1)
        await client.publish(envelope("kept", upsert("/a.txt", b"a")))
        await client.settled("kept", 2)
        before = await client.workspace("kept")
    async with started_system(tmp_path, nodes=1) as system, client_of(system) as client:
        after = await client.workspace("kept")
        assert (after.revision, after.history_id, after.totals) == (2, before.history_id, before.totals)
        assert json.loads(await client.read("kept", issue.path)) == issue.content
        await client.publish(envelope("kept", upsert("/a.txt", b"b")))
        await client.settled("kept", 3)
        assert await client.read("kept", "/a.txt") == b"b"
