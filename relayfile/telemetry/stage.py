"""The outermost stage of a call: its duration and status in the metrics, its span in the trace."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import grpc
from prometheus_client import Counter, Gauge, Histogram

from relayfile.clock import Clock
from relayfile.interception import Call, Stage
from relayfile.telemetry.conventions import RPC_STATUS, SERVER_FAULTS, rpc, rpc_name
from relayfile.telemetry.exemplars import observe
from relayfile.telemetry.metrics import RpcInstruments
from relayfile.telemetry.tracing import Attributes, Tracing

_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}


class _OfMethod(NamedTuple):
    name: str
    attributes: Attributes
    seconds: Histogram
    open: Gauge
    calls: dict[str, Counter]


def telemetry_stage(instruments: RpcInstruments, tracing: Tracing, clock: Clock) -> Stage:
    """Count and trace every call; sets the call's ``traceparent`` to what its work is to pass on."""
    children: dict[str, _OfMethod] = {}

    def of(method: str) -> _OfMethod:
        found = children.get(method)
        if found is None:
            label = method.removeprefix("/relayfile.v1.")
            found = _OfMethod(
                rpc_name(method), rpc(method), instruments.seconds.labels(label), instruments.open.labels(label), {}
            )
            children[method] = found
        return found

    @asynccontextmanager
    async def stage(call: Call) -> AsyncIterator[None]:
        method = of(call.method)
        started = clock.monotonic()
        method.open.inc()
        code = "CANCELLED"
        try:
            incoming = call.metadata.get("traceparent", "")
            parent = incoming if isinstance(incoming, str) else ""
            with tracing.begin(method.name, parent, attributes=method.attributes) as span:
                call.traceparent = span.traceparent
                try:
                    yield
                    code = "OK"
                except Exception:
                    code = _code(call)
                    raise
                finally:
                    span.set(RPC_STATUS, code)
                    if code in SERVER_FAULTS:
                        span.failed(code)
        finally:
            method.open.dec()
            observe(method.seconds, clock.monotonic() - started, call.traceparent)
            counter = method.calls.get(code)
            if counter is None:
                label = call.method.removeprefix("/relayfile.v1.")
                method.calls[code] = counter = instruments.calls_total.labels(label, code)
            counter.inc()

    return stage


def _code(call: Call) -> str:
    code: object = call.context.code()
    if isinstance(code, grpc.StatusCode):
        return code.name
    return _NAMES.get(code, "UNKNOWN") if isinstance(code, int) else "UNKNOWN"
