"""P10: what an applied envelope costs in CPU, by shards in use, by busy workspaces, and at a small load."""

from itertools import count

from relayfile.placement import shard_of
from tests.bench import machine
from tests.bench.harness import STORE_AND_INGEST, Bench, pids, run_load, spread, until_ended
from tests.bench.load_publish import PublishLoad
from tests.bench.result import Figure, Result

SHARDS = 256
SMALL_PER_S = 500
SMALL_SECONDS = 20


async def run(bench: Bench) -> Result:
    envelopes = 25_600 if bench.quick else 128_000
    small = SMALL_PER_S * (5 if bench.quick else SMALL_SECONDS)
    cost = {
        "one shard": await cpu_us(bench, in_one_shard(SHARDS), envelopes),
        "every shard": await cpu_us(bench, one_in_each_shard(), envelopes),
        "one workspace": await cpu_us(bench, ("solo",), envelopes),
        "64 workspaces": await cpu_us(bench, usual(64), envelopes),
        "500/s": await cpu_us(bench, usual(64), small, per_s=SMALL_PER_S),
    }
    return Result(
        "P10",
        [
            Figure("256 shards to 1", cost["every shard"] / cost["one shard"], "x", 1.25, "at most"),
            Figure("64 workspaces to 1", cost["64 workspaces"] / cost["one workspace"], "x", 1.25, "at most"),
            Figure("500/s to full load", cost["500/s"] / cost["64 workspaces"], "x", 2, "at most"),
            *(Figure(name, each, "us/envelope") for name, each in cost.items()),
        ],
        bench.quick,
        {**bench.detail, "envelopes": envelopes},
    )


async def cpu_us(bench: Bench, names: tuple[str, ...], envelopes: int, per_s: float = 0.0) -> float:
    """Microseconds of store and ingest for each envelope, all of them applied."""
    folder = bench.folder / f"{names[0]}-{len(names)}-{per_s:.0f}"
    async with bench.system(only=STORE_AND_INGEST, data=folder) as (system, client):
        for name in names:
            await client.create_workspace(name)
        load = PublishLoad(
            address=client.ingest_address,
            token=client.token,
            workspace_prefix="",
            workspaces=len(names),
            names=names,
            envelopes=envelopes,
            **({"per_s": per_s, "streams": 1, "batch": 10} if per_s else {}),  # type: ignore[arg-type]
        )
        expected = spread(envelopes, list(names))
        before = machine.cpu_of(pids(system))
        await run_load(load)
        # Asked of one workspace: what the asking costs is not what is measured.
        await until_ended(client, {names[-1]: expected[names[-1]]}, timeout_s=60)
        used = sum(machine.used_since(before, pids(system)).values())
        _, missing = await until_ended(client, expected, timeout_s=60)
        assert not missing, missing
    return used * 1e6 / envelopes


def usual(number: int) -> tuple[str, ...]:
    return tuple(f"bench-{each:03d}" for each in range(number))


def in_one_shard(number: int) -> tuple[str, ...]:
    """So many workspaces of one shard."""
    names = (f"one-{each}" for each in count())
    chosen = [next(names)]
    while len(chosen) < number:
        if shard_of(name := next(names)) == shard_of(chosen[0]):
            chosen.append(name)
    return tuple(chosen)


def one_in_each_shard() -> tuple[str, ...]:
    """A workspace of every shard."""
    names = (f"each-{each}" for each in count())
    found: dict[int, str] = {}
    while len(found) < SHARDS:
        found.setdefault(shard_of(name := next(names)), name)
    return tuple(found.values())
