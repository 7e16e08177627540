"""Load of `PublishEnvelopes`, in a process of its own: `python -m tests.bench.load_publish JSON`.

Envelopes are put together from a serialised one by filling in its fixed-width parts, so that the load costs a small
part of what it measures. Prints one JSON line.
"""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass, field

import uvloop
from grpc import aio

from relayfile.v1 import ingest_pb2, types_pb2
from tests.bench.names import SHAPES
from tests.support.envelopes import timestamp

METHOD = "/relayfile.v1.IngestService/PublishEnvelopes"
BASE_US = 1_760_000_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishLoad:
    """What to send. Envelope i goes to workspace i mod `workspaces`."""

    address: str
    token: str
    workspace_prefix: str
    workspaces: int
    envelopes: int
    shape: str = "distinct"
    """`distinct`: an object each. `hot`: `objects` in turn, newer each time. A name of `names.SHAPES`: its paths."""
    objects: int = 0
    batch: int = 500
    streams: int = 4
    in_flight: int = 4
    """Unanswered batches of one stream."""
    content_bytes: int = 1024
    first: int = 0
    step: int = 1
    """Sends envelopes `first`, `first + step`, ... below `envelopes`."""
    delivery: str = "counted"
    """`counted`: delivery ids grow. `random`: they look random, as those of providers do."""

    per_s: float = 0.0
    """Envelopes offered in a second on each stream; 0: as many as are taken."""
    names: tuple[str, ...] = ()
    """The workspaces, when they have other names than prefix and number."""

    def workspace(self, index: int) -> str:
        if self.names:
            return self.names[index % self.workspaces]
        return f"{self.workspace_prefix}{index % self.workspaces:03d}"


@dataclass(slots=True)
class Sent:
    """What happened."""

    accepted: int = 0
    resent: int = 0
    refused: int = 0
    started_s: float = 0.0
    seconds: float = 0.0
    cpu_s: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, float]:
        ordered = sorted(self.latencies_ms) or [0.0]
        figures = {key: value for key, value in asdict(self).items() if key != "latencies_ms"}
        return {**figures, "p50_ms": ordered[len(ordered) // 2], "p99_ms": ordered[len(ordered) * 99 // 100]}


def content_of(index: int, version: int, size: int) -> bytes:
    """Content that names its object and version, of the given size, each byte printable."""
    head = b'{"object":"%010d","version":"%010d","text":"' % (index, version)
    return head + b"x" * (size - len(head) - 2) + b'"}'


def maker(load: PublishLoad) -> Callable[[int], bytes]:
    """A function from number to serialised envelope."""
    if load.shape in SHAPES:
        return lambda index: _tree_envelope(load, index)
    templates = [_template(load.workspace(number), load) for number in range(load.workspaces)]
    if load.shape == "distinct" and load.delivery == "random":
        return lambda index: templates[index % load.workspaces] % _distinct(index, _scattered(index))
    if load.shape == "distinct":
        return lambda index: templates[index % load.workspaces] % _distinct(index, index)
    assert load.objects % load.workspaces == 0, "an object belongs to one workspace"
    return lambda index: templates[index % load.workspaces] % _hot(index, load.objects)


def _distinct(index: int, delivery: int) -> tuple[bytes, ...]:
    number = b"%010d" % index
    return b"%012x" % delivery, number, number, number, b"%010d" % 0


def _scattered(index: int) -> int:
    """Another number of 48 bits for each."""
    return index * 0x9E3779B97F4B & 0xFFFFFFFFFFFF


def _hot(index: int, objects: int) -> tuple[bytes, ...]:
    version, number = divmod(index, objects)
    name = b"%010d" % number
    seconds = _varint(BASE_US // 1_000_000 + version)  # five bytes for every date in this century
    return b"%012d" % index, name, name, seconds, name, b"%010d" % version


def _template(workspace: str, load: PublishLoad) -> bytes:
    """A serialised envelope as a format: delivery, path, object, provider time, and content's object and version are
    left open. Only hot objects have a provider time: their versions travel on several streams.
    """
    marks: tuple[bytes, ...] = (b"D" * 12, b"P" * 10, b"O" * 10, b"1" * 10, b"2" * 10)
    content = content_of(1_111_111_111, 2_222_222_222, load.content_bytes)
    assert marks[3] in content
    assert marks[4] in content
    change = types_pb2.FileChange(
        kind=types_pb2.CHANGE_KIND_UPSERT,
        path=f"/generic/records/{marks[1].decode()}.json",
        provider_object_id=f"record/{marks[2].decode()}",
        content=content,
        content_type="application/json",
    )
    if load.shape == "hot":
        change.occurred_at.CopyFrom(timestamp(BASE_US))
        marks = (*marks[:3], _varint(BASE_US // 1_000_000), *marks[3:])
    whole = types_pb2.Envelope(
        workspace_id=workspace, provider="generic", delivery_id=f"delivery-{marks[0].decode()}", changes=[change]
    ).SerializeToString()
    pattern = whole.replace(b"%", b"%%")
    for mark in marks:
        assert pattern.count(mark) == 1, mark
        pattern = pattern.replace(mark, b"%b")
    return pattern


def _tree_envelope(load: PublishLoad, index: int) -> bytes:
    path = SHAPES[load.shape](index)
    return types_pb2.Envelope(
        workspace_id=load.workspace(index),
        provider="generic",
        delivery_id=f"tree-{index}",
        changes=[
            types_pb2.FileChange(
                kind=types_pb2.CHANGE_KIND_UPSERT,
                path=path,
                provider_object_id=f"file/{index}",
                occurred_at=timestamp(BASE_US),
                content=content_of(index, 0, load.content_bytes),
                content_type="application/json",
            )
        ],
    ).SerializeToString()


def framed(envelopes: list[bytes], number: int) -> bytes:
    """A serialised PublishEnvelopesRequest."""
    head = ingest_pb2.PublishEnvelopesRequest(batch_number=number).SerializeToString()
    return head + b"".join([b"\x12" + _varint(len(each)) + each for each in envelopes])


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


class _Stream:
    """One stream: its share of the envelopes, a bounded number of batches under way."""

    def __init__(self, load: PublishLoad, sent: Sent, numbers: "list[range]") -> None:
        self._load = load
        self._sent = sent
        self._numbers = numbers
        self._make = maker(load)
        self._room = asyncio.Semaphore(load.in_flight)
        self._under_way: dict[int, tuple[list[int], float]] = {}
        self._again: list[int] = []
        self._next = 0

    async def run(self, channel: aio.Channel) -> None:
        call = channel.stream_stream(
            METHOD, request_serializer=_same, response_deserializer=ingest_pb2.PublishEnvelopesResponse.FromString
        )(self._requests(), metadata=(("authorization", f"Bearer {self._load.token}"),))
        async for response in call:
            self._answered(response)

    async def _requests(self) -> AsyncIterator[bytes]:
        while True:
            await self._room.acquire()
            indexes = self._take()
            if not indexes:
                if not self._under_way:
                    return
                self._room.release()
                await asyncio.sleep(0.002)
                continue
            self._next += 1
            self._under_way[self._next] = (indexes, time.perf_counter())
            yield framed([self._make(index) for index in indexes], self._next)
            if self._load.per_s:
                await asyncio.sleep(len(indexes) / self._load.per_s)

    def _take(self) -> list[int]:
        if self._again:
            taken, self._again = self._again[: self._load.batch], self._again[self._load.batch :]
            return taken
        return list(self._numbers.pop()) if self._numbers else []

    def _answered(self, response: ingest_pb2.PublishEnvelopesResponse) -> None:
        indexes, since = self._under_way.pop(response.batch_number)
        self._sent.latencies_ms.append((time.perf_counter() - since) * 1000)
        self._room.release()
        for index, result in zip(indexes, response.results, strict=True):
            if result.status == ingest_pb2.PUBLISH_STATUS_ACCEPTED:
                self._sent.accepted += 1
            elif result.status in (ingest_pb2.PUBLISH_STATUS_OVERLOADED, ingest_pb2.PUBLISH_STATUS_UNAVAILABLE):
                self._sent.resent += 1
                self._again.append(index)
            else:
                self._sent.refused += 1


def _same(data: bytes) -> bytes:
    return data


async def send(load: PublishLoad) -> Sent:
    """Send it all; returns when everything was answered."""
    sent = Sent()
    numbers = range(load.first, load.envelopes, load.step)
    # Taken from the end: the list is shared by the streams, in order of number.
    blocks = [numbers[start : start + load.batch] for start in range(0, len(numbers), load.batch)][::-1]
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", 64 << 20)]
    async with aio.insecure_channel(load.address, options=options) as channel:
        await channel.channel_ready()
        sent.started_s = time.time()
        start = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(load.streams):
                group.create_task(_Stream(load, sent, blocks).run(channel))
        sent.seconds = time.perf_counter() - start
    sent.cpu_s = time.process_time()
    return sent


if __name__ == "__main__":
    print(json.dumps(uvloop.run(send(PublishLoad(**json.loads(sys.argv[1])))).summary()))
