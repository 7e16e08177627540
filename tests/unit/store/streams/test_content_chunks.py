"""Contents in pieces, and pieces that do not fit."""

import pytest

from relayfile.errors import InvalidArgument, TooLarge
from relayfile.store.streams.content_chunks import ChunkedContent
from relayfile.v1 import shard_pb2
from tests.support.running_node import fold, sub_batch, upsert


def announcing(size_bytes: int) -> shard_pb2.ApplyEnvelopesRequest:
    member = upsert(1, b"")
    member.content_follows_bytes = size_bytes
    return shard_pb2.ApplyEnvelopesRequest(sub_batches=[sub_batch("acme", 1, [fold(member)])])


def chunk(data: bytes, *, last: bool = False) -> shard_pb2.ApplyEnvelopesRequest:
    request = shard_pb2.ApplyEnvelopesRequest()
    request.chunk.data, request.chunk.last = data, last
    return request


def test_pieces_are_put_together() -> None:
    chunked = ChunkedContent(10)
    assert chunked.pass_on(announcing(5)) is None
    assert chunked.pass_on(chunk(b"ab")) is None
    whole = chunked.pass_on(chunk(b"cde", last=True))
    assert whole is not None
    assert whole.sub_batches[0].workspaces[0].folds[0].members[0].content == b"abcde"
    other = shard_pb2.ApplyEnvelopesRequest(sub_batches=[sub_batch("acme", 2, [fold(upsert(2))])])
    assert chunked.pass_on(other) is other


@pytest.mark.parametrize(
    "request_",
    [chunk(b""), chunk(b"123456", last=True), chunk(b"12345"), chunk(b"12", last=True), announcing(1)],
    ids=["empty", "too much", "last unmarked", "too little", "no chunk"],
)
def test_pieces_that_do_not_add_up_end_the_stream(request_: shard_pb2.ApplyEnvelopesRequest) -> None:
    chunked = ChunkedContent(10)
    chunked.pass_on(announcing(5))
    with pytest.raises(InvalidArgument):
        chunked.pass_on(request_)


def test_what_is_announced_too_large_or_not_at_all_is_refused() -> None:
    with pytest.raises(TooLarge):
        ChunkedContent(10).pass_on(announcing(11))
    with pytest.raises(InvalidArgument):
        ChunkedContent(10).pass_on(chunk(b"1", last=True))
