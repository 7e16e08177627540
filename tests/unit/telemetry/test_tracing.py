from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from relayfile.settings import StoreSettings, load
from relayfile.telemetry import Tracing, configure_tracing
from relayfile.telemetry import traceparent as w3c

SAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
DECLINED = SAMPLED[:-1] + "0"


def traced(ratio: str) -> tuple[Tracing, InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    settings = load(StoreSettings, {"RELAYFILE_TRACE_SAMPLE_RATIO": ratio})
    return configure_tracing("test", settings, SimpleSpanProcessor(exporter)), exporter


def ids(span: ReadableSpan) -> tuple[int, int]:
    assert span.context is not None
    return span.context.trace_id, span.context.span_id


def test_without_a_collector_the_context_travels_on_and_nothing_is_recorded() -> None:
    tracing = configure_tracing("test", load(StoreSettings, {}))
    with tracing.begin("request", SAMPLED) as span:
        assert span.traceparent == SAMPLED
        span.set("key", 1)
    with tracing.begin("request", "rubbish") as span:
        assert w3c.is_traceparent(span.traceparent)
        assert not w3c.is_sampled(span.traceparent)
    with tracing.batch("commit", [SAMPLED], 1) as batch:
        assert batch.traceparent == ""
    tracing.close()


def test_one_trace_from_request_to_commit() -> None:
    tracing, exporter = traced("1")
    with tracing.begin("request", "") as request:
        pass
    with tracing.span("apply", request.traceparent) as apply:
        apply.set("shard", 7)
    with tracing.batch("commit", [DECLINED, apply.traceparent, SAMPLED], 3):
        pass
    first, second, third = exporter.get_finished_spans()
    assert ids(first)[0] == ids(second)[0] == ids(third)[0]
    assert second.parent is not None
    assert second.parent.span_id == ids(first)[1]
    assert (second.attributes or {})["shard"] == 7
    assert [link.context.span_id for link in third.links] == [ids(second)[1], w3c.parse(SAMPLED).span_id]
    assert (third.attributes or {})["relayfile.records"] == 3
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
