"""`ShardService`: what a node offers to the ingest processes."""

from __future__ import annotations  # gRPC's classes are generic in their stubs only

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from relayfile.errors import InvalidArgument, WorkspaceNotFound
from relayfile.store.letters.redo_results import finish_redo
from relayfile.store.node import Node
from relayfile.store.once import Asked, mark_of
from relayfile.store.order import current_order
from relayfile.store.servicers.checks import Checks
from relayfile.store.servicers.wire import fill_provider
from relayfile.store.streams.apply_stream import ApplyStream
from relayfile.store.streams.content_chunks import ChunkedContent
from relayfile.store.streams.pausing import PauseChange
from relayfile.store.streams.sessions import Sequences
from relayfile.telemetry import get_logger
from relayfile.v1 import shard_pb2, shard_pb2_grpc
from relayfile.wire import from_us, is_provider_name

if TYPE_CHECKING:
    import grpc.aio

REDOS_MAX = 64
"""That one stream may have at once, whatever it says."""
ANNOUNCED_BYTES_MAX = 256 << 20
"""Of a content or a raw body that comes in pieces: the most that ingest can be set to accept. Whether this node keeps
so much is the planner's to say, in an outcome: a stream that ended for it would bring the same change again."""
TELL_S = 1.0
"""How long a change of a pause waits until every connected ingest process was told."""

_log = get_logger(__name__)


class ShardService(shard_pb2_grpc.ShardServiceServicer):
    """Served by every node for its own shards."""

    def __init__(self, node: Node, credit_bytes: int) -> None:
        self._node = node
        self._credit_bytes = credit_bytes
        self._sequences = Sequences()
        self._reports = node.reports
        self._pauses = node.pauses
        self._streams: set[ApplyStream] = set()

    async def ApplyEnvelopes(  # type: ignore[override]  # a coroutine that writes, so that it can read meanwhile
        self,
        request_iterator: AsyncIterator[shard_pb2.ApplyEnvelopesRequest],
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> None:
        hello = None
        async for first in request_iterator:
            hello = first.hello
            break
        if hello is None or not hello.session_id or not hello.ingest_id:
            raise InvalidArgument.of("hello", "must be the first message, with a session_id and an ingest_id")
        placement = self._node.ownership.placement
        welcome = shard_pb2.StreamWelcome(
            node_index=placement.node_index, shard_count=placement.shard_count, credit_bytes=self._credit_bytes
        )
        await context.write(shard_pb2.ApplyEnvelopesResponse(welcome=welcome))
        expected = self._sequences.of(hello.session_id)
        stream = ApplyStream(self._node, hello.ingest_id, expected, self._reports, self._credit_bytes)
        self._streams.add(stream)
        desk = self._node.dead_letters.desk
        desk.join(stream, min(hello.redos_max, REDOS_MAX))
        try:
            await stream.serve(request_iterator, context.write, ChunkedContent(ANNOUNCED_BYTES_MAX), self._pauses)
        finally:
            self._streams.discard(stream)
            desk.leave(stream)

    async def FinishRedo(
        self, request_iterator: AsyncIterator[shard_pb2.FinishRedoRequest], context: grpc.aio.ServicerContext[Any, Any]
    ) -> shard_pb2.FinishRedoResponse:
        return await finish_redo(self._node.dead_letters, request_iterator)

    async def drain(self) -> None:
        """Take nothing more from the streams, and return when what was taken is answered."""
        await asyncio.gather(*(stream.drain() for stream in self._streams))

    async def SetPause(
        self, request: shard_pb2.SetPauseRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> shard_pb2.SetPauseResponse:
        checks = Checks()
        checks.workspace(request.workspace_id)
        checks.require(
            not request.provider or is_provider_name(request.provider), "provider", "is not a name of a provider"
        )
        checks.request_id(request.request_id)
        checks.reason(request.reason)
        checks.done()
        key = self._node.ownership.local_key(request.workspace_id)
        # What was ordered is a call of `IngestService`, and its request ids are apart from those of other calls.
        method = "relayfile.v1.IngestService/" + ("Pause" if request.paused else "Resume")
        order = current_order(request.reason, request.request_id)
        order = order._replace(method=method, actor=request.actor or order.actor)
        change = Asked(PauseChange(request.provider, request.paused, order), mark_of(method, request))
        answer = self._node.committer.submit(key, self._node.change_pauses, change, change_count=1, byte_count=0)
        # A caller that goes away undoes nothing: what is durable is told all the same.
        answer.add_done_callback(lambda _: self._pauses.changed())
        await answer
        if not await self._pauses.told(TELL_S):
            _log.warning("a pause is durable, and an ingest process that is slow will be told later")
        return shard_pb2.SetPauseResponse()

    async def GetOutcomes(
        self, request: shard_pb2.GetOutcomesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> shard_pb2.GetOutcomesResponse:
        workspace_id = request.workspace_id
        if workspace_id:
            key = self._node.ownership.local_key(workspace_id)
            async with self._node.engine.view(key) as view:
                if await view.workspace() is None:
                    raise WorkspaceNotFound(workspace=workspace_id)
                outcomes = await view.outcomes()
        else:
            outcomes = await self._node.engine.node_outcomes()
        response = shard_pb2.GetOutcomesResponse(
            reports=[
                shard_pb2.IngestReport(
                    ingest_id=report.ingest_id, report_time=from_us(report.reported_us), pending=report.pending
                )
                for report in self._reports.about(workspace_id, self._node.clock.now_us())
            ]
        )
        for one in outcomes:
            fill_provider(response.providers.add(), one)
        return response
