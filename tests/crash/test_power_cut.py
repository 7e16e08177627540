"""The power of every disk is cut under load: what was acknowledged is there afterwards, once (R1, R2, D1)."""

import asyncio
import random
import signal
from pathlib import Path

import pytest

from tests.crash.storm import judge, oracle
from tests.support.client import client_of
from tests.support.power_cut import Disk, until_stopped
from tests.support.system import build_system, started_system

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.timeout(120),
    pytest.mark.needs_root,
    pytest.mark.needs_loop_mount,
]
ONLY = frozenset({"store", "ingest"})
SETTINGS = {"RELAYFILE_COALESCE_WINDOW": "300ms"}
WORKSPACE = "dark"


def lay_on(disk: Disk, root: Path) -> None:
    """What the processes keep is on the disk; keys, secrets and logs are not."""
    for name in build_system(root, nodes=1).processes:
        if not (root / name).is_symlink():
            (disk.place / name).mkdir()
            (root / name).symlink_to(disk.place / name)
    disk.settle()


async def load_until_dark(disk: Disk, root: Path, log: Path, chance: random.Random) -> Disk:
    """Run under load, and cut the power at a random moment."""
    async with started_system(root, nodes=1, overrides=SETTINGS, only=ONLY) as system:
        processes = list(system.processes.values())
        async with oracle(system, WORKSPACE, log, seed=chance.randrange(1 << 30), rate_per_s=400):
            await asyncio.sleep(chance.uniform(1.0, 2.5))
            for process in processes:
                process.signal(signal.SIGSTOP)
            await until_stopped([process.pid for process in processes])
            found = disk.cut()
            for process in processes:
                await process.kill()
    return found


async def cut_and_judge(folder: Path, seed: int) -> None:
    chance = random.Random(seed)
    root, log = folder / "system", folder / "oracle.log"
    disk = Disk.made(folder)
    with disk.mounted():
        lay_on(disk, root)
        found = await load_until_dark(disk, root, log, chance)
    with found.mounted():
        async with (
            started_system(root, nodes=1, overrides=SETTINGS, only=ONLY) as system,
            client_of(system) as client,
        ):
            history = await judge(client, WORKSPACE, log)
            assert len(history.acked) > 100


async def test_power_is_cut_under_load(tmp_path: Path) -> None:
    await cut_and_judge(tmp_path, 20261123)


@pytest.mark.full
@pytest.mark.parametrize("seed", range(6))
async def test_power_is_cut_at_many_moments(tmp_path: Path, seed: int) -> None:
    await cut_and_judge(tmp_path, seed)
