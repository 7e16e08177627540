"""What was held of a provider's changes becomes a revision, or is dropped.

Owns when it is dropped: the provider's own answer to the edit is newer. What cannot be placed any more becomes a dead
letter, and its outcome moves with it. Pure.
"""

from collections.abc import Callable

from relayfile.model import MemberKind, Outcome
from relayfile.store.plan.change import Age, NewFile, media_type, put_file
from relayfile.store.plan.holding import held_of, is_awaited
from relayfile.store.plan.identity import ObjectDraft
from relayfile.store.plan.result import Plan
from relayfile.store.plan.rows import NO_WATERMARK, DeliveryKey, DeliveryRow, ObjectKey
from relayfile.store.plan.settle import dead_letter_of
from relayfile.store.plan.verdict import Verdict
from relayfile.store.plan.working_tree import WorkingTree
from relayfile.store.plan.writeback.edits import cancel_fetch
from relayfile.store.plan.writeback.queue import OperationQueue
from relayfile.watermark import provider_time


class Releases:
    """What is released in one plan."""

    def __init__(self, tree: WorkingTree, queue: OperationQueue) -> None:
        self._tree = tree
        self._queue = queue
        self._failed: list[Verdict] = []

    def after_edit(self, key: ObjectKey, answered_us: int | None) -> None:
        """An edit of the object has ended: release what is held, unless another edit is on its way.

        `answered_us`: the provider's time in its answer. What is older than that is dropped, whatever follows.
        """
        held = held_of(self._tree, self._tree.object(key))
        if held is None:
            return
        said_us = provider_time(held.member.occurred_us, held.member.received_us)
        if answered_us is not None and said_us is not None and said_us < answered_us:
            self._take(key)
        elif not is_awaited(self._queue.of(key)):
            self.now(key)

    def now(self, key: ObjectKey) -> None:
        """Make what is held the object's file."""
        tree, subject = self._tree, self._tree.object(key)
        held = held_of(tree, subject)
        if held is None:
            return
        self._take(key)
        member = held.member
        verdict = Verdict(DeliveryKey(key.provider, member.delivery_id, key.key), member)
        if member.kind is MemberKind.DELETE:
            _delete(tree, subject, verdict)
        else:
            said_us = provider_time(member.occurred_us, member.received_us)
            time_us = member.received_us if said_us is None else said_us
            age = Age(time_us, said_us is not None, NO_WATERMARK, 0, held.ingest_id)
            new = NewFile(member.content or b"", member.content_type or media_type(member.content), None)
            if not put_file(tree, subject, verdict, age, new) and verdict.failure is not None:
                self._failed.append(verdict)
                return
        cancel_fetch(self._queue, key)

    def settle(self, plan: Plan, new_id: Callable[[], str]) -> None:
        """Complete the plan with what could not be placed."""
        counts = plan.outcome_counts
        for verdict in self._failed:
            provider = verdict.key.provider
            for outcome, number in ((Outcome.APPLIED, -1), (Outcome.DEAD_LETTERED, 1)):
                counts[provider, outcome] = counts.get((provider, outcome), 0) + number
            plan.dead_letters.append(dead_letter_of(verdict, self._tree.now_us, new_id()))
            row = DeliveryRow(verdict.key, verdict.member.envelope_id, Outcome.DEAD_LETTERED, self._tree.now_us)
            plan.deliveries_put.append(row)

    def _take(self, key: ObjectKey) -> None:
        self._queue.let_go(self._tree.loaded.operations.held.pop(key, None))
        self._tree.object(key).held = None


def _delete(tree: WorkingTree, subject: ObjectDraft, verdict: Verdict) -> None:
    file = tree.own_file(subject)
    if file is not None:
        tree.set_file(file.path, None, verdict)
    if not subject.deleted or subject.path is not None:
        subject.path, subject.deleted, subject.changed = None, True, True
