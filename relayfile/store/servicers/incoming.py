"""What calls that bring content in chunks have in common: room in memory, chunks of a bounded size, and patience.

Each call reserves the size that it declares before its first chunk is read, and keeps it until what it brought is
durable; all of one kind together stay below `bytes_max`. What does not fit is refused and may come again.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import TypeVar

from relayfile.errors import DeadlineExpired, InvalidArgument, Overloaded

Message = TypeVar("Message")

CHUNK_BYTES_MAX = 1 << 20
RETRY_AFTER_S = 0.5


class Incoming:
    """The calls of one kind."""

    def __init__(self, what: str, bytes_max: int, idle_s: float) -> None:
        """`what`: in a refusal, after "room for"; `idle_s`: longest wait for the next message."""
        self._what = what
        self._bytes_max = bytes_max
        self._idle_s = idle_s
        self._reserved_bytes = 0

    @contextmanager
    def reserved(self, size: int) -> Iterator[None]:
        """Room for `size` bytes, given back however the block ends. `Overloaded` when there is none."""
        if self._reserved_bytes + size > self._bytes_max:
            raise Overloaded(what=f"room for {self._what}", retry_after_s=RETRY_AFTER_S)
        self._reserved_bytes += size
        try:
            yield
        finally:
            self._reserved_bytes -= size

    async def next(self, requests: AsyncIterator[Message]) -> Message | None:
        """The next message; None: the caller has sent all. `DeadlineExpired` after `idle_s` without one."""
        try:
            async with asyncio.timeout(self._idle_s):
                return await anext(requests, None)
        except TimeoutError:
            raise DeadlineExpired(what="the next chunk") from None


def check_chunk(data: bytes) -> None:
    """`InvalidArgument` for a chunk that is too large."""
    if len(data) > CHUNK_BYTES_MAX:
        raise InvalidArgument.of("chunk.data", f"has {len(data)} bytes; at most {CHUNK_BYTES_MAX}")
