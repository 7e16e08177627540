"""P5c: reading a tree without an export, on loopback: a `ReadFile` stream for each file, and `ReadFiles`, to disk."""

import asyncio
import statistics
import time

from relayfile.v1 import file_pb2, mirror_pb2
from tests.bench.harness import Bench
from tests.bench.mirrored import create_mirror, digest_in_store, digest_on_disk, pull, seed_tree
from tests.bench.names import tree_path
from tests.bench.result import Figure, Result
from tests.support.client import Client

ROUNDS = 3
CONCURRENCY = 16
"""`RELAYFILE_SYNC_READ_CONCURRENCY`."""


async def run(bench: Bench) -> Result:
    files = 5_000 if bench.quick else 40_000
    single = 2_000 if bench.quick else 10_000
    async with bench.system() as (_, client):
        workspace = await seed_tree(client, "bench-", files)
        wanted = await digest_in_store(client, workspace)
        seconds: dict[str, list[float]] = {"ReadFile": [], "ReadFiles": []}
        for number in range(ROUNDS):
            seconds["ReadFile"].append(await read_one_by_one(client, workspace, single))
            target = bench.folder / f"pulled-{number}"
            target.mkdir()
            mirror_id = await create_mirror(client, workspace, target)
            seconds["ReadFiles"].append((await pull(client, mirror_id, mirror_pb2.PULL_VIA_TREE))[1])
            assert await asyncio.to_thread(digest_on_disk, target) == wanted, "the disk does not equal the store"
    return Result(
        "P5c",
        [
            Figure("ReadFile", single / statistics.median(seconds["ReadFile"]), "files/s", 2_000),
            Figure("ReadFiles", files / statistics.median(seconds["ReadFiles"]), "files/s", 10_000),
        ],
        bench.quick,
        {**bench.detail, "files": files, "read one by one": single, "seconds": seconds},
        scale_only=bench.quick,
    )


async def read_one_by_one(client: Client, workspace: str, files: int) -> float:
    """Seconds of reading so many files by a stream each, `CONCURRENCY` at a time."""
    stub = client.files()
    numbers = iter(range(files))
    read = 0

    async def reader() -> None:
        nonlocal read
        for number in numbers:
            request = file_pb2.ReadFileRequest(workspace_id=workspace, path=tree_path(number))
            async for _ in stub.ReadFile(request, metadata=client.metadata):
                pass
            read += 1

    start = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(CONCURRENCY):
            tasks.create_task(reader())
    assert read == files
    return time.perf_counter() - start
