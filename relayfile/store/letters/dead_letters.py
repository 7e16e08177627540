"""The dead letters of a node: everything that is done about them, for the servicers and the streams.

Owns the kinds, the desk and the replayer, and the choice by filter. An answer comes when it is durable. Refuses to know
messages but those of `relayfile.v1.shard`.
"""

import asyncio
from typing import Final

import msgspec
from prometheus_client import Counter

from relayfile.store.commit import Committer
from relayfile.store.engine import DeadLetterFilter, Engine, KeptDeadLetter, WorkspaceKey
from relayfile.store.entry_kinds import ApplyFolds, PlanContext
from relayfile.store.letters.letter_kinds import (
    AcknowledgeLetters,
    AcknowledgeRequest,
    FinishRedos,
    QueueAnswer,
    QueueReplays,
    QueueRequest,
    RedoResult,
    ReplayChanges,
)
from relayfile.store.letters.redo_desk import RedoDesk
from relayfile.store.letters.replayer import Replayer, ReplayPolicy
from relayfile.store.letters.unrouted import LOOKED_AT_PER_STEP, QUEUED_AT_ONCE_MAX
from relayfile.store.once import Asked, Once, RequestMark
from relayfile.store.order import Order
from relayfile.store.ownership import Ownership
from relayfile.store.plan.letters import LetterState

NOT_REPLAYING: Final = frozenset({LetterState.PENDING, LetterState.ACKNOWLEDGED})


class DeadLetters:
    """See the module; `run` it in a task."""

    def __init__(
        self,
        context: PlanContext,
        folds: ApplyFolds,
        committer: Committer,
        ownership: Ownership,
        policy: ReplayPolicy,
        replays_total: Counter,
    ) -> None:
        """`replays_total` counts by result."""
        self._engine: Engine = context.engine
        self._committer = committer
        self._ownership = ownership
        self.desk = RedoDesk(context.clock, context.new_id, policy.lease_s)
        self._tried = replays_total
        self._replayer = Replayer(
            self._engine, committer, ReplayChanges(context, folds), self.desk, policy, self._count
        )
        self._finish = FinishRedos(context, folds)
        self._queue = Once(
            context,
            QueueReplays(context),
            encode=msgspec.json.encode,
            decode=msgspec.json.Decoder(QueueAnswer).decode,
        )
        self._acknowledge = Once(
            context,
            AcknowledgeLetters(context),
            encode=msgspec.json.encode,
            decode=msgspec.json.Decoder(KeptDeadLetter).decode,
        )

    async def run(self) -> None:
        """Replay what is queued, until cancelled. Raises `StorageFailed` when the process must end."""
        await self._replayer.run()

    async def choose(self, key: WorkspaceKey, chosen: DeadLetterFilter, most: int) -> tuple[tuple[str, ...], int]:
        """(ids of the oldest that match, how many match beyond `most`)."""
        ids: list[str] = []
        beyond = 0
        after_id = ""
        while True:
            async with self._engine.view(key) as view:
                refs, after_id = await view.letters_after(chosen, after_id, LOOKED_AT_PER_STEP)
            room = most - len(ids)
            ids += [ref.dead_letter_id for ref in refs[:room]]
            beyond += max(0, len(refs) - room)
            if not after_id:
                return tuple(ids), beyond
            await asyncio.sleep(0)

    def wake(self) -> None:
        """An entry has queued something."""
        self._replayer.wake()

    async def queue(self, key: WorkspaceKey, request: QueueRequest, mark: RequestMark | None = None) -> QueueAnswer:
        """Queue dead letters for another try."""
        count = max(1, len(request.dead_letter_ids))
        answer = await self._committer.submit(key, self._queue, Asked(request, mark), change_count=count, byte_count=0)
        self._replayer.wake()
        return answer

    async def queue_tenant(self, workspace_id: str, reason: str, tenant: str) -> int:
        """Queue all pending dead letters of the workspace with this reason whose kept header `x-relayfile-tenant` is
        `tenant`; how many. `NotOwner` at the wrong node."""
        key = self._ownership.local_key(workspace_id)
        chosen = DeadLetterFilter(reason=reason, state=LetterState.PENDING, tenant=tenant)
        queued = 0
        while True:
            ids, beyond = await self.choose(key, chosen, QUEUED_AT_ONCE_MAX)
            if ids:
                answer = await self.queue(key, QueueRequest(ids, frozenset({LetterState.PENDING})))
                queued += answer.queued_count
            if not beyond:
                return queued

    async def acknowledge(
        self, key: WorkspaceKey, dead_letter_id: str, order: Order, mark: RequestMark | None = None
    ) -> KeptDeadLetter:
        """Put one aside; as it is then. `DeadLetterNotFound`, `DeadLetterReplaying`."""
        request = Asked(AcknowledgeRequest(dead_letter_id, order), mark)
        return await self._committer.submit(key, self._acknowledge, request, change_count=1, byte_count=0)

    async def finish_redo(self, workspace_id: str, lease_id: str, result: RedoResult, byte_count: int) -> bool:
        """Put the result in the place of the dead letter; False: its lease has ended, and nothing was changed."""
        await self._committer.room()
        if not self.desk.is_current(result.dead_letter_id, lease_id):
            return False
        taken = await self._committer.submit(
            self._ownership.local_key(workspace_id),
            self._finish,
            result,
            change_count=max(1, len(result.folds)),
            byte_count=byte_count,
            merge_key=result.dead_letter_id,
        )
        self.desk.end(result.dead_letter_id)
        if taken:
            self._count(int(result.failure is None), int(result.failure is not None))
        return taken

    def _count(self, succeeded: int, failed: int) -> None:
        self._tried.labels("succeeded").inc(succeeded)
        self._tried.labels("failed").inc(failed)
