"""docs/metrics.md, from the catalogue of metrics."""

from relayfile.telemetry.catalogue import catalogue
from relayfile.telemetry.metrics import LABELS

_INTRODUCTION = """\
# Metrics

What `/metrics` on a process's admin port tells, beside the usual figures of a Python process. What to make of it:
[monitoring](monitoring.md). Labels have few values: never a workspace, a path or a caller, so that a scrape costs the
same however much is stored; what one workspace does is told by `relayfile status` and `GetStats`. A histogram has the
suffixes `_bucket`, `_sum` and `_count`; a scraper that asks for OpenMetrics gets exemplars with the histograms of
durations but `relayfile_store_receive_to_commit_seconds`: the trace of one that was recorded (`trace_id`, `span_id`).
`rpc` and `trace` are every process's, `ingest`, `store` with `writeback` and `scrub`, and `syncd` that process's.
This page is generated (`make docs`).

| metric | type | unit | labels | meaning |
|---|---|---|---|---|
"""

_LABELS = """
## Labels

"""


def metrics_page() -> str:
    """Every instrument, every label, and what is asked most."""
    rows = []
    for each in catalogue():
        labels = ", ".join(f"`{label}`" for label in each.labels)
        rows.append(f"| `{each.name}` | {each.kind} | {each.unit} | {labels} | {each.meaning} |\n")
    told = [f"* `{label}`: {values}\n" for label, values in LABELS.items()]
    return _INTRODUCTION + "".join(rows) + _LABELS + "".join(told)
