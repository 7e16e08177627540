"""Load of signed webhooks over HTTP, in a process of its own: `python -m tests.bench.load_http JSON`.

Kept-alive connections, one request at a time on each, an object each; every request is signed. Prints one JSON line.
"""

import asyncio
import base64
import hashlib
import hmac
import itertools
import json
import re
import sys
import time
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import uvloop

from relayfile.local.samples import issue

CONTENT_LENGTH = b"content-length: "


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLoad:
    """What to send."""

    host: str
    port: int
    workspace_prefix: str
    workspaces: int
    secret: str
    seconds: float
    connections: int = 64
    body_bytes: int = 1024
    presigned: int = 200_000
    """Requests that are made before the clock starts; any more are made on the way."""
    shape: str = "generic"
    """`generic`: envelopes of `body_bytes`. `github`: see `github_bodies`; none is made before the clock starts."""
    payloads: str = ""
    """A folder with payloads of GitHub's, `EVENT__NAME.payload.json`; empty: they are synthesised."""


class Requests(Protocol):
    """Signed requests, an object each."""

    def take(self) -> bytes:
        """The next one."""
        ...


class GithubRequests:
    """Webhooks as GitHub sends them, made on the way: thirty seconds of them would not fit into memory."""

    def __init__(self, load: HttpLoad) -> None:
        self._load = load
        self._bodies = github_bodies(load.payloads)
        self._next = 0

    def take(self) -> bytes:
        number = self._next
        self._next += 1
        event, template, places = self._bodies[number % len(self._bodies)]
        body = template % ((b"%010d" % (number + 1_000_000_000),) * places)
        signature = hmac.digest(self._load.secret.encode(), body, hashlib.sha256).hex().encode()
        workspace = f"{self._load.workspace_prefix}{number % self._load.workspaces:03d}".encode()
        return (
            b"POST /v1/workspaces/%b/webhooks/github HTTP/1.1\r\nhost: %b:%d\r\nuser-agent: GitHub-Hookshot/1\r\n"
            b"accept: */*\r\ncontent-type: application/json\r\nx-github-event: %b\r\nx-github-hook-id: 42\r\n"
            b"x-github-delivery: 72d3162e-cc78-11e3-81ab-%012x\r\nx-hub-signature-256: sha256=%b\r\n"
            b"content-length: %d\r\n\r\n%b"
            % (workspace, self._load.host.encode(), self._load.port, event, number, signature, len(body), body)
        )


def github_bodies(folder: str) -> list[tuple[bytes, bytes, int]]:
    """(event, body as a format, places in it) of each payload. Every numeric id and number is left open, so that each
    request is about objects of its own."""
    found = [
        (path.name.partition("__")[0].encode(), json.dumps(json.loads(path.read_bytes())).encode())
        for path in (sorted(Path(folder).glob("*__*.json")) if folder else ())
    ] or [(sample.event.encode(), _padded(sample.body)) for sample in (issue("conveyor", n) for n in range(155))]
    bodies = []
    for event, body in found:
        template, places = _IDS.subn(rb"\1%b", body.replace(b"%", b"%%"))
        bodies.append((event, template, places))
    return bodies


_IDS = re.compile(rb'("(?:id|number)": ?)\d+(?=[,}\s])')
GITHUB_BODY_BYTES = 12_000


def _padded(body: bytes) -> bytes:
    """A sample at the size of a real payload, which repeats the URLs of its objects."""
    document = json.loads(body)
    urls = (f"https://api.github.com/repos/acme/conveyor/{number}" for number in itertools.count())
    document["sender"] = {"login": "mara", "id": 17}
    while len(json.dumps(document)) < GITHUB_BODY_BYTES:
        document["sender"].update((f"url_{len(document['sender'])}", next(urls)) for _ in range(20))
    return json.dumps(document).encode()


class GenericRequests:
    """Signed generic envelopes, an object each."""

    def __init__(self, load: HttpLoad) -> None:
        self._load = load
        self._key = (
            base64.b64decode(load.secret.removeprefix("whsec_"))
            if load.secret.startswith("whsec_")
            else (load.secret.encode())
        )
        self._timestamp = b"%d" % int(time.time())
        self._next = 0
        self._made = [self._make(number) for number in range(load.presigned)]
        empty = self._body(0, b"")
        assert len(empty) < load.body_bytes, "the body's frame alone is larger than the body"

    def take(self) -> bytes:
        number = self._next
        self._next += 1
        return self._made[number] if number < len(self._made) else self._make(number)

    def _body(self, number: int, text: bytes) -> bytes:
        return (
            b'{"provider":"generic","changes":[{"path":"/generic/records/%010d.json","object_id":"record/%010d",'
            b'"content_text":"%b","content_type":"text/plain"}]}' % (number, number, text)
        )

    def _make(self, number: int) -> bytes:
        frame = len(self._body(number, b""))
        body = self._body(number, (b"%010d " % number).ljust(self._load.body_bytes - frame, b"x"))
        identity = b"msg_%012d" % number
        signature = base64.b64encode(
            hmac.digest(self._key, b"%b.%b.%b" % (identity, self._timestamp, body), hashlib.sha256)
        )
        workspace = f"{self._load.workspace_prefix}{number % self._load.workspaces:03d}".encode()
        return (
            b"POST /v1/workspaces/%b/webhooks/generic HTTP/1.1\r\nhost: %b:%d\r\ncontent-type: application/json\r\n"
            b"webhook-id: %b\r\nwebhook-timestamp: %b\r\nwebhook-signature: v1,%b\r\ncontent-length: %d\r\n\r\n%b"
            % (
                workspace,
                self._load.host.encode(),
                self._load.port,
                identity,
                self._timestamp,
                signature,
                len(body),
                body,
            )
        )


class Tally:
    """Answers by status, and how long the accepted ones took."""

    def __init__(self) -> None:
        self.by_status: dict[int, int] = {}
        self.latencies_s = array("f")
        self.last_accepted_s = 0.0

    def add(self, status: int, seconds: float) -> None:
        self.by_status[status] = self.by_status.get(status, 0) + 1
        if status == 200:
            self.latencies_s.append(seconds)


class Connection(asyncio.Protocol):
    """One connection: asks, reads the whole answer, asks again until time is up."""

    def __init__(self, requests: Requests, tally: Tally, end_s: float) -> None:
        self._requests = requests
        self._tally = tally
        self._end_s = end_s
        self._buffer = b""
        self._since = 0.0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are none by class
        self._ask()

    def _ask(self) -> None:
        self._since = time.perf_counter()
        if self._since >= self._end_s:
            self._transport.close()
            if not self.done.done():
                self.done.set_result(None)
            return
        self._transport.write(self._requests.take())

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[:end].lower()
        at = head.find(CONTENT_LENGTH)
        length = int(head[at + len(CONTENT_LENGTH) :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(self._buffer) < end + 4 + length:
            return
        status = int(self._buffer[9:12])
        self._buffer = b""
        self._tally.add(status, time.perf_counter() - self._since)
        self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(ConnectionError(f"the server closed a connection under load ({exc})"))


async def send(load: HttpLoad) -> dict[str, object]:
    requests: Requests = GithubRequests(load) if load.shape == "github" else GenericRequests(load)
    tally = Tally()
    loop = asyncio.get_running_loop()
    cpu_before = time.process_time()
    started_s = time.time()
    start = time.perf_counter()
    connections = [
        (await loop.create_connection(lambda: Connection(requests, tally, start + load.seconds), load.host, load.port))[
            1
        ]
        for _ in range(load.connections)
    ]
    for connection in connections:
        await connection.done
    seconds = time.perf_counter() - start
    ordered = sorted(tally.latencies_s) or [0.0]
    return {
        "accepted": len(tally.latencies_s),
        "by_status": {str(status): count for status, count in tally.by_status.items()},
        "seconds": seconds,
        "started_s": started_s,
        "p50_ms": ordered[len(ordered) // 2] * 1000,
        "p95_ms": ordered[len(ordered) * 95 // 100] * 1000,
        "p99_ms": ordered[len(ordered) * 99 // 100] * 1000,
        "cpu_s": time.process_time() - cpu_before,
    }


if __name__ == "__main__":
    print(json.dumps(uvloop.run(send(HttpLoad(**json.loads(sys.argv[1]))))))
