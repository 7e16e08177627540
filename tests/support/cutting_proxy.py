"""A TCP proxy that cuts each connection after so many bytes from the server: what a stream must survive."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass


@dataclass(slots=True)
class CuttingProxy:
    """Where clients connect, and how it went."""

    address: str = ""
    cut_after_bytes: int = 0
    """0: never."""
    connections: int = 0
    cuts: int = 0


@asynccontextmanager
async def cutting_proxy(target: str, cut_after_bytes: int) -> AsyncIterator[CuttingProxy]:
    """A proxy before `target` (`host:port`)."""
    host, _, port = target.rpartition(":")
    proxy = CuttingProxy(cut_after_bytes=cut_after_bytes)
    running: set[asyncio.Task[None]] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, counted: bool) -> None:
        left = proxy.cut_after_bytes
        while data := await reader.read(16_384):
            writer.write(data)
            await writer.drain()
            left -= len(data)
            if counted and proxy.cut_after_bytes and left <= 0:
                proxy.cuts += 1
                return

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        proxy.connections += 1
        task = asyncio.ensure_future(serve(reader, writer))
        running.add(task)
        task.add_done_callback(running.discard)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward: asyncio.StreamWriter | None = None
        try:
            back, onward = await asyncio.open_connection(host, int(port))
            directions = [
                asyncio.ensure_future(pump(reader, onward, counted=False)),
                asyncio.ensure_future(pump(back, writer, counted=True)),
            ]
            try:
                await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for direction in directions:
                    direction.cancel()
                await asyncio.gather(*directions, return_exceptions=True)
        finally:
            for each in (writer, onward):
                if each is not None:
                    each.transport.abort()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    proxy.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
        for task in list(running):
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await server.wait_closed()
