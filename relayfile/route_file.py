"""Routes as files: what the store writes into an app's system workspace and ingest reads there. Pure.

Owns the path of a tenant's route, what is in the file, by what a delivery without one is known, and what apps and
tenants may be called. A path holds the tenant
in hexadecimal, because that keeps the order of tenants (the store lists them by path) and needs no escapes.
"""

import re
from typing import Final, NamedTuple

from relayfile import pinned_json
from relayfile.paths import TreePath

ROUTES: Final = "/routes"
TENANT_BYTES_MAX: Final = 256
TENANT_HEADER: Final = "x-relayfile-tenant"
"""Kept with a delivery that has no route: its tenant."""
UNROUTED: Final = "UNROUTED"
"""Reason of the dead letter of such a delivery."""
_SUFFIX: Final = ".json"
_APP = re.compile(r"[a-z0-9-]{1,64}\Z")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class RouteFile(NamedTuple):
    """What the file of a route says."""

    tenant: str
    workspace_id: str
    created_us: int
    """When the tenant got its route; a change of the workspace leaves it."""


def check_app(app: str) -> str | None:
    """Why `app` cannot name an app (completes "it ..."), or None when it can."""
    return None if _APP.match(app) else "must have 1 to 64 characters of a-z 0-9 -"


def check_tenant(tenant: str) -> str | None:
    """Why `tenant` cannot be one (completes "it ..."), or None when it can."""
    if not tenant:
        return "is required"
    if _CONTROL.search(tenant) is not None:
        return "contains a control character"
    return None if len(tenant.encode()) <= TENANT_BYTES_MAX else f"is longer than {TENANT_BYTES_MAX} bytes"


def route_path(tenant: str) -> TreePath:
    """Where the route of a tenant is."""
    return TreePath(f"{ROUTES}/{tenant.encode().hex()}{_SUFFIX}")


def tenant_of(path: str) -> str | None:
    """The tenant whose route is at `path`; None when none can be."""
    if not path.startswith(ROUTES + "/") or not path.endswith(_SUFFIX):
        return None
    try:
        tenant = bytes.fromhex(path[len(ROUTES) + 1 : -len(_SUFFIX)]).decode()
    except ValueError:
        return None
    return tenant if route_path(tenant) == path else None


def write_route(route: RouteFile) -> bytes:
    """The file of a route."""
    return pinned_json.write(
        {"created_unix_us": route.created_us, "tenant": route.tenant, "workspace_id": route.workspace_id}
    )


def read_route(content: bytes) -> RouteFile:
    """What `write_route` wrote. `NotJson` for anything else."""
    match pinned_json.read(content):
        case {"created_unix_us": int(created_us), "tenant": str(tenant), "workspace_id": str(workspace_id)}:
            return RouteFile(tenant, workspace_id, created_us)
        case _:
            raise pinned_json.NotJson("is no route")
