"""Write-back operations of one workspace: for workers that bring edits to providers, and for people who look."""

from collections.abc import AsyncIterator, Callable, Iterable, Sequence

from google.protobuf.duration_pb2 import Duration
from grpc.aio import Channel

from relayfile.client.calls import Calls, Metadata, Reading
from relayfile.client.chunks import CHUNK_BYTES, pieces
from relayfile.client.values import Claim, Operation, OperationKind, OperationState
from relayfile.client.wire import claim_of, operation_of
from relayfile.v1 import writeback_pb2
from relayfile.v1.writeback_pb2_grpc import WritebackServiceStub

SILENCE_MAX_S = 30.0
"""A watched queue gives a sign of life every ten seconds."""


class Operations:
    """The queue of one workspace."""

    def __init__(self, calls: Calls, channel: Channel, workspace_id: str, new_id: Callable[[], str]) -> None:
        self._calls = calls
        self._stub = WritebackServiceStub(channel)
        self._workspace_id = workspace_id
        self._new_id = new_id

    async def get(self, operation_id: str) -> Operation:
        """One operation. `OperationNotFound`."""
        request = writeback_pb2.GetOperationRequest(workspace_id=self._workspace_id, operation_id=operation_id)
        return operation_of((await self._calls.unary(self._stub.GetOperation, request)).operation)

    async def list(
        self,
        *,
        providers: Iterable[str] = (),
        states: Iterable[OperationState] = (),
        path: str = "",
        page_size: int = 0,
        min_revision: int = 0,
    ) -> AsyncIterator[Operation]:
        """Operations, newest first."""
        request = writeback_pb2.ListOperationsRequest(
            workspace_id=self._workspace_id,
            filter=_chosen(providers, states, path),
            page_size=page_size,
            min_revision=min_revision,
        )
        while True:
            page = await self._calls.unary(self._stub.ListOperations, request)
            for operation in page.operations:
                yield operation_of(operation)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def watch(self, *, providers: Iterable[str] = (), path: str = "") -> AsyncIterator[Operation]:
        """Operations that have not ended, then every change of one; after a cut, what is unfinished is told again."""
        request = writeback_pb2.WatchOperationsRequest(
            workspace_id=self._workspace_id, filter=_chosen(providers, (), path)
        )

        def opened(metadata: Metadata) -> Reading[writeback_pb2.WatchOperationsResponse]:
            return self._stub.WatchOperations(request, metadata=metadata)

        async for message in self._calls.messages(opened, ended=lambda _: False, silence_max_s=SILENCE_MAX_S):
            for operation in message.operations:
                yield operation_of(operation)

    async def claim(
        self,
        worker_id: str,
        *,
        providers: Iterable[str] = (),
        kinds: Iterable[OperationKind] = (),
        count_max: int = 1,
        lease_s: float = 30.0,
        wait_s: float = 0.0,
    ) -> Sequence[Claim]:
        """Lease operations, each to be acknowledged before its claim expires. None after `wait_s` without any."""
        request = writeback_pb2.ClaimOperationsRequest(
            workspace_id=self._workspace_id,
            providers=list(providers),
            kinds=[writeback_pb2.OperationKind.ValueType(kind) for kind in kinds],
            worker_id=worker_id,
            operation_count_max=count_max,
            lease=_duration(lease_s),
            wait=_duration(wait_s),
            request_id=self._new_id(),
        )
        timeout_s = self._calls.limits.call_timeout_s + wait_s
        answer = await self._calls.unary(self._stub.ClaimOperations, request, timeout_s=timeout_s)
        return [claim_of(claim) for claim in answer.claims]

    async def renew(self, claim: Claim, lease_s: float = 30.0) -> None:
        """Prolong a claim. `ClaimExpired`."""
        request = writeback_pb2.RenewClaimRequest(
            workspace_id=self._workspace_id,
            operation_id=claim.operation.operation_id,
            claim_number=claim.number,
            lease=_duration(lease_s),
            request_id=self._new_id(),
        )
        await self._calls.unary(self._stub.RenewClaim, request)

    async def succeed(self, claim: Claim, success: writeback_pb2.OperationSuccess | None = None) -> Operation:
        """End a claim: the provider did it; of a fetch with the change that it brought. `ClaimExpired`."""
        said = writeback_pb2.OperationSuccess()
        if success is not None:
            said.CopyFrom(success)
        content = said.change.content
        if len(content) > CHUNK_BYTES:
            said.change.ClearField("content")
            said.change.content_follows_bytes = len(content)
        else:
            content = b""
        return await self._end(claim, writeback_pb2.AckOperationHead(success=said), content)

    async def fail(
        self,
        claim: Claim,
        reason: str,
        message: str,
        *,
        retryable: bool,
        retry_after_s: float = 0.0,
        provider_status: int = 0,
    ) -> Operation:
        """End a claim: the provider did not do it. `ClaimExpired`."""
        failure = writeback_pb2.OperationFailure(
            reason=reason,
            message=message,
            retryable=retryable,
            retry_after=_duration(retry_after_s) if retry_after_s else None,
            provider_status=provider_status,
        )
        return await self._end(claim, writeback_pb2.AckOperationHead(failure=failure))

    async def release(self, claim: Claim, delay_s: float = 0.0) -> Operation:
        """Give a claim back untried. `ClaimExpired`."""
        release = writeback_pb2.ReleaseClaim(delay=_duration(delay_s))
        return await self._end(claim, writeback_pb2.AckOperationHead(release=release))

    async def content(self, operation_id: str) -> bytes:
        """The content of an operation's revision."""
        request = writeback_pb2.ReadOperationContentRequest(
            workspace_id=self._workspace_id,
            operation_id=operation_id,
            part=writeback_pb2.OPERATION_CONTENT_PART_OPERATION,
        )
        data = bytearray()
        size = -1

        def opened(metadata: Metadata) -> Reading[writeback_pb2.ReadOperationContentResponse]:
            request.offset_bytes = len(data)
            return self._stub.ReadOperationContent(request, metadata=metadata)

        def complete(_: writeback_pb2.ReadOperationContentResponse) -> bool:
            return len(data) == size

        async for message in self._calls.messages(opened, ended=complete):
            if message.HasField("head"):
                size = message.head.size_bytes
            data += message.chunk.data
        return bytes(data)

    async def replay(self, operation_id: str, reason: str = "") -> Operation:
        """Queue a dead-lettered operation again; recorded with `reason`."""
        request = writeback_pb2.ReplayOperationRequest(
            workspace_id=self._workspace_id, operation_id=operation_id, reason=reason, request_id=self._new_id()
        )
        return operation_of((await self._calls.unary(self._stub.ReplayOperation, request)).operation)

    async def approve(self, operation_ids: Iterable[str] = (), *, every: bool = False, reason: str = "") -> int:
        """Let quarantined operations go on: those named, or `every` one. How many are pending now."""
        request = writeback_pb2.ApproveOperationsRequest(
            workspace_id=self._workspace_id,
            operation_ids=list(operation_ids),
            filter=writeback_pb2.OperationFilter() if every else None,
            reason=reason,
            request_id=self._new_id(),
        )
        return (await self._calls.unary(self._stub.ApproveOperations, request)).approved_count

    async def cancel(self, operation_ids: Iterable[str] = (), *, every: bool = False, reason: str = "") -> int:
        """End pending or quarantined operations undone: those named, or `every` one. How many were ended."""
        request = writeback_pb2.CancelOperationsRequest(
            workspace_id=self._workspace_id,
            operation_ids=list(operation_ids),
            filter=writeback_pb2.OperationFilter() if every else None,
            reason=reason,
            request_id=self._new_id(),
        )
        return (await self._calls.unary(self._stub.CancelOperations, request)).canceled_count

    async def _end(self, claim: Claim, head: writeback_pb2.AckOperationHead, content: bytes = b"") -> Operation:
        head.workspace_id = self._workspace_id
        head.operation_id = claim.operation.operation_id
        head.claim_number = claim.number
        head.request_id = self._new_id()
        limit_s = self._calls.limits.call_timeout_s

        async def attempt(metadata: Metadata) -> writeback_pb2.AckOperationResponse:
            return await self._stub.AckOperation(_acknowledgement(head, content), metadata=metadata, timeout=limit_s)

        return operation_of((await self._calls.repeated(attempt, limit_s)).operation)


async def _acknowledgement(
    head: writeback_pb2.AckOperationHead, content: bytes
) -> AsyncIterator[writeback_pb2.AckOperationRequest]:
    yield writeback_pb2.AckOperationRequest(head=head)
    if content:
        for piece in pieces(content):
            yield writeback_pb2.AckOperationRequest(chunk=piece)


def _chosen(providers: Iterable[str], states: Iterable[OperationState], path: str) -> writeback_pb2.OperationFilter:
    return writeback_pb2.OperationFilter(
        providers=list(providers),
        states=[writeback_pb2.OperationState.ValueType(state) for state in states],
        path=path,
    )


def _duration(seconds: float) -> Duration:
    message = Duration()
    message.FromMicroseconds(round(seconds * 1e6))
    return message
