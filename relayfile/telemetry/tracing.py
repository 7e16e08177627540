"""Spans, for what is sampled; for the rest nothing but the context that travels on.

One decision is made where a trace starts (``begin``, ``start``) and kept by everyone after. Spans are for requests,
batches, commits and streams, never for records: a batch's span links to its records' spans and says how many there
were. While finished spans have no room to wait for their export, nothing is recorded, as without a collector.
"""

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from relayfile.telemetry import traceparent as w3c

Attributes = Mapping[str, str | int | float | bool]
_NOTHING: Attributes = {}


@dataclass(frozen=True, slots=True)
class SpanHandle:
    """What is going on now, as text to pass on; records nothing when it is not sampled."""

    traceparent: str
    span: trace.Span | None = None

    def set(self, key: str, value: str | float | bool) -> None:
        """Note a value."""
        if self.span is not None:
            self.span.set_attribute(key, value)

    def failed(self, error_type: str) -> None:
        """It ended in an error that is ours, or a peer's: a status or the name of an exception, never its text."""
        if self.span is not None:
            self.span.set_attribute("error.type", error_type)
            self.span.set_status(Status(StatusCode.ERROR))

    def end(self) -> None:
        """Of a handle that ``start`` gave: it is over."""
        if self.span is not None:
            self.span.end()


class Tracing:
    """Starts and ends spans of one process. Without a provider every call is a no-op that keeps the context.

    ``ratio``: of the traces that start here so many are recorded. ``has_room``: whether a finished span has a place to
    wait. ``close``: sends what waits.
    """

    def __init__(
        self,
        provider: TracerProvider | None = None,
        ratio: float = 1.0,
        *,
        has_room: Callable[[], bool] = lambda: True,
        close: Callable[[], None] = lambda: None,
    ) -> None:
        tracer = provider.get_tracer("relayfile") if provider is not None else None
        # With OTEL_SDK_DISABLED the SDK gives one that records nothing, and whose ids are zeros.
        self._tracer = tracer if not isinstance(tracer, trace.NoOpTracer) else None
        self._ratio = ratio
        self._has_room = has_room
        self._close = close

    @property
    def records(self) -> bool:
        """Whether any span can be recorded now; if not, a hot path need not gather the parents of a batch."""
        return self._tracer is not None and self._has_room()

    def unrecorded(self, incoming: str) -> str | None:
        """The context that a request passes on when nothing of it is recorded; None: it is to be recorded, by
        ``start`` with ``decided``."""
        known = w3c.as_ours(incoming) if incoming and w3c.is_traceparent(incoming) else ""
        if known:
            return None if w3c.is_sampled(known) and self.records else known
        return None if self._tracer is not None and random.random() < self._ratio and self.records else w3c.unsampled()

    def start(
        self, name: str, incoming: str, kind: SpanKind, attributes: Attributes = _NOTHING, *, decided: bool = False
    ) -> SpanHandle:
        """As ``begin``, for a request that ends somewhere else: the handle is to be ended.

        ``decided``: ``unrecorded`` just said that this request is to be recorded.
        """
        unrecorded = None if decided else self.unrecorded(incoming)
        if unrecorded is not None:
            return SpanHandle(unrecorded)
        return self._started(name, incoming if w3c.is_traceparent(incoming) else "", kind, (), attributes)

    def begin(
        self, name: str, incoming: str, kind: SpanKind = SpanKind.SERVER, attributes: Attributes = _NOTHING
    ) -> AbstractContextManager[SpanHandle]:
        """A request arrives: its trace goes on when it brought one (``incoming``), else one starts or is declined."""
        unrecorded = self.unrecorded(incoming)
        if unrecorded is not None:
            return nullcontext(SpanHandle(unrecorded))
        return _current(self.start(name, incoming, kind, attributes, decided=True))

    def span(
        self, name: str, parent: str, kind: SpanKind = SpanKind.INTERNAL, attributes: Attributes = _NOTHING
    ) -> AbstractContextManager[SpanHandle]:
        """A step of work on behalf of ``parent``; nothing is recorded unless that is sampled."""
        if not w3c.is_sampled(parent) or not self.records:
            return nullcontext(SpanHandle(parent))
        return _current(self._started(name, parent, kind, (), attributes))

    def batch(
        self,
        name: str,
        parents: Iterable[str],
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes = _NOTHING,
    ) -> AbstractContextManager[SpanHandle]:
        """A step of work on behalf of many records: below the first sampled one, linked to it and the others."""
        links = w3c.pick_links(parents) if self.records else []
        if not links:
            return nullcontext(SpanHandle(""))
        return _current(self._started(name, links[0], kind, tuple(links), attributes))

    def close(self) -> None:
        """Send what is queued and end the exporter's thread. Blocks, for a second or so when no collector answers."""
        self._close()

    def _started(
        self, name: str, parent: str, kind: SpanKind, links: tuple[str, ...], attributes: Attributes
    ) -> SpanHandle:
        assert self._tracer is not None
        context = otel_context.Context()
        if parent:
            context = trace.set_span_in_context(NonRecordingSpan(_span_context(parent)), context)
        linked = [Link(_span_context(each)) for each in links]
        span = self._tracer.start_span(name, context, kind, dict(attributes), linked)
        made = span.get_span_context()
        return SpanHandle(w3c.format_context(made.trace_id, made.span_id, sampled=True), span)


def outgoing() -> tuple[tuple[str, str], ...]:
    """Metadata for a call to another process that is made on behalf of the current span; nothing without one."""
    made = trace.get_current_span().get_span_context()
    if not made.trace_flags.sampled:
        return ()
    return (("traceparent", w3c.format_context(made.trace_id, made.span_id, sampled=True)),)


@contextmanager
def _current(handle: SpanHandle) -> Iterator[SpanHandle]:
    """``handle`` is what is going on, for logs and outgoing calls, and ends here."""
    assert handle.span is not None
    token = otel_context.attach(trace.set_span_in_context(handle.span))
    try:
        yield handle
    except Exception as error:
        if handle.span.is_recording() and not _is_told(handle.span):
            handle.failed(type(error).__name__)
        raise
    finally:
        otel_context.detach(token)
        handle.end()


def _is_told(span: trace.Span) -> bool:
    """Whether somebody who knows more has said how it ended."""
    attributes = getattr(span, "attributes", None) or {}
    return "rpc.response.status_code" in attributes or "http.response.status_code" in attributes


def _span_context(traceparent: str) -> SpanContext:
    trace_id, span_id, sampled = w3c.parse(traceparent)
    return SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED if sampled else 0))
