"""The operations of a node: everything that is done about them, for the servicers.

Owns the kinds, the keeper, and waiting for something to claim. An answer comes when it is durable. Refuses to know
messages.
"""

import asyncio
import random
from collections.abc import Sequence

import msgspec

from relayfile.store.commit import Committer
from relayfile.store.engine import WorkspaceKey
from relayfile.store.entry_kinds import PlanContext
from relayfile.store.once import Asked, Once, RequestMark
from relayfile.store.operation_view import OperationFilter
from relayfile.store.operations.answering import AnswerClaims, AnswerTaken, TendOperations
from relayfile.store.operations.claiming import (
    ClaimAnswer,
    ClaimOperations,
    ClaimRequest,
    RenewClaims,
    RenewRequest,
    next_claimable,
)
from relayfile.store.operations.edit_hook import EditsToOperations
from relayfile.store.operations.feed import ANYWHERE, OperationFeed
from relayfile.store.operations.keeper import OperationKeeper
from relayfile.store.operations.ordering import OperationOrder, OrderAnswer, OrderOperations
from relayfile.store.ownership import Ownership
from relayfile.store.plan.answers import Answer
from relayfile.store.plan.limits import PlanLimits

CHOSEN_MAX = 1_000
"""Operations that one part of an order takes."""
MICROSECONDS = 1_000_000
ANSWER_BYTES = 1_024
"""What a waiting answer counts for in the node's queue, beside its content."""


class OperationDesk:
    """See the module; `run` it in a task."""

    def __init__(
        self,
        context: PlanContext,
        limits: PlanLimits,
        committer: Committer,
        ownership: Ownership,
        feed: OperationFeed,
        providers: frozenset[str],
    ) -> None:
        self.feed = feed
        self.edits_hook = EditsToOperations(context, limits.writeback, providers)
        self._context = context
        self._limits = limits.writeback
        self._committer = committer
        tend = TendOperations(context, limits)
        self._keeper = OperationKeeper(
            context.engine, committer, ownership, context.clock, tend, feed, limits.writeback
        )
        self._claim = ClaimOperations(context, limits.writeback)
        self._renew = Once(
            context, RenewClaims(context, limits.writeback), msgspec.json.encode, msgspec.json.Decoder(int).decode
        )
        self._answer = Once(
            context,
            AnswerClaims(context, limits, random.random),
            msgspec.json.encode,
            msgspec.json.Decoder(AnswerTaken).decode,
        )
        self._order = Once(
            context, OrderOperations(context, limits), msgspec.json.encode, msgspec.json.Decoder(OrderAnswer).decode
        )

    async def run(self) -> None:
        """Tend operations until cancelled. Raises `StorageFailed` when the process must end."""
        await self._keeper.run()

    async def claim(self, key: WorkspaceKey, request: ClaimRequest, wait_s: float) -> ClaimAnswer:
        """Claim something, and wait up to `wait_s` until there is something."""
        return await self._claim_waiting([key], key.workspace_id, request, wait_s)

    async def claim_anywhere(self, request: ClaimRequest, wait_s: float) -> tuple[WorkspaceKey | None, ClaimAnswer]:
        """Claim something in any one workspace of this node."""
        end = self._context.clock.monotonic() + wait_s
        while True:
            tick = self.feed.now(ANYWHERE)
            keys = await self._context.engine.workspaces_at_work()
            random.shuffle(keys)  # so that none comes first for ever
            times: list[int] = []
            for key in keys:
                answer = await self._try_claim(key, request)
                if answer.rows:
                    return key, answer
                if answer.next_claimable_us is not None:
                    times.append(answer.next_claimable_us)
            answer = ClaimAnswer((), min(times) if times else None)
            if not await self._news(ANYWHERE, tick, answer, end):
                return None, answer

    async def _claim_waiting(
        self, keys: Sequence[WorkspaceKey], topic: str, request: ClaimRequest, wait_s: float
    ) -> ClaimAnswer:
        end = self._context.clock.monotonic() + wait_s
        while True:
            tick = self.feed.now(topic)
            answer = await self._try_claim(keys[0], request)
            if answer.rows or not await self._news(topic, tick, answer, end):
                return answer

    async def _try_claim(self, key: WorkspaceKey, request: ClaimRequest) -> ClaimAnswer:
        """Nothing is queued when there is nothing to claim: a thousand waiting workers cost no entries."""
        now_us = self._context.clock.now_us()
        async with self._context.engine.view(key) as whole:
            view = whole.operations()
            at = await next_claimable(view, request, self._limits, now_us)
            request_id = request.claim_request.partition("\n")[0]
            is_repeat = bool(request_id) and bool(await view.claimed_by_request(request_id))
        if not is_repeat and (at is None or at > now_us):
            return ClaimAnswer((), at)
        return await self._committer.submit(key, self._claim, request, change_count=request.count_max, byte_count=0)

    async def _news(self, topic: str, tick: int, answer: ClaimAnswer, end: float) -> bool:
        """Wait until asking again makes sense; False: the time is up."""
        left_s = end - self._context.clock.monotonic()
        if left_s <= 0:
            return False
        if answer.next_claimable_us is not None:
            left_s = min(left_s, max(0.01, (answer.next_claimable_us - self._context.clock.now_us()) / MICROSECONDS))
        try:
            async with asyncio.timeout(left_s):
                await self.feed.wait(topic, tick)
        except TimeoutError:
            pass  # Perhaps one has become claimable.
        return True

    async def tend(self, key: WorkspaceKey) -> None:
        """Do now what is due in a workspace; the keeper does it at its time."""
        await self._keeper.tend(key)

    async def renew(self, key: WorkspaceKey, request: RenewRequest, mark: RequestMark | None) -> int:
        """When the claim ends now. `OperationNotFound`, `ClaimExpired`."""
        return await self._committer.submit(key, self._renew, Asked(request, mark), change_count=1, byte_count=0)

    async def answer(self, key: WorkspaceKey, answer: Answer, mark: RequestMark | None) -> AnswerTaken:
        """End a claim. `OperationNotFound`, `ClaimExpired`, `InvalidArgument`."""
        content = answer.success.change.content if answer.success is not None and answer.success.change else b""
        return await self._committer.submit(
            key, self._answer, Asked(answer, mark), change_count=1, byte_count=ANSWER_BYTES + len(content or b"")
        )

    async def order(self, key: WorkspaceKey, order: OperationOrder, mark: RequestMark | None) -> OrderAnswer:
        """Do it to the operations that it names."""
        return await self._committer.submit(
            key,
            self._order,
            Asked(order, mark),
            change_count=max(1, len(order.operation_ids)),
            byte_count=0,
            merge_key=object(),
        )

    async def order_chosen(
        self, key: WorkspaceKey, order: OperationOrder, chosen: OperationFilter, mark: RequestMark | None
    ) -> OrderAnswer:
        """Do it to all that match, a thousand at a time; the last part is the one that is remembered and recorded."""
        before_id = ""
        done = OrderAnswer(0, 0, ())
        while True:
            async with self._context.engine.view(key) as view:
                rows, before_id = await view.operations().listed(chosen, before_id, CHOSEN_MAX)
            part = order._replace(operation_ids=tuple(row.operation_id for row in rows), before=done)
            if not before_id:
                return await self.order(key, part, mark)
            if rows:
                done = await self.order(key, part._replace(order=None), None)
            await asyncio.sleep(0)
