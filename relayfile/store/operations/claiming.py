"""The kinds of mutation by which workers hold operations: claim, renew.

Owns how many a provider gives at once, and that a repeated request gets the same claims. Refuses to wait
(`relayfile.store.operations.desk`).
"""

from collections.abc import Sequence
from typing import NamedTuple

from relayfile.errors import ClaimExpired, OperationNotFound, RequestIdReused
from relayfile.store.engine import WorkspaceKey
from relayfile.store.entry_kinds import PlanContext
from relayfile.store.operation_view import OperationView
from relayfile.store.plan.result import Plan
from relayfile.store.plan.writeback import lifecycle
from relayfile.store.plan.writeback.edits import put_back
from relayfile.store.plan.writeback.limits import WritebackLimits
from relayfile.store.plan.writeback.queue import OperationQueue
from relayfile.store.plan.writeback.rows import OperationRow, OperationState

LOOKED_AT_MAX = 1_000
"""Waiting operations of one provider that a claim looks through."""


class ClaimRequest(NamedTuple):
    """What a worker can take."""

    worker_id: str
    count_max: int
    lease_us: int
    providers: frozenset[str] = frozenset()
    """Empty: all."""
    kinds: frozenset[int] = frozenset()
    """Empty: all."""
    claim_request: str = ""
    """The request's id and its fingerprint, as `claim_request` makes it; empty: a repeat is another request."""


class ClaimAnswer(NamedTuple):
    """What it got."""

    rows: tuple[OperationRow, ...]
    next_claimable_us: int | None = None
    """When asking again makes sense, where it got nothing; None: when something changes."""


def claim_request(request_id: str, fingerprint: bytes) -> str:
    """How an operation remembers the request that claimed it."""
    return f"{request_id}\n{fingerprint.hex()}" if request_id else ""


async def overdue(view: OperationView, now_us: int) -> list[OperationRow]:
    """Claims that ended without a word."""
    found: list[OperationRow] = []
    for provider, end_us in (await view.claim_ends()).items():
        if end_us <= now_us:
            found += [row for row in await view.claimed(provider) if lifecycle.is_overdue(row, now_us)]
    return found


async def next_claimable(
    view: OperationView, request: ClaimRequest, limits: WritebackLimits, now_us: int
) -> int | None:
    """When the request gets something, at the latest `now_us`; None: not unless something changes."""
    ends = await view.claim_ends()
    times: list[int] = []
    for provider in await view.claimable_providers():
        if request.providers and provider not in request.providers:
            continue
        if len(await view.claimed(provider)) >= limits.provider_concurrency_max:
            times.append(ends[provider])
            continue
        waiting = await view.claimable(provider, now_us, LOOKED_AT_MAX)
        if any(not request.kinds or row.kind in request.kinds for row in waiting):
            return now_us
        if (at := await view.next_claimable_us(provider, now_us)) is not None:
            times.append(at)
    times += [end_us for provider, end_us in ends.items() if not request.providers or provider in request.providers]
    return max(min(times), now_us) if times else None


class ClaimOperations:
    """`ClaimOperations` of one workspace."""

    def __init__(self, context: PlanContext, limits: WritebackLimits) -> None:
        self._context = context
        self._limits = limits

    async def plan(
        self, key: WorkspaceKey, mutations: Sequence[ClaimRequest]
    ) -> tuple[Plan | None, Sequence[ClaimAnswer | Exception]]:
        now_us = self._context.clock.now_us()
        async with self._context.engine.view(key) as whole:
            view = whole.operations()
            plan = Plan(key.workspace_id, await whole.workspace())
            if plan.workspace is None or plan.workspace.deleted_us is not None:
                return None, [ClaimAnswer(())] * len(mutations)
            late = await overdue(view, now_us)
            loaded = await view.of_objects({row.key for row in late})
            rows = [row for rows in loaded.rows.values() for row in rows]
            queue = OperationQueue(rows, self._limits, now_us, self._context.new_id)
            for row in late:
                put_back(queue, lifecycle.expired(row, self._limits, now_us))
            queue.line_up()
            claims = _Claims(view, queue)
            answers = [await claims.answer(request) for request in mutations]
        queue.settle(plan)
        written = {row.operation_id: row for row in plan.operations.rows} if plan.operations is not None else {}
        told = [
            answer
            if isinstance(answer, Exception)
            else answer._replace(rows=tuple(written.get(row.operation_id, row) for row in answer.rows))
            for answer in answers
        ]
        return (plan if written else None), told


class _Claims:
    """The claims of one plan, request by request."""

    def __init__(self, view: OperationView, queue: OperationQueue) -> None:
        self._view = view
        self._queue = queue
        self._taken: dict[str, int] = {}
        """Provider -> how many of it are claimed."""

    async def answer(self, request: ClaimRequest) -> ClaimAnswer | Exception:
        repeated = await self._repeated(request)
        if repeated is not None:
            return repeated
        queue = self._queue
        waiting: list[OperationRow] = []
        for provider in await self._view.claimable_providers():
            if not request.providers or provider in request.providers:
                waiting += await self._waiting(provider)
        given_back = [row for row in queue.rows() if row.state is OperationState.PENDING]
        known = {row.operation_id for row in waiting}
        waiting += [row for row in given_back if row.operation_id not in known]
        waiting.sort(key=_since)
        got: list[OperationRow] = []
        for row in waiting:
            if len(got) == request.count_max:
                break
            if await self._may_take(row, request):
                if queue.get(row.operation_id) is None:
                    queue.adopt(row)
                row = lifecycle.claimed(row, request.worker_id, request.claim_request, queue.now_us, request.lease_us)
                queue.put_aside(row)
                self._taken[row.provider] += 1
                got.append(row)
        if got:
            return ClaimAnswer(tuple(got))
        return ClaimAnswer((), await next_claimable(self._view, request, queue.limits, queue.now_us))

    async def _waiting(self, provider: str) -> list[OperationRow]:
        """As the plan so far has left them."""
        rows = await self._view.claimable(provider, self._queue.now_us, LOOKED_AT_MAX)
        return [self._queue.get(row.operation_id) or row for row in rows]

    async def _may_take(self, row: OperationRow, request: ClaimRequest) -> bool:
        if row.state is not OperationState.PENDING or row.is_blocked or row.claimable_us > self._queue.now_us:
            return False
        if request.providers and row.provider not in request.providers:
            return False
        if request.kinds and row.kind not in request.kinds:
            return False
        if row.provider not in self._taken:
            claimed = await self._view.claimed(row.provider)
            self._taken[row.provider] = sum(not lifecycle.is_overdue(each, self._queue.now_us) for each in claimed)
        return self._taken[row.provider] < self._queue.limits.provider_concurrency_max

    async def _repeated(self, request: ClaimRequest) -> ClaimAnswer | Exception | None:
        """What lasts of the claims of an earlier request with the same id."""
        if not request.claim_request:
            return None
        request_id = request.claim_request.split("\n", 1)[0]
        stored = await self._view.claimed_by_request(request_id)
        rows = [self._queue.get(row.operation_id) or row for row in stored]
        rows += [row for row in self._queue.rows() if row.claim_request.split("\n", 1)[0] == request_id]
        lasting = {
            row.operation_id: row
            for row in rows
            if row.state is OperationState.CLAIMED and not lifecycle.is_overdue(row, self._queue.now_us)
        }
        if not lasting:
            return None
        if any(row.claim_request != request.claim_request for row in lasting.values()):
            return RequestIdReused(request_id=request_id)
        return ClaimAnswer(tuple(lasting.values()))


def _since(row: OperationRow) -> tuple[int, str]:
    return row.claimable_us, row.operation_id


class RenewRequest(NamedTuple):
    """A claim to prolong."""

    operation_id: str
    claim_number: int
    lease_us: int


class RenewClaims:
    """`RenewClaim`; answers when the claim ends now."""

    def __init__(self, context: PlanContext, limits: WritebackLimits) -> None:
        self._context = context
        self._limits = limits

    async def plan(
        self, key: WorkspaceKey, mutations: Sequence[RenewRequest]
    ) -> tuple[Plan | None, Sequence[int | Exception]]:
        now_us = self._context.clock.now_us()
        async with self._context.engine.view(key) as view:
            rows = await view.operations().by_ids({each.operation_id for each in mutations})
        queue = OperationQueue(rows.values(), self._limits, now_us, self._context.new_id)
        answers: list[int | Exception] = []
        for operation_id, claim_number, lease_us in mutations:
            row = queue.get(operation_id)
            if row is None:
                answers.append(OperationNotFound(operation=operation_id))
            elif not lifecycle.holds_claim(row, claim_number, now_us):
                answers.append(ClaimExpired(operation=operation_id, claim=claim_number))
            else:
                row = lifecycle.renewed(row, now_us, lease_us)
                queue.put_aside(row)
                answers.append(row.claim_expire_us or 0)
        plan = Plan(key.workspace_id, None)
        queue.settle(plan)
        return (plan if plan.operations is not None else None), answers
