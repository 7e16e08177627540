"""A TCP proxy that makes a server distant, in its own process: `python -m tests.support.distant_link HOST:PORT MS`.

Every byte arrives so many milliseconds later than it was sent, in both directions, in order, at any rate: a long line,
not a narrow one. Prints its own address on one line, and serves until it is ended.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import uvloop

ROOT = Path(__file__).resolve().parents[2]
READ_BYTES = 256 * 1024
UNDER_WAY_MAX = 256
"""Pieces that are on the line in one direction: more than 20 ms of what loopback carries."""


@asynccontextmanager
async def distant(target: str, one_way_ms: float) -> AsyncIterator[str]:
    """The address of a link to `target` with that delay each way."""
    command = (sys.executable, "-m", "tests.support.distant_link", target, str(one_way_ms))
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        async with asyncio.timeout(20):
            address = (await process.stdout.readline()).decode().strip()
        assert address, "the link ended at once"
        yield address
    finally:
        process.terminate()
        await process.wait()


async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: float) -> None:
    """Pass on what comes, each piece `delay_s` after it came, until the end."""
    loop = asyncio.get_running_loop()
    line: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(UNDER_WAY_MAX)

    async def arrive() -> None:
        while True:
            due, data = await line.get()
            await asyncio.sleep(max(0.0, due - loop.time()))
            if not data:
                return
            writer.write(data)
            await writer.drain()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(arrive())
        data = b"."
        while data:
            data = await reader.read(READ_BYTES)
            await line.put((loop.time() + delay_s, data))


async def serve(target: str, delay_s: float) -> None:
    host, _, port = target.rpartition(":")

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, onward = await asyncio.open_connection(host, int(port))
        directions = [
            asyncio.ensure_future(carry(reader, onward, delay_s)),
            asyncio.ensure_future(carry(back, writer, delay_s)),
        ]
        try:
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for direction in directions:
                direction.cancel()
            await asyncio.gather(*directions, return_exceptions=True)
            for each in (writer, onward):
                each.transport.abort()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    print(f"127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1], float(sys.argv[2]) / 1000))
