"""Durations with the trace of one that was recorded: from a slow bucket in a dashboard to what was slow.

Exemplars are shown to scrapers that ask for OpenMetrics; each bucket keeps its newest.
"""

from prometheus_client import Histogram

from relayfile.telemetry.traceparent import is_sampled


def observe(histogram: Histogram, seconds: float, traceparent: str) -> None:
    """Count a duration; with the ids of its span when that is recorded."""
    if is_sampled(traceparent):
        histogram.observe(seconds, {"trace_id": traceparent[3:35], "span_id": traceparent[36:52]})
    else:
        histogram.observe(seconds)
