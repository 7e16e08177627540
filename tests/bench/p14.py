"""P14: a node with 1,000,000 files is started, nothing of it in the page cache, until it answers."""

import statistics
import time

from relayfile.v1 import file_pb2
from tests.bench.harness import Bench
from tests.bench.million import leave_page_cache, million
from tests.bench.names import tree_path
from tests.bench.result import Figure, Result
from tests.support.client import client_of
from tests.support.system import build_system

ROUNDS = 3


async def run(bench: Bench) -> Result:
    filled = await million(bench)
    seconds: list[float] = []
    for _ in range(ROUNDS):
        leave_page_cache(filled.root)
        system = build_system(filled.root, nodes=1)
        started = time.perf_counter()
        await system.start_one("store-0")
        try:
            async with client_of(system) as client:
                request = file_pb2.GetFileRequest(workspace_id=filled.workspaces[0], path=tree_path(0))
                found = await client.files().GetFile(request, metadata=client.metadata, timeout=20)
            seconds.append(time.perf_counter() - started)
            assert found.file.size_bytes
        finally:
            await system.stop()
    return Result(
        "P14",
        [Figure("cold start to the first answer", statistics.median(seconds), "s", 2, "at most")],
        bench.quick,
        {**bench.detail, "files": filled.files, "seconds": seconds},
        scale_only=bench.quick,
    )
