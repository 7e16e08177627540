"""Finished spans on their way to a collector: a bounded queue, and one thread that empties it over OTLP.

The data path only appends, and never waits: what has no room is dropped and counted. While the collector does not take
them the thread keeps one batch, encoded once, and tries it again after longer and longer waits; the queue fills, and
from then on ``has_room`` says that recording is in vain. Refuses to know what is traced.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import grpc
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor

from relayfile.clock import Clock, SystemClock
from relayfile.telemetry.logs import get_logger
from relayfile.telemetry.metrics import TraceInstruments
from relayfile.telemetry.otlp import Send, again_after_s, code_of

BATCH_SPANS_MAX: Final = 512
MESSAGE_BYTES_MAX: Final = 3 * 1024 * 1024
"""A larger batch is sent in halves: collectors take 4 MiB by default."""
LINKS_PER_SPAN: Final = 4
"""So many links take the memory of a span without any (3 KB), and count as one more in the queue."""
PAUSE_S: Final = 0.5
"""Between two batches that are not full."""
TIMEOUT_S: Final = 5.0
RETRY_S_FIRST: Final = 0.5
RETRY_S_MAX: Final = 30.0
CLOSE_S: Final = 1.0
"""For everything that waits when the process ends, together."""
_CLOCK: Final = SystemClock()
_log = get_logger(__name__)


class SpanQueue(SpanProcessor):
    """What the SDK hands finished spans to. Starts its thread when it is made: make it in the process that traces."""

    def __init__(
        self,
        send: Send,
        spans_max: int,
        instruments: TraceInstruments,
        *,
        abandon: Callable[[], None] = lambda: None,
        clock: Clock = _CLOCK,
    ) -> None:
        """``abandon`` ends a ``send`` that is under way; it is called when the time for closing is over."""
        self._send = send
        self._abandon = abandon
        self._clock = clock
        self._spans_max = spans_max
        self._queue: deque[ReadableSpan] = deque()
        self._weight = 0
        self._changing = threading.RLock()  # garbage that is collected while it is held may end a span
        self._instruments = instruments
        self._ends_at = 0.0
        self._wake = threading.Event()
        self._is_closing = threading.Event()
        self._is_told = False
        for result in ("exported", "dropped"):
            instruments.spans_total.labels(result)  # from 0: the first that is dropped is an increase
        instruments.queue_limit_spans.set(spans_max)
        # At the scrape: the thread that empties the queue stays with one batch while the collector is down.
        instruments.queue_spans.set_function(lambda: self._weight)
        self._thread = threading.Thread(target=self._run, name="span-export", daemon=True)
        self._thread.start()

    def has_room(self) -> bool:
        """Whether a span that ends now would be kept."""
        return self._weight < self._spans_max

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Nothing: only what has ended is sent."""

    def on_end(self, span: ReadableSpan) -> None:
        """Keep it, if there is room. Waits for nobody but who adds or takes at this very moment."""
        weight = _weight(span)
        with self._changing:
            is_kept = self._weight < self._spans_max and not self._is_closing.is_set()
            if is_kept:
                self._queue.append(span)
                self._weight += weight
        if not is_kept:
            self._instruments.spans_total.labels("dropped").inc()
        elif len(self._queue) >= BATCH_SPANS_MAX and not self._wake.is_set():
            self._wake.set()

    def close(self, timeout_s: float = CLOSE_S) -> None:
        """Send what waits, for at most so long in all, and end; what was not sent by then is dropped."""
        self._ends_at = self._clock.monotonic() + timeout_s
        self._is_closing.set()
        self._wake.set()
        self._thread.join(timeout_s)
        self._abandon()
        self._thread.join(timeout_s)  # at once, unless abandoning was in vain

    def shutdown(self) -> None:
        """As ``close``."""
        self.close()

    def _run(self) -> None:
        while True:
            closing = self._is_closing.is_set()
            while batch := self._taken():
                self._export(batch)
                if not closing and len(self._queue) < BATCH_SPANS_MAX:
                    break
            if closing:
                return
            self._wake.wait(PAUSE_S)
            self._wake.clear()

    def _taken(self) -> list[ReadableSpan]:
        """The next batch; it has left the queue."""
        with self._changing:
            batch = [self._queue.popleft() for _ in range(min(BATCH_SPANS_MAX, len(self._queue)))]
            self._weight -= sum(map(_weight, batch))
        return batch

    def _export(self, batch: Sequence[ReadableSpan]) -> None:
        """Until the collector has it, refuses it for good, or the process ends."""
        taken = 0
        try:
            taken = self._parcelled(batch)
        except Exception as error:  # noqa: BLE001 - whatever one batch meets, the thread goes on with the next
            self._tell(type(error).__name__)
        self._instruments.spans_total.labels("exported").inc(taken)
        self._instruments.spans_total.labels("dropped").inc(len(batch) - taken)

    def _parcelled(self, batch: Sequence[ReadableSpan]) -> int:
        """In as many messages as it takes; answers how many spans the collector has now."""
        if self._left_s() <= 0:
            return 0
        message = encode_spans(batch).SerializeToString()
        if len(message) > MESSAGE_BYTES_MAX and len(batch) > 1:
            middle = len(batch) // 2
            return self._parcelled(batch[:middle]) + self._parcelled(batch[middle:])
        return self._deliver(message, len(batch))

    def _deliver(self, message: bytes, count: int) -> int:
        """How many of its spans the collector has now."""
        wait_s = RETRY_S_FIRST
        while (left_s := self._left_s()) > 0:
            closing = self._is_closing.is_set()
            try:
                rejected = self._send(message, left_s)
            except grpc.RpcError as error:
                self._tell(code_of(error).name)
                asked_s = again_after_s(error)
                if closing or asked_s is None:
                    return 0
            else:
                return self._told(min(max(rejected, 0), count), count)
            self._is_closing.wait(max(wait_s, asked_s))
            wait_s = min(RETRY_S_MAX, wait_s * 2)
        return 0

    def _left_s(self) -> float:
        """How long one attempt may take that begins now."""
        if not self._is_closing.is_set():
            return TIMEOUT_S
        return min(TIMEOUT_S, self._ends_at - self._clock.monotonic())

    def _told(self, rejected: int, count: int) -> int:
        """It has answered: how many of so many spans it has."""
        if rejected:
            self._tell("PARTIAL_SUCCESS")
        elif self._is_told:
            _log.info("the collector takes spans again", waiting=len(self._queue))
            self._is_told = False
        return count - rejected

    def _tell(self, code: str) -> None:
        """Once, until it takes spans again."""
        if not self._is_told:
            _log.warning("the collector does not take spans", code=code, waiting=len(self._queue))
        self._is_told = True


def _weight(span: ReadableSpan) -> int:
    return 1 + len(span.links) // LINKS_PER_SPAN
