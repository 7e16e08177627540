from relayfile.model import MemberKind
from relayfile.store.plan.entry import Entry, Fold
from relayfile.store.plan.needs import first_needs, more_needs
from relayfile.store.plan.rows import DeliveryKey, DuplicateKey, ObjectKey, duplicate_key
from relayfile.store.plan.slice import Slice
from tests.fakes.model_store import WORKSPACE, Deliveries, ModelStore

UPSERT, PATCH = MemberKind.UPSERT, MemberKind.PATCH


def test_the_first_round_is_what_the_entry_names() -> None:
    make = Deliveries()
    member = make.member(UPSERT, "/a/b/c", b"1")
    ignored = Fold("github", "n:0", (make.member(MemberKind.IGNORED),))
    needs = first_needs(Entry(WORKSPACE, (make.fold("issue/1", [member]), ignored)))
    assert needs.deliveries == {DeliveryKey("github", "d1", "o:issue/1"), DeliveryKey("github", "d2", "n:0")}
    assert needs.objects == {ObjectKey("github", "o:issue/1")}
    assert (needs.files, needs.directories) == ({"/a/b/c"}, {"/", "/a", "/a/b"})


def test_an_edit_of_a_known_object_needs_one_round() -> None:
    store, make = ModelStore(), Deliveries()
    store.apply(make.fold("issue/1", [make.member(UPSERT, "/a/b", b"1")]))
    entry = Entry(WORKSPACE, (make.fold("issue/1", [make.member(UPSERT, "/a/b", b"2")]),))
    loaded = Slice(workspace=store.workspace, objects=store.objects, files=store.files, directories=store.directories)
    assert not more_needs(entry, loaded)


def test_a_new_path_asks_what_is_in_the_way() -> None:
    store, make = ModelStore(), Deliveries()
    entry = Entry(WORKSPACE, (make.fold("issue/1", [make.member(UPSERT, "/a/b/c", b"1")]),))
    loaded = Slice(workspace=store.workspace)
    needs = more_needs(entry, loaded)
    assert (needs.files, needs.directories) == ({"/a", "/a/b"}, {"/a/b/c"})
    assert not more_needs(entry, loaded), "nothing is asked twice"


def test_a_patch_needs_the_content_and_a_known_one_does_not() -> None:
    store, make = ModelStore(), Deliveries()
    store.apply(make.fold("issue/1", [make.member(UPSERT, "/a", b"{}")]))
    patch = make.fold("issue/1", [make.member(PATCH, "/a", b'{"k":1}')])
    assert store.load(Entry(WORKSPACE, (patch,))).contents == {1: b"{}"}
    store.apply(patch)
    assert store.load(Entry(WORKSPACE, (patch,))).contents == {}


def test_only_another_envelope_asks_for_duplicates() -> None:
    store, make = ModelStore(), Deliveries()
    fold = make.fold("issue/1", [make.member(UPSERT, "/a", b"1", delivery_id="d")])
    store.apply(fold)
    again = make.fold("issue/1", [make.member(UPSERT, "/a", b"1", delivery_id="d", envelope_id="other")])
    asked = [
        more_needs(Entry(WORKSPACE, (one,)), Slice(workspace=store.workspace, deliveries=store.deliveries)).duplicates
        for one in (fold, again)
    ]
    change = DeliveryKey("github", "d", "o:issue/1")
    assert asked == [set(), {duplicate_key("other", change), DuplicateKey("other", 0)}]


def test_a_patch_of_an_unknown_object_needs_what_stands_at_its_default_path() -> None:
    store, make = ModelStore(), Deliveries()
    store.apply(make.fold("issue/1", [make.member(UPSERT, "/github/issue_2.json", b'{"a":1}')]))
    store.files = {path: row._replace(provider="", object_key="") for path, row in store.files.items()}
    store.objects.clear()
    store.apply(make.fold("issue/2", [make.member(PATCH, "", b'{"b":2}', object_id="issue/2")]))
    assert store.tree() == {"/github/issue_2.json": b'{\n  "a": 1,\n  "b": 2\n}\n'}
