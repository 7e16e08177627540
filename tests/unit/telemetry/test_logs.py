import io
import json
import logging
import warnings
from collections.abc import Iterator

import pytest
import structlog
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry

from relayfile.settings import StoreSettings, load
from relayfile.telemetry import configure_logs, configure_tracing, get_logger


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_both_kinds_of_loggers_write_json_lines() -> None:
    stream = io.StringIO()
    configure_logs("store", "info", "json", stream)
    get_logger("relayfile.a").info("shard opened", shard=7)
    logging.getLogger("relayfile.b").warning("gone: %s", "x", extra={"reason": "R"})
    get_logger("relayfile.a").debug("not written")
    try:
        raise ValueError("with\nlines")
    except ValueError:
        logging.getLogger("relayfile.b").exception("failed")
    first, second, third = lines(stream)
    assert (first["event"], first["shard"], first["level"], first["process"]) == ("shard opened", 7, "info", "store")
    assert (second["event"], second["reason"], second["logger"]) == ("gone: x", "R", "relayfile.b")
    assert "ValueError: with" in str(third["exception"])
    assert all("timestamp" in line for line in (first, second, third))


def test_lines_inside_a_span_name_it() -> None:
    stream = io.StringIO()
    configure_logs("store", "info", "json", stream)
    settings = load(StoreSettings, {"RELAYFILE_TRACE_SAMPLE_RATIO": "1"})
    tracing = configure_tracing("test", settings, CollectorRegistry(), SimpleSpanProcessor(InMemorySpanExporter()))
    with tracing.begin("request", "") as span:
        get_logger("a").info("inside")
    get_logger("a").info("outside")
    inside, outside = lines(stream)
    assert span.traceparent.split("-")[1:3] == [inside["trace_id"], inside["span_id"]]
    assert "trace_id" not in outside
    tracing.close()


def test_warnings_are_logged() -> None:
    stream = io.StringIO()
    configure_logs("store", "info", "console", stream)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)
        warnings.warn("careful", stacklevel=1)
    assert "careful" in stream.getvalue()


def test_a_traceback_for_eyes_shows_no_values() -> None:
    stream = io.StringIO()
    configure_logs("store", "info", "console", stream)

    def fails(token: str) -> None:
        raise ValueError(len(token))

    try:
        fails("top secret")
    except ValueError:
        get_logger("a").exception("failed")
    assert "ValueError: 10" in stream.getvalue()
    assert "in fails" in stream.getvalue()
    assert stream.getvalue().count("top secret") == 1, "the line of source, and not the variable"
