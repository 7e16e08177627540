import asyncio
import os
import pathlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from relayfile.errors import DataCorrupted, ExportRefused, Unavailable
from relayfile.settings import SyncdSettings
from relayfile.syncd.digest import TreeSum
from relayfile.syncd.feed import Feed
from relayfile.syncd.journal_pull import FirstPull, PullPhase
from relayfile.syncd.journal_rows import StagedRow
from relayfile.syncd.open_mirror import OpenMirror
from relayfile.syncd.progress import Progress, Via
from relayfile.syncd.pull import first_pull
from relayfile.syncd.rows import Cursor, FileState
from relayfile.syncd.staging import ASKED_BYTES_MAX
from relayfile.v1.file_pb2 import FileWithContent
from tests.fakes.mirror import opened, tree_of
from tests.fakes.store import FakeStore

FILES = {f"/github/repo-{index % 7}/issues/{index}.json": f'{{"number": {index}}}' * 20 for index in range(3000)}


def contents(store: FakeStore) -> dict[str, bytes]:
    return {path: file.content for path, file in store.files.items()}


async def pull(mirror: OpenMirror, via: Via = Via.ANY) -> Progress:
    progress = Progress(0.0)
    await first_pull(mirror, progress, via)
    return progress


@pytest.mark.parametrize("via", [Via.EXPORT, Via.TREE])
async def test_a_first_pull_is_the_tree_of_the_store(tmp_path: pathlib.Path, via: Via) -> None:
    store = FakeStore()
    store.fill({**FILES, "/top.json": "{}", "/big.bin": b"x" * 3_000_000, "/empty": b""})
    async with store.served() as address, opened(address, tmp_path) as mirror:
        progress = await pull(mirror, via)
        assert mirror.journal.sums["/"] == store.total("/")
        assert mirror.journal.cursor == Cursor(store.revision, store.history_id)
        assert mirror.journal.unsettled().files == {}
        mirror.root.check()
        counted = mirror.instruments.files_written_total, mirror.instruments.bytes_written_total
        assert [metric._value.get() for metric in counted] == list(progress.total)
    assert tree_of(tmp_path) == contents(store)
    assert progress.via is via
    assert progress.done == progress.total == (len(store.files), sum(map(len, contents(store).values())))
    assert list((tmp_path / "mirror" / ".relayfile" / "staging").iterdir()) == []


async def test_a_refused_export_is_listed_instead(tmp_path: pathlib.Path) -> None:
    store = FakeStore()
    store.fill(FILES)
    store.knobs.refuse_export = True
    async with store.served() as address, opened(address, tmp_path) as mirror:
        with pytest.raises(ExportRefused):
            await pull(mirror, Via.EXPORT)
        progress = await pull(mirror)
    assert (progress.via, "a knob says so" in progress.fallback_reason) == (Via.TREE, True)
    assert tree_of(tmp_path) == contents(store)


async def test_only_the_remote_paths_come(tmp_path: pathlib.Path) -> None:
    store = FakeStore()
    store.fill({"/github/a": "1", "/github-2/b": "2", "/linear/x/c": "3", "/linear/d": "4"})
    async with (
        store.served() as address,
        opened(address, tmp_path, remote_paths=("/github", "/linear/x")) as mirror,
    ):
        await pull(mirror)
        assert mirror.journal.sums == {path: store.total(path) for path in ("/github", "/linear/x")}
    assert tree_of(tmp_path) == {"/github/a": b"1", "/linear/x/c": b"3"}


@pytest.mark.parametrize("via", [Via.EXPORT, Via.TREE])
async def test_a_cut_pull_goes_on_where_it_was(tmp_path: pathlib.Path, via: Via) -> None:
    store = FakeStore()
    store.fill({f"/f/{index:05}": bytes(3_000) for index in range(2_000)})
    settings = SyncdSettings(data_dir=tmp_path, sync_page_entries=500, sync_read_concurrency=1)  # reads of two messages
    async with store.served() as address:
        store.knobs.cut_after_messages = 3 if via is Via.EXPORT else 1
        async with opened(address, tmp_path, settings=settings) as mirror:
            with pytest.raises(Unavailable):
                await pull(mirror, via)
            staged = mirror.journal.sums["/"].file_count
            assert 0 < staged < 2_000
        store.knobs.cut_after_messages = None
        store.paths_read.clear()
        async with opened(address, tmp_path, settings=settings) as mirror:
            progress = await pull(mirror, via)
            assert (progress.resumed, progress.reused_count) == (True, staged)
            assert mirror.journal.sums["/"] == store.total("/")
    if via is Via.TREE:
        assert len(store.paths_read) == 2_000 - staged
    assert tree_of(tmp_path) == contents(store)


async def test_what_a_power_cut_took_is_fetched_again(tmp_path: pathlib.Path) -> None:
    store = FakeStore()
    store.fill({f"/f/{index:05}": bytes(3_000) for index in range(2_000)})
    async with store.served() as address:
        store.knobs.cut_after_messages = 3
        async with opened(address, tmp_path) as mirror:
            with pytest.raises(Unavailable):
                await pull(mirror)
        store.knobs.cut_after_messages = None
        staged = tmp_path / "mirror" / ".relayfile" / "staging" / "tree" / "f"
        (staged / "00100").write_bytes(b"")
        async with opened(address, tmp_path) as mirror:
            progress = await pull(mirror)
            assert progress.reused_count == 100
            assert mirror.journal.sums["/"] == store.total("/")
    assert tree_of(tmp_path) == contents(store)


async def test_another_history_starts_anew(tmp_path: pathlib.Path) -> None:
    store = FakeStore()
    store.fill({f"/f/{index:05}": bytes(3_000) for index in range(2_000)})
    async with store.served() as address, opened(address, tmp_path) as mirror:
        store.knobs.cut_after_messages = 2
        with pytest.raises(Unavailable):
            await pull(mirror)
        store.knobs.cut_after_messages = None
        store.new_history()
        progress = await pull(mirror)
        assert not progress.resumed
        assert mirror.journal.cursor.history_id == store.history_id
        assert mirror.journal.sums["/"] == store.total("/")


async def test_i2_hostile_names_stay_outside_and_are_listed(tmp_path: pathlib.Path) -> None:
    store = FakeStore()
    hostile = ["/../../evil", "/a/../../evil", "//evil", "/a//b", "/nul\x00x", "/a/./b", "/back\\slash", "/c\n"]
    store.fill({"/good": "1", **dict.fromkeys(hostile, "evil")})
    async with store.served() as address, opened(address, tmp_path) as mirror:
        await pull(mirror)
        assert mirror.journal.sums["/"] == store.total("/")
        assert {problem.path for problem in mirror.journal.problems.listed(100)} == set(hostile)
        assert mirror.journal.unsettled().files == {FileState.PROBLEM: len(hostile)}
    assert tree_of(tmp_path) == {"/good": b"1"}
    assert not [name for _, _, names in os.walk(tmp_path) for name in names if "evil" in name]


async def test_i2_a_store_that_answers_outside_of_what_was_asked_is_not_believed(tmp_path: pathlib.Path) -> None:
    store = FakeStore()
    store.fill({"/a/x": "1", "/b/y": "2"})
    store.below = lambda path, after="": list(store.files.values())  # type: ignore[method-assign]  # a lying store
    async with store.served() as address, opened(address, tmp_path, remote_paths=("/a",)) as mirror:
        with pytest.raises(DataCorrupted):
            await pull(mirror)
    assert tree_of(tmp_path) == {}


async def test_i3_files_in_the_way_are_kept_and_listed_and_equal_ones_taken_over(tmp_path: pathlib.Path) -> None:
    store = FakeStore()
    store.fill({"/d/mine": "theirs", "/d/same": "same", "/d/new": "new", "/file/below": "x", "/dir": "x"})
    root = tmp_path / "mirror"
    (root / "d").mkdir(parents=True)
    (root / "d" / "mine").write_text("mine")
    (root / "d" / "same").write_text("same")
    (root / "d" / "link").symlink_to("/etc")
    (root / "file").write_text("a file, not a directory")
    (root / "dir").mkdir()
    async with store.served() as address, opened(address, tmp_path, adopt_existing=True) as mirror:
        await pull(mirror)
        reasons = {problem.path: problem.reason for problem in mirror.journal.problems.listed(10)}
        assert reasons == {
            "/d/mine": "LOCAL_FILE_IN_THE_WAY",
            "/file/below": "FILE_IN_THE_WAY",
            "/dir": "FILE_IS_DIRECTORY",
        }
        rows = mirror.journal.load(["/d/same", "/d/new"])
        assert [row.state for row in rows.values()] == [FileState.MATERIALISED] * 2
    assert (root / "d" / "mine").read_text() == "mine"
    assert (root / "d" / "new").read_text() == "new"
    assert (root / "file").read_text() == "a file, not a directory"


async def test_i7_garbage_is_a_problem_of_that_file_alone(tmp_path: pathlib.Path) -> None:
    store = FakeStore()
    store.fill({"/a": "1", "/b": "2", "/c": "3"})
    store.knobs.garbage = {"/b"}
    async with store.served() as address, opened(address, tmp_path) as mirror:
        await pull(mirror)
        assert [(each.path, each.reason) for each in mirror.journal.problems.listed(9)] == [("/b", "HASH_MISMATCH")]
        assert mirror.journal.sums["/"] == store.total("/")
    assert tree_of(tmp_path) == {"/a": b"1", "/c": b"3"}


async def test_i8_long_and_folding_names_come_and_map_back(tmp_path: pathlib.Path) -> None:
    store = FakeStore()
    long = "/d/" + "x" * 400 + ".json"
    store.fill({long: "long", "/Case/x": "1", "/case/x": "2", "/case/y": "3"})
    async with store.served() as address, opened(address, tmp_path, folds=True) as mirror:
        await pull(mirror)
        rows = mirror.journal.load(store.files)
        assert {row.state for row in rows.values()} == {FileState.MATERIALISED}
        for path, row in rows.items():
            assert (tmp_path / "mirror" / row.disk_path).read_bytes() == store.files[path].content
        assert len({row.disk_path.casefold() for row in rows.values()}) == 4
        assert rows["/Case/x"].disk_path == "Case/x"


async def test_i9_ignored_paths_are_known_and_never_written(tmp_path: pathlib.Path) -> None:
    store = FakeStore()
    store.fill({"/.relayfile/mirror.json": "{}", "/r/.git/config": "x", "/r/ok": "1"})
    async with store.served() as address, opened(address, tmp_path) as mirror:
        await pull(mirror)
        assert mirror.journal.unsettled().files == {FileState.IGNORED: 2}
        assert mirror.journal.sums["/"] == store.total("/")
        mirror.root.check()
    assert tree_of(tmp_path) == {"/r/ok": b"1"}
    assert not (tmp_path / "mirror" / "r" / ".git").exists()


async def test_a_cancelled_pull_leaves_nothing_running(tmp_path: pathlib.Path) -> None:
    store = FakeStore()
    store.fill({f"/f/{index:05}": bytes(3_000) for index in range(2_000)})
    async with store.served() as address, opened(address, tmp_path) as mirror:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await pull(mirror)
        assert mirror.journal.first_pull.mark().phase in (PullPhase.STAGING, PullPhase.NONE)
        await pull(mirror)
    assert tree_of(tmp_path) == contents(store)


async def test_parallel_reads_hide_latency(tmp_path: pathlib.Path) -> None:
    store = FakeStore()
    store.fill({f"/f/{index:05}": b"x" for index in range(2_000)})
    store.knobs.latency_s = 0.05
    settings = SyncdSettings(data_dir=tmp_path, sync_page_entries=1_000, sync_batch_files_max=100)
    async with store.served() as address, opened(address, tmp_path, settings=settings) as mirror:
        await pull(mirror, Via.TREE)
    # One after the other, 20 batches would be 20 round trips.
    assert 8 < store.reads_peak <= settings.sync_read_concurrency


class Asked:
    """Content that was asked for and is not journalled: what a kill makes a pull fetch again."""

    def __init__(self, patch: pytest.MonkeyPatch, store: FakeStore) -> None:
        self.bytes = self.peak_bytes = 0
        read_files, stage = Feed.read_files, FirstPull.stage

        def asking(feed: Feed, paths: Sequence[str]) -> AsyncIterator[tuple[Sequence[FileWithContent], int]]:
            self.bytes += sum(len(store.files[path].content) for path in paths)
            self.peak_bytes = max(self.peak_bytes, self.bytes)
            return read_files(feed, paths)

        def staging(pull: FirstPull, root: str, rows: Sequence[StagedRow], added: TreeSum, *problems: Any) -> None:
            stage(pull, root, rows, added, *problems)
            self.bytes -= added.total_bytes

        patch.setattr(Feed, "read_files", asking)
        patch.setattr(FirstPull, "stage", staging)


@pytest.mark.parametrize("size", [30_000, 700_000, 5_000_000])
async def test_what_is_asked_for_and_not_journalled_is_bounded(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    store = FakeStore()
    store.fill({f"/f/{index:05}": bytes(size) for index in range(max(4, 20_000_000 // size))})
    asked = Asked(monkeypatch, store)
    async with store.served() as address, opened(address, tmp_path) as mirror:
        await pull(mirror, Via.TREE)
        assert mirror.journal.sums["/"] == store.total("/")
    assert asked.bytes == 0
    assert size <= asked.peak_bytes <= max(size, ASKED_BYTES_MAX)
    assert tree_of(tmp_path) == contents(store)


async def test_what_vanishes_before_it_is_read_gives_its_room_back(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FakeStore()
    store.fill({f"/f/{index:02}": bytes(1_000_000) for index in range(30)})
    read_files = Feed.read_files

    def late(feed: Feed, paths: Sequence[str]) -> AsyncIterator[tuple[Sequence[FileWithContent], int]]:
        for path in paths:
            if path in store.files and path != "/f/29":
                store.delete(path)
        return read_files(feed, paths)

    monkeypatch.setattr(Feed, "read_files", late)
    async with store.served() as address, opened(address, tmp_path) as mirror:
        await pull(mirror, Via.TREE)
    assert list(tree_of(tmp_path)) == ["/f/29"]
