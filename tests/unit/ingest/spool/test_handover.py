"""What a stopping process sends to its peers: batches of bounded size, and who is asked."""

import socket

import grpc.aio

from relayfile.ingest.spool import handover
from relayfile.ingest.spool.handover import Peers, batches
from relayfile.v1 import ingest_pb2, types_pb2


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

    peers = Peers(("127.0.0.1:7431", "127.0.0.1:7531", "name.invalid:7431"), 7431, no_channel)
    assert await peers.addresses() == ["127.0.0.1:7531"]
    assert handover._is_ours(socket.AF_INET, "127.0.0.1")
    assert not handover._is_ours(socket.AF_INET, "192.0.2.1")
