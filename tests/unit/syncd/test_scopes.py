"""Mirrors of parts of a workspace: parts come and go, and no other file moves."""

import pathlib
from collections.abc import AsyncIterator

import pytest

from relayfile.auth import ALL
from relayfile.errors import UnsentEdits
from relayfile.syncd.audit import Verdict
from relayfile.syncd.mirror import Mirror
from relayfile.syncd.progress import Via
from relayfile.syncd.registry import Registry
from relayfile.syncd.rows import TrashReason
from relayfile.syncd.shown import MirrorState
from relayfile.syncd.unsent import Unsent
from relayfile.v1 import mirror_pb2
from tests.fakes.mirror import tree_of
from tests.fakes.registry import add, caller, servicer, serving, until
from tests.fakes.store import FakeStore

FILES = {f"/{top}/{index}": f"{top}{index}" for top in ("a", "b", "c") for index in range(5)}


@pytest.fixture
def store() -> FakeStore:
    store = FakeStore()
    store.fill({**FILES, "/a/deep/er": "deeper", "/top": "top"})
    return store


@pytest.fixture
async def registry(tmp_path: pathlib.Path, store: FakeStore) -> AsyncIterator[Registry]:
    async with store.served() as address, serving(address, tmp_path) as registry:
        caller(ALL)
        yield registry


async def update(registry: Registry, tmp_path: pathlib.Path, *paths: str) -> mirror_pb2.Mirror:
    request = mirror_pb2.CreateMirrorRequest(
        workspace_id="acme", directory=str(tmp_path / "mirror"), remote_paths=paths, update_existing=True
    )
    return (await servicer(registry).CreateMirror(request, None)).mirror


def inodes(tmp_path: pathlib.Path) -> dict[str, tuple[int, int]]:
    found = {path: (tmp_path / "mirror" / path[1:]).stat() for path in tree_of(tmp_path)}
    return {path: (stat.st_ino, stat.st_ctime_ns) for path, stat in found.items()}


def expected(store: FakeStore, *paths: str) -> dict[str, bytes]:
    return {file.path: file.content for path in paths for file in store.below(path)}


def trashed(mirror: Mirror) -> dict[str, TrashReason]:
    assert mirror.opened is not None
    return {each.path: each.reason for each in mirror.opened.journal.trash.page(None, 100)}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (("/a", "/b"), ("/b", "/c")),
        (("/",), ("/a",)),
        (("/a",), ("/",)),
        (("/a",), ("/a/deep",)),
        (("/a/deep",), ("/a", "/top")),
        (("/a",), ("/a", "/not/there")),
        (("/a",), ("/c",)),
    ],
)
async def test_paths_come_and_go_and_no_other_file_moves(
    tmp_path: pathlib.Path,
    registry: Registry,
    store: FakeStore,
    before: tuple[str, ...],
    after: tuple[str, ...],
) -> None:
    mirror = add(registry, tmp_path, follow=False, paths=before)
    await mirror.pull(full=False, via=Via.ANY)
    assert tree_of(tmp_path) == expected(store, *before)
    were = inodes(tmp_path)
    shown = await update(registry, tmp_path, *after)
    assert list(shown.remote_paths) == sorted(after)
    await mirror.pull(full=False, via=Via.ANY)
    assert tree_of(tmp_path) == expected(store, *after)
    now = inodes(tmp_path)
    assert {path: now[path] for path in now.keys() & were.keys()} == {
        path: were[path] for path in now.keys() & were.keys()
    }
    assert trashed(mirror) == dict.fromkeys(were.keys() - now.keys(), TrashReason.PATH_DROPPED)
    assert mirror.seen.audited is not None
    assert mirror.seen.audited.result.verdict is Verdict.EXACT
    assert {root.path for root in mirror.seen.audited.result.roots} == set(after)
    assert not (tmp_path / "mirror" / "a").exists() or any(path.startswith("/a/") for path in now)


async def test_a_mirror_that_follows_goes_on_with_its_new_paths(
    tmp_path: pathlib.Path, registry: Registry, store: FakeStore
) -> None:
    mirror = add(registry, tmp_path, paths=("/a",))
    await until(lambda: mirror.seen.state is MirrorState.FOLLOWING)
    await update(registry, tmp_path, "/b")
    await until(lambda: tree_of(tmp_path) == expected(store, "/b"))
    await until(lambda: mirror.seen.state is MirrorState.FOLLOWING)
    store.put("/a/late", "not ours")
    store.put("/b/late", "ours")
    await store.notify()
    await until(lambda: tree_of(tmp_path) == expected(store, "/b"))


async def test_changes_survive_a_restart_in_between(tmp_path: pathlib.Path, store: FakeStore) -> None:
    caller(ALL)
    async with store.served() as address:
        async with serving(address, tmp_path) as registry:
            mirror = add(registry, tmp_path, follow=False, paths=("/a", "/b"))
            await mirror.pull(full=False, via=Via.ANY)
            directory = tmp_path / "mirror"
            directory.rename(tmp_path / "aside")  # as if killed: nothing can be done on disk
            await update(registry, tmp_path, "/a", "/c")
            (tmp_path / "aside").rename(directory)
        async with serving(address, tmp_path) as registry:
            (mirror,) = registry
            assert mirror.record.remote_paths == ("/a", "/c")
            await mirror.pull(full=False, via=Via.ANY)
            assert tree_of(tmp_path) == expected(store, "/a", "/c")
            assert len(trashed(mirror)) == 5


async def test_a_dropped_file_that_was_edited_stays_where_it_is(
    tmp_path: pathlib.Path, registry: Registry, store: FakeStore
) -> None:
    mirror = add(registry, tmp_path, follow=False, paths=("/a", "/b"))
    await mirror.pull(full=False, via=Via.ANY)
    (tmp_path / "mirror" / "b" / "1").write_text("mine")
    await update(registry, tmp_path, "/a")
    await mirror.pull(full=False, via=Via.ANY)
    assert tree_of(tmp_path) == {**expected(store, "/a"), "/b/1": b"mine"}
    assert mirror.opened is not None
    assert mirror.opened.journal.problems.total() == 0


async def test_a_path_is_not_dropped_over_unsent_edits(
    tmp_path: pathlib.Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = add(registry, tmp_path, follow=False, paths=("/a", "/b"))
    monkeypatch.setattr(mirror, "unsent", lambda: Unsent(edits=1))
    with pytest.raises(UnsentEdits):
        await update(registry, tmp_path, "/a")
    assert list((await update(registry, tmp_path, "/a", "/b", "/c")).remote_paths) == ["/a", "/b", "/c"]


async def test_moves_across_the_edge_are_creates_and_deletes(
    tmp_path: pathlib.Path, registry: Registry, store: FakeStore
) -> None:
    mirror = add(registry, tmp_path, paths=("/a", "/b"))
    await until(lambda: mirror.seen.state is MirrorState.FOLLOWING)
    store.move("/a/1", "/c/out")
    store.move("/c/2", "/b/in")
    store.move("/a/3", "/b/inside")
    await store.notify()
    await until(lambda: tree_of(tmp_path) == expected(store, "/a", "/b") and "/a/1" in trashed(mirror))
    assert {path: reason for path, reason in trashed(mirror).items() if path == "/a/1"} == {"/a/1": TrashReason.DELETED}
    assert "/b/in" in store.paths_read
    assert "/b/inside" not in store.paths_read


@pytest.mark.parametrize("how", ["following", "pulled"])
async def test_what_may_not_be_read_any_more_goes_to_the_trash(
    tmp_path: pathlib.Path, registry: Registry, store: FakeStore, how: str
) -> None:
    mirror = add(registry, tmp_path, follow=how == "following")
    if how == "following":
        await until(lambda: mirror.seen.state is MirrorState.FOLLOWING)
    else:
        await mirror.pull(full=False, via=Via.ANY)
    store.hide("/b")
    store.delete("/c/1")
    await store.notify()
    if how == "pulled":
        await mirror.pull(full=False, via=Via.ANY)
    await until(lambda: tree_of(tmp_path) == expected(store, "/") and len(trashed(mirror)) == 6)
    assert trashed(mirror) == {
        **dict.fromkeys((f"/b/{index}" for index in range(5)), TrashReason.ACCESS_LOST),
        "/c/1": TrashReason.DELETED,
    }
    store.put("/a/1", "goes on")
    await store.notify()
    if how == "pulled":
        await mirror.pull(full=False, via=Via.ANY)
    await until(lambda: tree_of(tmp_path)["/a/1"] == b"goes on")
