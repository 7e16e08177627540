"""How many threads a process has does not depend on what it has met: one that appears later is a leak."""

import sys
from collections import Counter
from pathlib import Path

import pytest

from relayfile.lifecycle import THREADS_BESIDE
from relayfile.local.system import LocalSystem
from tests.support.client import Client
from tests.support.envelopes import envelope, upsert

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]
OF_THE_CORE = frozenset({"event_engine", "lifeguard", "grpc_global_tim", "timer_manager"})
"""gRPC's own: it has one more for a while whenever all of them are busy at once."""
OURS = {
    "store": Counter({"store-writer": 1, "store-checkpoin": 1}),
    "ingest": Counter({"spool": 1, "spool-checkpoin": 1}),
    "syncd": Counter({"mirror-writer": 1, "mirror-write-ba": 1}),
}


def threads(pid: int) -> Counter[str]:
    """By the name that the system shows, without the first and without those of gRPC's core."""
    names = {task.name: (task / "comm").read_text().strip() for task in Path(f"/proc/{pid}/task").iterdir()}
    del names[str(pid)]
    return Counter(name for name in names.values() if name not in OF_THE_CORE)


async def test_a_process_has_the_same_threads_after_load(system: LocalSystem, client: Client, workspace: str) -> None:
    deliveries = [envelope(workspace, upsert(f"/crm/{number}.txt", b"x" * 10_000)) for number in range(400)]
    await client.publish(*deliveries)
    await client.settled(workspace, len(deliveries))
    for name, process in system.processes.items():
        ours = OURS[process.command.subcommand] + Counter({"beside": THREADS_BESIDE})
        polls = threads(process.pid) - ours
        assert threads(process.pid) == ours + polls, name
        assert polls.total() == 1, f"{name}: one waits for gRPC's events, and nobody started another: {polls}"
