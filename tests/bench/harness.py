"""What every benchmark shares: a running system on an empty data directory, load processes, waiting for the end."""

import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from grpc import aio

from relayfile.local.system import LocalSystem
from relayfile.syncd.descriptors import place_apart
from tests.bench import machine
from tests.bench.load_http import HttpLoad
from tests.bench.load_paced import PacedLoad
from tests.bench.load_publish import PublishLoad
from tests.bench.load_write import WriteLoad
from tests.support.client import Client, client_of
from tests.support.system import started_system

ROOT = Path(__file__).resolve().parents[2]
STORE_AND_INGEST = frozenset({"store", "ingest"})


@dataclass(slots=True)
class Bench:
    """One benchmark's surroundings."""

    quick: bool
    folder: Path
    detail: dict[str, object] = field(default_factory=dict)
    million: Path | None = None
    """Where the store of 1,000,000 files is kept over runs; None: made anew in each."""

    @asynccontextmanager
    async def system(
        self,
        *,
        nodes: int = 1,
        overrides: Mapping[str, str] | None = None,
        only: frozenset[str] | None = None,
        data: Path | None = None,
    ) -> AsyncIterator[tuple[LocalSystem, Client]]:
        """A started system with default settings (unless overridden) and empty data, or `data`, and a client of it."""
        self.detail["settings"] = dict(overrides or {}) or "default"
        async with (
            started_system(data or self.folder / "data", nodes=nodes, overrides=overrides, only=only) as running,
            client_of(running) as client,
        ):
            before = machine.cpu_of(pids(running))
            yield running, client
            self.detail["cpu_seconds"] = machine.used_since(before, pids(running))
            self.detail["peak_memory_mib"] = {
                name: round(machine.peak_memory_mib(pid), 1) for name, pid in pids(running).items()
            }

    def cpu(self, process: str) -> float:
        """CPU seconds that the processes of this kind used in the system that ended last."""
        used = self.detail["cpu_seconds"]
        assert isinstance(used, dict)
        return float(sum(seconds for name, seconds in used.items() if str(name).startswith(process)))


def pids(system: LocalSystem) -> dict[str, int]:
    return {name: process.pid for name, process in system.processes.items() if process.running}


@contextmanager
def bench_folder(parent: Path) -> Iterator[Path]:
    """A fresh folder for a whole run, removed at its end and not before.

    On ext4 without a journal, making a file looks at each recently deleted inode of its group for a minute: files that
    one measurement removed made the next one up to twenty times slower. So does what anybody else deleted nearby:
    `measurement_folder` leads away from that.
    """
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def measurement_folder(folder: Path) -> None:
    """Make the folder of one measurement. What is measured in each folder below lies apart from all others on disk."""
    folder.mkdir()
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        place_apart(descriptor)
    finally:
        os.close(descriptor)


Load: TypeAlias = PublishLoad | HttpLoad | PacedLoad | WriteLoad
_MODULES: dict[type[Load], str] = {
    PublishLoad: "tests.bench.load_publish",
    HttpLoad: "tests.bench.load_http",
    PacedLoad: "tests.bench.load_paced",
    WriteLoad: "tests.bench.load_write",
}


async def run_load(load: Load) -> dict[str, Any]:
    """Run one load process to its end; what it printed. Cancelled, it ends the process."""
    module = _MODULES[type(load)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, json.dumps(asdict(load)), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    try:
        out, _ = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    if process.returncode != 0:
        raise RuntimeError(f"{module} ended with {process.returncode}")
    return dict(json.loads(out))


async def create_workspaces(client: Client, prefix: str, count: int) -> list[str]:
    names = [f"{prefix}{number:03d}" for number in range(count)]
    for name in names:
        await client.create_workspace(name)
    return names


async def until_ended(client: Client, expected: Mapping[str, int], timeout_s: float) -> tuple[float, int]:
    """Wait until every workspace has as many outcomes as expected. Returns Unix seconds at the end, and how many are
    missing when time ran out."""
    open_names = dict(expected)
    deadline = time.monotonic() + timeout_s
    missing = 0
    while open_names:
        missing = 0
        for name in list(open_names):
            try:
                ended = (await client.counts(name)).ended
            except aio.AioRpcError:
                ended = 0
            if ended >= open_names[name]:
                del open_names[name]
            else:
                missing += open_names[name] - ended
                if missing > 10_000:
                    break  # far from the end: do not ask for every workspace
        if open_names:
            if time.monotonic() > deadline:
                return time.time(), missing
            await asyncio.sleep(0.3 if missing > 10_000 else 0.05)
    return time.time(), 0


def spread(total: int, names: list[str]) -> dict[str, int]:
    """How many of `total` envelopes each workspace gets when envelope i goes to workspace i mod n."""
    return {name: total // len(names) + (number < total % len(names)) for number, name in enumerate(names)}
