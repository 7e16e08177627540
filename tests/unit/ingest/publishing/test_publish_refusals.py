"""What is refused over gRPC: the exact code, reason and field of each; and calls that end in the middle."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc
import grpc.aio
import pytest

from relayfile.auth import Principal
from relayfile.connections import MESSAGE_FRAME_BYTES
from relayfile.errors import VIOLATIONS_MAX, InvalidArgument, RelayfileError
from relayfile.ingest.publishing.publish import (
    ENVELOPES_MAX,
    MESSAGE_COST_BYTES,
    WAITING_BYTES_MAX,
    Publisher,
    PublishStream,
)
from relayfile.settings import IngestSettings
from relayfile.status import from_rpc_error
from relayfile.v1 import ingest_pb2, types_pb2
from relayfile.wire import COUNTED_MAX, EnvelopeRules, check_envelope
from tests.unit.ingest.front import WORKSPACE, until
from tests.unit.ingest.publishing.test_publish import (
    ACCEPTED,
    INVALID,
    Publishing,
    answers,
    batch,
    envelope,
    piece,
    running,
)

UNKNOWN_ID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
Change = Callable[[types_pb2.Envelope], object]


@pytest.fixture
async def publishing(tmp_path: Path) -> AsyncIterator[Publishing]:
    async with running(tmp_path) as service:
        yield service


def changed(change: Change) -> types_pb2.Envelope:
    made = envelope()
    change(made)
    return made


def announcing(size: int, content: bytes = b"") -> types_pb2.Envelope:
    made = envelope()
    made.changes[0].content = content
    made.changes[0].content_follows_bytes = size
    return made


def failed_with(reason: str) -> Change:
    def change(made: types_pb2.Envelope) -> None:
        del made.changes[:]
        made.failure.reason = reason

    return change


def failed(**raw: object) -> Change:
    def change(made: types_pb2.Envelope) -> None:
        failed_with("BROKEN")(made)
        made.raw.MergeFrom(types_pb2.RawDelivery(**raw))  # type: ignore[arg-type]  # by name

    return change


def header(name: str, value: str) -> Change:
    def change(made: types_pb2.Envelope) -> None:
        made.headers[name] = value

    return change


def kind(number: int) -> Change:
    def change(made: types_pb2.Envelope) -> None:
        made.changes[0].kind = number  # type: ignore[assignment]  # of nobody
        made.changes[0].ClearField("content")

    return change


TEN_THOUSAND = [types_pb2.FileChange(kind=types_pb2.CHANGE_KIND_DELETE, path=f"/{number}") for number in range(10_001)]
REFUSED: list[tuple[str, Change]] = [
    ("workspace_id", lambda made: setattr(made, "workspace_id", "../x")),
    ("workspace_id", lambda made: setattr(made, "workspace_id", "")),
    ("provider", lambda made: setattr(made, "provider", "A b")),
    ("provider", lambda made: setattr(made, "provider", "")),
    ("envelope_id", lambda made: setattr(made, "envelope_id", UNKNOWN_ID)),
    ("received_at", lambda made: setattr(made.received_at, "seconds", 1)),
    ("delivery_id", lambda made: setattr(made, "delivery_id", "x" * 257)),
    ("delivery_id", lambda made: setattr(made, "delivery_id", "a\nb")),
    ("correlation_id", lambda made: setattr(made, "correlation_id", "x" * 129)),
    ("event_name", lambda made: setattr(made, "event_name", "a\0b")),
    ("adapter_version", lambda made: setattr(made, "adapter_version", "x" * 129)),
    ("traceparent", lambda made: setattr(made, "traceparent", "00-zz")),
    ("headers['authorization']", header("authorization", "Bearer x")),
    ("headers['X-Upper']", header("X-Upper", "x")),
    ("headers['x-line']", header("x-line", "a\nb")),
    ("failure.reason", failed_with("lower")),
    ("changes", lambda made: setattr(made.failure, "reason", "BROKEN")),
    ("raw", lambda made: setattr(made.raw, "body", b"x")),
    ("raw.body", failed(body=b"x" * 4_001)),
    ("raw.headers['cookie']", failed(headers={"cookie": "x"})),
    ("changes", lambda made: made.changes.extend(TEN_THOUSAND)),
    ("changes[0].kind", kind(0)),
    ("changes[0].kind", kind(99)),
    ("changes[0].kind", kind(-1)),
    ("changes[0].path", lambda made: setattr(made.changes[0], "path", "/a/../b")),
    ("changes[0].path", lambda made: setattr(made.changes[0], "path", "")),
    ("changes[0].path", lambda made: setattr(made.changes[0], "path", "/" + "x" * 1_025)),
    ("changes[0].provider_object_id", lambda made: setattr(made.changes[0], "provider_object_id", "no-slash")),
    ("changes[0].provider_object_id", lambda made: setattr(made.changes[0], "provider_object_id", "a/" + "x" * 512)),
    ("changes[0].occurred_at", lambda made: setattr(made.changes[0].occurred_at, "seconds", -1)),
    ("changes[0].occurred_at", lambda made: setattr(made.changes[0].occurred_at, "nanos", 1_000_000_000)),
    ("changes[0].content", lambda made: setattr(made.changes[0], "content", b"x" * 3_001)),
    ("changes[0].content", lambda made: setattr(made.changes[0], "kind", types_pb2.CHANGE_KIND_DELETE)),
    ("changes[0].content_type", lambda made: setattr(made.changes[0], "content_type", "x" * 257)),
    ("changes[0].operation_id", lambda made: setattr(made.changes[0], "operation_id", "a\0")),
    ("changes[0].semantics", lambda made: made.changes[0].semantics.relations.extend(["/x"] * 1_001)),
]
NAMES = [f"{number}-{field}" for number, (field, _) in enumerate(REFUSED)]


@pytest.mark.parametrize(("field", "change"), REFUSED, ids=NAMES)
async def test_each_field_by_its_name_on_both_calls(publishing: Publishing, field: str, change: Change) -> None:
    request = ingest_pb2.PublishEnvelopeRequest(envelope=changed(change))
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await publishing.stub.PublishEnvelope(request, metadata=publishing.as_("*"))
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    error = from_rpc_error(raised.value)
    assert isinstance(error, InvalidArgument)
    assert [each.field for each in error.violations] == [f"envelope.{field}"]
    (response,) = await answers(publishing, batch(1, envelope(), changed(change), envelope()))
    assert [each.status for each in response.results] == [ACCEPTED, INVALID, ACCEPTED]
    assert [each.field for each in response.results[1].violations] == [f"envelopes[1].{field}"]
    assert len(publishing.intake.accepted) == 2
    assert publishing.rejected.totals() == {"INVALID_ARGUMENT": 2}


ENDING: dict[str, tuple[list[ingest_pb2.PublishEnvelopesRequest], grpc.StatusCode, str]] = {
    "a chunk that nobody announced": ([piece(b"x")], grpc.StatusCode.INVALID_ARGUMENT, "chunk"),
    "another batch where chunks should be": (
        [batch(1, announcing(5)), batch(2, envelope())],
        grpc.StatusCode.INVALID_ARGUMENT,
        "chunk",
    ),
    "no last chunk": ([batch(1, announcing(5)), piece(b"12345")], grpc.StatusCode.INVALID_ARGUMENT, "chunk"),
    "nothing after an announcement": ([batch(1, announcing(5))], grpc.StatusCode.INVALID_ARGUMENT, "chunk"),
    "more envelopes than are taken": (
        [batch(1, *[types_pb2.Envelope()] * (ENVELOPES_MAX + 1))],
        grpc.StatusCode.INVALID_ARGUMENT,
        "envelopes",
    ),
}


@pytest.mark.parametrize("name", ENDING)
async def test_what_ends_a_stream(publishing: Publishing, name: str) -> None:
    """And what was answered before it stays accepted."""
    requests, code, field = ENDING[name]
    call = publishing.stream()
    await call.write(batch(0, envelope()))
    first = await call.read()
    assert isinstance(first, ingest_pb2.PublishEnvelopesResponse)
    assert [each.status for each in first.results] == [ACCEPTED]
    with pytest.raises(grpc.aio.AioRpcError) as raised:  # noqa: PT012 - which of them meets the end is a race
        for request in requests:
            await call.write(request)
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF, "an answer to what ends the stream"
    assert raised.value.code() is code
    if field:
        error: RelayfileError = from_rpc_error(raised.value)
        assert isinstance(error, InvalidArgument)
        assert [each.field for each in error.violations] == [field]
    assert len(publishing.intake.accepted) == 1
    publishing.room.take(5_000)


async def test_a_message_that_is_too_large(publishing: Publishing) -> None:
    made = envelope()
    made.changes[0].content = b"x" * (IngestSettings().message_bytes_max + MESSAGE_FRAME_BYTES)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await publishing.stub.PublishEnvelope(
            ingest_pb2.PublishEnvelopeRequest(envelope=made), metadata=publishing.as_()
        )
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert publishing.intake.calls == 0


def deleting(made: types_pb2.Envelope) -> None:
    made.changes[0].CopyFrom(
        types_pb2.FileChange(kind=types_pb2.CHANGE_KIND_DELETE, path="/a.json", content_follows_bytes=2)
    )


NOT_TAKEN: dict[str, tuple[types_pb2.Envelope, list[bytes], str]] = {
    "content, and more to follow": (announcing(2, b"{}"), [b"[]"], "changes[0].content_follows_bytes"),
    "less than announced": (announcing(5), [b"1234"], "changes[0].content_follows_bytes"),
    "more than announced": (announcing(5), [b"123", b"456"], "changes[0].content_follows_bytes"),
    "nothing at all": (announcing(5), [b""], "changes[0].content_follows_bytes"),
    "over the limit": (announcing(3_001), [b"x" * 3_001], "changes[0].content_follows_bytes"),
    "a size past 63 bits": (announcing((1 << 63) - 1), [b"x"], "changes[0].content_follows_bytes"),
    "a negative size": (announcing(-1), [], "changes[0].content_follows_bytes"),
    "a delete": (changed(deleting), [b"{}"], "changes[0].content"),
    "a raw body, and more to follow": (
        changed(failed(body=b"a", body_follows_bytes=2)),
        [b"bc"],
        "raw.body_follows_bytes",
    ),
}


@pytest.mark.parametrize("name", NOT_TAKEN)
async def test_announcements_that_are_not_taken(publishing: Publishing, name: str) -> None:
    """The stream goes on: what follows is read past."""
    made, pieces, field = NOT_TAKEN[name]
    chunks = [piece(data, last=index == len(pieces) - 1) for index, data in enumerate(pieces)]
    first, second = await answers(publishing, batch(1, made), *chunks, batch(2, envelope()))
    assert [each.status for each in first.results] == [INVALID]
    assert [each.field for each in first.results[0].violations] == [f"envelopes[0].{field}"]
    assert [each.status for each in second.results] == [ACCEPTED]
    publishing.room.take(5_000)


async def test_only_a_service_says_the_id_and_the_time(publishing: Publishing) -> None:
    for service, status in (("", INVALID), ("ingest", ACCEPTED)):
        call = publishing.stub.PublishEnvelopes(metadata=publishing.as_("*", service=service))
        made = envelope(envelope_id=UNKNOWN_ID)
        made.received_at.seconds = 5
        await call.write(batch(1, made))
        await call.done_writing()
        (response,) = [each async for each in call]
        assert [each.status for each in response.results] == [status]


async def test_a_call_past_its_deadline_leaves_nothing_running(publishing: Publishing) -> None:
    """Sent again under its delivery id it is accepted: the shard knows what it has applied already."""
    publishing.intake.gate.clear()
    request = ingest_pb2.PublishEnvelopeRequest(envelope=envelope(delivery_id="d-1"))
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await publishing.stub.PublishEnvelope(request, metadata=publishing.as_(), timeout=0.2)
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    call = publishing.stub.PublishEnvelopes(metadata=publishing.as_(), timeout=0.2)
    await call.write(batch(1, announcing(2_000)))
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call.read()
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED

    async def is_given_back() -> bool:
        try:
            publishing.room.take(5_000)
        except RelayfileError:
            return False
        publishing.room.give_back(5_000)
        return True

    await until(is_given_back)
    publishing.intake.gate.set()
    await asyncio.sleep(0.05)
    assert publishing.intake.accepted == []
    await publishing.stub.PublishEnvelope(request, metadata=publishing.as_())
    assert [each.delivery_id for each in publishing.intake.accepted] == ["d-1"]


async def test_who_sends_without_end_is_read_no_further_than_its_answers(publishing: Publishing) -> None:
    """With answers that do not come, what is read ahead is bounded."""
    publishing.intake.gate.clear()
    call = publishing.stream()
    sent = 0

    async def send() -> None:
        nonlocal sent
        content = b"x" * 3_000
        made = [changed(lambda each: setattr(each.changes[0], "content", content)) for _ in range(100)]
        while True:
            await call.write(batch(sent, *made))
            sent += 1

    sending = asyncio.get_running_loop().create_task(send())
    before = -1
    while before != sent:
        before = sent
        await asyncio.sleep(0.3)
    sending.cancel()
    assert 0 < sent * 300_000 < 40 << 20, "what gRPC and the stream hold together"
    call.cancel()


SMALL: dict[str, tuple[ingest_pb2.PublishEnvelopesRequest, int]] = {
    "empty": (ingest_pb2.PublishEnvelopesRequest(), WAITING_BYTES_MAX // MESSAGE_COST_BYTES),
    "with a far larger answer": (batch(1, *[types_pb2.Envelope()] * ENVELOPES_MAX), 4),
}


@pytest.mark.parametrize("kind", SMALL)
async def test_what_is_read_ahead_counts_with_its_answers(publishing: Publishing, kind: str) -> None:
    """Of a caller that reads none."""
    message, messages_max = SMALL[kind]
    sent, is_written = 0, asyncio.Event()

    async def endless() -> AsyncIterator[ingest_pb2.PublishEnvelopesRequest]:
        nonlocal sent
        while sent <= 2 * messages_max:
            sent += 1
            yield message
        raise AssertionError("was not held")

    async def never(_response: ingest_pb2.PublishEnvelopesResponse) -> None:
        is_written.set()
        await asyncio.Event().wait()

    principal = Principal(subject="x", workspaces=frozenset({WORKSPACE}), expires_at_us=1 << 60)
    stream = PublishStream(Publisher(publishing.door, principal), lambda *_: None)
    running_stream = asyncio.ensure_future(stream.run(endless(), never))
    await is_written.wait()
    await asyncio.wait([running_stream], timeout=0.5)
    assert not running_stream.done()
    assert sent <= messages_max
    running_stream.cancel()
    await asyncio.wait([running_stream])


async def test_an_answer_can_be_read_by_who_takes_the_usual_size(publishing: Publishing) -> None:
    """Past a MiB of problems it says only that the rest is invalid, too."""
    worst = changed(lambda made: made.changes.extend([types_pb2.FileChange(path="//")] * 30))
    (response,) = await answers(publishing, batch(1, *[worst] * 2_000))
    assert response.ByteSize() < 2 << 20
    assert [each.status for each in response.results] == [INVALID] * 2_000
    assert len(response.results[0].violations) == 20
    assert not response.results[-1].violations


async def test_envelopes_of_many_changes_let_others_have_their_turn(publishing: Publishing) -> None:
    """By changes, not by envelopes; and of one with thousands of problems not every one is looked for."""
    full = types_pb2.Envelope(workspace_id=WORKSPACE, provider="crm", changes=[types_pb2.FileChange()] * 10_000)
    invalid = check_envelope(full, EnvelopeRules(1, 1))
    assert invalid is not None
    assert (len(invalid.violations), invalid.total) == (VIOLATIONS_MAX, COUNTED_MAX)
    taken = 0
    others_turn = publishing.door.turns.next

    async def counted() -> None:
        nonlocal taken
        taken += 1
        await others_turn()

    publishing.door.turns.next = counted  # type: ignore[method-assign]  # only looked at
    (response,) = await answers(publishing, batch(1, full, full, full))
    assert [each.status for each in response.results] == [INVALID] * 3
    assert taken == 3
