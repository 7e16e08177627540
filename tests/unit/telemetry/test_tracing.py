import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from prometheus_client import CollectorRegistry

from relayfile.errors import SettingError
from relayfile.settings import StoreSettings, load
from relayfile.telemetry import Tracing, configure_tracing, outgoing
from relayfile.telemetry import traceparent as w3c
from relayfile.telemetry.conventions import RPC_STATUS, SERVER_FAULTS, messaging, rpc
from relayfile.v1 import types_pb2
from relayfile.wire import EnvelopeRules, check_envelope

SAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
DECLINED = SAMPLED[:-1] + "0"


def traced(ratio: str) -> tuple[Tracing, InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    settings = load(StoreSettings, {"RELAYFILE_TRACE_SAMPLE_RATIO": ratio})
    return configure_tracing("test", settings, CollectorRegistry(), SimpleSpanProcessor(exporter)), exporter


def ids(span: ReadableSpan) -> tuple[int, int]:
    assert span.context is not None
    return span.context.trace_id, span.context.span_id


def test_without_a_collector_the_context_travels_on_and_nothing_is_recorded() -> None:
    tracing = configure_tracing("test", load(StoreSettings, {}), CollectorRegistry())
    with tracing.begin("request", SAMPLED) as span:
        assert span.traceparent == SAMPLED
        span.set("key", 1)
    with tracing.begin("request", "rubbish") as span:
        assert w3c.is_traceparent(span.traceparent)
        assert not w3c.is_sampled(span.traceparent)
    with tracing.batch("commit", [SAMPLED]) as batch:
        assert batch.traceparent == ""
    tracing.close()


def test_of_a_later_version_only_the_ids_travel_on() -> None:
    later = "cc" + DECLINED[2:] + "-" + "x" * 8_000
    with configure_tracing("test", load(StoreSettings, {}), CollectorRegistry()).begin("request", later) as span:
        assert span.traceparent == DECLINED
    # A peer takes what was accepted with it, when ingest hands over.
    refused = check_envelope(types_pb2.Envelope(traceparent=span.traceparent), EnvelopeRules(1, 1, service=True))
    assert refused is not None
    assert "envelope.traceparent" not in [each.field for each in refused.violations]
    tracing, exporter = traced("0")
    with tracing.begin("request", "cc" + SAMPLED[2:] + "-more"):
        pass
    (recorded,) = exporter.get_finished_spans()
    assert ids(recorded)[0] == w3c.parse(SAMPLED).trace_id
    tracing.close()


def test_an_sdk_that_is_switched_off_is_as_no_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    tracing, _ = traced("1")
    assert not tracing.records
    with tracing.begin("request", "") as span:
        assert w3c.is_traceparent(span.traceparent), "its ids are no zeros"
    with tracing.begin("request", SAMPLED) as span:
        assert span.traceparent == SAMPLED
    tracing.close()


@pytest.mark.parametrize("value", ["many", "-1"])
def test_a_limit_of_the_sdk_that_is_none_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", value)
    with pytest.raises(SettingError, match="OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT must be a non-negative integer") as refused:
        traced("1")
    assert refused.value.variable == "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT"


def test_one_trace_from_request_to_commit() -> None:
    tracing, exporter = traced("1")
    with tracing.begin("request", "") as request:
        pass
    with tracing.span("apply", request.traceparent) as apply:
        apply.set("shard", 7)
    facts = messaging("commit", "process", "workspaces", 3)
    with tracing.batch("commit", [DECLINED, apply.traceparent, SAMPLED, apply.traceparent], SpanKind.CONSUMER, facts):
        pass
    first, second, third = exporter.get_finished_spans()
    assert ids(first)[0] == ids(second)[0] == ids(third)[0]
    assert second.parent is not None
    assert second.parent.span_id == ids(first)[1]
    assert (second.attributes or {})["shard"] == 7
    assert [link.context.span_id for link in third.links] == [ids(second)[1], w3c.parse(SAMPLED).span_id]
    assert (third.attributes or {})["messaging.batch.message_count"] == 3
    tracing.close()


def test_a_callers_decision_is_kept() -> None:
    tracing, exporter = traced("0")
    with tracing.begin("request", SAMPLED) as span:
        assert w3c.parse(span.traceparent).trace_id == w3c.parse(SAMPLED).trace_id
        assert w3c.is_sampled(span.traceparent)
    with tracing.begin("request", "") as span:
        assert not w3c.is_sampled(span.traceparent)
    assert len(exporter.get_finished_spans()) == 1
    always, recorded = traced("1")
    with always.begin("request", DECLINED) as span:
        assert span.traceparent == DECLINED
    with always.span("work", DECLINED):
        pass
    assert recorded.get_finished_spans() == ()
    tracing.close()
    always.close()


def test_of_a_tenth_a_tenth_is_recorded_whoever_decides() -> None:
    tracing, exporter = traced("0.1")
    for _ in range(2_000):
        span = tracing.start("request", "", SpanKind.SERVER)
        assert w3c.is_sampled(span.traceparent) is (span.span is not None)
        span.end()
        with tracing.begin("request", "") as begun:
            assert w3c.is_sampled(begun.traceparent) is (begun.span is not None)
    assert 200 < len(exporter.get_finished_spans()) < 600
    exporter.clear()
    for _ in range(200):
        if tracing.unrecorded("") is None:
            tracing.start("request", "", SpanKind.SERVER, decided=True).end()
    assert len(exporter.get_finished_spans()) < 100
    tracing.close()


def test_calls_to_others_carry_the_span_that_is_going_on() -> None:
    tracing, _ = traced("1")
    assert outgoing() == ()
    with tracing.begin("request", SAMPLED) as span:
        assert outgoing() == (("traceparent", span.traceparent),)
        with tracing.batch("read", [SAMPLED]) as inner:
            assert outgoing() == (("traceparent", inner.traceparent),)
        assert outgoing() == (("traceparent", span.traceparent),)
    assert outgoing() == ()
    tracing.close()


def test_a_failure_is_named_and_never_told() -> None:
    tracing, exporter = traced("1")
    try:
        with tracing.begin("request", "", attributes=rpc("/relayfile.v1.FileService/GetFile")):
            raise ValueError("a secret")
    except ValueError:
        pass
    [span] = exporter.get_finished_spans()
    assert span.status.status_code is StatusCode.ERROR
    assert (span.attributes or {})["error.type"] == "ValueError"
    assert (span.attributes or {})["rpc.method"] == "relayfile.v1.FileService/GetFile"
    assert "secret" not in span.to_json()
    tracing.close()


def test_what_the_caller_did_wrong_is_no_error_of_the_server() -> None:
    tracing, exporter = traced("1")
    for code in ("NOT_FOUND", "INTERNAL"):
        try:
            with tracing.begin("request", "") as span:
                try:
                    raise ValueError(code)
                finally:
                    span.set(RPC_STATUS, code)
                    if code in SERVER_FAULTS:
                        span.failed(code)
        except ValueError:
            pass
    missing, internal = exporter.get_finished_spans()
    assert missing.status.status_code is StatusCode.UNSET
    assert "error.type" not in (missing.attributes or {})
    assert internal.status.status_code is StatusCode.ERROR
    assert (internal.attributes or {})["error.type"] == "INTERNAL"
    tracing.close()
