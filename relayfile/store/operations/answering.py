"""The kinds of mutation that move operations on, with what that does to files: answers of workers, and tending.

Owns what is loaded for them. What an answer does is decided by `relayfile.store.plan.answers`; tending ends claims
whose lease ended, and makes revisions of what was held long enough.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

from relayfile.errors import OperationNotFound, WorkspaceNotFound
from relayfile.store.engine import WorkspaceKey
from relayfile.store.entry_kinds import PlanContext
from relayfile.store.operations.claiming import overdue
from relayfile.store.plan.answers import Answer, Answers, answer_folds, naming_fold
from relayfile.store.plan.entry import Entry, Fold
from relayfile.store.plan.holding import held_of, is_awaited
from relayfile.store.plan.limits import PlanLimits
from relayfile.store.plan.result import Plan
from relayfile.store.plan.rows import ObjectKey
from relayfile.store.plan.settle import settle_files
from relayfile.store.plan.working_tree import WorkingTree
from relayfile.store.plan.writeback import lifecycle
from relayfile.store.plan.writeback.edits import put_back
from relayfile.store.plan.writeback.queue import OperationQueue
from relayfile.store.plan.writeback.rows import FREED_US, HeldChange, OperationRow

TENDED_MAX = 500
"""Objects that one entry of tending goes through."""


class AnswerTaken(NamedTuple):
    """What became of an answer; kept as the answer to its request id."""

    operation_id: str
    revision: int
    """The newest revision that it made; 0 when it made none."""


class _Desk:
    """Everything that one plan of operations works on."""

    def __init__(self, context: PlanContext, limits: PlanLimits) -> None:
        self._context = context
        self._limits = limits

    async def open(self, key: WorkspaceKey, folds: Iterable[Fold], rows: Iterable[OperationRow], now_us: int) -> None:
        """Load what the folds name; `rows` are known already."""
        entry = Entry(key.workspace_id, tuple(folds))
        self._loaded = await self._context.engine.load(key, entry)
        self.tree = WorkingTree(self._loaded, self._limits, now_us)
        known = {row.operation_id: row for row in rows}
        known.update((row.operation_id, row) for each in self._loaded.operations.rows.values() for row in each)
        self.queue = OperationQueue(known.values(), self._limits.writeback, now_us, self._context.new_id)
        self.answers = Answers(self.tree, self.queue)
        self._key = key

    @property
    def exists(self) -> bool:
        """Whether the workspace does."""
        return self._loaded.workspace is not None and self._loaded.workspace.deleted_us is None

    def close(self) -> Plan:
        """The plan of all that was done."""
        plan = Plan(self._key.workspace_id, self._loaded.workspace)
        if self.tree.objects:
            settle_files(self.tree, plan, self.tree.now_us)
        for subject in self.tree.objects.values():
            if subject.held is not None:
                self.queue.hold(subject.held, self._loaded.operations.held.get(subject.key))
        self.answers.releases.settle(plan, self._context.new_id)
        self.queue.settle(plan)
        return plan


class AnswerClaims:
    """`AckOperation`."""

    def __init__(self, context: PlanContext, limits: PlanLimits, random: Callable[[], float]) -> None:
        """`random` spreads retries: numbers from 0 to 1."""
        self._context = context
        self._limits = limits
        self._random = random

    async def plan(
        self, key: WorkspaceKey, mutations: Sequence[Answer]
    ) -> tuple[Plan | None, Sequence[AnswerTaken | Exception]]:
        now_us = self._context.clock.now_us()
        async with self._context.engine.view(key) as view:
            rows = await view.operations().by_ids({each.operation_id for each in mutations})
        known = [each for each in mutations if each.operation_id in rows]
        folds = list(chain.from_iterable(answer_folds(rows[each.operation_id], each) for each in known))
        desk = _Desk(self._context, self._limits)
        held = await self._held(key, folds)
        await desk.open(key, [*folds, *map(_held_fold, held.values())], rows.values(), now_us)
        if not desk.exists:
            return None, [WorkspaceNotFound(workspace=key.workspace_id)] * len(mutations)
        refusals = [self._take(desk, answer, now_us) for answer in mutations]
        plan = desk.close()
        revisions = {event.operation_id: event.revision for event in plan.events if event.operation_id}
        answers = [
            AnswerTaken(answer.operation_id, revisions.get(answer.operation_id, 0)) if refusal is None else refusal
            for answer, refusal in zip(mutations, refusals, strict=True)
        ]
        return (plan if plan.operations is not None or plan.workspace_changed else None), answers

    def _take(self, desk: _Desk, answer: Answer, now_us: int) -> Exception | None:
        row = desk.queue.get(answer.operation_id)
        if row is None:
            return OperationNotFound(operation=answer.operation_id)
        if lifecycle.is_overdue(row, now_us):
            row = lifecycle.expired(row, self._limits.writeback, now_us)
            put_back(desk.queue, row)
            row = desk.queue.get(row.operation_id) or row
        return desk.answers.take(row, answer, self._random())

    async def _held(self, key: WorkspaceKey, folds: Iterable[Fold]) -> Mapping[ObjectKey, HeldChange]:
        async with self._context.engine.view(key) as view:
            return (await view.operations().of_objects({ObjectKey(*fold[:2]) for fold in folds})).held


class Tended(NamedTuple):
    """What was done, and whether there is more of it."""

    expired_count: int
    released_count: int
    is_complete: bool


class TendOperations:
    """Claims whose lease ended go back, changes that were held long enough become revisions."""

    def __init__(self, context: PlanContext, limits: PlanLimits) -> None:
        self._context = context
        self._limits = limits

    async def plan(self, key: WorkspaceKey, mutations: Sequence[None]) -> tuple[Plan | None, Sequence[Tended]]:
        now_us = self._context.clock.now_us()
        async with self._context.engine.view(key) as whole:
            view = whole.operations()
            late = (await overdue(view, now_us))[:TENDED_MAX]
            due = await view.held_before(now_us - self._limits.writeback.hold_us, TENDED_MAX)
            keys = {row.key for row in late}.union(due)
            held = (await view.of_objects(keys)).held
        if not keys:
            return None, [Tended(0, 0, is_complete=True)] * len(mutations)
        desk = _Desk(self._context, self._limits)
        folds = [*map(_held_fold, held.values()), *(naming_fold(row) for row in late if row.key not in held)]
        await desk.open(key, folds, late, now_us)
        if not desk.exists:
            return None, [Tended(0, 0, is_complete=True)] * len(mutations)
        for row in late:
            put_back(desk.queue, lifecycle.expired(row, self._limits.writeback, now_us))
            desk.answers.releases.after_edit(row.key, None)
        for each in due:
            waiting = held_of(desk.tree, desk.tree.object(each))
            if waiting is not None and waiting.held_us == FREED_US and is_awaited(desk.queue.of(each)):
                # The object was edited again before it came to this.
                desk.queue.hold(waiting._replace(held_us=now_us), waiting)
            elif waiting is not None:
                desk.answers.releases.now(each)
        tended = Tended(len(late), len(due), len(late) < TENDED_MAX and len(due) < TENDED_MAX)
        return desk.close(), [tended] * len(mutations)


def _held_fold(held: HeldChange) -> Fold:
    return Fold(*held.key, (held.member,), held.ingest_id)
