"""W100: 100 concurrent callers of `WriteFile` on one workspace, 1 KiB, durable before each answer."""

from tests.bench.harness import Bench, run_load
from tests.bench.load_write import WriteLoad
from tests.bench.result import Figure, Result

WORKSPACE = "bench-writes"
CALLERS = 100


async def run(bench: Bench) -> Result:
    writes = 10_000 if bench.quick else 40_000
    async with bench.system(only=frozenset({"store"})) as (_, client):
        await client.create_workspace(WORKSPACE)
        load = WriteLoad(
            address=client.node_addresses[0], token=client.token, workspace=WORKSPACE, writes=writes, callers=CALLERS
        )
        sent = await run_load(load)
        revision = (await client.workspace(WORKSPACE)).revision
    return Result(
        "W100",
        [
            Figure("writes", sent["acked"] / sent["seconds"], "writes/s", 2_000),
            Figure("p99", sent["p99_ms"], "ms"),
            Figure("store CPU", bench.cpu("store") / max(sent["acked"], 1) * 1e6, "us/write"),
            Figure("not written", writes - revision, "writes", 0, "at most"),
        ],
        bench.quick,
        {**bench.detail, "load": sent, "writes": writes, "callers": CALLERS},
    )
