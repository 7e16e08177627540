"""P3: a burst over hot objects at the default window: how few writes it becomes, and that nothing is miscounted."""

import json

from tests.bench.harness import STORE_AND_INGEST, Bench, create_workspaces, run_load, spread, until_ended
from tests.bench.load_publish import PublishLoad
from tests.bench.result import Figure, Result
from tests.support.client import Client

WORKSPACES = 8
OBJECTS = 200
SAMPLE_STEP = 19
"""Every 19th envelope is sent again, a good 5 %: an odd step meets all workspaces."""


async def run(bench: Bench) -> Result:
    envelopes = 60_000 if bench.quick else 200_000
    async with bench.system(only=STORE_AND_INGEST) as (_, client):
        names = await create_workspaces(client, "bench-", WORKSPACES)
        burst = PublishLoad(
            address=client.ingest_address,
            token=client.token,
            workspace_prefix="bench-",
            workspaces=WORKSPACES,
            envelopes=envelopes,
            shape="hot",
            objects=OBJECTS,
        )
        sent = await run_load(burst)
        ended_s, missing = await until_ended(client, spread(envelopes, names), timeout_s=30)
        late_s = ended_s - (sent["started_s"] + sent["seconds"])
        writes = sum([(await client.workspace(name)).revision for name in names])
        outdated = await outdated_objects(client, names, envelopes)
        duplicates, resent = await send_sample_again(client, burst, names)
        outcomes = [await client.counts(name) for name in names]
    totals = {outcome: sum(counts[outcome] for counts in outcomes) for outcome in outcomes[0].by_outcome}
    return Result(
        "P3",
        [
            Figure("accepted", sent["accepted"] / sent["seconds"], "envelopes/s", 40_000, goal=60_000),
            Figure("writes of content", 100 * writes / envelopes, "%", 2, "at most"),
            Figure("every outcome recorded after the end", None if missing else late_s, "s", 10, "at most"),
            Figure("objects without their newest content", outdated, "objects", 0, "at most"),
            Figure("resent and not counted as duplicate", resent - duplicates, "envelopes", 0, "at most"),
        ],
        bench.quick,
        {**bench.detail, "load": sent, "envelopes": envelopes, "outcomes": totals, "missing": missing},
    )


async def outdated_objects(client: Client, names: list[str], envelopes: int) -> int:
    """Objects whose file is not what their last envelope said."""
    versions: dict[int, int] = {}
    for name in names:
        for content in (await client.contents(name)).values():
            record = json.loads(content)
            versions[int(record["object"])] = int(record["version"])
    newest = {number: (envelopes - 1 - number) // OBJECTS for number in range(OBJECTS)}
    return sum(versions.get(number) != version for number, version in newest.items())


async def send_sample_again(client: Client, burst: PublishLoad, names: list[str]) -> tuple[int, int]:
    """Send the sample again; how many ended as duplicate, of how many."""
    again = PublishLoad(
        address=burst.address,
        token=burst.token,
        workspace_prefix=burst.workspace_prefix,
        workspaces=burst.workspaces,
        envelopes=burst.envelopes,
        shape=burst.shape,
        objects=burst.objects,
        step=SAMPLE_STEP,
    )
    expected = spread(burst.envelopes, names)
    resent = range(0, burst.envelopes, again.step)
    for index in resent:
        expected[burst.workspace(index)] += 1
    before = sum([(await client.counts(name))["duplicate"] for name in names])
    await run_load(again)
    await until_ended(client, expected, timeout_s=30)
    return sum([(await client.counts(name))["duplicate"] for name in names]) - before, len(resent)
