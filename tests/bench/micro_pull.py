"""How fast syncd alone pulls: files of 1 KiB from a fake store's ready-made messages into an empty directory.

    python -m tests.bench.micro_pull [files] [--via tree] [--profile]

Not a bar of its own: P5 measures the whole system. The fake runs in a process of its own.
"""

import argparse
import asyncio
import cProfile
import json
import multiprocessing
import multiprocessing.connection
import os
import pathlib
import pstats
import tempfile

import uvloop

from relayfile.clock import SystemClock
from relayfile.settings import SyncdSettings
from relayfile.syncd.progress import Progress, Via
from relayfile.syncd.pull import first_pull
from tests.fakes.mirror import opened
from tests.fakes.store import FakeStore


def serve(files: int, ready: multiprocessing.connection.Connection) -> None:
    async def main() -> None:
        store = FakeStore()
        for index in range(files):
            store.put(f"/github/repos/acme/project-{index % 300:03}/issues/{index:06}.json", os.urandom(512).hex())
        store.pack()
        async with store.served() as address:
            ready.send(address)
            await asyncio.to_thread(ready.recv)

    uvloop.run(main())


async def pull(address: str, directory: pathlib.Path, files: int, via: Via) -> None:
    clock = SystemClock()
    settings = SyncdSettings(data_dir=directory)
    async with opened(address, directory, settings=settings) as mirror:
        started, cpu = clock.monotonic(), os.times()
        progress = Progress(started)
        await first_pull(mirror, progress, via)
        elapsed = clock.monotonic() - started
        now = os.times()
        assert mirror.journal.sums["/"].file_count == files
    print(
        json.dumps(
            {
                "files_per_s": round(files / elapsed),
                "elapsed_s": round(elapsed, 3),
                "user_s": round(now.user - cpu.user, 2),
                "system_s": round(now.system - cpu.system, 2),
            }
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("files", type=int, nargs="?", default=50_000)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--directory", default=None)
    parser.add_argument("--via", choices=["export", "tree"], default="export")
    options = parser.parse_args()
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    store = context.Process(target=serve, args=(options.files, theirs), daemon=True)
    store.start()
    address = ours.recv()
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        profile = cProfile.Profile()
        if options.profile:
            profile.enable()
        uvloop.run(pull(address, pathlib.Path(directory), options.files, Via[options.via.upper()]))
        if options.profile:
            profile.disable()
            pstats.Stats(profile).sort_stats("tottime").print_stats(25)
    ours.send("done")
    store.join()


if __name__ == "__main__":
    main()
