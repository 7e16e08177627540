"""Conflicts are listed and ended, one or all below a path, and no version is lost; edits are waited for."""

import asyncio
import pathlib
from collections.abc import AsyncIterator

import pytest

from relayfile.auth import ALL
from relayfile.errors import (
    ConflictNotFound,
    InvalidArgument,
    MirrorNotFound,
    MirrorRefused,
    PageTokenInvalid,
    PermissionDenied,
)
from relayfile.syncd.mirror import Mirror
from relayfile.syncd.progress import Via
from relayfile.syncd.registry import Registry
from relayfile.syncd.shown import MirrorState
from relayfile.v1 import mirror_pb2
from tests.fakes.mirror import tree_of
from tests.fakes.registry import add, caller, contents, servicer, serving, until
from tests.fakes.store import FakeStore

MINE, THEIRS = mirror_pb2.CONFLICT_CHOICE_MINE, mirror_pb2.CONFLICT_CHOICE_THEIRS


@pytest.fixture
def store() -> FakeStore:
    store = FakeStore()
    store.fill({f"/a/{number}": str(number) for number in range(3)} | {"/gone": "g", "/removed": "r"})
    return store


@pytest.fixture
async def registry(tmp_path: pathlib.Path, store: FakeStore) -> AsyncIterator[Registry]:
    async with store.served() as address, serving(address, tmp_path) as registry:
        caller(ALL)
        yield registry


async def pull(mirror: Mirror) -> None:
    mirror.cadence.swept_at = float("-inf")
    await mirror.pull(full=False, via=Via.ANY)


@pytest.fixture
async def mirror(tmp_path: pathlib.Path, registry: Registry, store: FakeStore) -> Mirror:
    """Five conflicts: three of files that both sides changed, `/gone` there and `/removed` here."""
    mirror = add(registry, tmp_path, follow=False, read_only=False)
    await pull(mirror)
    root = tmp_path / "mirror"
    for number in range(3):
        (root / "a" / str(number)).write_text(f"mine {number}")
        store.put(f"/a/{number}", f"theirs {number}")
    (root / "gone").write_text("mine")
    store.delete("/gone")
    (root / "removed").unlink()
    store.put("/removed", "theirs")
    await pull(mirror)
    return mirror


async def listed(registry: Registry, mirror: Mirror, **fields: object) -> mirror_pb2.ListConflictsResponse:
    request = mirror_pb2.ListConflictsRequest(mirror_id=mirror.record.mirror_id, **fields)  # type: ignore[arg-type]  # its fields
    return await servicer(registry).ListConflicts(request, None)


async def resolve(registry: Registry, mirror: Mirror, **fields: object) -> mirror_pb2.ResolveConflictResponse:
    request = mirror_pb2.ResolveConflictRequest(mirror_id=mirror.record.mirror_id, **fields)  # type: ignore[arg-type]  # its fields
    return await servicer(registry).ResolveConflict(request, None)


async def flush(registry: Registry, mirror: Mirror) -> mirror_pb2.FlushMirrorResponse:
    request = mirror_pb2.FlushMirrorRequest(mirror_id=mirror.record.mirror_id)
    return await servicer(registry).FlushMirror(request, None)


def trash(tmp_path: pathlib.Path) -> list[str]:
    return sorted(path.read_text() for path in (tmp_path / "mirror" / ".relayfile" / "trash").iterdir())


def kept(tmp_path: pathlib.Path) -> list[pathlib.Path]:
    return [path for path in (tmp_path / "mirror" / ".relayfile" / "conflicts").rglob("*") if path.is_file()]


async def test_conflicts_are_listed_by_path_in_pages(
    tmp_path: pathlib.Path, registry: Registry, mirror: Mirror
) -> None:
    page = await listed(registry, mirror, page_size=3)
    rest = await listed(registry, mirror, page_size=3, page_token=page.next_page_token)
    found = [*page.conflicts, *rest.conflicts]
    assert [each.remote_path for each in found] == ["/a/0", "/a/1", "/a/2", "/gone", "/removed"]
    assert rest.next_page_token == ""
    assert (tmp_path / "mirror" / found[0].kept_path).read_text() == "mine 0"
    assert (found[3].kept_path, found[3].remote_sha256, found[4].local_sha256) == ("", b"", b"")
    assert len({each.conflict_id for each in found}) == 5
    below = await listed(registry, mirror, remote_path="/a/")
    assert [each.local_path for each in below.conflicts] == ["a/0", "a/1", "a/2"]
    with pytest.raises(PageTokenInvalid):
        await listed(registry, mirror, page_token=page.next_page_token, remote_path="/a")


async def test_a_conflict_names_the_revision_on_which_both_sides_last_agreed(
    tmp_path: pathlib.Path, registry: Registry, store: FakeStore
) -> None:
    mirror = add(registry, tmp_path, follow=False, read_only=False)
    await pull(mirror)
    root = tmp_path / "mirror"
    revision = store.files["/a/0"].revision
    for number in range(2):  # more than one version that was never here
        (root / "a" / "0").write_text("mine")
        store.put("/a/0", f"theirs {number}")
        store.put("/a/0", f"theirs {number}, later")
    (root / "a" / "1").write_text("mine, and the store has it")
    await pull(mirror)
    pushed = store.files["/a/1"].revision
    (root / "a" / "1").write_text("mine")
    gone = store.files["/gone"].revision
    (root / "gone").write_text("mine")
    (root / "new").write_text("mine")
    store.put("/a/1", "theirs")
    store.delete("/gone")
    store.put("/new", "theirs")
    await pull(mirror)
    found = {each.remote_path: each.base_revision for each in (await listed(registry, mirror)).conflicts}
    assert found == {"/a/0": revision, "/a/1": pushed, "/gone": gone, "/new": 0}


async def test_mine_goes_to_its_path_and_to_the_store(
    tmp_path: pathlib.Path, registry: Registry, mirror: Mirror, store: FakeStore
) -> None:
    (first, *_) = (await listed(registry, mirror)).conflicts
    answer = await resolve(registry, mirror, conflict_id=first.conflict_id, choice=MINE, request_id="r")
    assert (answer.resolved_count, answer.open_count, len(answer.changed_conflicts)) == (1, 4, 0)
    assert tree_of(tmp_path)["/a/0"] == b"mine 0"
    assert "theirs 0" in trash(tmp_path)
    assert await resolve(registry, mirror, conflict_id=first.conflict_id, choice=MINE, request_id="r") == answer
    with pytest.raises(ConflictNotFound):
        await resolve(registry, mirror, conflict_id=first.conflict_id, choice=MINE)
    all_of_it = await resolve(registry, mirror, all_in_remote_path="/", choice=MINE)
    assert (all_of_it.resolved_count, all_of_it.open_count) == (4, 0)
    flushed = await flush(registry, mirror)
    assert (flushed.acknowledged_count, flushed.refused_count, flushed.revision) == (4, 0, store.revision)
    assert tree_of(tmp_path) == contents(store)
    assert contents(store) == {"/a/0": b"mine 0", "/a/1": b"mine 1", "/a/2": b"mine 2", "/gone": b"mine"}
    assert not kept(tmp_path)


async def test_theirs_stays_and_the_local_version_is_in_the_trash(
    tmp_path: pathlib.Path, registry: Registry, mirror: Mirror, store: FakeStore
) -> None:
    answer = await resolve(registry, mirror, all_in_remote_path="/a", choice=THEIRS)
    assert (answer.resolved_count, answer.open_count) == (3, 2)
    answer = await resolve(registry, mirror, all_in_remote_path="/", choice=THEIRS)
    assert (answer.resolved_count, answer.open_count) == (2, 0)
    await flush(registry, mirror)
    assert tree_of(tmp_path) == contents(store)
    assert contents(store) == {f"/a/{number}": f"theirs {number}".encode() for number in range(3)} | {
        "/removed": b"theirs"
    }
    assert not kept(tmp_path)
    assert mirror.opened is not None
    entries = [each for each in mirror.opened.journal.trash.page(None, 100) if each.reason == 5]
    assert {each.disk_path for each in entries} == {"a/0", "a/1", "a/2", "gone"}
    # The store never had these: they are not removed to make room.
    assert not any(each.acknowledged for each in entries if each.disk_path.startswith("a/"))
    mirror.opened.journal.trash.evict(0, 2**62, 100)
    assert {"mine 0", "mine 1", "mine 2"} <= set(trash(tmp_path))


async def test_a_side_that_changed_since_is_told_and_nothing_is_done(
    tmp_path: pathlib.Path, registry: Registry, mirror: Mirror, store: FakeStore
) -> None:
    root = tmp_path / "mirror"
    store.put("/a/0", "theirs, later")
    await pull(mirror)
    (root / "a" / "1").write_text("mine, later")
    (root / "gone").write_text("mine, later")
    answer = await resolve(registry, mirror, all_in_remote_path="/a", choice=MINE)
    assert (answer.resolved_count, answer.open_count) == (1, 4)
    assert [each.remote_path for each in answer.changed_conflicts] == ["/a/0", "/a/1"]
    assert answer.changed_conflicts[0].remote_size_bytes == len("theirs, later")
    gone = await resolve(registry, mirror, all_in_remote_path="/gone", choice=THEIRS)
    assert [each.local_size_bytes for each in gone.changed_conflicts] == [len("mine, later")]
    assert (root / "gone").read_text() == "mine, later"
    assert ((root / "a" / "0").read_text(), (root / "a" / "1").read_text()) == ("theirs, later", "mine, later")
    assert sorted(path.read_text() for path in kept(tmp_path)) == ["mine 0", "mine 1"]
    # Chosen again between the versions that were told.
    again = await resolve(registry, mirror, conflict_id=answer.changed_conflicts[0].conflict_id, choice=MINE)
    assert (again.resolved_count, (root / "a" / "0").read_text()) == (1, "mine 0")


async def test_a_flush_brings_every_edit_to_the_store(
    tmp_path: pathlib.Path, registry: Registry, store: FakeStore
) -> None:
    mirror = add(registry, tmp_path, follow=False, read_only=False)
    await pull(mirror)
    root = tmp_path / "mirror"
    (root / "new").write_text("new")
    (root / "a" / "0").unlink()
    flushed = await flush(registry, mirror)
    assert (flushed.acknowledged_count, flushed.refused_count, flushed.revision) == (2, 0, store.revision)
    assert tree_of(tmp_path) == contents(store)
    again = await flush(registry, mirror)
    assert (again.acknowledged_count, again.revision) == (0, 0)
    (root / "gone").write_text("mine")
    store.put("/gone", "theirs")
    collided = await flush(registry, mirror)
    assert (collided.acknowledged_count, collided.refused_count) == (0, 1)


async def test_a_flush_of_a_mirror_that_follows_waits_for_what_it_sends(
    tmp_path: pathlib.Path, registry: Registry, store: FakeStore
) -> None:
    mirror = add(registry, tmp_path, read_only=False)
    await until(lambda: mirror.seen.state is MirrorState.FOLLOWING)
    (tmp_path / "mirror" / "new").write_text("new")
    async with asyncio.timeout(10):
        await flush(registry, mirror)
    assert contents(store)["/new"] == b"new"


async def test_bad_requests_are_told_by_field(registry: Registry, mirror: Mirror) -> None:
    service = servicer(registry)
    with pytest.raises(InvalidArgument) as caught:
        await service.ResolveConflict(mirror_pb2.ResolveConflictRequest(request_id="r" * 129), None)
    assert {each.field for each in caught.value.violations} == {"mirror_id", "conflict_id", "choice", "request_id"}
    with pytest.raises(InvalidArgument) as caught:
        await resolve(registry, mirror, all_in_remote_path="/a/../b", choice=MINE)
    assert {each.field for each in caught.value.violations} == {"all_in_remote_path"}
    for fields, field in (({"page_size": -1}, "page_size"), ({"remote_path": "/a/../b"}, "remote_path")):
        with pytest.raises(InvalidArgument) as caught:
            await listed(registry, mirror, **fields)
        assert caught.value.violations[0].field == field
    with pytest.raises(PageTokenInvalid):
        await listed(registry, mirror, page_token="garbage")
    with pytest.raises(InvalidArgument):
        await service.ListConflicts(mirror_pb2.ListConflictsRequest(), None)
    with pytest.raises(InvalidArgument):
        await service.FlushMirror(mirror_pb2.FlushMirrorRequest(), None)
    with pytest.raises(MirrorNotFound):
        await service.ListConflicts(mirror_pb2.ListConflictsRequest(mirror_id="none"), None)
    with pytest.raises(MirrorNotFound):
        await service.FlushMirror(mirror_pb2.FlushMirrorRequest(mirror_id="none"), None)
    caller("other")
    for refused in (
        listed(registry, mirror),
        flush(registry, mirror),
        resolve(registry, mirror, conflict_id="x", choice=MINE),
    ):
        with pytest.raises(PermissionDenied):
            await refused


async def test_a_mirror_that_sends_nothing_takes_no_local_version(
    tmp_path: pathlib.Path, registry: Registry, mirror: Mirror
) -> None:
    assert mirror.opened is not None
    mirror.opened.rights.refused = True
    with pytest.raises(MirrorRefused, match="READ_ONLY"):
        await resolve(registry, mirror, all_in_remote_path="/", choice=MINE)
    assert len(kept(tmp_path)) == 3
