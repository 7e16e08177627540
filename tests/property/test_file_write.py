"""Mutations of files against a dictionary, mixed with what providers do in the same workspace: planned together they do
what they do one by one, and every digest, total and binding is what the files say."""

from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relayfile.errors import (
    FileNotFound,
    InvalidPath,
    PreconditionRequired,
    QuotaExceeded,
    RelayfileError,
    RevisionConflict,
    TooLarge,
)
from relayfile.model import MemberKind, Origin, Semantics
from relayfile.paths import ancestors
from relayfile.store.plan.agent_edits import AgentEdit
from relayfile.store.plan.file_write import (
    Author,
    FileDelete,
    FileMove,
    FileMutation,
    FileResult,
    FileWrite,
    MutationsPlan,
    more_write_needs,
    plan_mutations,
    write_needs,
)
from relayfile.store.plan.limits import PlanLimits
from relayfile.store.plan.rules import differ
from relayfile.store.plan.slice import Slice
from tests.fakes.model_store import WORKSPACE, Deliveries, ModelStore

PATHS = ("/a", "/a/1", "/a/2", "/a/1/x", "/b/c/d", "/b")
ALL = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
LIMITS = PlanLimits(content_bytes_max=20, files_max=4, total_bytes_max=30)
BY = Author(Origin.AGENT, "agent-1", "c", "t")
NOW_US = 7


@dataclass(frozen=True)
class Step:
    """What hypothesis draws: a mutation, or what a provider does at `path`."""

    mutation: FileMutation
    by_provider: bool


CONDITIONS = st.sampled_from(((None, False), (None, True), (1, True), (1, False), (2, False), (3, False), (4, False)))
RULES = st.sampled_from((None, None, Semantics(), Semantics(permissions=("scope:x", "tag"))))


def writes(path: str, content: bytes, at: tuple[int | None, bool], semantics: Semantics | None) -> FileMutation:
    return FileWrite(path, content, BY, *at, semantics=semantics)


MUTATIONS = st.one_of(
    st.builds(
        writes,
        st.sampled_from(PATHS),
        st.sampled_from((b"{}", b'{"a":1}', b"x" * 15, b"x" * 21)),
        CONDITIONS | st.just((0, False)),
        RULES,
    ),
    st.builds(lambda path, at: FileDelete(path, BY, *at), st.sampled_from(PATHS), CONDITIONS),
    st.builds(
        lambda path, to, at: FileMove(path, to, BY, *at), st.sampled_from(PATHS), st.sampled_from(PATHS), CONDITIONS
    ),
)
STEPS = st.builds(Step, MUTATIONS, st.integers(0, 3).map(lambda number: number == 0))


def mutate(store: ModelStore, *mutations: FileMutation, limits: PlanLimits = LIMITS) -> MutationsPlan:
    """Load, plan and commit one entry, as a node does."""
    assert store.workspace is not None
    loaded = Slice(workspace=store.workspace)
    store.answer(write_needs(mutations), loaded)
    store.answer(more_write_needs(mutations, loaded), loaded)
    before = dict(loaded.files)
    planned = plan_mutations(WORKSPACE, mutations, loaded, now_us=NOW_US, limits=limits)
    assert loaded.files == before, "a plan changes nothing of its slice"
    if planned.plan is not None:
        store.commit(planned.plan)
    return planned


def expected_refusal(store: ModelStore, asked: FileMutation) -> type[RelayfileError] | None:
    """What the rules say, from the whole state; None: it is not refused."""
    there = store.files.get(asked.path)
    target = asked.to_path if isinstance(asked, FileMove) else asked.path
    content = asked.content if isinstance(asked, FileWrite) else b""
    if len(content) > LIMITS.content_bytes_max:
        return TooLarge
    if isinstance(asked, FileWrite) and there is not None:
        semantics = there.semantics if asked.semantics is None else asked.semantics
        if content == store.contents[there.content_id] and semantics == there.semantics:
            return None
    expected = None if asked.force else asked.if_revision
    if expected is None and not asked.force:
        return PreconditionRequired
    if there is None and not (isinstance(asked, FileWrite) and expected in (None, 0)):
        return FileNotFound
    if there is not None and expected is not None and expected != there.revision:
        return RevisionConflict
    if isinstance(asked, FileDelete):
        return None
    if isinstance(asked, FileMove) and target in store.files:
        return RevisionConflict
    others = [path for path in store.files if not (isinstance(asked, FileMove) and path == asked.path)]
    if target not in store.files and (
        any(path.startswith(target + "/") for path in others) or any(path in others for path in ancestors(target))
    ):
        return InvalidPath
    return _quota(store, asked, there is None)


def _quota(store: ModelStore, asked: FileMutation, is_new: bool) -> type[RelayfileError] | None:
    if not isinstance(asked, FileWrite):
        return None
    more = len(asked.content) - (0 if is_new else store.files[asked.path].size_bytes)
    total = sum(row.size_bytes for row in store.files.values())
    if (is_new and len(store.files) + 1 > LIMITS.files_max) or (more > 0 and total + more > LIMITS.total_bytes_max):
        return QuotaExceeded
    return None


def by_provider(store: ModelStore, make: Deliveries, asked: FileMutation, number: int) -> None:
    kind = MemberKind.UPSERT if isinstance(asked, FileWrite) else MemberKind.DELETE
    content = b"%d" % number if kind is MemberKind.UPSERT else b""
    member = make.member(kind, asked.path, content, received_us=1_000 + number, object_id=asked.path)
    store.apply(make.fold(asked.path, [member]))


@ALL
@given(st.lists(STEPS, max_size=14))
def test_mutations_do_what_the_rules_say(steps: list[Step]) -> None:
    store, make = ModelStore(PlanLimits()), Deliveries()
    for number, step in enumerate(steps):
        asked = step.mutation
        if step.by_provider:
            by_provider(store, make, asked, number)
            store.check()
            continue
        refusal = expected_refusal(store, asked)
        there, tree, events = store.files.get(asked.path), store.tree(), len(store.events)
        planned = mutate(store, asked)
        store.check()
        [result] = planned.results
        if refusal is not None:
            assert type(result) is refusal
            assert (store.tree(), len(store.events), planned.edits) == (tree, events, [])
            continue
        assert isinstance(result, FileResult)
        expected = dict(tree)
        if isinstance(asked, FileWrite):
            expected[asked.path] = asked.content
        else:
            content = expected.pop(asked.path)
            if isinstance(asked, FileMove):
                expected[asked.to_path] = content
        assert store.tree() == expected
        revisions = 2 if isinstance(asked, FileMove) else int(result.changed)
        if result.changed and there is not None and isinstance(asked, FileWrite):
            semantics = there.semantics if asked.semantics is None else asked.semantics
            revisions += differ(there.semantics, semantics)
        assert len(store.events) == events + revisions
        assert len(planned.edits) == int(result.changed)
        if result.changed:
            event, edit = store.events[-1], planned.edits[-1]
            assert (event.origin, event.provider, event.correlation_id, event.traceparent) == (2, "", "c", "t")
            assert event.revision == result.revision == edit.revision
            assert (edit.actor, edit.base_revision) == ("agent-1", there.revision if there else 0)
            assert edit.before == there
        else:
            assert there is not None
            assert result.revision == there.revision


def steps_of(planned: Sequence[MutationsPlan]) -> tuple[list[object], list[AgentEdit]]:
    """Results that can be compared: content ids are the store's own business."""
    results: list[object] = []
    edits: list[AgentEdit] = []
    for each in planned:
        for result in each.results:
            if isinstance(result, FileResult):
                file = None if result.file is None else result.file._replace(content_id=0)
                results.append(result._replace(file=file))
            else:
                results.append((type(result), str(result)))
        for edit in each.edits:
            before = None if edit.before is None else edit.before._replace(content_id=0)
            after = None if edit.after is None else edit.after._replace(content_id=0)
            edits.append(edit._replace(before=before, after=after))
    return results, edits


@ALL
@given(st.lists(STEPS, max_size=5), st.lists(MUTATIONS, min_size=2, max_size=12))
def test_mutations_planned_together_do_what_they_do_one_by_one(
    before: list[Step], mutations: list[FileMutation]
) -> None:
    stores = [ModelStore(PlanLimits()), ModelStore(PlanLimits())]
    for store in stores:
        make = Deliveries()
        for number, step in enumerate(before):
            if step.by_provider:
                by_provider(store, make, step.mutation, number)
            else:
                mutate(store, step.mutation)
    together, one_by_one = stores
    all_at_once = mutate(together, *mutations)
    each = [mutate(one_by_one, mutation) for mutation in mutations]
    together.check()
    one_by_one.check()
    assert steps_of([all_at_once]) == steps_of(each)
    assert together.tree() == one_by_one.tree()
    assert together.events == one_by_one.events
    assert together.directories == one_by_one.directories
    assert together.objects == one_by_one.objects
    assert together.workspace == one_by_one.workspace
    rows = [{path: row._replace(content_id=0) for path, row in store.files.items()} for store in stores]
    assert rows[0] == rows[1]
