"""What the public HTTP port answers: one table from reasons to statuses, and the bytes of an answer.

Owns which of our errors blames whom (D2): 200 exactly on success, 4xx only for what the sender did wrong, 429 for its
own share, 503 for our trouble. Refuses to tell a sender more than a reason and where to look it up.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import msgspec

from relayfile import errors
from relayfile.asgi import Send
from relayfile.errors import RelayfileError
from relayfile.ingest.webhooks.request_body import MalformedEncoding, UnsupportedEncoding
from relayfile.pinned_json import JsonValue

Headers = list[tuple[bytes, bytes]]

STATUSES: Final[Mapping[type[RelayfileError], int]] = {
    errors.InvalidArgument: 400,
    MalformedEncoding: 400,
    errors.Unauthenticated: 401,
    errors.PermissionDenied: 403,
    errors.WorkspaceNotFound: 404,
    errors.ProviderNotFound: 404,
    errors.AppNotFound: 404,
    errors.TooLarge: 413,
    UnsupportedEncoding: 415,
    errors.Overloaded: 429,
    errors.Unavailable: 503,
    errors.Draining: 503,
    errors.Paused: 503,
    errors.StorageFailed: 503,
}
UNEXPECTED: Final = 500
_MAY_RETRY: Final = frozenset({429, 503})


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer to one request."""

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()
    closes: bool = False
    """The rest of the request is not read: the connection ends."""
    content_type: bytes = b"application/json"


def accepted(envelope_id: str) -> Answer:
    """Durable. Always 200: Linear takes anything else for a failure."""
    return Answer(200, b'{"envelope_id":"%s"}\n' % envelope_id.encode())


def plain(body: str | dict[str, JsonValue], *, header: tuple[str, str] | None = None) -> Answer:
    """The answer to a challenge or a handshake: a text as such, an object as JSON."""
    headers = ((header[0].encode("latin-1"), header[1].encode("latin-1")),) if header is not None else ()
    if isinstance(body, str):
        return Answer(200, body.encode(), headers, content_type=b"text/plain; charset=utf-8")
    return Answer(200, msgspec.json.encode(body), headers)


def refusal(error: RelayfileError, correlation_id: str, *, closes: bool) -> Answer:
    """The answer that an error of ours becomes."""
    status = next((STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES), UNEXPECTED)
    return refused(status, error.reason, correlation_id, retry_after_s=_retry_after_s(error, status), closes=closes)


def refused(
    status: int,
    reason: str,
    correlation_id: str,
    *,
    headers: tuple[tuple[bytes, bytes], ...] = (),
    retry_after_s: float = 0.0,
    closes: bool = False,
) -> Answer:
    """An answer that says no. ``correlation_id`` is printable ASCII without quotes, or empty."""
    if retry_after_s:
        headers = (*headers, (b"retry-after", b"%d" % max(1, math.ceil(retry_after_s))))
    traced = f',"correlation_id":"{correlation_id}"' if correlation_id else ""
    body = f'{{"error":"{reason}"{traced}}}\n'.encode()
    return Answer(status, body, headers, closes)


async def send_answer(answer: Answer, correlation_id: str, send: Send, *, ends: bool = True) -> None:
    """Write ``answer``; ``ends=False`` leaves the exchange open, with the whole answer on its way."""
    headers: Headers = [
        (b"content-type", answer.content_type),
        (b"content-length", b"%d" % len(answer.body)),
        *answer.headers,
    ]
    if correlation_id:
        headers.append((b"x-correlation-id", correlation_id.encode("latin-1")))
    if answer.closes:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body, "more_body": not ends})


def head_of(answer: Answer, correlation_id: str) -> bytes:
    """Status line and headers of an answer that leaves the connection open, each line with its end."""
    status = _STATUS_LINES[answer.status]
    lines = b"".join([b"%b: %b\r\n" % each for each in answer.headers]) if answer.headers else b""
    if correlation_id:
        lines += b"x-correlation-id: %b\r\n" % correlation_id.encode("latin-1")
    return b"%bcontent-type: %b\r\ncontent-length: %d\r\n%b" % (status, answer.content_type, len(answer.body), lines)


_STATUS_LINES: Final = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}


def _retry_after_s(error: RelayfileError, status: int) -> float:
    return float(getattr(error, "retry_after_s", 1.0)) if status in _MAY_RETRY else 0.0
