"""Changes that are sent when they are due, and when each was applied: `python -m tests.bench.load_paced JSON`.

Whoever sends does not wait for answers: what is late because the system is slow counts from when it was due. A change
is applied when the event of its object arrives on a watch of the workspace; an event is known by its content's hash,
and stands for all earlier changes of its object. Prints one JSON line.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import sys
import time
from collections import deque
from dataclasses import asdict, dataclass, field

import uvloop
from grpc import aio

from relayfile.v1 import event_pb2, event_pb2_grpc, ingest_pb2, ingest_pb2_grpc, types_pb2

LEAD_S = 0.5
"""Until the first change is due: the watch is open then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PacedLoad:
    """What to send to one workspace, and when. Change i of a provider is of its object i mod `objects`."""

    http_address: str
    grpc_address: str
    store_address: str
    token: str
    secret: str
    workspace: str
    via: str = "http"
    """`http`: signed webhooks of the generic envelope. `grpc`: `PublishEnvelope`."""
    providers: int = 1
    per_s: float = 20.0
    """Of each provider."""
    seconds: float = 10.0
    burst_per_s: float = 0.0
    burst_s: float = 0.0
    """Each provider has one burst of so long; they begin at even distances, so that all of them end in time."""
    objects: int = 1 << 30
    connections: int = 64
    content_bytes: int = 1024
    ends_within_s: float = 15.0
    """How long to wait for what is not applied when all was sent."""
    tag: str = "a"
    """Names what is sent apart from that of other runs."""

    def due(self) -> list[tuple[float, int]]:
        """(seconds, provider) of every change, in order."""
        found: list[tuple[float, int]] = []
        for provider in range(self.providers):
            burst = (self.seconds - self.burst_s) * provider / max(1, self.providers - 1)
            at = provider / (self.providers * self.per_s)
            while at < self.seconds:
                found.append((at, provider))
                in_burst = self.burst_per_s and burst <= at < burst + self.burst_s
                at += 1 / (self.burst_per_s if in_burst else self.per_s)
        return sorted(found)


@dataclass(slots=True)
class Change:
    """One change on its way."""

    provider: int
    number: int
    due_s: float
    """On `time.perf_counter`."""
    body: bytes
    obj: tuple[int, int]


@dataclass(slots=True)
class Seen:
    """What became of all of them."""

    answered_ms: list[float] = field(default_factory=list)
    applied_ms: list[float] = field(default_factory=list)
    refused: dict[str, int] = field(default_factory=dict)
    by_hash: dict[bytes, Change] = field(default_factory=dict)
    open: dict[tuple[int, int], deque[Change]] = field(default_factory=dict)
    missing: int = 0

    def sent(self, change: Change) -> None:
        self.by_hash[hashlib.sha256(change.body).digest()] = change
        self.open.setdefault(change.obj, deque()).append(change)
        self.missing += 1

    def answer(self, change: Change, status: str) -> None:
        if status in ("200", "OK"):
            self.answered_ms.append((time.perf_counter() - change.due_s) * 1000)
        else:
            self.refused[status] = self.refused.get(status, 0) + 1
            self.missing -= 1
            self.open[change.obj].remove(change)

    def applied(self, content_sha256: bytes) -> None:
        newest = self.by_hash.get(content_sha256)
        if newest is None:
            return
        now_s = time.perf_counter()
        waiting = self.open[newest.obj]
        while waiting and waiting[0].number <= newest.number:
            self.applied_ms.append((now_s - waiting.popleft().due_s) * 1000)
            self.missing -= 1


def content(load: PacedLoad, provider: int, number: int) -> bytes:
    head = b'{"tag":"%b","provider":%d,"change":%d,"text":"' % (load.tag.encode(), provider, number)
    return head + b"x" * max(0, load.content_bytes - len(head) - 2) + b'"}'


def webhook(load: PacedLoad, change: Change) -> bytes:
    """A signed request with one change."""
    name = f"p{change.provider:02d}"
    body = json.dumps(
        {
            "provider": name,
            "changes": [
                {
                    "path": f"/{name}/{load.tag}-{change.obj[1]:07d}.json",
                    "object_id": f"record/{load.tag}-{change.obj[1]}",
                    "content_text": change.body.decode(),
                    "content_type": "application/json",
                }
            ],
        }
    ).encode()
    key = base64.b64decode(load.secret.removeprefix("whsec_"))
    identity = f"{load.tag}-{change.provider}-{change.number}".encode()
    timestamp = b"%d" % int(time.time())
    signed = base64.b64encode(hmac.digest(key, b"%b.%b.%b" % (identity, timestamp, body), hashlib.sha256))
    return (
        b"POST /v1/workspaces/%b/webhooks/generic HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
        b"webhook-id: %b\r\nwebhook-timestamp: %b\r\nwebhook-signature: v1,%b\r\ncontent-length: %d\r\n\r\n%b"
        % (load.workspace.encode(), identity, timestamp, signed, len(body), body)
    )


class HttpSender:
    """Kept-alive connections, one request at a time on each; what finds none free waits."""

    def __init__(self, load: PacedLoad, seen: Seen) -> None:
        self._load = load
        self._seen = seen
        self._waiting: asyncio.Queue[Change] = asyncio.Queue()

    def send(self, change: Change) -> None:
        self._waiting.put_nowait(change)

    async def run(self, tasks: asyncio.TaskGroup) -> list[asyncio.Task[None]]:
        host, _, port = self._load.http_address.rpartition(":")
        return [
            tasks.create_task(self._serve(*await asyncio.open_connection(host, int(port))))
            for _ in range(self._load.connections)
        ]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                change = await self._waiting.get()
                writer.write(webhook(self._load, change))
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(head.partition(b"content-length: ")[2].split(b"\r\n", 1)[0])
                await reader.readexactly(length)
                self._seen.answer(change, head[9:12].decode())
        finally:
            writer.close()


class GrpcSender:
    """A unary call for each change."""

    def __init__(self, load: PacedLoad, seen: Seen, stub: "ingest_pb2_grpc.IngestServiceAsyncStub") -> None:
        self._load = load
        self._seen = seen
        self._stub = stub
        self._tasks: asyncio.TaskGroup | None = None

    def send(self, change: Change) -> None:
        assert self._tasks is not None
        self._tasks.create_task(self._call(change))

    async def run(self, tasks: asyncio.TaskGroup) -> list[asyncio.Task[None]]:
        self._tasks = tasks
        return []

    async def _call(self, change: Change) -> None:
        name = f"p{change.provider:02d}"
        made = types_pb2.Envelope(
            workspace_id=self._load.workspace,
            provider=name,
            delivery_id=f"{self._load.tag}-{change.provider}-{change.number}",
        )
        made.changes.add(
            kind=types_pb2.CHANGE_KIND_UPSERT,
            path=f"/{name}/{self._load.tag}-{change.obj[1]:07d}.json",
            provider_object_id=f"record/{self._load.tag}-{change.obj[1]}",
            content=change.body,
            content_type="application/json",
        )
        request = ingest_pb2.PublishEnvelopeRequest(envelope=made)
        try:
            await self._stub.PublishEnvelope(request, metadata=_authorised(self._load), timeout=10)
        except aio.AioRpcError as error:
            self._seen.answer(change, error.code().name)
        else:
            self._seen.answer(change, "OK")


async def watch(load: PacedLoad, seen: Seen, channel: aio.Channel) -> None:
    stub: event_pb2_grpc.EventServiceAsyncStub = event_pb2_grpc.EventServiceStub(channel)
    request = event_pb2.WatchEventsRequest(workspace_id=load.workspace, after_revision=-1)
    async for response in stub.WatchEvents(request, metadata=_authorised(load)):
        for event in response.events:
            seen.applied(event.content_sha256)


async def send(load: PacedLoad) -> dict[str, object]:
    seen = Seen()
    numbers = [0] * load.providers
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with (
        aio.insecure_channel(load.store_address, options=options) as store,
        aio.insecure_channel(load.grpc_address, options=options) as ingest,
        asyncio.TaskGroup() as tasks,
    ):
        await store.channel_ready()
        sender: HttpSender | GrpcSender = HttpSender(load, seen)
        if load.via == "grpc":
            await ingest.channel_ready()
            sender = GrpcSender(load, seen, ingest_pb2_grpc.IngestServiceStub(ingest))
        helpers = [tasks.create_task(watch(load, seen, store)), *await sender.run(tasks)]
        started_s = time.time() + LEAD_S
        start = time.perf_counter() + LEAD_S
        for at, provider in load.due():
            if (pause := start + at - time.perf_counter()) > 0:
                await asyncio.sleep(pause)
            number = numbers[provider]
            numbers[provider] += 1
            change = Change(
                provider, number, start + at, content(load, provider, number), (provider, number % load.objects)
            )
            seen.sent(change)
            sender.send(change)
            await asyncio.sleep(0)
        sent_s = time.time()
        deadline = time.perf_counter() + load.ends_within_s
        while seen.missing and time.perf_counter() < deadline:  # noqa: ASYNC110 - what comes is counted elsewhere
            await asyncio.sleep(0.02)
        for helper in helpers:
            helper.cancel()
    return {
        "sent": sum(numbers),
        "started_s": started_s,
        "sent_s": sent_s,
        "refused": sum(seen.refused.values()),
        "refused_by_status": seen.refused,
        "missing": seen.missing,
        **{f"answered_{key}": value for key, value in percentiles(seen.answered_ms).items()},
        **{f"applied_{key}": value for key, value in percentiles(seen.applied_ms).items()},
        "cpu_s": time.process_time(),
    }


def percentiles(values: list[float]) -> dict[str, float]:
    ordered = sorted(values) or [0.0]
    return {
        "p50_ms": ordered[len(ordered) // 2],
        "p99_ms": ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)],
        "max_ms": ordered[-1],
    }


def _authorised(load: PacedLoad) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {load.token}"),)


def as_json(load: PacedLoad) -> str:
    return json.dumps(asdict(load))


if __name__ == "__main__":
    print(json.dumps(uvloop.run(send(PacedLoad(**json.loads(sys.argv[1]))))))
