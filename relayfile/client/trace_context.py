"""The caller's trace on its way to a node: W3C trace context in a call's metadata.

Needs OpenTelemetry's API only: whoever uses no SDK has no span, and sends nothing. Owns no span of its own.
"""

from typing import Final

from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_W3C: Final = TraceContextTextMapPropagator()


def trace_context() -> tuple[tuple[str, str], ...]:
    """``traceparent``, and ``tracestate`` if there is one, of the span that is current now, sampled or not; nothing
    without a span.

    The node takes no other form, whichever propagators the program has chosen for its other calls.
    """
    if not trace.get_current_span().get_span_context().is_valid:
        return ()
    carrier: dict[str, str] = {}
    _W3C.inject(carrier)
    return tuple(carrier.items())
