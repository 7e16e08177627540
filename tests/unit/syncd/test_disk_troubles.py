"""What a disk and other programs do to a mirror: races, links, read-only places, no room. No byte of a user is lost."""

import asyncio
import errno
import hashlib
import os
import pathlib
import subprocess
from collections.abc import Iterator

import pytest

from relayfile.errors import MirrorRefused
from relayfile.syncd import descriptors
from relayfile.syncd import root as root_module
from relayfile.syncd.apply import Application, Wanted
from relayfile.syncd.audit import Verdict
from relayfile.syncd.ignore import IgnoreRules
from relayfile.syncd.names import fold
from relayfile.syncd.progress import Via
from relayfile.syncd.root import Marker, Root, create_root
from relayfile.syncd.shown import MirrorState
from relayfile.syncd.walk import Walk
from tests.fakes.mirror import tree_of
from tests.fakes.registry import add, contents, level, problems, quick, serving, until
from tests.fakes.store import FakeStore
from tests.support.foreigners import swapping, writing, written
from tests.support.power_cut import Disk

FILES = {f"/d{index % 5}/f{index:03}": f"content {index}" for index in range(200)}
on_a_disk_of_its_own = [pytest.mark.needs_root, pytest.mark.needs_loop_mount]


def filled() -> FakeStore:
    store = FakeStore()
    store.fill(FILES)
    return store


def test_i2_a_directory_that_is_swapped_for_a_link_all_the_time_leads_nowhere_outside(tmp_path: pathlib.Path) -> None:
    path, outside = tmp_path / "mirror", tmp_path / "outside"
    create_root(str(path), Marker("m1", "acme"), adopt_existing=False)
    (path / "d" / "e").mkdir(parents=True)
    (outside / "e").mkdir(parents=True)
    for index in range(20):
        (outside / f"f{index}").write_bytes(b"secret")
        (outside / "e" / f"f{index}").write_bytes(b"secret")
    before = {each: (each.stat().st_ino, each.stat().st_mtime_ns) for each in outside.rglob("*")}
    root = Root.open(str(path), Marker("m1", "acme"))
    content = b"from the store"
    sha = hashlib.sha256(content).digest()
    secret = hashlib.sha256(b"secret").digest()
    read: set[bytes] = set()
    written = 0
    with swapping(path / "d", outside):
        for turn in range(60):
            places = [f"d/{'e/' if index % 2 else ''}f{index}" for index in range(20)]
            batch = [Wanted("/" + place, place, None, None, sha, 1, content) for place in places]
            done = Application(root, [f"t{turn}-{index}" for index in range(20)], 1).write(batch)
            written += done.written_count
            stats = {settled.path: settled.disk_stat for settled in done.settled}
            gone = [Wanted(path, path[1:], sha, stat, None, 2) for path, stat in stats.items() if stat is not None]
            # What is deleted for a store that asks is our own file, in our own directory.
            trashed = Application(root, [f"u{turn}-{index}" for index in range(20)], 1).remove(gone[::2]).trashed
            read.update(each.content_hash for each in trashed)
            walk = Walk(root.fd, "", IgnoreRules(), verify=True)
            compared = walk.step([], last=True, looks_max=10_000)
            walk.close()
            outside_inodes = {inode for inode, _ in before.values()}
            assert not [each for each in compared.new if each.stat.inode in outside_inodes]
    root.close()
    assert written > 0
    assert secret not in read
    assert {each: (each.stat().st_ino, each.stat().st_mtime_ns) for each in outside.rglob("*")} == before
    kept = [each.read_bytes() for each in (path / ".relayfile" / "trash").iterdir()]
    assert set(kept) <= {content}


async def test_i2_hostile_names_that_come_while_following_stay_outside(tmp_path: pathlib.Path) -> None:
    store = filled()
    hostile = [
        "/../../evil",
        "/d0/../../evil",
        "//evil",
        "/d0//b",
        "/nul\x00x",
        "/d0/./b",
        "/back\\slash",
        "/c\n",
    ]
    async with store.served() as address, serving(address, tmp_path) as registry:
        mirror = add(registry, tmp_path)
        await level(mirror, store)
        for name in hostile:
            store.put(name, "evil")
        store.put("/.relayfile/mirror.json", "evil")
        store.put("/d0/.git/hooks/pre-commit", "evil")
        store.put("/good", "good")
        await level(mirror, store)
        assert problems(mirror) == dict.fromkeys(hostile, "NAME_REFUSED")
        assert tree_of(tmp_path)["/good"] == b"good"
        assert mirror.seen.state is MirrorState.FOLLOWING
        for name in hostile:
            store.delete(name)
        await level(mirror, store)
        assert problems(mirror) == {}
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"evil" in path.read_bytes()[:10]]


async def test_i8_long_names_come_change_and_go_while_following(tmp_path: pathlib.Path) -> None:
    store = filled()
    long = "/d0/" + "\u00e4" * 300 + ".json"
    deep = "/" + "/".join(["x" * 300] * 5) + "/f"
    async with store.served() as address, serving(address, tmp_path) as registry:
        mirror = add(registry, tmp_path)
        await level(mirror, store)
        store.put(long, "1")
        store.put(deep, "2")
        await level(mirror, store)
        assert mirror.opened is not None
        rows = mirror.opened.journal.load([long, deep])
        places = [tmp_path / "mirror" / row.disk_path for row in rows.values()]
        assert [place.read_text() for place in places] == ["1", "2"]
        store.put(long, "3")
        store.delete(deep)
        await level(mirror, store)
        assert [place.exists() and place.read_text() for place in places] == ["3", False]
        assert mirror.seen.audited is not None
        assert mirror.seen.audited.result.verdict is Verdict.EXACT


async def test_i3_files_made_in_the_root_during_a_first_pull_are_kept(tmp_path: pathlib.Path) -> None:
    store = filled()
    store.knobs.latency_s = 0.2
    root = tmp_path / "mirror"
    async with store.served() as address, serving(address, tmp_path) as registry:
        mirror = add(registry, tmp_path, follow=False)
        async with asyncio.TaskGroup() as tasks:
            pulling = tasks.create_task(mirror.pull(full=False, via=Via.ANY))
            await until(lambda: "ExportTree" in store.calls)
            (root / "d0").mkdir()
            (root / "d0" / "f000").write_text("mine")
            (root / "d0" / "f005").write_text("content 5")
            (root / "d0" / "new").write_text("mine as well")
            (root / "d1").write_text("a file where a directory belongs")
            await pulling
        assert (root / "d0" / "f000").read_text() in ("mine", "content 0")
        assert b"mine" in [each.read_bytes() for each in root.rglob("*") if each.is_file()]
        assert (root / "d0" / "f005").read_text() == "content 5"
        assert (root / "d0" / "new").read_text() == "mine as well"
        assert (root / "d1").read_text() == "a file where a directory belongs"
        assert "/d1/f001" in problems(mirror)
        assert (root / "d2" / "f002").read_text() == "content 2"


async def test_i3_other_programs_write_at_the_same_time_and_lose_nothing(tmp_path: pathlib.Path) -> None:
    store = filled()
    async with store.served() as address, serving(address, tmp_path) as registry:
        mirror = add(registry, tmp_path)
        await level(mirror, store)
        foreigner = await writing(tmp_path / "mirror", 300)
        turn = 0
        while foreigner.returncode is None:
            turn += 1
            for index in range(0, 200, 7):
                path = f"/d{index % 5}/f{index:03}"
                store.put(path, f"turn {turn} of {index}")
            await store.notify()
            try:
                async with asyncio.timeout(0.02):
                    await foreigner.wait()
            except TimeoutError:
                continue
        await level(mirror, store)
        tree = tree_of(tmp_path)
        assert {path: tree[path] for path in store.files} == contents(store)
        assert {path: tree.get(path) for path in written(300)} == written(300)


class TestOnADiskOfItsOwn:
    """An ext4 image: the disk can be filled, made read-only and made to refuse."""

    pytestmark = on_a_disk_of_its_own

    @pytest.fixture
    def disk(self, tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
        disk = Disk.made(tmp_path, size_bytes=32 << 20)
        with disk.mounted():
            yield disk.place

    async def test_i7_a_full_disk_is_a_problem_of_what_does_not_fit_and_passes(self, disk: pathlib.Path) -> None:
        store = filled()
        settings = quick(disk.parent)
        async with store.served() as address, serving(address, disk.parent, settings) as registry:
            mirror = add(registry, disk)
            await level(mirror, store)
            filler = disk / "filler"
            fill(filler)
            store.put("/d0/large", b"x" * (1 << 20))
            store.put("/d0/f000", "small")
            await store.notify()
            await until(lambda: problems(mirror).get("/d0/large") == "DISK_FULL")
            assert mirror.seen.state is MirrorState.FOLLOWING
            filler.unlink()
            await until(lambda: problems(mirror) == {})
            await level(mirror, store)
            assert tree_of(disk) == contents(store)

    async def test_i7_a_first_pull_onto_a_full_disk_goes_on_when_there_is_room(self, disk: pathlib.Path) -> None:
        store = filled()
        store.put("/large", b"x" * (4 << 20))
        settings = quick(disk.parent)
        filler = disk / "filler"
        fill(filler)
        os.truncate(filler, filler.stat().st_size - (1 << 20))
        async with store.served() as address, serving(address, disk.parent, settings) as registry:
            mirror = add(registry, disk)
            await until(lambda: mirror.seen.state is MirrorState.DISCONNECTED and mirror.seen.error is not None)
            assert "DISK_FULL" in str(mirror.seen.error)
            filler.unlink()
            await level(mirror, store)
            assert tree_of(disk) == contents(store)

    async def test_i7_a_read_only_directory_is_a_problem_of_its_files_and_passes(self, disk: pathlib.Path) -> None:
        store = filled()
        settings = quick(disk.parent)
        async with store.served() as address, serving(address, disk.parent, settings) as registry:
            mirror = add(registry, disk)
            await level(mirror, store)
            subprocess.run(["chattr", "+i", str(disk / "mirror" / "d0")], check=True)
            try:
                store.put("/d0/f000", "changed")
                store.put("/d0/new", "new")
                store.delete("/d0/f005")
                store.put("/d1/f001", "changed")
                await level(mirror, store)
                reasons = dict.fromkeys(("/d0/f000", "/d0/f005", "/d0/new"), "PERMISSION_DENIED")
                await until(lambda: problems(mirror) == reasons)
                assert tree_of(disk)["/d1/f001"] == b"changed"
                assert tree_of(disk)["/d0/f005"] == b"content 5"
            finally:
                subprocess.run(["chattr", "-i", str(disk / "mirror" / "d0")], check=True)
            await until(lambda: problems(mirror) == {})
            await until(lambda: tree_of(disk) == contents(store))

    async def test_i1_a_root_on_a_read_only_file_system_is_refused_until_it_can_be_written(
        self, disk: pathlib.Path
    ) -> None:
        store = filled()
        settings = quick(disk.parent)
        async with store.served() as address, serving(address, disk.parent, settings) as registry:
            (disk / "mirror").mkdir()
            remount(disk, "ro")
            with pytest.raises(MirrorRefused, match="ROOT_READ_ONLY"):
                add(registry, disk)
            remount(disk, "rw")
            mirror = add(registry, disk)
            await level(mirror, store)
            assert tree_of(disk) == contents(store)


async def test_i7_a_file_system_that_becomes_read_only_is_a_problem_and_passes(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(*_: object, **__: object) -> os.stat_result:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    store = filled()
    async with store.served() as address, serving(address, tmp_path, quick(tmp_path)) as registry:
        mirror = add(registry, tmp_path)
        await level(mirror, store)
        with monkeypatch.context() as patch:
            for call in ("create", "move_if_absent", "exchange"):
                patch.setattr(descriptors, call, read_only)
            store.put("/d0/f000", "changed")
            store.delete("/d0/f005")
            await level(mirror, store)
            await until(
                lambda: (
                    set(problems(mirror).items())
                    == {("/d0/f000", "READ_ONLY_FILE_SYSTEM"), ("/d0/f005", "READ_ONLY_FILE_SYSTEM")}
                )
            )
            assert tree_of(tmp_path)["/d0/f005"] == b"content 5"
        await until(lambda: tree_of(tmp_path) == contents(store))
        await until(lambda: problems(mirror) == {})


def fill(path: pathlib.Path) -> None:
    """Until nothing fits any more."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue


def remount(place: pathlib.Path, mode: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{mode}", str(place)], check=True)


async def test_i8_names_that_this_disk_confuses_are_kept_apart_while_following(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(root_module, "_folds", lambda own: True)
    store = filled()
    composed, decomposed = "/d0/caf\u00e9", "/d0/cafe\u0301"
    async with store.served() as address, serving(address, tmp_path) as registry:
        mirror = add(registry, tmp_path)
        await level(mirror, store)
        for path in (composed, decomposed, "/d0/F000", "/D0/f000", "/D0/other"):
            store.put(path, path)
        await level(mirror, store)
        assert mirror.opened is not None
        rows = mirror.opened.journal.load(store.files)
        assert len({fold(row.disk_path) for row in rows.values()}) == len(store.files)
        assert rows["/d0/f000"].disk_path == "d0/f000"
        for path, row in rows.items():
            assert (tmp_path / "mirror" / row.disk_path).read_bytes() == store.files[path].content
        store.delete(composed)
        store.put(decomposed, "changed")
        await level(mirror, store)
        assert (tmp_path / "mirror" / rows[decomposed].disk_path).read_text() == "changed"
        assert not (tmp_path / "mirror" / rows[composed].disk_path).exists()
