"""P3b: a long window over very many objects: what ingest holds in memory, and how few writes it becomes."""

import math

from tests.bench.harness import STORE_AND_INGEST, Bench, create_workspaces, run_load, spread, until_ended
from tests.bench.load_publish import PublishLoad
from tests.bench.p12i import BAR_MB, peak_mb
from tests.bench.result import Figure, Result

WORKSPACES = 50


async def run(bench: Bench) -> Result:
    objects, envelopes, window_s = (10_000, 100_000, 10) if bench.quick else (100_000, 1_000_000, 60)
    settings = {"RELAYFILE_COALESCE_WINDOW": f"{window_s}s"}
    async with bench.system(only=STORE_AND_INGEST, overrides=settings) as (system, client):
        names = await create_workspaces(client, "bench-", WORKSPACES)
        load = PublishLoad(
            address=client.ingest_address,
            token=client.token,
            workspace_prefix="bench-",
            workspaces=WORKSPACES,
            envelopes=envelopes,
            shape="hot",
            objects=objects,
        )
        sent = await run_load(load)
        held_mb = peak_mb(system.processes["ingest"].pid)
        ended_s, missing = await until_ended(client, spread(envelopes, names), timeout_s=3 * window_s + 60)
        peak = peak_mb(system.processes["ingest"].pid)
        writes = sum([(await client.workspace(name)).revision for name in names])
    # The first change of an object goes out at once; then a window has to end for each write.
    windows = 1 + math.floor((ended_s - sent["started_s"]) / window_s)
    return Result(
        "P3b",
        [
            Figure("peak memory of ingest", peak, "MB", BAR_MB, "at most"),
            Figure("peak until all was sent", held_mb, "MB"),
            Figure("writes for each object and window", writes / (objects * windows), "writes", 1, "at most"),
            Figure("not applied", missing, "changes", 0, "at most"),
        ],
        bench.quick,
        {**bench.detail, "load": sent, "envelopes": envelopes, "objects": objects, "window_s": window_s},
        scale_only=bench.quick,
    )
