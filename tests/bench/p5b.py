"""P5b: full pulls through a line with a round trip of 20 ms, by both ways, verified by digest."""

import asyncio
import statistics

from relayfile.clock import SystemClock
from relayfile.local.process import Command, LocalProcess
from relayfile.local.system import LocalSystem
from relayfile.v1 import mirror_pb2
from tests.bench.harness import Bench
from tests.bench.mirrored import create_mirror, digest_in_store, digest_on_disk, pull, seed_tree
from tests.bench.result import Figure, Result
from tests.support.client import Client
from tests.support.distant_link import distant

ROUND_TRIP_MS = 20
ROUNDS = 3
VIAS = {"tree": mirror_pb2.PULL_VIA_TREE, "export": mirror_pb2.PULL_VIA_EXPORT}


async def run(bench: Bench) -> Result:
    many, few = (2_000 if bench.quick else 10_000), 1_000
    async with bench.system() as (system, client):
        workspaces = {files: await seed_tree(client, f"bench-{files}-", files) for files in {many, few}}
        async with distant(system.ports.node_addresses[0], ROUND_TRIP_MS / 2) as address:
            await move_syncd(system, address)
            seconds = {
                (files, via): [await timed(bench, client, workspaces[files], via, number) for number in range(ROUNDS)]
                for files, via in ((many, "tree"), (many, "export"), (few, "tree"), (few, "export"))
            }
    median = {key: statistics.median(each) for key, each in seconds.items()}
    return Result(
        "P5b",
        [
            Figure("ListTree and ReadFiles", median[many, "tree"], "s", 4, "at most"),
            Figure("ExportTree", median[many, "export"], "s", 2, "at most"),
            Figure("1,000 files by the slower way", max(median[few, via] for via in VIAS), "s", 1, "at most"),
        ],
        bench.quick,
        {
            **bench.detail,
            "files": many,
            "round_trip_ms": ROUND_TRIP_MS,
            "seconds": {f"{files} {via}": each for (files, via), each in seconds.items()},
        },
        scale_only=bench.quick,
    )


async def move_syncd(system: LocalSystem, store: str) -> None:
    """Start syncd anew where the store has the address `store`."""
    old = system.processes["syncd"]
    await old.stop(20)
    environment = {**old.command.environment, "RELAYFILE_NODES": store}
    system.processes["syncd"] = LocalProcess(Command("syncd", "syncd", environment), system.layout, SystemClock())
    await system.start_one("syncd")


async def timed(bench: Bench, client: Client, workspace: str, via: str, number: int) -> float:
    target = bench.folder / f"{workspace}-{via}-{number}"
    target.mkdir()
    _, seconds = await pull(client, await create_mirror(client, workspace, target), VIAS[via])
    wanted = await digest_in_store(client, workspace)
    assert await asyncio.to_thread(digest_on_disk, target) == wanted, "the disk does not equal the store"
    return seconds
