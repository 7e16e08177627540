"""Finished spans on their way to a collector: a bounded queue, and one thread that empties it over OTLP.

The data path only appends, and never waits: what has no room is dropped and counted. While the collector does not take
them the thread keeps one batch, encoded once, and tries it again after longer and longer waits; the queue fills, and
from then on ``has_room`` says that recording is in vain. Refuses to know what is traced.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeAlias

import grpc
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor

from relayfile.telemetry.logs import get_logger
from relayfile.telemetry.metrics import TraceInstruments

METHOD: Final = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
BATCH_SPANS_MAX: Final = 512
PAUSE_S: Final = 0.5
"""Between two batches that are not full."""
TIMEOUT_S: Final = 5.0
RETRY_S_FIRST: Final = 0.5
RETRY_S_MAX: Final = 30.0
CLOSE_S: Final = 1.0
_AGAIN: Final = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
"""After which OTLP says to try again; RESOURCE_EXHAUSTED too, with RetryInfo. After all others the batch is lost."""
_DETAILS_KEY: Final = "grpc-status-details-bin"
_RETRY_INFO: Final = b"google.rpc.RetryInfo"
_log = get_logger(__name__)

_Export: TypeAlias = "grpc.UnaryUnaryMultiCallable[bytes, ExportTraceServiceResponse]"
Send = Callable[[bytes, float], None]
"""Gives an encoded ``ExportTraceServiceRequest`` to the collector within so many seconds; raises ``grpc.RpcError``."""


class SpanQueue(SpanProcessor):
    """What the SDK hands finished spans to. Starts its thread when it is made: make it in the process that traces."""

    def __init__(self, send: Send, spans_max: int, instruments: TraceInstruments) -> None:
        self._send = send
        self._spans_max = spans_max
        self._queue: deque[ReadableSpan] = deque()
        self._instruments = instruments
        self._wake = threading.Event()
        self._is_closing = threading.Event()
        self._is_told = False
        for result in ("exported", "dropped"):
            instruments.spans_total.labels(result)  # from 0: the first that is dropped is an increase
        instruments.queue_limit_spans.set(spans_max)
        # At the scrape: the thread that empties the queue stays with one batch while the collector is down.
        instruments.queue_spans.set_function(lambda: len(self._queue))
        self._thread = threading.Thread(target=self._run, name="span-export", daemon=True)
        self._thread.start()

    def has_room(self) -> bool:
        """Whether a span that ends now would be kept."""
        return len(self._queue) < self._spans_max

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Nothing: only what has ended is sent."""

    def on_end(self, span: ReadableSpan) -> None:
        """Keep it, if there is room. Takes no lock and never waits."""
        waiting = len(self._queue)
        if waiting >= self._spans_max or self._is_closing.is_set():
            self._instruments.spans_total.labels("dropped").inc()
            return
        self._queue.append(span)
        if waiting + 1 >= BATCH_SPANS_MAX and not self._wake.is_set():
            self._wake.set()

    def close(self, timeout_s: float = CLOSE_S) -> None:
        """Send what waits, for at most so long, and end."""
        self._is_closing.set()
        self._wake.set()
        self._thread.join(timeout_s)

    def shutdown(self) -> None:
        """As ``close``."""
        self.close()

    def _run(self) -> None:
        while True:
            closing = self._is_closing.is_set()
            while self._queue:
                count = min(BATCH_SPANS_MAX, len(self._queue))
                batch = [self._queue.popleft() for _ in range(count)]
                self._export(batch)
                if not closing and len(self._queue) < BATCH_SPANS_MAX:
                    break
            if closing:
                return
            self._wake.wait(PAUSE_S)
            self._wake.clear()

    def _export(self, batch: Sequence[ReadableSpan]) -> None:
        """Until the collector has it, refuses it for good, or the process ends."""
        try:
            is_taken = self._deliver(encode_spans(batch).SerializeToString())
        except Exception as error:  # noqa: BLE001 - whatever one batch meets, the thread goes on with the next
            self._tell(type(error).__name__)
            is_taken = False
        self._instruments.spans_total.labels("exported" if is_taken else "dropped").inc(len(batch))

    def _deliver(self, message: bytes) -> bool:
        """Whether the collector has it now."""
        wait_s = RETRY_S_FIRST
        while True:
            closing = self._is_closing.is_set()
            try:
                self._send(message, CLOSE_S if closing else TIMEOUT_S)
            except grpc.RpcError as error:
                self._tell(_code(error).name)
                if closing or not _is_worth_another(error):
                    return False
            else:
                if self._is_told:
                    _log.info("the collector takes spans again", waiting=len(self._queue))
                self._is_told = False
                return True
            self._is_closing.wait(wait_s)
            wait_s = min(RETRY_S_MAX, wait_s * 2)

    def _tell(self, code: str) -> None:
        """Once, until it takes spans again."""
        if not self._is_told:
            _log.warning("the collector does not take spans", code=code, waiting=len(self._queue))
        self._is_told = True


def _is_worth_another(error: grpc.RpcError) -> bool:
    code = _code(error)
    if code is not grpc.StatusCode.RESOURCE_EXHAUSTED:
        return code in _AGAIN
    trailers: object = getattr(error, "trailing_metadata", lambda: None)()
    if not isinstance(trailers, Iterable):
        return False
    return any(key == _DETAILS_KEY and isinstance(value, bytes) and _RETRY_INFO in value for key, value in trailers)


def _code(error: grpc.RpcError) -> grpc.StatusCode:
    code: object = getattr(error, "code", lambda: None)()  # raised errors are calls too, which the stubs do not say
    return code if isinstance(code, grpc.StatusCode) else grpc.StatusCode.UNKNOWN


def otlp_sender(endpoint: str) -> Send:
    """Sends to the collector at ``endpoint`` (host:port, not encrypted: a sidecar or the node's own agent)."""
    channel = grpc.insecure_channel(
        endpoint,
        options=[("grpc.enable_retries", 0), ("grpc.max_reconnect_backoff_ms", round(RETRY_S_MAX * 1000))],
    )
    call: _Export = channel.unary_unary(METHOD, response_deserializer=ExportTraceServiceResponse.FromString)

    def send(message: bytes, timeout_s: float) -> None:
        call(message, timeout=timeout_s)

    return send
