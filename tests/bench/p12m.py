"""P12, syncd's part: its memory while it mirrors 400,000 files and after every one of them was looked at."""

from tests.bench.harness import Bench
from tests.bench.mirrored import audit, create_mirror, pull, seed_tree
from tests.bench.p12s import BAR_MB, peak_mb
from tests.bench.result import Figure, Result


async def run(bench: Bench) -> Result:
    files = 40_000 if bench.quick else 400_000
    async with bench.system() as (system, client):
        workspace = await seed_tree(client, "bench-", files)
        target = bench.folder / "mirror"
        target.mkdir()
        mirror_id = await create_mirror(client, workspace, target, follow=True)
        syncd = system.processes["syncd"].pid
        await pull(client, mirror_id)
        pulled = peak_mb(syncd)
        swept, _ = await audit(client, mirror_id, sweep=True)
        peak = peak_mb(syncd)
    assert swept.equal, "the mirror differs"
    return Result(
        "P12m",
        [
            Figure("peak after a sweep of every file", peak, "MB", BAR_MB, "at most"),
            Figure("after the pull", pulled, "MB"),
        ],
        bench.quick,
        {**bench.detail, "files": files},
        scale_only=bench.quick,
    )
