"""A first pull that is killed, or whose disks lose power, goes on: little is fetched again, nothing is half there.

After kill -9 at most 8 MiB are fetched again; after a power cut at most what followed the last barrier.
"""

import asyncio
import pathlib
import random
import signal
from collections.abc import AsyncIterator, Container, Iterator
from contextlib import asynccontextmanager

import apsw
import pytest

from relayfile.v1 import file_pb2
from tests.crash.syncd import READY_TIMEOUT_S, Syncd, status
from tests.fakes.mirror import tree_of
from tests.fakes.registry import contents, until
from tests.fakes.store import FakeStore
from tests.fakes.store_writes import StoredFile
from tests.support.power_cut import Disk, until_stopped

pytestmark = [pytest.mark.full, pytest.mark.timeout(180)]

FETCHED_AGAIN_BYTES_MAX = 8 << 20
BARRIER_BYTES = 4 << 20
FILE_BYTES = 8_000
FILES = 4_000
TOTAL_BYTES = FILES * FILE_BYTES
VIA = pytest.mark.parametrize("refuse_export", [False, True], ids=["export", "tree"])


class CountingStore(FakeStore):
    """Knows how many bytes of content it sent by either way; what is still on its way to syncd is counted too."""

    def __init__(self) -> None:
        super().__init__()
        self.sent_bytes = 0

    def packed(self, files: list[StoredFile], known: Container[bytes] = ()) -> Iterator[file_pb2.ReadFilesResponse]:
        for message in super().packed(files, known):
            self.sent_bytes += sum(len(each.content) for each in message.files)
            yield message


def filled(chance: random.Random) -> CountingStore:
    store = CountingStore()
    store.fill({f"/d{index % 7}/{index:05}": chance.randbytes(FILE_BYTES) for index in range(FILES)})
    return store


def assert_nothing_is_half_there(store: FakeStore, directory: pathlib.Path) -> None:
    versions = contents(store)
    assert all(versions[path] == content for path, content in tree_of(directory).items())


async def pulled_to_the_end(store: FakeStore, directory: pathlib.Path, address: str) -> None:
    async with Syncd(directory, address).running():
        await until(lambda: status(directory).get("verdict") == "exact", READY_TIMEOUT_S)
    assert tree_of(directory) == contents(store)


@VIA
@pytest.mark.parametrize("seed", range(2))
async def test_after_a_kill_at_most_8_mib_are_fetched_again(
    tmp_path: pathlib.Path, seed: int, refuse_export: bool
) -> None:
    chance = random.Random(seed)
    store = filled(chance)
    store.knobs.refuse_export = refuse_export
    async with store.served() as address:
        syncd = Syncd(tmp_path, address)
        async with syncd.running() as process:
            await syncd.add_mirror()
            wanted = chance.uniform(0.4, 0.9) * TOTAL_BYTES
            await until(lambda: store.sent_bytes >= wanted, READY_TIMEOUT_S)
            process.kill()
            await process.wait()
        assert_nothing_is_half_there(store, tmp_path)
        await pulled_to_the_end(store, tmp_path, address)
    assert 0 <= store.sent_bytes - TOTAL_BYTES <= FETCHED_AGAIN_BYTES_MAX


def barriers_of(journal: pathlib.Path) -> tuple[int, int, str]:
    """(barriers that were passed, files before the last of them, their last path), as the stopped process knows it."""
    db = apsw.Connection(str(journal), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        [(passed, count, path)] = db.execute(
            "SELECT (SELECT barrier - 1 FROM mirror), count(*), max(path) FROM file "
            "WHERE barrier < (SELECT barrier FROM mirror)"
        )
    finally:
        db.close()
    return passed, count, path or ""


@asynccontextmanager
async def stopped_in_a_pull(store: CountingStore, syncd: Syncd, wanted: float) -> AsyncIterator[None]:
    """Stopped when the store has sent ``wanted`` bytes; killed at the end."""
    async with syncd.running() as process:
        try:
            await syncd.add_mirror()
            await until(lambda: store.sent_bytes >= wanted, READY_TIMEOUT_S)
            process.send_signal(signal.SIGSTOP)
            await until_stopped([process.pid])
            yield
        finally:
            process.kill()  # a stopped process heeds nothing else
            await process.wait()


def disks_in(folder: pathlib.Path) -> tuple[Disk, Disk]:
    """One for the directory and one for the journal: what brings one to the disk does nothing for the other."""
    (folder / "of-tree").mkdir()
    (folder / "of-journal").mkdir()
    return Disk.made(folder / "of-tree"), Disk.made(folder / "of-journal")


@pytest.mark.needs_root
@pytest.mark.needs_loop_mount
@VIA
@pytest.mark.parametrize("seed", range(3))
async def test_after_a_power_cut_at_most_what_followed_the_last_barrier_is_fetched_again(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, seed: int, refuse_export: bool
) -> None:
    monkeypatch.setenv("RELAYFILE_SYNC_BARRIER_BYTES", str(BARRIER_BYTES))
    chance = random.Random(seed)
    store = filled(chance)
    store.knobs.refuse_export = refuse_export
    tree, journal = disks_in(tmp_path)
    async with store.served() as address:
        with tree.mounted(), journal.mounted():
            (tree.place / "data").symlink_to(journal.place)
            tree.settle()
            async with stopped_in_a_pull(store, Syncd(tree.place, address), chance.uniform(0.4, 1.0) * TOTAL_BYTES):
                [database] = (journal.place / "mirrors").glob("*.db")
                passed, count, last = await asyncio.to_thread(barriers_of, database)
                found_tree, found_journal = tree.cut(), journal.cut()
        sent_bytes = store.sent_bytes
        with found_tree.mounted(), found_journal.mounted():
            assert_nothing_is_half_there(store, found_tree.place)
            await pulled_to_the_end(store, found_tree.place, address)
    assert passed > 0, "nothing was behind a barrier yet: the test shows nothing"
    assert store.sent_bytes - sent_bytes <= TOTAL_BYTES - count * FILE_BYTES
    if len(store.exports_after) > 1:
        assert store.exports_after[-1] >= last
