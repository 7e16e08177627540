"""Folds, elided contents and what an entry nets to (D5)."""

import json

from relayfile.model import EventType, MemberKind, Outcome
from relayfile.store.plan.entry import Fold, Member
from relayfile.store.plan.result import Plan
from relayfile.store.plan.rows import DirectoryRow
from tests.fakes.model_store import Deliveries, ModelStore

UPSERT, DELETE, PATCH, SIGNAL = MemberKind.UPSERT, MemberKind.DELETE, MemberKind.PATCH, MemberKind.SIGNAL
APPLIED, COALESCED, UNCHANGED, STALE = Outcome.APPLIED, Outcome.COALESCED, Outcome.UNCHANGED, Outcome.STALE
DEAD = Outcome.DEAD_LETTERED


class World:
    def __init__(self) -> None:
        self.store, self.make = ModelStore(), Deliveries()

    def member(self, kind: MemberKind, content: bytes | None = b"", at: int | None = None, path: str = "/a") -> Member:
        return self.make.member(kind, path, content, occurred_us=at)

    def fold(self, *members: Member, name: str = "issue/1") -> Fold:
        return self.make.fold(name, members)

    def do(self, *folds: Fold) -> list[Outcome | None]:
        outcomes = self.store.outcomes_of(*folds)
        self.store.check()
        return outcomes


def test_a_fold_is_one_revision_one_event_one_content() -> None:
    world = World()
    elided = [world.member(UPSERT, None, at) for at in (1, 3, 2)]
    outcomes = world.do(world.fold(*elided, world.member(UPSERT, b"4", 4), world.member(UPSERT, b"0", 0)))
    assert outcomes == [COALESCED, COALESCED, STALE, APPLIED, STALE]
    assert world.store.tree() == {"/a": b"4"}
    assert [(event.revision, event.correlation_id) for event in world.store.events] == [(1, "c4")]


def test_folds_of_one_object_in_one_entry_net_to_one_revision() -> None:
    world = World()
    world.do(world.fold(world.member(UPSERT, b"0")))
    assert world.do(world.fold(world.member(UPSERT, b"1")), world.fold(world.member(UPSERT, b"2"))) == [
        COALESCED,
        APPLIED,
    ]
    assert len(world.store.events) == 2
    assert len(world.store.contents) == 1


def test_a_net_effect_of_nothing_is_unchanged() -> None:
    world = World()
    row = world.store.apply(world.fold(world.member(UPSERT, b"0"))) and world.store.files["/a"]
    there_and_back = [world.member(UPSERT, b"1"), world.member(UPSERT, b"1"), world.member(UPSERT, b"0")]
    assert world.do(world.fold(*there_and_back)) == [UNCHANGED] * 3
    assert world.do(world.fold(world.member(DELETE), world.member(UPSERT, b"0"))) == [UNCHANGED] * 2
    assert world.do(world.fold(world.member(UPSERT, path="/b"), world.member(UPSERT, b"0"))) == [UNCHANGED] * 2
    born_and_gone = world.fold(world.member(UPSERT, b"1", path="/b"), world.member(DELETE), name="issue/2")
    assert world.do(born_and_gone) == [UNCHANGED] * 2
    assert world.store.files == {"/a": row}
    assert len(world.store.events) == 1


def test_a_signal_among_changes() -> None:
    world = World()
    assert world.do(world.fold(world.member(UPSERT, b"1"), world.member(SIGNAL))) == [COALESCED, APPLIED]
    assert world.store.files["/a"].stale_since_us is not None
    assert world.do(world.fold(world.member(SIGNAL), world.member(UPSERT, b"1"))) == [UNCHANGED, UNCHANGED]
    assert world.store.files["/a"].stale_since_us is None


def test_a_fold_whose_content_was_not_sent_leaves_no_trace() -> None:
    world = World()
    world.do(world.fold(world.member(UPSERT, b"0"), name="issue/9"))
    # The winner fails alone, so that the elided content is needed after all.
    members = (world.member(UPSERT, None, 1), world.member(UPSERT, b"2", 2, path="/bad//path"))
    planned = world.store.plan(world.fold(*members))
    assert [[result.outcome for result in results] for results in planned.results] == [[None, None]]
    assert planned == Plan(planned.workspace_id, world.store.workspace, results=planned.results)
    whole = (members[0]._replace(content=b"1"), members[1])
    assert world.do(world.fold(*whole)) == [APPLIED, Outcome.DEAD_LETTERED]
    assert world.store.tree() == {"/a": b"1"}


def test_other_folds_of_the_entry_go_on() -> None:
    world = World()
    undecided = world.fold(world.member(UPSERT, None, 1))
    before = world.fold(world.member(UPSERT, b"1", path="/b"), name="issue/2")
    after = world.fold(world.member(UPSERT, b"2", path="/a/b"), name="issue/3")
    assert world.do(before, undecided, after) == [APPLIED, None, APPLIED]
    assert world.store.tree() == {"/b": b"1", "/a/b": b"2"}


def test_an_undecided_takeover_is_taken_back() -> None:
    world = World()
    world.do(world.fold(world.member(UPSERT, b"0", 5), name="issue/9"))
    before = dict(world.store.objects), dict(world.store.files)
    assert world.do(world.fold(world.member(UPSERT, None, 1), world.member(PATCH, b'{"a":1}', 2))) == [None, None]
    assert (world.store.objects, world.store.files) == before


def test_a_patch_on_an_elided_content_cannot_be_decided() -> None:
    """It may be a dead letter, and then neither its path nor its semantics count, even if its content never shows."""
    world = World()
    members = [world.member(UPSERT, None, 1), world.member(PATCH, b'{"a":1}', 2), world.member(UPSERT, b"3", 3)]
    assert world.do(world.fold(*members)) == [None] * 3
    members[0] = members[0]._replace(content=b"{}")
    assert world.do(world.fold(*members)) == [COALESCED, COALESCED, APPLIED]


def test_a_created_and_deleted_object_is_remembered() -> None:
    world = World()
    world.do(world.fold(world.member(UPSERT, None, 5), world.member(DELETE, at=6)))
    assert world.do(world.fold(world.member(UPSERT, b"late", 5))) == [STALE]


def test_every_directory_row_is_written_once() -> None:
    world = World()
    folds = [world.fold(world.member(UPSERT, b"12", path=f"/d/{n % 3}/{n}"), name=f"issue/{n}") for n in range(30)]
    planned = world.store.plan(*folds)
    assert [event.type for event in planned.events] == [EventType.FILE_CREATED] * 30
    totals = {path: row._replace(digest=0) for path, row in planned.directories_put.items()}
    assert totals == {
        "/": DirectoryRow("/", 30, 60, 0, 0, 1, 30),
        "/d": DirectoryRow("/d", 30, 60, 0, 0, 3, 30),
        "/d/0": DirectoryRow("/d/0", 10, 20, 0, 0, 10, 28),
        "/d/1": DirectoryRow("/d/1", 10, 20, 0, 0, 10, 29),
        "/d/2": DirectoryRow("/d/2", 10, 20, 0, 0, 10, 30),
    }


def test_a_directory_goes_with_its_last_file() -> None:
    world = World()
    world.do(world.fold(world.member(UPSERT, b"1", path="/d/e/f")))
    planned = world.store.plan(world.fold(world.member(DELETE)))
    assert planned.directories_deleted == {"/d", "/d/e"}
    assert planned.directories_put == {"/": DirectoryRow("/", 0, 0, 0, 0, 0, 2)}
    assert planned.contents_released == [1]


def test_what_follows_an_undecided_fold_of_its_object_waits_for_it() -> None:
    make = Deliveries()
    whole = [make.member(UPSERT, "/a", b'{"a":1}', received_us=1), make.member(UPSERT, "/..", b"{}", received_us=2)]
    elided = [whole[0]._replace(content=None), whole[1]]
    following = make.fold("issue/1", [make.member(PATCH, "/a", b'{"b":2}', received_us=3)])
    other = make.fold("issue/2", [make.member(UPSERT, "/c", b"3")])
    store = ModelStore()
    assert store.outcomes_of(make.fold("issue/1", elided), following, other) == [None, None, None, APPLIED]
    assert store.outcomes_of(make.fold("issue/1", whole), following) == [COALESCED, DEAD, APPLIED]
    assert json.loads(store.tree()["/a"]) == {"a": 1, "b": 2}
    store.check()
