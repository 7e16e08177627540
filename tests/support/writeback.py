"""A node, an agent, a provider and a worker, with the clock in the test's hand: for tests of write-back."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from google.protobuf.duration_pb2 import Duration

from relayfile.auth import ALL
from relayfile.clock import ManualClock
from relayfile.model import NO_SEMANTICS, MemberKind, Outcome
from relayfile.store.engine import WorkspaceKey
from relayfile.store.node import NodePolicy
from relayfile.store.plan.entry import Fold, Member
from relayfile.v1 import event_pb2, file_pb2, types_pb2, workspace_pb2, writeback_pb2
from relayfile.wire import from_us
from tests.support.store_node import POLICY, Client, TestNode, started_nodes

W = "acme"
PROVIDER = "linear"
WRITEBACK_POLICY = replace(POLICY, writeback_providers=(PROVIDER, "github"))
PENDING = writeback_pb2.OPERATION_STATE_PENDING
CLAIMED = writeback_pb2.OPERATION_STATE_CLAIMED
SUCCEEDED = writeback_pb2.OPERATION_STATE_SUCCEEDED
DEAD_LETTERED = writeback_pb2.OPERATION_STATE_DEAD_LETTERED
SUPERSEDED = writeback_pb2.OPERATION_STATE_SUPERSEDED
CANCELED = writeback_pb2.OPERATION_STATE_CANCELED
QUARANTINED = writeback_pb2.OPERATION_STATE_QUARANTINED
WRITE = writeback_pb2.OPERATION_KIND_WRITE
DELETE = writeback_pb2.OPERATION_KIND_DELETE
MOVE = writeback_pb2.OPERATION_KIND_MOVE
FETCH = writeback_pb2.OPERATION_KIND_FETCH


def seconds(number: float) -> Duration:
    """As messages tell it."""
    return Duration(seconds=int(number), nanos=round(number % 1 * 1e9))


@dataclass(slots=True)
class Stage:
    """See the module. What the agent does goes over gRPC, what the provider does through the pipeline."""

    node: TestNode
    client: Client
    clock: ManualClock
    deliveries: int = 0

    @property
    def key(self) -> WorkspaceKey:
        return self.node.ownership.local_key(W)

    # --- the agent

    async def write(self, path: str, content: bytes, **fields: Any) -> str:
        """The operation's id."""
        request = file_pb2.WriteFileRequest(workspace_id=W, path=path, content=content, force=True, **fields)
        return (await self.client.files.WriteFile(request, metadata=self.client.metadata)).operation_id

    async def delete(self, path: str) -> str:
        request = file_pb2.DeleteFileRequest(workspace_id=W, path=path, force=True)
        return (await self.client.files.DeleteFile(request, metadata=self.client.metadata)).operation_id

    async def move(self, path: str, to_path: str) -> str:
        request = file_pb2.MoveFileRequest(workspace_id=W, path=path, to_path=to_path, force=True)
        return (await self.client.files.MoveFile(request, metadata=self.client.metadata)).operation_id

    async def read(self, path: str) -> bytes | None:
        """The file's content; None: there is none."""
        async with self.node.engine.view(self.key) as view:
            row = await view.file(path)
            return None if row is None else (await view.contents([row.content_id]))[row.content_id]

    async def meta(self, path: str) -> types_pb2.FileMeta:
        request = file_pb2.GetFileRequest(workspace_id=W, path=path)
        return (await self.client.files.GetFile(request, metadata=self.client.metadata)).file

    # --- the provider

    async def deliver(
        self,
        content: bytes = b"",
        *,
        kind: MemberKind = MemberKind.UPSERT,
        object_id: str = "issue/1",
        path: str = "",
        at_us: int | None = None,
        operation_id: str = "",
        correlation_id: str = "",
        provider: str = PROVIDER,
    ) -> Outcome:
        """A change of one object, as ingest brings it."""
        self.deliveries += 1
        member = Member(
            kind, f"envelope-{self.deliveries:017d}", f"delivery-{self.deliveries}", 0, path, object_id,
            self.clock.now_us(), at_us, content, "application/json", NO_SEMANTICS, correlation_id, "", operation_id,
        )  # fmt: skip
        fold = Fold(provider, f"o:{object_id}", (member,), "ingest-0")
        committer, kind_of = self.node.node.committer, self.node.node.apply_folds
        [[result]] = await committer.submit(self.key, kind_of, (fold,), change_count=1, byte_count=len(content))
        assert result.outcome is not None
        return result.outcome

    # --- the worker

    async def claim(self, count: int = 10, **fields: Any) -> list[writeback_pb2.ClaimedOperation]:
        fields.setdefault("worker_id", "worker-1")
        request = writeback_pb2.ClaimOperationsRequest(workspace_id=W, operation_count_max=count, **fields)
        answer = await self.client.writeback.ClaimOperations(request, metadata=self.client.metadata)
        return list(answer.claims)

    async def one(self, **fields: Any) -> writeback_pb2.ClaimedOperation:
        [claim] = await self.claim(**fields)
        return claim

    async def succeed(
        self,
        claim: writeback_pb2.ClaimedOperation,
        *,
        at_us: int | None = None,
        change: types_pb2.FileChange | None = None,
        request_id: str = "",
        **fields: Any,
    ) -> writeback_pb2.AckOperationResponse:
        success = writeback_pb2.OperationSuccess(change=change, provider_status=200, **fields)
        if at_us is not None:
            success.occurred_at.CopyFrom(from_us(at_us))
        return await self.ack(claim, success=success, request_id=request_id)

    async def fail(
        self, claim: writeback_pb2.ClaimedOperation, *, retryable: bool = True, retry_after: float | None = None
    ) -> writeback_pb2.AckOperationResponse:
        failure = writeback_pb2.OperationFailure(reason="PROVIDER_REFUSED", message="no", retryable=retryable)
        if retry_after is not None:
            failure.retry_after.CopyFrom(seconds(retry_after))
        return await self.ack(claim, failure=failure)

    async def ack(
        self, claim: writeback_pb2.ClaimedOperation, chunks: Sequence[bytes] = (), **ending: Any
    ) -> writeback_pb2.AckOperationResponse:
        head = writeback_pb2.AckOperationHead(
            workspace_id=W, operation_id=claim.operation.operation_id, claim_number=claim.claim_number, **ending
        )
        messages = [writeback_pb2.AckOperationRequest(head=head)]
        messages += [
            writeback_pb2.AckOperationRequest(chunk=types_pb2.ContentChunk(data=data, last=number == len(chunks)))
            for number, data in enumerate(chunks, 1)
        ]
        return await self.client.writeback.AckOperation(iter(messages), metadata=self.client.metadata)

    # --- everybody

    async def operations(self, **fields: Any) -> list[writeback_pb2.Operation]:
        """All that the filter selects, oldest first."""
        found: list[writeback_pb2.Operation] = []
        token = ""
        while True:
            request = writeback_pb2.ListOperationsRequest(
                workspace_id=W, filter=writeback_pb2.OperationFilter(**fields), page_token=token
            )
            answer = await self.client.writeback.ListOperations(request, metadata=self.client.metadata)
            found += answer.operations
            token = answer.next_page_token
            if not token:
                return found[::-1]

    async def states(self, **fields: Any) -> list[int]:
        return [int(each.state) for each in await self.operations(**fields)]

    async def get(self, operation_id: str) -> writeback_pb2.Operation:
        request = writeback_pb2.GetOperationRequest(workspace_id=W, operation_id=operation_id)
        return (await self.client.writeback.GetOperation(request, metadata=self.client.metadata)).operation

    async def events(self) -> list[event_pb2.Event]:
        request = event_pb2.ListEventsRequest(workspace_id=W)
        answer = await self.client.events.ListEvents(request, metadata=self.client.metadata)
        return list(answer.events)

    async def event_types(self) -> list[str]:
        names = [event_pb2.EventType.Name(event.type) for event in await self.events()]
        return [name.removeprefix("EVENT_TYPE_").lower() for name in names]

    async def tend(self) -> None:
        await self.node.node.operations.tend(self.key)


@asynccontextmanager
async def staged(
    path: Path, clock: ManualClock | None = None, policy: NodePolicy = WRITEBACK_POLICY
) -> AsyncIterator[Stage]:
    """A node with the workspace, which is made the first time."""
    clock = clock or ManualClock()
    async with started_nodes(path, clock=clock, policy=policy) as [node]:
        token = node.signer.mint("agent-1", workspaces=ALL, ttl_s=3600, scopes=("relayfile:*:*",))
        client = Client(node.address, token)
        stage = Stage(node, client, clock)
        try:
            async with node.engine.view(stage.key) as view:
                exists = await view.workspace() is not None
            if not exists:
                request = workspace_pb2.CreateWorkspaceRequest(workspace_id=W)
                await client.workspaces.CreateWorkspace(request, metadata=client.metadata)
            yield stage
        finally:
            await client.channel.close()
