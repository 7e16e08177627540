"""What can be seen of a running process: logs, metrics and traces."""

from relayfile.telemetry.exporting import configure_tracing
from relayfile.telemetry.logs import configure_logs, get_logger
from relayfile.telemetry.metrics import (
    IngestInstruments,
    RpcInstruments,
    ScrubInstruments,
    StoreInstruments,
    SyncdInstruments,
    TraceInstruments,
    WritebackInstruments,
    new_registry,
)
from relayfile.telemetry.stage import telemetry_stage
from relayfile.telemetry.tracing import SpanHandle, Tracing, outgoing

__all__ = [
    "IngestInstruments",
    "RpcInstruments",
    "SpanHandle",
    "StoreInstruments",
    "SyncdInstruments",
    "TraceInstruments",
    "Tracing",
    "ScrubInstruments",
    "WritebackInstruments",
    "configure_logs",
    "configure_tracing",
    "get_logger",
    "new_registry",
    "outgoing",
    "telemetry_stage",
]
