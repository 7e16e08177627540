"""One connection of the public HTTP port without a socket: bytes in, what was understood and what was answered out."""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import uvicorn
from uvicorn.server import ServerState

from relayfile.asgi import Receive, Scope, Send
from relayfile.ingest.webhooks.express_turns import ExpressTurns
from relayfile.ingest.webhooks.http_protocol import BoundedProtocol, HttpLimits, Reply

_PLAIN: Final = re.compile(rb"/[\w/]*\Z")
HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n"


class Seen(NamedTuple):
    """A request that reached the app, or the short way."""

    method: str
    target: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


class Wire(asyncio.Transport):
    """Where the answers go."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.is_over = False
        self.is_aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def is_closing(self) -> bool:
        return self.is_over

    def close(self) -> None:
        self.is_over = True

    def abort(self) -> None:
        self.is_over = self.is_aborted = True

    def pause_reading(self) -> None:
        """Nothing is read by itself."""

    def resume_reading(self) -> None:
        """See `pause_reading`."""


@dataclass
class Connection:
    """A protocol on a `Wire`, and what it was told. Make it inside a running loop."""

    limits: HttpLimits
    is_prompt: bool = True
    turns: ExpressTurns = field(default_factory=ExpressTurns)
    seen: list[Seen] = field(default_factory=list)
    refused: list[tuple[int, str]] = field(default_factory=list)
    wire: Wire = field(default_factory=Wire)

    def __post_init__(self) -> None:
        config: Any = uvicorn.Config(
            self.app, http="httptools", ws="none", lifespan="off", interface="asgi3", log_config=None, access_log=False
        )
        config.load()
        self.protocol = BoundedProtocol(
            self.limits,
            lambda status, reason: self.refused.append((status, reason)),
            self if self.is_prompt else None,
            config=config,
            server_state=ServerState(),
            app_state={},
        )
        self.protocol.connection_made(self.wire)

    def take(self, url: bytes, headers: Sequence[tuple[bytes, bytes]], body: bytes, reply: Reply) -> bool:
        """As `http_protocol.Express`; takes what the app would see alike."""
        if not url.isascii() or not _PLAIN.match(url):
            return False
        self.seen.append(Seen("POST", url, tuple(headers), body))
        reply(HEAD, b"ok")
        return True

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers every request that is whole."""
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message["body"]
            if not message["more_body"]:
                break
        self.seen.append(Seen(scope["method"], scope["raw_path"], tuple(scope["headers"]), body))
        headers = [(b"content-type", b"text/plain"), (b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"ok"})

    async def feed(self, pieces: Sequence[bytes]) -> None:
        """One read for each piece, and time for the app after it."""
        for piece in pieces:
            if piece and not self.wire.is_over:
                self.protocol.data_received(piece)
            for _ in range(4):
                await asyncio.sleep(0)

    async def settle(self, turns: int) -> None:
        """Let what is waiting be answered, and end the connection."""
        for _ in range(turns):
            await asyncio.sleep(0)
        self.protocol.connection_lost(None)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    @property
    def outcome(self) -> tuple[list[Seen], list[int], list[tuple[int, str]]]:
        """What must not depend on the pieces in which the bytes came, nor on the way that the requests went."""
        return self.seen, self.statuses, self.refused

    @property
    def statuses(self) -> list[int]:
        """Of the answers, in their order."""
        return [int(line.split()[1]) for line in self.wire.written.split(b"\r\n") if b"HTTP/1.1 " in line]
