"""The equation of folding (D5): what ingest sends in any way that it may ends as the changes one by one.

From complete envelopes through the real windows, folds, parcels and their bytes to the real planner, with answers that
come late or get lost, against the same planner given one change after the other as it arrived.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relayfile.ingest.delivery import Arrival, complete
from relayfile.ingest.sending.coalesce import CoalesceLimits, Coalescer
from relayfile.ingest.sending.dispatch import Dispatcher, DispatchLimits, DispatchPorts
from relayfile.ingest.sending.flight import SentBatch
from relayfile.ingest.sending.lane import Lane
from relayfile.ingest.sending.parcel import RecentPayloads
from relayfile.ingest.sending.router import Router
from relayfile.ingest.spool.payload import PayloadBuilder
from relayfile.model import MemberKind, change_key
from relayfile.store.plan.entry import Fold, Member
from relayfile.store.plan.limits import PlanLimits
from relayfile.store.plan.rows import ObjectRow
from relayfile.store.wire import read_folds
from relayfile.v1 import shard_pb2, types_pb2
from relayfile.wire import semantics_of, set_us, to_us
from tests.fakes.model_store import WORKSPACE, ModelStore

UPSERT, DELETE, PATCH, SIGNAL = (
    types_pb2.CHANGE_KIND_UPSERT,
    types_pb2.CHANGE_KIND_DELETE,
    types_pb2.CHANGE_KIND_PATCH,
    types_pb2.CHANGE_KIND_SIGNAL,
)
MARKER = "/.relayfile.acl"
"""Refused by the shard wherever it comes."""
APART = {
    "issue/1": ("/a/1", "/a/2", "", MARKER),
    "issue/2": ("/b/1", "/b/2", "", MARKER),
    "pull/1": ("/c/1", "/c/2/x", ""),
    "": ("/d/1", "/d/2"),
}
"""Objects with paths of their own, between which they move; where a change names none, its object keeps its path."""
RIVALS = {"issue/1": ("/a/1",), "issue/2": ("/a/1",), "pull/1": ("/a",), "pull/2": ("/a/1/x",), "": ("/a/1", "/a/2")}
"""Objects that contend for paths, also as files where others have directories; each stays at its path."""
CONTENTS = {
    UPSERT: (b'{"k":1}', b'{"k":2,"l":{"m":3}}', b"not json", b'{"k":"' + b"x" * 60 + b'"}'),
    PATCH: (b'{"k":5}', b'{"k":null}', b'{"l":{"m":4}}', b'{"l":7}', b"[1]", b"not json", b"{}"),
    DELETE: (b"",),
    SIGNAL: (b"",),
}
INGEST_ID = "ingest-0"
SEMANTICS = (None, types_pb2.Semantics(comments=["c"]), types_pb2.Semantics(permissions=["public"]))


@st.composite
def changes(draw: st.DrawFn, paths: Mapping[str, Sequence[str]]) -> types_pb2.FileChange:
    kind = draw(st.sampled_from((UPSERT, UPSERT, PATCH, DELETE, SIGNAL)))
    object_id = draw(st.sampled_from(list(paths)))
    change = types_pb2.FileChange(
        kind=kind,
        provider_object_id=object_id,
        path=draw(st.sampled_from(paths[object_id])),
        content=draw(st.sampled_from(CONTENTS[kind])),
        semantics=draw(st.sampled_from(SEMANTICS)) if kind in (UPSERT, PATCH) else None,
    )
    if draw(st.booleans()):
        set_us(change.occurred_at, draw(st.integers(1, 5)))
    return change


@dataclass(frozen=True)
class Step:
    """An envelope arrives, and then something happens on the stream."""

    changes: Sequence[types_pb2.FileChange]
    received_us: int
    again: int | None
    """It is a redelivery of this one, counted from the first, if it was before; None: a delivery of its own."""
    after_s: float
    sends: bool
    answers: bool
    loses_answer: bool


def steps_of(paths: Mapping[str, Sequence[str]]) -> st.SearchStrategy[list[Step]]:
    step = st.builds(
        Step,
        changes=st.lists(changes(paths), min_size=1, max_size=4),
        received_us=st.integers(1, 5),
        again=st.none() | st.integers(0, 4),
        after_s=st.sampled_from((0.0, 0.0, 0.5, 1.0, 4.0)),
        sends=st.booleans(),
        answers=st.booleans(),
        loses_answer=st.booleans(),
    )
    return st.lists(step, min_size=1, max_size=10)


LIMITS = st.builds(
    CoalesceLimits,
    window_s=st.sampled_from((0.0, 1.0, 3.0, 3.0)),
    leading=st.booleans(),
    objects_max=st.sampled_from((1, 2, 100)),
    members_max=st.sampled_from((1, 4, 1_000)),
    fold_members_max=st.sampled_from((1, 2, 100)),
    fold_bytes_max=st.sampled_from((20, 100, 10_000)),
)


class Clock:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s

    def now_us(self) -> int:
        return round(self.now_s * 1e6)


@dataclass
class Stream:
    """What the dispatcher sees of a stream."""

    address: str = "node"
    queued_bytes: int = 0

    def enqueue(self, lane: Lane) -> None:
        assert lane.workspace_id == WORKSPACE


@dataclass
class Link:
    """Ingest, a store, and what is between them."""

    limits: CoalesceLimits
    batch_changes_max: int
    store: ModelStore = field(default_factory=lambda: ModelStore(PlanLimits(clock_skew_max_us=2)))
    rows: dict[int, bytes] = field(default_factory=dict)
    clock: Clock = field(default_factory=Clock)
    stream: Stream = field(default_factory=Stream)
    flying: tuple[SentBatch, shard_pb2.SubBatchAck] | None = None

    def __post_init__(self) -> None:
        self.dispatcher = Dispatcher(
            Coalescer(self.limits),
            RecentPayloads(lambda row_id, offset, length: self.rows[row_id][offset : offset + length], 200),
            Router(("node",), 256),
            DispatchLimits(self.batch_changes_max, 1 << 30),
            DispatchPorts(
                stream_of=lambda address: self.stream,  # type: ignore[arg-type,return-value]  # as far as it is used
                hungry=lambda lane: None,
                has_room=lambda: None,
                finished=lambda row_ids: None,
                clock=self.clock,
            ),
        )

    def arrive(self, envelope: types_pb2.Envelope) -> None:
        row = PayloadBuilder(len(self.rows) + 1, WORKSPACE)
        row.add(envelope, envelope.SerializeToString())
        self.rows[row.row_id] = row.payload()
        self.dispatcher.stored(row)
        self.dispatcher.arrived(row)

    def send(self, *, twice: bool) -> bool:
        """The next sub-batch is applied; its answer is on the way. False: there is none, or one has no answer yet."""
        lane = self.dispatcher.lanes.get(WORKSPACE)
        if self.flying is not None or lane is None:
            return False
        parcels = self.dispatcher.take(self.stream, lane, 300)  # type: ignore[arg-type]  # as far as it is used
        if not parcels:
            return False
        batch = SentBatch(lane, parcels, 1)
        lane.in_flight = True
        ack = self.apply(batch)
        self.flying = batch, self.apply(batch) if twice else ack
        return True

    def apply(self, batch: SentBatch) -> shard_pb2.SubBatchAck:
        request = shard_pb2.ApplyEnvelopesRequest.FromString(batch.wire())
        assert not batch.body, "nothing here is that large"
        refs: list[bytes] = []
        [workspace] = request.sub_batches[0].workspaces
        folds, _ = read_folds(workspace.folds, INGEST_ID, refs)
        outcomes = self.store.outcomes_of(*folds)
        ack = shard_pb2.SubBatchAck()
        for ref, outcome in zip(refs, outcomes, strict=True):
            if outcome is None:
                ack.content_needed.append(ref)
            else:
                ack.spool_refs += ref
                ack.outcomes.append(int(outcome))  # type: ignore[arg-type]  # the same numbers
        return ack

    def answer(self) -> None:
        if self.flying is not None:
            batch, ack = self.flying
            self.flying = None
            self.dispatcher.answered(batch, ack)
            batch.lane.in_flight = False

    def finish(self) -> None:
        self.dispatcher.release()
        self.answer()
        for _ in range(1_000):
            if not self.send(twice=False):
                break
            self.answer()
        assert self.dispatcher.pending == 0
        assert self.stream.queued_bytes == 0
        self.store.check()


def envelopes(steps: Sequence[Step]) -> list[types_pb2.Envelope]:
    """Complete, as a front gives them to the intake."""
    made = []
    for number, step in enumerate(steps):
        first = number if step.again is None or step.again >= number else step.again
        envelope = types_pb2.Envelope(
            envelope_id=f"e{number}",
            workspace_id=WORKSPACE,
            provider="github",
            delivery_id=f"d{first}",
            changes=steps[first].changes,
        )
        complete(envelope, Arrival(step.received_us), lambda: "")
        made.append(envelope)
    return made


def one_by_one(arrived: Sequence[types_pb2.Envelope]) -> ModelStore:
    store = ModelStore(PlanLimits(clock_skew_max_us=2))
    for envelope in arrived:
        before: dict[str, int] = {}
        for index, change in enumerate(envelope.changes):
            key = change_key(change.provider_object_id, change.path, index)
            before[key] = before.get(key, 0) + 1
            part = f"#{before[key]}" if before[key] > 1 else ""
            member = Member(
                kind=MemberKind(change.kind),
                envelope_id=envelope.envelope_id,
                delivery_id=envelope.delivery_id + part,
                change_index=index,
                path=change.path,
                provider_object_id=change.provider_object_id,
                received_us=to_us(envelope.received_at),
                occurred_us=to_us(change.occurred_at) if change.HasField("occurred_at") else None,
                content=change.content,
                content_type=change.content_type,
                semantics=semantics_of(change.semantics),
                correlation_id=envelope.correlation_id,
                traceparent="",
            )
            store.apply(Fold(envelope.provider, key, (member,), INGEST_ID))
    return store


def files(store: ModelStore) -> dict[str, object]:
    tree = store.tree()
    return {
        path: (tree[path], row.content_type, row.semantics, row.stale_since_us, row.provider, row.object_key)
        for path, row in store.files.items()
    }


def objects(store: ModelStore) -> dict[str, ObjectRow]:
    return {row.key.key: row for row in store.objects.values()}


def run(limits: CoalesceLimits, steps: list[Step], batch_changes_max: int) -> tuple[ModelStore, ModelStore]:
    """The store behind ingest, and the one that got everything one by one."""
    link = Link(limits, batch_changes_max)
    arrived = envelopes(steps)
    for step, envelope in zip(steps, arrived, strict=True):
        link.clock.now_s += step.after_s
        link.dispatcher.expire()
        link.arrive(envelope)
        if step.answers:
            link.answer()
        if step.sends:
            link.send(twice=step.loses_answer)
    link.finish()
    return link.store, one_by_one(arrived)


ALL = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
BATCHES = st.sampled_from((1, 3, 100))


@ALL
@given(LIMITS, steps_of(APART), BATCHES)
def test_changes_end_as_one_by_one(limits: CoalesceLimits, steps: list[Step], batch_changes_max: int) -> None:
    store, expected = run(limits, steps, batch_changes_max)
    assert files(store) == files(expected)
    assert objects(store) == objects(expected)


@ALL
@given(LIMITS, steps_of(RIVALS), BATCHES)
def test_changes_of_rivals_end_as_one_by_one(limits: CoalesceLimits, steps: list[Step], batch_changes_max: int) -> None:
    store, expected = run(limits, steps, batch_changes_max)
    assert files(store) == files(expected)
    assert objects(store) == objects(expected)


def test_what_one_delivery_says_of_one_object_goes_together() -> None:
    limits = CoalesceLimits(3.0, True, 100, 1_000, 100, 10_000)
    link = Link(limits, 100)
    kinds = ((UPSERT, b'{"k":1}'), (DELETE, b""), (UPSERT, b'{"k":2}'))
    changes = [types_pb2.FileChange(kind=kind, path="/a", content=content) for kind, content in kinds]
    link.arrive(envelopes([Step(changes, 1, None, 0.0, sends=True, answers=True, loses_answer=False)])[0])
    link.send(twice=True)
    link.answer()
    assert (link.store.tree(), link.dispatcher.pending) == ({"/a": b'{"k":2}'}, 0)
    assert len(link.store.events) == 1
    assert link.dispatcher.counters.outcomes.total() == 3


def test_a_path_that_no_change_names_is_taken_as_in_another_order() -> None:
    """The limit of the equation (docs/adr/0013): changes of two objects pass each other, those of one never do."""
    said = (
        ("issue/1", "/a/1", b'{"k":1}', 0.0),
        ("issue/2", "/b/1", b'{"k":2}', 4.0),
        ("issue/2", "/a/1", b'{"k":3}', 0.0),  # held; nobody says that issue/1 is there
        ("issue/1", "", b'{"k":4}', 0.0),
    )
    steps = [
        Step(
            [types_pb2.FileChange(kind=UPSERT, provider_object_id=name, path=path, content=content)],
            number + 1, None, after_s, sends=True, answers=True, loses_answer=False,
        )
        for number, (name, path, content, after_s) in enumerate(said)
    ]  # fmt: skip
    store, expected = run(CoalesceLimits(3.0, True, 100, 1_000, 100, 10_000), steps, 100)
    first, second, taking, last = envelopes(steps)
    assert expected.tree() == {"/a/1": b'{"k":3}', "/github/issue_1.json": b'{"k":4}'}
    other_order = one_by_one((first, second, last, taking))
    assert files(store) == files(other_order)
    assert objects(store) == objects(other_order)
    assert store.tree() == {"/a/1": b'{"k":3}'}
