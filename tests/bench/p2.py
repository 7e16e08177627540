"""P2: gRPC `PublishEnvelopes`, 1 KiB, distinct objects, 64 workspaces, to applied and durable in the store."""

from tests.bench.harness import STORE_AND_INGEST, Bench, create_workspaces, run_load, spread, until_ended
from tests.bench.load_publish import PublishLoad
from tests.bench.result import Figure, Result

WORKSPACES = 64


async def run(bench: Bench) -> Result:
    envelopes = 120_000 if bench.quick else 400_000
    async with bench.system(only=STORE_AND_INGEST) as (_, client):
        names = await create_workspaces(client, "bench-", WORKSPACES)
        load = PublishLoad(
            address=client.ingest_address,
            token=client.token,
            workspace_prefix="bench-",
            workspaces=WORKSPACES,
            envelopes=envelopes,
        )
        sent = await run_load(load)
        ended_s, missing = await until_ended(client, spread(envelopes, names), timeout_s=60)
        applied = sum([(await client.counts(name))["applied"] for name in names])
    rate = (envelopes - missing) / (ended_s - sent["started_s"])
    return Result(
        "P2",
        [
            Figure("end to end", rate, "envelopes/s", 18_000, goal=30_000),
            Figure("accepted", sent["accepted"] / sent["seconds"], "envelopes/s"),
            Figure("not applied", envelopes - applied, "envelopes", 0, "at most"),
        ],
        bench.quick,
        {**bench.detail, "load": sent, "envelopes": envelopes, "batch": load.batch},
    )
