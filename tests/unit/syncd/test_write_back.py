import asyncio
import errno
import os
import pathlib
import threading
from collections.abc import Iterator

import pytest

from relayfile.errors import MirrorRefused
from relayfile.syncd import descriptors, write_back
from relayfile.syncd.progress import Progress, Via
from relayfile.syncd.pull import first_pull
from relayfile.syncd.write_back import WRITE_BACK_BYTES, WriteBack
from relayfile.syncd.writer import Writer
from tests.fakes.mirror import opened, tree_of
from tests.fakes.store import FakeStore


@pytest.fixture
def writer() -> Iterator[Writer]:
    writer = Writer()
    yield writer
    writer.close()


class Disk:
    """Stands for `syncfs`: counts, waits until it is told, and fails if it shall."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = 0
        self.ready = threading.Event()
        self.error: OSError | None = None
        monkeypatch.setattr(descriptors, "barrier", self.sync)

    def sync(self, _directory: int) -> None:
        self.calls += 1
        assert self.ready.wait(10)
        if self.error is not None:
            raise self.error


async def test_one_at_a_time_is_under_way_while_batches_are_written(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    behind = WriteBack(writer, 0)
    await behind.staged(WRITE_BACK_BYTES - 1)
    await behind.end()
    assert disk.calls == 0
    for _ in range(3):
        await behind.staged(WRITE_BACK_BYTES)
        assert await writer.run(lambda: 7) == 7  # the writer thread does not wait for the disk
    disk.ready.set()
    await behind.end()
    assert disk.calls == 1
    await behind.staged(1)  # what was staged meanwhile is for the next
    await behind.end()
    assert disk.calls == 2


async def test_it_is_not_left_behind_by_a_caller_that_is_cancelled(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    behind = WriteBack(writer, 0)
    await behind.staged(WRITE_BACK_BYTES)
    ending = asyncio.create_task(behind.end())
    await asyncio.sleep(0)
    ending.cancel()
    await asyncio.sleep(0)
    assert not ending.done()  # the descriptor is in use until the kernel is done with it
    disk.ready.set()
    with pytest.raises(asyncio.CancelledError):
        await ending


async def test_a_disk_that_fails_behind_the_writer_stops_the_pull_and_the_next_one_goes_on(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FakeStore()
    store.fill({f"/d{index % 7}/f{index:04}": f"{index}" * 2000 for index in range(1_000)})
    monkeypatch.setattr(write_back, "WRITE_BACK_BYTES", 1 << 20)
    async with store.served() as address, opened(address, tmp_path) as mirror:
        with monkeypatch.context() as broken:
            disk = Disk(broken)
            disk.error = OSError(errno.EIO, os.strerror(errno.EIO))
            disk.ready.set()
            with pytest.raises(MirrorRefused, match="IO_ERROR"):
                await first_pull(mirror, Progress(0.0), Via.EXPORT)
        await first_pull(mirror, Progress(0.0), Via.EXPORT)
        assert mirror.journal.sums["/"] == store.total("/")
    assert tree_of(tmp_path) == {path: file.content for path, file in store.files.items()}
