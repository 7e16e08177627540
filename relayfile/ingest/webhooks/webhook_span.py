"""What the span of a webhook request says of it: the route, not the path, names it; a body or a header never shows."""

from collections.abc import Mapping
from typing import Final

from opentelemetry.trace import SpanKind

from relayfile.telemetry import SpanHandle, Tracing
from relayfile.telemetry.conventions import HTTP_STATUS, PROVIDER, WORKSPACE, http_request
from relayfile.telemetry.tracing import Attributes

_FAULT: Final = 500
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE"})


def facts_of(method: str, path: str) -> Attributes:
    """What is known of a request before it is read."""
    return http_request(method if method in _METHODS else "_OTHER", path)


def begin_express(tracing: Tracing, headers: Mapping[str, str], url: bytes) -> SpanHandle:
    """Of a request that goes the short way: to be ended."""
    incoming = headers.get("traceparent", "")
    unrecorded = tracing.unrecorded(incoming)
    if unrecorded is not None:
        return SpanHandle(unrecorded)
    return tracing.start("POST", incoming, SpanKind.SERVER, facts_of("POST", url.decode()), decided=True)


def tell(span: SpanHandle, method: str, path: str, workspace: str, provider: str, status: int) -> None:
    """What became of it; `workspace` and `provider` are empty when it went nowhere."""
    if span.span is None:
        return
    template = template_of(path)
    if template:
        span.span.update_name(f"{method} {template}")
        span.set("http.route", template)
    if provider:
        span.set(WORKSPACE, workspace)
        span.set(PROVIDER, provider)
    span.set(HTTP_STATUS, status)
    if status >= _FAULT:
        span.failed(str(status))


def template_of(path: str) -> str:
    """The route of a path; empty: there is none."""
    match path.split("/"):
        case ["", "v1", "apps", _, "webhooks"]:
            return "/v1/apps/{app}/webhooks"
        case ["", "v1", "workspaces", _, "webhooks", _]:
            return "/v1/workspaces/{workspace}/webhooks/{provider}"
        case ["", "v1", "workspaces", _, "envelopes"]:
            return "/v1/workspaces/{workspace}/envelopes"
        case _:
            return ""
