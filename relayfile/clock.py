"""Time as an argument: the only module that reads the machine's clocks.

Wall-clock time is whole microseconds since 1970 (UTC) everywhere; durations are seconds as float. Refuses to sleep:
waiting belongs to the event loop.
"""

import time
from typing import Protocol


class Clock(Protocol):
    """What the rest of the system may know about time."""

    def now_us(self) -> int:
        """Unix time in microseconds. It may jump in either direction: never measure a duration with it."""
        ...

    def monotonic(self) -> float:
        """Seconds from an arbitrary start; never goes back."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now_us(self) -> int:
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        return time.monotonic()


class SteadyClock:
    """Another clock, whose wall-clock time stands still while the other one's is behind what was told already.

    For times that say what came first. Never for judging a time that somebody else wrote.
    """

    def __init__(self, clock: Clock, not_before_us: int = 0) -> None:
        """`not_before_us`: what was told before a restart."""
        self._clock = clock
        self._last_us = not_before_us

    def now_us(self) -> int:
        self._last_us = max(self._last_us, self._clock.now_us())
        return self._last_us

    def monotonic(self) -> float:
        return self._clock.monotonic()


class ManualClock:
    """A clock that stands still until a test moves it."""

    def __init__(self, now_us: int = 1_800_000_000_000_000, monotonic: float = 1000.0) -> None:
        self._now_us = now_us
        self._monotonic = monotonic

    def now_us(self) -> int:
        return self._now_us

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass on both clocks."""
        assert seconds >= 0, "time does not go back; set_now_us moves the wall clock alone"
        self._monotonic += seconds
        self._now_us += round(seconds * 1_000_000)

    def set_now_us(self, now_us: int) -> None:
        """Step the wall clock alone, as an administrator or NTP may."""
        self._now_us = now_us
