"""Turns of the event loop for bulk work: exports, long listings, audits and whatever else reads much. No I/O.

A call needs the loop several times for a moment, to be accepted, read, planned and answered, and each time it waits for
the piece of work that is under way. So bulk work goes in pieces, one at a time of all that a node does, and while
others call, each piece is followed by a rest that is longer than it was: all bulk work together takes less than half of
the loop then, however many exports run. Nobody rests while nobody calls.

Owns when a piece may begin, and how many rows it may have. Refuses to know what a piece does.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

from relayfile.clock import Clock

CALLED_FOR_S: Final = 0.1
"""How long after the last call others still count as calling."""
REST_RATIO: Final = 1.5
"""Rest for each second of work. More than one: what a piece made is serialised and sent outside of it."""
REST_MIN_S: Final = 0.001
REST_MAX_S: Final = 0.02
"""A piece that waited itself is not rested from for longer."""
SHARED_ROWS_MAX: Final = 128
"""Rows of a piece while others call: read, or made into a message, in a millisecond."""


class LoopTurns:
    """Of one node."""

    def __init__(self, clock: Clock, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._clock = clock
        self._sleep = sleep
        self._turn = asyncio.Lock()
        self._called_s = clock.monotonic() - CALLED_FOR_S
        self._worked_s = 0.0

    def called(self) -> float:
        """Somebody waits for an answer, or for a commit; not the node itself, for what it does in the background.

        Returns what tells this call from later ones: a call that becomes bulk work does not rest for itself.
        """
        self._called_s = self._clock.monotonic()
        return self._called_s

    def is_shared(self, own_s: float | None = None) -> bool:
        """Whether others call, just now; `own_s`: what `called` returned to whoever asks."""
        return self._called_s != own_s and self._clock.monotonic() - self._called_s < CALLED_FOR_S

    def rows(self, wanted: int, own_s: float | None = None) -> int:
        """How many of the `wanted` rows the next piece may have."""
        return min(wanted, SHARED_ROWS_MAX) if self.is_shared(own_s) else wanted

    def rest_s(self, worked_s: float, own_s: float | None = None) -> float:
        """How long bulk work rests that has kept the loop for so long."""
        return max(REST_MIN_S, min(worked_s * REST_RATIO, REST_MAX_S)) if self.is_shared(own_s) else 0.0

    @asynccontextmanager
    async def piece(self, own_s: float | None = None) -> AsyncIterator[None]:
        """Inside, bulk work is done, as much as `rows` allows; nobody outside of the node is waited for."""
        async with self._turn:
            await self._sleep(self.rest_s(self._worked_s, own_s))  # from the piece before, whoever did it
            started = self._clock.monotonic()
            try:
                yield
            finally:
                self._worked_s = self._clock.monotonic() - started
