"""P12, ingest's part: its memory while the store is down and envelopes gather in the spool, and while they drain."""

from relayfile.v1 import ingest_pb2
from tests.bench import machine
from tests.bench.harness import STORE_AND_INGEST, Bench, create_workspaces, run_load, spread, until_ended
from tests.bench.load_publish import PublishLoad
from tests.bench.result import Figure, Result
from tests.support.client import Client

WORKSPACES = 64
BAR_MB = 300


async def run(bench: Bench) -> Result:
    envelopes = 40_000 if bench.quick else 200_000
    async with bench.system(only=STORE_AND_INGEST) as (system, client):
        names = await create_workspaces(client, "bench-", WORKSPACES)
        load = PublishLoad(
            address=client.ingest_address,
            token=client.token,
            workspace_prefix="bench-",
            workspaces=WORKSPACES,
            envelopes=envelopes,
            first=WORKSPACES,
        )
        await make_known(client, load, names)
        ingest = system.processes["ingest"].pid
        await system.processes["store-0"].stop(20)
        sent = await run_load(load)
        status = ingest_pb2.GetIngestStatusRequest()
        await client.ingest().GetIngestStatus(status, metadata=client.metadata, timeout=30)
        gathered_mb = peak_mb(ingest)
        await system.start_one("store-0")
        _, missing = await until_ended(client, spread(envelopes, names), timeout_s=120)
        drained_mb = peak_mb(ingest)
    return Result(
        "P12i",
        [
            Figure("peak with the store down", gathered_mb, "MB", BAR_MB, "at most"),
            Figure("peak until drained", drained_mb, "MB", BAR_MB, "at most"),
            Figure("refused", sent["refused"] + sent["resent"], "envelopes", 0, "at most"),
            Figure("not applied", missing, "changes", 0, "at most"),
        ],
        bench.quick,
        {**bench.detail, "load": sent, "envelopes": envelopes},
        scale_only=bench.quick,
    )


async def make_known(client: Client, load: PublishLoad, names: list[str]) -> None:
    """Send the first envelope of each workspace: ingest learns that they exist while the store can be asked."""
    known = PublishLoad(
        address=load.address,
        token=load.token,
        workspace_prefix=load.workspace_prefix,
        workspaces=load.workspaces,
        envelopes=load.workspaces,
    )
    await run_load(known)
    await until_ended(client, spread(load.workspaces, names), timeout_s=30)


def peak_mb(pid: int) -> float:
    return machine.peak_memory_mib(pid) * (1 << 20) / 1e6
