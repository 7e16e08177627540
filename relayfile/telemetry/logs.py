"""Logs: one JSON object a line on stderr, with the trace and the correlation id of what was going on.

Both structlog's loggers and the standard library's end here. Refuses to log per record: that is for metrics.
"""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog
from opentelemetry import trace

from relayfile.interception import current_call
from relayfile.settings.groups import LogFormat, LogLevel

Event = MutableMapping[str, Any]

_NOISY = ("uvicorn", "uvicorn.error", "uvicorn.access", "asyncio", "grpc")


def configure_logs(process: str, level: LogLevel, format_: LogFormat, stream: TextIO = sys.stderr) -> None:
    """Send every log line of this process, whoever writes it, to ``stream``. Call once, before anything else."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _process_adder(process),
        add_call,
        add_trace,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    last: list[Any] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if format_ == "json":
        last += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
    else:
        # The default shows the variables of every frame, and with them tokens, secrets and bodies.
        plain = structlog.dev.plain_traceback
        last += [structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=plain)]
    handler = logging.StreamHandler(stream)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=last))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _NOISY:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    logging.captureWarnings(capture=True)


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger that takes an event and its values: ``log.info("shard opened", shard=7)``."""
    logger: structlog.stdlib.BoundLogger = structlog.get_logger(name)
    return logger


def add_call(_logger: object, _method: str, event: Event) -> Event:
    """The correlation id of the call that is being served, unless the line has one."""
    if "correlation_id" not in event:
        try:
            event["correlation_id"] = current_call().correlation_id
        except LookupError:
            return event
    return event


def add_trace(_logger: object, _method: str, event: Event) -> Event:
    """Trace and span id of the current span, when there is one."""
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = f"{context.trace_id:032x}"
        event["span_id"] = f"{context.span_id:016x}"
    return event


def _process_adder(process: str) -> Any:
    def add_process(_logger: object, _method: str, event: Event) -> Event:
        event["process"] = process
        return event

    return add_process
