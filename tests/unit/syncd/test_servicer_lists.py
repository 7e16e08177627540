"""Problems and trash: listed in pages, by filters, and only to who may use the mirror."""

import pathlib
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from relayfile.auth import ALL
from relayfile.errors import InvalidArgument, MirrorNotFound, MirrorRefused, PageTokenInvalid, PermissionDenied
from relayfile.syncd.journal_outbox import NEVER_US
from relayfile.syncd.mirror import Mirror
from relayfile.syncd.progress import Via
from relayfile.syncd.registry import Registry
from relayfile.syncd.rows import FileRow, FileState, Problem
from relayfile.syncd.shown import MirrorState
from relayfile.syncd.wire_lists import next_attempt_us
from relayfile.v1 import mirror_pb2
from tests.fakes.registry import add, caller, servicer, serving, until
from tests.fakes.store import FakeStore


@pytest.fixture
def store() -> FakeStore:
    store = FakeStore()
    store.fill({f"/a/{number}": str(number) for number in range(5)} | {"/b": "b"})
    return store


@pytest.fixture
async def registry(tmp_path: pathlib.Path, store: FakeStore) -> AsyncIterator[Registry]:
    async with store.served() as address, serving(address, tmp_path) as registry:
        caller(ALL)
        yield registry


@pytest.fixture
async def mirror(tmp_path: pathlib.Path, registry: Registry) -> Mirror:
    mirror = add(registry, tmp_path, follow=False)
    await mirror.pull(full=False, via=Via.ANY)
    return mirror


async def problems(registry: Registry, mirror: Mirror, **fields: object) -> mirror_pb2.ListProblemsResponse:
    request = mirror_pb2.ListProblemsRequest(mirror_id=mirror.record.mirror_id, **fields)  # type: ignore[arg-type]  # its fields
    return await servicer(registry).ListProblems(request, None)


async def trash(registry: Registry, mirror: Mirror, **fields: object) -> mirror_pb2.ListTrashResponse:
    request = mirror_pb2.ListTrashRequest(mirror_id=mirror.record.mirror_id, **fields)  # type: ignore[arg-type]  # its fields
    return await servicer(registry).ListTrash(request, None)


async def test_problems_are_listed_by_path_the_mirrors_own_first(registry: Registry, mirror: Mirror) -> None:
    assert mirror.opened is not None
    listed = mirror.opened.journal
    listed.list_problems([Problem(path, "DISK_FULL", "The disk is full.", 3, 1_000) for path in ("/a/1", "/b")])
    listed.list_problems([Problem("", "WATCHES_EXHAUSTED", "More watches are needed.", 0, 2_000)])
    listed.problems.refused([Problem("/a/1", "WRITEBACK_FAILED", "GitHub says no.", 4, 3_000)])
    page = await problems(registry, mirror, page_size=2)
    rest = await problems(registry, mirror, page_size=2, page_token=page.next_page_token)
    found = [*page.problems, *rest.problems]
    assert [(each.remote_path, each.reason) for each in found] == [
        ("", "WATCHES_EXHAUSTED"),
        ("/a/1", "DISK_FULL"),
        ("/a/1", "WRITEBACK_FAILED"),
        ("/b", "DISK_FULL"),
    ]
    assert rest.next_page_token == ""
    assert [each.local_path for each in found] == ["", "a/1", "a/1", "b"]
    assert len({each.problem_id for each in found}) == 4
    assert (found[1].revision, found[1].attempt_count, found[1].create_time.ToMicroseconds()) == (3, 1, 1_000)
    shown = await servicer(registry).GetMirror(mirror_pb2.GetMirrorRequest(mirror_id=mirror.record.mirror_id), None)
    assert shown.mirror.problem_count == 4
    # Tried again in vain: the same problem, since the same time.
    listed.list_problems([Problem("/b", "DISK_FULL", "The disk is full.", 3, 9_000)])
    (again,) = (await problems(registry, mirror, remote_path="/b")).problems
    assert (again.attempt_count, again.create_time.ToMicroseconds()) == (2, 1_000)
    assert again.last_attempt_time.ToMicroseconds() == 9_000


def test_a_problem_says_when_it_is_tried_again() -> None:
    listed = Problem("/a", "DISK_FULL", "The disk is full.")
    row = FileRow("/a", 1, b"a", 1, FileState.PROBLEM, "a")
    assert next_attempt_us(listed, row, None, 700) == 700
    assert next_attempt_us(listed, row, None, 0) == 0, "nobody follows: the next pull tries"
    assert next_attempt_us(Problem("", "WATCHES_EXHAUSTED", ""), None, None, 700) == 700
    assert next_attempt_us(Problem("a", "NOT_A_REGULAR_FILE", ""), None, None, 700) == 0
    edit = replace(row, state=FileState.OUTGOING)
    refused = Problem("/a", "PUSH_REFUSED", "QUOTA_EXCEEDED")
    assert next_attempt_us(refused, edit, 300, 700) == 300
    assert next_attempt_us(refused, edit, NEVER_US, 700) == 0, "the file has to change"
    assert next_attempt_us(Problem("/a", "WRITEBACK_FAILED", ""), row, None, 700) == 0
    assert next_attempt_us(Problem("/.relayfile", "NAME_REFUSED", ""), replace(row, path="/a\x00"), None, 700) == 0


async def test_a_mirror_that_follows_tells_when_it_tries_again(
    tmp_path: pathlib.Path, registry: Registry, store: FakeStore
) -> None:
    mirror = add(registry, tmp_path, read_only=False)
    await until(lambda: mirror.seen.state is MirrorState.FOLLOWING and mirror.cadence.next_cycle_us > 0)
    assert mirror.opened is not None
    mirror.opened.journal.list_problems([Problem("/b", "DISK_FULL", "full", 1, 1)])
    (listed,) = (await problems(registry, mirror)).problems
    assert listed.next_attempt_time.ToMicroseconds() == mirror.cadence.next_cycle_us


async def test_problems_are_chosen_by_reason_and_directory(registry: Registry, mirror: Mirror) -> None:
    assert mirror.opened is not None
    full = [Problem(path, "DISK_FULL", "full", 1, 1) for path in ("/a/1", "/a/2", "/b")]
    mirror.opened.journal.list_problems([*full, Problem("/a/3", "PERMISSION_DENIED", "denied", 1, 1)])
    of_reason = await problems(registry, mirror, reason="PERMISSION_DENIED")
    assert [each.remote_path for each in of_reason.problems] == ["/a/3"]
    in_directory = await problems(registry, mirror, reason="DISK_FULL", remote_path="/a/")
    assert [each.remote_path for each in in_directory.problems] == ["/a/1", "/a/2"]
    page = await problems(registry, mirror, page_size=1)
    for other in ({"reason": "DISK_FULL"}, {"remote_path": "/a"}):
        with pytest.raises(PageTokenInvalid):
            await problems(registry, mirror, page_token=page.next_page_token, **other)


async def test_trash_is_listed_newest_first(
    tmp_path: pathlib.Path, registry: Registry, mirror: Mirror, store: FakeStore
) -> None:
    store.put("/a/1", "newer")
    await mirror.pull(full=False, via=Via.ANY)
    store.delete("/a/2")
    store.delete("/b")
    await mirror.pull(full=False, via=Via.ANY)
    page = await trash(registry, mirror, page_size=2)
    rest = await trash(registry, mirror, page_size=2, page_token=page.next_page_token)
    assert ({each.local_path for each in page.entries}, [each.local_path for each in rest.entries]) == (
        {"a/2", "b"},
        ["a/1"],
    )
    (old,) = rest.entries
    assert (old.reason, old.remote_path, old.size_bytes) == (mirror_pb2.TRASH_REASON_OVERWRITTEN, "/a/1", 1)
    assert old.acknowledged
    assert old.expire_time.ToMicroseconds() > old.create_time.ToMicroseconds()
    assert (tmp_path / "mirror" / old.kept_path).read_text() == "1"
    deleted = await trash(registry, mirror, reason=mirror_pb2.TRASH_REASON_DELETED, local_path="a")
    assert [each.local_path for each in deleted.entries] == ["a/2"]
    with pytest.raises(PageTokenInvalid):
        await trash(registry, mirror, page_token=page.next_page_token, local_path="a")


async def test_bad_requests_are_told_by_field(registry: Registry, mirror: Mirror) -> None:
    for fields, field in (
        ({"page_size": -1}, "page_size"),
        ({"remote_path": "/a/../b"}, "remote_path"),
        ({"reason": "X" * 65}, "reason"),
    ):
        with pytest.raises(InvalidArgument) as caught:
            await problems(registry, mirror, **fields)
        assert caught.value.violations[0].field == field
    for fields, field in (
        ({"page_size": -1}, "page_size"),
        ({"local_path": "/abs"}, "local_path"),
        ({"local_path": "../out"}, "local_path"),
        ({"reason": 77}, "reason"),
    ):
        with pytest.raises(InvalidArgument) as caught:
            await trash(registry, mirror, **fields)
        assert caught.value.violations[0].field == field
    service = servicer(registry)
    with pytest.raises(InvalidArgument):
        await service.ListProblems(mirror_pb2.ListProblemsRequest(), None)
    with pytest.raises(MirrorNotFound):
        await service.ListTrash(mirror_pb2.ListTrashRequest(mirror_id="none"), None)
    with pytest.raises(PageTokenInvalid):
        await problems(registry, mirror, page_token="garbage")
    caller("other")
    for call in (problems(registry, mirror), trash(registry, mirror)):
        with pytest.raises(PermissionDenied):
            await call


async def test_a_lost_directory_is_told_not_an_empty_list(tmp_path: pathlib.Path, registry: Registry) -> None:
    mirror = add(registry, tmp_path, follow=False)
    (tmp_path / "mirror").rename(tmp_path / "aside")
    with pytest.raises(MirrorRefused, match="ROOT_MISSING"):
        await problems(registry, mirror)
