"""What an ingest process remembers over restarts, besides accepted changes: hints that save questions to the store.

With a spool they are in its file. Without one there are none: each start asks again.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol

from relayfile.ingest.spool.spool import Spool
from relayfile.ingest.spool.spool_file import SpoolReader
from relayfile.ingest.spool.spool_routes import RouteUpdate, SavedRoutes


class Memory(Protocol):
    """Serves `workspaces.KnownWorkspaces` and `route_follower.RouteKeeper`."""

    newest_received_us: int
    """The newest receive time of what was left when the process started; 0: nothing was."""

    def known_workspaces(self) -> Iterable[str]:
        """Known when the process started."""
        ...

    def routes(self, app: str) -> SavedRoutes:
        """Of an app, known when the process started."""
        ...

    async def add_known(self, workspaces: Sequence[str], now_us: int) -> None:
        """Remember them; return when that is durable."""
        ...

    async def add_routes(self, update: RouteUpdate) -> None:
        """Remember them; return when that is written."""
        ...


class SpoolMemory:
    """In the file of the spool."""

    def __init__(self, spool: Spool, reader: SpoolReader) -> None:
        self.newest_received_us = 0
        self.known_workspaces = reader.known_workspaces
        self.routes = reader.routes
        self.add_known = spool.add_known
        self.add_routes = spool.add_routes


class NoMemory:
    """Nothing; what is learned is kept by those who ask, as long as the process lives."""

    newest_received_us = 0

    def known_workspaces(self) -> Iterable[str]:
        """None."""
        return ()

    def routes(self, app: str) -> SavedRoutes:
        """None."""
        return SavedRoutes({}, None)

    async def add_known(self, workspaces: Sequence[str], now_us: int) -> None:
        """Nothing to do."""

    async def add_routes(self, update: RouteUpdate) -> None:
        """Nothing to do."""
