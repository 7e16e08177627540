"""What a mirror may do with local edits, and what its parts tell one another about them.

One per mirror, shared by the holder of its turn and by what sends edits. Not kept over restarts: the store is asked.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Final

from relayfile.syncd.reconcile import Mode

FAILURES_MAX: Final = 5
"""In a row, until the circuit breaker opens."""


@dataclass(slots=True)
class Rights:
    """Changed by who learns it."""

    read_only: bool
    """So it was asked for."""
    refused: bool = False
    """The store lets the token write nothing at all."""
    failures: int = 0
    """Requests with edits that the store did not answer, in a row."""
    acknowledged_count: int = 0
    """Edits, since the mirror was opened."""
    refused_count: int = 0
    acknowledged_revision: int = 0
    edited: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when there may be something to send, or what was waited for has come."""
    sending: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by who sends: one request is under way at a time."""
    _told: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def mode(self) -> Mode:
        return Mode.READ_ONLY if self.read_only or self.refused else Mode.TWO_WAY

    @property
    def is_broken(self) -> bool:
        """The store fails again and again: nothing destructive is done on its word (I6)."""
        return self.failures >= FAILURES_MAX

    def told(self) -> None:
        """Answers were recorded."""
        self._told.set()
        self._told = asyncio.Event()

    async def answers(self) -> None:
        """Wait for the next."""
        await self._told.wait()
