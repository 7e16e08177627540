"""Publishing over gRPC: envelopes of services, validated one by one, accepted together.

Owns what one caller may publish, the result of each envelope, chunks, and the order of answers on a stream. What was
read while an `Intake.accept` ran is accepted together by the next one. Refuses to know spools.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from opentelemetry.trace import SpanKind

from relayfile.auth import Principal
from relayfile.clock import Clock
from relayfile.errors import (
    Draining,
    FieldViolation,
    InvalidArgument,
    Paused,
    PermissionDenied,
    RelayfileError,
    Unavailable,
    WorkspaceNotFound,
)
from relayfile.ids import IdSource
from relayfile.ingest.delivery import Arrival, complete
from relayfile.ingest.intake import Fate, Intake, PastShare
from relayfile.ingest.publishing.chunks import Assembly
from relayfile.ingest.publishing.turns import Turns
from relayfile.ingest.webhooks.request_body import BodyRoom
from relayfile.ingest.workspaces import WorkspaceDirectory
from relayfile.telemetry import IngestInstruments, SpanHandle, Tracing
from relayfile.telemetry.conventions import messaging
from relayfile.telemetry.exemplars import observe
from relayfile.v1 import ingest_pb2, types_pb2
from relayfile.wire import EnvelopeRules, check_envelope, is_plain

WAITING_BYTES_MAX: Final = 4 << 20
"""What is held of one stream ahead of its answers: messages, and answers that are not read."""
MESSAGE_COST_BYTES: Final = 1_024
"""What a message costs beyond its bytes: an empty one has none."""
ENVELOPE_COST_BYTES: Final = 256
CHANGE_COST_BYTES: Final = 128
VIOLATION_BYTES_MAX: Final = 1 << 20
"""Problems that are told in one answer, so that whoever takes the usual 4 MiB can read it."""
ENVELOPES_MAX: Final = 10_000
"""Envelopes of one batch."""
STRIDE: Final = 64
"""Changes that are validated in one turn, half a millisecond or so; those of one envelope are not parted."""
FEW_ENVELOPES: Final = 32
"""So many need no turn."""
ACCEPT_ENVELOPES: Final = 500
"""Envelopes that are given to the intake in one turn, 3 ms or so."""
INLINE_BYTES_MAX: Final = 1 << 20
"""Content of one unary request."""

Status = ingest_pb2.PublishStatus
Refused = Callable[[types_pb2.Envelope, RelayfileError, int], None]
"""Told of envelopes of one message that were refused alike: the first one, why, and how many they are."""
Write = Callable[[ingest_pb2.PublishEnvelopesResponse], Awaitable[None]]
_REFUSED: Final[dict[type[RelayfileError], Status.ValueType]] = {
    InvalidArgument: ingest_pb2.PUBLISH_STATUS_INVALID,
    WorkspaceNotFound: ingest_pb2.PUBLISH_STATUS_WORKSPACE_NOT_FOUND,
    PermissionDenied: ingest_pb2.PUBLISH_STATUS_PERMISSION_DENIED,
    PastShare: ingest_pb2.PUBLISH_STATUS_OVERLOADED,
    Unavailable: ingest_pb2.PUBLISH_STATUS_UNAVAILABLE,
    Draining: ingest_pb2.PUBLISH_STATUS_UNAVAILABLE,
    Paused: ingest_pb2.PUBLISH_STATUS_UNAVAILABLE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """What every publication passes."""

    intake: Intake
    workspaces: WorkspaceDirectory
    room: BodyRoom
    content_bytes_max: int
    raw_bytes_max: int
    clock: Clock
    arrivals: Clock
    """Gives receive times."""
    ids: IdSource
    tracing: Tracing
    instruments: IngestInstruments
    turns: Turns = field(default_factory=Turns)


class Publisher:
    """One caller's way in."""

    def __init__(self, door: Door, principal: Principal, *, correlation_id: str = "", traceparent: str = "") -> None:
        """``correlation_id`` and ``traceparent``: for envelopes that bring none. Without a ``traceparent`` each message
        of a stream is decided on by itself: a stream lasts for days."""
        self.door: Final = door
        self._principal = principal
        self._correlation_id = correlation_id
        self._traceparent = traceparent
        self._rules = EnvelopeRules(door.content_bytes_max, door.raw_bytes_max, service=principal.is_service)
        self._admitted: set[str] = set()
        """Workspaces that the caller may use and that are known to exist."""

    def arrival(self, received_us: int, traceparent: str = "") -> Arrival:
        """What ingest itself knows about what came then; ``traceparent``: of its message, instead of the call's."""
        return Arrival(received_us, self._correlation_id, traceparent or self._traceparent)

    def begin(self, envelope_count: int) -> SpanHandle:
        """A message of a stream: below the call when its caller brought a trace, else the start of one of its own."""
        attributes = messaging("receive", "receive", "envelopes", envelope_count)
        return self.door.tracing.start("receive envelopes", self._traceparent, SpanKind.CONSUMER, attributes)

    async def prepare(self, envelope: types_pb2.Envelope, name: str, arrival: Arrival) -> RelayfileError | None:
        """Validate and complete ``envelope`` in place; why it cannot be accepted, or None."""
        invalid = check_envelope(envelope, self._rules, name)
        if invalid is not None:
            return invalid
        workspace = envelope.workspace_id
        if workspace not in self._admitted:
            refused = await self._admit(workspace)
            if refused is not None:
                return refused
        complete(envelope, arrival, self.door.ids.new_id)
        return None

    def prepare_plain(self, envelope: types_pb2.Envelope, arrival: Arrival) -> bool:
        """As `prepare`, of an envelope that nothing is wrong with; False: nothing happened, and `prepare` knows."""
        if envelope.workspace_id not in self._admitted or not is_plain(envelope, self._rules.content_bytes_max):
            return False
        complete(envelope, arrival, self.door.ids.new_id)
        return True

    async def _admit(self, workspace: str) -> RelayfileError | None:
        """Why nothing of a workspace is accepted, or None. What is accepted once is so for the whole call."""
        if not self._principal.may_use(workspace):
            return PermissionDenied(why=f"the token does not grant the workspace {workspace!r}")
        if not self.door.workspaces.is_known(workspace):
            try:
                # A token for this very workspace proves as much as a secret that is configured for it.
                has_proof = self._principal.is_service or workspace in self._principal.workspaces
                await self.door.workspaces.admit(workspace, has_secret=has_proof)
            except (WorkspaceNotFound, Unavailable) as error:
                return error
        if self.door.workspaces.is_known(workspace):
            self._admitted.add(workspace)
        return None

    async def publish_one(self, envelope: types_pb2.Envelope) -> ingest_pb2.PublishEnvelopeResponse:
        """Accept one envelope. `RelayfileError` when it cannot be accepted."""
        self.door.turns.lone()
        size = sum(len(change.content) for change in envelope.changes) + len(envelope.raw.body)
        if size > INLINE_BYTES_MAX:
            why = f"have {size} bytes of content; more than {INLINE_BYTES_MAX} go by PublishEnvelopes, in chunks"
            raise InvalidArgument.of("envelope.changes", why)
        refused = await self.prepare(envelope, "envelope", self.arrival(self.door.arrivals.now_us()))
        if refused is not None:
            raise refused
        response = ingest_pb2.PublishEnvelopeResponse(envelope_id=envelope.envelope_id)
        for fate in await self.door.intake.accept([envelope]):
            if isinstance(fate, RelayfileError):
                raise fate
            response.outcomes.extend(fate)
        return response


@dataclass(slots=True)
class _Batch:
    """One message, from its arrival to its answer."""

    answer: ingest_pb2.PublishEnvelopesResponse
    """Its results are made in place: to gather them first would copy each."""
    size_bytes: int
    """What it holds in memory, about."""
    envelopes: Sequence[types_pb2.Envelope]
    acceptable: list[int] = field(default_factory=list)
    room_bytes: int = 0
    """Taken from the room of bodies, for content that came in chunks."""
    span: SpanHandle = field(default_factory=lambda: SpanHandle(""))
    """From its arrival to its answer."""


class PublishStream:
    """One `PublishEnvelopes` stream."""

    def __init__(self, publisher: Publisher, refused: Refused) -> None:
        self._publisher = publisher
        self._door = publisher.door
        self._refused = refused
        self._waiting: deque[_Batch] = deque()
        self._waiting_bytes = 0
        self._arrived = asyncio.Event()
        self._has_room = asyncio.Event()
        self._is_read = False

    async def run(self, requests: AsyncIterator[ingest_pb2.PublishEnvelopesRequest], write: Write) -> None:
        """Serve until the caller has sent everything and has every answer."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._read(requests))
                await self._answer(write)
        finally:
            for batch in self._waiting:
                self._door.room.give_back(batch.room_bytes)

    async def _read(self, requests: AsyncIterator[ingest_pb2.PublishEnvelopesRequest]) -> None:
        async for request in requests:
            if request.HasField("chunk"):
                raise InvalidArgument.of("chunk", "no content was announced before it")
            if len(request.envelopes) > ENVELOPES_MAX:
                raise InvalidArgument.of("envelopes", f"are more than {ENVELOPES_MAX}")
            answer = ingest_pb2.PublishEnvelopesResponse(batch_number=request.batch_number)
            batch = _Batch(answer, MESSAGE_COST_BYTES + request.ByteSize(), request.envelopes)
            batch.span = self._publisher.begin(len(request.envelopes))
            assembly = Assembly.announced_by(request.envelopes, self._door.content_bytes_max, self._door.raw_bytes_max)
            problem: RelayfileError | None = None
            if assembly is not None:
                batch.room_bytes = assembly.reserve(self._door.room)
                batch.size_bytes += batch.room_bytes
            try:
                if assembly is not None:
                    problem = await assembly.read(requests)
                await self._prepare(batch, problem)
            except BaseException:
                self._door.room.give_back(batch.room_bytes)
                raise
            self._waiting.append(batch)
            self._waiting_bytes += batch.size_bytes
            self._arrived.set()
            while self._waiting_bytes >= WAITING_BYTES_MAX:
                self._has_room.clear()
                await self._has_room.wait()
        self._is_read = True
        self._arrived.set()

    async def _prepare(self, batch: _Batch, chunk_problem: RelayfileError | None) -> None:
        """Fill in a result for each envelope; ``chunk_problem`` is that of the last one. Nothing refused is kept."""
        publisher = self._publisher
        arrival = publisher.arrival(self._door.arrivals.now_us(), batch.span.traceparent)
        last = len(batch.envelopes) - 1
        refusals = Refusals(self._refused)
        results, accepted = batch.answer.results, ingest_pb2.PUBLISH_STATUS_ACCEPTED
        told_bytes = changes = 0
        work = STRIDE - FEW_ENVELOPES
        for index, envelope in enumerate(batch.envelopes):
            work += len(envelope.changes) or 1
            if work > STRIDE:
                await self._door.turns.next()
                work = 0
            problem = chunk_problem if index == last else None
            if problem is None and not publisher.prepare_plain(envelope, arrival):
                problem = await publisher.prepare(envelope, f"envelopes[{index}]", arrival)
                changes += len(envelope.changes)
            if problem is None:
                batch.acceptable.append(index)
                results.add(envelope_id=envelope.envelope_id, status=accepted)
            else:
                refusals.add(envelope, problem)
                result = _refusal(problem)
                told_bytes += result.ByteSize()
                if told_bytes > VIOLATION_BYTES_MAX:
                    del result.violations[:]
                results.append(result)
        refusals.tell()
        if not batch.acceptable:
            batch.envelopes, batch.size_bytes = (), MESSAGE_COST_BYTES + batch.room_bytes
        batch.size_bytes += len(batch.envelopes) * ENVELOPE_COST_BYTES + changes * CHANGE_COST_BYTES
        batch.size_bytes += batch.answer.ByteSize()

    async def _answer(self, write: Write) -> None:
        while True:
            if not self._waiting:
                if self._is_read:
                    return
                self._arrived.clear()
                await self._arrived.wait()
                continue
            batches, self._waiting = list(self._waiting), deque()
            try:
                await self._accept(batches)
                for batch in batches:
                    await write(batch.answer)
            finally:
                for batch in batches:
                    batch.span.end()
                    self._door.room.give_back(batch.room_bytes)
                    self._waiting_bytes -= batch.size_bytes
            self._has_room.set()

    async def _accept(self, batches: Sequence[_Batch]) -> None:
        """One `accept` for many, and another one for the rest when some workspaces are past their shares."""
        places = [(batch, index) for batch in batches for index in batch.acceptable]
        if not places:
            return
        started = self._door.clock.monotonic()
        tracing = self._door.tracing
        parents = (batch.envelopes[index].traceparent for batch, index in places)
        attributes = messaging("accept", "send", "spool", len(places))
        with tracing.batch("accept spool", parents, SpanKind.PRODUCER, attributes) as span:
            for start in range(0, len(places), ACCEPT_ENVELOPES):
                some = places[start : start + ACCEPT_ENVELOPES]
                if len(some) > FEW_ENVELOPES:
                    await self._door.turns.next()
                while some:
                    some = await self._settle(some)
        observe(self._door.instruments.accept_seconds, self._door.clock.monotonic() - started, span.traceparent)

    async def _settle(self, places: Sequence[tuple[_Batch, int]]) -> list[tuple[_Batch, int]]:
        """Accept, and write down what became of each; what is left may be offered again, as others were refused."""
        fates: Sequence[Fate | None]
        try:
            fates = await self._door.intake.accept([batch.envelopes[index] for batch, index in places])
        except PastShare as error:
            past = error.apart()
            envelopes = [batch.envelopes[index] for batch, index in places]
            fates = [past.get((envelope.workspace_id, envelope.provider)) for envelope in envelopes]
        except (Unavailable, Draining, Paused) as error:
            fates = [error] * len(places)
        left: list[tuple[_Batch, int]] = []
        refusals = Refusals(self._refused)
        for (batch, index), fate in zip(places, fates, strict=bool(fates)):
            if fate is None:
                left.append((batch, index))
            elif isinstance(fate, RelayfileError):
                batch.answer.results[index].CopyFrom(_refusal(fate))
                refusals.add(batch.envelopes[index], fate)
            else:
                batch.answer.results[index].outcomes.extend(fate)
        refusals.tell()
        return left


class Refusals:
    """Refused envelopes of one message, gathered by sender and reason, so that a flood of them is a few entries."""

    def __init__(self, refused: Refused) -> None:
        self._refused = refused
        self._alike: dict[tuple[str, str, str], tuple[types_pb2.Envelope, RelayfileError, int]] = {}

    def add(self, envelope: types_pb2.Envelope, why: RelayfileError) -> None:
        """One more."""
        key = (envelope.workspace_id, envelope.provider, why.reason)
        first, reason, count = self._alike.get(key, (envelope, why, 0))
        self._alike[key] = (first, reason, count + 1)

    def tell(self) -> None:
        """Tell of all, once."""
        for first, why, count in self._alike.values():
            self._refused(first, why, count)


def _refusal(error: RelayfileError) -> ingest_pb2.EnvelopeResult:
    result = ingest_pb2.EnvelopeResult(status=_REFUSED[type(error)])
    if isinstance(error, InvalidArgument):
        result.violations.extend(_problem(each) for each in error.violations)
    elif (seconds := getattr(error, "retry_after_s", None)) is not None:
        result.retry_after.FromMilliseconds(max(1, round(seconds * 1000)))
    return result


def _problem(violation: FieldViolation) -> ingest_pb2.FieldProblem:
    return ingest_pb2.FieldProblem(field=violation.field, description=violation.description)
