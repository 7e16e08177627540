"""A verdict is of what is so now: also in a mirror that nobody follows, when a conflict or a halt was ended."""

import json
import pathlib
from collections.abc import AsyncIterator

import pytest

from relayfile.errors import MirrorRefused
from relayfile.syncd.audit import Verdict
from relayfile.syncd.mirror import Mirror
from relayfile.syncd.progress import Via
from relayfile.syncd.registry import Registry
from relayfile.syncd.resolve import Choice
from tests.fakes.mirror import tree_of
from tests.fakes.registry import add, contents, serving
from tests.fakes.store import FakeStore


@pytest.fixture
def store() -> FakeStore:
    store = FakeStore()
    store.fill({"/a": "first", "/b": "first"} | {f"/d/{number}": f"{number}" for number in range(200)})
    return store


@pytest.fixture
async def registry(tmp_path: pathlib.Path, store: FakeStore) -> AsyncIterator[Registry]:
    async with store.served() as address, serving(address, tmp_path) as registry:
        yield registry


@pytest.fixture
async def mirror(tmp_path: pathlib.Path, registry: Registry) -> Mirror:
    mirror = add(registry, tmp_path, follow=False, read_only=False)
    await pull(mirror)
    return mirror


async def pull(mirror: Mirror) -> None:
    mirror.cadence.swept_at = float("-inf")
    await mirror.pull(full=False, via=Via.ANY)


async def conflicting(tmp_path: pathlib.Path, mirror: Mirror, store: FakeStore) -> None:
    (tmp_path / "mirror" / "a").write_text("mine")
    store.put("/a", "theirs")
    await pull(mirror)
    assert verdict(mirror) is Verdict.EXACT_EXCEPT_LISTED


async def resolve(mirror: Mirror, choice: Choice) -> None:
    assert mirror.opened is not None
    await mirror.resolve(mirror.opened.journal.conflicts.page(("", ""), 10), choice)


def verdict(mirror: Mirror) -> Verdict:
    assert mirror.seen.audited is not None
    return mirror.seen.audited.result.verdict


def told(tmp_path: pathlib.Path) -> object:
    """As agents read it."""
    return json.loads((tmp_path / "mirror" / ".relayfile" / "status.json").read_text())["verdict"]


async def test_a_conflict_that_ended_with_theirs_is_in_no_verdict(
    tmp_path: pathlib.Path, mirror: Mirror, store: FakeStore
) -> None:
    await conflicting(tmp_path, mirror, store)
    await resolve(mirror, Choice.THEIRS)
    assert (verdict(mirror), told(tmp_path)) == (Verdict.EXACT, "exact")


async def test_a_conflict_that_ended_with_mine_differs_until_it_is_flushed(
    tmp_path: pathlib.Path, mirror: Mirror, store: FakeStore
) -> None:
    await conflicting(tmp_path, mirror, store)
    await resolve(mirror, Choice.MINE)
    assert (verdict(mirror), told(tmp_path)) == (Verdict.DIFFERENT, "different")
    await mirror.flush()
    assert tree_of(tmp_path) == contents(store)
    assert (verdict(mirror), told(tmp_path)) == (Verdict.EXACT, "exact")
    assert mirror.seen.audited is not None
    assert mirror.seen.audited.result.at.revision == store.revision


async def test_approved_deletes_are_in_no_verdict(tmp_path: pathlib.Path, mirror: Mirror, store: FakeStore) -> None:
    for number in range(200):
        store.delete(f"/d/{number}")
    with pytest.raises(MirrorRefused, match="MASS_DELETE"):
        await pull(mirror)
    assert mirror.seen.halt is not None
    assert mirror.seen.halt.plan is not None
    await mirror.approve_deletes(mirror.seen.halt.plan.plan_id)
    assert tree_of(tmp_path) == contents(store)
    assert (verdict(mirror), told(tmp_path)) == (Verdict.EXACT, "exact")
    assert mirror.seen.audited is not None
    assert mirror.seen.audited.result.at.revision == store.revision


async def test_deletes_of_the_directory_that_are_restored_are_in_no_verdict(
    tmp_path: pathlib.Path, mirror: Mirror, store: FakeStore
) -> None:
    for number in range(200):
        (tmp_path / "mirror" / "d" / str(number)).unlink()
    with pytest.raises(MirrorRefused, match="MASS_DELETE"):
        await pull(mirror)
    assert mirror.seen.halt is not None
    assert mirror.seen.halt.plan is not None
    await mirror.approve_deletes(mirror.seen.halt.plan.plan_id, restore=True)
    assert tree_of(tmp_path) == contents(store)
    assert (verdict(mirror), told(tmp_path)) == (Verdict.EXACT, "exact")


async def test_a_decision_holds_although_the_store_does_not_say_what_it_has(
    tmp_path: pathlib.Path, mirror: Mirror, store: FakeStore
) -> None:
    for number in range(200):
        store.delete(f"/d/{number}")
    with pytest.raises(MirrorRefused, match="MASS_DELETE"):
        await pull(mirror)
    assert mirror.seen.halt is not None
    assert mirror.seen.halt.plan is not None
    compared = mirror.seen.audited
    store.knobs.refusal = store.knobs.cut_with
    await mirror.approve_deletes(mirror.seen.halt.plan.plan_id)
    assert tree_of(tmp_path) == contents(store)
    assert mirror.seen.audited == compared, "nothing newer is known"
    assert mirror.seen.error is not None
    assert mirror.seen.error.reason == "UNAVAILABLE"
