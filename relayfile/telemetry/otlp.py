"""Spans to a collector over OTLP (gRPC): one connection, and what its answers mean.

A collector is a stranger: what it sends is bounded, what it asks for is bounded, and a connection on which it fell
silent is not used again. Owns the connection; refuses to know where spans come from.
"""

from collections.abc import Callable, Iterable
from typing import Final, TypeAlias

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

METHOD: Final = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
RECONNECT_S_MAX: Final = 30.0
ASKED_S_MAX: Final = 300.0
"""A collector that asks for a longer pause gets this one."""
ANSWER_BYTES_MAX: Final = 65_536
_DETAILS_KEY: Final = "grpc-status-details-bin"
_OPTIONS: Final = (
    ("grpc.enable_retries", 0),
    ("grpc.max_reconnect_backoff_ms", round(RECONNECT_S_MAX * 1000)),
    ("grpc.max_receive_message_length", ANSWER_BYTES_MAX),
    ("grpc.compression_enabled_algorithms_bitset", 1),  # none: a small answer cannot become a large one
    ("grpc.use_local_subchannel_pool", 1),  # a new channel is a new connection
)
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

_Export: TypeAlias = "grpc.UnaryUnaryMultiCallable[bytes, ExportTraceServiceResponse]"
Send = Callable[[bytes, float], int]
"""Gives an encoded ``ExportTraceServiceRequest`` to the collector within so many seconds. Answers how many of its spans
the collector says that it rejected, which may be any number; raises ``grpc.RpcError``."""


class OtlpSender:
    """Sends to the collector at ``endpoint`` (host:port, not encrypted: a sidecar or the node's own agent)."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._channel = self._open()

    def send(self, message: bytes, timeout_s: float) -> int:
        """As ``Send`` says."""
        call: _Export = self._channel.unary_unary(METHOD, response_deserializer=ExportTraceServiceResponse.FromString)
        try:
            return call(message, timeout=timeout_s).partial_success.rejected_spans
        except grpc.RpcError as error:
            if code_of(error) is grpc.StatusCode.DEADLINE_EXCEEDED:
                # Whoever is silent may be gone without a word, and TCP would wait for a quarter of an hour.
                self._channel.close()
                self._channel = self._open()
            raise

    def close(self) -> None:
        """From any thread: ends the connection, and whatever is being sent with it."""
        self._channel.close()

    def _open(self) -> grpc.Channel:
        return grpc.insecure_channel(self._endpoint, options=_OPTIONS)


def code_of(error: grpc.RpcError) -> grpc.StatusCode:
    """Its status."""
    code: object = getattr(error, "code", lambda: None)()  # raised errors are calls too, which the stubs do not say
    return code if isinstance(code, grpc.StatusCode) else grpc.StatusCode.UNKNOWN


def again_after_s(error: grpc.RpcError) -> float | None:
    """How long the collector wants to be left alone before the same message may be sent again, 0 where it does not say;
    None: never."""
    asked_s = _asked_s(error)
    code = code_of(error)
    if code in _AGAIN:
        return asked_s or 0.0
    return asked_s if code is grpc.StatusCode.RESOURCE_EXHAUSTED else None


def _asked_s(error: grpc.RpcError) -> float | None:
    """Of its RetryInfo, if it has one that can be read."""
    trailers: object = getattr(error, "trailing_metadata", lambda: None)()
    if not isinstance(trailers, Iterable):
        return None
    for key, value in trailers:
        if key != _DETAILS_KEY or not isinstance(value, bytes):
            continue
        try:
            for detail in status_pb2.Status.FromString(value).details:
                info = error_details_pb2.RetryInfo()
                if detail.Unpack(info):
                    return min(max(info.retry_delay.seconds + info.retry_delay.nanos / 1e9, 0.0), ASKED_S_MAX)
        except DecodeError:
            continue
    return None
