"""Waiting for a revision, watching what changes, and forgetting a mirror."""

import asyncio
import pathlib
from collections.abc import AsyncIterator

import pytest
from google.protobuf.duration_pb2 import Duration

from relayfile.auth import ALL
from relayfile.errors import (
    CursorExpired,
    InvalidArgument,
    MirrorNotFound,
    PermissionDenied,
    RequestIdReused,
    UnsentEdits,
)
from relayfile.syncd.mirror import Mirror
from relayfile.syncd.progress import Via
from relayfile.syncd.registry import Registry
from relayfile.syncd.shown import MirrorState
from relayfile.syncd.unsent import Unsent
from relayfile.v1 import mirror_pb2
from tests.fakes.mirror import tree_of
from tests.fakes.registry import add, caller, servicer, serving, until
from tests.fakes.store import FakeStore


@pytest.fixture
def store() -> FakeStore:
    store = FakeStore()
    store.fill({"/a/b": "1", "/c": "2"})
    return store


@pytest.fixture
async def registry(tmp_path: pathlib.Path, store: FakeStore) -> AsyncIterator[Registry]:
    async with store.served() as address, serving(address, tmp_path) as registry:
        caller(ALL)
        yield registry


def wait(registry: Registry, mirror: Mirror, revision: int = 0, history_id: str = "") -> object:
    request = mirror_pb2.WaitMirrorRequest(mirror_id=mirror.record.mirror_id, revision=revision, history_id=history_id)
    return servicer(registry).WaitMirror(request, None)


async def waited(call: object) -> mirror_pb2.WaitMirrorResponse:
    async with asyncio.timeout(10):
        answer = await call  # type: ignore[misc]  # a coroutine
    assert isinstance(answer, mirror_pb2.WaitMirrorResponse)
    return answer


def forget(mirror: Mirror, **fields: object) -> mirror_pb2.DeleteMirrorRequest:
    return mirror_pb2.DeleteMirrorRequest(mirror_id=mirror.record.mirror_id, **fields)  # type: ignore[arg-type]  # its fields


async def test_waiting_ends_when_the_revision_is_on_disk(
    tmp_path: pathlib.Path, registry: Registry, store: FakeStore
) -> None:
    mirror = add(registry, tmp_path)
    first = await waited(wait(registry, mirror))
    assert (first.revision, first.history_id, first.file_counts.materialised_count) == (2, "history-1", 2)
    coming = asyncio.ensure_future(waited(wait(registry, mirror, 3)))
    await asyncio.sleep(0)
    store.put("/later", "3")
    assert not coming.done()
    await store.notify()
    assert (await coming).revision == 3
    assert tree_of(tmp_path)["/later"] == b"3"


async def test_waiting_for_a_revision_of_another_history_ends_at_once(
    tmp_path: pathlib.Path, registry: Registry, store: FakeStore
) -> None:
    mirror = add(registry, tmp_path, follow=False)
    await mirror.pull(full=False, via=Via.ANY)
    for revision in (0, 1):
        with pytest.raises(CursorExpired):
            await waited(wait(registry, mirror, revision, "another"))
    coming = asyncio.ensure_future(waited(wait(registry, mirror, 99)))
    await asyncio.sleep(0)
    store.new_history()
    await mirror.pull(full=False, via=Via.ANY)
    with pytest.raises(CursorExpired):
        await coming


async def test_waiting_is_refused_for_bad_requests_and_ends_with_the_mirror(
    tmp_path: pathlib.Path, registry: Registry
) -> None:
    mirror = add(registry, tmp_path, follow=False)
    with pytest.raises(InvalidArgument):
        await waited(wait(registry, mirror, -1))
    coming = asyncio.ensure_future(waited(wait(registry, mirror, 1)))
    await asyncio.sleep(0)
    await servicer(registry).DeleteMirror(forget(mirror), None)
    with pytest.raises(MirrorNotFound):
        await coming
    caller("other")
    with pytest.raises(PermissionDenied):
        await waited(wait(registry, add(registry, tmp_path, follow=False), 1))


async def test_a_forgotten_mirror_leaves_the_files_and_nothing_else(tmp_path: pathlib.Path, registry: Registry) -> None:
    mirror = add(registry, tmp_path)
    await until(lambda: mirror.seen.state is MirrorState.FOLLOWING)
    service = servicer(registry)
    answer = await service.DeleteMirror(forget(mirror, request_id="r"), None)
    assert answer == mirror_pb2.DeleteMirrorResponse(directory=str(tmp_path / "mirror"))
    assert tree_of(tmp_path) == {"/a/b": b"1", "/c": b"2"}
    left = {path.name for path in (tmp_path / "mirror" / ".relayfile").iterdir()}
    assert left <= {"trash", "staging", "conflicts"}
    assert not list((tmp_path / "data" / "mirrors").iterdir())
    assert len(registry) == 0
    with pytest.raises(MirrorNotFound):
        await service.DeleteMirror(forget(mirror), None)
    # A repeat is answered, of another request refused, and of who may not use the workspace too.
    assert await service.DeleteMirror(forget(mirror, request_id="r"), None) == answer
    with pytest.raises(RequestIdReused):
        await service.DeleteMirror(forget(mirror, request_id="r", force=True), None)
    caller("other")
    with pytest.raises(PermissionDenied):
        await service.DeleteMirror(forget(mirror, request_id="r"), None)
    caller(ALL)
    # The same directory becomes a mirror again, and its files are taken for what they are.
    again = add(registry, tmp_path, follow=False)
    await again.pull(full=False, via=Via.ANY)
    assert again.opened is not None
    assert again.opened.journal.problems.total() == 0


async def test_a_forgotten_mirror_stays_forgotten_after_a_restart(tmp_path: pathlib.Path, store: FakeStore) -> None:
    caller(ALL)
    async with store.served() as address:
        async with serving(address, tmp_path) as registry:
            mirror = add(registry, tmp_path, follow=False)
            request = forget(mirror, request_id="r")
            answer = await servicer(registry).DeleteMirror(request, None)
        async with serving(address, tmp_path) as registry:
            assert len(registry) == 0
            assert await servicer(registry).DeleteMirror(request, None) == answer


async def test_forgetting_ends_a_pull_that_runs(tmp_path: pathlib.Path, registry: Registry, store: FakeStore) -> None:
    store.knobs.latency_s = 5.0
    mirror = add(registry, tmp_path, follow=False)
    service = servicer(registry)

    async def pull() -> None:
        async for _ in service.PullMirror(mirror_pb2.PullMirrorRequest(mirror_id=mirror.record.mirror_id), None):
            pass

    pulling = asyncio.ensure_future(pull())
    await until(lambda: mirror.progress is not None)
    await service.DeleteMirror(forget(mirror), None)
    with pytest.raises(MirrorNotFound):
        await pulling
    assert not (tmp_path / "mirror" / ".relayfile" / "mirror.json").exists()


async def test_unsent_edits_keep_a_mirror_unless_forced(
    tmp_path: pathlib.Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = add(registry, tmp_path, follow=False)
    monkeypatch.setattr(mirror, "unsent", lambda: Unsent(edits=2, conflicts=1))
    service = servicer(registry)
    with pytest.raises(UnsentEdits, match="2 edits"):
        await service.DeleteMirror(forget(mirror), None)
    assert len(registry) == 1
    assert (await service.DeleteMirror(forget(mirror, force=True), None)).unsent_edit_count == 2


async def test_bad_requests_to_forget_name_every_field(registry: Registry) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await servicer(registry).DeleteMirror(mirror_pb2.DeleteMirrorRequest(request_id="r" * 129), None)
    assert {each.field for each in caught.value.violations} == {"mirror_id", "request_id"}


async def watched(registry: Registry, *mirror_ids: str) -> AsyncIterator[mirror_pb2.WatchMirrorsResponse]:
    interval = Duration()
    interval.FromMilliseconds(1)  # less than the least
    request = mirror_pb2.WatchMirrorsRequest(mirror_ids=mirror_ids, interval=interval)
    async for message in servicer(registry).WatchMirrors(request, None):
        yield message


async def test_watching_shows_all_then_what_changes(tmp_path: pathlib.Path, registry: Registry) -> None:
    mirror = add(registry, tmp_path, follow=False)
    stream = watched(registry)
    async with asyncio.timeout(10):
        first = await anext(stream)
        assert [each.state for each in first.mirrors] == [mirror_pb2.MIRROR_STATE_STOPPED]
        await mirror.pull(full=False, via=Via.ANY)
        message = await anext(stream)
        assert message.mirrors[0].file_counts.materialised_count == 2
        await servicer(registry).DeleteMirror(forget(mirror), None)
        assert list((await anext(stream)).deleted_mirror_ids) == [mirror.record.mirror_id]
        add(registry, tmp_path, follow=False)
        assert len((await anext(stream)).mirrors) == 1
    await stream.aclose()  # type: ignore[attr-defined]  # a generator


async def test_watching_one_mirror_ends_with_it_and_hides_others(tmp_path: pathlib.Path, registry: Registry) -> None:
    mirror = add(registry, tmp_path, follow=False)
    stream = watched(registry, mirror.record.mirror_id)
    async with asyncio.timeout(10):
        await anext(stream)
        await servicer(registry).DeleteMirror(forget(mirror), None)
        assert [list(each.deleted_mirror_ids) async for each in stream] == [[mirror.record.mirror_id]]
        with pytest.raises(MirrorNotFound):
            await anext(watched(registry, "none"))
        again = add(registry, tmp_path, follow=False)
        caller("other")
        with pytest.raises(PermissionDenied):
            await anext(watched(registry, again.record.mirror_id))
        assert not (await anext(watched(registry))).mirrors
