"""Durations over the last minute, from histograms that only grow: the difference of two looks at them.

Owns the looks. A quantile is read off the buckets, so that it is no finer than they are.
"""

from collections import deque
from collections.abc import Mapping
from typing import Final, NamedTuple, TypeAlias

from prometheus_client import CollectorRegistry

WINDOW_S: Final = 60.0
LOOK_S: Final = 15.0
"""Between two looks."""

Labels: TypeAlias = tuple[tuple[str, str], ...]
Counts: TypeAlias = dict[tuple[str, Labels], dict[float, float]]
"""(histogram, labels) to cumulated counts by upper bound."""


class Spread(NamedTuple):
    """Durations in seconds."""

    measured: int
    p50_s: float
    p99_s: float
    longest_s: float


class LastMinute:
    """The looks of the last minute at all histograms of a registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._looks: deque[tuple[float, Counts]] = deque()

    def look(self, now_s: float) -> None:
        """Take the present counts as the start of a window."""
        self._looks.append((now_s, histograms(self._registry)))
        while len(self._looks) > 1 and now_s - self._looks[1][0] >= WINDOW_S:
            self._looks.popleft()

    def spreads(self) -> dict[tuple[str, Labels], Spread]:
        """What was measured since the oldest look."""
        before: Counts = self._looks[0][1] if self._looks else {}
        return {key: spread(counts, before.get(key, {})) for key, counts in histograms(self._registry).items()}


def histograms(registry: CollectorRegistry) -> Counts:
    """Their cumulated counts now."""
    found: Counts = {}
    for family in registry.collect():
        if family.type != "histogram":
            continue
        for sample in family.samples:
            if sample.name.endswith("_bucket"):
                labels = tuple(sorted((name, value) for name, value in sample.labels.items() if name != "le"))
                found.setdefault((family.name, labels), {})[float(sample.labels["le"])] = sample.value
    return found


def spread(counts: Mapping[float, float], before: Mapping[float, float]) -> Spread:
    """Of what was counted between two looks at one histogram."""
    bounds = sorted(counts)
    grown = [counts[bound] - before.get(bound, 0.0) for bound in bounds]
    total = grown[-1] if grown else 0.0
    if total <= 0:
        return Spread(0, 0.0, 0.0, 0.0)
    highest = next(place for place, count in enumerate(grown) if count >= total)
    if bounds[highest] == float("inf"):
        highest = max(highest - 1, 0)  # longer than the last bound, by how much nobody knows
    return Spread(int(total), _quantile(bounds, grown, 0.5), _quantile(bounds, grown, 0.99), bounds[highest])


def _quantile(bounds: list[float], grown: list[float], part: float) -> float:
    wanted = grown[-1] * part
    low = reached = 0.0
    for bound, count in zip(bounds, grown, strict=True):
        if count >= wanted:
            if bound == float("inf") or count == reached:
                return low
            return low + (bound - low) * (wanted - reached) / (count - reached)
        low, reached = bound, count
    return low
