"""The span of a request to a target: the end of a trace that began with an edit, or a signal that asks for a fetch.

Its context is what the target gets as `traceparent`; without a collector, that of the edit itself.
"""

from contextlib import AbstractContextManager
from typing import Final
from urllib.parse import urlsplit

from opentelemetry.trace import SpanKind

from relayfile.store.outward.answers import TargetAnswer, TargetFault
from relayfile.store.plan.writeback.rows import OperationKind, OperationRow
from relayfile.telemetry import SpanHandle, Tracing
from relayfile.telemetry.conventions import HTTP_STATUS, OPERATION, PROVIDER, WORKSPACE, http_call

_STATUS_FAULT: Final = 400


def call_span(tracing: Tracing, workspace_id: str, row: OperationRow, url: str) -> AbstractContextManager[SpanHandle]:
    """Around one request for an operation."""
    fetches = row.kind is OperationKind.FETCH
    attributes = {
        **http_call("GET" if fetches else "POST", urlsplit(url).hostname or ""),
        WORKSPACE: workspace_id,
        PROVIDER: row.provider,
        OPERATION: row.operation_id,
    }
    return tracing.span("fetch target" if fetches else "write target", row.traceparent, SpanKind.CLIENT, attributes)


def tell(span: SpanHandle, answer: TargetAnswer | TargetFault) -> None:
    """How it ended."""
    if answer.status:
        span.set(HTTP_STATUS, answer.status)
    if isinstance(answer, TargetFault):
        span.failed(answer.reason)
    elif answer.status >= _STATUS_FAULT:
        span.failed(str(answer.status))
