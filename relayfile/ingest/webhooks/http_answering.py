"""How answers leave a connection of `http_protocol`: in one write, by the short way too, and never faster than read.

Owns what stands in the place of uvicorn's own parts. Refuses to know requests, limits and timers.
"""

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from uvicorn.protocols.http.flow_control import FlowControl

if TYPE_CHECKING:
    from relayfile.ingest.webhooks.http_protocol import BoundedProtocol


class ReadingWhenIdle(FlowControl):
    """Reads on only when no request waits: uvicorn reads more for each answer, whatever is parsed already."""

    def __init__(self, transport: asyncio.Transport, waiting: deque[Any]) -> None:
        super().__init__(transport)
        self._waiting = waiting

    def resume_reading(self) -> None:
        if not self._waiting:
            super().resume_reading()


class WholeAnswer:
    """Writes the head of an answer together with its body: uvicorn's two writes are two system calls."""

    __slots__ = ("_head", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""

    def write(self, data: bytes) -> None:
        if self._transport.is_closing():
            return  # uvicorn asks only for the newest request of a connection; older ones are answered into nothing
        if self._head:
            data, self._head = self._head + data, b""
        elif data.startswith(b"HTTP/1.1 ") and not data.startswith(b"HTTP/1.1 100"):
            self._head = data
            return
        self._transport.write(data)

    def close(self) -> None:
        if self._head:
            self._transport.write(self._head)
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()


_NOBODY_WAITS: Final = asyncio.Event()


class PromptCycle:
    """A request that was taken by the short way, where uvicorn's cycle would be."""

    __slots__ = ("_protocol", "disconnected", "keep_alive", "message_event", "response_complete", "response_started")

    def __init__(self, protocol: "BoundedProtocol", *, keep_alive: bool) -> None:
        self._protocol = protocol
        self.disconnected = False
        self.keep_alive = keep_alive
        self.message_event = _NOBODY_WAITS
        self.response_started = False
        self.response_complete = False

    def reply(self, head: bytes, body: bytes) -> None:
        """See `Reply`."""
        transport = self._protocol.transport
        if self.disconnected or transport.is_closing():
            return
        self.response_started = self.response_complete = True
        if self.keep_alive:
            transport.write(b"".join((head, b"\r\n", body)))
        else:
            transport.write(b"".join((head, b"connection: close\r\n\r\n", body)))
            transport.close()
        self._protocol.on_response_complete()
