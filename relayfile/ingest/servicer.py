"""`IngestService`: publishing, status and the log of refused requests.

Owns the translation between the API and the parts that do it. Refuses to end a call with a status: it raises.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

import grpc
import grpc.aio

from relayfile.auth import current_principal
from relayfile.errors import DeadlineExpired, InvalidArgument, RelayfileError, Unavailable
from relayfile.ingest.publish import Door, Publisher, PublishStream
from relayfile.ingest.rejected import RejectedRequests, Rejection
from relayfile.ingest.status_report import HeldHere, limits_of, merge
from relayfile.interception import CORRELATION_KEY, current_call
from relayfile.page_token import seal, unseal
from relayfile.status import from_rpc_error
from relayfile.v1 import ingest_pb2, ingest_pb2_grpc, shard_pb2, shard_pb2_grpc, types_pb2
from relayfile.wire import set_us

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

PAGE_SIZE_DEFAULT: Final = 100
PAGE_SIZE_MAX: Final = 1_000


class Holding(Protocol):
    """What the process holds, for its status."""

    def held(self, workspace: str, refused: dict[str, int]) -> HeldHere:
        """Of ``workspace`` (empty: of all); ``refused`` is passed on."""
        ...


class OutcomeSource(Protocol):
    """Asks the owners for counters."""

    async def outcomes(self, workspace: str) -> Sequence[shard_pb2.GetOutcomesResponse]:
        """Of the owner of ``workspace`` (empty: of every node). `Unavailable` when none can be reached."""
        ...


class IngestServicer(ingest_pb2_grpc.IngestServiceServicer):
    """Pause and Resume are served later: their stand-ins answer UNIMPLEMENTED."""

    def __init__(self, door: Door, rejected: RejectedRequests, holding: Holding, source: OutcomeSource) -> None:
        self._door = door
        self._rejected = rejected
        self._holding = holding
        self._source = source

    async def PublishEnvelope(
        self, request: ingest_pb2.PublishEnvelopeRequest, context: "Context"
    ) -> ingest_pb2.PublishEnvelopeResponse:
        """OK means durable."""
        call = current_call()
        publisher = Publisher(
            self._door, current_principal(), correlation_id=call.correlation_id, traceparent=call.traceparent
        )
        envelope = request.envelope
        try:
            envelope_id = await publisher.publish_one(envelope)
        except RelayfileError as error:
            self._reject(envelope, error)
            raise
        return ingest_pb2.PublishEnvelopeResponse(envelope_id=envelope_id)

    async def PublishEnvelopes(  # type: ignore[override]  # it writes itself, so that reading goes on meanwhile
        self, request_iterator: AsyncIterator[ingest_pb2.PublishEnvelopesRequest], context: "Context"
    ) -> None:
        """One answer for each batch, in order, after its envelopes are durable."""
        call = current_call()
        # An id that was made for the call would join what has nothing to do with each other.
        given = call.metadata.get(CORRELATION_KEY, "")
        correlation_id = call.correlation_id if given == call.correlation_id else ""
        publisher = Publisher(
            self._door, current_principal(), correlation_id=correlation_id, traceparent=call.traceparent
        )
        await PublishStream(publisher, self._reject).run(request_iterator, context.write)

    async def GetIngestStatus(
        self, request: ingest_pb2.GetIngestStatusRequest, context: "Context"
    ) -> ingest_pb2.GetIngestStatusResponse:
        """Without the part `shard` the owner could not be reached, and the counts are only what is pending here."""
        limits = limits_of(request)
        workspace = request.workspace_id
        try:
            shards = await self._source.outcomes(workspace)
        except Unavailable:
            shards = ()
        here = self._holding.held(workspace, self._rejected.remembered(workspace))
        return merge(shards, here, limits, request.provider, self._door.clock.now_us())

    async def ListRejectedRequests(
        self, request: ingest_pb2.ListRejectedRequestsRequest, context: "Context"
    ) -> ingest_pb2.ListRejectedRequestsResponse:
        """Newest first. The totals are those of the process, and shown only with those of all workspaces."""
        if request.page_size < 0:
            raise InvalidArgument.of("page_size", "must not be negative")
        size = min(request.page_size or PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX)
        workspace = request.workspace_id
        binding = ("ListRejectedRequests", workspace)
        before = unseal(binding, request.page_token)
        found = self._rejected.newest(workspace, int(before or 0), size + 1)
        response = ingest_pb2.ListRejectedRequestsResponse(requests=[_message(each) for each in found[:size]])
        if len(found) > size:
            response.next_page_token = seal(binding, str(found[size - 1].number))
        if not workspace:
            response.totals.update(self._rejected.totals())
        return response

    def _reject(self, envelope: types_pb2.Envelope, error: RelayfileError) -> None:
        self._rejected.add(
            self._door.clock.now_us(),
            workspace=envelope.workspace_id,
            provider=envelope.provider,
            reason=error.reason,
            correlation_id=envelope.correlation_id or current_call().correlation_id,
        )


class OwnerOutcomes:
    """Asks `ShardService.GetOutcomes`."""

    def __init__(
        self,
        channel_to: Callable[[str], grpc.aio.Channel],
        channels: Callable[[], Sequence[grpc.aio.Channel]],
        metadata: Callable[[], tuple[tuple[str, str], ...]],
        timeout_s: float,
    ) -> None:
        """``channel_to`` gives the channel to a workspace's owner, ``channels`` those to all nodes."""
        self._channel_to = channel_to
        self._channels = channels
        self._metadata = metadata
        self._timeout_s = timeout_s

    async def outcomes(self, workspace: str) -> Sequence[shard_pb2.GetOutcomesResponse]:
        """As `OutcomeSource`."""
        channels = [self._channel_to(workspace)] if workspace else self._channels()
        found = []
        for channel in channels:
            stub: shard_pb2_grpc.ShardServiceAsyncStub = shard_pb2_grpc.ShardServiceStub(channel)
            request = shard_pb2.GetOutcomesRequest(workspace_id=workspace)
            try:
                found.append(await stub.GetOutcomes(request, timeout=self._timeout_s, metadata=self._metadata()))
            except grpc.aio.AioRpcError as error:
                told = from_rpc_error(error)
                if isinstance(told, DeadlineExpired):
                    raise Unavailable(what="store node that was asked for outcomes") from error
                raise told from error
        return found


def _message(rejection: Rejection) -> ingest_pb2.RejectedRequest:
    message = ingest_pb2.RejectedRequest(
        workspace_id=rejection.workspace,
        provider=rejection.provider,
        reason=rejection.reason,
        http_status=rejection.http_status,
        body_bytes=rejection.body_bytes,
        correlation_id=rejection.correlation_id,
    )
    set_us(message.reject_time, rejection.time_us)
    return message
