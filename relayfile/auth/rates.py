"""Token buckets: how much each caller, and each workspace as a whole, may ask of a process. Pure.

Owns the buckets: one for each (workspace, caller) and one for each workspace, of calls and of bytes. A bucket holds
`BURST_S` of its rate. What is asked is refused as a whole, and then nothing is taken. What an answer turns out to weigh
is taken afterwards and may leave a debt, of at most `DEBT_S`, during which nothing is admitted.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final, NamedTuple

BURST_S: Final = 2.0
DEBT_S: Final = 60.0
BUCKETS_MAX: Final = 100_000
"""The ones that were used last; another one is full when it is met again. About 20 MB."""


class RateLimits(NamedTuple):
    """Per second; 0: no limit."""

    workspace_calls: int = 0
    caller_calls: int = 0
    workspace_bytes: int = 0
    caller_bytes: int = 0

    def __bool__(self) -> bool:
        return any(self)


@dataclass(slots=True)
class _Bucket:
    calls: float
    size: float
    at: float


@dataclass(slots=True)
class Rates:
    """The buckets of one process."""

    limits: RateLimits
    buckets_max: int = BUCKETS_MAX
    _buckets: OrderedDict[tuple[str, str], _Bucket] = field(default_factory=OrderedDict)

    def admit(self, workspace: str, caller: str, calls: int, byte_count: int, now: float) -> float:
        """Take; 0.0, or the seconds after which the same may be admitted: then nothing was taken."""
        own, shared = self._pair(workspace, caller, now)
        limits = self.limits
        wait_s = max(
            _wait_s(own.calls, calls, limits.caller_calls),
            _wait_s(own.size, byte_count, limits.caller_bytes),
            _wait_s(shared.calls, calls, limits.workspace_calls) if workspace else 0.0,
            _wait_s(shared.size, byte_count, limits.workspace_bytes) if workspace else 0.0,
        )
        if not wait_s:
            for bucket in (own, shared):
                bucket.calls -= calls
                bucket.size -= byte_count
        return wait_s

    def charge(self, workspace: str, caller: str, byte_count: int, now: float) -> None:
        """Take for an answer, whatever is left."""
        own, shared = self._pair(workspace, caller, now)
        own.size = max(own.size - byte_count, -DEBT_S * self.limits.caller_bytes)
        shared.size = max(shared.size - byte_count, -DEBT_S * self.limits.workspace_bytes)

    def _pair(self, workspace: str, caller: str, now: float) -> tuple[_Bucket, _Bucket]:
        limits = self.limits
        return (
            self._filled((workspace, caller), limits.caller_calls, limits.caller_bytes, now),
            self._filled((workspace, ""), limits.workspace_calls, limits.workspace_bytes, now),
        )

    def _filled(self, key: tuple[str, str], calls_per_s: int, bytes_per_s: int, now: float) -> _Bucket:
        bucket = self._buckets.get(key)
        calls_most, bytes_most = _most(calls_per_s), _most(bytes_per_s)
        if bucket is None:
            bucket = self._buckets[key] = _Bucket(calls_most, bytes_most, now)
            while len(self._buckets) > self.buckets_max:
                self._buckets.popitem(last=False)
            return bucket
        self._buckets.move_to_end(key)
        passed = max(0.0, now - bucket.at)
        bucket.calls = min(calls_most, bucket.calls + passed * calls_per_s)
        bucket.size = min(bytes_most, bucket.size + passed * bytes_per_s)
        bucket.at = now
        return bucket


def _most(per_s: int) -> float:
    """What a full bucket holds: at least one call."""
    return max(1.0, per_s * BURST_S)


def _wait_s(left: float, asked: int, per_s: int) -> float:
    if not per_s or not asked:
        return 0.0
    # More than a full bucket holds is admitted when it is full, and is then owed.
    missing = min(float(asked), _most(per_s)) - left
    return 0.0 if missing <= 1e-9 else missing / per_s
