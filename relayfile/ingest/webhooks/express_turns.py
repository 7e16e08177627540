"""Turns of webhooks that go the short way: few of them in one pass of the loop, and those of each URL in turn.

A hundred connections of one sender bring their requests in the same pass. Worked on as they come, they would keep the
loop for tens of milliseconds, again and again, and a lone request of somebody else, which needs several passes from its
arrival to the store, would wait for all of them each time. Owns the order. Refuses to know what a request is.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

PASS_REQUESTS: Final = 12
"""Requests that are worked on in one pass, 1 ms or so."""


class ExpressTurns:
    """One for a process. Used from the event loop; waits for nothing as long as few requests come."""

    def __init__(self) -> None:
        self._left = PASS_REQUESTS
        """Requests that may be worked on at once in this pass."""
        self._waiting: dict[bytes, deque[Callable[[], None]]] = {}
        self._is_passing = False

    def may_go(self) -> bool:
        """Whether a request may be worked on now; it counts then. Else it is to `wait`."""
        if not self._left:
            return False
        self._left -= 1
        if not self._is_passing:
            self._is_passing = True
            asyncio.get_running_loop().call_soon(self._pass)
        return True

    def wait(self, url: bytes, work: Callable[[], None]) -> None:
        """Call ``work`` when it is the URL's turn. After a `may_go` that was refused."""
        self._waiting.setdefault(url, deque()).append(work)

    def _pass(self) -> None:
        waiting = self._waiting
        left = PASS_REQUESTS
        try:
            while waiting and left:
                url = next(iter(waiting))
                queue = waiting.pop(url)
                work = queue.popleft()
                if queue:
                    waiting[url] = queue
                left -= 1
                work()
        finally:
            self._left = 0 if waiting else left
            self._is_passing = left < PASS_REQUESTS
            if self._is_passing:
                asyncio.get_running_loop().call_soon(self._pass)
