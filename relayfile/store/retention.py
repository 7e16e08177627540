"""Removing what expired, in steps that take turns with the other bulk work of the node.

Owns when a step may begin and the rests between them. What expired, and how it goes, is the engine's.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from relayfile.clock import Clock
from relayfile.errors import Unavailable
from relayfile.store.cursor_holds import CursorHolds
from relayfile.store.engine import Engine
from relayfile.store.turns import LoopTurns

EXPIRED_ROWS_PER_BATCH: Final = 500
"""Small, so that a commit waits little behind it. Not fewer while others call, as pieces of reads have: events come
as fast then, and what goes slower than it comes fills the disk."""
EXPIRY_STEP_PAUSE_S: Final = 0.01
"""Between the steps of one sweep, for commits."""


class Retention:
    """`run` it in a task."""

    def __init__(
        self,
        engine: Engine,
        holds: CursorHolds,
        clock: Clock,
        turns: LoopTurns,
        interval_s: float,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`interval_s`: rest between the end of a sweep and the next one's beginning."""
        self._engine = engine
        self._holds = holds
        self._clock = clock
        self._turns = turns
        self._interval_s = interval_s
        self._sleep = sleep

    async def run(self) -> None:
        """Until cancelled. Raises `StorageFailed` when the process must end."""
        while True:
            await self._sleep(await self._step())

    async def _step(self) -> float:
        """Remove some; how long to rest then, in seconds."""
        try:
            # Turns come in order of asking: bulk work of others puts a step off by one piece, never for longer.
            async with self._turns.piece():
                sweep = await self._engine.remove_expired(
                    self._clock.now_us(), EXPIRED_ROWS_PER_BATCH, self._holds.oldest()
                )
        except Unavailable:
            # The disk is full, and removing needs room too; it is tried again in the next round.
            return self._interval_s
        return self._interval_s if sweep.is_complete else EXPIRY_STEP_PAUSE_S
