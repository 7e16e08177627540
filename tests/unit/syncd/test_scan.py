import asyncio
import errno
import os
import pathlib
from contextlib import closing

import pytest

from relayfile.settings import SyncdSettings
from relayfile.syncd import inotify
from relayfile.syncd.bring import bring_all
from relayfile.syncd.disk_feed import DiskFeed
from relayfile.syncd.journal_places import Places
from relayfile.syncd.local_changes import LocalChanges
from relayfile.syncd.open_mirror import OpenMirror
from relayfile.syncd.progress import Progress, Via
from relayfile.syncd.pull import first_pull
from relayfile.syncd.rows import FileState, RemoteFile
from relayfile.syncd.scan import Scanned, resolved, scan
from relayfile.syncd.wire_lists import problem_message
from tests.fakes.mirror import opened
from tests.fakes.store import FakeStore

FILES = {f"/d{index % 3}/f{index:03}": f"content {index}" for index in range(60)}
EVERYTHING = LocalChanges(gap=True)


async def pulled(mirror: OpenMirror) -> pathlib.Path:
    await first_pull(mirror, Progress(0.0), Via.ANY)
    return pathlib.Path(mirror.root.path)


async def found(mirror: OpenMirror, directory: str = "", *, verify: bool = False) -> LocalChanges:
    """All that a scan tells, as one value."""
    paths: list[str] = []
    moves: list[tuple[str, str]] = []
    async for changes in scan(mirror, directory, verify=verify):
        paths += changes.disk_paths
        moves += changes.moves
    return LocalChanges(tuple(sorted(paths)), tuple(sorted(moves)))


def problems(mirror: OpenMirror) -> dict[str, str]:
    return {each.path: each.reason for each in mirror.journal.problems.listed(100)}


async def test_an_untouched_tree_tells_nothing(tmp_path: pathlib.Path) -> None:
    store = FakeStore()
    store.fill({**FILES, "/a": "1", "/a.b": "2", "/a-b/c": "3", "/a0": "4", "/ä/ö": "5"})
    async with store.served() as address, opened(address, tmp_path) as mirror:
        await pulled(mirror)
        scanned = Scanned()
        assert [each async for each in scan(mirror, scanned=scanned)] == []
        assert (scanned.looked_count, scanned.verified_count) == (len(store.files), 0)
        assert not await found(mirror, verify=True)


async def test_new_changed_missing_and_renamed_files_are_told_apart(tmp_path: pathlib.Path) -> None:
    store = FakeStore()
    store.fill(FILES)
    async with store.served() as address, opened(address, tmp_path) as mirror:
        root = await pulled(mirror)
        (root / "d0" / "f000").write_text("edited")
        (root / "d0" / "f003").unlink()
        (root / "d0" / "f006").unlink()
        (root / "d0" / "f006").mkdir()
        (root / "d0" / "f009").unlink()
        (root / "d0" / "f009").symlink_to("/etc/passwd")
        (root / "d1" / "f001").rename(root / "renamed")
        (root / "d2").rename(root / "e")
        (root / "new" / "deep").mkdir(parents=True)
        (root / "new" / "deep" / "file").write_text("new")
        changes = await found(mirror)
        assert changes.disk_paths == ("d0/f000", "d0/f003", "d0/f006", "d0/f009", "new/deep/file")
        moved = {("d1/f001", "renamed")} | {(f"d2/f{index:03}", f"e/f{index:03}") for index in range(2, 60, 3)}
        assert set(changes.moves) == moved
        assert (await found(mirror, "new")).disk_paths == ("new/deep/file",)
        assert (await found(mirror, "d0")).disk_paths == ("d0/f000", "d0/f003", "d0/f006", "d0/f009")
        assert not await found(mirror, "nowhere")


async def test_bytes_changed_behind_an_equal_stat_are_found_by_reading(tmp_path: pathlib.Path) -> None:
    store = FakeStore()
    store.fill(FILES)
    async with store.served() as address, opened(address, tmp_path) as mirror:
        root = await pulled(mirror)
        row = mirror.journal.load(["/d0/f000"])["/d0/f000"]
        (root / "d0" / "f000").write_text("CONTENT 0")
        stat = (root / "d0" / "f000").stat()
        mirror.journal._db.execute(
            "UPDATE file SET mtime_ns = ?, ctime_ns = ? WHERE path = ?", (stat.st_mtime_ns, stat.st_ctime_ns, row.path)
        )
        assert not await found(mirror)
        assert (await found(mirror, verify=True)).disk_paths == ("d0/f000",)


async def test_a_copy_and_a_hard_link_are_no_renames(tmp_path: pathlib.Path) -> None:
    store = FakeStore()
    store.fill(FILES)
    async with store.served() as address, opened(address, tmp_path) as mirror:
        root = await pulled(mirror)
        (root / "linked").hardlink_to(root / "d0" / "f000")
        (root / "d0" / "f003").rename(root / "written")
        (root / "written").write_text("renamed and then written to")
        changes = await found(mirror)
        assert changes.moves == ()
        # The link changed its file's times, and the renamed file is another one by now.
        assert set(changes.disk_paths) == {"linked", "d0/f000", "d0/f003", "written"}


async def test_i7_what_cannot_be_a_file_of_the_workspace_is_listed_until_it_is_gone(tmp_path: pathlib.Path) -> None:
    store = FakeStore()
    store.fill(FILES)
    async with store.served() as address, opened(address, tmp_path, remote_paths=("/d0", "/d1")) as mirror:
        root = await pulled(mirror)
        bad = [os.fsencode(root) + b"/d0/" + name for name in (b"\xff\xfe", b"new\nline", b"back\\slash")]
        for name in bad:
            pathlib.Path(os.fsdecode(name)).write_text("x")
        (root / "d0" / "link").symlink_to("f000")
        os.mkfifo(root / "d0" / "pipe")
        (root / "elsewhere").write_text("x")
        (root / "d0" / "good").write_text("x")
        assert (await found(mirror)).disk_paths == ("d0/good",)
        assert problems(mirror) == {
            "d0/\\xff\\xfe": "NAME_REFUSED",
            "d0/new\nline": "NAME_REFUSED",
            "d0/back\\slash": "NAME_REFUSED",
            "d0/link": "NOT_A_REGULAR_FILE",
            "d0/pipe": "NOT_A_REGULAR_FILE",
            "elsewhere": "NOT_IN_MIRROR",
        }
        by_place = {each.path: problem_message(each, "") for each in mirror.journal.problems.listed(9)}
        assert [(by_place["elsewhere"].remote_path, by_place["elsewhere"].local_path)] == [("", "elsewhere")]
        for name in bad:
            pathlib.Path(os.fsdecode(name)).unlink()
        refused = LocalChanges(refused=tuple(os.fsdecode(name[len(os.fsencode(root)) + 1 :]) for name in bad[:2]))
        assert [each async for each in resolved(mirror, refused)] == []
        assert "d0/new\nline" not in problems(mirror)
        await found(mirror, "d0")
        assert sorted(problems(mirror)) == ["d0/link", "d0/pipe", "elsewhere"]


async def test_i2_a_directory_that_became_a_link_is_not_followed(tmp_path: pathlib.Path) -> None:
    store = FakeStore()
    store.fill(FILES)
    outside = tmp_path / "outside"
    async with store.served() as address, opened(address, tmp_path) as mirror:
        root = await pulled(mirror)
        (root / "d0").rename(outside)
        (root / "d0").symlink_to(outside)
        (outside / "secret").write_text("x")
        changes = await found(mirror)
        assert set(changes.disk_paths) == {path[1:] for path in FILES if path.startswith("/d0/")}
        assert problems(mirror) == {"d0": "NOT_A_REGULAR_FILE"}


async def test_i4_a_directory_that_cannot_be_read_has_nothing_missing(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FakeStore()
    store.fill(FILES)
    async with store.served() as address, opened(address, tmp_path) as mirror:
        root = await pulled(mirror)
        scandir, unreadable = os.scandir, (root / "d1").stat().st_ino

        def denied(fd: int) -> object:
            if os.fstat(fd).st_ino == unreadable:
                raise PermissionError(errno.EACCES, "Permission denied")  # root could read it
            return scandir(fd)

        with monkeypatch.context() as patch:
            patch.setattr(os, "scandir", denied)
            assert not await found(mirror)
        assert problems(mirror) == {"d1": "PERMISSION_DENIED"}
        assert not await found(mirror)
        assert problems(mirror) == {}


async def test_i8_files_with_another_name_on_disk_map_back(tmp_path: pathlib.Path) -> None:
    long = "/d/" + "x" * 400
    store = FakeStore()
    store.fill({long + "/below": "1", long + ".json": "2", "/Case/x": "3", "/case/x": "4"})
    async with store.served() as address, opened(address, tmp_path, folds=True) as mirror:
        root = await pulled(mirror)
        assert not await found(mirror, verify=True)
        rows = mirror.journal.load(store.files)
        directory = pathlib.Path(rows[long + "/below"].disk_path).parent
        (root / directory / "new").write_text("x")
        (root / rows["/case/x"].disk_path).unlink()
        assert set((await found(mirror)).disk_paths) == {f"{directory}/new", rows["/case/x"].disk_path}
        places: Places = mirror.journal.places
        assert places.remote_path(f"{directory}/new") == long + "/new"
        assert places.remote_path(f"{directory}/deep/er") == long + "/deep/er"
        assert places.remote_path("plain/new") == "/plain/new"
        assert {place: row.path for place, row in places.rows([row.disk_path for row in rows.values()]).items()} == {
            row.disk_path: path for path, row in rows.items()
        }


async def test_i9_ignored_names_are_on_neither_side(tmp_path: pathlib.Path) -> None:
    store = FakeStore()
    store.fill({**FILES, "/logs/a.log": "1", "/logs/keep.log": "2", "/4913": "an issue"})
    async with store.served() as address, opened(address, tmp_path) as mirror:
        root = await pulled(mirror)
        (root / ".git").mkdir()
        (root / ".git" / "config").write_text("x")
        for name in ("notes~", ".notes.swp", ".#lock", ".~lock.a.odt#", ".DS_Store", "d0/4913"):
            (root / name).write_text("x")
        (root / "new.log").write_text("x")
        assert (await found(mirror)).disk_paths == ("new.log",)
        (root / ".relayfileignore").write_text("*.log\n")
        (root / "logs" / ".relayfileignore").write_text("!keep.log\n")
        (root / "4913").write_text("edited: the store has it")
        changed = LocalChanges((".relayfileignore", "4913", "d0/4913"))
        told = [path async for each in resolved(mirror, changed) for path in each.disk_paths]
        assert set(told) == {".relayfileignore", "logs/.relayfileignore", "4913"}
        rows = mirror.journal.load(["/logs/a.log", "/logs/keep.log"])
        assert [row.state for row in rows.values()] == [FileState.IGNORED, FileState.MATERIALISED]
        assert (root / "logs" / "a.log").read_text() == "1"
        (root / "logs" / "a.log").write_text("edited while it was ignored")
        assert "logs/a.log" not in (await found(mirror)).disk_paths
        (root / ".relayfileignore").unlink()
        assert {"logs/a.log", "new.log"} <= set((await found(mirror)).disk_paths)
        assert mirror.journal.load(["/logs/a.log"])["/logs/a.log"].state is FileState.MATERIALISED


async def test_edits_reach_their_taker_and_missing_watches_are_a_problem(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FakeStore()
    store.fill(FILES)
    taken: asyncio.Queue[LocalChanges] = asyncio.Queue()
    sweeps: list[str] = []
    turn = asyncio.Lock()

    async def take(mirror: OpenMirror, changes: LocalChanges) -> None:
        assert turn.locked()
        taken.put_nowait(changes)

    settings = SyncdSettings(data_dir=tmp_path, mount_interval_s=0.02)
    async with store.served() as address, opened(address, tmp_path, settings=settings) as mirror:
        root = await pulled(mirror)
        (root / "d0" / "f000").write_text("edited before")
        with closing(DiskFeed()) as feed, monkeypatch.context() as patch:
            patch.setattr(inotify, "USABLE", False)
            async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
                following = tasks.create_task(feed.follow(mirror, turn, take, lambda: sweeps.append("swept")))
                assert await taken.get() == LocalChanges(("d0/f000",))
                assert problems(mirror) == {"": "WATCHES_EXHAUSTED"}
                patch.undo()
                while problems(mirror):
                    await taken.get()
                (root / "d0" / "f003").rename(root / "moved")
                while not (changes := await taken.get()).moves:
                    pass
                assert changes.moves == (("d0/f003", "moved"),)
                following.cancel()
        assert sweeps


async def test_i9_rules_that_are_there_before_the_first_pull_keep_files_from_coming(tmp_path: pathlib.Path) -> None:
    store = FakeStore()
    store.fill({"/logs/a.log": "1", "/src/b": "2", "/src/c.log": "3"})
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / ".relayfileignore").write_text("*.log\n!c.log\n")
    async with store.served() as address, opened(address, tmp_path, adopt_existing=True) as mirror:
        root = await pulled(mirror)
        assert mirror.journal.unsettled().files == {FileState.IGNORED: 1}
        assert not (root / "logs").exists()
        assert mirror.journal.sums["/"] == store.total("/")
        # Neither comes what is new in the store and covered, and it comes when the rule is gone.
        mirror.journal.learn([RemoteFile("/logs/b.log", 5, b"h" * 32, 1)], None)
        assert mirror.journal.unsettled().files == {FileState.IGNORED: 2}
        (root / ".relayfileignore").unlink()
        await found(mirror)
        assert mirror.journal.unsettled().files == {FileState.PENDING: 2}


async def test_i9_a_file_that_the_store_deletes_stays_while_it_is_ignored(tmp_path: pathlib.Path) -> None:
    store = FakeStore()
    store.fill({"/a.log": "1", "/b": "2"})
    async with store.served() as address, opened(address, tmp_path) as mirror:
        root = await pulled(mirror)
        (root / ".relayfileignore").write_text("*.log\n")
        await found(mirror)
        assert mirror.journal.learn([RemoteFile("/a.log", 9, None)], None) == []
        await bring_all(mirror, Progress(0.0))
        assert (root / "a.log").read_text() == "1"
        assert "/a.log" not in mirror.journal.load(["/a.log"])
