"""A stream's answers when its peer is slow or gone."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from relayfile.store.streams.apply_stream import ANSWERS_WAITING_MAX, MEMBER_OVERHEAD_BYTES, ApplyStream
from relayfile.store.streams.content_chunks import ChunkedContent
from relayfile.store.streams.pausing import PauseNews
from relayfile.store.streams.sessions import Reports
from relayfile.v1 import shard_pb2
from tests.support.running_node import RunningNode, fold, running_node, sub_batch, upsert

TIMEOUT_S = 10.0
CREDIT_BYTES = ANSWERS_WAITING_MAX // 2 * MEMBER_OVERHEAD_BYTES
"""Lets far fewer changes wait for a commit than answers wait for the peer, however slow the disk is."""


class Peer:
    """Sends the same change again and again; reads only the first `reads` answers."""

    def __init__(self, running: RunningNode, batches: int, reads: int = 0) -> None:
        self._news = PauseNews(running.engine)
        self.stream = ApplyStream(running.node, "ingest-0", {}, Reports(), CREDIT_BYTES)
        self.sent = 0
        self.writes = 0
        self._batches = batches
        self._reads = reads
        self.reads_again = asyncio.Event()

    async def requests(self) -> AsyncIterator[shard_pb2.ApplyEnvelopesRequest]:
        for number in range(1, self._batches + 1):
            self.sent = number
            yield shard_pb2.ApplyEnvelopesRequest(sub_batches=[sub_batch("acme", self.sent, [fold(upsert(1))])])
            await asyncio.sleep(0)
        await self.reads_again.wait()

    async def write(self, response: shard_pb2.ApplyEnvelopesResponse) -> None:
        if response.pauses_complete:
            return
        self.writes += 1
        if self.writes > self._reads:
            await self.reads_again.wait()

    def serve(self) -> "asyncio.Task[None]":
        return asyncio.ensure_future(
            self.stream.serve(self.requests(), self.write, ChunkedContent(1 << 20), self._news)
        )


async def until_idle(running: RunningNode, peer: Peer) -> None:
    """Nothing more is taken, and all that was taken is committed."""
    sent = -1
    while peer.sent != sent:
        sent = peer.sent
        for _ in range(50):
            await asyncio.sleep(0)
        await running.node.committer.drain()


async def test_a_peer_that_reads_no_answers_is_not_read_either(tmp_path: Path) -> None:
    async with asyncio.timeout(TIMEOUT_S), running_node(tmp_path) as running:
        peer = Peer(running, batches=3 * ANSWERS_WAITING_MAX)
        serving = peer.serve()
        while peer.sent <= ANSWERS_WAITING_MAX:  # noqa: ASYNC110 - it is the stream that is watched
            await asyncio.sleep(0.01)
        await until_idle(running, peer)
        assert peer.sent < 2 * ANSWERS_WAITING_MAX
        peer.reads_again.set()
        await serving
        assert peer.sent == 3 * ANSWERS_WAITING_MAX


async def test_draining_waits_for_the_last_answer_to_be_sent(tmp_path: Path) -> None:
    async with asyncio.timeout(TIMEOUT_S), running_node(tmp_path) as running:
        peer = Peer(running, batches=1)
        serving = peer.serve()
        while not peer.writes:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0)
        draining = asyncio.ensure_future(peer.stream.drain())
        for _ in range(5):
            await asyncio.sleep(0)
        assert not draining.done()
        peer.reads_again.set()
        await draining
        await serving


async def test_draining_ends_when_the_peer_goes_away_without_its_answers(tmp_path: Path) -> None:
    async with asyncio.timeout(TIMEOUT_S), running_node(tmp_path) as running:
        peer = Peer(running, batches=20)
        serving = peer.serve()
        while not peer.writes:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0)
        await until_idle(running, peer)
        draining = asyncio.ensure_future(peer.stream.drain())
        await asyncio.sleep(0)
        serving.cancel()
        await draining
