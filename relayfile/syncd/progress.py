"""How far a pull is: counters that the pull advances and others look at. Owns no clock of its own."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

RATE_WINDOW_S: Final = 3.0


class Phase(IntEnum):
    """The numbers are those of ``relayfile.v1.PullPhase``."""

    STARTING = 1
    COMPARING = 2
    FETCHING = 3
    SYNCING = 4
    APPLYING = 5
    CATCHING_UP = 6
    AUDITING = 7
    DONE = 8


class Via(IntEnum):
    """The numbers are those of ``relayfile.v1.PullVia``."""

    ANY = 0
    EXPORT = 1
    TREE = 2


@dataclass(slots=True)
class Progress:
    """A running pull, as its watchers see it."""

    started: float
    """Monotonic seconds."""
    cancel: Callable[[], object] | None = None
    """Ends who pulls, when the mirror is forgotten."""
    phase: Phase = Phase.STARTING
    via: Via = Via.ANY
    fallback_reason: str = ""
    start_revision: int = 0
    resumed: bool = False
    total: tuple[int, int] = (0, 0)
    """Files and bytes; zeros while they are not known."""
    done: tuple[int, int] = (0, 0)
    reused_count: int = 0
    written: tuple[int, int] = (0, 0)
    deleted_count: int = 0
    wire_bytes: int = 0
    last: float = 0.0
    """Monotonic seconds of the last advance."""
    samples: deque[tuple[float, int, int]] = field(default_factory=deque)

    def advance(self, files: int, size: int, now: float) -> None:
        """``files`` more are disposed of."""
        self.done = (self.done[0] + files, self.done[1] + size)
        self.last = now
        self.samples.append((now, *self.done))
        while len(self.samples) > 2 and now - self.samples[0][0] > RATE_WINDOW_S:
            self.samples.popleft()

    def wrote(self, files: int, size: int) -> None:
        self.written = (self.written[0] + files, self.written[1] + size)

    def found_equal(self, files: int, size: int) -> None:
        """So many of the files that were written aside are in their places already, with the same content."""
        self.written = (max(0, self.written[0] - files), max(0, self.written[1] - size))

    def rate(self) -> tuple[float, float]:
        """Files and bytes per second over the last seconds."""
        if len(self.samples) < 2:
            return 0.0, 0.0
        (then, files, size), (now, files_now, size_now) = self.samples[0], self.samples[-1]
        span = max(now - then, 1e-3)
        return (files_now - files) / span, (size_now - size) / span
