"""The kinds of mutation that dead letters know: queue for another try, acknowledge, plan again, finish a redo.

Owns the step from what is kept to a plan, on the committed state: what happened to a dead letter since it was chosen
counts. Refuses to choose, to throttle and to hand over (`relayfile.store.letters.replayer`).
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from google.protobuf.message import DecodeError

from relayfile.errors import DeadLetterNotFound, DeadLetterReplaying, RelayfileError
from relayfile.model import Failure, Outcome
from relayfile.route_file import UNROUTED
from relayfile.store.engine import Acknowledgement, KeptDeadLetter, WorkspaceKey
from relayfile.store.entry_kinds import INTERNAL_FAULT, ApplyFolds, PlanContext, quarantined
from relayfile.store.letters.unrouted import is_routed_since
from relayfile.store.order import Order
from relayfile.store.plan.entry import Fold, Member
from relayfile.store.plan.letters import (
    LetterAcknowledged,
    LetterChanges,
    LetterRef,
    LetterState,
    fail_again,
    replay_fold,
    settle_redo,
    settle_replays,
)
from relayfile.store.plan.result import Plan
from relayfile.store.plan.rows import DeliveryKey, DeliveryRow
from relayfile.store.plan.settle import STAGE_APPLY, STAGE_NORMALISE
from relayfile.store.wire import read_member
from relayfile.telemetry import get_logger
from relayfile.v1 import shard_pb2

CONTENT_NOT_KEPT: Final = "CONTENT_NOT_KEPT"
"""Reason of a dead letter whose change cannot be planned from what is kept of it."""

READ_AT_ONCE: Final = 1_000
"""Dead letters that are read before others get a turn."""

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class QueueRequest:
    """Dead letters that were chosen for another try, with what the answer says beside."""

    dead_letter_ids: tuple[str, ...]
    states: frozenset[LetterState]
    """Those in which they are queued; one that is in another by now is left alone."""
    remaining_count: int = 0
    order: Order | None = None
    """None: the node itself queues them."""
    subject: str = ""
    """About what, for the record of administrative actions."""


class QueueAnswer(NamedTuple):
    """What was queued."""

    queued_count: int
    already_replaying_count: int
    remaining_count: int
    missing_dead_letter_ids: tuple[str, ...]


class QueueReplays:
    """`ReplayDeadLetters`: durable state `replaying`."""

    def __init__(self, context: PlanContext) -> None:
        self._context = context

    async def plan(
        self, key: WorkspaceKey, mutations: Sequence[QueueRequest]
    ) -> tuple[Plan | None, Sequence[QueueAnswer]]:
        ids = [each for request in mutations for each in request.dead_letter_ids]
        refs: dict[str, LetterRef] = {}
        async with self._context.engine.view(key) as view:
            for start in range(0, len(ids), READ_AT_ONCE):
                refs |= await view.letter_refs(ids[start : start + READ_AT_ONCE])
                await asyncio.sleep(0)
        now_us = self._context.clock.now_us()
        plan = Plan(key.workspace_id, None)
        plan.letters = LetterChanges()
        queued: set[str] = set()
        answers: list[QueueAnswer] = []
        for request in mutations:
            found = [refs[each] for each in dict.fromkeys(request.dead_letter_ids) if each in refs]
            replaying = [ref for ref in found if ref.state is LetterState.REPLAYING or ref.dead_letter_id in queued]
            new = [ref for ref in found if ref.state in request.states and ref.dead_letter_id not in queued]
            queued.update(ref.dead_letter_id for ref in new)
            plan.letters.queued += new
            missing = tuple(each for each in dict.fromkeys(request.dead_letter_ids) if each not in refs)
            answers.append(QueueAnswer(len(new), len(replaying), request.remaining_count, missing))
            if request.order is not None:
                detail = f"queued {len(new)}"
                action_id = self._context.new_id()
                plan.admin_actions_put.append(request.order.action(action_id, now_us, request.subject, detail=detail))
        return (plan if queued or plan.admin_actions_put else None), answers


class AcknowledgeRequest(NamedTuple):
    """A dead letter to put aside."""

    dead_letter_id: str
    order: Order


class AcknowledgeLetters:
    """`AcknowledgeDeadLetter`. One that was acknowledged stays as it was."""

    def __init__(self, context: PlanContext) -> None:
        self._context = context

    async def plan(
        self, key: WorkspaceKey, mutations: Sequence[AcknowledgeRequest]
    ) -> tuple[Plan | None, Sequence[KeptDeadLetter | Exception]]:
        ids = [request.dead_letter_id for request in mutations]
        async with self._context.engine.view(key) as view:
            refs = await view.letter_refs(ids)
            kept = {each: await view.dead_letter(each) for each in refs}
        now_us = self._context.clock.now_us()
        plan = Plan(key.workspace_id, None)
        plan.letters = LetterChanges()
        answers: list[KeptDeadLetter | Exception] = []
        for dead_letter_id, order in mutations:
            letter = kept.get(dead_letter_id)
            if letter is None:
                answers.append(DeadLetterNotFound(dead_letter=dead_letter_id))
                continue
            if letter.state == LetterState.REPLAYING:
                answers.append(DeadLetterReplaying(dead_letter=dead_letter_id))
                continue
            if letter.state == LetterState.PENDING:
                seen = Acknowledgement(now_us, order.actor, order.reason)
                letter = kept[dead_letter_id] = replace(letter, state=LetterState.ACKNOWLEDGED, acknowledgement=seen)
                plan.letters.acknowledged.append(LetterAcknowledged(refs[dead_letter_id], *seen))
                plan.admin_actions_put.append(order.action(self._context.new_id(), now_us, dead_letter_id))
            answers.append(letter)
        return (plan if plan.letters.acknowledged else None), answers


class ReplayResult(NamedTuple):
    """What became of a batch of replays; the rest of it was left for another one."""

    succeeded_count: int
    failed_count: int


class ReplayChanges:
    """Changes of the stage `apply`, planned again. A mutation is the ids of some dead letters."""

    def __init__(self, context: PlanContext, folds: ApplyFolds) -> None:
        self._context = context
        self._folds = folds

    async def plan(
        self, key: WorkspaceKey, mutations: Sequence[tuple[str, ...]]
    ) -> tuple[Plan | None, Sequence[ReplayResult]]:
        ids = [each for mutation in mutations for each in mutation]
        async with self._context.engine.view(key) as view:
            due = _due((await view.letter_refs(ids)).values(), STAGE_APPLY)
            contents = await view.contents([ref.content_id for ref in due if ref.content_id])
        changes: list[tuple[LetterRef, Member]] = []
        broken: list[tuple[LetterRef, Failure]] = []
        for ref in due:
            member = _kept_change(contents.get(ref.content_id, b""))
            if isinstance(member, Failure):
                broken.append((ref, member))
            else:
                changes.append((ref, member))
        if not due:
            return None, [ReplayResult(0, 0)] * len(mutations)
        plan = await self._planned(key, changes, broken)
        now_us = self._context.clock.now_us()
        for ref, failure in broken:
            fail_again(plan, ref, failure, now_us)
        assert plan.letters is not None, "something is due"
        succeeded = {ref.dead_letter_id for ref in plan.letters.removed}
        failed = {one.ref.dead_letter_id for one in plan.letters.retried}
        return plan, [
            ReplayResult(len(succeeded.intersection(mutation)), len(failed.intersection(mutation)))
            for mutation in mutations
        ]

    async def _planned(
        self, key: WorkspaceKey, changes: list[tuple[LetterRef, Member]], broken: list[tuple[LetterRef, Failure]]
    ) -> Plan:
        """The plan of the sound ones; what meets a fault of ours goes to `broken`."""
        refs = [ref for ref, _ in changes]
        folds = [replay_fold(ref, member) for ref, member in changes]
        if not folds:
            return Plan(key.workspace_id, None)
        try:
            plan = await self._folds.planned(key, folds)
        except RelayfileError:
            raise
        except Exception:  # noqa: BLE001 - whatever it is, one poison must not hold up the others
            _log.exception("dead letters could not be planned", workspace=key.workspace_id)
            sound = [await self._folds.can_plan(key, fold) for fold in folds]
            broken += [(ref, _OUR_FAULT) for ref, good in zip(refs, sound, strict=True) if not good]
            refs = [ref for ref, good in zip(refs, sound, strict=True) if good]
            folds = [fold for fold, good in zip(folds, sound, strict=True) if good]
            plan = await self._folds.planned(key, folds) if folds else Plan(key.workspace_id, None)
        settle_replays(plan, refs, self._context.clock.now_us())
        return plan


_OUR_FAULT = Failure(INTERNAL_FAULT, "The change met a fault of Relayfile's own again; the node's log has it.")


@dataclass(frozen=True, slots=True)
class RedoResult:
    """What the request of a dead letter amounts to now: changes, or nothing, or a failure again."""

    dead_letter_id: str
    folds: tuple[Fold, ...] = ()
    failure: Failure | None = None
    adapter_version: str = ""


class FinishRedos:
    """Requests of the stage `normalise` that were normalised again; answers whether anything was changed."""

    def __init__(self, context: PlanContext, folds: ApplyFolds) -> None:
        self._context = context
        self._folds = folds

    async def plan(self, key: WorkspaceKey, mutations: Sequence[RedoResult]) -> tuple[Plan | None, Sequence[bool]]:
        result = mutations[0]
        answers = [True] + [False] * (len(mutations) - 1)
        assert len({each.dead_letter_id for each in mutations}) == 1, "only those of one dead letter merge"
        async with self._context.engine.view(key) as view:
            refs = await view.letter_refs([result.dead_letter_id])
        due = _due(refs.values(), STAGE_NORMALISE)
        if not due:
            return None, [False] * len(mutations)
        ref = due[0]
        now_us = self._context.clock.now_us()
        if result.failure is not None:
            plan = Plan(key.workspace_id, None)
            fail_again(plan, ref, result.failure, now_us, result.adapter_version)
            if result.failure.reason == UNROUTED and await self._is_routed_since(key, ref):
                assert plan.letters is not None, "it failed again"
                plan.letters.queued.append(ref)
            return plan, answers
        plan = await self._planned(key, result.folds)
        settle_redo(plan, ref)
        if all(row.key != ref.key for row in plan.deliveries_put):
            # The delivery itself is nothing any more: its changes have rows of their own. A late resend of it counts
            # nothing.
            plan.deliveries_put.append(DeliveryRow(ref.key, ref.envelope_id, Outcome.IGNORED, now_us))
        return plan, answers

    async def _is_routed_since(self, key: WorkspaceKey, ref: LetterRef) -> bool:
        async with self._context.engine.view(key) as view:
            kept = await view.dead_letter(ref.dead_letter_id)
            return kept is not None and await is_routed_since(view, kept)

    async def _planned(self, key: WorkspaceKey, folds: Sequence[Fold]) -> Plan:
        try:
            return await self._folds.planned(key, folds)
        except RelayfileError:
            raise
        except Exception:  # noqa: BLE001 - as above
            _log.exception("the changes of a redo could not be planned", workspace=key.workspace_id)
        return await self._folds.planned(
            key, [fold if await self._folds.can_plan(key, fold) else quarantined(fold) for fold in folds]
        )


def _due(refs: Iterable[LetterRef], stage: str) -> list[LetterRef]:
    """Those that are queued, one of each delivery: a second one is planned on what became of the first."""
    by_key: dict[DeliveryKey, LetterRef] = {}
    for ref in refs:
        if ref.state is LetterState.REPLAYING and ref.stage == stage:
            by_key.setdefault(ref.key, ref)
    return list(by_key.values())


def _kept_change(body: bytes) -> Member | Failure:
    try:
        message = shard_pb2.FoldMember.FromString(body)
    except DecodeError as error:
        return Failure(CONTENT_NOT_KEPT, f"What is kept of the change cannot be decoded ({error}).")
    if not body or message.content_elided:
        return Failure(CONTENT_NOT_KEPT, "The content of the change was not kept: a newer change made it superfluous.")
    return read_member(message)
