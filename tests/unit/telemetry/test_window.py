"""Quantiles of the last minute, read off histograms that only grow."""

import pytest
from prometheus_client import CollectorRegistry, Histogram

from relayfile.telemetry.window import LastMinute, Spread, spread

INFINITE = float("inf")


def test_a_spread_is_what_was_counted_between_two_looks() -> None:
    before = {0.01: 5.0, 0.1: 5.0, INFINITE: 5.0}
    now = {0.01: 55.0, 0.1: 104.0, INFINITE: 105.0}
    assert spread(now, before) == pytest.approx((100, 0.01, 0.1, 0.1), rel=0.02)
    assert spread(before, before) == Spread(0, 0.0, 0.0, 0.0)
    assert spread({}, {}) == Spread(0, 0.0, 0.0, 0.0)


def test_looks_older_than_a_minute_are_dropped() -> None:
    registry = CollectorRegistry()
    histogram = Histogram("calls_seconds", "Calls.", ["method"], buckets=(0.1, 1.0), registry=registry)
    minute = LastMinute(registry)
    minute.look(0.0)
    histogram.labels("A").observe(0.05)
    assert minute.spreads()["calls_seconds", (("method", "A"),)].measured == 1
    for second in (15.0, 30.0, 45.0, 60.0, 75.0):
        minute.look(second)
    assert minute.spreads()["calls_seconds", (("method", "A"),)].measured == 0
    histogram.labels("A").observe(0.5)
    assert minute.spreads()["calls_seconds", (("method", "A"),)].longest_s == 1.0
