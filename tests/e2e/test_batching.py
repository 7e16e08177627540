"""Batching is real: 10,000 envelopes at saturation cost few fsyncs and few transactions, in ingest and in the store."""

import asyncio
import re
import signal
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from relayfile.local.system import LocalSystem
from tests.bench.harness import run_load, until_ended
from tests.bench.load_publish import PublishLoad
from tests.support.client import client_of
from tests.support.system import started_system

pytestmark = pytest.mark.asyncio(loop_scope="session")

ENVELOPES = 10_000
MOST = 400
TRANSACTIONS = {"ingest": "relayfile_ingest_spool_commits_total", "store-0": "relayfile_store_commits_total"}


async def metric(system: LocalSystem, process: str) -> int:
    """Transactions of a process so far, from its own /metrics."""
    address = f"http://{system.addresses[process].admin_http}/metrics"
    text = await asyncio.to_thread(lambda: urllib.request.urlopen(address, timeout=10).read().decode())
    name = TRANSACTIONS[process]
    found = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
    assert found is not None, f"{process} has no {name}"
    return int(float(found[1]))


def syncs_in(report: Path) -> int:
    """Calls in strace's summary table."""
    calls = re.findall(r"^.*\s(\d+)\s+(?:\d+\s+)?(?:fsync|fdatasync)$", report.read_text(), re.MULTILINE)
    return sum(int(each) for each in calls)


@asynccontextmanager
async def counted_syncs(pid: int, report: Path) -> AsyncIterator[list[int]]:
    """The number of fsyncs and fdatasyncs of all threads of a process, appended at the end of the block."""
    strace = await asyncio.create_subprocess_exec(
        "strace", "-f", "-c", "-e", "trace=fsync,fdatasync", "-o", str(report), "-p", str(pid),
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert strace.stderr is not None
    while b"attached" not in (line := await asyncio.wait_for(strace.stderr.readline(), 10)):
        assert line, "strace ended before it was attached"
    found: list[int] = []
    try:
        yield found
    finally:
        strace.send_signal(signal.SIGINT)
        await asyncio.wait_for(strace.wait(), 10)
    found.append(syncs_in(report))


@pytest.mark.needs_strace
async def test_ten_thousand_envelopes_cost_few_fsyncs(tmp_path: Path) -> None:
    async with (
        started_system(tmp_path / "data", nodes=1, only=frozenset({"store", "ingest"})) as system,
        client_of(system) as client,
    ):
        names = [f"batched-{number:03d}" for number in range(8)]
        for name in names:
            await client.create_workspace(name)
        before = {process: await metric(system, process) for process in TRANSACTIONS}
        load = PublishLoad(
            address=client.ingest_address,
            token=client.token,
            workspace_prefix="batched-",
            workspaces=len(names),
            envelopes=ENVELOPES,
        )
        async with (
            counted_syncs(system.processes["ingest"].pid, tmp_path / "ingest.strace") as in_ingest,
            counted_syncs(system.processes["store-0"].pid, tmp_path / "store.strace") as in_store,
        ):
            await run_load(load)
            _, missing = await until_ended(client, dict.fromkeys(names, ENVELOPES // len(names)), timeout_s=30)
        assert not missing
        transactions = {process: await metric(system, process) - before[process] for process in TRANSACTIONS}
    assert 0 < in_ingest[0] <= MOST
    assert 0 < in_store[0] <= MOST
    assert all(0 < count <= MOST for count in transactions.values()), transactions
