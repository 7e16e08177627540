"""One sweep of what expired goes over every workspace, however many there are, and only then rests."""

import asyncio
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import apsw
import pytest

from relayfile.clock import ManualClock
from relayfile.data_directory import DataDirectory
from relayfile.placement import shard_of
from relayfile.store.engine import WorkspaceKey
from relayfile.store.sqlite import engine as engine_module
from relayfile.store.sqlite import expiry
from relayfile.store.sqlite.engine import DATABASE_NAME, SqliteEngine, SqliteLimits
from tests.support.running_node import POLICY, SHARDS, Sender, fold, open_test_engine, running_node, sub_batch, upsert

WORKSPACES = [f"w{number}" for number in range(7)]
LIMITS = SqliteLimits(event_retention_us=1_000_000)
RARELY = replace(POLICY, expiry_interval_s=3_600.0)


async def oldest_events(engine: SqliteEngine) -> set[int | None]:
    found = set()
    for name in WORKSPACES:
        async with engine.view(WorkspaceKey(shard_of(name, SHARDS), name)) as view:
            found.add(await view.oldest_event_revision())
    return found


async def with_old_events(path: Path, clock: ManualClock) -> None:
    async with running_node(path, RARELY, clock, LIMITS) as running, Sender(running.address) as sender:
        for number, name in enumerate(WORKSPACES):
            await sender.send(batch := sub_batch(name, 1, [fold(upsert(number))], epoch=1))
            await sender.answered(batch)
        assert await oldest_events(running.engine) == {1}


async def test_a_sweep_over_more_workspaces_than_one_step_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiry, "WORKSPACES_PER_BATCH", 2)
    clock = ManualClock()
    await with_old_events(tmp_path, clock)
    clock.advance(10)
    async with running_node(tmp_path, RARELY, clock, LIMITS) as running, asyncio.timeout(20):
        while await oldest_events(running.engine) != {None}:  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.01)


async def test_steps_are_bounded_and_the_last_one_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expiry, "WORKSPACES_PER_BATCH", 2)
    clock = ManualClock()
    await with_old_events(tmp_path, clock)
    clock.advance(10)
    with DataDirectory(tmp_path) as directory:
        engine = open_test_engine(directory, clock, LIMITS)
        steps = [await engine.remove_expired(clock.now_us(), 100) for _ in range(8)]
        await engine.close()
    assert steps == [(2, False), (2, False), (2, False), (1, True), (0, False), (0, False), (0, False), (0, True)]


async def test_steps_are_bounded_by_bytes_and_large_contents_leave_the_loop_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock()
    small, large = expiry.LARGE_BYTES_MIN - 1, 3 * expiry.LARGE_BYTES_MIN
    sizes = [small] * 9 + [large] * 3
    with DataDirectory(tmp_path) as directory:
        engine = open_test_engine(directory, clock, LIMITS)
        await engine.acquire_shards([1], 0, "here")
        await engine.close()
    with closing(apsw.Connection(str(tmp_path / DATABASE_NAME))) as connection:
        rows = list(enumerate(sizes, 1))
        connection.executemany("INSERT INTO content VALUES (?, 1, zeroblob(?))", rows)
        connection.executemany("INSERT INTO content_garbage VALUES (1, 0, ?)", [(number,) for number, _ in rows])
    in_thread: list[list[int]] = []

    def noted(writer: apsw.Connection, content_ids: list[int]) -> None:
        assert threading.current_thread().name.startswith("store-writer")
        in_thread.append(content_ids)
        expiry.remove_contents(writer, content_ids)

    monkeypatch.setattr(engine_module, "remove_contents", noted)
    clock.advance(expiry.CONTENT_GRACE_US / 1_000_000 + 1)
    left = [len(sizes)]
    with DataDirectory(tmp_path) as directory:
        engine = open_test_engine(directory, clock, LIMITS)
        await engine.acquire_shards([1], 0, "here")
        while left[-1]:
            assert (await engine.remove_expired(clock.now_us(), 100)).removed_count
            async with engine.snapshot() as cursor:
                left.append(cursor.execute("SELECT count(*) FROM content").get)
                assert left[-1] == cursor.execute("SELECT count(*) FROM content_garbage").get
        await engine.close()
    assert left == [12, 7, 2, 0], "five small ones are a step, then four with a large one, then two large ones"
    assert in_thread == [[10], [11, 12]]
