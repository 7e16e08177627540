"""P6: how the time of a full pull grows with the tree: four times the files, many directories, one wide directory."""

import statistics

from tests.bench.harness import Bench
from tests.bench.mirrored import digest_in_store, seed_tree
from tests.bench.p5 import timed_pull
from tests.bench.result import Figure, Result

ROUNDS = 3
GROWTH_MAX = 4.4
"""For four times the files; a tenth more than in proportion."""


async def run(bench: Bench) -> Result:
    base = 10_000 if bench.quick else 100_000
    trees = {"base": ("tree", base), "tree": ("tree", 4 * base), "many": ("many", 4 * base), "flat": ("flat", 2 * base)}
    seconds: dict[str, list[float]] = {name: [] for name in trees}
    async with bench.system() as (_, client):
        workspaces = {}
        for name, (shape, files) in trees.items():
            workspaces[name] = await seed_tree(client, f"bench-{name}-", files, shape)
            assert (await digest_in_store(client, workspaces[name]))[0] == files
        for number in range(ROUNDS):
            for name, workspace in workspaces.items():
                target = bench.folder / f"{name}-{number}"
                target.mkdir()
                seconds[name].append(await timed_pull(client, workspace, target))
    median = {name: statistics.median(each) for name, each in seconds.items()}
    return Result(
        "P6",
        [
            Figure("four times the files", median["tree"] / median["base"], "x", GROWTH_MAX, "at most"),
            Figure("1,000 directories of 400", median["many"] / median["base"], "x", GROWTH_MAX, "at most"),
            Figure("one directory of 200,000", median["flat"] / median["base"], "x", GROWTH_MAX / 2, "at most"),
        ],
        bench.quick,
        {**bench.detail, "files": {name: files for name, (_, files) in trees.items()}, "seconds": seconds},
        scale_only=bench.quick,
    )
