"""The table of `if_revision`, every cell: write, delete and move, of a file that is there and of one that is not."""

import pytest

from relayfile.errors import FileNotFound, PreconditionRequired, RelayfileError, RevisionConflict
from relayfile.model import Origin
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
from relayfile.store.plan.slice import Slice
from tests.fakes.model_store import WORKSPACE, ModelStore

BY = Author(Origin.AGENT, "agent-1")
THERE, MISSING = "/there", "/missing"
OK = None


def store_with_a_file() -> ModelStore:
    """`/there` is at revision 2."""
    store = ModelStore()
    mutate(store, FileWrite(THERE, b"1", BY, 0), FileWrite(THERE, b"2", BY, 1))
    return store


def mutate(store: ModelStore, *mutations: FileMutation) -> MutationsPlan:
    loaded = Slice(workspace=store.workspace)
    store.answer(write_needs(mutations), loaded)
    store.answer(more_write_needs(mutations, loaded), loaded)
    planned = plan_mutations(WORKSPACE, mutations, loaded, now_us=1, limits=PlanLimits())
    if planned.plan is not None:
        store.commit(planned.plan)
    store.check()
    return planned


@pytest.mark.parametrize("path", [THERE, MISSING])
@pytest.mark.parametrize(
    ("kind", "if_revision", "force", "missing", "there"),
    [
        ("write", None, False, PreconditionRequired, PreconditionRequired),
        ("write", None, True, OK, OK),
        ("write", 0, False, OK, RevisionConflict),
        ("write", 2, False, FileNotFound, OK),
        ("write", 1, False, FileNotFound, RevisionConflict),
        ("write", 9, False, FileNotFound, RevisionConflict),
        ("write", 9, True, OK, OK),
        ("delete", None, False, PreconditionRequired, PreconditionRequired),
        ("delete", None, True, FileNotFound, OK),
        ("delete", 2, False, FileNotFound, OK),
        ("delete", 1, False, FileNotFound, RevisionConflict),
        ("delete", 9, True, FileNotFound, OK),
        ("move", None, False, PreconditionRequired, PreconditionRequired),
        ("move", None, True, FileNotFound, OK),
        ("move", 2, False, FileNotFound, OK),
        ("move", 1, False, FileNotFound, RevisionConflict),
        ("move", 9, True, FileNotFound, OK),
    ],
)
def test_every_cell(
    kind: str,
    if_revision: int | None,
    force: bool,
    missing: type[RelayfileError] | None,
    there: type[RelayfileError] | None,
    path: str,
) -> None:
    mutations: dict[str, FileMutation] = {
        "write": FileWrite(path, b"new", BY, if_revision, force),
        "delete": FileDelete(path, BY, if_revision, force),
        "move": FileMove(path, "/elsewhere", BY, if_revision, force),
    }
    store = store_with_a_file()
    planned = mutate(store, mutations[kind])
    expected = there if path == THERE else missing
    [result] = planned.results
    assert store.workspace is not None
    if expected is not None:
        assert type(result) is expected
        assert planned.plan is None
        assert store.tree() == {THERE: b"2"}
    else:
        assert isinstance(result, FileResult)
        assert result.revision == store.workspace.revision == (4 if kind == "move" else 3)


@pytest.mark.parametrize(("if_revision", "force"), [(0, False), (1, False), (9, False), (None, True), (None, False)])
def test_the_precondition_is_checked_only_for_a_change(if_revision: int | None, force: bool) -> None:
    [result] = mutate(store_with_a_file(), FileWrite(THERE, b"2", BY, if_revision, force)).results
    assert isinstance(result, FileResult)
    assert (result.changed, result.revision) == (False, 2)


def test_a_conflict_names_what_is_there_in_the_entry() -> None:
    planned = mutate(store_with_a_file(), FileWrite(THERE, b"3", BY, 2), FileWrite(THERE, b"4", BY, 2))
    conflict = planned.results[1]
    assert isinstance(conflict, RevisionConflict)
    assert (conflict.expected, conflict.current) == (2, 3)
    assert planned.in_the_way[1].content == b"3"
