"""WritebackService: agents' edits on their way to providers, claimed by workers, answered, and steered by people.

Owns what a request may ask for and what is answered. What an operation does next is decided elsewhere
(`relayfile.store.plan.writeback`); an answer comes when it is durable.
"""

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from relayfile.auth import current_principal
from relayfile.errors import PermissionDenied
from relayfile.store.engine import WorkspaceKey
from relayfile.store.once import RequestMark, mark_of
from relayfile.store.operation_view import OperationFilter
from relayfile.store.operations.claiming import ClaimRequest, RenewRequest, claim_request
from relayfile.store.operations.desk import OperationDesk
from relayfile.store.operations.ordering import OperationOrder, OrderAnswer, Verb
from relayfile.store.order import current_order
from relayfile.store.plan.writeback.rows import OperationKind, OperationRow, OperationState
from relayfile.store.servicers.checks import Checks
from relayfile.store.servicers.operation_answer import AnswerReading
from relayfile.store.servicers.operation_reading import OperationReading
from relayfile.store.servicers.operation_wire import (
    IDS_MAX,
    INLINE_BYTES_MAX,
    WORKER_ID_BYTES_MAX,
    check_kinds,
    check_operation_id,
    check_providers,
    duration_us,
    fill_operation,
    lease_us,
    read_filter,
)
from relayfile.v1 import writeback_pb2, writeback_pb2_grpc
from relayfile.wire import set_us

if TYPE_CHECKING:
    from relayfile.interception import Context

CLAIMS_MAX = 100
WAIT_S_MAX = 60.0
WAIT_MARGIN_S = 0.1
"""So long before the call's deadline waiting ends: an answer without claims is better than none."""
MESSAGE_BYTES_MAX = 3 << 20
"""Contents in one answer, beside the first."""
SUBJECT_IDS_SHOWN = 3
_SERVICE = "relayfile.v1.WritebackService"
_ORDERED_STATES = {
    Verb.APPROVE: frozenset({int(OperationState.QUARANTINED)}),
    Verb.CANCEL: frozenset({int(OperationState.PENDING), int(OperationState.QUARANTINED), int(OperationState.CLAIMED)}),
}


class WritebackService(writeback_pb2_grpc.WritebackServiceServicer):
    """Operations of this node's workspaces."""

    def __init__(self, operations: OperationReading, desk: OperationDesk, answers: AnswerReading) -> None:
        self._operations = operations
        self._reading = operations.reading
        self._desk = desk
        self._answers = answers

    async def ListOperations(
        self, request: writeback_pb2.ListOperationsRequest, context: "Context"
    ) -> writeback_pb2.ListOperationsResponse:
        return await self._operations.list(request, context)

    async def GetOperation(
        self, request: writeback_pb2.GetOperationRequest, context: "Context"
    ) -> writeback_pb2.GetOperationResponse:
        checks = Checks()
        checks.workspace(request.workspace_id)
        check_operation_id(checks, request.operation_id)
        checks.done()
        key = self._reading.key(request.workspace_id)
        return writeback_pb2.GetOperationResponse(operation=await self._operations.get(key, request.operation_id))

    async def WatchOperations(
        self, request: writeback_pb2.WatchOperationsRequest, context: "Context"
    ) -> AsyncGenerator[writeback_pb2.WatchOperationsResponse, None]:
        async for message in self._operations.watch(request):
            yield message

    async def ReadOperationContent(
        self, request: writeback_pb2.ReadOperationContentRequest, context: "Context"
    ) -> AsyncGenerator[writeback_pb2.ReadOperationContentResponse, None]:
        async for message in self._operations.content(request):
            yield message

    async def ClaimOperations(
        self, request: writeback_pb2.ClaimOperationsRequest, context: "Context"
    ) -> writeback_pb2.ClaimOperationsResponse:
        wanted, wait_s = _checked_claim(request)
        remaining_s = context.time_remaining()
        if remaining_s is not None:
            wait_s = min(wait_s, remaining_s - WAIT_MARGIN_S)
        if request.workspace_id:
            found: WorkspaceKey | None = self._reading.key(request.workspace_id)
            assert found is not None, "it is named"
            await self._require(found)
            answer = await self._desk.claim(found, wanted, wait_s)
        else:
            if not current_principal().is_cluster:
                raise PermissionDenied(why="without a workspace this needs a token for all of them")
            found, answer = await self._desk.claim_anywhere(wanted, wait_s)
        response = writeback_pb2.ClaimOperationsResponse()
        if answer.next_claimable_us is not None:
            set_us(response.next_claimable_time, answer.next_claimable_us)
        if found is not None:
            await self._fill_claims(response, found, answer.rows)
        return response

    async def _fill_claims(
        self, into: writeback_pb2.ClaimOperationsResponse, key: WorkspaceKey, rows: Sequence[OperationRow]
    ) -> None:
        """With contents as far as they fit; read one by one, so that no snapshot is long."""
        left_bytes = MESSAGE_BYTES_MAX
        async with self._reading.snapshot(key) as (view, _):
            # As they are now: only the rows of the table know their contents.
            current = await view.operations().by_ids([row.operation_id for row in rows])
            held = await view.operations().held_of({row.key for row in rows})
        for row in rows:
            stored = current.get(row.operation_id, row)
            claim = into.claims.add()
            fill_operation(claim.operation, key.workspace_id, row, held.get(row.key))
            claim.claim_number = row.claim_number
            claim.idempotency_key = row.idempotency_key
            set_us(claim.expire_time, row.claim_expire_us or 0)
            if not stored.content_id:
                continue
            if row.size_bytes > min(INLINE_BYTES_MAX, left_bytes):
                claim.content_omitted = True
                continue
            content = await self._reading.engine.content_chunk(key, stored.content_id, 0, row.size_bytes)
            if content is None or len(content) != row.size_bytes:
                claim.content_omitted = True
                continue
            claim.content = content
            left_bytes -= len(content)

    async def RenewClaim(
        self, request: writeback_pb2.RenewClaimRequest, context: "Context"
    ) -> writeback_pb2.RenewClaimResponse:
        checks = Checks()
        checks.workspace(request.workspace_id)
        check_operation_id(checks, request.operation_id)
        checks.require(request.claim_number > 0, "claim_number", "is required: the number of the claim")
        lease = lease_us(checks, request)
        checks.request_id(request.request_id)
        checks.done()
        key = self._reading.key(request.workspace_id)
        await self._require(key)
        wanted = RenewRequest(request.operation_id, request.claim_number, lease)
        expire_us = await self._desk.renew(key, wanted, mark_of(f"{_SERVICE}/RenewClaim", request))
        answer = writeback_pb2.RenewClaimResponse()
        set_us(answer.expire_time, expire_us)
        return answer

    async def AckOperation(
        self, request: AsyncIterator[writeback_pb2.AckOperationRequest], context: "Context"
    ) -> writeback_pb2.AckOperationResponse:
        async with self._answers.read(request) as (workspace_id, answer, mark):
            key = self._reading.key(workspace_id)
            await self._require(key)
            taken = await self._desk.answer(key, answer, mark)
        response = writeback_pb2.AckOperationResponse(revision=taken.revision)
        await self._describe(response.operation, key, taken.operation_id)
        return response

    async def ReplayOperation(
        self, request: writeback_pb2.ReplayOperationRequest, context: "Context"
    ) -> writeback_pb2.ReplayOperationResponse:
        checks = Checks()
        checks.workspace(request.workspace_id)
        check_operation_id(checks, request.operation_id)
        checks.reason(request.reason)
        checks.request_id(request.request_id)
        checks.done()
        key = self._reading.key(request.workspace_id)
        await self._require(key)
        order = current_order(request.reason, request.request_id)
        wanted = OperationOrder(Verb.REPLAY, (request.operation_id,), order, request.operation_id)
        await self._desk.order(key, wanted, mark_of(f"{_SERVICE}/ReplayOperation", request))
        response = writeback_pb2.ReplayOperationResponse()
        await self._describe(response.operation, key, request.operation_id)
        return response

    async def ApproveOperations(
        self, request: writeback_pb2.ApproveOperationsRequest, context: "Context"
    ) -> writeback_pb2.ApproveOperationsResponse:
        answer = await self._ordered(Verb.APPROVE, request, mark_of(f"{_SERVICE}/ApproveOperations", request))
        return writeback_pb2.ApproveOperationsResponse(
            approved_count=answer.done_count, skipped_operation_ids=answer.skipped_ids
        )

    async def CancelOperations(
        self, request: writeback_pb2.CancelOperationsRequest, context: "Context"
    ) -> writeback_pb2.CancelOperationsResponse:
        answer = await self._ordered(Verb.CANCEL, request, mark_of(f"{_SERVICE}/CancelOperations", request))
        return writeback_pb2.CancelOperationsResponse(
            canceled_count=answer.done_count,
            claimed_count=answer.claimed_count,
            skipped_operation_ids=answer.skipped_ids,
        )

    async def _ordered(
        self,
        verb: Verb,
        request: writeback_pb2.ApproveOperationsRequest | writeback_pb2.CancelOperationsRequest,
        mark: RequestMark | None,
    ) -> OrderAnswer:
        chosen = _checked_choice(request)
        key = self._reading.key(request.workspace_id)
        await self._require(key)
        order = current_order(request.reason, request.request_id)
        if chosen is None:
            ids = tuple(dict.fromkeys(request.operation_ids))
            return await self._desk.order(key, OperationOrder(verb, ids, order, _some(ids)), mark)
        states = _ORDERED_STATES[verb]
        if verb is Verb.CANCEL and chosen.states:
            states &= chosen.states
        wanted = OperationOrder(verb, (), order, _described(chosen))
        if not states:
            return await self._desk.order(key, wanted, mark)
        answer = await self._desk.order_chosen(key, wanted, replace(chosen, states=states), mark)
        # What was selected and has moved on in between was not named.
        return answer._replace(skipped_ids=())

    async def _require(self, key: WorkspaceKey) -> None:
        """The workspace exists."""
        async with self._reading.snapshot(key):
            pass

    async def _describe(self, into: writeback_pb2.Operation, key: WorkspaceKey, operation_id: str) -> None:
        """Whoever may move an operation is told how it is then."""
        async with self._reading.snapshot(key) as (view, _):
            row = (await view.operations().by_ids([operation_id]))[operation_id]
            held = await view.operations().held_of([row.key])
        fill_operation(into, key.workspace_id, row, held.get(row.key))


def _checked_claim(request: writeback_pb2.ClaimOperationsRequest) -> tuple[ClaimRequest, float]:
    """(what is wanted, seconds to wait for it)."""
    checks = Checks()
    if request.workspace_id:
        checks.workspace(request.workspace_id)
    checks.require(bool(request.worker_id), "worker_id", "is required")
    length = len(request.worker_id.encode())
    checks.require(length <= WORKER_ID_BYTES_MAX, "worker_id", f"is longer than {WORKER_ID_BYTES_MAX} bytes")
    checks.not_negative(request.operation_count_max, "operation_count_max")
    providers = check_providers(checks, list(request.providers), "providers")
    kinds = check_kinds(checks, list(map(int, request.kinds)), "kinds")
    lease = lease_us(checks, request)
    wait_s = min(duration_us(checks, request.wait, "wait") / 1e6, WAIT_S_MAX)
    checks.request_id(request.request_id)
    checks.require("\n" not in request.request_id, "request_id", "contains a line break")
    checks.done()
    fingerprint = hashlib.sha256(request.SerializeToString(deterministic=True)).digest()
    wanted = ClaimRequest(
        request.worker_id,
        min(request.operation_count_max or 1, CLAIMS_MAX),
        lease,
        providers,
        kinds,
        claim_request(request.request_id, fingerprint),
    )
    return wanted, wait_s


def _checked_choice(
    request: writeback_pb2.ApproveOperationsRequest | writeback_pb2.CancelOperationsRequest,
) -> OperationFilter | None:
    """The filter; None: by ids."""
    checks = Checks()
    checks.workspace(request.workspace_id)
    if bool(request.operation_ids) is request.HasField("filter"):
        checks.refuse("filter", "and operation_ids: exactly one of them must be given")
    checks.at_most(len(request.operation_ids), IDS_MAX, "operation_ids", "ids")
    for index, operation_id in enumerate(request.operation_ids[:IDS_MAX]):
        check_operation_id(checks, operation_id, f"operation_ids[{index}]")
    chosen = read_filter(checks, request.filter) if request.HasField("filter") else None
    checks.reason(request.reason)
    checks.request_id(request.request_id)
    checks.done()
    return chosen


def _some(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - SUBJECT_IDS_SHOWN} more" if len(ids) > SUBJECT_IDS_SHOWN else ""
    return ", ".join(ids[:SUBJECT_IDS_SHOWN]) + more


def _described(chosen: OperationFilter) -> str:
    named = {
        "states": [OperationState(each).name.lower() for each in sorted(chosen.states)],
        "kinds": [OperationKind(each).name.lower() for each in sorted(chosen.kinds)],
        "providers": sorted(chosen.providers),
    }
    values = {name: named.get(name, value) for name, value in asdict(chosen).items()}
    return " ".join(f"{name}={value}" for name, value in values.items() if value) or "all"
