"""How a process keeps its own memory in order: the collector rests while there is work, and what is free is given back.

Owns the cyclic collector's thresholds, the C allocator's, and the passes that run now and then. Refuses to know what a
process does.
"""

import asyncio
import ctypes
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from relayfile.clock import Clock, SystemClock

COLLECTOR_THRESHOLDS: Final = (100_000, 20, 100)
"""Of the youngest generation: containers; a pass over them takes about 5 ms."""
PASS_EVERY_S: Final = 60.0
PASS_REST: Final = 1_000.0
"""A pass that takes long comes seldomer: for so many times what it took there is none."""

MAPPED_BYTES_MIN: Final = 256 << 10
"""Blocks of so much are not taken from the heap, and are given back as soon as they are free."""
TOP_BYTES_MAX: Final = 16 << 20
"""What stays free at the end of the heap."""
ARENAS_MAX: Final = 2
"""Heaps: the loop's, and one for all threads."""
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8


def settle_memory() -> None:
    """Set collector and allocator up, once, before the work begins."""
    quiet_collector()
    _set_up_allocator()


def quiet_collector() -> None:
    """Let the cyclic collector look seldom, and never at what was there before the work began.

    Batches of changes are many small values without cycles, freed when the batch is; collecting while they live, at the
    interpreter's defaults, costs a store node a quarter of its time (measured).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTOR_THRESHOLDS)


def give_back() -> None:
    """Free what only cycles hold, and return free memory to the system.

    A lost connection leaves some 50 KB in cycles of grpc's, and a process that has little to do would not come by the
    collector's threshold for days. The interpreter keeps some thousand freed tuples for later; each may hold on to a
    whole megabyte that is empty otherwise, and only a full collection lets go of them.
    """
    gc.collect()
    trim = _of_libc("malloc_trim")
    if trim is not None:
        trim(0)


@contextmanager
def upkeep(clock: Clock | None = None, work: Callable[[], None] = give_back) -> Iterator[None]:
    """Inside, `work` is done once a minute in the running loop, or more seldom if it takes more than a thousandth."""
    passes = _Passes(clock or SystemClock(), work)
    passes.begin(PASS_EVERY_S)
    try:
        yield
    finally:
        passes.end()


class _Passes:
    def __init__(self, clock: Clock, work: Callable[[], None]) -> None:
        self._clock = clock
        self._work = work
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, after_s: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(after_s, self._run)

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _run(self) -> None:
        started_s = self._clock.monotonic()
        self._work()
        self.begin(pause_after(self._clock.monotonic() - started_s))


def pause_after(took_s: float) -> float:
    """Seconds until the next pass, after one that took so long."""
    return max(PASS_EVERY_S, took_s * PASS_REST)


def _set_up_allocator() -> None:
    """Keep glibc from learning, from the first large message, to take large messages from its heap.

    There they lie between what stays for a minute, and their places are not given back: of 120 MB that were taken, 40
    were in use (measured, a window of a minute over 100,000 objects). Other C libraries have no such habit.
    """
    mallopt = _of_libc("mallopt")
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, MAPPED_BYTES_MIN)
        mallopt(_M_TRIM_THRESHOLD, TOP_BYTES_MAX)
        mallopt(_M_ARENA_MAX, ARENAS_MAX)


def _of_libc(name: str) -> Callable[..., int] | None:
    found: Callable[..., int] | None = getattr(ctypes.CDLL(None), name, None)
    return found
