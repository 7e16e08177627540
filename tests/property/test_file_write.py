"""Single writes and deletes against a dictionary, mixed with what providers do in the same workspace."""

from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relayfile.errors import FileNotFound, InvalidPath, RelayfileError, RevisionConflict, TooLarge
from relayfile.model import MemberKind, Origin
from relayfile.paths import ancestors
from relayfile.store.plan.file_write import FileWrite, FileWritten, more_write_needs, plan_write, write_needs
from relayfile.store.plan.limits import PlanLimits
from relayfile.store.plan.slice import Slice
from tests.fakes.model_store import WORKSPACE, Deliveries, ModelStore

PATHS = ("/a", "/a/1", "/a/2", "/a/1/x", "/b/c/d", "/b")
ALL = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
LIMITS = PlanLimits(content_bytes_max=20)


@dataclass(frozen=True)
class Step:
    """What hypothesis draws."""

    path: str
    content: bytes | None
    if_revision: int | None
    """-1: what the file is at now."""
    by_provider: bool


STEPS = st.builds(
    Step,
    st.sampled_from(PATHS),
    st.sampled_from((None, b"{}", b'{"a":1}', b"x" * 21)),
    st.sampled_from((None, -1, 0, 1, 2, 3)),
    st.booleans(),
)


def write(store: ModelStore, asked: FileWrite) -> FileWritten:
    """Load, plan and commit, as a node does."""
    assert store.workspace is not None
    loaded = Slice(workspace=store.workspace)
    store.answer(write_needs(asked), loaded)
    store.answer(more_write_needs(asked, loaded), loaded)
    before = dict(loaded.files)
    planned, written = plan_write(WORKSPACE, asked, loaded, now_us=store.workspace.revision + 1, limits=LIMITS)
    assert loaded.files == before, "a plan changes nothing of its slice"
    if planned is not None:
        store.commit(planned)
    assert (planned is None) is not written.changed
    return written


def expected_refusal(store: ModelStore, step: Step, if_revision: int | None) -> type[RelayfileError] | None:
    there = store.files.get(step.path)
    if step.content is not None and len(step.content) > LIMITS.content_bytes_max:
        return TooLarge
    if there is None:
        if step.content is None or if_revision not in (None, 0):
            return FileNotFound
        below = any(path.startswith(step.path + "/") for path in store.files)
        above = any(path in store.files for path in ancestors(step.path))
        return InvalidPath if below or above else None
    same = step.content == store.contents[there.content_id] and there.content_type == "application/json"
    if not same and if_revision is not None and if_revision != there.revision:
        return RevisionConflict
    return None


@ALL
@given(st.lists(STEPS, max_size=14))
def test_writes_and_deletes_do_what_the_table_says(steps: list[Step]) -> None:
    store, make = ModelStore(LIMITS), Deliveries()
    for number, step in enumerate(steps):
        if step.by_provider:
            kind = MemberKind.DELETE if step.content is None else MemberKind.UPSERT
            member = make.member(kind, step.path, step.content or b"", received_us=1_000 + number, object_id=step.path)
            store.apply(make.fold(step.path, [member]))
            store.check()
            continue
        there = store.files.get(step.path)
        at = there.revision if there is not None else 1
        if_revision = at if step.if_revision == -1 else step.if_revision
        if step.content is None and if_revision == 0:
            if_revision = None
        asked = FileWrite(step.path, step.content, Origin.SYSTEM, if_revision, correlation_id="c", traceparent="t")
        refusal = expected_refusal(store, step, if_revision)
        tree, assert_revision = store.tree(), store.workspace.revision if store.workspace else 0
        if refusal is not None:
            with pytest.raises(refusal):
                write(store, asked)
            assert store.tree() == tree
            continue
        written = write(store, asked)
        store.check()
        assert written.created is (there is None)
        expected = {path: content for path, content in tree.items() if path != step.path}
        assert store.tree() == (expected if step.content is None else {**expected, step.path: step.content})
        assert store.workspace is not None
        assert store.workspace.revision == assert_revision + written.changed
        if written.changed:
            event = store.events[-1]
            assert (event.origin, event.provider, event.correlation_id, event.traceparent) == (3, "", "c", "t")
            assert event.revision == written.revision
        else:
            assert there is not None
            assert written.revision == there.revision
