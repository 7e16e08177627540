"""Events stay for whoever reads them, up to twice as long as otherwise."""

from dataclasses import replace
from pathlib import Path

import pytest

from relayfile.clock import ManualClock
from relayfile.placement import shard_of
from relayfile.store.cursor_holds import CLOSED_PER_WORKSPACE_MAX, CLOSED_S, CursorHolds
from relayfile.store.engine import WorkspaceKey
from relayfile.store.sqlite.engine import SqliteEngine, SqliteLimits
from tests.support.running_node import POLICY, SHARDS, Sender, fold, running_node, sub_batch, upsert

KEY, OTHER = WorkspaceKey(1, "acme"), WorkspaceKey(2, "other")
RARELY = replace(POLICY, expiry_interval_s=3_600.0)
HOUR_US = 3_600_000_000


def test_open_streams_hold_their_cursors() -> None:
    holds = CursorHolds(ManualClock())
    assert holds.oldest() == {}
    slow, fast = holds.open(KEY, 5), holds.open(KEY, 9)
    other = holds.open(OTHER, 1)
    assert holds.oldest() == {KEY: 5, OTHER: 1}
    slow.cursor, other.cursor = 20, 30
    assert holds.oldest() == {KEY: 9, OTHER: 30}
    fast.cursor = 25
    assert holds.oldest()[KEY] == 20


def test_closed_streams_hold_for_an_hour() -> None:
    clock = ManualClock()
    holds = CursorHolds(clock)
    for cursor in (5, 3, 7, 7, 8):
        holds.close(holds.open(KEY, cursor))
        clock.advance(60)
    assert holds.oldest() == {KEY: 3}
    clock.advance(CLOSED_S - 4 * 60)
    assert holds.oldest() == {KEY: 7}
    clock.advance(60)
    assert holds.oldest() == {KEY: 7}
    clock.advance(60)
    assert holds.oldest() == {KEY: 8}
    clock.advance(60)
    assert holds.oldest() == {}
    assert not holds._closed


def test_many_closed_streams_cost_little() -> None:
    clock = ManualClock()
    holds = CursorHolds(clock)
    for cursor in range(1, 10_001):
        holds.close(holds.open(KEY, cursor))
        clock.advance(0.001)
    assert len(holds._closed[KEY]) <= CLOSED_PER_WORKSPACE_MAX
    assert holds.oldest() == {KEY: 1}


async def swept(
    engine: SqliteEngine, clock: ManualClock, held: dict[WorkspaceKey, int], key: WorkspaceKey
) -> int | None:
    while not (await engine.remove_expired(clock.now_us(), 7, held)).is_complete:
        pass
    async with engine.view(key) as view:
        return await view.oldest_event_revision()


@pytest.mark.parametrize("by_count", [False, True])
async def test_a_held_cursor_keeps_events_up_to_twice(tmp_path: Path, by_count: bool) -> None:
    clock = ManualClock()
    limits = SqliteLimits(
        event_retention_us=1_000 * HOUR_US if by_count else HOUR_US, events_max=100 if by_count else 1_000_000
    )
    key = WorkspaceKey(shard_of("acme", SHARDS), "acme")
    async with running_node(tmp_path, RARELY, clock, limits) as running, Sender(running.address) as sender:

        async def make(first: int, count: int, sequence: int) -> None:
            changes = [fold(upsert(number)) for number in range(first, first + count)]
            await sender.send(batch := sub_batch("acme", sequence, changes, epoch=1))
            await sender.answered(batch)

        await make(1, 100, 1)
        clock.advance(0 if by_count else 3_601)
        await make(101, 30 if by_count else 1, 2)
        held = {key: 10}
        assert await swept(running.engine, clock, held, key) == 11
        assert await swept(running.engine, clock, {key: 25}, key) == 26
        if by_count:
            await make(131, 100, 3)
            assert await swept(running.engine, clock, {key: 25}, key) == 31
        else:
            clock.advance(3_601)
            assert await swept(running.engine, clock, {key: 25}, key) == 101
        assert await swept(running.engine, clock, {}, key) == (131 if by_count else None)
