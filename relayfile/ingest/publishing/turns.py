"""Turns for work that keeps the event loop for milliseconds: one piece of it for each pass of the loop, in order.

Without them every stream that sends batches would do a piece in each pass, and a lone request, which needs a few
passes from its arrival to its answer, would wait for all of them each time. While lone requests come, the loop rests
between two pieces: what they need besides, in other threads and processes, has its share of the processors then. It
rests for longer while more was accepted than the store has taken, which then comes sooner to what waits.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

LONE_S: Final = 0.2
"""So long after a lone request others are taken to come."""
REST_S: Final = 0.001
"""Between two pieces while they do; about what a piece takes."""
BEHIND_REST_S: Final = 0.006
"""The same while much that was accepted waits."""
BEHIND_CHANGES: Final = 10_000
"""So much: a second's work for the store."""


class Turns:
    """One for a process. Used from the event loop."""

    def __init__(self, pending: Callable[[], int] = lambda: 0, rest_s: float = REST_S) -> None:
        """`pending` tells how many accepted changes wait for their outcome."""
        self._pending = pending
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._is_passing = False
        self._lone_until_s = 0.0
        self._rest_s = rest_s

    def lone(self) -> None:
        """A request came that brings little."""
        self._lone_until_s = asyncio.get_running_loop().time() + LONE_S

    async def next(self) -> None:
        """Return when a piece may be done; do it before anything is waited for."""
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting.append(turn)
        if not self._is_passing:
            self._is_passing = True
            loop.call_soon(self._pass)
        await turn

    def _pass(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():  # else whoever waited was cancelled
                turn.set_result(None)
                break
        else:
            self._is_passing = False
            return
        loop = asyncio.get_running_loop()
        if loop.time() < self._lone_until_s:
            # Also when nobody waits: whoever has the turn comes back for the next one.
            rest_s = BEHIND_REST_S if self._pending() >= BEHIND_CHANGES else self._rest_s
            loop.call_later(rest_s, self._pass)
        elif self._waiting:
            loop.call_soon(self._pass)
        else:
            self._is_passing = False
