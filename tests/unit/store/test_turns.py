"""Bulk work keeps the loop for less than half of the time while others call, and never rests when nobody does."""

import asyncio
from dataclasses import dataclass, field

import pytest

from relayfile.clock import ManualClock
from relayfile.store.turns import CALLED_FOR_S, REST_MAX_S, REST_MIN_S, REST_RATIO, SHARED_ROWS_MAX, LoopTurns


@dataclass
class Rig:
    clock: ManualClock = field(default_factory=ManualClock)
    rests: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.turns = LoopTurns(self.clock, self.rest)

    async def rest(self, seconds: float) -> None:
        self.rests.append(seconds)
        await asyncio.sleep(0)

    async def work(self, seconds: float) -> None:
        async with self.turns.piece():
            self.clock.advance(seconds)


async def test_alone_a_piece_gives_others_a_turn_and_does_not_rest() -> None:
    rig = Rig()
    for _ in range(3):
        await rig.work(0.005)
    assert rig.rests == [0.0, 0.0, 0.0]
    assert rig.turns.rows(1_000) == 1_000


async def test_while_others_call_it_rests_for_longer_than_it_worked() -> None:
    rig = Rig()
    rig.turns.called()
    for _ in range(2):
        await rig.work(0.004)
    assert rig.rests == pytest.approx([REST_MIN_S, 0.004 * REST_RATIO])
    assert REST_RATIO > 1
    assert rig.turns.rows(1_000) == SHARED_ROWS_MAX
    assert rig.turns.rows(10) == 10


async def test_a_call_is_forgotten_soon() -> None:
    rig = Rig()
    rig.turns.called()
    rig.clock.advance(CALLED_FOR_S)
    await rig.work(0.004)
    assert rig.rests == [0.0]
    assert not rig.turns.is_shared()


async def test_a_piece_that_waited_itself_is_not_rested_from_for_as_long() -> None:
    rig = Rig()
    await rig.work(5.0)
    rig.turns.called()
    await rig.work(0.001)
    assert rig.rests == [0.0, REST_MAX_S]


async def test_all_bulk_work_shares_one_part_of_the_loop() -> None:
    """Of two at once the second one rests from the first one's piece."""
    rig = Rig()
    rig.turns.called()
    under_way = 0

    async def worker() -> None:
        nonlocal under_way
        for _ in range(3):
            async with rig.turns.piece():
                under_way += 1
                assert under_way == 1
                rig.clock.advance(0.004)
                await asyncio.sleep(0)
                under_way -= 1

    await asyncio.gather(worker(), worker())
    assert rig.rests == pytest.approx([REST_MIN_S, *[0.004 * REST_RATIO] * 5])


async def test_who_leaves_while_it_waits_leaves_the_turn_to_others() -> None:
    rig = Rig()
    first = asyncio.ensure_future(rig.work(0.001))
    second = asyncio.ensure_future(rig.work(0.001))
    third = asyncio.ensure_future(rig.work(0.001))
    await asyncio.sleep(0)
    first.cancel()
    second.cancel()
    async with asyncio.timeout(5):
        await third
    assert first.cancelled()
    assert second.cancelled()


async def test_a_call_that_becomes_bulk_work_does_not_rest_for_itself() -> None:
    rig = Rig()
    own_s = rig.turns.called()
    async with rig.turns.piece(own_s):
        rig.clock.advance(0.004)
    assert rig.rests == [0.0]
    assert rig.turns.rows(1_000, own_s) == 1_000
    assert rig.turns.rows(1_000) == SHARED_ROWS_MAX, "others rest for it"
    rig.turns.called()
    async with rig.turns.piece(own_s):
        assert rig.turns.rows(1_000, own_s) == SHARED_ROWS_MAX
    assert rig.rests[1:] == pytest.approx([0.004 * REST_RATIO])
