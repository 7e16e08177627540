"""Names and attributes of spans, after OpenTelemetry's semantic conventions (1.44: RPC, HTTP, messaging). Pure.

What goes through spool, stream, commit and mirror is messaging: its system is ``relayfile``, its messages are changes.
"""

from typing import Final

from relayfile.telemetry.tracing import Attributes

RPC_STATUS: Final = "rpc.response.status_code"
HTTP_STATUS: Final = "http.response.status_code"
MESSAGE_COUNT: Final = "messaging.batch.message_count"
WORKSPACE: Final = "relayfile.workspace.id"
PROVIDER: Final = "relayfile.provider"
MIRROR: Final = "relayfile.mirror.id"
OPERATION: Final = "relayfile.operation.id"
SERVER_FAULTS: Final = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)
"""Statuses with which a server's span is an error; the others are the caller's doing."""


def rpc_name(method: str) -> str:
    """Of a gRPC method (``/package.Service/Method``) the name of its span, and ``rpc.method``."""
    return method.removeprefix("/")


def rpc(method: str) -> Attributes:
    """Of a call."""
    return {"rpc.system.name": "grpc", "rpc.method": rpc_name(method)}


def http_request(method: str, path: str) -> Attributes:
    """Of a request that is served; its route is known later."""
    return {"http.request.method": method, "url.path": path, "url.scheme": "http"}


def http_call(method: str, host: str) -> Attributes:
    """Of a request that is made. Without its query, which may carry what is secret."""
    return {"http.request.method": method, "server.address": host}


def messaging(operation: str, kind: str, destination: str, count: int) -> Attributes:
    """Of a step that moves ``count`` changes; ``kind`` is one of ``send``, ``receive``, ``process``. The span is named
    ``<operation> <destination>``."""
    return {
        "messaging.system": "relayfile",
        "messaging.operation.name": operation,
        "messaging.operation.type": kind,
        "messaging.destination.name": destination,
        MESSAGE_COUNT: count,
    }
