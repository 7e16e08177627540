"""The Grafana dashboards of deploy/grafana/, from a table of panels: `make docs` writes them."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

SCHEMA_VERSION: Final = 39
"""Of Grafana 10 and later."""
COLUMNS: Final = 24
ERRORS: Final = 'code=~"UNKNOWN|INTERNAL|UNAVAILABLE|DATA_LOSS|DEADLINE_EXCEEDED"'
HERE: Final = 'instance=~"$instance"'


@dataclass(frozen=True, slots=True)
class Panel:
    """One graph, or with `now` one number."""

    title: str
    queries: Mapping[str, str]
    """Legend to PromQL."""
    unit: str = "short"
    about: str = ""
    now: bool = False
    width: int = 12


@dataclass(frozen=True, slots=True)
class Dashboard:
    """One file."""

    name: str
    title: str
    instances: str
    """The metric whose label `instance` says which processes there are."""
    panels: Sequence[Panel]


def rate(metric: str, by: str = "instance", match: str = HERE) -> str:
    """Per second, summed."""
    return f"sum by ({by}) (rate({metric}{{{match}}}[$__rate_interval]))"


def quantile(part: float, metric: str, by: str = "") -> str:
    """Of a histogram of durations."""
    labels = f"{by}, le" if by else "le"
    return f"histogram_quantile({part}, sum by ({labels}) (rate({metric}_bucket{{{HERE}}}[$__rate_interval])))"


def spread(metric: str) -> dict[str, str]:
    """Median, p99 and p99.9."""
    return {name: quantile(part, metric) for name, part in (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999))}


def used(held: str, limit: str) -> str:
    """A queue's share of its bound."""
    return f"{held}{{{HERE}}} / ({limit}{{{HERE}}} > 0)"


def plain(metric: str) -> dict[str, str]:
    """A gauge of each process."""
    return {"{{instance}}": f"{metric}{{{HERE}}}"}


_EVERYWHERE = (
    "histogram_quantile(0.99, sum by (le) (rate(relayfile_store_receive_to_commit_seconds_bucket[$__rate_interval])))"
)
_TRACES = Panel(
    "Spans",
    {"{{instance}} {{result}}": rate("relayfile_trace_spans_total", "instance, result")},
    "ops",
    "Dropped ones: the collector does not take them.",
)

OVERVIEW = Dashboard(
    "overview",
    "Relayfile: overview",
    "relayfile_trace_queue_limit_spans",
    (
        Panel(
            "Webhooks/s",
            {"": "sum(rate(relayfile_ingest_requests_total[$__rate_interval]))"},
            "reqps",
            now=True,
            width=4,
        ),
        Panel("Failed (5xx)", {"": "relayfile:webhooks_failed:ratio5m"}, "percentunit", now=True, width=4),
        Panel("Fullest spool", {"": "max(relayfile:spool_used:ratio)"}, "percentunit", now=True, width=4),
        Panel("Receipt to commit, p99", {"": _EVERYWHERE}, "s", now=True, width=4),
        Panel("Stalest mirror", {"": "max(relayfile_syncd_stalest_seconds)"}, "s", now=True, width=4),
        Panel("Halted mirrors", {"": "sum(relayfile_syncd_mirrors_halted)"}, now=True, width=4),
        Panel(
            "Changes",
            {
                "accepted": "sum(rate(relayfile_ingest_changes_accepted_total[$__rate_interval]))",
                "{{outcome}}": "sum by (outcome) (rate(relayfile_store_outcomes_total[$__rate_interval]))",
            },
            "ops",
        ),
        Panel("Saved by coalescing", {"share of changes": "relayfile:coalesced:ratio5m"}, "percentunit"),
        Panel("Calls", {"{{method}}": rate("relayfile_rpc_calls_total", "method")}, "reqps"),
        Panel(
            "Calls that failed for a fault of ours",
            {"{{method}} {{code}}": rate("relayfile_rpc_calls_total", "method, code", f"{HERE}, {ERRORS}")},
            "reqps",
        ),
        Panel(
            "Duration of calls, p99",
            {"{{method}}": quantile(0.99, "relayfile_rpc_seconds", "method")},
            "s",
            "Streams from start to end.",
        ),
        Panel("Calls and streams being served", {"{{method}}": f"sum by (method) (relayfile_rpc_open{{{HERE}}})"}),
        Panel(
            "Processor time",
            {"{{instance}}": f"rate(process_cpu_seconds_total{{{HERE}}}[$__rate_interval])"},
            "percentunit",
        ),
        Panel("Memory", {"{{instance}}": f"process_resident_memory_bytes{{{HERE}}}"}, "bytes"),
        _TRACES,
    ),
)

INGEST = Dashboard(
    "ingest",
    "Relayfile: ingest",
    "relayfile_ingest_spool_limit_bytes",
    (
        Panel("Webhooks by provider", {"{{provider}}": rate("relayfile_ingest_requests_total", "provider")}, "reqps"),
        Panel("Webhooks by status", {"{{status}}": rate("relayfile_ingest_requests_total", "status")}, "reqps"),
        Panel(
            "From body to answer",
            spread("relayfile_ingest_accept_seconds"),
            "s",
            "Durable when it is answered: one fsync for many.",
        ),
        Panel("Changes accepted", {"{{instance}}": rate("relayfile_ingest_changes_accepted_total")}, "ops"),
        Panel("Outcomes from the store", {"{{outcome}}": rate("relayfile_ingest_outcomes_total", "outcome")}, "ops"),
        Panel("Transactions of the spool", {"{{instance}}": rate("relayfile_ingest_spool_commits_total")}, "ops"),
        Panel(
            "How full the queues are",
            {
                "spool {{instance}}": used("relayfile_ingest_spool_bytes", "relayfile_ingest_spool_limit_bytes"),
                "bodies {{instance}}": used("relayfile_ingest_bodies_bytes", "relayfile_ingest_bodies_limit_bytes"),
                "in flight {{instance}}": used(
                    "relayfile_ingest_in_flight_bytes", "relayfile_ingest_in_flight_limit_bytes"
                ),
                "objects {{instance}}": used("relayfile_ingest_objects_held", "relayfile_ingest_objects_limit"),
            },
            "percentunit",
        ),
        Panel("In the spool", {"{{instance}}": f"relayfile_ingest_spool_bytes{{{HERE}}}"}, "bytes"),
        Panel("Rows in the spool", plain("relayfile_ingest_spool_rows")),
        Panel(
            "Oldest that could be sent",
            plain("relayfile_ingest_sendable_age_seconds"),
            "s",
            "What waits for a node is not meant.",
        ),
        Panel(
            "Streams to nodes",
            {
                "open {{instance}}": f"relayfile_ingest_streams_open{{{HERE}}}",
                "nodes {{instance}}": f"relayfile_ingest_nodes_configured{{{HERE}}}",
            },
            about="As many as there are nodes; a node that never started counts too.",
        ),
        Panel("Sub-batches sent", {"{{instance}}": rate("relayfile_ingest_batches_sent_total")}, "ops"),
        Panel("Unreadable changes", plain("relayfile_ingest_changes_unreadable"), about="Always 0."),
        Panel("Routes of apps", plain("relayfile_ingest_routes"), about="The same everywhere."),
    ),
)

STORE = Dashboard(
    "store",
    "Relayfile: store",
    "relayfile_store_queue_limit_bytes",
    (
        Panel("Changes by outcome", {"{{outcome}}": rate("relayfile_store_outcomes_total", "outcome")}, "ops"),
        Panel("From receipt to commit", spread("relayfile_store_receive_to_commit_seconds"), "s"),
        Panel("Transactions", {"{{instance}}": rate("relayfile_store_commits_total")}, "ops"),
        Panel("Duration of a transaction", spread("relayfile_store_commit_seconds"), "s"),
        Panel(
            "Changes in a transaction",
            {
                "{{instance}}": f"{rate('relayfile_store_commit_changes_sum')} / "
                f"{rate('relayfile_store_commit_changes_count')}"
            },
        ),
        Panel(
            "Writer busy",
            {"{{instance}}": rate("relayfile_store_commit_seconds_sum")},
            "percentunit",
            "1: all of the time.",
        ),
        Panel(
            "How full the queue is",
            {"{{instance}}": used("relayfile_store_queue_bytes", "relayfile_store_queue_limit_bytes")},
            "percentunit",
        ),
        Panel("Changes that wait for a commit", plain("relayfile_store_queue_changes")),
        Panel(
            "Entries and revisions",
            {
                "entries {{instance}}": rate("relayfile_store_entries_total"),
                "revisions {{instance}}": rate("relayfile_store_revisions_total"),
            },
            "ops",
        ),
        Panel("Write-ahead log", plain("relayfile_store_wal_bytes"), "bytes"),
        Panel("Fenced entries", {"{{instance}}": rate("relayfile_store_fenced_total")}, "ops", "Never."),
        Panel("Dead letters tried again", {"{{result}}": rate("relayfile_store_replays_total", "result")}, "ops"),
        Panel(
            "Operations that have not ended",
            {"{{state}}": f"sum by (state) (relayfile_writeback_operations{{{HERE}}})"},
        ),
        Panel(
            "Operations that ended", {"{{kind}} {{end}}": rate("relayfile_writeback_ends_total", "kind, end")}, "ops"
        ),
        Panel("Claims", {"{{kind}}": rate("relayfile_writeback_claims_total", "kind")}, "ops"),
        Panel("Oldest edit without a worker", plain("relayfile_writeback_oldest_claimable_seconds"), "s"),
        Panel(
            "Requests to targets",
            {"{{provider}} {{result}}": rate("relayfile_writeback_requests_total", "provider, result")},
            "reqps",
        ),
        Panel(
            "Duration of requests to targets, p99",
            {"{{provider}}": quantile(0.99, "relayfile_writeback_request_seconds", "provider")},
            "s",
        ),
        Panel(
            "Workers busy",
            {"{{instance}}": used("relayfile_writeback_workers_busy", "relayfile_writeback_workers_limit")},
            "percentunit",
        ),
        Panel(
            "Targets that rest",
            {"{{provider}} {{way}}": f"sum by (provider, way) (relayfile_writeback_breakers_open{{{HERE}}})"},
        ),
        Panel("Scrub", {"{{instance}}": rate("relayfile_scrub_bytes_total")}, "Bps"),
        Panel(
            "Since the last scrub",
            {"{{instance}}": f"time() - (relayfile_scrub_ended_timestamp_seconds{{{HERE}}} > 0)"},
            "s",
        ),
        Panel("Damaged contents", plain("relayfile_scrub_findings"), about="Always 0."),
        Panel("Scrubs that failed", {"{{instance}}": rate("relayfile_scrub_failures_total")}, "ops"),
    ),
)

MIRRORS = Dashboard(
    "mirrors",
    "Relayfile: mirrors",
    "relayfile_syncd_mirrors",
    (
        Panel("Stalest mirror", plain("relayfile_syncd_stalest_seconds"), "s", "Since it knew that it had everything."),
        Panel(
            "Staleness",
            {"{{mirror}}": f"relayfile_syncd_staleness_seconds{{{HERE}}}"},
            "s",
            "Of at most 100 mirrors of each process.",
        ),
        Panel("From commit to disk", spread("relayfile_syncd_event_lag_seconds"), "s"),
        Panel("Files written", {"{{instance}}": rate("relayfile_syncd_files_written_total")}, "ops"),
        Panel("Bytes written", {"{{instance}}": rate("relayfile_syncd_bytes_written_total")}, "Bps"),
        Panel("Files that wait for the disk", plain("relayfile_syncd_files_pending")),
        Panel("Batches at the writer", plain("relayfile_syncd_writer_queue_batches")),
        Panel("Local edits sent", {"{{instance}}": rate("relayfile_syncd_files_pushed_total")}, "ops"),
        Panel("Bytes of them", {"{{instance}}": rate("relayfile_syncd_bytes_pushed_total")}, "Bps"),
        Panel("Local edits unsent", plain("relayfile_syncd_edits_unsent")),
        Panel("Oldest unsent edit", plain("relayfile_syncd_edits_unsent_oldest_seconds"), "s"),
        Panel("Conflicts", {"{{instance}}": rate("relayfile_syncd_conflicts_total")}, "ops"),
        Panel(
            "Audits",
            {"{{result}}": rate("relayfile_syncd_audits_total", "result")},
            "ops",
            "Different ones were repaired.",
        ),
        Panel(
            "Mirrors, halted ones, problems",
            {
                "mirrors {{instance}}": f"relayfile_syncd_mirrors{{{HERE}}}",
                "halted {{instance}}": f"relayfile_syncd_mirrors_halted{{{HERE}}}",
                "problems {{instance}}": f"relayfile_syncd_problems{{{HERE}}}",
            },
        ),
        Panel("Halts", {"{{reason}}": rate("relayfile_syncd_halts_total", "reason")}, "ops"),
    ),
)

DASHBOARDS: Final = (OVERVIEW, INGEST, STORE, MIRRORS)
_SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}


def rendered(dashboard: Dashboard) -> str:
    """The file."""
    variables = [
        {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "hide": 0},
        {
            "name": "instance",
            "label": "Process",
            "type": "query",
            "datasource": _SOURCE,
            "query": {"query": f"label_values({dashboard.instances}, instance)", "refId": "instance"},
            "refresh": 2,
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
            "current": {"text": "All", "value": "$__all"},
        },
    ]
    described = {
        "uid": f"relayfile-{dashboard.name}",
        "title": dashboard.title,
        "tags": ["relayfile"],
        "schemaVersion": SCHEMA_VERSION,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": variables},
        "links": [{"type": "dashboards", "tags": ["relayfile"], "title": "Relayfile", "asDropdown": True}],
        "panels": list(_placed(dashboard.panels)),
    }
    return json.dumps(described, indent=1, ensure_ascii=False) + "\n"


def pages() -> Mapping[str, Callable[[], str]]:
    """The files by path, each with what writes it."""
    return {f"deploy/grafana/{each.name}.json": partial(rendered, each) for each in DASHBOARDS}


def _placed(panels: Sequence[Panel]) -> Iterator[dict[str, Any]]:
    x = y = height = 0
    for number, panel in enumerate(panels, 1):
        if x + panel.width > COLUMNS:
            x, y = 0, y + height
        height = 4 if panel.now else 8
        yield _described(number, panel, {"x": x, "y": y, "w": panel.width, "h": height})
        x += panel.width


def _described(number: int, panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    targets = [
        {
            "refId": chr(ord("A") + index),
            "datasource": _SOURCE,
            "expr": query,
            "legendFormat": legend or "__auto",
            "exemplar": "_bucket" in query,
        }
        for index, (legend, query) in enumerate(panel.queries.items())
    ]
    return {
        "id": number,
        "type": "stat" if panel.now else "timeseries",
        "title": panel.title,
        "description": panel.about,
        "datasource": _SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": targets,
    }
