"""W100: 100 concurrent callers of `WriteFile` on one workspace, 1 KiB, durable before each answer.

Then the same below a provider's directory, where each write also makes an operation: reported, without a bar.
"""

from dataclasses import replace

from tests.bench.harness import Bench, run_load
from tests.bench.load_write import WriteLoad
from tests.bench.result import Figure, Result

WORKSPACE = "bench-writes"
TREE = "bench-edits"
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
        await client.create_workspace(TREE)
        edits = await run_load(replace(load, workspace=TREE, folder="/github", writes=writes // 4))
    return Result(
        "W100",
        [
            Figure("writes", sent["acked"] / sent["seconds"], "writes/s", 2_000),
            Figure("p99", sent["p99_ms"], "ms"),
            Figure("with operations", edits["acked"] / edits["seconds"], "writes/s"),
            Figure("store CPU", bench.cpu("store") / max(sent["acked"] + edits["acked"], 1) * 1e6, "us/write"),
            Figure("not written", writes - revision, "writes", 0, "at most"),
        ],
        bench.quick,
        {**bench.detail, "load": sent, "edits": edits, "writes": writes, "callers": CALLERS},
    )
