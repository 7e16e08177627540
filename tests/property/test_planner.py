"""The planner against itself, against recomputation, and against a slow and simple reference."""

from dataclasses import dataclass

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relayfile.model import MemberKind, Outcome, Semantics
from relayfile.store.plan.entry import Fold, Member
from relayfile.store.plan.limits import PlanLimits
from relayfile.watermark import stamp, wins_over
from tests.fakes.model_store import Deliveries, ModelStore

UPSERT, DELETE, PATCH, SIGNAL = MemberKind.UPSERT, MemberKind.DELETE, MemberKind.PATCH, MemberKind.SIGNAL
OBJECTS = ("issue/1", "issue/2", "pull/1")
# Files over directories and directories over files, a refused marker, and the object's own path.
PATHS = ("/a/1", "/a/2", "/a", "/a/1/x", "/b/c/d", "/.relayfile.acl", "")
CONTENTS = (b'{"k":1}', b'{"k":2,"l":{"m":3}}', b"not json", b"")
PATCHES = (b'{"k":5}', b'{"k":null}', b'{"l":{"m":4}}', b'{"l":7}', b"[1]", b"not json", b"{}")
TIMES = st.integers(min_value=1, max_value=6)
ALL = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@dataclass(frozen=True)
class Change:
    """What hypothesis draws; a member is made of it."""

    object_id: str
    kind: MemberKind
    path: str
    content: bytes
    occurred_us: int | None
    received_us: int
    semantics: Semantics
    delivery: int | None
    """Small, so that deliveries come again; None: its own."""


@st.composite
def changes(draw: st.DrawFn, kinds: tuple[MemberKind, ...] = (UPSERT, DELETE, PATCH, SIGNAL)) -> Change:
    kind = draw(st.sampled_from(kinds))
    content = draw(st.sampled_from(PATCHES if kind is PATCH else CONTENTS)) if kind in {UPSERT, PATCH} else b""
    return Change(
        object_id=draw(st.sampled_from(OBJECTS)),
        kind=kind,
        path=draw(st.sampled_from(PATHS)),
        content=content,
        occurred_us=draw(st.none() | TIMES),
        received_us=draw(TIMES),
        semantics=draw(
            st.sampled_from((Semantics(), Semantics(properties={"a": "b"}), Semantics(permissions=("public",))))
        ),
        delivery=draw(st.none() | st.integers(0, 3)),
    )


def members(drawn: list[Change]) -> list[tuple[str, Member]]:
    """(object id, member) with ids of envelopes and deliveries; a repeated delivery has another envelope each time."""
    make = Deliveries()
    return [
        (
            change.object_id,
            make.member(
                change.kind,
                change.path,
                change.content,
                occurred_us=change.occurred_us,
                received_us=change.received_us,
                semantics=change.semantics,
                object_id=change.object_id,
                delivery_id="" if change.delivery is None else f"again{change.delivery}",
            ),
        )
        for change in drawn
    ]


def folded(drawn: list[tuple[str, Member]], *, elide: bool) -> list[Fold]:
    """One fold for each object, in order of the first member, with contents elided by the shared rule."""
    groups: dict[str, list[Member]] = {}
    for object_id, member in drawn:
        groups.setdefault(object_id, []).append(member)
    make = Deliveries()
    return [make.fold(name, elided(group) if elide else group) for name, group in groups.items()]


def elided(group: list[Member]) -> list[Member]:
    stamps = [stamp(member.kind, member.occurred_us, member.received_us) for member in group]
    kept: list[Member] = []
    for index, member in enumerate(group):
        superfluous = member.kind is UPSERT and any(
            other != index and wins_over(stamps[other], stamps[index], winner_is_later=other > index)
            for other in range(len(group))
        )
        kept.append(member._replace(content=None) if superfluous else member)
    return kept


def apply_and_send_again(store: ModelStore, folds: list[Fold], whole: list[Fold]) -> None:
    """Apply as ingest does: a fold that needs an elided content comes again with all of them, before later ones."""
    for fold, complete in zip(folds, whole, strict=True):
        results = store.apply(fold)[0]
        if results[0].outcome is None:
            assert all(result.outcome is None for result in results)
            store.check()
            results = store.apply(complete)[0]
        assert all(result.outcome is not None for result in results)


@ALL
@given(st.lists(changes(), max_size=12), st.lists(st.booleans(), max_size=12))
def test_what_plans_maintain_equals_recomputation(drawn: list[Change], cuts: list[bool]) -> None:
    store = ModelStore()
    entry: list[tuple[str, Member]] = []
    accepted = 0
    for index, one in enumerate(members(drawn)):
        entry.append(one)
        accepted += 1
        if index >= len(cuts) or cuts[index]:
            store.apply(*[Deliveries().fold(object_id, [member]) for object_id, member in entry])
            entry = []
            store.check()
    assert sum(store.outcomes.values()) == accepted - len(entry)


@ALL
@given(st.lists(changes(), max_size=5), st.lists(changes(), min_size=1, max_size=7))
def test_a_fold_does_what_its_members_do_one_by_one(before: list[Change], drawn: list[Change]) -> None:
    # What was before came through another ingest process, whose clock is apart by up to 2.
    one_by_one, at_once = (ModelStore(PlanLimits(clock_skew_max_us=2)) for _ in range(2))
    chosen = [Change(**{**vars(change), "object_id": OBJECTS[0]}) for change in drawn]
    prepared, incoming = members(before), members(chosen)
    for store in (one_by_one, at_once):
        for object_id, member in prepared:
            store.apply(Deliveries().fold(object_id, [member], "other"))
    for object_id, member in incoming:
        one_by_one.apply(Deliveries().fold(object_id, [member._replace(delivery_id=member.envelope_id)]))
    renamed = [(object_id, member._replace(delivery_id=member.envelope_id)) for object_id, member in incoming]
    apply_and_send_again(at_once, folded(renamed, elide=True), folded(renamed, elide=False))
    at_once.check()
    assert at_once.tree() == one_by_one.tree()
    assert {path: row.semantics for path, row in at_once.files.items()} == {
        path: row.semantics for path, row in one_by_one.files.items()
    }
    assert _identities(at_once) == _identities(one_by_one)


def _identities(store: ModelStore) -> dict[str, tuple[str | None, str | None]]:
    return {row.key.key: (row.path, row.displaced_from) for row in store.objects.values()}


@ALL
@given(st.lists(changes(), min_size=1, max_size=10))
def test_an_entry_does_what_its_folds_do_one_by_one(drawn: list[Change]) -> None:
    one_by_one, at_once = ModelStore(), ModelStore()
    folds = [Deliveries().fold(object_id, [member]) for object_id, member in members(drawn)]
    for fold in folds:
        one_by_one.apply(fold)
    at_once.apply(*folds)
    at_once.check()
    assert at_once.tree() == one_by_one.tree()
    assert at_once.objects == one_by_one.objects
    revised = [event.path for event in at_once.events]
    assert len(revised) == len(set(revised)), "one event for each path"
    decided_alone = {Outcome.STALE, Outcome.DUPLICATE, Outcome.DEAD_LETTERED}
    for outcome in decided_alone:
        assert at_once.outcomes["github", outcome] == one_by_one.outcomes["github", outcome]


@ALL
@given(st.lists(changes(), min_size=1, max_size=8))
def test_a_resend_answers_the_same_and_counts_nothing(drawn: list[Change]) -> None:
    store = ModelStore()
    folds = folded(members(drawn), elide=False)
    first = store.apply(*folds)
    counted, files = store.outcomes.copy(), dict(store.files)
    again = store.apply(*folds)
    for results, repeated in zip(first, again, strict=True):
        assert [result.outcome for result in results] == [result.outcome for result in repeated]
        assert not any(result.counted for result in repeated)
    assert store.outcomes == counted
    assert store.files == files
    store.check()


# --- a reference that shares nothing with the planner


@dataclass
class Referee:
    """Provider-timed upserts and deletes by the letter: each object's newest change, and paths by arrival."""

    newest: dict[str, tuple[int, bool]]
    """Object -> (provider time, whether it is a delete)."""
    holders: dict[str, str]
    """Path -> object."""
    displaced: dict[str, str]
    """Object -> the path that it lost."""
    contents: dict[str, bytes]
    """Path -> content."""

    def arrive(self, object_id: str, kind: MemberKind, path: str, content: bytes, time_us: int) -> None:
        seen = self.newest.get(object_id)
        if seen is not None and (time_us < seen[0] or (time_us == seen[0] and seen[1] and kind is UPSERT)):
            return
        home = next((where for where, holder in self.holders.items() if holder == object_id), None)
        if kind is UPSERT:
            holder = self.holders.get(path)
            lost = self.displaced.get(object_id) == path and holder not in {None, object_id}
            if lost and holder is not None and time_us <= self.newest[holder][0]:
                return
            if holder not in {None, object_id}:
                assert holder is not None
                self.displaced[holder] = path
            self._leave(home)
            self.holders[path], self.contents[path] = object_id, content
            self.displaced.pop(object_id, None)
        else:
            self._leave(home)
        was_delete = seen is not None and seen[0] == time_us and seen[1]
        self.newest[object_id] = (time_us, kind is DELETE or was_delete)

    def _leave(self, path: str | None) -> None:
        if path is not None:
            del self.holders[path], self.contents[path]


FLAT_PATHS = st.sampled_from(("/x", "/y", "/d/z"))
TIMED = st.tuples(
    st.sampled_from(OBJECTS), st.sampled_from((UPSERT, UPSERT, DELETE)), FLAT_PATHS, st.sampled_from(CONTENTS), TIMES
)


@ALL
@given(st.lists(TIMED, min_size=1, max_size=25), st.integers(1, 6))
def test_provider_timed_changes_against_the_reference(
    drawn: list[tuple[str, MemberKind, str, bytes, int]], per_entry: int
) -> None:
    store, make, referee = ModelStore(), Deliveries(), Referee({}, {}, {}, {})
    folds: list[Fold] = []
    for object_id, kind, path, content, time_us in drawn:
        referee.arrive(object_id, kind, path, content, time_us)
        folds.append(make.fold(object_id, [make.member(kind, path, content, occurred_us=time_us)]))
    for start in range(0, len(folds), per_entry):
        store.apply(*folds[start : start + per_entry])
    store.check()
    assert store.tree() == dict(sorted(referee.contents.items()))


@ALL
@given(st.permutations(range(8)), st.lists(st.tuples(st.booleans(), TIMES), min_size=8, max_size=8))
def test_any_order_of_arrival_ends_the_same(order: list[int], drawn: list[tuple[bool, int]]) -> None:
    """One object, distinct contents: the newest time, and of equal ones a delete, or the last of them to arrive."""
    store, make = ModelStore(), Deliveries()
    for index in order:
        is_delete, time_us = drawn[index]
        kind = DELETE if is_delete else UPSERT
        store.apply(make.fold("issue/1", [make.member(kind, "/x", b"%d" % index, occurred_us=time_us)]))
    newest = max(time_us for _, time_us in drawn)
    last = [index for index in order if drawn[index][1] == newest]
    gone = any(drawn[index][0] for index in last)
    assert store.tree() == ({} if gone else {"/x": b"%d" % last[-1]})
