"""The file of a node gives room back after a mass deletion; one of an earlier release goes on as it is."""

import threading
from pathlib import Path

import apsw
import pytest

from relayfile.clock import ManualClock
from relayfile.data_directory import DataDirectory
from relayfile.errors import Unavailable
from relayfile.store.sqlite.connection import open_writer
from relayfile.store.sqlite.engine import DATABASE_NAME, open_engine
from relayfile.store.sqlite.schema import NodeIdentity
from relayfile.store.sqlite.shrinking import KEPT_BYTES, PAGES_PER_STEP, STEP_S, shrink

IDENTITY = NodeIdentity(16, 0, 1)
CONTENT = bytes(64 << 10)
COUNT = 800
"""Of contents: 50 MiB."""
MICROSECONDS = 1_000_000
STILL = ManualClock()


async def fill(directory: Path, clock: ManualClock) -> int:
    """A node's file with contents, all of them released; its size."""
    with DataDirectory(directory) as acquired:
        engine = open_engine(acquired, IDENTITY, clock)
        await engine.acquire_shards(range(16), 0, "here")
        await engine.close()
    connection = open_writer(directory / DATABASE_NAME, 1 << 20)
    with connection:
        connection.executemany("INSERT INTO content VALUES (?, 1, ?)", [(each, CONTENT) for each in range(1, COUNT)])
        garbage = [(1, clock.now_us() - 3600 * MICROSECONDS, each) for each in range(1, COUNT)]
        connection.executemany("INSERT INTO content_garbage VALUES (?, ?, ?)", garbage)
    connection.close()
    return (directory / DATABASE_NAME).stat().st_size


async def swept(directory: Path, clock: ManualClock) -> int:
    """The size after all that is due was done, step by step."""
    with DataDirectory(directory) as acquired:
        engine = open_engine(acquired, IDENTITY, clock)
        await engine.acquire_shards(range(16), 0, "here")
        for _ in range(1_000):
            if (await engine.remove_expired(clock.now_us(), 1_000)).is_complete:
                break
        else:
            raise AssertionError("it never ends")
        await engine.close()
    return (directory / DATABASE_NAME).stat().st_size


async def test_a_file_gets_shorter_when_most_of_it_is_free(tmp_path: Path) -> None:
    clock = ManualClock()
    before = await fill(tmp_path, clock)
    assert before > (COUNT - 1) * len(CONTENT)
    after = await swept(tmp_path, clock)
    assert after < KEPT_BYTES * 5 // 4, (before, after)
    assert await swept(tmp_path, clock) == after
    connection = apsw.Connection(str(tmp_path / DATABASE_NAME))
    assert connection.execute("PRAGMA integrity_check").get == "ok"
    connection.close()


async def test_a_file_of_an_earlier_release_keeps_its_size_and_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock()
    with monkeypatch.context() as earlier:
        earlier.setattr("relayfile.store.sqlite.connection.prepare_shrinking", lambda _: None)
        before = await fill(tmp_path, clock)
    assert await swept(tmp_path, clock) >= before
    connection = open_writer(tmp_path / DATABASE_NAME, 1 << 20)
    assert connection.execute("PRAGMA auto_vacuum").get == 0
    assert not shrink(connection, STILL.monotonic)
    # What the documentation tells for it.
    connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
    connection.execute("VACUUM")
    connection.close()
    assert await swept(tmp_path, clock) < before // 10


def test_some_room_is_kept_for_what_comes_next(tmp_path: Path) -> None:
    connection = open_writer(tmp_path / DATABASE_NAME, 1 << 20)
    connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, data BLOB)")
    connection.executemany("INSERT INTO t VALUES (?, ?)", [(each, CONTENT) for each in range(200)])  # 12 MiB
    connection.execute("DELETE FROM t")
    assert not shrink(connection, STILL.monotonic)
    connection.close()


async def test_a_disk_without_room_to_shrink_still_lets_what_expired_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock()
    await fill(tmp_path, clock)
    threads: set[str] = set()

    def full(*_: object) -> bool:
        threads.add(threading.current_thread().name)
        raise apsw.FullError("injected")

    monkeypatch.setattr("relayfile.store.sqlite.engine.shrink", full)
    with DataDirectory(tmp_path) as acquired:
        engine = open_engine(acquired, IDENTITY, clock)
        await engine.acquire_shards(range(16), 0, "here")

        async def sweep() -> None:
            while True:  # each step is ended by the size of what it removes, until there is room to give back
                await engine.remove_expired(clock.now_us(), 1_000)

        with pytest.raises(Unavailable):
            await sweep()
        async with engine.snapshot() as cursor:
            assert cursor.execute("SELECT count(*) FROM content_garbage").get == 0
        await engine.close()
    assert threads
    assert threading.main_thread().name not in threads, "the loop would wait for it"


def test_a_step_ends_when_pages_take_long_to_find(tmp_path: Path) -> None:
    connection = open_writer(tmp_path / DATABASE_NAME, 1 << 20)
    connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, data BLOB)")
    connection.executemany("INSERT INTO t VALUES (?, ?)", [(each, CONTENT) for each in range(400)])
    connection.execute("DELETE FROM t")
    clock = ManualClock()

    def slowly() -> float:
        clock.advance(STEP_S / 4)
        return clock.monotonic()

    before = connection.execute("PRAGMA page_count").get
    assert shrink(connection, slowly)
    assert before - connection.execute("PRAGMA page_count").get == 4
    assert shrink(connection, STILL.monotonic)
    assert before - connection.execute("PRAGMA page_count").get == 4 + PAGES_PER_STEP
    connection.close()


def test_opening_a_file_that_is_there_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    connection = open_writer(path, 1 << 20)
    connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)")
    connection.close()
    before = path.read_bytes()
    other = open_writer(path, 1 << 20)
    assert other.execute("PRAGMA auto_vacuum").get == 2
    assert (tmp_path / "a.db-wal").stat().st_size == 0
    other.close()
    assert path.read_bytes() == before
