"""Files from the trash go back, and nothing that stands there is lost."""

import pathlib
from collections.abc import AsyncIterator

import pytest

from relayfile.auth import ALL
from relayfile.errors import InvalidArgument, MirrorNotFound, PermissionDenied
from relayfile.syncd.mirror import Mirror
from relayfile.syncd.progress import Via
from relayfile.syncd.registry import Registry
from relayfile.v1 import mirror_pb2
from tests.fakes.mirror import tree_of
from tests.fakes.registry import add, caller, servicer, serving
from tests.fakes.store import FakeStore


@pytest.fixture
def store() -> FakeStore:
    store = FakeStore()
    store.fill({"/a/b/c": "first", "/d": "d"})
    return store


@pytest.fixture
async def registry(tmp_path: pathlib.Path, store: FakeStore) -> AsyncIterator[Registry]:
    async with store.served() as address, serving(address, tmp_path) as registry:
        caller(ALL)
        yield registry


@pytest.fixture
async def mirror(tmp_path: pathlib.Path, registry: Registry, store: FakeStore) -> Mirror:
    """`/a/b/c` is deleted, and `/d` has a second version."""
    mirror = add(registry, tmp_path, follow=False)
    await mirror.pull(full=False, via=Via.ANY)
    store.delete("/a/b/c")
    store.put("/d", "second")
    await mirror.pull(full=False, via=Via.ANY)
    return mirror


def ids(mirror: Mirror) -> dict[str, str]:
    """Where it was -> its id in the trash."""
    assert mirror.opened is not None
    return {each.disk_path: each.trash_id for each in mirror.opened.journal.trash.page(None, 100)}


async def restore(registry: Registry, mirror: Mirror, *trash_ids: str, **fields: object) -> list[tuple[str, str]]:
    """(where it is, or why not) of each."""
    request = mirror_pb2.RestoreTrashRequest(
        mirror_id=mirror.record.mirror_id,
        trash_ids=trash_ids,
        **fields,  # type: ignore[arg-type]  # its fields
    )
    answer = await servicer(registry).RestoreTrash(request, None)
    assert [each.trash_id for each in answer.results] == list(trash_ids)
    return [(each.local_path, each.failure.reason) for each in answer.results]


async def test_a_deleted_file_is_where_it_was_again(tmp_path: pathlib.Path, registry: Registry, mirror: Mirror) -> None:
    trash_id = ids(mirror)["a/b/c"]
    assert await restore(registry, mirror, trash_id, request_id="r") == [("a/b/c", "")]
    assert tree_of(tmp_path)["/a/b/c"] == b"first"
    assert "a/b/c" not in ids(mirror)
    assert await restore(registry, mirror, trash_id) == [("", "TRASH_NOT_FOUND")]
    # A repeat of the same request is answered as the first was, and does nothing.
    (tmp_path / "mirror" / "a" / "b" / "c").unlink()
    assert await restore(registry, mirror, trash_id, request_id="r") == [("a/b/c", "")]
    assert "/a/b/c" not in tree_of(tmp_path)


async def test_what_stands_in_the_way_stays_unless_it_is_told_to_go(
    tmp_path: pathlib.Path, registry: Registry, mirror: Mirror
) -> None:
    trash_id = ids(mirror)["d"]
    assert await restore(registry, mirror, trash_id) == [("", "FILE_IN_THE_WAY")]
    assert tree_of(tmp_path)["/d"] == b"second"
    (tmp_path / "mirror" / "d").write_text("mine, and nowhere else")
    assert await restore(registry, mirror, trash_id, overwrite=True) == [("d", "")]
    assert tree_of(tmp_path)["/d"] == b"d"
    assert mirror.opened is not None
    (kept,) = mirror.opened.journal.trash.load([ids(mirror)["d"]]).values()
    assert (tmp_path / "mirror" / ".relayfile" / "trash" / kept.name).read_text() == "mine, and nowhere else"
    # The store never had these bytes: they are not removed to make room.
    assert not kept.acknowledged
    assert mirror.opened.journal.trash.evict(0, 2**62, 100) != []
    assert "d" in ids(mirror)


async def test_files_go_into_another_directory(tmp_path: pathlib.Path, registry: Registry, mirror: Mirror) -> None:
    found = ids(mirror)
    answer = await restore(registry, mirror, found["d"], found["a/b/c"], local_directory="saved/today")
    assert answer == [("saved/today/d", ""), ("saved/today/a/b/c", "")]
    assert tree_of(tmp_path)["/saved/today/d"] == b"d"


async def test_i2_nothing_is_restored_through_a_link_or_into_our_own_files(
    tmp_path: pathlib.Path, registry: Registry, mirror: Mirror
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "mirror" / "link").symlink_to(outside)
    (tmp_path / "mirror" / "is-a-file").write_text("x")
    found = ids(mirror)
    for directory, reason in (
        ("link", "FILE_IN_THE_WAY"),
        ("is-a-file", "FILE_IN_THE_WAY"),
        (".relayfile/trash", "NAME_REFUSED"),
        ("sub/.git", "NAME_REFUSED"),
    ):
        assert await restore(registry, mirror, found["d"], local_directory=directory) == [("", reason)]
    assert not list(outside.iterdir())
    # A directory is no file to be overwritten.
    (tmp_path / "mirror" / "into" / "d").mkdir(parents=True)
    in_the_way = await restore(registry, mirror, found["d"], local_directory="into", overwrite=True)
    assert in_the_way == [("", "FILE_IN_THE_WAY")]
    assert ids(mirror) == found


async def test_bad_requests_are_told_by_field(registry: Registry, mirror: Mirror) -> None:
    service = servicer(registry)
    request = mirror_pb2.RestoreTrashRequest(local_directory="../out", request_id="r" * 129)
    with pytest.raises(InvalidArgument) as caught:
        await service.RestoreTrash(request, None)
    assert {each.field for each in caught.value.violations} == {
        "mirror_id",
        "trash_ids",
        "local_directory",
        "request_id",
    }
    with pytest.raises(InvalidArgument):
        await restore(registry, mirror, *["x"] * 1_001)
    with pytest.raises(MirrorNotFound):
        await service.RestoreTrash(mirror_pb2.RestoreTrashRequest(mirror_id="none", trash_ids=["x"]), None)
    caller("other")
    with pytest.raises(PermissionDenied):
        await restore(registry, mirror, "x")
