"""Put together: the tracing that a process's settings ask for."""

from uuid import uuid4

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from prometheus_client import CollectorRegistry

from relayfile import __version__
from relayfile.errors import SettingError
from relayfile.settings.groups import CommonSettings
from relayfile.telemetry.metrics import TraceInstruments
from relayfile.telemetry.otlp import OtlpSender
from relayfile.telemetry.span_export import SpanQueue
from relayfile.telemetry.tracing import Tracing


def configure_tracing(
    process: str, settings: CommonSettings, registry: CollectorRegistry, processor: SpanProcessor | None = None
) -> Tracing:
    """The tracing that the settings ask for: none without a collector. ``processor`` replaces the exporter in tests.

    Call it in the process that will trace: the exporter starts a thread. ``SettingError`` for a limit of the SDK
    (``OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT`` and its like) that is no number.
    """
    instruments = TraceInstruments.declare(registry)
    if processor is None and not settings.otlp_endpoint:
        return Tracing()
    provider = TracerProvider(
        span_limits=_limits(),
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
    sender = OtlpSender(settings.otlp_endpoint)
    queue = SpanQueue(sender.send, settings.trace_queue_spans_max, instruments, abandon=sender.close)
    provider.add_span_processor(queue)
    return Tracing(provider, settings.trace_sample_ratio, has_room=queue.has_room, close=queue.close)


def _limits() -> SpanLimits:
    """As the SDK reads them from the environment."""
    try:
        return SpanLimits()
    except ValueError as error:
        variable, _, problem = str(error).partition(" ")
        raise SettingError(
            variable=variable, problem=problem, way_out="set it to a number from 0 on, or do not set it"
        ) from error
