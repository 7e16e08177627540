"""What is on the disk already is not sent again: the store is told the hashes, and each content is read and hashed."""

import errno
import os
import pathlib
import random
from typing import Any

import apsw
import pytest

from relayfile.errors import MirrorRefused, StorageFailed, Unavailable
from relayfile.syncd import inventory
from relayfile.syncd.catch_up import relearn
from relayfile.syncd.ignore import IgnoreRules
from relayfile.syncd.inventory import HASH_BYTES, Inventory
from relayfile.syncd.journal import Journal
from relayfile.syncd.journal_pull import FirstPull
from relayfile.syncd.open_mirror import OpenMirror
from relayfile.syncd.progress import Progress, Via
from relayfile.syncd.pull import first_pull
from relayfile.syncd.rails import is_full
from relayfile.syncd.stage import Stage
from relayfile.syncd.walk import Walk
from tests.fakes.mirror import opened, tree_of
from tests.fakes.store import FakeStore

FILE_BYTES = 10_000
FILES = 400
TOTAL_BYTES = FILES * FILE_BYTES
TOLD_BYTES_MAX = 300 * FILES
"""Of files whose content is known: their metadata, and their hashes on the way to the store."""
VIA = pytest.mark.parametrize("via", [Via.EXPORT, Via.TREE])


def filled() -> FakeStore:
    chance = random.Random(20261123)
    store = FakeStore()
    store.fill({f"/d{index % 7}/{index:05}": chance.randbytes(FILE_BYTES) for index in range(FILES)})
    return store


def contents(store: FakeStore) -> dict[str, bytes]:
    return {path: file.content for path, file in store.files.items()}


def staging(directory: pathlib.Path) -> list[str]:
    return sorted(os.listdir(directory / "mirror" / ".relayfile" / "staging"))


async def pull(mirror: OpenMirror, store: FakeStore, via: Via) -> Progress:
    """To the end: the journal is the store's tree."""
    progress = Progress(0.0)
    await first_pull(mirror, progress, via)
    assert mirror.journal.sums["/"] == store.total("/")
    assert mirror.journal.unsettled().files == {}
    return progress


def lay(directory: pathlib.Path, files: dict[str, bytes]) -> None:
    for path, content in files.items():
        place = directory / "mirror" / path[1:]
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)


@VIA
async def test_a_directory_that_has_it_all_is_taken_as_it_is(tmp_path: pathlib.Path, via: Via) -> None:
    store = filled()
    lay(tmp_path, contents(store))
    async with store.served() as address, opened(address, tmp_path, adopt_existing=True) as mirror:
        progress = await pull(mirror, store, via)
    assert tree_of(tmp_path) == contents(store)
    assert progress.reused_count == FILES
    assert FILES * HASH_BYTES < progress.wire_bytes < TOLD_BYTES_MAX
    assert (store.paths_read, staging(tmp_path)) == ([], [])


@VIA
async def test_contents_are_found_under_other_names_and_for_many_files(tmp_path: pathlib.Path, via: Via) -> None:
    store = FakeStore()
    store.fill({f"/new/{index:03}": bytes([index % 3]) * FILE_BYTES for index in range(300)})
    store.put("/new/other", b"only the store has it")
    lay(tmp_path, {f"/old/{index}": bytes([index]) * FILE_BYTES for index in range(3)})
    before = tree_of(tmp_path)
    async with store.served() as address, opened(address, tmp_path, adopt_existing=True) as mirror:
        progress = await pull(mirror, store, via)
    assert tree_of(tmp_path) == {**before, **contents(store)}
    assert progress.reused_count == 300
    assert progress.wire_bytes < 300 * 300


@VIA
async def test_what_is_no_longer_what_it_was_is_fetched(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, via: Via
) -> None:
    store = filled()
    lay(tmp_path, contents(store))
    take = Inventory.take

    async def taken_and_changed(inventory: Inventory) -> None:
        await take(inventory)
        lay(tmp_path, dict.fromkeys(list(contents(store))[:9], b"an editor was quicker"))
        (tmp_path / "mirror" / "d3" / "00010").unlink()

    monkeypatch.setattr(Inventory, "take", taken_and_changed)
    async with store.served() as address, opened(address, tmp_path, adopt_existing=True) as mirror:
        progress = Progress(0.0)
        await first_pull(mirror, progress, via)
        assert mirror.journal.sums["/"] == store.total("/")
    assert progress.reused_count == FILES - 10
    assert sorted(store.paths_read) == sorted([*list(contents(store))[:9], "/d3/00010"])
    assert tree_of(tmp_path)["/d3/00010"] == store.files["/d3/00010"].content
    assert tree_of(tmp_path)["/d0/00000"] == b"an editor was quicker"


async def cut_half_way(mirror: OpenMirror, store: FakeStore, messages: int = 2) -> Progress:
    """An export that ends in the middle, with what was journalled until then."""
    store.knobs.cut_after_messages = messages
    progress = Progress(0.0)
    with pytest.raises(Unavailable):
        await first_pull(mirror, progress, Via.EXPORT)
    store.knobs.cut_after_messages = None
    assert TOTAL_BYTES // 3 < mirror.journal.sums["/"].total_bytes < TOTAL_BYTES
    return progress


@VIA
async def test_a_pull_that_was_cut_half_way_fetches_the_other_half(tmp_path: pathlib.Path, via: Via) -> None:
    store = filled()
    async with store.served() as address:
        async with opened(address, tmp_path) as mirror:
            first = await cut_half_way(mirror, store)
        async with opened(address, tmp_path) as mirror:
            second = await pull(mirror, store, via)
    assert first.wire_bytes + second.wire_bytes < TOTAL_BYTES + TOLD_BYTES_MAX
    assert tree_of(tmp_path) == contents(store)


@VIA
async def test_what_was_staged_of_another_history_is_not_sent_again(tmp_path: pathlib.Path, via: Via) -> None:
    store = filled()
    async with store.served() as address:
        async with opened(address, tmp_path) as mirror:
            first = await cut_half_way(mirror, store)
        store.new_history()
        async with opened(address, tmp_path) as mirror:
            second = await cut_half_way(mirror, store, messages=1)
            assert staging(tmp_path) == ["aside-1", "tree"]
        store.new_history()
        async with opened(address, tmp_path) as mirror:
            third = await pull(mirror, store, via)
    assert first.wire_bytes + second.wire_bytes + third.wire_bytes < TOTAL_BYTES + 3 * TOLD_BYTES_MAX
    assert tree_of(tmp_path) == contents(store)
    assert staging(tmp_path) == []


async def test_a_full_pull_of_an_intact_mirror_moves_no_content(tmp_path: pathlib.Path) -> None:
    store = filled()
    async with store.served() as address, opened(address, tmp_path) as mirror:
        await pull(mirror, store, Via.EXPORT)
        again = Progress(0.0)
        await relearn(mirror, again, everything=True)
    assert (again.written, again.deleted_count, store.paths_read) == ((0, 0), 0, [])
    assert 0 < again.wire_bytes < TOLD_BYTES_MAX


async def test_a_full_disk_costs_what_was_set_aside(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = filled()
    async with store.served() as address:
        async with opened(address, tmp_path) as mirror:
            await cut_half_way(mirror, store)
        store.new_history()

        def full(*_: Any) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        async with opened(address, tmp_path) as mirror:
            with monkeypatch.context() as patch:
                patch.setattr(Stage, "write", full)
                with pytest.raises(MirrorRefused, match="DISK_FULL"):
                    await first_pull(mirror, Progress(0.0), Via.EXPORT)
            assert staging(tmp_path) == ["tree"]
            await pull(mirror, store, Via.EXPORT)
    assert tree_of(tmp_path) == contents(store)


def directories_held(path: pathlib.Path) -> list[str]:
    """Below the staging directory, by this process."""
    links = [pathlib.Path("/proc/self/fd", each) for each in os.listdir("/proc/self/fd")]
    held = [str(link.readlink()) for link in links if link.is_symlink()]
    return [each for each in held if each.startswith(f"{path}/mirror/.relayfile/staging/")]


@VIA
async def test_a_full_journal_costs_what_was_set_aside_and_no_descriptors(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, via: Via
) -> None:
    store = filled()
    async with store.served() as address:
        async with opened(address, tmp_path) as mirror:
            await cut_half_way(mirror, store)
        store.new_history()

        def full(*_: Any) -> None:
            raise StorageFailed(what="the journal") from apsw.FullError("full")

        async with opened(address, tmp_path) as mirror:
            with monkeypatch.context() as patch:
                patch.setattr(FirstPull, "stage", full)
                for _ in range(2):
                    with pytest.raises(StorageFailed) as failed:
                        await first_pull(mirror, Progress(0.0), via)
                    assert is_full(failed.value), "it is tried again"
                    assert directories_held(tmp_path) == []
            assert staging(tmp_path) == ["tree"]
            await pull(mirror, store, via)
    assert tree_of(tmp_path) == contents(store)


async def test_a_journal_that_is_full_while_batches_are_fetched_is_known_for_it(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = filled()
    async with store.served() as address, opened(address, tmp_path) as mirror:
        await pull(mirror, store, Via.EXPORT)
        for path, content in contents(store).items():
            store.put(path, content + b"more")

        def full(*_: Any) -> None:
            raise StorageFailed(what="the journal") from apsw.FullError("full")

        with monkeypatch.context() as patch:
            patch.setattr(Journal, "settle", full)
            with pytest.raises(StorageFailed) as failed:
                await relearn(mirror, Progress(0.0), everything=True)
            assert is_full(failed.value), "it is tried again"
        await relearn(mirror, Progress(0.0))
    assert tree_of(tmp_path) == contents(store)


def test_a_step_of_the_thread_that_all_share_ends_by_bytes_too(tmp_path: pathlib.Path) -> None:
    for index in range(4):
        (tmp_path / f"f{index}").touch()
        os.truncate(tmp_path / f"f{index}", 16 << 20)
    base = os.open(tmp_path, os.O_RDONLY)
    walk = Walk(base, "", IgnoreRules())
    steps = [inventory._step(walk, base, 16 << 20) for _ in range(3)]
    walk.close()
    os.close(base)
    assert [([place for _, place in found], more) for found, more in steps] == [
        (["f0", "f1"], True),
        (["f2", "f3"], True),
        ([], False),
    ]
