"""What a slow, dead or refusing collector does to the process that traces: nothing, and it is counted."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client import CollectorRegistry

from relayfile.clock import Clock, ManualClock, SystemClock
from relayfile.settings import StoreSettings, load
from relayfile.telemetry import configure_tracing, otlp, span_export
from relayfile.telemetry import traceparent as w3c
from relayfile.telemetry.metrics import TraceInstruments
from relayfile.telemetry.otlp import OtlpSender, Send
from relayfile.telemetry.span_export import SpanQueue
from relayfile.telemetry.tracing import Tracing

CLOSED_PORT = "127.0.0.1:1"


class Failure(grpc.RpcError):
    def __init__(self, code: grpc.StatusCode, details: bytes = b"") -> None:
        self._code = code
        self._details = details

    def trailing_metadata(self) -> Any:
        return (("grpc-status-details-bin", self._details),) if self._details else ()

    def code(self) -> grpc.StatusCode:
        return self._code


def asking_for(pause_s: int) -> bytes:
    """The details of an answer that wants to be left alone for so long."""
    status = status_pb2.Status(code=14, message="later")
    status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=Duration(seconds=pause_s)))
    return status.SerializeToString()


@contextmanager
def exporting(
    send: Send, spans_max: int = 100, *, abandon: Callable[[], None] = lambda: None, clock: Clock | None = None
) -> Iterator[tuple[Tracing, SpanQueue, CollectorRegistry]]:
    registry = CollectorRegistry()
    instruments = TraceInstruments.declare(registry)
    queue = SpanQueue(send, spans_max, instruments, abandon=abandon, clock=clock or SystemClock())
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(queue)
    try:
        yield Tracing(provider, has_room=queue.has_room, close=queue.close), queue, registry
    finally:
        queue.close()


def count(registry: CollectorRegistry, result: str) -> float:
    return registry.get_sample_value("relayfile_trace_spans_total", {"result": result}) or 0.0


def test_what_ended_is_sent_at_the_latest_when_the_process_ends() -> None:
    sent: list[ExportTraceServiceRequest] = []

    def take(message: bytes, _timeout_s: float) -> int:
        sent.append(ExportTraceServiceRequest.FromString(message))
        return 0

    with exporting(take) as (tracing, queue, counts):
        for number in range(30):
            with tracing.begin(f"request {number}", ""):
                pass
        queue.close(30)
    scopes = [scope for message in sent for group in message.resource_spans for scope in group.scope_spans]
    names = [span.name for scope in scopes for span in scope.spans]
    assert names == [f"request {number}" for number in range(30)]
    assert count(counts, "exported") == 30


def test_a_collector_that_never_answers_holds_up_nothing_and_is_no_longer_recorded_for() -> None:
    asked, release = threading.Event(), threading.Event()

    def hang(_message: bytes, _timeout_s: float) -> int:
        asked.set()
        release.wait()
        raise Failure(grpc.StatusCode.DEADLINE_EXCEEDED)

    with exporting(hang) as (tracing, queue, counts):
        with tracing.begin("first", ""):
            pass
        assert asked.wait(30)  # one batch is with the collector; everything else goes on
        contexts = []
        for _ in range(1_000):
            with tracing.begin("request", "") as span:
                contexts.append(span.traceparent)
        recorded = [each for each in contexts if w3c.is_sampled(each)]
        assert len(recorded) == 100
        assert not tracing.records
        assert not queue.has_room()
        sampled = w3c.format_context(1, 2, sampled=True)
        with tracing.begin("request", sampled) as span:
            assert span.traceparent == sampled  # whoever comes after may have a collector that works
        assert count(counts, "dropped") == 0  # nothing was recorded in vain
        release.set()


def test_spans_under_way_when_the_room_ends_are_dropped_and_counted() -> None:
    release = threading.Event()

    def hang(_message: bytes, _timeout_s: float) -> int:
        release.wait()
        return 0

    with exporting(hang, spans_max=2) as (tracing, _, counts):
        spans = [tracing.begin("request", "") for _ in range(20)]
        handles = [each.__enter__() for each in spans]
        for each in reversed(spans):
            each.__exit__(None, None, None)
        assert len(handles) == 20
        assert count(counts, "dropped") >= 16  # two wait, two may be with the collector
        release.set()


def test_a_batch_that_was_not_taken_is_sent_again_and_a_refused_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(span_export, "RETRY_S_FIRST", 0.001)
    monkeypatch.setattr(span_export, "PAUSE_S", 0.001)
    answers: list[grpc.StatusCode | None] = [
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        None,
        grpc.StatusCode.INVALID_ARGUMENT,
    ]
    messages: list[bytes] = []
    taken, refused = threading.Event(), threading.Event()

    def send(message: bytes, _timeout_s: float) -> int:
        messages.append(message)
        code = answers.pop(0)
        if code is not None:
            if not answers:
                refused.set()
            raise Failure(code)
        taken.set()
        return 0

    with exporting(send) as (tracing, queue, counts):
        with tracing.begin("first", ""):
            pass
        assert taken.wait(30)
        with tracing.begin("second", ""):
            pass
        assert refused.wait(30)
        queue.close(30)
        assert messages[0] == messages[1] == messages[2]
        assert (count(counts, "exported"), count(counts, "dropped")) == (1, 1)


@pytest.mark.parametrize(
    ("failure", "attempts"),
    [
        *((Failure(code), 2) for code in sorted(otlp._AGAIN, key=lambda code: code.name)),
        (Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, asking_for(0)), 2),
        (Failure(grpc.StatusCode.RESOURCE_EXHAUSTED), 1),
        (Failure(grpc.StatusCode.INTERNAL), 1),
        (Failure(grpc.StatusCode.UNKNOWN), 1),
        (Failure(grpc.StatusCode.UNAUTHENTICATED), 1),
        (ValueError("no RpcError"), 1),
    ],
    ids=repr,
)
def test_only_what_otlp_calls_retryable_is_tried_again(
    failure: Exception, attempts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when it is no gRPC error: the batch is lost, and the next one is sent."""
    monkeypatch.setattr(span_export, "RETRY_S_FIRST", 0.001)
    monkeypatch.setattr(span_export, "PAUSE_S", 0.001)
    messages: list[bytes] = []
    asked, taken = threading.Event(), threading.Event()

    def send(message: bytes, _timeout_s: float) -> int:
        messages.append(message)
        if len(messages) == 1:
            asked.set()
            raise failure
        taken.set()
        return 0

    with exporting(send) as (tracing, queue, counts):
        with tracing.begin("first", ""):
            pass
        assert asked.wait(30)
        with tracing.begin("second", ""):
            pass
        assert taken.wait(30)
        queue.close(30)
        assert messages.count(messages[0]) == attempts
        assert (count(counts, "exported"), count(counts, "dropped")) == ((2, 0) if attempts == 2 else (1, 1))


def test_what_waits_is_read_at_the_scrape() -> None:
    """While one batch is with a collector that is dead, and after it nothing is dropped: a full queue says it all."""
    asked, release = threading.Event(), threading.Event()

    def hang(_message: bytes, _timeout_s: float) -> int:
        asked.set()
        release.wait()
        return 0

    with exporting(hang, spans_max=64) as (tracing, _, counts):
        with tracing.begin("first", ""):
            pass
        assert asked.wait(30)
        while tracing.records:
            with tracing.begin("request", ""):
                pass
        assert counts.get_sample_value("relayfile_trace_queue_spans") == 64
        assert counts.get_sample_value("relayfile_trace_spans_total", {"result": "dropped"}) == 0
        release.set()


def test_a_collector_that_is_not_there_costs_no_request_anything() -> None:
    asked = threading.Event()
    sender = OtlpSender(CLOSED_PORT)

    def send(message: bytes, timeout_s: float) -> int:
        asked.set()
        return sender.send(message, timeout_s)

    with exporting(send, spans_max=64, abandon=sender.close) as (tracing, _, _counts):
        with tracing.begin("first", ""):
            pass
        assert asked.wait(30)  # the thread keeps this batch and takes no other
        while tracing.records:
            with tracing.begin("request", ""):
                pass
        with tracing.begin("request", "") as span:
            assert span.span is None
        with tracing.batch("commit", [w3c.format_context(1, 2, sampled=True)]) as batch:
            assert batch.span is None


def test_the_settings_bound_the_queue() -> None:
    settings = load(StoreSettings, {"RELAYFILE_OTLP_ENDPOINT": CLOSED_PORT, "RELAYFILE_TRACE_QUEUE_SPANS_MAX": "64"})
    registry = CollectorRegistry()
    tracing = configure_tracing("test", settings, registry)
    assert tracing.records
    assert registry.get_sample_value("relayfile_trace_queue_limit_spans") == 64
    tracing.close()


def test_closing_before_a_collector_that_hangs_takes_one_budget_for_all_batches() -> None:
    clock, asked, release = ManualClock(), threading.Event(), threading.Event()
    granted: list[float] = []

    def hang(_message: bytes, timeout_s: float) -> int:
        asked.set()
        release.wait()
        granted.append(timeout_s)
        clock.advance(timeout_s * 0.6)
        raise Failure(grpc.StatusCode.DEADLINE_EXCEEDED)

    with exporting(hang, spans_max=8 * span_export.BATCH_SPANS_MAX, clock=clock) as (tracing, queue, counts):
        with tracing.begin("first", ""):
            pass
        assert asked.wait(30)
        while tracing.records:
            with tracing.begin("request", ""):
                pass
        queue._ends_at = clock.monotonic() + 10  # as `close` does, but nobody abandons what is under way
        queue._is_closing.set()
        release.set()
        queue._thread.join(30)
        assert not queue._thread.is_alive()
        assert granted[0] == span_export.TIMEOUT_S  # was under way
        assert len(granted) > 3
        left = 10 - 0.6 * granted[0]
        for each in granted[1:]:
            assert each == pytest.approx(min(left, span_export.TIMEOUT_S))
            left -= each * 0.6
        assert count(counts, "dropped") == 8 * span_export.BATCH_SPANS_MAX + 1


def test_what_is_under_way_is_abandoned_when_the_time_for_closing_is_over() -> None:
    asked, abandoned = threading.Event(), threading.Event()
    attempts: list[bytes] = []

    def hang(message: bytes, _timeout_s: float) -> int:
        attempts.append(message)
        asked.set()
        abandoned.wait()
        raise Failure(grpc.StatusCode.CANCELLED)

    with exporting(hang, abandon=abandoned.set) as (tracing, queue, counts):
        with tracing.begin("first", ""):
            pass
        assert asked.wait(30)
        for _ in range(10):
            with tracing.begin("request", ""):
                pass
        queue.close(0.01)
        queue._thread.join(30)
        assert not queue._thread.is_alive()
        assert (len(attempts), count(counts, "dropped")) == (1, 11)


def test_links_count_so_that_memory_is_bounded_whatever_a_batch_brings() -> None:
    """A commit of 128 sampled changes weighs 80 KB; so many as spans may wait would be 700 MB."""
    asked, release = threading.Event(), threading.Event()

    def hang(_message: bytes, _timeout_s: float) -> int:
        asked.set()
        release.wait()
        return 0

    parents = [w3c.format_context(number, 1, sampled=True) for number in range(1, w3c.LINKS_MAX + 1)]
    with exporting(hang, spans_max=330) as (tracing, queue, counts):
        with tracing.begin("first", ""):
            pass
        assert asked.wait(30)
        while tracing.records:
            with tracing.batch("commit", parents):
                pass
        assert len(queue._queue) == 10
        assert counts.get_sample_value("relayfile_trace_queue_spans") == 330
        release.set()
        queue.close(30)
        assert counts.get_sample_value("relayfile_trace_queue_spans") == 0
        assert count(counts, "exported") == 11


def test_a_batch_that_collectors_would_find_too_large_goes_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(span_export, "MESSAGE_BYTES_MAX", 1_000)
    sizes: list[int] = []

    def take(message: bytes, _timeout_s: float) -> int:
        sizes.append(len(message))
        return 0

    with exporting(take) as (tracing, queue, counts):
        for _ in range(40):
            with tracing.begin("request", ""):
                pass
        queue.close(30)
        assert len(sizes) > 3
        assert max(sizes) <= 1_000
        assert (count(counts, "exported"), count(counts, "dropped")) == (40, 0)


@pytest.mark.parametrize(("rejected", "dropped"), [(0, 0), (3, 3), (30, 30), (1 << 40, 30), (-5, 0)])
def test_spans_that_a_collector_rejects_of_a_batch_are_counted_and_not_sent_again(rejected: int, dropped: int) -> None:
    messages: list[bytes] = []

    def take(message: bytes, _timeout_s: float) -> int:
        messages.append(message)
        return rejected

    with exporting(take) as (tracing, queue, counts):
        spans = [tracing.begin("request", "") for _ in range(30)]
        for each in spans:
            each.__enter__()
        with queue._changing:  # so that they are one batch
            for each in reversed(spans):
                each.__exit__(None, None, None)
        queue.close(30)
        assert len(messages) == 1
        assert (count(counts, "exported"), count(counts, "dropped")) == (30 - dropped, dropped)


@pytest.mark.parametrize(
    ("failure", "pause_s"),
    [
        (Failure(grpc.StatusCode.UNAVAILABLE), 0.0),
        (Failure(grpc.StatusCode.UNAVAILABLE, asking_for(7)), 7.0),
        (Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, asking_for(7)), 7.0),
        (Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, asking_for(10**9)), otlp.ASKED_S_MAX),
        (Failure(grpc.StatusCode.UNAVAILABLE, asking_for(-(10**9))), 0.0),
        (Failure(grpc.StatusCode.UNAVAILABLE, b"\xff garbage"), 0.0),
        (Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, b"\xff garbage"), None),
        (Failure(grpc.StatusCode.INTERNAL, asking_for(7)), None),
    ],
    ids=repr,
)
def test_a_collector_is_left_alone_for_as_long_as_it_asks_within_reason(
    failure: Failure, pause_s: float | None
) -> None:
    assert otlp.again_after_s(failure) == pause_s
