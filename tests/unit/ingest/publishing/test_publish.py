"""`IngestService` over a real gRPC server, with an intake that only remembers."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import grpc.aio
import pytest
from prometheus_client import CollectorRegistry

from relayfile.auth import EVERY_SCOPE, KeyStore, TokenSigner, TokenVerifier
from relayfile.clock import ManualClock, SteadyClock
from relayfile.errors import (
    InvalidArgument,
    Overloaded,
    PageTokenInvalid,
    PermissionDenied,
    Unavailable,
    WorkspaceNotFound,
)
from relayfile.ids import IdSource
from relayfile.ingest.intake import Fate, PastShare
from relayfile.ingest.owner_pauses import OwnerPauses
from relayfile.ingest.publishing.publish import Door
from relayfile.ingest.publishing.servicer import IngestServicer
from relayfile.ingest.status.owner_outcomes import OwnerAnswer
from relayfile.ingest.status.rejected import RejectedRequests
from relayfile.ingest.status.status_report import HeldHere
from relayfile.ingest.webhooks.request_body import BodyRoom
from relayfile.ingest.workspaces import WorkspaceDirectory
from relayfile.serving import CallPolicy, GrpcServer, Service, channel
from relayfile.settings import IngestSettings
from relayfile.status import from_rpc_error
from relayfile.telemetry import IngestInstruments, RpcInstruments, Tracing
from relayfile.v1 import ingest_pb2, ingest_pb2_grpc, shard_pb2, types_pb2
from tests.unit.ingest.front import NOW_US, WORKSPACE, FakeIntake, FakeStore

ACCEPTED = ingest_pb2.PUBLISH_STATUS_ACCEPTED
INVALID = ingest_pb2.PUBLISH_STATUS_INVALID


class GatedIntake(FakeIntake):
    """Accepts only while its gate is open; may refuse single workspaces."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.gate.set()
        self.overloaded: set[str] = set()
        self.sizes: list[int] = []

    async def accept(self, envelopes: Sequence[types_pb2.Envelope]) -> Sequence[Fate]:
        self.sizes.append(len(envelopes))
        await self.gate.wait()
        accounts = {(each.workspace_id, each.provider) for each in envelopes}
        past = {account: 2.0 for account in accounts if account[0] in self.overloaded}
        if past:
            raise PastShare(past)
        return await super().accept(envelopes)


@dataclass
class FakeShards:
    """Answers with what it is given, or not at all."""

    answers: list[shard_pb2.GetOutcomesResponse] = field(default_factory=list)
    pending: list[shard_pb2.PendingReport] = field(default_factory=list)
    away: bool = False
    pauses: list[shard_pb2.SetPauseRequest] = field(default_factory=list)

    async def outcomes(self, workspace: str) -> Sequence[OwnerAnswer]:
        if self.away:
            return [OwnerAnswer("shard", None, "UNAVAILABLE")]
        return [OwnerAnswer("shard", answer) for answer in self.answers]

    async def set_pause(
        self, request: shard_pb2.SetPauseRequest, correlation_id: str, time_left_s: float | None
    ) -> None:
        if self.away:
            raise Unavailable(what="store node that owns the workspace")
        assert correlation_id
        self.pauses.append(request)

    def held(self, workspace: str, refused: dict[str, int]) -> HeldHere:
        return HeldHere("ingest-1", self.pending, refused, 10, 100, 3)


@dataclass
class Publishing:
    """A running service and who calls it."""

    intake: GatedIntake
    store: FakeStore
    shards: FakeShards
    rejected: RejectedRequests
    signer: TokenSigner
    room: BodyRoom
    stub: "ingest_pb2_grpc.IngestServiceAsyncStub"
    door: Door

    def as_(self, workspaces: str | tuple[str, ...] = WORKSPACE, service: str = "") -> tuple[tuple[str, str], ...]:
        token = self.signer.mint("someone", workspaces=workspaces, ttl_s=60, scopes=(EVERY_SCOPE,), service=service)
        return (("authorization", f"Bearer {token}"),)

    def stream(
        self, workspaces: str = "*"
    ) -> grpc.aio.StreamStreamCall[ingest_pb2.PublishEnvelopesRequest, ingest_pb2.PublishEnvelopesResponse]:
        call: grpc.aio.StreamStreamCall[ingest_pb2.PublishEnvelopesRequest, ingest_pb2.PublishEnvelopesResponse] = (
            self.stub.PublishEnvelopes(metadata=self.as_(workspaces))
        )
        return call


@asynccontextmanager
async def running(directory: Path) -> AsyncIterator[Publishing]:
    clock = ManualClock(NOW_US)
    keys = KeyStore(directory / "keys")
    signer = TokenSigner(keys.signing_key(), clock)
    registry = CollectorRegistry()
    intake, store, shards, rejected, room = (
        GatedIntake(),
        FakeStore(),
        FakeShards(),
        RejectedRequests(50),
        BodyRoom(5_000),
    )
    door = Door(
        intake=intake,
        workspaces=WorkspaceDirectory((), store, store, clock, creates=False),
        room=room,
        content_bytes_max=3_000,
        raw_bytes_max=4_000,
        clock=clock,
        arrivals=SteadyClock(clock),
        ids=IdSource(clock),
        tracing=Tracing(),
        instruments=IngestInstruments.declare(registry),
    )
    servicer = IngestServicer(door, rejected, shards, shards, shards)
    settings = IngestSettings(nodes=("127.0.0.1:1",))
    server = GrpcServer(
        settings,
        "127.0.0.1:0",
        [Service("relayfile.v1.IngestService", ingest_pb2_grpc.add_IngestServiceServicer_to_server, servicer)],
        CallPolicy(
            verifier=TokenVerifier(keys.public_file, clock),
            instruments=RpcInstruments.declare(registry),
            tracing=Tracing(),
            clock=clock,
        ),
    )
    await server.start()
    try:
        async with channel(server.address, settings) as connected:
            stub: ingest_pb2_grpc.IngestServiceAsyncStub = ingest_pb2_grpc.IngestServiceStub(connected)
            yield Publishing(intake, store, shards, rejected, signer, room, stub, door)
    finally:
        await server.stop(0)


@pytest.fixture
async def publishing(tmp_path: Path) -> AsyncIterator[Publishing]:
    async with running(tmp_path) as service:
        yield service


def envelope(workspace: str = WORKSPACE, path: str = "/a.json", **fields: object) -> types_pb2.Envelope:
    change = types_pb2.FileChange(kind=types_pb2.CHANGE_KIND_UPSERT, path=path, content=b"{}")
    return types_pb2.Envelope(workspace_id=workspace, provider="crm", changes=[change], **fields)  # type: ignore[arg-type]


def batch(number: int, *envelopes: types_pb2.Envelope) -> ingest_pb2.PublishEnvelopesRequest:
    return ingest_pb2.PublishEnvelopesRequest(batch_number=number, envelopes=envelopes)


def piece(data: bytes, *, last: bool = False) -> ingest_pb2.PublishEnvelopesRequest:
    return ingest_pb2.PublishEnvelopesRequest(chunk=types_pb2.ContentChunk(data=data, last=last))


async def answers(
    publishing: Publishing, *requests: ingest_pb2.PublishEnvelopesRequest, workspaces: str = "*"
) -> list[ingest_pb2.PublishEnvelopesResponse]:
    call = publishing.stream(workspaces)
    for request in requests:
        await call.write(request)
    await call.done_writing()
    return [response async for response in call]


async def test_one_envelope(publishing: Publishing) -> None:
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    metadata = (*publishing.as_(), ("x-correlation-id", "corr"), ("traceparent", trace))
    request = ingest_pb2.PublishEnvelopeRequest(envelope=envelope(path="a/b/"))
    response = await publishing.stub.PublishEnvelope(request, metadata=metadata)
    (accepted,) = publishing.intake.accepted
    assert response.envelope_id == accepted.envelope_id == accepted.delivery_id
    assert (accepted.correlation_id, accepted.traceparent, accepted.changes[0].path) == ("corr", trace, "/a/b")
    assert accepted.received_at.seconds == NOW_US // 1_000_000
    assert publishing.store.learned == [WORKSPACE]


async def test_what_one_envelope_is_refused_for(publishing: Publishing) -> None:
    large = envelope()
    large.changes[0].content = b"x" * ((1 << 20) + 1)
    bad = envelope(path="/a/../b", envelope_id="0" * 26)
    bad.changes.add(kind=1, path="/a\x00")
    bad.changes.add(kind=1, path="/a//b")
    table: list[tuple[types_pb2.Envelope, tuple[tuple[str, str], ...], type[Exception], str]] = [
        (bad, publishing.as_(), InvalidArgument, "envelope.envelope_id"),
        (large, publishing.as_(), InvalidArgument, "envelope.changes"),
        (envelope("other"), publishing.as_(), PermissionDenied, "other"),
        (envelope("nobody"), publishing.as_("*"), WorkspaceNotFound, "nobody"),
    ]
    for message, metadata, kind, words in table:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await publishing.stub.PublishEnvelope(
                ingest_pb2.PublishEnvelopeRequest(envelope=message), metadata=metadata
            )
        error = from_rpc_error(raised.value)
        assert isinstance(error, kind), error
        assert words in str(error)
        if message is bad:
            assert isinstance(error, InvalidArgument)
            assert {each.field for each in error.violations} == {
                "envelope.envelope_id",
                "envelope.changes[0].path",
                "envelope.changes[1].path",
                "envelope.changes[2].path",
            }
    assert publishing.intake.calls == 0
    assert publishing.rejected.totals() == {"INVALID_ARGUMENT": 2, "WORKSPACE_NOT_FOUND": 1}


async def test_with_the_owner_away(publishing: Publishing) -> None:
    publishing.store.away = Unavailable(what="node")
    request = ingest_pb2.PublishEnvelopeRequest(envelope=envelope("elsewhere"))
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await publishing.stub.PublishEnvelope(request, metadata=publishing.as_("*"))
    assert isinstance(from_rpc_error(raised.value), Unavailable)
    await publishing.stub.PublishEnvelope(request, metadata=publishing.as_("elsewhere"))
    assert len(publishing.intake.accepted) == 1


async def test_a_service_says_the_id_and_the_receive_time(publishing: Publishing) -> None:
    given = envelope(envelope_id="01ARZ3NDEKTSV4RRFFQ69G5FAV", correlation_id="c")
    given.received_at.seconds = 5
    request = ingest_pb2.PublishEnvelopeRequest(envelope=given)
    response = await publishing.stub.PublishEnvelope(request, metadata=publishing.as_("*", service="ingest"))
    assert response.envelope_id == "01ARZ3NDEKTSV4RRFFQ69G5FAV"
    assert publishing.intake.accepted[0].received_at.seconds == 5


async def test_an_invalid_envelope_does_not_hold_up_the_others(publishing: Publishing) -> None:
    (response,) = await answers(
        publishing,
        batch(7, envelope(), envelope(path="/a/../b"), envelope("nobody"), envelope(path="/b", correlation_id="c")),
    )
    assert response.batch_number == 7
    assert [each.status for each in response.results] == [
        ACCEPTED,
        INVALID,
        ingest_pb2.PUBLISH_STATUS_WORKSPACE_NOT_FOUND,
        ACCEPTED,
    ]
    assert [each.field for each in response.results[1].violations] == ["envelopes[1].changes[0].path"]
    first, second = publishing.intake.accepted
    assert [first.envelope_id, second.envelope_id] == [response.results[0].envelope_id, response.results[3].envelope_id]
    assert (first.correlation_id, second.correlation_id) == (first.envelope_id, "c")


async def test_the_claim_of_the_token_is_checked_for_each_envelope(publishing: Publishing) -> None:
    (response,) = await answers(publishing, batch(1, envelope(), envelope("quiet")), workspaces=WORKSPACE)
    assert [each.status for each in response.results] == [ACCEPTED, ingest_pb2.PUBLISH_STATUS_PERMISSION_DENIED]


async def test_batches_in_flight_are_accepted_together_and_answered_in_order(publishing: Publishing) -> None:
    publishing.intake.gate.clear()
    call = publishing.stream()
    for number in range(20):
        await call.write(batch(number, envelope(path=f"/{number}")))
    async with asyncio.timeout(5):
        while not publishing.intake.sizes:  # noqa: ASYNC110 - what is waited for is on the other side
            await asyncio.sleep(0.005)
    await asyncio.sleep(0.05)
    publishing.intake.gate.set()
    await call.done_writing()
    assert [response.batch_number async for response in call] == list(range(20))
    assert sum(publishing.intake.sizes) == 20
    assert len(publishing.intake.sizes) < 20


async def test_only_the_noisy_workspace_is_refused(publishing: Publishing) -> None:
    publishing.intake.overloaded = {"quiet"}
    (response,) = await answers(publishing, batch(1, envelope(), envelope("quiet"), envelope(path="/b")))
    assert [each.status for each in response.results] == [
        ACCEPTED,
        ingest_pb2.PUBLISH_STATUS_OVERLOADED,
        ACCEPTED,
    ]
    assert response.results[1].retry_after.seconds == 2
    assert not response.results[1].envelope_id
    [refusal] = publishing.rejected.newest("", 0, 10)
    assert (refusal.workspace, refusal.provider, refusal.reason) == ("quiet", "crm", "OVERLOADED")
    assert publishing.intake.sizes == [3, 2]
    publishing.intake.failure = Unavailable(what="spool")
    (response,) = await answers(publishing, batch(2, envelope()))
    assert response.results[0].status == ingest_pb2.PUBLISH_STATUS_UNAVAILABLE
    assert publishing.rejected.totals() == {"OVERLOADED": 1, "UNAVAILABLE": 1}


async def test_past_its_share_one_envelope_is_resource_exhausted(publishing: Publishing) -> None:
    publishing.intake.overloaded = {"quiet"}
    request = ingest_pb2.PublishEnvelopeRequest(envelope=envelope("quiet"))
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await publishing.stub.PublishEnvelope(request, metadata=publishing.as_("*"))
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    refusal = from_rpc_error(raised.value)
    assert isinstance(refusal, Overloaded)
    assert refusal.retry_after_s == 2.0
    assert publishing.rejected.totals() == {"OVERLOADED": 1}


async def test_content_in_chunks(publishing: Publishing) -> None:
    head = envelope()
    head.changes[0].content = b""
    head.changes[0].content_follows_bytes = 3_000
    raw = types_pb2.Envelope(workspace_id=WORKSPACE, provider="crm", failure=types_pb2.Failure(reason="X"))
    raw.raw.body_follows_bytes = 2
    responses = await answers(
        publishing,
        batch(1, envelope(path="/first"), head),
        piece(b"a" * 1_000),
        piece(b"b" * 2_000, last=True),
        batch(2, raw),
        piece(b"xy", last=True),
        batch(3, envelope(path="/last")),
    )
    assert [[each.status for each in response.results] for response in responses] == [
        [ACCEPTED, ACCEPTED],
        [ACCEPTED],
        [ACCEPTED],
    ]
    _, chunked, failed, _ = publishing.intake.accepted
    assert chunked.changes[0].content == b"a" * 1_000 + b"b" * 2_000
    assert (chunked.changes[0].content_follows_bytes, failed.raw.body) == (0, b"xy")
    publishing.room.take(5_000)


async def test_chunks_that_do_not_fit_what_was_announced(publishing: Publishing) -> None:
    def head(size: int) -> types_pb2.Envelope:
        made = envelope()
        made.changes[0].ClearField("content")
        made.changes[0].content_follows_bytes = size
        return made

    responses = await answers(
        publishing,
        batch(1, head(5)),
        piece(b"123456", last=True),
        batch(2, head(5)),
        piece(b"1234", last=True),
        batch(3, head(3_001)),
        piece(b"x" * 3_001, last=True),
        batch(4, envelope(path="/fine")),
    )
    assert [response.results[0].status for response in responses] == [INVALID, INVALID, INVALID, ACCEPTED]
    field_name = "envelopes[0].changes[0].content_follows_bytes"
    assert [response.results[0].violations[0].field for response in responses[:3]] == [field_name] * 3
    publishing.room.take(3_000)
    (response,) = await answers(publishing, batch(5, head(3_000)), piece(b"x" * 3_000, last=True))
    assert response.results[0].status == ingest_pb2.PUBLISH_STATUS_UNAVAILABLE


async def test_what_ends_a_stream(publishing: Publishing) -> None:
    head = envelope()
    head.changes[0].ClearField("content")
    head.changes[0].content_follows_bytes = 3_000
    for requests in ([piece(b"x")], [batch(1, head), batch(2, envelope())], [batch(1, head), piece(b"x")]):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await answers(publishing, *requests)
        error = from_rpc_error(raised.value)
        assert isinstance(error, InvalidArgument)
        assert error.violations[0].field == "chunk"
    publishing.room.take(5_000)


async def test_the_status_puts_shard_and_processes_together(publishing: Publishing) -> None:
    answer = shard_pb2.GetOutcomesResponse()
    answer.providers.add(provider="crm", applied=90, coalesced=5, dead_lettered=1, failure_reasons={"NOT_JSON": 1})
    report = answer.reports.add(ingest_id="ingest-2")
    report.report_time.FromMicroseconds(NOW_US - 2_000_000)
    report.pending.add(provider="crm", pending=3, oldest_received_unix_us=NOW_US - 40_000_000)
    answer.reports.add(ingest_id="ingest-1").pending.add(provider="crm", pending=1_000)
    publishing.shards.answers = [answer]
    publishing.shards.pending = [shard_pb2.PendingReport(provider="crm", pending=1, oldest_received_unix_us=NOW_US)]
    publishing.rejected.add(NOW_US, workspace=WORKSPACE, provider="github", reason="SIGNATURE_MISMATCH")
    request = ingest_pb2.GetIngestStatusRequest(workspace_id=WORKSPACE)
    status = await publishing.stub.GetIngestStatus(request, metadata=publishing.as_())
    crm, github = status.providers
    assert (crm.accepted, crm.applied, crm.pending, crm.oldest_pending_age.seconds) == (100, 90, 4, 40)
    assert (github.provider, github.refused) == ("github", 1)
    assert crm.health == ingest_pb2.PROVIDER_HEALTH_ERROR
    assert [(part.source, part.age.seconds, part.pending) for part in status.parts] == [
        ("shard", 0, 0),
        ("ingest-2", 2, 3),
        ("ingest-1", 0, 1),
    ]
    assert (status.spool_bytes, status.spool_bytes_max, status.queued_objects) == (10, 100, 3)

    request.alert_profile = ingest_pb2.ALERT_PROFILE_CUSTOM
    request.custom_limits.dead_lettered_ratio_max = 0.5
    request.custom_limits.lag_max.seconds = 39
    request.provider = "crm"
    status = await publishing.stub.GetIngestStatus(request, metadata=publishing.as_())
    assert [each.health for each in status.providers] == [ingest_pb2.PROVIDER_HEALTH_LAGGING]
    request.custom_limits.lag_max.seconds = 41
    status = await publishing.stub.GetIngestStatus(request, metadata=publishing.as_())
    assert [each.health for each in status.providers] == [ingest_pb2.PROVIDER_HEALTH_HEALTHY]


async def test_the_status_without_the_owner_says_what_is_held(publishing: Publishing) -> None:
    publishing.shards.away = True
    publishing.shards.pending = [shard_pb2.PendingReport(provider="crm", pending=2)]
    request = ingest_pb2.GetIngestStatusRequest(workspace_id=WORKSPACE)
    status = await publishing.stub.GetIngestStatus(request, metadata=publishing.as_())
    assert [(part.source, part.missing_reason, part.HasField("age")) for part in status.parts] == [
        ("shard", "UNAVAILABLE", False),
        ("ingest-1", "", True),
    ]
    assert [(each.provider, each.accepted, each.pending) for each in status.providers] == [("crm", 2, 2)]


async def test_refused_requests_are_listed_in_pages(publishing: Publishing) -> None:
    for number in range(5):
        publishing.rejected.add(
            NOW_US + number, workspace=WORKSPACE, provider="github", reason="TOO_LARGE", http_status=413
        )
        publishing.rejected.add(NOW_US, workspace="quiet", provider="github", reason="SIGNATURE_MISMATCH")
    seen: list[int] = []
    request = ingest_pb2.ListRejectedRequestsRequest(workspace_id=WORKSPACE, page_size=2)
    while True:
        page = await publishing.stub.ListRejectedRequests(request, metadata=publishing.as_())
        assert not page.totals
        seen += [each.reject_time.ToMicroseconds() - NOW_US for each in page.requests]
        request.page_token = page.next_page_token
        if not page.next_page_token:
            break
    assert seen == [4, 3, 2, 1, 0]
    everything = await publishing.stub.ListRejectedRequests(
        ingest_pb2.ListRejectedRequestsRequest(), metadata=publishing.as_("*")
    )
    assert len(everything.requests) == 10
    assert dict(everything.totals) == {"TOO_LARGE": 5, "SIGNATURE_MISMATCH": 5}
    for token in ("x", "3:quiet", "0:acme"):
        request.page_token = token
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await publishing.stub.ListRejectedRequests(request, metadata=publishing.as_())
        assert isinstance(from_rpc_error(raised.value), PageTokenInvalid)


async def test_a_pause_is_forwarded_to_the_owner_with_who_asked(publishing: Publishing) -> None:
    stub, mine = publishing.stub, publishing.as_()
    await stub.Pause(
        ingest_pb2.PauseRequest(workspace_id=WORKSPACE, provider="crm", reason="upgrade", request_id="r"), metadata=mine
    )
    await stub.Resume(ingest_pb2.ResumeRequest(workspace_id=WORKSPACE, request_id="r"), metadata=mine)
    assert publishing.shards.pauses == [
        shard_pb2.SetPauseRequest(
            workspace_id=WORKSPACE, provider="crm", paused=True, reason="upgrade", actor="someone", request_id="r"
        ),
        shard_pb2.SetPauseRequest(workspace_id=WORKSPACE, actor="someone", request_id="r"),
    ]


async def test_what_a_pause_is_refused_for(publishing: Publishing) -> None:
    async def refusal(workspace: str, workspaces: str = "*") -> type[Exception]:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await publishing.stub.Pause(
                ingest_pb2.PauseRequest(workspace_id=workspace), metadata=publishing.as_(workspaces)
            )
        return type(from_rpc_error(raised.value))

    assert await refusal("") is InvalidArgument
    assert await refusal("not a name!") is InvalidArgument
    assert await refusal("umbrella", workspaces=WORKSPACE) is PermissionDenied
    publishing.shards.away = True
    assert await refusal(WORKSPACE) is Unavailable
    assert not publishing.shards.pauses


async def test_an_owner_that_cannot_be_reached_is_unavailable() -> None:
    async with channel("127.0.0.1:1", IngestSettings(nodes=("127.0.0.1:1",))) as nowhere:
        setter = OwnerPauses(lambda _: nowhere, lambda: (), timeout_s=0.5)
        with pytest.raises(Unavailable):
            await setter.set_pause(shard_pb2.SetPauseRequest(workspace_id=WORKSPACE), "c", None)
