"""Turns for work that keeps the event loop for milliseconds: one piece of it for each pass of the loop, in order.

Without them every stream that sends batches would do a piece in each pass, and a lone request, which needs a few
passes from its arrival to its answer, would wait for all of them each time.
"""

import asyncio
from collections import deque


class Turns:
    """One for a process. Used from the event loop."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._is_passing = False

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
        self._is_passing = bool(self._waiting)
        if self._is_passing:
            asyncio.get_running_loop().call_soon(self._pass)
