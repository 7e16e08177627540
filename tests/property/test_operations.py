"""The rules of operations against a plain model: whatever agents, workers, providers and time do, in any order."""

from itertools import count

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from relayfile.model import EventType
from relayfile.store.plan.result import Plan
from relayfile.store.plan.rows import ObjectKey, WorkspaceRow
from relayfile.store.plan.writeback import lifecycle
from relayfile.store.plan.writeback.edits import Edit, cancel_fetch, new_fetch, put_back, queue_edit, queue_fetch
from relayfile.store.plan.writeback.limits import SECOND_US, WritebackLimits
from relayfile.store.plan.writeback.quarantine import new_deletes, quarantine
from relayfile.store.plan.writeback.queue import OperationQueue, is_edit
from relayfile.store.plan.writeback.rows import (
    UNCLAIMED,
    UNFINISHED,
    OperationFault,
    OperationKind,
    OperationRow,
    OperationState,
)

KEYS = [ObjectKey("linear", f"o:issue/{number}") for number in range(3)]
PATHS = [f"/linear/{number}" for number in range(3)]
LIMITS = WritebackLimits(attempts_max=3, quarantine_deletes=2)
LEASE_US = 5 * SECOND_US
S, K = OperationState, OperationKind


class Operations(RuleBasedStateMachine):
    """One workspace: a plan for each step, applied as an engine would."""

    def __init__(self) -> None:
        super().__init__()
        self.now_us = 1_800_000_000 * SECOND_US
        self.rows: dict[str, OperationRow] = {}
        self.workspace = WorkspaceRow("h", 0, 0)
        self.event_count = 0
        self.ids = (f"{number:026d}" for number in count())
        self.newest_edit: dict[ObjectKey, tuple[int, OperationKind]] = {}
        """Object -> revision and kind of its newest edit that the provider has to hear of."""
        self.claims: dict[ObjectKey, int] = {}
        """Object -> when it was claimed last by somebody who tried."""

    # --- steps

    def queue(self, *more: OperationRow) -> OperationQueue:
        return OperationQueue([*self.rows.values(), *more], LIMITS, self.now_us, lambda: next(self.ids))

    def settle(self, queue: OperationQueue, file_revisions: int = 0) -> None:
        """As an entry of so many changes of files."""
        revision = self.workspace.revision + file_revisions
        plan = Plan("ws", self.workspace._replace(revision=revision))
        queue.settle(plan)
        assert plan.workspace is not None
        self.workspace = plan.workspace
        self.event_count += file_revisions + len(plan.events)
        assert [event.revision for event in plan.events] == list(range(revision + 1, self.workspace.revision + 1))
        assert all(event.type >= EventType.WRITEBACK_SUCCEEDED and event.operation_id for event in plan.events)
        told = {event.operation_id for event in plan.events}
        for row in plan.operations.rows if plan.operations is not None else ():
            before = self.rows.get(row.operation_id)
            assert row.version == (1 if before is None else before.version + 1)
            ended_now = row.state in (S.SUCCEEDED, S.DEAD_LETTERED, S.SUPERSEDED) and (
                before is None or before.state is not row.state
            )
            assert ended_now is (row.operation_id in told)
            self.rows[row.operation_id] = row

    @rule(place=st.sampled_from(range(3)), kind=st.sampled_from([K.WRITE, K.DELETE, K.MOVE]))
    def edit(self, place: int, kind: OperationKind) -> None:
        key = KEYS[place]
        queue = self.queue()
        revision = self.workspace.revision + 1
        moved_from = PATHS[place] if kind is K.MOVE else ""
        path = PATHS[place] + ".moved" * (kind is K.MOVE)
        edit = Edit(kind, key, path, revision, self.workspace.revision, "agent", moved_from=moved_from)
        row = queue_edit(queue, edit)
        assert row is not None
        if new_deletes(queue):
            recent = [
                each
                for each in self.rows.values()
                if each.kind is K.DELETE
                and each.created_us > self.now_us - LIMITS.quarantine_us
                and (not each.quarantine_id or each.state is S.QUARANTINED)
            ]
            open_ids = [each.quarantine_id for each in self.rows.values() if each.state is S.QUARANTINED]
            quarantine(queue, len(recent), open_ids[0] if open_ids else "", [])
        self.newest_edit[key] = (revision, kind)
        self.settle(queue, file_revisions=1)

    @rule(place=st.sampled_from(range(3)))
    def signal(self, place: int) -> None:
        queue = self.queue()
        queue_fetch(queue, new_fetch(queue.new_id(), KEYS[place], PATHS[place], 0, self.now_us))
        self.settle(queue)

    @rule(place=st.sampled_from(range(3)))
    def upsert(self, place: int) -> None:
        queue = self.queue()
        cancel_fetch(queue, KEYS[place])
        self.settle(queue)

    @rule()
    def claim(self) -> None:
        queue = self.queue()
        for row in self.rows.values():
            if row.state is S.PENDING and not row.is_blocked and row.claimable_us <= self.now_us:
                last = self.claims.get(row.key)
                assert last is None or self.now_us - last >= LIMITS.spacing_us
                self.claims[row.key] = self.now_us
                queue.put_aside(lifecycle.claimed(row, "worker", "", self.now_us, LEASE_US))
        self.settle(queue)

    def of_state(self, state: OperationState) -> list[OperationRow]:
        return [row for row in self.rows.values() if row.state is state]

    @precondition(lambda self: self.of_state(S.CLAIMED))
    @rule(data=st.data(), ending=st.sampled_from(["succeed", "fail", "fail for good", "release"]))
    def answer(self, data: st.DataObject, ending: str) -> None:
        row = data.draw(st.sampled_from(self.of_state(S.CLAIMED)))
        if not lifecycle.holds_claim(row, row.claim_number, self.now_us):
            return
        queue = self.queue()
        if ending == "succeed":
            queue.put(lifecycle.succeeded(row, b"", b"", self.now_us))
        elif ending == "release":
            del self.claims[row.key]
            put_back(queue, lifecycle.released(row, self.now_us, SECOND_US))
        else:
            fault = OperationFault("NO", "no", retryable=ending == "fail", retry_after_us=2 * SECOND_US)
            after = lifecycle.failed(row, fault, LIMITS, self.now_us, 0.5)
            assert after.state is S.DEAD_LETTERED or after.claimable_us >= self.now_us + 2 * SECOND_US
            put_back(queue, after)
        self.settle(queue)

    @rule()
    def tend(self) -> None:
        queue = self.queue()
        for row in self.of_state(S.CLAIMED):
            if lifecycle.is_overdue(row, self.now_us):
                put_back(queue, lifecycle.expired(row, LIMITS, self.now_us))
        self.settle(queue)

    @rule(passed_us=st.sampled_from([1, SECOND_US // 2, SECOND_US, 6 * SECOND_US, 700 * SECOND_US]))
    def wait(self, passed_us: int) -> None:
        self.now_us += passed_us

    @precondition(lambda self: self.of_state(S.QUARANTINED))
    @rule()
    def approve(self) -> None:
        queue = self.queue()
        for row in self.of_state(S.QUARANTINED):
            queue.put(lifecycle.approved(row, self.now_us))
        self.settle(queue)

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        waiting = [row for row in self.rows.values() if row.state in UNCLAIMED]
        if not waiting:
            return
        queue = self.queue()
        queue.put(lifecycle.canceled(data.draw(st.sampled_from(waiting)), self.now_us))
        self.settle(queue)

    # --- what holds

    @invariant()
    def one_operation_of_an_object_is_claimed_and_the_first_may_be(self) -> None:
        for key in KEYS:
            rows = [row for row in self.rows.values() if row.key == key and row.state in UNFINISHED]
            assert sum(row.state is S.CLAIMED for row in rows) <= 1
            assert sum(is_edit(row) and row.state in UNCLAIMED for row in rows) <= 1
            assert sum(not is_edit(row) and row.state in UNCLAIMED for row in rows) <= 1
            assert sum(not row.is_blocked for row in rows) == min(1, len(rows))
            assert all(not row.is_blocked for row in rows if row.state is S.CLAIMED)
            free = [row for row in rows if not row.is_blocked]
            if free and free[0].state is not S.CLAIMED:
                first = min(rows, key=lambda row: (row.revision, row.operation_id))
                assert free == [first]

    @invariant()
    def nothing_is_lost(self) -> None:
        """The newest edit is the newest operation, whatever became of it."""
        for key, (revision, kind) in self.newest_edit.items():
            edits = [row for row in self.rows.values() if row.key == key and is_edit(row)]
            newest = max(edits, key=lambda row: row.revision)
            assert newest.revision == revision
            assert newest.state is not S.SUPERSEDED
            assert kind is K.MOVE or newest.kind is kind
            for row in edits:
                if row.state is S.SUPERSEDED:
                    assert self.rows[row.superseded_by].revision > row.revision

    @invariant()
    def revisions_are_events(self) -> None:
        assert self.workspace.revision == self.event_count

    @invariant()
    def ends_have_times(self) -> None:
        for row in self.rows.values():
            assert (row.ended_us is None) is (row.state in UNFINISHED)
            assert (row.claim_expire_us is not None) is (row.state is S.CLAIMED)
            assert row.attempt_count <= LIMITS.attempts_max


TestOperations = Operations.TestCase
TestOperations.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize("before", list(S))
@pytest.mark.parametrize("after", list(S))
def test_no_other_step_is_taken(before: OperationState, after: OperationState) -> None:
    row = OperationRow("1", "linear", "o:issue/1", K.WRITE, before, "/linear/1", 1, "agent", 0, 0)
    if after in lifecycle.LEGAL[before]:
        assert lifecycle.stepped(row, after).state is after
    else:
        with pytest.raises(AssertionError):
            lifecycle.stepped(row, after)


@pytest.mark.parametrize("jitter", [0.0, 0.5, 1.0])
def test_the_pause_between_tries_doubles_up_to_its_limit(jitter: float) -> None:
    pauses = [lifecycle.backoff_us(attempt, LIMITS, jitter) for attempt in range(1, 40)]
    whole = [min(LIMITS.backoff_max_us, SECOND_US << (attempt - 1)) for attempt in range(1, 40)]
    assert all(most // 2 <= pause <= most for pause, most in zip(pauses, whole, strict=True))
    assert pauses == sorted(pauses)
