"""Addresses of pods and Services on the loopback network, and the proxy behind a Service.

Where pods are confined, `names` leads to both. Elsewhere names in a pod's environment are replaced by addresses when it
starts: a pod of a set keeps its address when it is made anew, and a headless Service is one address, whose proxy knows
who is ready now.
"""

import asyncio
import os
import random
from collections.abc import Callable, Mapping, Sequence

PIPE_BYTES = 64 << 10


class Loopback:
    """Hands out addresses that no other test run of this machine uses."""

    def __init__(self) -> None:
        self._network = f"127.{32 + os.getpid() % 199}"
        self._next = random.randrange(1 << 14) * 4

    def address(self) -> str:
        """A new one."""
        self._next = (self._next + 1) % 65_000
        return f"{self._network}.{self._next // 254 + 1 & 0xFF or 1}.{self._next % 254 + 1}"


class ServiceProxy:
    """Listens at a Service's address; each connection goes to one of the endpoints, as kube-proxy does it.

    A connection that is open stays with its pod. Without an endpoint, and where the pod does not listen, a connection
    is cut at once.
    """

    def __init__(self, address: str, ports: Mapping[int, int], endpoints: Callable[[], Sequence[str]]) -> None:
        """`ports` leads from the Service's to the pod's."""
        self.address = address
        self._ports = ports
        self._endpoints = endpoints
        self._servers: list[asyncio.Server] = []
        self._pipes: set[asyncio.Task[None]] = set()
        self._random = random.Random(0)

    async def start(self) -> None:
        """Listen."""
        for port, target in self._ports.items():

            async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: int = target) -> None:
                await self._serve(target, reader, writer)

            self._servers.append(await asyncio.start_server(serve, self.address, port))

    async def close(self) -> None:
        """Cut everything."""
        for server in self._servers:
            server.close()
        for pipe in self._pipes:
            pipe.cancel()
        await asyncio.gather(*self._pipes, return_exceptions=True)

    async def _serve(self, target: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        endpoints = self._endpoints()
        try:
            assert endpoints, "nobody is ready"
            there = await asyncio.open_connection(self._random.choice(endpoints), target)
        except (OSError, AssertionError):
            writer.transport.abort()
            return
        pipes = [asyncio.ensure_future(_pipe(reader, there[1])), asyncio.ensure_future(_pipe(there[0], writer))]
        self._pipes.update(pipes)
        try:
            # Not awaited themselves: a cut is no failure of what serves a connection.
            await asyncio.wait(pipes)
        finally:
            self._pipes.difference_update(pipes)
            for each in (writer, there[1]):
                each.close()


async def _pipe(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    """Bytes from one to the other, and its end."""
    try:
        while data := await source.read(PIPE_BYTES):
            target.write(data)
            await target.drain()
        if target.can_write_eof() and not target.is_closing():
            target.write_eof()
    except OSError:
        target.transport.abort()
