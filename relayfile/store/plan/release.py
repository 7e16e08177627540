"""What was held of a provider's changes becomes a revision, or is dropped.

Owns when it is dropped: the provider's own answer to the edit is newer. What cannot be placed any more becomes a dead
letter, and its outcome moves with it. A fetch on its way was asked for by a later signal then, and goes on. Pure.
"""

from collections.abc import Callable

from relayfile.model import MemberKind, Outcome
from relayfile.store.plan.change import Age, NewFile, is_refused_there, media_type, put_file
from relayfile.store.plan.holding import ON_THE_WAY, held_of, is_awaited
from relayfile.store.plan.identity import ObjectDraft
from relayfile.store.plan.result import Plan
from relayfile.store.plan.rows import NO_WATERMARK, DeliveryKey, DeliveryRow, ObjectKey
from relayfile.store.plan.settle import dead_letter_of
from relayfile.store.plan.verdict import Verdict
from relayfile.store.plan.working_tree import WorkingTree
from relayfile.store.plan.writeback.queue import OperationQueue, is_edit
from relayfile.store.plan.writeback.rows import HeldChange
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
            self._settle_stale(key, held)
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
        verdict = _verdict(held)
        if is_refused_there(subject, verdict):
            self._failed.append(verdict)
        elif member.kind is MemberKind.DELETE:
            _delete(tree, subject, verdict)
        else:
            said_us = provider_time(member.occurred_us, member.received_us)
            time_us = member.received_us if said_us is None else said_us
            age = Age(time_us, said_us is not None, NO_WATERMARK, 0, held.ingest_id)
            content_type = member.content_type or media_type(member.content)
            new = NewFile(member.content or b"", content_type, self._stale_since_us(key))
            if not put_file(tree, subject, verdict, age, new) and verdict.failure is not None:
                self._failed.append(verdict)

    def settle(self, plan: Plan, new_id: Callable[[], str]) -> None:
        """Complete the plan with what could not be placed."""
        counts = plan.outcome_counts
        for verdict in self._failed:
            provider = verdict.key.provider
            moves = [(Outcome.DEAD_LETTERED, 1)]
            if verdict.member.envelope_id:
                moves.append((Outcome.APPLIED, -1))
            else:
                verdict = _as_delivered(verdict, new_id())
            for outcome, number in moves:
                counts[provider, outcome] = counts.get((provider, outcome), 0) + number
            plan.dead_letters.append(dead_letter_of(verdict, self._tree.now_us, new_id()))
            row = DeliveryRow(verdict.key, verdict.member.envelope_id, Outcome.DEAD_LETTERED, self._tree.now_us)
            plan.deliveries_put.append(row)

    def _stale_since_us(self, key: ObjectKey) -> int | None:
        """Of what was held: a signal that came later is still to be answered. (Holding has answered earlier ones.)"""
        file = self._tree.own_file(self._tree.object(key))
        if file is not None:
            return file.stale_since_us if self._is_fetched(key) else None
        waiting = self._queue.unclaimed_fetch(key)
        return None if waiting is None else waiting.created_us

    def _settle_stale(self, key: ObjectKey, held: HeldChange) -> None:
        """The provider's answer is newer than what was held, and so answers the same signals."""
        file = self._tree.own_file(self._tree.object(key))
        if file is not None and file.stale_since_us is not None and not self._is_fetched(key):
            self._tree.set_file(file.path, file._replace(stale_since_us=None), _verdict(held))

    def _is_fetched(self, key: ObjectKey) -> bool:
        return any(not is_edit(row) and row.state in ON_THE_WAY for row in self._queue.of(key))

    def _take(self, key: ObjectKey) -> None:
        self._queue.let_go(self._tree.loaded.operations.held.pop(key, None))
        self._tree.object(key).held = None


def _verdict(held: HeldChange) -> Verdict:
    return Verdict(DeliveryKey(held.key.provider, held.member.delivery_id, held.key.key), held.member)


def _as_delivered(verdict: Verdict, delivery_id: str) -> Verdict:
    """What came with a worker's answer and was counted nowhere: as a dead letter it is a delivery of its own."""
    member = verdict.member._replace(envelope_id=delivery_id, delivery_id=delivery_id)
    delivered = Verdict(verdict.key._replace(delivery_id=delivery_id), member)
    delivered.failure = verdict.failure
    return delivered


def _delete(tree: WorkingTree, subject: ObjectDraft, verdict: Verdict) -> None:
    file = tree.own_file(subject)
    if file is not None:
        tree.set_file(file.path, None, verdict)
    if not subject.deleted or subject.path is not None:
        subject.path, subject.deleted, subject.changed = None, True, True
