"""`IngestService`: publishing, status and the log of refused requests.

Owns the translation between the API and the parts that do it. Refuses to end a call with a status: it raises.
"""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Final, Protocol

import grpc.aio

from relayfile.auth import current_principal
from relayfile.errors import InvalidArgument, RelayfileError
from relayfile.ingest.owner_pauses import PauseSetter
from relayfile.ingest.publishing.publish import Door, Publisher, PublishStream
from relayfile.ingest.status.owner_outcomes import OutcomeSource
from relayfile.ingest.status.rejected import RejectedRequests, Rejection
from relayfile.ingest.status.status_report import HeldHere, limits_of, merge
from relayfile.interception import CORRELATION_KEY, current_call
from relayfile.page_token import seal, unseal
from relayfile.placement import check_any_workspace_id
from relayfile.v1 import ingest_pb2, ingest_pb2_grpc, shard_pb2, types_pb2
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


class IngestServicer(ingest_pb2_grpc.IngestServiceServicer):
    """See the module."""

    def __init__(
        self, door: Door, rejected: RejectedRequests, holding: Holding, source: OutcomeSource, pauses: PauseSetter
    ) -> None:
        self._door = door
        self._rejected = rejected
        self._holding = holding
        self._source = source
        self._pauses = pauses

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
            return await publisher.publish_one(envelope)
        except RelayfileError as error:
            self._reject(envelope, error)
            raise

    async def PublishEnvelopes(  # type: ignore[override]  # it writes itself, so that reading goes on meanwhile
        self, request_iterator: AsyncIterator[ingest_pb2.PublishEnvelopesRequest], context: "Context"
    ) -> None:
        """One answer for each batch, in order, after its envelopes are durable."""
        call = current_call()
        # An id that was made for the call would join what has nothing to do with each other.
        given = call.metadata.get(CORRELATION_KEY, "")
        correlation_id = call.correlation_id if given == call.correlation_id else ""
        traceparent = call.traceparent if "traceparent" in call.metadata else ""
        publisher = Publisher(self._door, current_principal(), correlation_id=correlation_id, traceparent=traceparent)
        await PublishStream(publisher, self._reject).run(request_iterator, context.write)

    async def GetIngestStatus(
        self, request: ingest_pb2.GetIngestStatusRequest, context: "Context"
    ) -> ingest_pb2.GetIngestStatusResponse:
        """A part with a `missing_reason` could not be asked; of an owner's part only what is pending is known then."""
        limits = limits_of(request)
        workspace = request.workspace_id
        shards = await self._source.outcomes(workspace)
        here = self._holding.held(workspace, self._rejected.of_workspace(workspace))
        return merge(shards, here, limits, request.provider, self._door.clock.now_us())

    async def Pause(self, request: ingest_pb2.PauseRequest, context: "Context") -> ingest_pb2.PauseResponse:
        """OK means that it is durable in the owning shard."""
        await self._set_pause(
            shard_pb2.SetPauseRequest(
                workspace_id=request.workspace_id,
                provider=request.provider,
                paused=True,
                reason=request.reason,
                request_id=request.request_id,
            ),
            context,
        )
        return ingest_pb2.PauseResponse()

    async def Resume(self, request: ingest_pb2.ResumeRequest, context: "Context") -> ingest_pb2.ResumeResponse:
        """As Pause."""
        await self._set_pause(
            shard_pb2.SetPauseRequest(
                workspace_id=request.workspace_id, provider=request.provider, request_id=request.request_id
            ),
            context,
        )
        return ingest_pb2.ResumeResponse()

    async def _set_pause(self, request: shard_pb2.SetPauseRequest, context: "Context") -> None:
        why = check_any_workspace_id(request.workspace_id) if request.workspace_id else "is required"
        if why is not None:
            raise InvalidArgument.of("workspace_id", why)  # the owner, which checks the rest, is known by its name
        request.actor = current_principal().subject
        await self._pauses.set_pause(request, current_call().correlation_id, context.time_remaining())

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

    def _reject(self, envelope: types_pb2.Envelope, error: RelayfileError, count: int = 1) -> None:
        self._rejected.add(
            self._door.clock.now_us(),
            workspace=envelope.workspace_id,
            provider=envelope.provider,
            reason=error.reason,
            correlation_id=envelope.correlation_id or current_call().correlation_id,
            count=count,
        )


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
