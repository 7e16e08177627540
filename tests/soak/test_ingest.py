"""Half an hour of webhooks while ingest and a store node are killed again and again (R1-R3, R5).

Three senders: through an ingest that is killed to a node that is killed, through one that is never killed to each kind
of node. At the end every acknowledged change has exactly one outcome, and what was never killed has not grown: memory
and descriptors by less than 1 % in ten minutes, threads of ours not at all, gRPC's pools within a bound (`growth.py`).
`SOAK_MINUTES` makes it shorter or longer; under 15 minutes growth is shown and not judged.
"""

import asyncio
import os
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from relayfile.clock import SystemClock
from relayfile.local.process import LocalProcess
from relayfile.local.system import LOOPBACK, LocalSystem
from tests.crash.storm import Storm, judge, oracle
from tests.soak.growth import Growth, watched
from tests.support.client import client_of
from tests.support.system import started_system, workspace_on

pytestmark = [pytest.mark.soak, pytest.mark.timeout(0)]

MINUTES = float(os.environ.get("SOAK_MINUTES", "30"))
JUDGED_FROM_MINUTES = 15.0
RATE_PER_S = 60.0
BETWEEN_KILLS_S = (5.0, 30.0)
GROWTH_MAX = 0.01
STEADY = "ingest-steady"
SMALL_CACHE = {"RELAYFILE_SQLITE_CACHE_BYTES": "4MiB"}
"""A node fills its page cache over the first quarter of an hour: with a small one growth is seen for what it is."""


@asynccontextmanager
async def second_ingest(system: LocalSystem) -> AsyncIterator[str]:
    """Another ingest process of the same system; its URL."""
    command = system.processes["ingest"].command
    environment = {
        **command.environment,
        "RELAYFILE_DATA_DIR": str(system.layout.data(STEADY)),
        "RELAYFILE_INGEST_HTTP_ADDRESS": f"{LOOPBACK}:0",
        "RELAYFILE_INGEST_GRPC_ADDRESS": f"{LOOPBACK}:0",
    }
    process = LocalProcess(replace(command, name=STEADY, environment=environment), system.layout, SystemClock())
    system.processes[STEADY] = process
    addresses = await process.start()
    try:
        yield f"http://{addresses.http}"
    finally:
        await process.stop(25.0)
        del system.processes[STEADY]


async def test_webhooks_under_kills_for_half_an_hour(tmp_path: Path) -> None:
    root = tmp_path / "system"
    workspaces = {
        "killed ingest, killed node": workspace_on(0, "storm"),
        "steady ingest, killed node": workspace_on(0, "half"),
        "steady ingest, steady node": workspace_on(1, "calm"),
    }
    logs = {name: tmp_path / f"{workspace}.log" for name, workspace in workspaces.items()}
    async with (
        started_system(root, overrides=SMALL_CACHE, only=frozenset({"store", "ingest"})) as system,
        second_ingest(system) as steady_url,
        client_of(system) as client,
    ):
        for workspace in workspaces.values():
            await client.create_workspace(workspace)
        storm = Storm(system, random.Random(20261123))
        pids = {name: system.processes[name].pid for name in (STEADY, "store-1")}
        async with AsyncExitStack() as senders:
            for seed, (name, workspace) in enumerate(workspaces.items(), start=1):
                url = steady_url if name.startswith("steady") else ""
                sender = oracle(system, workspace, logs[name], seed=seed, rate_per_s=RATE_PER_S, url=url)
                await senders.enter_async_context(sender)
            growths = senders.enter_context(watched(pids))
            kills = await _kill_for(storm, MINUTES * 60)
        for name, workspace in workspaces.items():
            history = await judge(client, workspace, logs[name])
            print(f"{name}: {len(history.acked)} acknowledged of {len(history.records)}, each with one outcome")
        print(f"{kills} kills")
        _judge_growth(growths)


async def _kill_for(storm: Storm, seconds: float) -> int:
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    kills = 0
    while (left := end - loop.time()) > BETWEEN_KILLS_S[1] / 2:
        await asyncio.sleep(min(left / 2, storm.random.uniform(*BETWEEN_KILLS_S)))
        await storm.kill(storm.random.choice(("ingest", "store-0")))
        kills += 1
    await asyncio.sleep(max(0.0, end - loop.time()))
    return kills


def _judge_growth(growths: dict[str, Growth]) -> None:
    """Of the ingest and the node that are never killed; both are shown before either is judged."""
    grown: dict[str, dict[str, float]] = {}
    threads: dict[str, dict[str, int]] = {}
    for name, growth in growths.items():
        slopes = growth.per_ten_minutes()
        print(f"{name}: {', '.join(f'{what} {slope:+.2%}' for what, slope in slopes.items())} in ten minutes")
        news = ", ".join(growth.thread_news) or "none came or went"
        print(f"{name}: {growth.threads.total()} threads; {news}")
        if too_steep := {what: slope for what, slope in slopes.items() if slope > GROWTH_MAX}:
            grown[name] = too_steep
        if more := growth.more_threads():
            threads[name] = more
    if MINUTES >= JUDGED_FROM_MINUTES:
        assert not grown, f"grown over the last two thirds: {grown}"
        assert not threads, f"more threads than in the first third: {threads}"
