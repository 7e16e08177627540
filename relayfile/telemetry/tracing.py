"""Spans, for what is sampled; for the rest nothing but the context that travels on.

One decision is made where a trace starts (``begin``) and kept by everyone after. Spans are for calls, batches, commits
and streams, never for records: a batch's span links to a sample of its records' spans and says how many there were.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, TraceFlags

from relayfile.settings.groups import CommonSettings
from relayfile.telemetry import traceparent as w3c

Attributes = Mapping[str, str | int | float | bool]


@dataclass(frozen=True, slots=True)
class SpanHandle:
    """What is going on now, as text to pass on; records nothing when it is not sampled."""

    traceparent: str
    span: trace.Span | None = None

    def set(self, key: str, value: str | float | bool) -> None:
        """Note a value."""
        if self.span is not None:
            self.span.set_attribute(key, value)


class Tracing:
    """Starts and ends spans of one process. Without a provider every call is a no-op that keeps the context."""

    def __init__(self, provider: TracerProvider | None = None) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("relayfile") if provider is not None else None

    @property
    def records(self) -> bool:
        """Whether any span can be recorded at all; if not, a hot path need not gather the parents of a batch."""
        return self._tracer is not None

    def begin(self, name: str, incoming: str, kind: SpanKind = SpanKind.SERVER) -> AbstractContextManager[SpanHandle]:
        """A request arrives: its trace goes on when it brought one (``incoming``), else one starts or is declined."""
        unrecorded = self.unrecorded(incoming)
        if unrecorded is not None:
            return nullcontext(SpanHandle(unrecorded))
        return self._recorded(name, incoming if w3c.is_traceparent(incoming) else "", kind, (), {})

    def unrecorded(self, incoming: str) -> str | None:
        """The context that a request passes on when nothing of it is recorded, as ``begin`` gives it; None: it may
        be recorded, and ``begin`` decides."""
        known = incoming if incoming and w3c.is_traceparent(incoming) else ""
        if self._tracer is None or (known and not w3c.is_sampled(known)):
            return known or w3c.unsampled()
        return None

    @contextmanager
    def span(
        self, name: str, parent: str, kind: SpanKind = SpanKind.INTERNAL, attributes: Attributes | None = None
    ) -> Iterator[SpanHandle]:
        """A step of work on behalf of ``parent``; nothing is recorded unless that is sampled."""
        if self._tracer is None or not w3c.is_sampled(parent):
            yield SpanHandle(parent)
            return
        with self._recorded(name, parent, kind, (), attributes or {}) as handle:
            yield handle

    @contextmanager
    def batch(
        self, name: str, parents: list[str], count: int, kind: SpanKind = SpanKind.INTERNAL
    ) -> Iterator[SpanHandle]:
        """A step of work on behalf of ``count`` records: below the first sampled one, linked to some of the others."""
        links = w3c.pick_links(parents) if self._tracer is not None else []
        if not links:
            yield SpanHandle("")
            return
        with self._recorded(name, links[0], kind, tuple(links), {"relayfile.records": count}) as handle:
            yield handle

    def close(self) -> None:
        """Send what is queued and end the exporter's thread. Blocks, for a second or so when no collector answers."""
        if self._provider is not None:
            self._provider.force_flush(1_000)
            self._provider.shutdown()

    @contextmanager
    def _recorded(
        self, name: str, parent: str, kind: SpanKind, links: tuple[str, ...], attributes: Attributes
    ) -> Iterator[SpanHandle]:
        assert self._tracer is not None
        context = otel_context.Context()
        if parent:
            context = trace.set_span_in_context(NonRecordingSpan(_span_context(parent)), context)
        with self._tracer.start_as_current_span(
            name, context, kind, dict(attributes), [Link(_span_context(each)) for each in links]
        ) as span:
            made = span.get_span_context()
            yield SpanHandle(w3c.format_context(made.trace_id, made.span_id, sampled=made.trace_flags.sampled), span)


def configure_tracing(process: str, settings: CommonSettings, processor: SpanProcessor | None = None) -> Tracing:
    """The tracing that the settings ask for: none without a collector. ``processor`` replaces the exporter in tests.

    Call it in the process that will trace: the exporter starts a thread.
    """
    if processor is None and not settings.otlp_endpoint:
        return Tracing()
    provider = TracerProvider(
        sampler=ParentBased(TraceIdRatioBased(settings.trace_sample_ratio)),
        resource=Resource.create({"service.name": f"relayfile-{process}"}),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(processor or _exporting(settings))
    return Tracing(provider)


def _exporting(settings: CommonSettings) -> SpanProcessor:
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    exporter = OTLPSpanExporter(endpoint=settings.otlp_endpoint, insecure=True, timeout=5)
    batch = min(512, settings.trace_queue_spans_max)
    return BatchSpanProcessor(exporter, settings.trace_queue_spans_max, max_export_batch_size=batch)


def _span_context(traceparent: str) -> SpanContext:
    trace_id, span_id, sampled = w3c.parse(traceparent)
    return SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED if sampled else 0))
