"""Getting a first pull's files to the disk while more are written, so that little is left for the barrier behind them.

Owns when. It proves nothing: what is durable is what a barrier of the writer thread has passed. A wait of the kernel,
without the interpreter lock: it takes a processor that the writer thread cannot use.
"""

import asyncio
from typing import Final

from relayfile.syncd import descriptors
from relayfile.syncd.writer import Writer, finished

WRITE_BACK_BYTES: Final = 16 << 20
"""Staged between two; a smaller part costs as much again, a larger one leaves more to the barrier."""


class WriteBack:
    """At most one under way; what is staged meanwhile is for the next."""

    def __init__(self, writer: Writer, directory: int) -> None:
        self._writer = writer
        self._directory = directory
        self._staged_bytes = 0
        self._under_way: asyncio.Future[None] | None = None

    async def staged(self, size: int) -> None:
        """``size`` bytes more; begins one when enough are there. ``OSError`` of the one before."""
        self._staged_bytes += size
        if self._staged_bytes >= WRITE_BACK_BYTES and (self._under_way is None or self._under_way.done()):
            await self.end()
            self._staged_bytes = 0
            self._under_way = self._writer.beside(descriptors.barrier, self._directory)

    async def end(self) -> None:
        """Until none is under way: the directory's descriptor may be closed then. ``OSError`` of the last one."""
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            await finished(under_way)
