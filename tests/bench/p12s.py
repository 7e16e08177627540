"""P12, the store's part: its memory with 1,000,000 files, after every one of them was read once."""

from relayfile.v1 import file_pb2
from tests.bench import machine
from tests.bench.harness import Bench
from tests.bench.million import million
from tests.bench.result import Figure, Result
from tests.support.client import Client

BAR_MB = 300


async def run(bench: Bench) -> Result:
    filled = await million(bench)
    async with bench.system(only=frozenset({"store"}), data=filled.root) as (system, client):
        store = system.processes["store-0"].pid
        started_mb = peak_mb(store)
        read = sum([await read_all(client, name) for name in filled.workspaces])
        peak = peak_mb(store)
    return Result(
        "P12s",
        [
            Figure("peak after reading every file", peak, "MB", BAR_MB, "at most"),
            Figure("after the start", started_mb, "MB"),
            Figure("files not read", max(0, filled.files - read), "files", 0, "at most"),
        ],
        bench.quick,
        {**bench.detail, "files": filled.files, "read": read},
        scale_only=bench.quick,
    )


async def read_all(client: Client, workspace: str) -> int:
    """Export a workspace, contents and all; how many files it had."""
    start = file_pb2.ExportStart(workspace_id=workspace)
    request = file_pb2.ExportTreeRequest(start=start, have_complete=True)
    async for answer in client.files().ExportTree(iter((request,)), metadata=client.metadata):
        if answer.HasField("end"):
            return answer.end.file_count
    raise AssertionError("an export that ends says so")


def peak_mb(pid: int) -> float:
    return machine.peak_memory_mib(pid) * (1 << 20) / 1e6
