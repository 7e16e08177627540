"""The watcher on a real directory. Waits for news, never for time to pass."""

import asyncio
import ctypes
import errno
import os
import pathlib
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing

import pytest

from relayfile.clock import SystemClock
from relayfile.syncd import inotify, watch
from relayfile.syncd.ignore import IgnoreRules
from relayfile.syncd.local_changes import LocalChanges
from relayfile.syncd.watch import Watcher

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="inotify")

GAP = LocalChanges(gap=True)


@asynccontextmanager
async def watching(
    directory: pathlib.Path, rules: IgnoreRules | None = None, retry_s: float = 60.0
) -> AsyncIterator[Watcher]:
    """A watcher that has told its first gap."""
    fd = os.open(directory, os.O_RDONLY)
    try:
        with closing(Watcher(fd, rules or IgnoreRules(), SystemClock(), retry_s)) as watcher:
            assert await told(watcher) == GAP
            yield watcher
    finally:
        os.close(fd)


async def told(watcher: Watcher) -> LocalChanges:
    async with asyncio.timeout(20):
        return await watcher.next()


async def told_of(watcher: Watcher, *paths: str) -> LocalChanges:
    """All that is told until each of these was."""
    seen: set[str] = set()
    moves: list[tuple[str, str]] = []
    directories: set[str] = set()
    while not seen | {end for move in moves for end in move} | directories >= set(paths):
        changes = await told(watcher)
        seen.update(changes.disk_paths)
        moves += changes.moves
        directories.update(changes.directories)
    return LocalChanges(tuple(sorted(seen)), tuple(moves), directories=tuple(sorted(directories)))


async def test_writes_renames_and_removals_are_told(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    async with watching(tmp_path) as watcher:
        assert watcher.watched == 3
        (tmp_path / "a" / "b" / "file").write_text("x")
        assert await told_of(watcher, "a/b/file") == LocalChanges(("a/b/file",))
        (tmp_path / "a" / "b" / "file").rename(tmp_path / "renamed")
        assert await told_of(watcher, "renamed") == LocalChanges(moves=(("a/b/file", "renamed"),))
        (tmp_path / "renamed").unlink()
        assert await told_of(watcher, "renamed") == LocalChanges(("renamed",))


async def test_new_directories_are_watched_and_nothing_in_them_is_missed(tmp_path: pathlib.Path) -> None:
    async with watching(tmp_path) as watcher:
        paths = [f"d{index}/e/f/file" for index in range(200)]
        for path in paths:
            (tmp_path / path).parent.mkdir(parents=True)
            (tmp_path / path).write_text("x")
        assert set((await told_of(watcher, *paths)).disk_paths) == set(paths)
        assert watcher.watched == 1 + 3 * 200
        (tmp_path / "d7" / "e" / "f" / "later").write_text("x")
        await told_of(watcher, "d7/e/f/later")


async def test_a_large_tree_that_comes_at_once_is_scanned(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "LISTED_MAX", 10)
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    (outside / "deep").mkdir(parents=True)
    for index in range(20):
        (outside / "deep" / str(index)).write_text("x")
    inside.mkdir()
    async with watching(inside) as watcher:
        outside.rename(inside / "came")
        assert await told(watcher) == LocalChanges(directories=("came",))


async def test_a_renamed_directory_is_watched_under_its_new_name(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a" / "deep").mkdir(parents=True)
    (tmp_path / "b").mkdir()
    async with watching(tmp_path) as watcher:
        (tmp_path / "a").rename(tmp_path / "b" / "c")
        assert (await told_of(watcher, "a", "b/c")).directories == ("a", "b/c")
        (tmp_path / "b" / "c" / "deep" / "file").write_text("x")
        assert "b/c/deep/file" in (await told_of(watcher, "b/c/deep/file")).disk_paths
        (tmp_path / "b").rename(tmp_path.parent / f"{tmp_path.name}-out")
        assert (await told_of(watcher, "b")).directories == ("b",)
        assert watcher.watched == 1


async def test_a_removed_tree_leaves_no_watches(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c" / "file").write_text("x")
    async with watching(tmp_path) as watcher:
        shutil.rmtree(tmp_path / "a")
        assert await told_of(watcher, "a/b/c/file") == LocalChanges(("a/b/c/file",))
        assert watcher.watched == 1


async def test_i2_a_link_to_a_directory_is_not_followed(tmp_path: pathlib.Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (inside / "old").symlink_to(outside)
    async with watching(inside) as watcher:
        (inside / "link").symlink_to(outside)
        (outside / "secret").write_text("x")
        (inside / "file").write_text("x")
        assert set((await told_of(watcher, "file", "link")).disk_paths) == {"file", "link"}
        assert watcher.watched == 1


async def test_i9_ignored_names_are_not_watched_until_the_rules_change(tmp_path: pathlib.Path) -> None:
    for name in (".relayfile", ".git", "node_modules", "src"):
        (tmp_path / name / "deep").mkdir(parents=True)
    rules = IgnoreRules()
    rules.learn("", "node_modules/\n*.log\n")
    async with watching(tmp_path, rules) as watcher:
        assert watcher.watched == 3
        for path in (".relayfile/x", ".git/x", "node_modules/x", "a.log", "src/x"):
            (tmp_path / path).write_text("x")
        assert await told_of(watcher, "src/x") == LocalChanges(("src/x",))
        (tmp_path / "src" / "x").rename(tmp_path / "src" / "x.log")
        assert await told_of(watcher, "src/x") == LocalChanges(("src/x",))
        rules.learn("", "*.log\n")
        (tmp_path / "src" / "wake").write_text("x")
        while await told(watcher) != GAP:
            pass
        assert watcher.watched == 5
        (tmp_path / "node_modules" / "deep" / "x").write_text("x")
        await told_of(watcher, "node_modules/deep/x")


async def test_lost_news_is_a_gap(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a").mkdir()
    async with watching(tmp_path) as watcher:
        watches = watcher._watches
        (tmp_path / "b").mkdir()
        watches.take([inotify.Notice(-1, inotify.Mask.OVERFLOW, 0, "")], 0.0)
        watcher._heard.set()
        while await told(watcher) != GAP:
            pass
        assert watcher.watched == 3


async def test_a_real_overflow_loses_nothing(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queue_max = int(pathlib.Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if queue_max > 20_000:
        pytest.skip("this system's queue is too long to be filled in a moment")
    (tmp_path / "a").mkdir()
    async with watching(tmp_path) as watcher:
        for index in range(queue_max // 2 + 10):  # nobody reads meanwhile
            os.close(os.open(tmp_path / "a" / str(index % 100), os.O_WRONLY | os.O_CREAT))
            os.truncate(tmp_path / "a" / str(index % 100), index % 7)
        (tmp_path / "late" / "deep").mkdir(parents=True)
        while not (await told(watcher)).gap:
            pass
        (tmp_path / "late" / "deep" / "file").write_text("x")
        await told_of(watcher, "late/deep/file")


async def test_a_name_that_no_workspace_can_hold_is_told_apart(tmp_path: pathlib.Path) -> None:
    async with watching(tmp_path) as watcher:
        pathlib.Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff")).write_text("x")
        (tmp_path / "back\\slash").write_text("x")
        refused: set[str] = set()
        while len(refused) < 2:
            refused.update((await told(watcher)).refused)
        assert refused == {"\udcff", "back\\slash"}


@pytest.mark.parametrize("call", ["inotify_init1", "inotify_add_watch"])
async def test_without_watches_gaps_are_told_again_and_again_until_there_are_some(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    (tmp_path / "a").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(inotify._libc, call, lambda *_: -1)
        patch.setattr(ctypes, "get_errno", lambda: errno.ENOSPC)
        fd = os.open(tmp_path, os.O_RDONLY)
        watcher = Watcher(fd, IgnoreRules(), SystemClock(), 0.01)
        with closing(watcher):
            assert await told(watcher) == GAP
            assert await told(watcher) == GAP
            assert "No space left" in watcher.exhausted
            patch.undo()
            while watcher.exhausted or watcher.watched < 2:
                assert await told(watcher) == GAP
            (tmp_path / "a" / "file").write_text("x")
            while "a/file" not in (await told(watcher)).disk_paths:
                pass
        os.close(fd)


async def test_a_cancelled_wait_loses_nothing(tmp_path: pathlib.Path) -> None:
    async with watching(tmp_path) as watcher:
        (tmp_path / "file").write_text("x")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await watcher.next()
        assert await told_of(watcher, "file") == LocalChanges(("file",))


async def test_a_cancelled_walk_goes_on_where_it_was(tmp_path: pathlib.Path) -> None:
    for index in range(600):
        (tmp_path / str(index)).mkdir()
    fd = os.open(tmp_path, os.O_RDONLY)
    with closing(Watcher(fd, IgnoreRules(), SystemClock(), 60.0)) as watcher:
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await watcher.next()
        assert await told(watcher) == GAP
        assert watcher.watched == 601
    os.close(fd)


async def test_a_tree_that_is_only_partly_watched_stays_exhausted_until_it_is_wholly(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in range(20):
        (tmp_path / str(index)).mkdir()
    monkeypatch.setattr(watch, "PIECE_DIRECTORIES", 3)
    left = iter(range(10))
    add = inotify.Inotify.add

    def scarce(self: inotify.Inotify, directory: int) -> int:
        if next(left, None) is None:
            raise inotify.WatchesExhausted("no more")
        return add(self, directory)

    fd = os.open(tmp_path, os.O_RDONLY)
    with monkeypatch.context() as patch:
        patch.setattr(inotify.Inotify, "add", scarce)
        with closing(Watcher(fd, IgnoreRules(), SystemClock(), 0.01)) as watcher:
            assert await told(watcher) == GAP
            for _ in range(3):
                (tmp_path / "file").write_text("x")
                await told(watcher)
                assert watcher.exhausted == "no more"
            patch.undo()
            while watcher.exhausted:
                await told(watcher)
            assert watcher.watched == 21
    os.close(fd)


async def test_what_happens_while_nobody_asks_is_told_later(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "WAITING_MAX", 10)
    (tmp_path / "out").mkdir()
    inside = tmp_path / "in"
    inside.mkdir()
    async with watching(inside) as watcher:
        (inside / "file").write_text("x")
        (inside / "d").mkdir()
        await asyncio.sleep(0.01)  # the loop turns, and the news is read
        (inside / "d" / "below").write_text("x")
        assert set((await told_of(watcher, "file", "d/below")).disk_paths) == {"file", "d/below"}
        for index in range(30):
            (inside / f"d{index}").mkdir()
            (inside / f"f{index}").write_text("x")
            (inside / f"f{index}").rename(tmp_path / "out" / f"f{index}")
        await asyncio.sleep(0.01)
        assert len(watcher._watches.walks) <= 10
        assert len(watcher._watches._left) <= 10
        while await told(watcher) != GAP:
            pass
        assert watcher.watched == 32
        watcher.lost()
        assert await told(watcher) == GAP
