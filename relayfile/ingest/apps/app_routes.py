"""The routes of all apps of a process: one table, and one follower for each app that keeps its part current.

Owns which apps are followed. Refuses to decide where a delivery goes (`relayfile.ingest.apps.app_deliveries`).
"""

import asyncio
from collections.abc import Callable

from relayfile.clock import Clock
from relayfile.ingest.apps.apps import Apps
from relayfile.ingest.apps.route_follower import RouteFollower, RouteKeeper, RouteSource
from relayfile.ingest.apps.route_table import RouteTable
from relayfile.ingest.spool.spool_routes import SavedRoutes


class AppRoutes:
    """Made in the running loop; `start` it once the process serves."""

    def __init__(
        self,
        apps: Apps,
        routes_max: int,
        source: RouteSource,
        keeper: RouteKeeper,
        saved: Callable[[str], SavedRoutes],
        clock: Clock,
    ) -> None:
        """``saved`` gives what the keeper kept of an app."""
        self.apps = apps
        self.table = RouteTable(routes_max)
        self._followers = [RouteFollower(name, saved(name), self.table, source, keeper, clock) for name in apps]

    def start(self, tasks: asyncio.TaskGroup) -> None:
        """Follow every app in this group, until it is cancelled."""
        for follower in self._followers:
            tasks.create_task(follower.run(), name=f"routes of {follower.app}")
