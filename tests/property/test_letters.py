"""The sums stay what was accepted, whatever is replayed, redelivered, resent, acknowledged or done twice."""

import asyncio
import tempfile
from collections import Counter
from pathlib import Path
from typing import TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from relayfile.clock import ManualClock
from relayfile.data_directory import DataDirectory
from relayfile.ids import IdSource
from relayfile.model import Failure, MemberKind, Outcome, RawDelivery
from relayfile.store.commit import EntryKind
from relayfile.store.engine import DeadLetterFilter, Fence, KeptDeadLetter, PlannedEntry, WorkspaceKey
from relayfile.store.entry_kinds import ApplyFolds, PlanContext
from relayfile.store.letters.letter_kinds import (
    AcknowledgeLetters,
    AcknowledgeRequest,
    FinishRedos,
    QueueReplays,
    QueueRequest,
    RedoResult,
    ReplayChanges,
)
from relayfile.store.order import Order
from relayfile.store.plan.entry import Fold, Member
from relayfile.store.plan.letters import LetterState
from relayfile.store.plan.limits import PlanLimits
from relayfile.store.sqlite.engine import SqliteLimits, open_engine
from relayfile.store.sqlite.schema import NodeIdentity
from tests.fakes.model_store import Deliveries

Mutation = TypeVar("Mutation")
Answer = TypeVar("Answer")

KEY = WorkspaceKey(7, "acme")
BLOCKER = "issue/blocker"
OBJECTS = ("issue/1", "issue/2", "issue/3")
SHAPES = ("fine", "blocked", "bad patch", "unreadable", "ignored")
NOT_REPLAYING = frozenset({LetterState.PENDING, LetterState.ACKNOWLEDGED})
LONG_S = 30 * 86_400.0
"""After which no delivery is known any more."""


class Letters(RuleBasedStateMachine):
    """One workspace on a real engine; each rule is one commit entry."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.directory = DataDirectory(Path(self.folder.name))
        self.directory.__enter__()
        self.clock = ManualClock()
        # Nothing here is about durability, and there are many commits.
        self.engine = open_engine(self.directory, NodeIdentity(256, 0, 1), self.clock, SqliteLimits())
        self.engine._writer.execute("PRAGMA synchronous=OFF")
        (row,) = self.runner.run(self.engine.acquire_shards([KEY.shard_id], 0, "here"))
        self.fence = Fence(row.shard_id, row.epoch)
        context = PlanContext(self.engine, self.clock, IdSource(self.clock).new_id)
        self.apply = ApplyFolds(context, PlanLimits(), creates_workspaces=True)
        self.replays = ReplayChanges(context, self.apply)
        self.redos = FinishRedos(context, self.apply)
        self.queueing = QueueReplays(context)
        self.acknowledging = AcknowledgeLetters(context)
        self.make = Deliveries()
        self.delivered: list[Fold] = []
        self.several: list[tuple[Fold, ...]] = []
        """Deliveries of several changes, as they came first."""
        self.sent: list[Fold] = []
        """Those that may come again as they were: their answer may be lost, but not for a month."""
        self.accepted = 0
        self.expired = 0
        """Dead letters that were acknowledged and went."""
        self.number = 0

    def teardown(self) -> None:
        self.runner.run(self.engine.close())
        self.runner.close()
        self.directory.__exit__(None, None, None)
        self.folder.cleanup()

    def commit(self, kind: EntryKind[Mutation, Answer], *mutations: Mutation) -> list[Answer]:
        async def run() -> list[Answer]:
            plan, answers = await kind.plan(KEY, mutations)
            if plan is not None:
                entry = PlannedEntry(KEY, plan, self.clock.now_us())
                assert not await self.engine.commit([self.fence], [entry])
            return [answer for answer in answers if not isinstance(answer, Exception)]

        self.clock.advance(0.001)
        return self.runner.run(run())

    def letters(self) -> list[KeptDeadLetter]:
        async def run() -> list[KeptDeadLetter]:
            async with self.engine.view(KEY) as view:
                return await view.dead_letters(DeadLetterFilter(), "", 10_000)

        return self.runner.run(run())

    def member(self, shape: str, name: str, delivery_id: str = "", envelope_id: str = "") -> tuple[str, Member]:
        """(change key, member)."""
        number = self.number = self.number + 1
        if shape in ("unreadable", "ignored"):
            kind = MemberKind.FAILED if shape == "unreadable" else MemberKind.IGNORED
            member = self.make.member(kind, delivery_id=delivery_id, envelope_id=envelope_id)
            return "n:0", member._replace(raw=RawDelivery(b"{", {}), failure=Failure("MALFORMED_JSON", "it is not"))
        folder = "" if shape == "fine" else "/d"
        member = self.make.member(
            MemberKind.PATCH if shape == "bad patch" else MemberKind.UPSERT,
            f"{folder}/{name.replace('/', '-')}.json",
            b"no json" if shape == "bad patch" else b'{"n":%d}' % number,
            received_us=self.clock.now_us(),
            object_id=name,
            delivery_id=delivery_id,
            envelope_id=envelope_id,
        )
        return f"o:{name}", member

    def deliver(self, *folds: Fold) -> None:
        self.commit(self.apply, folds)
        self.sent += folds
        self.delivered += folds
        self.accepted += len(folds)

    @rule(shape=st.sampled_from(SHAPES), name=st.sampled_from(OBJECTS))
    def something_is_delivered(self, shape: str, name: str) -> None:
        key, member = self.member(shape, name)
        self.deliver(Fold("github", key, (member,), "ingest"))

    @rule(shapes=st.lists(st.sampled_from(SHAPES), min_size=2, max_size=4))
    def several_at_once(self, shapes: list[str]) -> None:
        made = [self.member(shape, OBJECTS[index % 3]) for index, shape in enumerate(shapes)]
        self.deliver(*(Fold("github", key, (member,), "ingest") for key, member in made))

    @rule(shapes=st.lists(st.sampled_from(SHAPES), min_size=2, max_size=3))
    def one_delivery_says_several_things(self, shapes: list[str]) -> None:
        """Of different objects, in one envelope."""
        self.number += 1
        delivery_id, envelope_id = f"several-{self.number}", f"first-{self.number}"
        folds = []
        for index, shape in enumerate(shapes):
            key, member = self.member(shape, OBJECTS[index], delivery_id, envelope_id)
            key = f"n:{index}" if key == "n:0" else key
            folds.append(Fold("github", key, (member._replace(change_index=index),), "ingest"))
        self.several.append(tuple(folds))
        self.deliver(*folds)

    @precondition(lambda self: self.several)
    @rule(data=st.data(), together=st.booleans(), resent=st.booleans())
    def it_comes_in_another_order(self, data: st.DataObject, *, together: bool, resent: bool) -> None:
        """In another envelope, perhaps without some of its changes; what came first may be sent again after it."""
        first = data.draw(st.sampled_from(self.several))
        again = data.draw(st.permutations(first))[data.draw(st.integers(0, 1)) :]
        self.number += 1
        folds = [
            fold._replace(members=(fold.members[0]._replace(envelope_id=f"other-{self.number}", change_index=index),))
            for index, fold in enumerate(again)
        ]
        if together:
            self.deliver(*folds)
        else:
            for fold in folds:
                self.deliver(fold)
        if resent and first[0] in self.sent:
            self.commit(self.apply, first)

    @rule(there=st.booleans())
    def the_blocker_comes_or_goes(self, *, there: bool) -> None:
        kind = MemberKind.UPSERT if there else MemberKind.DELETE
        member = self.make.member(kind, "/d" if there else "", b"{}" if there else b"", object_id=BLOCKER)
        member = member._replace(received_us=self.clock.now_us())
        self.deliver(Fold("github", f"o:{BLOCKER}", (member,), "ingest"))

    @precondition(lambda self: self.delivered)
    @rule(data=st.data(), shape=st.sampled_from((None, *SHAPES)))
    def it_is_delivered_again(self, data: st.DataObject, shape: str | None) -> None:
        """In another envelope; perhaps another adapter makes something else of it."""
        earlier = data.draw(st.sampled_from(self.delivered))
        (old,) = earlier.members
        self.number += 1
        if shape is None:
            again = earlier._replace(members=(old._replace(envelope_id=f"again-{self.number}"),))
        else:
            key, member = self.member(shape, old.provider_object_id or OBJECTS[0], delivery_id=old.delivery_id)
            again = Fold("github", key, (member,), "ingest")
        self.deliver(again)

    @rule(data=st.data(), late=st.booleans())
    def a_failure_is_delivered_again(self, data: st.DataObject, *, late: bool) -> None:
        """Late: when nothing but the dead letter knows of it."""
        failed = {each.row.key.delivery_id for each in self.letters()}
        folds = [fold for fold in self.delivered if fold.members[0].delivery_id in failed]
        if folds:
            if late:
                self.a_month_passes()
            earlier = data.draw(st.sampled_from(folds))
            self.number += 1
            self.deliver(earlier._replace(members=(earlier.members[0]._replace(envelope_id=f"late-{self.number}"),)))

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def it_is_sent_again(self, data: st.DataObject) -> None:
        """As it was, because the answer was lost: it counts nothing."""
        self.commit(self.apply, (data.draw(st.sampled_from(self.sent)),))

    @rule(data=st.data(), share=st.sampled_from((1, 2, 5)))
    def some_are_queued(self, data: st.DataObject, share: int) -> None:
        ids = [each.row.dead_letter_id for each in self.letters()]
        chosen = tuple(ids[data.draw(st.integers(0, share)) :: share])
        (answer,) = self.commit(self.queueing, QueueRequest((*chosen, "gone"), NOT_REPLAYING))
        assert answer.queued_count + answer.already_replaying_count == len(chosen)

    @precondition(lambda self: self.letters())
    @rule(data=st.data())
    def one_is_acknowledged(self, data: st.DataObject) -> None:
        chosen = data.draw(st.sampled_from(self.letters())).row.dead_letter_id
        self.commit(self.acknowledging, AcknowledgeRequest(chosen, Order("ops", "m", "why", "", "c")))

    @rule(again=st.booleans())
    def changes_are_planned_again(self, *, again: bool) -> None:
        ids = tuple(sorted(each.row.dead_letter_id for each in self.letters() if each.row.stage == "apply"))
        self.commit(self.replays, ids)
        if again:
            self.commit(self.replays, ids)

    @rule(shapes=st.lists(st.sampled_from(("fine", "blocked", "bad patch")), max_size=3), fails=st.booleans())
    def a_request_is_normalised_again(self, shapes: list[str], *, fails: bool) -> None:
        redo = next((each for each in self.letters() if each.row.stage == "normalise" and each.state == 3), None)
        if redo is None:
            return
        result = self.result(redo, shapes, fails=fails)
        assert self.commit(self.redos, result) == [True]
        self.accepted += 0 if fails else max(0, len(shapes) - 1)
        assert self.commit(self.redos, result) == [False], "the second result comes too late"

    def result(self, letter: KeptDeadLetter, shapes: list[str], *, fails: bool) -> RedoResult:
        row = letter.row
        if fails:
            return RedoResult(row.dead_letter_id, failure=Failure("UNEXPECTED_SHAPE", "no number"))
        folds = []
        for index, shape in enumerate(shapes):
            key, member = self.member(shape, OBJECTS[index], row.key.delivery_id, row.envelope_id)
            member = member._replace(change_index=index, received_us=row.received_us)
            folds.append(Fold("github", key, (member,), replay=True))
        return RedoResult(row.dead_letter_id, tuple(folds))

    @rule()
    def a_month_passes(self) -> None:
        """Delivery rows and acknowledged dead letters go, the others stay."""
        before = len(self.letters())
        for _ in range(4):
            self.clock.advance(LONG_S / 4)
            while not self.runner.run(self.engine.remove_expired(self.clock.now_us(), 1_000)).is_complete:
                pass
        self.expired += before - len(self.letters())
        self.sent.clear()

    @invariant()
    def the_sums_are_exact(self) -> None:
        letters = self.letters()

        async def figures() -> tuple[Counter[Outcome], Counter[str], Counter[int]]:
            async with self.engine.view(KEY) as view:
                outcomes, reasons = Counter[Outcome](), Counter[str]()
                for each in await view.outcomes():
                    outcomes.update(each.counts)
                    reasons.update(each.failure_reasons)
                totals = Counter({int(each.state): each.letter_count for each in await view.letter_totals()})
                assert all(each.body_bytes >= 0 for each in await view.letter_totals())
                return outcomes, reasons, totals

        outcomes, reasons, totals = self.runner.run(figures())
        assert all(number >= 0 for number in outcomes.values()), outcomes
        assert outcomes.total() == self.accepted, outcomes
        assert outcomes[Outcome.DEAD_LETTERED] == len(letters) + self.expired
        assert +reasons == Counter(each.row.failure.reason for each in letters)
        assert +totals == Counter(each.state for each in letters)

    @rule()
    def in_the_end_everything_can_be_processed(self) -> None:
        self.the_blocker_comes_or_goes(there=False)
        ids = tuple(each.row.dead_letter_id for each in self.letters())
        self.commit(self.queueing, QueueRequest(ids, NOT_REPLAYING))
        for _ in range(len(ids) + 1):
            self.changes_are_planned_again(again=False)
        while any(each.row.stage == "normalise" for each in self.letters()):
            self.a_request_is_normalised_again(["fine"], fails=False)
        assert {each.row.failure.reason for each in self.letters()} <= {"NOT_JSON"}


TestLetters = Letters.TestCase
TestLetters.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


def test_two_dead_letters_of_one_delivery_are_both_settled() -> None:
    """The second failed when nothing but the first knew of the delivery."""
    machine = Letters()
    try:
        machine.the_blocker_comes_or_goes(there=True)
        key, member = machine.member("blocked", OBJECTS[0])
        machine.deliver(Fold("github", key, (member,), "ingest"))
        machine.a_month_passes()
        machine.deliver(Fold("github", key, (member._replace(envelope_id="again"),), "ingest"))
        assert len(machine.letters()) == 2
        machine.the_sums_are_exact()
        machine.in_the_end_everything_can_be_processed()
        assert machine.letters() == []
        machine.the_sums_are_exact()
    finally:
        machine.teardown()


def test_a_delivery_that_comes_again_in_another_order_and_then_as_it_was_counts_once_more() -> None:
    """Its first envelope is sent again because the answer was lost: that counts nothing."""
    machine = Letters()
    try:
        machine.the_blocker_comes_or_goes(there=True)
        first = []
        for index in range(3):
            key, member = machine.member("blocked", OBJECTS[index], "delivery", "first")
            first.append(Fold("github", key, (member._replace(change_index=index),), "ingest"))
        machine.deliver(*first)
        for number, fold in enumerate(reversed(first)):
            again = fold.members[0]._replace(envelope_id=f"again-{number}", change_index=0)
            machine.deliver(fold._replace(members=(again,)))
        machine.commit(machine.apply, tuple(first))
        machine.the_sums_are_exact()
        assert len(machine.letters()) == 3
    finally:
        machine.teardown()
