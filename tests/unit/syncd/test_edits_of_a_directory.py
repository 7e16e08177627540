"""A mirror that pushes, and a directory in which others work: seen at once, sent once, and nothing from outside."""

import asyncio
import os
import pathlib

from relayfile.syncd.mirror import Mirror
from relayfile.syncd.rows import FileState
from tests.fakes.mirror import tree_of
from tests.fakes.registry import add, contents, level, problems, serving, until
from tests.fakes.store import FakeStore
from tests.support.foreigners import swapping, writing, written

FILES = {f"/d{index % 5}/f{index:03}": f"content {index}" for index in range(200)}


def filled() -> FakeStore:
    store = FakeStore()
    store.fill(FILES)
    return store


async def settled(mirror: Mirror, store: FakeStore, tmp_path: pathlib.Path) -> None:
    """Until both sides are equal, and nothing is on its way."""
    await until(lambda: contents(store) == tree_of(tmp_path))
    await level(mirror, store)
    await until(lambda: mirror.opened is not None and mirror.opened.journal.outbox.totals().pending_count == 0)


async def test_edits_are_seen_without_anybody_asking(tmp_path: pathlib.Path) -> None:
    store = filled()
    root = tmp_path / "mirror"
    async with store.served() as address, serving(address, tmp_path) as registry:
        mirror = add(registry, tmp_path, read_only=False)
        await level(mirror, store)
        (root / "d0" / "f000").write_text("edited")
        (root / "new" / "deep").mkdir(parents=True)
        (root / "new" / "deep" / "file").write_text("new")
        (root / "d1").rename(root / "moved")
        (root / "d2" / "f002").unlink()
        await settled(mirror, store, tmp_path)
        assert store.files["/d0/f000"].content == b"edited"
        assert store.files["/new/deep/file"].content == b"new"
        assert store.files["/moved/f001"].content == b"content 1"
        assert not {"/d1/f001", "/d2/f002"} & set(store.files)
        assert problems(mirror) == {}


async def test_what_syncd_writes_itself_is_not_sent_back(tmp_path: pathlib.Path) -> None:
    store = filled()
    async with store.served() as address, serving(address, tmp_path) as registry:
        mirror = add(registry, tmp_path, read_only=False)
        await level(mirror, store)
        for turn in range(5):
            for index in range(40):
                store.put(f"/d{index % 5}/f{index:03}", f"turn {turn} of {index}")
                store.put(f"/made-{turn}/{index % 7}/{index}", "new")
            for index in range(40 + turn * 20, 60 + turn * 20):
                store.delete(f"/d{index % 5}/f{index:03}")
            await level(mirror, store)
        revision = store.revision
        (tmp_path / "mirror" / "last").write_text("the only edit")
        await until(lambda: "/last" in store.files)
        assert store.revision == revision + 1
        assert [item.WhichOneof("action") for item in store.writes] == ["write"]


async def test_what_a_flush_met_and_was_gone_before_it_settled_is_deleted_in_the_store(tmp_path: pathlib.Path) -> None:
    store = filled()
    root = tmp_path / "mirror"
    async with store.served() as address, serving(address, tmp_path) as registry:
        mirror = add(registry, tmp_path, read_only=False)
        await level(mirror, store)
        with (root / "new").open("w") as file:
            print("not closed yet", file=file, flush=True)
            await mirror.flush()
            assert "/new" in store.files
            (root / "new").unlink()
        await until(lambda: "/new" not in store.files)
        await settled(mirror, store, tmp_path)


async def test_i2_nothing_is_read_for_pushing_through_a_link(tmp_path: pathlib.Path) -> None:
    store = filled()
    root, outside = tmp_path / "mirror", tmp_path / "outside"
    outside.mkdir()
    for path in FILES:
        if path.startswith("/d0/"):
            (outside / path[4:]).write_bytes(b"secret")
    (outside / "other").write_bytes(b"secret")
    before = sorted((each.name, each.stat().st_mtime_ns) for each in outside.iterdir())
    async with store.served() as address, serving(address, tmp_path) as registry:
        mirror = add(registry, tmp_path, read_only=False)
        await level(mirror, store)
        with swapping(root / "d0", outside):
            for turn in range(20):
                for path in ("d1/f001", "d2/f002"):
                    (root / path).write_text(f"edit {turn}")
                store.put("/d0/f005", f"turn {turn}")
                await store.notify()
                await asyncio.sleep(0.05)
        assert not [path for path, content in contents(store).items() if content == b"secret"]
        assert sorted((each.name, each.stat().st_mtime_ns) for each in outside.iterdir()) == before


async def test_i3_what_others_write_at_the_same_time_reaches_the_store(tmp_path: pathlib.Path) -> None:
    store = filled()
    async with store.served() as address, serving(address, tmp_path) as registry:
        mirror = add(registry, tmp_path, read_only=False)
        await level(mirror, store)
        foreigner = await writing(tmp_path / "mirror", 300)
        turn = 0
        while foreigner.returncode is None:
            turn += 1
            for index in range(0, 200, 7):
                store.put(f"/d{index % 5}/f{index:03}", f"turn {turn} of {index}")
            await store.notify()
            try:
                async with asyncio.timeout(0.02):
                    await foreigner.wait()
            except TimeoutError:
                continue
        assert foreigner.returncode == 0
        await settled(mirror, store, tmp_path)
        found = contents(store)
        assert {path: found.get(path) for path in written(300)} == written(300)
        assert not [path for path in found if path.endswith(".tmp")]


async def test_i9_an_ignore_file_acts_at_once_wherever_it_comes_from(tmp_path: pathlib.Path) -> None:
    store = filled()
    root = tmp_path / "mirror"
    async with store.served() as address, serving(address, tmp_path) as registry:
        mirror = add(registry, tmp_path, read_only=False)
        await level(mirror, store)
        store.put("/.relayfileignore", "*.log\n")
        await level(mirror, store)
        await until(lambda: mirror.opened is not None and mirror.opened.ignore.covers("/a.log"))
        (root / "a.log").write_text("mine alone")
        (root / "a.txt").write_text("everybody's")
        await until(lambda: "/a.txt" in store.files)
        store.put("/b.log", "theirs alone")
        await level(mirror, store)
        assert mirror.opened is not None
        assert "/a.log" not in store.files
        assert not (root / "b.log").exists()
        assert mirror.opened.journal.unsettled().files == {FileState.IGNORED: 1}
        os.truncate(root / ".relayfileignore", 0)
        await until(lambda: "/a.log" in store.files and (root / "b.log").exists())
        await settled(mirror, store, tmp_path)
