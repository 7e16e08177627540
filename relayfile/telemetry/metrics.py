"""Every instrument there is, by process: the catalogue behind ``/metrics``.

An instrument is made once per process, from a registry that the process owns, and passed to whoever counts. Adding one
is adding a line. Labels have few values: never a workspace, a path or an id. Hot paths count batches with ``inc(n)``.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Final, Self

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)

_FAST_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000)
LABELS: Final = {
    "method": "an RPC of the API, `FileService/GetFile`",
    "code": "a gRPC status",
    "provider": "one that is configured; `unknown` for all others",
    "status": "an HTTP status that ingest answers",
    "outcome": "one of the eight outcomes of a change",
    "kind": "`write`, `delete`, `move`, `fetch`",
    "end": "a final state of an operation",
    "state": "a state of an operation that has not ended",
    "result": "how it ended: a handful of words",
    "way": "`edits` or `fetches`",
    "mirror": "a mirror's id, of at most 100",
    "reason": "the safety rail",
}
"""Every label there is, with what it can be: nothing that grows with workspaces, files, callers or time."""
_MAKE, _KIND, _LABELS, _MEANING = "make", "kind", "labels", "meaning"


def _declared(
    kind: str, meaning: str, labels: tuple[str, ...], make: Callable[[str, CollectorRegistry], object]
) -> Any:
    assert LABELS.keys() >= set(labels), labels
    return field(metadata={_MAKE: make, _KIND: kind, _LABELS: labels, _MEANING: meaning})


def counter(meaning: str, *labels: str) -> Counter:
    """Only grows; its name ends in ``_total``."""
    counted: Counter = _declared(
        "counter", meaning, labels, lambda name, registry: Counter(name, meaning, labels, registry=registry)
    )
    return counted


def gauge(meaning: str, *labels: str) -> Gauge:
    """What is, now."""
    measured: Gauge = _declared(
        "gauge", meaning, labels, lambda name, registry: Gauge(name, meaning, labels, registry=registry)
    )
    return measured


def histogram(meaning: str, *labels: str, buckets: tuple[float, ...] = _FAST_S) -> Histogram:
    """How values spread; durations are in seconds and end in ``seconds``."""
    spread: Histogram = _declared(
        "histogram",
        meaning,
        labels,
        lambda name, registry: Histogram(name, meaning, labels, buckets=buckets, registry=registry),
    )
    return spread


@dataclass(frozen=True, slots=True)
class Instruments:
    """Instruments of one kind of process; a metric is named ``relayfile_<prefix>_<attribute>``."""

    prefix: ClassVar[str] = ""

    @classmethod
    def described(cls) -> Iterator[tuple[str, str, tuple[str, ...], str]]:
        """(name, kind, labels, meaning) of each of its metrics, in order."""
        for each in fields(cls):
            told = each.metadata
            yield f"relayfile_{cls.prefix}_{each.name}", told[_KIND], told[_LABELS], told[_MEANING]

    @classmethod
    def declare(cls, registry: CollectorRegistry) -> Self:
        """Make every instrument of the class in ``registry``, once."""
        return cls(
            **{each.name: each.metadata[_MAKE](f"relayfile_{cls.prefix}_{each.name}", registry) for each in fields(cls)}
        )


@dataclass(frozen=True, slots=True)
class RpcInstruments(Instruments):
    """Calls that a process serves; a stream counts once, when it ends."""

    prefix: ClassVar[str] = "rpc"
    calls_total: Counter = counter("Calls served, by method and gRPC status.", "method", "code")
    seconds: Histogram = histogram("Duration of calls; of streams, from their start to their end.", "method")
    open: Gauge = gauge("Calls being served now.", "method")


@dataclass(frozen=True, slots=True)
class TraceInstruments(Instruments):
    """What becomes of spans; all zero without a collector."""

    prefix: ClassVar[str] = "trace"
    spans_total: Counter = counter(
        "Spans that ended: exported, or dropped for want of room or of a collector that takes them.", "result"
    )
    queue_spans: Gauge = gauge("Finished spans that wait for their export; every four links of one count as one more.")
    queue_limit_spans: Gauge = gauge("How many may wait (RELAYFILE_TRACE_QUEUE_SPANS_MAX).")


@dataclass(frozen=True, slots=True)
class IngestInstruments(Instruments):
    """What ingest accepts, holds and sends."""

    prefix: ClassVar[str] = "ingest"
    requests_total: Counter = counter("Webhook requests answered.", "provider", "status")
    accept_seconds: Histogram = histogram("From the end of a request's body to its answer.")
    changes_accepted_total: Counter = counter("Changes that were made durable and acknowledged.")
    outcomes_total: Counter = counter("Changes whose outcome came back from the store.", "outcome")
    spool_commits_total: Counter = counter("Transactions of the spool; each that accepts something is one fsync.")
    spool_rows: Gauge = gauge("Rows in the spool.")
    spool_bytes: Gauge = gauge("Bytes of content in the spool; without one, of what waits for its commit.")
    spool_limit_bytes: Gauge = gauge("How many may (RELAYFILE_SPOOL_BYTES_MAX; without one THROUGH_QUEUE_BYTES_MAX).")
    changes_unreadable: Gauge = gauge("Accepted changes that damage of the spool keeps from being sent.")
    objects_held: Gauge = gauge("Folded objects in memory.")
    sendable_age_seconds: Gauge = gauge(
        "How long the oldest change that could be sent now has waited, its window not counted; 0 when none could. What "
        "waits for a node, or is paused, is not meant. Read every second."
    )
    objects_limit: Gauge = gauge("How many may be (RELAYFILE_ENVELOPE_QUEUE_SIZE); the rest waits on disk.")
    bodies_bytes: Gauge = gauge("Bodies of requests that are being read or answered.")
    bodies_limit_bytes: Gauge = gauge("How large they may be together (RELAYFILE_BODIES_BYTES_MAX); then 503.")
    in_flight_bytes: Gauge = gauge("Sent to store nodes and not yet answered.")
    in_flight_limit_bytes: Gauge = gauge("How much may be (RELAYFILE_IN_FLIGHT_BYTES_MAX), if the nodes grant it.")
    streams_open: Gauge = gauge("Streams to store nodes that are up.")
    nodes_configured: Gauge = gauge("How many there are to be: the nodes of RELAYFILE_NODES, running or not.")
    routes: Gauge = gauge("Routes of apps that are known here.")
    batches_sent_total: Counter = counter("Sub-batches sent to store nodes, resends included.")


@dataclass(frozen=True, slots=True)
class StoreInstruments(Instruments):
    """What a store node commits and serves."""

    prefix: ClassVar[str] = "store"
    commits_total: Counter = counter("Transactions committed; each is one fsync.")
    commit_seconds: Histogram = histogram("Duration of a transaction with its fsync.")
    entries_total: Counter = counter("Entries of workspaces committed; a transaction has one or more.")
    receive_to_commit_seconds: Histogram = histogram(
        "From a change's receipt by ingest to its commit; of each provider in an entry the change received last."
    )
    commit_changes: Histogram = histogram("Changes in one transaction.", buckets=_SIZES)
    outcomes_total: Counter = counter("Changes that ended.", "outcome")
    revisions_total: Counter = counter("Revisions taken.")
    replays_total: Counter = counter("Dead letters that were tried again.", "result")
    queue_changes: Gauge = gauge("Changes that wait for a commit; of a node only their bytes have a limit.")
    queue_bytes: Gauge = gauge("Bytes of content that wait for a commit.")
    queue_limit_bytes: Gauge = gauge("How many may; then streams are not read and calls are refused.")
    fenced_total: Counter = counter("Entries dropped because the shard had another owner.")
    wal_bytes: Gauge = gauge("Size of the write-ahead log.")


@dataclass(frozen=True, slots=True)
class WritebackInstruments(Instruments):
    """What becomes of operations on a store node, and how its requests to targets go."""

    prefix: ClassVar[str] = "writeback"
    ends_total: Counter = counter("Operations that ended, by kind and how; a replayed one ends again.", "kind", "end")
    claims_total: Counter = counter("Claims given, to workers and to the node itself.", "kind")
    operations: Gauge = gauge(
        "Operations that have not ended, by state; of a workspace at most 10,000 in each. Read every 15 s.", "state"
    )
    oldest_claimable_seconds: Gauge = gauge(
        "How long what became claimable first has waited for a claim; 0 when nothing waits. Read every 15 s."
    )
    requests_total: Counter = counter("Requests of the node to targets that ended.", "provider", "result")
    request_seconds: Histogram = histogram("From a claim in a worker's hand to the target's whole answer.", "provider")
    workers_busy: Gauge = gauge("Requests of the node to targets that are under way.")
    workers_limit: Gauge = gauge("How many may be (RELAYFILE_WRITEBACK_WORKERS); 0 without targets.")
    breakers_open: Gauge = gauge("Targets that rest, or are tried one by one, after failures.", "provider", "way")


@dataclass(frozen=True, slots=True)
class ScrubInstruments(Instruments):
    """What the scrub in the background of a store node finds."""

    prefix: ClassVar[str] = "scrub"
    bytes_total: Counter = counter("Content that was read and compared with its hash.")
    findings: Gauge = gauge("Contents that are not what they were, by the last scrub or the present one: always 0.")
    failures_total: Counter = counter("Scrubs that could not be finished; the log says why.")
    ended_timestamp_seconds: Gauge = gauge("When the last scrub was through (Unix time); 0: none yet.")


@dataclass(frozen=True, slots=True)
class SyncdInstruments(Instruments):
    """What syncd brings to disk."""

    prefix: ClassVar[str] = "syncd"
    files_written_total: Counter = counter("Files written to mirrors.")
    bytes_written_total: Counter = counter("Bytes written to mirrors.")
    files_pushed_total: Counter = counter("Local edits that the store has acknowledged.")
    bytes_pushed_total: Counter = counter("Bytes of them.")
    conflicts_total: Counter = counter("Files of which both sides changed.")
    event_lag_seconds: Histogram = histogram("From an event's commit to its bytes on disk.")
    audits_total: Counter = counter("Audits.", "result")
    mirrors: Gauge = gauge("Mirrors served.")
    files_pending: Gauge = gauge("Files that the store has and the disk not yet, of all mirrors. Read every 15 s.")
    edits_unsent: Gauge = gauge("Local edits that the store has not acknowledged, of all mirrors. Read every 15 s.")
    edits_unsent_oldest_seconds: Gauge = gauge("How long the oldest of them has waited. Read every 15 s.")
    writer_queue_batches: Gauge = gauge(
        "Batches that wait for the thread that writes files, or are being written. Without a limit of its own: whoever "
        "hands one over waits for it."
    )
    problems: Gauge = gauge("Listed problems of all mirrors.")
    staleness_seconds: Gauge = gauge(
        "Since a mirror last knew that it had everything; of at most 100 mirrors. Read every second.", "mirror"
    )
    stalest_seconds: Gauge = gauge("The largest of them, over all mirrors.")
    mirrors_halted: Gauge = gauge("Mirrors that a safety rail stopped, and that wait for somebody.")
    halts_total: Counter = counter("Times that a safety rail stopped a mirror.", "reason")


def new_registry() -> CollectorRegistry:
    """A registry of this process's own, with the usual figures of the process."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry
