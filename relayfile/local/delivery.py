"""Deliveries as a provider makes them: signed requests over a kept-alive HTTP connection.

For the demonstration, the development command `relayfile send`, tests and load. Not an HTTP client for general use: it
speaks just enough HTTP/1.1 to post a body and read a short answer with a Content-Length.
"""

import asyncio
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from relayfile.errors import PeerFailed

ANSWER_BYTES_MAX = 64 * 1024


@dataclass(frozen=True, slots=True)
class Delivery:
    """One webhook request: where it goes, what it says."""

    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """What the receiver answered."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes


def github_delivery(workspace: str, event: str, body: bytes, *, secret: str, delivery_id: str) -> Delivery:
    """A request as GitHub sends it: event and delivery id in headers, HMAC-SHA256 over the raw body."""
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return Delivery(
        f"/v1/workspaces/{workspace}/webhooks/github",
        {
            "content-type": "application/json",
            "user-agent": "GitHub-Hookshot/sample",
            "x-github-delivery": delivery_id,
            "x-github-event": event,
            "x-hub-signature-256": f"sha256={signature}",
        },
        body,
    )


class Sender:
    """One kept-alive connection. Not for concurrent use: as many senders as requests at once."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.scheme == "http", f"{url} is not an http:// address"
        assert parts.hostname, f"{url} names no host"
        self._host, self._port = parts.hostname, parts.port or 80
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def post(self, delivery: Delivery) -> Answer:
        """Send it and read the answer. Raises `OSError` or `PeerFailed` when there is none; then nothing is known."""
        reader, writer = self._streams or await self._connect()
        lines = [f"POST {delivery.path} HTTP/1.1", f"host: {self._host}:{self._port}"]
        lines += [f"{name}: {value}" for name, value in delivery.headers.items()]
        lines += [f"content-length: {len(delivery.body)}", "", ""]
        try:
            writer.write("\r\n".join(lines).encode() + delivery.body)
            answer = await _read_answer(reader)
        except BaseException:
            await self.close()
            raise
        if answer.headers.get("connection", "").lower() == "close":
            await self.close()
        return answer

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        self._streams = await asyncio.open_connection(self._host, self._port, limit=ANSWER_BYTES_MAX)
        return self._streams

    async def close(self) -> None:
        """Close the connection; the next post opens another."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def _read_answer(reader: asyncio.StreamReader) -> Answer:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        raise PeerFailed(code="no answer", detail="the connection was closed before an answer") from None
    first, *rest = head.decode("latin-1").split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in rest if line)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Answer(int(first.split(" ", 2)[1]), headers, body)
