"""Removing what expired takes its turn among other bulk work, and comes to it."""

import asyncio
from collections.abc import Mapping
from typing import cast

from relayfile.clock import ManualClock
from relayfile.errors import Unavailable
from relayfile.store.cursor_holds import CursorHolds
from relayfile.store.engine import Engine, Sweep, WorkspaceKey
from relayfile.store.retention import EXPIRED_ROWS_PER_BATCH, EXPIRY_STEP_PAUSE_S, Retention
from relayfile.store.turns import LoopTurns

INTERVAL_S = 60.0


class Rig:
    """An engine with more to remove than one step does, and what was done in which order."""

    def __init__(self, steps: int) -> None:
        self.left = steps
        self.order: list[str] = []
        self.rests: list[float] = []
        self.is_full = False
        self.idle = asyncio.Event()
        clock = ManualClock()
        self.turns = LoopTurns(clock, self._give_way)
        engine = cast(Engine, self)
        self.retention = Retention(engine, CursorHolds(clock), clock, self.turns, INTERVAL_S, self._rest)

    async def remove_expired(self, now_us: int, limit: int, held: Mapping[WorkspaceKey, int]) -> Sweep:
        assert limit == EXPIRED_ROWS_PER_BATCH, "also while others call: it must not fall behind what is written"
        await asyncio.sleep(0)
        if self.is_full:
            raise Unavailable(what="disk", retry_after_s=1.0)
        self.order.append("step")
        self.left -= 1
        return Sweep(limit, self.left <= 0)

    async def _give_way(self, seconds: float) -> None:
        await asyncio.sleep(0)

    async def _rest(self, seconds: float) -> None:
        self.rests.append(seconds)
        if seconds == INTERVAL_S:
            self.idle.set()
            await asyncio.Event().wait()
        await asyncio.sleep(0)


async def test_no_step_begins_while_other_bulk_work_has_the_turn() -> None:
    rig = Rig(steps=3)
    running = asyncio.ensure_future(rig.retention.run())
    async with rig.turns.piece():
        for _ in range(50):
            await asyncio.sleep(0)
        assert rig.order == []
    async with asyncio.timeout(20):
        await rig.idle.wait()
    assert rig.order == ["step"] * 3
    assert rig.rests == [EXPIRY_STEP_PAUSE_S] * 2 + [INTERVAL_S]
    running.cancel()
    await asyncio.wait((running,))


async def test_bulk_work_without_end_leaves_it_every_turn_that_it_asks_for() -> None:
    rig = Rig(steps=10)
    rig.turns.called()

    async def export() -> None:
        while True:
            async with rig.turns.piece():
                rig.order.append("piece")

    others = [asyncio.ensure_future(export()) for _ in range(3)]
    running = asyncio.ensure_future(rig.retention.run())
    async with asyncio.timeout(20):
        await rig.idle.wait()
    for task in (running, *others):
        task.cancel()
    await asyncio.wait((running, *others))
    assert rig.order.count("step") == 10
    pieces_between = "".join("s" if each == "step" else "." for each in rig.order).strip(".").split("s")
    assert max(map(len, pieces_between)) <= 2 * len(others), "one piece of each, and those before it asked"


async def test_a_full_disk_leaves_the_turn_to_others() -> None:
    rig = Rig(steps=1)
    rig.is_full = True
    running = asyncio.ensure_future(rig.retention.run())
    async with asyncio.timeout(20):
        await rig.idle.wait()
        async with rig.turns.piece():
            pass
    assert rig.rests == [INTERVAL_S]
    running.cancel()
    await asyncio.wait((running,))
