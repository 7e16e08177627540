"""P7: what it costs to prove a mirror equal to the store, to find the few files that differ, and to look at a disk."""

import asyncio
import statistics
from pathlib import Path

import apsw

from relayfile.syncd.digest import element
from relayfile.v1 import mirror_pb2
from tests.bench.harness import Bench, run_load
from tests.bench.load_publish import PublishLoad
from tests.bench.mirrored import audit, create_mirror, files_below, pull, seed_tree
from tests.bench.result import Figure, Result
from tests.support.client import Client

ROUNDS = 5
CHANGES_PER_S = 50
DIFFERING = 10


async def run(bench: Bench) -> Result:
    files = 10_000 if bench.quick else 100_000
    async with bench.system() as (system, client):
        workspace = await seed_tree(client, "bench-", files)
        flat = await seed_tree(client, "flat-", files // 2, "flat")
        target, flat_target = bench.folder / "mirror", bench.folder / "flat"
        for each in (target, flat_target):
            each.mkdir()
        quiet_id = await create_mirror(client, workspace, target, follow=True)
        flat_id = await create_mirror(client, flat, flat_target)
        await pull(client, quiet_id)
        await pull(client, flat_id)
        await client.settled(workspace, files)

        equal = [await audit(client, quiet_id) for _ in range(ROUNDS)]
        busy = await beside_changes(client, workspace, quiet_id)
        sweeps = [await planted(client, quiet_id, target, number) for number in range(ROUNDS)]
        await system.processes["syncd"].stop(20)
        journal = next((system.layout.data("syncd") / "mirrors").glob(f"{flat_id}*.db"))
        differ(journal, DIFFERING)
        await system.start_one("syncd")
        await audit(client, flat_id)  # opens the journal and the connection, as in a process that has run for a while
        found, find_s = await audit(client, flat_id, repair=True)
    assert all(each.equal for each, _ in equal), "an unchanged mirror differs"
    return Result(
        "P7",
        [
            Figure("audit of an unchanged mirror", milliseconds(equal), "ms", 50, "at most"),
            Figure("its bytes on the wire", wire_bytes(equal), "bytes", 20_000, "at most"),
            Figure("audit beside 50 changes/s", milliseconds(busy), "ms", 50, "at most"),
            Figure("its bytes beside changes", wire_bytes(busy), "bytes", 20_000, "at most"),
            Figure("10 differing files of a flat directory", find_s * 1000, "ms", 250, "at most"),
            Figure("files repaired", found.repaired_count, "files", DIFFERING),
            Figure("stat sweep that finds a change", statistics.median(sweeps), "s", 1.5, "at most"),
        ],
        bench.quick,
        {**bench.detail, "files": files, "flat": files // 2},
        scale_only=bench.quick,
    )


async def beside_changes(client: Client, workspace: str, mirror_id: str) -> list[tuple[mirror_pb2.MirrorAudit, float]]:
    """Audits while 50 files a second change."""
    load = PublishLoad(
        address=client.ingest_address,
        token=client.token,
        workspace_prefix="",
        workspaces=1,
        names=(workspace,),
        envelopes=CHANGES_PER_S * 6,
        shape="distinct",
        batch=1,
        streams=1,
        per_s=CHANGES_PER_S,
    )
    running = asyncio.ensure_future(run_load(load))
    try:
        await asyncio.sleep(1.5)
        return [await audit(client, mirror_id) for _ in range(ROUNDS)]
    finally:
        await running


def differ(journal: Path, count: int) -> None:
    """Let the journal of a stopped syncd believe that `count` files have other contents than the store's."""
    with apsw.Connection(str(journal)) as connection:
        rows = connection.execute(
            "SELECT path, remote_hash FROM file WHERE state = 1 ORDER BY random() LIMIT ?", (count,)
        ).fetchall()
        shift = 0
        for path, remote_hash in rows:
            assert isinstance(path, str)
            assert isinstance(remote_hash, bytes)
            wrong = bytes(reversed(remote_hash))
            shift += element(path, wrong) - element(path, remote_hash)
            connection.execute("UPDATE file SET remote_hash = ?1, disk_hash = ?1 WHERE path = ?2", (wrong, path))
        held = connection.execute("SELECT digest FROM root").get
        assert isinstance(held, bytes)
        digest = int.from_bytes(held, "big")
        connection.execute("UPDATE root SET digest = ?", (((digest + shift) % (1 << 256)).to_bytes(32, "big"),))
    connection.close()


async def planted(client: Client, mirror_id: str, target: Path, number: int) -> float:
    """Seconds of a sweep that finds one edited file."""
    path = next(each for index, each in enumerate(files_below(target)) if index == 100 + number)
    path.write_bytes(path.read_bytes() + b" ")
    swept, seconds = await audit(client, mirror_id, sweep=True)
    # The mirror follows: its watches may have told of the edit before the sweep came to the file.
    assert swept.sweep_changed_count or swept.listed_count or swept.differing_count, swept
    return seconds


def milliseconds(audits: list[tuple[mirror_pb2.MirrorAudit, float]]) -> float:
    return statistics.median(seconds for _, seconds in audits) * 1000


def wire_bytes(audits: list[tuple[mirror_pb2.MirrorAudit, float]]) -> float | None:
    """The most that one of them took; None when they do not say."""
    return max(found.wire_bytes for found, _ in audits) or None
