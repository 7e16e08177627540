"""A TCP proxy that can part its two sides for a while, without a word or with a reset, as networks do."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

READ_BYTES = 65_536


class PartedLink:
    """Where clients connect. Bytes that are on their way while it is ``silent`` arrive when it heals."""

    def __init__(self, target: str) -> None:
        self.address = ""
        self._target = target
        self._whole = asyncio.Event()
        self._whole.set()
        self._is_cut = False
        self._running: set[asyncio.Task[None]] = set()

    def part(self, *, silent: bool) -> None:
        """Nothing gets through from now on; unless ``silent``, connections are reset and new ones refused."""
        self._whole.clear()
        if not silent:
            self._is_cut = True
            for task in self._running:
                task.cancel()

    def heal(self) -> None:
        """Everything gets through again."""
        self._is_cut = False
        self._whole.set()

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A client's connection, carried in a task of its own."""
        if self._is_cut:
            writer.transport.abort()
            return
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def close(self) -> None:
        """End what is connected."""
        for task in list(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = self._target.rpartition(":")
        onward: asyncio.StreamWriter | None = None
        directions: list[asyncio.Future[None]] = []
        try:
            back, onward = await asyncio.open_connection(host, int(port))
            directions = [
                asyncio.ensure_future(self._carry(reader, onward)),
                asyncio.ensure_future(self._carry(back, writer)),
            ]
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for direction in directions:
                direction.cancel()
            for each in (writer, onward):
                if each is not None:
                    each.transport.abort()
            await asyncio.gather(*directions, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(READ_BYTES):
            await self._whole.wait()
            writer.write(data)
            await writer.drain()


@asynccontextmanager
async def parted_link(target: str) -> AsyncIterator[PartedLink]:
    """A link to ``target`` (`host:port`), whole at first."""
    link = PartedLink(target)
    server = await asyncio.start_server(link.connected, "127.0.0.1", 0)
    link.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield link
    finally:
        server.close()
        link.heal()
        await link.close()
        await server.wait_closed()
