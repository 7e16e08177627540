"""A spool that fills its disk can be emptied again, and takes more then, without anybody's help."""

import asyncio
from pathlib import Path

import pytest

from relayfile.errors import Unavailable
from relayfile.ingest.spool import spool_file
from relayfile.ingest.spool.spool import Spool
from relayfile.ingest.spool.spool_room import FRAME_BYTES, PAGE_BYTES, SLACK_BYTES, Occupancy, needed_bytes
from tests.support.power_cut import Disk
from tests.unit.ingest.spool.test_spool import append, envelope, opened

SIZE = 100_000


async def fill(spool: Spool) -> int:
    """Append until the disk is full; how many were taken."""
    for number in range(2_000):
        try:
            await append(spool, [envelope(number, size=SIZE)])
        except Unavailable:
            return number
    raise AssertionError("never full")


@pytest.mark.needs_root
@pytest.mark.needs_loop_mount
async def test_a_disk_that_the_spool_filled_has_room_when_it_is_emptied(tmp_path: Path) -> None:
    disk = Disk.made(tmp_path, 24 << 20)
    with disk.mounted():
        (disk.place / "ingest").mkdir()
        for _ in range(2):
            async with opened(disk.place / "ingest") as one:
                taken = await fill(one.spool)
                assert taken > 100
            async with opened(disk.place / "ingest") as two:
                rows = [row.row_id for row in two.reader.remainders()]
                assert len(rows) == taken
                for row_id in rows:
                    two.spool.settle([row_id])
                    await asyncio.sleep(0)
                for _ in range(200):
                    if not list(two.reader.remainders()):
                        break
                    await asyncio.sleep(0.02)
                assert await fill(two.spool) > taken // 2
                two.spool.settle([row.row_id for row in two.reader.remainders()])


async def test_what_makes_room_is_not_refused_with_what_wants_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Senders that come again and again keep nothing from leaving."""
    async with opened(tmp_path) as one:
        await append(one.spool, [envelope(1)])
        monkeypatch.setattr(spool_file, "free_bytes", lambda directory: 0)
        one.spool.settle([1])
        for number in range(4):
            with pytest.raises(Unavailable, match="full"):
                await append(one.spool, [envelope(number)])
        assert not list(one.reader.remainders())
        monkeypatch.setattr(spool_file, "free_bytes", lambda directory: None)
        await append(one.spool, [envelope(5)])


def test_rows_need_room_in_the_log_and_then_in_the_file() -> None:
    full_log = Occupancy(100 * PAGE_BYTES, 48 * FRAME_BYTES, 100, 0, 0)
    assert needed_bytes(full_log, 0, 32) == SLACK_BYTES
    assert needed_bytes(full_log, 10, 32) == SLACK_BYTES + 10 * PAGE_BYTES
    assert needed_bytes(full_log._replace(free_pages=10), 10, 32) == SLACK_BYTES, "pages are used again"
    assert needed_bytes(full_log._replace(pages=120), 0, 32) == SLACK_BYTES + 20 * PAGE_BYTES, "in the log alone"
    assert needed_bytes(full_log._replace(log_bytes=0), 0, 32) == SLACK_BYTES + 48 * FRAME_BYTES
