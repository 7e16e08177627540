"""The one stream to a store node: what is sent, what has no answer yet, and how a cut stream goes on (D13).

Sub-batches of one (session, shard) carry contiguous sequence numbers; what has no answer is kept as bytes and sent
again in order when the stream is back. Credits of the node and the process's own limits bound what is in flight. Reader
and writer run concurrently: an answer is taken in while a message waits for room in the connection.

Owns sequences, credits and the retries of one node. Refuses to decide what an answer means for a change.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol, TypeAlias

import grpc
import grpc.aio
from opentelemetry.trace import SpanKind
from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from relayfile import faults
from relayfile.clock import Clock
from relayfile.ingest.sending.flight import Flight, Outbox, SentBatch, Workers
from relayfile.ingest.sending.fold_wire import REF_BYTES, chunk_messages, hello_message, report_message
from relayfile.ingest.sending.lane import Lane
from relayfile.ingest.sending.parcel import Parcel
from relayfile.telemetry import Tracing, get_logger
from relayfile.telemetry.conventions import messaging
from relayfile.telemetry.tracing import Attributes
from relayfile.v1 import shard_pb2

METHOD = "/relayfile.v1.ShardService/ApplyEnvelopes"
MESSAGE_BYTES_MAX = 3 << 20
"""No message is filled beyond, whatever the target; a single batch may be a little larger."""
QUANTUM_BYTES = 256 << 10
"""What one workspace may put into a message while others wait."""
HEALTHY_AFTER_S = 1.0
"""A stream that lived so long is connected anew at once; a shorter life counts as a failed attempt."""
RETRY_S_MAX = 2.0
SLOW_WRITE_S = 0.25
"""A node that reads takes a message sooner."""

_log = get_logger(__name__)

Connect = Callable[[str], tuple[grpc.aio.Channel, Sequence[tuple[str, str]]]]
"""A channel to an address, and the metadata that authorises a call on it."""
TakeRedos = Callable[[str, Sequence[shard_pb2.Redo]], None]
"""Takes dead letters to normalise again, of the node at an address."""


class Answers(Protocol):
    """Who is told what became of batches and what is paused, and fills lanes again."""

    def connected(self, stream: "NodeStream") -> None:
        """A stream begins; nothing is sent before the node told all of its pauses."""
        ...

    def told(self, stream: "NodeStream", pauses: Sequence[shard_pb2.PauseState], *, complete: bool) -> None:
        """The node told its pauses, or with `complete=False` a part of them."""
        ...

    def answered(self, batch: SentBatch, ack: shard_pb2.SubBatchAck) -> None:
        """A batch was committed. What must be sent again was pushed to the front of its lane on return."""
        ...

    def moved(self, stream: "NodeStream", batch: SentBatch, refusal: shard_pb2.SubBatchRefusal) -> bool:
        """The node does not own the shard. True: the batch was taken over and goes elsewhere; False: send it again."""
        ...

    def take(self, stream: "NodeStream", lane: Lane, bytes_max: int) -> list[Parcel]:
        """The next sub-batch of a lane; nothing when the lane is not this stream's any more."""
        ...

    def reports(self, stream: "NodeStream", *, again: bool) -> list[shard_pb2.PendingReport]:
        """All that this process holds for the node; nothing when that did not change, unless `again`.

        Asked for at most once a second.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamLimits:
    """Bounds of one stream."""

    session_id: str
    ingest_id: str
    message_bytes_target: int
    batch_bytes_max: int
    in_flight_bytes_max: int
    welcome_timeout_s: float
    shard_count: int
    redos_max: int = 0
    """Dead letters that the node may have handed over at once."""


_Call: TypeAlias = "grpc.aio.StreamStreamCall[bytes, shard_pb2.ApplyEnvelopesResponse]"
_StreamStream: TypeAlias = "grpc.aio.StreamStreamMultiCallable[bytes, shard_pb2.ApplyEnvelopesResponse]"


class _Report(IntEnum):
    """What the node is to be told."""

    NONE = 0
    CHANGES = 1
    ALL = 2


class _Cut(Exception):
    """The stream ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamParts:
    """What a stream works with."""

    connect: Connect
    answers: Answers
    clock: Clock
    tracing: Tracing
    redos: TakeRedos = lambda _address, _redos: None


class NodeStream:
    """The connection to one node, for as long as the process lives."""

    def __init__(self, address: str, limits: StreamLimits, parts: StreamParts, workers: Workers) -> None:
        self.address = address
        self.queued_bytes = 0
        """Of all its lanes; kept by `traffic.Traffic`."""
        self.is_connected = False
        self.batches_sent = 0
        self._limits = limits
        self._parts = parts
        self._flight = Flight(limits.in_flight_bytes_max, workers)
        self._outbox = Outbox(self._flight)
        self._wake = asyncio.Event()
        self._report = _Report.NONE
        self._writing_since_s: float | None = None
        workers.on_free(self._wake.set)

    # ... what the traffic on it calls

    def enqueue(self, lane: Lane) -> None:
        """A lane has something to send; it is served when its turn comes."""
        self._outbox.add(lane)
        self._wake.set()

    def tick(self) -> None:
        """Once a second: reports are due, and a node without answers gives up its workers."""
        self._report = max(self._report, _Report.CHANGES)
        self._flight.give_up_stalled(self._parts.clock.monotonic())
        self._wake.set()

    @property
    def in_flight_bytes(self) -> int:
        """Sent, without an answer."""
        return self._flight.size_bytes

    @property
    def owes_report(self) -> bool:
        """Whether the node has not been told yet what is held now."""
        return self.is_connected and self._report is not _Report.NONE

    def took_all(self) -> bool:
        """Whether the node is there and has held nothing up since this was asked last: by its credits, or by not
        reading."""
        was_held_up, self._outbox.was_held_up = self._outbox.was_held_up, False
        return self.is_connected and not was_held_up and not self._writes_slowly()

    def _writes_slowly(self) -> bool:
        since_s = self._writing_since_s
        return since_s is not None and self._parts.clock.monotonic() - since_s > SLOW_WRITE_S

    # ... the connection

    async def run(self) -> None:
        """Keep a stream open, until cancelled."""
        # One for all lives: each is a cycle of references.
        attempts = AsyncRetrying(
            wait=wait_random_exponential(multiplier=0.1, max=RETRY_S_MAX),
            retry=retry_if_exception_type(_Cut),
            sleep=asyncio.sleep,
        )
        while True:
            async for attempt in attempts:
                with attempt:
                    await self._live_once()

    async def _live_once(self) -> None:
        """One stream from hello to its end; `_Cut` when it ended early."""
        channel, metadata = self._parts.connect(self.address)
        started_s = self._parts.clock.monotonic()
        why = ""
        try:
            stream: _StreamStream = channel.stream_stream(
                METHOD, response_deserializer=shard_pb2.ApplyEnvelopesResponse.FromString
            )
            call = stream(metadata=metadata)
            try:
                await self._greet(call)
                started_s = self._parts.clock.monotonic()
                await self._read_and_write(call)
            finally:
                call.cancel()
        except* (_Cut, grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError, TimeoutError) as ended:
            why = _reason(ended)
        finally:
            self._disconnected()
            await channel.close()
        lived_s = self._parts.clock.monotonic() - started_s
        _log.info("stream to a store node ended", address=self.address, why=why, after_s=round(lived_s, 3))
        if lived_s < HEALTHY_AFTER_S:
            raise _Cut(why)

    async def _read_and_write(self, call: _Call) -> None:
        """Both at the same time, until one of them fails; then the other one is cancelled.

        By hand: a task group whose tasks fail while it is cancelled from outside, as these do because their call is
        cancelled then, raises their failures and forgets that it was cancelled. The process would never end.
        """
        both = [asyncio.ensure_future(work(call)) for work in (self._read, self._write)]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            await asyncio.wait(both)
        first = next((failure for failure in map(_failure, both) if failure is not None), None)
        try:
            if first is not None:
                raise first
        finally:
            del both, task, first  # else the failure holds this frame, and this frame the failure

    async def _greet(self, call: _Call) -> None:
        async with asyncio.timeout(self._limits.welcome_timeout_s):
            limits = self._limits
            await call.write(hello_message(limits.session_id, limits.ingest_id, limits.redos_max))
            response = await _next(call)
            if not response.HasField("welcome"):
                raise _Cut("the node did not say welcome")
            welcome = response.welcome
            if welcome.shard_count != self._limits.shard_count:
                raise _Cut(
                    f"the node has {welcome.shard_count} shards, and RELAYFILE_SHARD_COUNT of this process is "
                    f"{self._limits.shard_count}: set it to {welcome.shard_count}"
                )
            # What is paused is known before anything is sent.
            self._parts.answers.connected(self)
            self._take_in(response)
            while not response.pauses_complete:
                self._take_in(response := await _next(call))
        self._flight.credit_bytes = welcome.credit_bytes
        self._flight.connected(self._parts.clock.monotonic())
        self._outbox.send_again(self._flight.batches())
        self.is_connected = True
        self._report = _Report.ALL

    def _disconnected(self) -> None:
        self.is_connected = False
        self._outbox.forget_again()
        self._flight.disconnected()

    # ... answers

    async def _read(self, call: _Call) -> None:
        while True:
            self._take_in(await _next(call))

    def _take_in(self, response: shard_pb2.ApplyEnvelopesResponse) -> None:
        if response.credit_bytes:
            self._flight.credit_bytes = response.credit_bytes
        if response.pauses or response.pauses_complete:
            self._parts.answers.told(self, response.pauses, complete=response.pauses_complete)
        for ack in response.acks:
            self._acked(ack)
        for resync in response.resyncs:
            self._outbox.send_again(self._flight.since(resync.shard_id, resync.from_sequence))
        if response.redos:
            self._parts.redos(self.address, response.redos)
        self._wake.set()

    def _acked(self, ack: shard_pb2.SubBatchAck) -> None:
        batch = self._flight.find(ack.shard_id, ack.sequence)
        if batch is None:
            return  # an answer to what was sent twice
        if ack.HasField("refusal"):
            self._refused(batch, ack.refusal)
            return
        self._flight.landed(batch, self._parts.clock.monotonic())
        self._parts.answers.answered(batch, ack)
        batch.lane.in_flight = False
        self.enqueue(batch.lane)

    def _refused(self, batch: SentBatch, refusal: shard_pb2.SubBatchRefusal) -> None:
        if refusal.reason == "NOT_OWNER" and self._parts.answers.moved(self, batch, refusal):
            self._flight.landed(batch, self._parts.clock.monotonic())
            return
        if not batch.parked:
            self._flight.park(batch)
            delay_s = max(0.01, refusal.retry_after.seconds + refusal.retry_after.nanos / 1e9)
            asyncio.get_running_loop().call_later(delay_s, self._unpark, batch)

    def _unpark(self, batch: SentBatch) -> None:
        if not batch.parked or self._flight.find(batch.lane.shard_id, batch.sequence) is not batch:
            return  # the stream was cut meanwhile, and everything is sent again when it is back
        if self.is_connected:
            self._flight.unpark(batch)
            self._outbox.send_again([batch])
            self._wake.set()

    # ... messages

    async def _write(self, call: _Call) -> None:
        while True:
            self._wake.clear()
            batches = self._next_batches()
            if batches:
                await self._send(call, batches)
            elif self._report is not _Report.NONE:
                reports = self._parts.answers.reports(self, again=self._report is _Report.ALL)
                self._report = _Report.NONE
                if reports:
                    await call.write(report_message(reports))
            else:
                await self._wake.wait()

    async def _send(self, call: _Call, batches: list[SentBatch]) -> None:
        self.batches_sent += len(batches)
        with self._parts.tracing.batch("send shards", *_traced(batches)):
            self._writing_since_s = self._parts.clock.monotonic()
            try:
                await call.write(b"".join([batch.wire() for batch in batches]))
                faults.point("ingest.stream.after_send_before_ack")
                for chunk in chunk_messages(batches[-1].body):
                    await call.write(chunk)
            finally:
                self._outbox.was_held_up |= self._writes_slowly()
                self._writing_since_s = None

    def _next_batches(self) -> list[SentBatch]:
        """What goes into the next message; a batch whose body follows goes alone."""
        batches: list[SentBatch] = []
        size = 0
        for batch in self._outbox.candidates(self._make):
            if batches and (batch.body or size + batch.wire_bytes > MESSAGE_BYTES_MAX):
                self._outbox.put_back(batch)
                break
            batches.append(batch)
            size += batch.wire_bytes
            if size >= self._limits.message_bytes_target or batch.body:
                break
        return batches

    def _make(self, lane: Lane, others_wait: bool) -> SentBatch | None:
        bytes_max = min(QUANTUM_BYTES, self._limits.batch_bytes_max) if others_wait else self._limits.batch_bytes_max
        parcels = self._parts.answers.take(self, lane, bytes_max)
        return self._flight.depart(lane, parcels, self._parts.clock.monotonic()) if parcels else None


def _traced(batches: Sequence[SentBatch]) -> tuple[Iterable[str], SpanKind, Attributes]:
    """Parents, kind and attributes of the span of a message."""
    parents = (each for batch in batches for parcel in batch.parcels for each in parcel.traceparents)
    changes = sum(len(parcel.refs) for batch in batches for parcel in batch.parcels) // REF_BYTES
    return parents, SpanKind.PRODUCER, messaging("send", "send", "shards", changes)


async def _next(
    call: _Call,
) -> shard_pb2.ApplyEnvelopesResponse:
    response = await call.read()
    if not isinstance(response, shard_pb2.ApplyEnvelopesResponse):
        raise _Cut("the node ended the stream")
    return response


def _failure(task: "asyncio.Future[None]") -> BaseException | None:
    return None if task.cancelled() else task.exception()


def _reason(ended: BaseExceptionGroup) -> str:
    first = ended.exceptions[0]
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    if isinstance(first, grpc.aio.AioRpcError):
        return f"{first.code().name}: {first.details()}"
    return str(first) or type(first).__name__
