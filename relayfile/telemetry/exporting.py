"""Put together: the tracing that a process's settings ask for."""

from uuid import uuid4

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from prometheus_client import CollectorRegistry

from relayfile import __version__
from relayfile.settings.groups import CommonSettings
from relayfile.telemetry.metrics import TraceInstruments
from relayfile.telemetry.span_export import SpanQueue, otlp_sender
from relayfile.telemetry.tracing import Tracing


def configure_tracing(
    process: str, settings: CommonSettings, registry: CollectorRegistry, processor: SpanProcessor | None = None
) -> Tracing:
    """The tracing that the settings ask for: none without a collector. ``processor`` replaces the exporter in tests.

    Call it in the process that will trace: the exporter starts a thread.
    """
    instruments = TraceInstruments.declare(registry)
    if processor is None and not settings.otlp_endpoint:
        return Tracing()
    provider = TracerProvider(
        sampler=ALWAYS_ON,  # only what is sampled becomes a span at all
        resource=Resource.create(
            {
                "service.namespace": "relayfile",
                "service.name": f"relayfile-{process}",
                "service.version": __version__,
                "service.instance.id": str(uuid4()),
            }
        ),
        shutdown_on_exit=False,
    )
    if processor is not None:
        provider.add_span_processor(processor)
        return Tracing(provider, settings.trace_sample_ratio, close=provider.shutdown)
    queue = SpanQueue(otlp_sender(settings.otlp_endpoint), settings.trace_queue_spans_max, instruments)
    provider.add_span_processor(queue)
    return Tracing(provider, settings.trace_sample_ratio, has_room=queue.has_room, close=queue.close)
