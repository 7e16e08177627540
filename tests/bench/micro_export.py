"""`python -m tests.bench.micro_export [FILES]`: how fast a node lists and exports, by itself and over loopback.

Prints files per second and microseconds of server CPU per file for each stage, so that a change of one of them shows
where it works: rows and content from SQLite, messages built, messages serialised, and the whole through gRPC to a
client that drops what it gets.
"""

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import uvloop
from grpc import aio

from relayfile.auth import EVERY_SCOPE, set_current_principal
from relayfile.store.servicers.export import ExportLimits, TreeExport
from relayfile.store.servicers.reading import Reading
from relayfile.store.servicers.tree_listing import TreeListing
from relayfile.v1 import file_pb2
from tests.support.store_node import LIMITS, NoDeadline, TestNode, started_nodes
from tests.support.tokens import EVERYBODY

W = "bench"
CONTENT = os.urandom(512).hex().encode()


async def _start() -> AsyncIterator[file_pb2.ExportTreeRequest]:
    yield file_pb2.ExportTreeRequest(start=file_pb2.ExportStart(workspace_id=W), have_complete=True)


async def _pages(node: TestNode) -> int:
    set_current_principal(EVERYBODY)
    listing = TreeListing(Reading(node.engine, node.feed, node.ownership, 1), 5_000, 20_000)
    request = file_pb2.ListTreeRequest(workspace_id=W)
    return sum([len(page.entries) async for page in listing.pages(request, NoDeadline())])


async def _messages(node: TestNode, *, serialise: bool) -> int:
    reading = Reading(node.engine, node.feed, node.ownership, 1)
    export = TreeExport(reading, ExportLimits(1 << 30, 8, LIMITS.message_bytes_target))
    files = 0
    async for message in export.messages(_start(), NoDeadline()):
        files += len(message.files)
        if serialise:
            message.SerializeToString()
    return files


async def _over_loopback(address: str, token: str) -> int:
    """In another process: the client's CPU is not the server's."""
    script = (
        "import asyncio, sys, uvloop\n"
        "from tests.bench.micro_export import drain\n"
        "print(uvloop.run(drain(sys.argv[1], sys.argv[2])))\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, address, token, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    return int(output)


async def drain(address: str, token: str) -> int:
    """The client: raw bytes in, counted as files afterwards."""
    options = (("grpc.max_receive_message_length", 8 << 20),)
    sizes = []
    async with aio.insecure_channel(address, options=options) as channel:
        export: aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(
            "/relayfile.v1.FileService/ExportTree"
        )
        call = export(_raw_start(), metadata=(("authorization", f"Bearer {token}"),))
        message = b""
        async for message in call:
            sizes.append(len(message))
    return file_pb2.ExportTreeResponse.FromString(message).end.file_count


async def _raw_start() -> AsyncIterator[bytes]:
    async for request in _start():
        yield request.SerializeToString()


async def _timed(name: str, work: Callable[[], Awaitable[int]]) -> None:
    started, cpu = time.perf_counter(), time.process_time()
    files = await work()
    elapsed, used = time.perf_counter() - started, time.process_time() - cpu
    print(f"{name:28} {files / elapsed:10,.0f} files/s   {used / files * 1e6:6.2f} us CPU per file")


async def main(files: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with started_nodes(Path(folder)) as [node]:
            await node.writer.create_workspace(W)
            node.writer.trees[W].keep_content = False
            for start in range(0, files, 10_000):
                contents = {
                    f"/github/repos/acme/app-{n % 97}/issues/{n}.json": b"%d" % n + CONTENT
                    for n in range(start, min(start + 10_000, files))
                }
                await node.writer.put(W, contents)
            token = node.signer.mint("bench", workspaces="*", ttl_s=3600, scopes=(EVERY_SCOPE,))
            for _ in range(2):
                await _timed("list: pages built", lambda: _pages(node))
                await _timed("export: messages built", lambda: _messages(node, serialise=False))
                await _timed("export: and serialised", lambda: _messages(node, serialise=True))
                await _timed("export: to another process", lambda: _over_loopback(node.address, token))


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000))
