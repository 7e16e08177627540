"""Whether a process grows: its memory, descriptors and threads over time, read from /proc.

Threads of Relayfile all run from the start (`relayfile.threads`), so one more under any name is a leak. gRPC's pools
are elastic, and are judged by a bound.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import linear_regression, mean

SAMPLE_S = 2.0
WINDOW_S = 600.0
GRPC_POOLS = frozenset({"event_engine", "grpc_global_tim"})
"""Names, as the kernel cuts them, of gRPC's threads whose number follows the load: the workers of
`src/core/lib/event_engine/thread_pool/work_stealing_thread_pool.cc`, and the timers of
`src/core/lib/iomgr/timer_manager.cc`, of which another starts while all run callbacks. The workers' one "lifeguard" is
not among them."""
GRPC_POOL_MORE_MAX = 4
"""Of one of these names, over the most of the first third. The workers' pool starts another, at most one a second, only
while all are busy, and ends one that was idle for 20 s (`kTimeBetweenThrottledThreadStarts`, `kIdleThreadLimit` there):
beside kills a moment of a crowded machine adds one or two. A leak of one in four minutes is over it in half an hour."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at a process."""

    at_s: float
    memory_bytes: int
    descriptors: int
    threads: Mapping[str, int]
    """By name."""


@dataclass(slots=True)
class Growth:
    """The samples of one process that is not restarted."""

    pid: int
    samples: list[Sample] = field(default_factory=list)
    threads: Counter[str] = field(default_factory=Counter)
    """By name, as of the last look."""
    thread_news: list[str] = field(default_factory=list)
    """Which threads began and ended between two looks, and when, after the first one."""

    def look(self) -> None:
        status = Path(f"/proc/{self.pid}/status").read_text()
        facts = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
        self._look_at_threads()
        self.samples.append(
            Sample(
                time.monotonic(),
                int(facts["VmRSS"].split()[0]) * 1024,
                len(list(Path(f"/proc/{self.pid}/fd").iterdir())),
                self.threads,
            )
        )

    def _look_at_threads(self) -> None:
        threads: Counter[str] = Counter()
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            with suppress(OSError):  # it ended meanwhile
                threads[(task / "comm").read_text().strip()] += 1
        if self.samples and threads != self.threads:
            at_s = time.monotonic() - self.samples[0].at_s
            news = [f"-{name}" for name in (self.threads - threads).elements()]
            news += [f"+{name}" for name in (threads - self.threads).elements()]
            self.thread_news.append(f"{' '.join(news)} at {at_s:.0f} s")
        self.threads = threads

    def per_ten_minutes(self) -> dict[str, float]:
        """Growth over the last two thirds, as a share of the mean, scaled to ten minutes."""
        kept = self.samples[len(self.samples) // 3 :]
        at_s = [sample.at_s for sample in kept]
        return {
            name: _slope(at_s, [getattr(sample, name) for sample in kept]) * WINDOW_S
            for name in ("memory_bytes", "descriptors")
        }

    def more_threads(self) -> dict[str, int]:
        """See `grown_threads`."""
        return grown_threads([sample.threads for sample in self.samples])


def grown_threads(looks: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """Name -> how many more there were at once after the first third than ever in it, of those with more than they may
    have: none, and `GRPC_POOL_MORE_MAX` of gRPC's elastic pools. `looks`: threads by name, in the order of time."""
    first = max(1, len(looks) // 3)
    known, later = _most(looks[:first]), _most(looks[first:])
    more = {name: count - known[name] for name, count in later.items()}
    return {name: count for name, count in more.items() if count > (GRPC_POOL_MORE_MAX if name in GRPC_POOLS else 0)}


def _most(looks: Sequence[Mapping[str, int]]) -> Counter[str]:
    most: Counter[str] = Counter()
    for look in looks:
        most |= Counter(look)
    return most


def _slope(at_s: Sequence[float], values: Sequence[int]) -> float:
    if len(set(values)) == 1:
        return 0.0
    return linear_regression(at_s, values).slope / mean(values)


@contextmanager
def watched(pids: Mapping[str, int]) -> Iterator[dict[str, Growth]]:
    """Samples of these processes while the block runs."""
    growths = {name: Growth(pid) for name, pid in pids.items()}

    async def look() -> None:
        while True:
            for growth in growths.values():
                growth.look()
            await asyncio.sleep(SAMPLE_S)

    task = asyncio.get_running_loop().create_task(look())
    try:
        yield growths
    finally:
        task.cancel()
