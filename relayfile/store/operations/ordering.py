"""The kind of mutation by which people move operations: replay, approve, cancel. Recorded with its effect.

Owns which states each of them takes, and that what was chosen and has moved on since is left alone.
"""

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

from relayfile.errors import OperationNotDeadLettered, OperationNotFound
from relayfile.store.engine import WorkspaceKey
from relayfile.store.entry_kinds import PlanContext
from relayfile.store.order import Order
from relayfile.store.plan.answers import naming_fold
from relayfile.store.plan.entry import Entry, Fold
from relayfile.store.plan.limits import PlanLimits
from relayfile.store.plan.release import Releases
from relayfile.store.plan.result import Plan
from relayfile.store.plan.settle import settle_files
from relayfile.store.plan.working_tree import WorkingTree
from relayfile.store.plan.writeback import lifecycle
from relayfile.store.plan.writeback.edits import refreshed
from relayfile.store.plan.writeback.queue import OperationQueue, is_edit
from relayfile.store.plan.writeback.rows import UNCLAIMED, OperationState


class Verb(Enum):
    """What is ordered."""

    REPLAY = "replayed"
    APPROVE = "approved"
    CANCEL = "canceled"


class OperationOrder(NamedTuple):
    """Operations that were chosen, and what is to become of them."""

    verb: Verb
    operation_ids: tuple[str, ...]
    order: Order | None
    """None: it is a part of an order, whose last part records the whole."""
    subject: str = ""
    before: "OrderAnswer | None" = None
    """What the parts before this one did."""


class OrderAnswer(NamedTuple):
    """What became of them."""

    done_count: int
    claimed_count: int
    skipped_ids: tuple[str, ...]


class OrderOperations:
    """`ReplayOperation`, `ApproveOperations`, `CancelOperations`. Each order is an entry of its own."""

    def __init__(self, context: PlanContext, limits: PlanLimits) -> None:
        self._context = context
        self._limits = limits

    async def plan(
        self, key: WorkspaceKey, mutations: Sequence[OperationOrder]
    ) -> tuple[Plan | None, Sequence[OrderAnswer | Exception]]:
        [wanted] = mutations
        now_us = self._context.clock.now_us()
        async with self._context.engine.view(key) as view:
            chosen = await view.operations().by_ids(wanted.operation_ids)
            held = (await view.operations().of_objects({row.key for row in chosen.values()})).held
        folds = [Fold(*each.key, (each.member,), each.ingest_id) for each in held.values()]
        folds += [naming_fold(row) for row in chosen.values() if row.key not in held]
        loaded = await self._context.engine.load(key, Entry(key.workspace_id, tuple(folds)))
        known = dict(chosen)
        known.update((row.operation_id, row) for rows in loaded.operations.rows.values() for row in rows)
        queue = OperationQueue(known.values(), self._limits.writeback, now_us, self._context.new_id)
        tree = WorkingTree(loaded, self._limits, now_us)
        plan = Plan(key.workspace_id, loaded.workspace)
        releases = Releases(tree, queue)
        if wanted.verb is Verb.REPLAY:
            refusal = _replay(queue, tree, wanted.operation_ids[0])
            if refusal is not None:
                return None, [refusal]
            answer = OrderAnswer(1, 0, ())
        else:
            answer = _moved(queue, releases, wanted)
        if tree.objects:
            settle_files(tree, plan, now_us)
        releases.settle(plan, self._context.new_id)
        queue.settle(plan)
        if wanted.order is not None:
            detail = f"{wanted.verb.value} {answer.done_count}"
            action = wanted.order.action(self._context.new_id(), now_us, wanted.subject, detail=detail)
            plan.admin_actions_put.append(action)
        return plan, [answer]


def _replay(queue: OperationQueue, tree: WorkingTree, operation_id: str) -> Exception | None:
    row = queue.get(operation_id)
    if row is None:
        return OperationNotFound(operation=operation_id)
    if row.state is not OperationState.DEAD_LETTERED:
        return OperationNotDeadLettered(operation=operation_id, state=row.state.name.lower())
    waiting = queue.unclaimed_edit(row.key) if is_edit(row) else queue.unclaimed_fetch(row.key)
    if waiting is not None:
        # What waits brings what is newer; the two are one.
        queue.put(lifecycle.superseded(lifecycle.replayed(row, queue.now_us), waiting.operation_id, queue.now_us))
        return None
    if is_edit(row) and any(each.operation_id > row.operation_id and is_edit(each) for each in queue.of(row.key)):
        # A later edit was claimed since: what is replayed now must not bring back what was before it.
        file = tree.file(row.path) if row.is_draft else tree.own_file(tree.object(row.key))
        row = refreshed(row, file)
    queue.put(lifecycle.replayed(row, queue.not_before_us(row.key)))
    return None


def _moved(queue: OperationQueue, releases: Releases, wanted: OperationOrder) -> OrderAnswer:
    done, claimed, skipped = 0, 0, []
    for operation_id in dict.fromkeys(wanted.operation_ids):
        row = queue.get(operation_id)
        if row is not None and wanted.verb is Verb.APPROVE and row.state is OperationState.QUARANTINED:
            queue.put(lifecycle.approved(row, queue.not_before_us(row.key)))
            done += 1
        elif row is not None and wanted.verb is Verb.CANCEL and row.state in UNCLAIMED:
            queue.put(lifecycle.canceled(row, queue.now_us))
            releases.after_edit(row.key, None)
            done += 1
        elif row is not None and wanted.verb is Verb.CANCEL and row.state is OperationState.CLAIMED:
            claimed += 1
        else:
            skipped.append(operation_id)
    before = wanted.before or OrderAnswer(0, 0, ())
    return OrderAnswer(done + before.done_count, claimed + before.claimed_count, (*before.skipped_ids, *skipped))
