"""P4: P2's rate with 1,000,000 files stored, as a ratio to its rate with an empty store."""

import statistics
from pathlib import Path

from tests.bench.harness import STORE_AND_INGEST, Bench, create_workspaces, run_load, spread, until_ended
from tests.bench.load_publish import PublishLoad
from tests.bench.million import WORKSPACES, million, store_bytes
from tests.bench.result import Figure, Result
from tests.support.client import Client

ROUNDS = 3


async def run(bench: Bench) -> Result:
    envelopes = 40_000 if bench.quick else 160_000
    rounds = 1 if bench.quick else ROUNDS
    filled = await million(bench)
    bench.detail["store_gib"] = round(store_bytes(filled.root) / (1 << 30), 2)
    rates: dict[str, list[float]] = {"empty": [], "filled": []}
    cpu_us: dict[str, list[float]] = {"empty": [], "filled": []}
    not_applied = 0
    for number in range(rounds):
        for name, root in (("empty", bench.folder / f"empty-{number}"), ("filled", filled.root)):
            rate, store_us, missing = await published(bench, root, envelopes, number, is_new=name == "empty")
            rates[name].append(rate)
            cpu_us[name].append(store_us)
            not_applied += missing
    rate_of = {name: statistics.median(each) for name, each in rates.items()}
    cpu_of = {name: statistics.median(each) for name, each in cpu_us.items()}
    return Result(
        "P4",
        [
            Figure("filled to empty", rate_of["filled"] / rate_of["empty"], "x", 0.8),
            Figure("filled", rate_of["filled"], "envelopes/s"),
            Figure("empty", rate_of["empty"], "envelopes/s"),
            Figure("the store's CPU, filled", cpu_of["filled"], "us/envelope"),
            Figure("the store's CPU, empty", cpu_of["empty"], "us/envelope"),
            Figure("not applied", not_applied, "envelopes", 0, "at most"),
        ],
        bench.quick,
        {**bench.detail, "files": filled.files, "envelopes": envelopes, "rates": rates, "store_cpu_us": cpu_us},
        scale_only=bench.quick,
    )


async def published(bench: Bench, root: Path, envelopes: int, number: int, *, is_new: bool) -> tuple[float, float, int]:
    """Publish new objects into the workspaces of the store in `root`: envelopes/s until durable there, microseconds of
    the store for each, how many were not applied."""
    assert envelopes % WORKSPACES == 0, "every workspace gets equally many, whichever round it is"
    async with bench.system(only=STORE_AND_INGEST, data=root) as (_, client):
        if is_new:
            await create_workspaces(client, "bench-", WORKSPACES)
        load = PublishLoad(
            address=client.ingest_address,
            token=client.token,
            workspace_prefix="bench-",
            workspaces=WORKSPACES,
            envelopes=(number + 1) * envelopes,
            first=number * envelopes,
            delivery="random",
        )
        names = [load.workspace(index) for index in range(WORKSPACES)]
        before = await applied_in(client, names)
        sent = await run_load(load)
        expected = {name: before[name] + count for name, count in spread(envelopes, names).items()}
        ended_s, _ = await until_ended(client, expected, timeout_s=60)
        after = await applied_in(client, names)
    applied = sum(after.values()) - sum(before.values())
    store_us = bench.cpu("store") * 1e6 / envelopes
    return applied / (ended_s - sent["started_s"]), store_us, envelopes - applied


async def applied_in(client: Client, names: list[str]) -> dict[str, int]:
    return {name: (await client.counts(name))["applied"] for name in names}
