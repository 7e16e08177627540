"""Identity: a path belongs to at most one object, and the object's id is authoritative."""

import pytest

from relayfile.model import EventType, MemberKind, Outcome, Semantics
from relayfile.store.plan.entry import Fold
from relayfile.store.plan.rows import ObjectKey
from tests.fakes.model_store import Deliveries, ModelStore

UPSERT, DELETE, PATCH = MemberKind.UPSERT, MemberKind.DELETE, MemberKind.PATCH
APPLIED, STALE, UNCHANGED, DEAD = Outcome.APPLIED, Outcome.STALE, Outcome.UNCHANGED, Outcome.DEAD_LETTERED
CREATED, UPDATED, DELETED = EventType.FILE_CREATED, EventType.FILE_UPDATED, EventType.FILE_DELETED


class World:
    """A store with a short language."""

    def __init__(self) -> None:
        self.store, self.make = ModelStore(), Deliveries()

    def fold(self, name: str, kind: MemberKind, path: str = "", content: bytes = b"", at: int | None = None) -> Fold:
        return self.make.fold(name, [self.make.member(kind, path, content, occurred_us=at, object_id=name)])

    def put(self, name: str, path: str, content: bytes = b"x", at: int | None = None) -> Outcome | None:
        return self.do(self.fold(name, UPSERT, path, content, at))[0]

    def do(self, *folds: Fold) -> list[Outcome | None]:
        outcomes = self.store.outcomes_of(*folds)
        self.store.check()
        return outcomes

    def events(self) -> list[tuple[EventType, str, str, str]]:
        return [(event.type, event.path, event.moved_to, event.moved_from) for event in self.store.events]


def test_a_move_is_two_events_and_two_revisions() -> None:
    world = World()
    tagged = world.make.member(UPSERT, "/a", b"1", semantics=Semantics(properties={"k": "v"}))
    world.do(world.make.fold("issue/1", [tagged]))
    content_id = world.store.files["/a"].content_id
    assert world.put("issue/1", "/d/b", b"1") is APPLIED
    assert world.events()[1:] == [(DELETED, "/a", "/d/b", ""), (CREATED, "/d/b", "", "/a")]
    assert world.store.files["/d/b"].content_id == content_id, "content is not written again"
    assert world.store.files["/d/b"].semantics == tagged.semantics


def test_without_a_path_an_object_keeps_its_own_or_gets_the_default() -> None:
    world = World()
    world.put("issue/1", "", b"1")
    assert world.store.tree() == {"/github/issue_1.json": b"1"}
    world.put("issue/2", "/b", b"1")
    world.put("issue/2", "", b"2")
    world.do(world.fold("issue/1", DELETE, "/elsewhere"))
    assert world.store.tree() == {"/b": b"2"}


def test_a_delete_touches_only_its_own_file() -> None:
    world = World()
    world.put("issue/1", "/a")
    assert world.do(world.fold("issue/2", DELETE, "/a")) == [UNCHANGED]
    assert world.do(world.fold("issue/1", DELETE)) == [APPLIED]
    assert world.do(world.fold("issue/1", DELETE)) == [UNCHANGED]


def test_a_takeover_displaces_and_the_displaced_comes_back_only_newer() -> None:
    world = World()
    world.put("issue/1", "/a", b"1", at=5)
    assert world.put("issue/2", "/a", b"2", at=3) is APPLIED
    displaced = world.store.objects[ObjectKey("github", "o:issue/1")]
    assert (displaced.path, displaced.displaced_from, displaced.deleted) == (None, "/a", False)
    assert world.put("issue/2", "/a", b"2b", at=8) is APPLIED
    assert world.put("issue/1", "/a", b"1b", at=7) is STALE
    assert world.put("issue/1", "/a", b"1b", at=8) is STALE
    assert world.put("issue/1", "/a", b"1b") is STALE
    assert world.do(world.fold("issue/1", DELETE)) == [UNCHANGED]
    assert world.put("issue/1", "/a", b"1c", at=9) is APPLIED
    assert world.events() == [(CREATED, "/a", "", "")] + [(UPDATED, "/a", "", "")] * 3
    assert world.store.tree() == {"/a": b"1c"}


def test_a_displaced_object_may_go_elsewhere_or_home_when_nobody_is_there() -> None:
    world = World()
    world.put("issue/1", "/a", at=5)
    world.put("issue/2", "/a", at=6)
    assert world.put("issue/1", "/b", at=5) is APPLIED
    assert world.store.objects[ObjectKey("github", "o:issue/1")].displaced_from is None
    world.put("issue/3", "/b", at=6)
    world.do(world.fold("issue/3", DELETE, at=7))
    assert world.put("issue/1", "/b", at=5) is APPLIED


def test_a_takeover_with_the_same_content_binds_anew_without_a_revision() -> None:
    world = World()
    world.put("issue/1", "/a", b"1")
    assert world.put("issue/2", "/a", b"1") is UNCHANGED
    assert world.store.files["/a"].object_key == "o:issue/2"
    assert world.store.files["/a"].revision == 1
    assert world.do(world.fold("issue/2", PATCH, "/a", b'{"k":1}')) == [APPLIED]


def test_a_move_onto_anothers_path() -> None:
    world = World()
    world.put("issue/1", "/a", b"same")
    world.put("issue/2", "/b", b"same")
    assert world.put("issue/1", "/b", b"same") is APPLIED
    assert world.events()[2:] == [(DELETED, "/a", "/b", ""), (UPDATED, "/b", "", "/a")]
    assert world.store.objects[ObjectKey("github", "o:issue/2")].displaced_from == "/b"


def test_two_objects_change_places_in_one_entry() -> None:
    world = World()
    world.put("issue/1", "/a", b"1")
    world.put("issue/2", "/b", b"2")
    assert (
        world.do(world.fold("issue/1", UPSERT, "/b", b"1"), world.fold("issue/2", UPSERT, "/a", b"2")) == [APPLIED] * 2
    )
    assert world.store.tree() == {"/a": b"2", "/b": b"1"}
    assert world.events()[2:] == [(UPDATED, "/b", "", "/a"), (UPDATED, "/a", "", "/b")]


def test_a_provider_upsert_replaces_semantics_if_it_has_any() -> None:
    world = World()
    first, second = Semantics(properties={"a": "1"}, comments=("c",)), Semantics(relations=("r",))
    for semantics in (first, None, second):
        member = world.make.member(UPSERT, "/a", b"1", semantics=semantics)
        world.do(world.make.fold("issue/1", [member]))
    assert world.store.files["/a"].semantics == second
    assert len(world.store.events) == 2


def test_what_is_in_the_way_fails_alone() -> None:
    world = World()
    world.put("issue/1", "/a/b", b"1")
    refused = [
        ("/a", "PATH_IS_DIRECTORY"),
        ("/a/b/c/d", "PATH_UNDER_FILE"),
        ("/x//y", "INVALID_PATH"),
        ("/x/../y", "INVALID_PATH"),
        ("/", "INVALID_PATH"),
        ("/x/.relayfile.acl", "ACL_PATH_REFUSED"),
    ]
    for path, _ in refused:
        assert world.put("issue/2", path) is DEAD
    assert [letter.failure.reason for letter in world.store.dead_letters] == [reason for _, reason in refused]
    world.store.limits = world.store.limits._replace(content_bytes_max=3)
    assert world.put("issue/2", "/c", b"1234") is DEAD
    assert world.store.dead_letters[-1].failure.reason == "TOO_LARGE"
    assert world.store.tree() == {"/a/b": b"1"}


def test_an_objects_own_file_is_not_in_its_way() -> None:
    world = World()
    world.put("issue/1", "/a", b"1")
    assert world.put("issue/1", "/a/b/c", b"1") is APPLIED
    assert world.put("issue/1", "/a/b", b"1") is APPLIED
    world.put("issue/2", "/a/c", b"2")
    assert world.put("issue/1", "/a", b"1") is DEAD


def test_obstacles_come_and_go_inside_an_entry() -> None:
    world = World()
    world.put("issue/1", "/a/b", b"1")
    assert world.do(
        world.fold("issue/2", UPSERT, "/a", b"2"),
        world.fold("issue/1", DELETE),
        world.fold("issue/3", UPSERT, "/a", b"3"),
        world.fold("issue/4", UPSERT, "/a/b", b"4"),
    ) == [DEAD, APPLIED, APPLIED, DEAD]
    assert [event.path for event in world.store.events[1:]] == ["/a/b", "/a"]


def test_changes_without_an_object_id_belong_to_their_path() -> None:
    world = World()
    member = world.make.member(UPSERT, "/a", b"1")
    assert world.do(Fold("github", "p:/a", (member,))) == [APPLIED]
    assert world.put("issue/1", "/a", b"2") is APPLIED
    gone = world.make.member(DELETE, "/a")
    assert world.do(Fold("github", "p:/a", (gone,))) == [UNCHANGED]


@pytest.mark.parametrize(
    ("given", "content", "content_type"),
    [
        ("text/plain", b"{}", "text/plain"),
        ("", b' {"a":1}\n', "application/json"),
        ("", b"null", "application/json"),
        ("", b"notes", "application/octet-stream"),
        ("", b"# notes", "application/octet-stream"),
        ("", b"", "application/octet-stream"),
    ],
)
def test_the_type_of_a_content_that_came_without(given: str, content: bytes, content_type: str) -> None:
    world = World()
    world.do(world.make.fold("issue/1", [world.make.member(UPSERT, "/a", content, content_type=given)]))
    assert world.store.files["/a"].content_type == content_type
