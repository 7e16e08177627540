"""Where the customers of apps have their files, as far as this process knows: a table in memory. Pure.

Owns the bound. A route that has no room is not known here, and its deliveries wait in the app's system workspace, where
the store knows the route; nothing goes to a wrong place. Refuses to know where routes come from.
"""

from collections.abc import Iterator, Mapping
from sys import intern


class RouteTable:
    """Routes by app and tenant."""

    def __init__(self, routes_max: int) -> None:
        self._routes_max = routes_max
        self._routes: dict[str, dict[str, str]] = {}
        self.count = 0
        self.unknown_count = 0
        """Routes that came when there was no room, since the process started."""

    def workspace_of(self, app: str, tenant: str) -> str | None:
        """The workspace; None when no route is known."""
        routes = self._routes.get(app)
        return None if routes is None else routes.get(tenant)

    def put(self, app: str, tenant: str, workspace_id: str) -> None:
        """A route is there, or leads to another workspace."""
        routes = self._routes.setdefault(app, {})
        if tenant not in routes:
            if self.count >= self._routes_max:
                self.unknown_count += 1
                return
            self.count += 1
        routes[tenant] = intern(workspace_id)  # many tenants of one workspace share its name

    def drop(self, app: str, tenant: str) -> None:
        """There is no route, or no longer."""
        if self._routes.get(app, {}).pop(tenant, None) is not None:
            self.count -= 1

    def of(self, app: str) -> Mapping[str, str]:
        """All known routes of an app, tenant to workspace; do not change it."""
        return self._routes.get(app, {})

    def differences(self, app: str, listed: Mapping[str, str]) -> tuple[Iterator[tuple[str, str]], list[str]]:
        """(routes to put, tenants to drop) that make an app's routes those that were listed."""
        known = self.of(app)
        puts = ((tenant, workspace) for tenant, workspace in listed.items() if known.get(tenant) != workspace)
        return puts, [tenant for tenant in known if tenant not in listed]
