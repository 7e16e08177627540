"""What a stopping process sends to its peers: batches of bounded size, and who is asked."""

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc.aio

from relayfile.ingest.spool import handover
from relayfile.ingest.spool.handover import Handover, Peers, batches
from relayfile.ingest.spool.payload import PayloadBuilder
from relayfile.ingest.spool.spool_file import StoredRow
from relayfile.v1 import ingest_pb2, ingest_pb2_grpc, types_pb2

ACCEPTED, OVERLOADED, UNAVAILABLE, INVALID = (
    ingest_pb2.PUBLISH_STATUS_ACCEPTED,
    ingest_pb2.PUBLISH_STATUS_OVERLOADED,
    ingest_pb2.PUBLISH_STATUS_UNAVAILABLE,
    ingest_pb2.PUBLISH_STATUS_INVALID,
)


def envelope(number: int, size: int) -> types_pb2.Envelope:
    made = types_pb2.Envelope(envelope_id=str(number))
    made.changes.add(path="/small", content=b"s")
    made.changes.add(path="/large", content=b"x" * size)
    return made


def put_together(messages: list[ingest_pb2.PublishEnvelopesRequest]) -> list[types_pb2.Envelope]:
    """As the receiver does."""
    made = list(messages[0].envelopes)
    body = b"".join(message.chunk.data for message in messages[1:])
    if body:
        last = made[-1]
        if last.raw.body_follows_bytes:
            assert last.raw.body_follows_bytes == len(body)
            last.raw.ClearField("body_follows_bytes")
            last.raw.body = body
        else:
            assert last.changes[-1].content_follows_bytes == len(body)
            last.changes[-1].ClearField("content_follows_bytes")
            last.changes[-1].content = body
        assert [message.chunk.last for message in messages[1:]] == [False] * (len(messages) - 2) + [True]
    return made


def test_batches_are_bounded_and_keep_every_envelope_in_order() -> None:
    sizes = [10, 300_000, 400_000, 500_000, 3_000_000, 10, handover.BATCH_BYTES - 10, 10]
    envelopes = [envelope(number, size) for number, size in enumerate(sizes)]
    failed = types_pb2.Envelope(envelope_id="raw", raw=types_pb2.RawDelivery(body=b"r" * 5_000_000))
    made = list(batches([*envelopes, failed]))
    assert all(message.ByteSize() <= handover.BATCH_BYTES + 1_000 for messages in made for message in messages)
    assert [each for messages in made for each in put_together(messages)] == [*envelopes, failed]


def test_many_small_ones_are_several_batches() -> None:
    envelopes = [types_pb2.Envelope(envelope_id=str(number)) for number in range(handover.BATCH_ENVELOPES + 1)]
    assert [len(messages[0].envelopes) for messages in batches(envelopes)] == [handover.BATCH_ENVELOPES, 1]
    assert list(batches([])) == []


async def test_a_process_is_not_its_own_peer() -> None:
    def no_channel(address: str) -> grpc.aio.Channel:
        raise AssertionError(address)

    named = ("127.0.0.1:7431", "127.0.0.2:7431", "127.0.0.1:7531", "name.invalid:7431")
    # It listens on every address, or where a name leads to: each of this machine's with its port is its own.
    for own in ("0.0.0.0:7431", "[::]:7431", "localhost:7431"):
        assert await Peers(named, own, no_channel).addresses() == ["127.0.0.1:7531"]
    # It listens on one address: another one of the same machine is another process.
    assert await Peers(named, "127.0.0.1:7431", no_channel).addresses() == ["127.0.0.2:7431", "127.0.0.1:7531"]
    assert await Peers(named, "", no_channel).addresses() == list(named[:3])
    assert handover._is_ours(socket.AF_INET, "127.0.0.1")
    assert not handover._is_ours(socket.AF_INET, "192.0.2.1")


class Peer(ingest_pb2_grpc.IngestServiceServicer):
    """Answers for each envelope what it is told to, attempt after attempt, and then that it is accepted."""

    def __init__(self, answers: Mapping[str, Sequence[ingest_pb2.PublishStatus.ValueType]]) -> None:
        self.accepted: list[str] = []
        self._answers = {name: list(each) for name, each in answers.items()}

    async def PublishEnvelopes(
        self,
        request_iterator: AsyncIterator[ingest_pb2.PublishEnvelopesRequest],
        context: "grpc.aio.ServicerContext[ingest_pb2.PublishEnvelopesRequest, ingest_pb2.PublishEnvelopesResponse]",
    ) -> AsyncIterator[ingest_pb2.PublishEnvelopesResponse]:
        async for request in request_iterator:
            response = ingest_pb2.PublishEnvelopesResponse()
            for each in request.envelopes:
                left = self._answers.get(each.envelope_id)
                status = left.pop(0) if left else ACCEPTED
                response.results.add(envelope_id=each.envelope_id, status=status)
                if status == ACCEPTED:
                    self.accepted.append(each.envelope_id)
            yield response


@dataclass
class Left:
    """A spool with two rows of one workspace, three envelopes each; notes what the peer had when a row was taken."""

    peer: Peer
    rows: dict[int, StoredRow] = field(default_factory=dict)
    taken_at: dict[int, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for row_id in (1, 2):
            builder = PayloadBuilder(row_id, "w")
            for number in range(3):
                each = types_pb2.Envelope(envelope_id=f"{row_id}-{number}", workspace_id="w", provider="p")
                each.changes.add(kind=types_pb2.CHANGE_KIND_UPSERT, path=f"/{number}", content=b"x")
                builder.add(each, each.SerializeToString())
            self.rows[row_id] = StoredRow(row_id, 3, 0, builder.provider_text(), builder.payload())

    def left(self) -> Mapping[str, Sequence[int]]:
        return {"w": list(self.rows)}

    def row(self, row_id: int) -> StoredRow | None:
        return self.rows[row_id]

    def taken(self, workspace_id: str, row: StoredRow) -> None:
        self.taken_at[row.row_id] = list(self.peer.accepted)


@asynccontextmanager
async def served(peer: Peer) -> AsyncIterator[Handover]:
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    ingest_pb2_grpc.add_IngestServiceServicer_to_server(peer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield Handover(Peers((f"127.0.0.1:{port}",), "", grpc.aio.insecure_channel), lambda: ())
    finally:
        await server.stop(None)


async def test_a_row_leaves_when_a_peer_has_all_of_it_and_not_before() -> None:
    peer = Peer({"1-1": [OVERLOADED, UNAVAILABLE], "2-2": [UNAVAILABLE]})  # type: ignore[abstract]  # asked no more
    spool = Left(peer)
    async with served(peer) as handing_over, asyncio.timeout(10):
        await handing_over.run(spool)
    assert sorted(peer.accepted) == [f"{row_id}-{number}" for row_id in (1, 2) for number in range(3)]
    assert spool.taken_at.keys() == {1, 2}
    for row_id, had in spool.taken_at.items():
        assert {f"{row_id}-{number}" for number in range(3)} <= set(had)


async def test_a_row_of_which_a_peer_will_never_take_all_stays() -> None:
    peer = Peer({"1-1": [INVALID]})  # type: ignore[abstract]  # as above
    spool = Left(peer)
    async with served(peer) as handing_over, asyncio.timeout(10):
        await handing_over.run(spool)
    assert spool.taken_at.keys() == {2}
