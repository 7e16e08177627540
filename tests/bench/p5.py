"""P5: a full pull of a tree into an empty directory, verified by digest, beside `rsync -a` and `tar | tar`."""

import asyncio
import shlex
import shutil
import statistics
from pathlib import Path

from tests.bench.harness import Bench
from tests.bench.mirrored import create_mirror, digest_in_store, digest_on_disk, pull, run_and_sync, seed_tree
from tests.bench.result import Figure, Result
from tests.support.client import Client

ROUNDS = 3


async def run(bench: Bench) -> Result:
    files = 20_000 if bench.quick else 100_000
    seconds: dict[str, list[float]] = {"pull": [], "rsync": [], "tar": []}
    async with bench.system() as (_, client):
        workspace = await seed_tree(client, "bench-", files)
        wanted = await digest_in_store(client, workspace)
        assert wanted[0] == files, f"{files} files were stored, the store counts {wanted[0]}"
        exact = True
        for number in range(ROUNDS):
            target = bench.folder / f"pulled-{number}"
            target.mkdir()
            seconds["pull"].append(await timed_pull(client, workspace, target))
            exact = exact and await asyncio.to_thread(digest_on_disk, target) == wanted
            for tool in ("rsync", "tar"):
                if shutil.which(tool) is not None:
                    copied = bench.folder / f"{tool}-{number}"
                    seconds[tool].append(await asyncio.to_thread(copy, tool, target, copied))
    rates = {name: files / statistics.median(each) if each else None for name, each in seconds.items()}
    rate, rsync, tar = rates["pull"], rates["rsync"], rates["tar"]
    assert rate is not None
    return Result(
        "P5",
        [
            Figure("ratio to rsync", rate / rsync if rsync else None, "x", 1.5),
            Figure("ratio to tar", rate / tar if tar else None, "x", 0.9),
            Figure("pull", rate, "files/s"),
            Figure("rsync", rsync, "files/s"),
            Figure("tar", tar, "files/s"),
            Figure("digest of the disk equals the store's", float(exact), "yes=1", 1),
        ],
        bench.quick,
        {**bench.detail, "files": files, "seconds": seconds, "rounds": ROUNDS},
        scale_only=bench.quick,
    )


async def timed_pull(client: Client, workspace: str, target: Path) -> float:
    """Seconds of one pull. Its source is in the page cache, as that of the tools is."""
    await asyncio.to_thread(run_and_sync, "true", target)
    mirror_id = await create_mirror(client, workspace, target)
    _, elapsed = await pull(client, mirror_id)
    return elapsed


def copy(tool: str, source: Path, target: Path) -> float:
    """Seconds of copying the pulled tree with a tool, without the mirror's own folder."""
    target.mkdir()
    run_and_sync("true", target)
    here, there = shlex.quote(str(source)), shlex.quote(str(target))
    commands = {
        "rsync": f"rsync -a --exclude=/.relayfile {here}/ {there}/",
        "tar": f"tar -C {here} --exclude=./.relayfile -cf - . | tar -C {there} -xf -",
    }
    return run_and_sync(commands[tool], target)
