"""WISO: what a writer notices of another workspace of its shard that is exported, watched slowly and flooded.

The writer is one caller that writes again as soon as it is answered, in a process of its own. Its p99 alone, beside
each kind of trouble by itself, and beside all three together, which the bar is about.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from grpc import aio

from relayfile import client as sdk
from relayfile.placement import shard_of
from relayfile.v1 import event_pb2, file_pb2
from tests.bench.harness import Bench, run_load
from tests.bench.load_write import WriteLoad
from tests.bench.result import Figure, Result
from tests.support.client import Client

QUIET: Final = "bench-quiet"
BESIDE_RATIO: Final = 2.0
BESIDE_MS: Final = 50.0
LEAD_S: Final = 1.0
ALL: Final = ("export", "watcher", "flood")
_FLOODS: Final = itertools.count()


async def run(bench: Bench) -> Result:
    files, writes = (10_000, 200) if bench.quick else (100_000, 3_000)
    noisy = next(name for name in (f"bench-noisy-{n}" for n in itertools.count()) if shard_of(name) == shard_of(QUIET))
    detail: dict[str, object] = {}
    async with bench.system(only=frozenset({"store"})) as (_, client):
        for workspace in (QUIET, noisy):
            await client.create_workspace(workspace)
        await fill(client, noisy, files)
        p99s: dict[str, float] = {}
        for name, kinds in {"alone": (), **{kind: (kind,) for kind in ALL}, "all": ALL, "alone again": ()}.items():
            async with AsyncExitStack() as stack:
                for kind in kinds:
                    await stack.enter_async_context(trouble(kind, client, noisy))
                seen = await run_load(write_load(client, QUIET, writes, callers=1, folder=f"/{name.replace(' ', '-')}"))
            detail[name] = seen
            p99s[name] = float(seen["p99_ms"]) if not seen["failed"] else float("inf")
    alone = max(p99s["alone"], p99s["alone again"])
    bar_ms = max(BESIDE_MS, BESIDE_RATIO * alone)
    return Result(
        "WISO",
        [
            Figure("p99 of a write beside all three", p99s["all"], "ms", bar_ms, "at most"),
            Figure("alone", alone, "ms"),
            *(Figure(f"beside {kind} alone", p99s[kind], "ms") for kind in ALL),
        ],
        bench.quick,
        {**bench.detail, "files": files, "runs": detail},
        scale_only=bench.quick,
    )


def write_load(client: Client, workspace: str, writes: int, *, callers: int, folder: str = "/notes") -> WriteLoad:
    return WriteLoad(
        address=client.node_addresses[0],
        token=client.token,
        workspace=workspace,
        writes=writes,
        callers=callers,
        folder=folder,
    )


async def fill(client: Client, workspace: str, files: int) -> None:
    """So many files of 1 KiB, 500 to a call."""
    async with sdk.Client(client.node_addresses[0], client.token) as connected:
        writer = connected.workspace(workspace).files
        for start in range(0, files, 500):
            numbers = range(start, min(start + 500, files))
            items = [sdk.Write(f"/docs/{n % 100}/{n}.md", b"%08d" % n * 128) for n in numbers]
            assert all(result.error is None for result in await writer.write_many(items))


@asynccontextmanager
async def trouble(kind: str, client: Client, workspace: str) -> AsyncIterator[None]:
    """One kind of it, for as long as the context lasts."""
    makers = {"export": exports, "watcher": slow_watcher, "flood": flood}
    running = asyncio.ensure_future(makers[kind](client, workspace))
    try:
        await asyncio.sleep(LEAD_S)
        yield
        if running.done():
            running.result()
            raise RuntimeError(f"the {kind} ended early")
    finally:
        running.cancel()
        await asyncio.wait([running])


async def exports(client: Client, workspace: str) -> None:
    """One export of the whole workspace after the other; the bytes are not decoded, to leave the processors alone."""
    start = file_pb2.ExportTreeRequest(start=file_pb2.ExportStart(workspace_id=workspace), have_complete=True)
    method: aio.StreamStreamMultiCallable[file_pb2.ExportTreeRequest, bytes] = client.channel(
        client.node_addresses[0]
    ).stream_stream(
        "/relayfile.v1.FileService/ExportTree", request_serializer=file_pb2.ExportTreeRequest.SerializeToString
    )
    while True:
        async for _ in method(iter([start]), metadata=client.metadata):
            pass


async def slow_watcher(client: Client, workspace: str) -> None:
    """Asks for the whole log, takes one message, and never reads again."""
    request = event_pb2.WatchEventsRequest(workspace_id=workspace, after_revision=0)
    call = client.events().WatchEvents(request, metadata=client.metadata)
    await call.read()
    await asyncio.Event().wait()


async def flood(client: Client, workspace: str) -> None:
    """A hundred callers that write as fast as they are answered, each time where nothing is yet: none is refused."""
    folder = f"/notes/flood-{next(_FLOODS)}"
    await run_load(write_load(client, workspace, 100_000_000, callers=100, folder=folder))
