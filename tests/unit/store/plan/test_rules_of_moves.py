"""Whom the rules of a moved file shut out at one end is not told of that end, also when the file is gone since."""

import pytest

from relayfile.auth import Principal
from relayfile.auth.scopes import grants
from relayfile.model import EventType, MemberKind, Semantics
from relayfile.store.access import ReadAccess
from relayfile.store.plan.rows import DirectoryRow, EventRow, FileRow
from relayfile.store.plan.rules import read_carried, read_carried_of_other
from tests.fakes.model_store import Deliveries, ModelStore

NAME = "issue/1"
DELETED, CREATED = EventType.FILE_DELETED, EventType.FILE_CREATED
ALICE_S = ("agent:alice",)
SEEN = [(DELETED, "/a", "/b", ""), (CREATED, "/b", "", "/a"), (DELETED, "/b", "", "")]


class Nothing:
    """What is left when all files are gone."""

    async def file(self, path: str) -> FileRow | None:
        return None

    async def files(self, paths: list[str]) -> list[FileRow | None]:
        return [None for _ in paths]

    async def directory(self, path: str) -> DirectoryRow | None:
        return None


def moved(before: tuple[str, ...], after: tuple[str, ...]) -> list[EventRow]:
    """The events of a file that its provider moved from /a to /b, with these rules there and here, and then deleted."""
    store, make = ModelStore(), Deliveries()
    for path, permissions in (("/a", before), ("/b", after)):
        semantics = Semantics(permissions=permissions, comments=("kept",))
        member = make.member(MemberKind.UPSERT, path, b"1", semantics=semantics, object_id=NAME)
        store.outcomes_of(make.fold(NAME, [member]))
    store.outcomes_of(make.fold(NAME, [make.member(MemberKind.DELETE, "/b", b"", object_id=NAME)]))
    return [event for event in store.events if event.type in (CREATED, DELETED)][1:]


async def seen_by(subject: str, events: list[EventRow]) -> list[tuple[EventType, str, str, str]]:
    scopes = ("relayfile:fs:read",)
    caller = Principal(subject=subject, workspaces=frozenset({"w"}), scopes=scopes, expires_at_us=1 << 60)
    access = ReadAccess(caller, grants(scopes, "fs:read"))
    sight = await access.sight(Nothing())  # type: ignore[arg-type]  # all that is asked for
    return [(each.type, each.path, each.moved_to, each.moved_from) for each in await sight.events(events)]


def test_each_half_carries_the_rules_of_both_ends() -> None:
    [left, came, _] = moved((), ALICE_S)
    assert left.rules is not None
    assert came.rules is not None
    assert (read_carried(left.rules), read_carried_of_other(left.rules)) == ((), ALICE_S)
    assert (read_carried(came.rules), read_carried_of_other(came.rules)) == (ALICE_S, ())
    [left, came, _] = moved((), ())
    assert left.rules is came.rules is None


@pytest.mark.parametrize(
    ("before", "after", "shown"),
    [
        ((), (), SEEN),
        ((), ALICE_S, [(DELETED, "/a", "", "")]),
        (ALICE_S, ("public",), [(CREATED, "/b", "", ""), SEEN[2]]),
        (ALICE_S, ALICE_S, []),
    ],
)
async def test_the_other_end_is_shown_by_the_rules_of_then(
    before: tuple[str, ...], after: tuple[str, ...], shown: list[tuple[EventType, str, str, str]]
) -> None:
    events = moved(before, after)
    assert await seen_by("alice", events) == SEEN
    assert await seen_by("eve", events) == shown
