"""Keeps the routes of one app current: known from the spool at once, listed when nothing is known, then followed.

Owns the order of things: what is learned goes into the spool, together with the position up to which it is complete,
and then into the table. With the store away the last known routes count. A process that knows none yet accepts all the
same: the store knows every route, and has what had none here tried again (docs/providers/apps.md).
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from itertools import islice
from typing import Final, Protocol

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from relayfile.clock import Clock
from relayfile.errors import CursorExpired, InvalidArgument, RelayfileError, StorageFailed, WorkspaceNotFound
from relayfile.ingest.apps.route_feed import RouteNews, RoutesPage
from relayfile.ingest.apps.route_table import RouteTable
from relayfile.ingest.spool.spool_routes import RoutesAt, RouteUpdate, SavedRoutes
from relayfile.telemetry import get_logger

CHUNK_ROUTES: Final = 5_000
"""Routes in one transaction of the spool: some 20 ms of its thread."""
RETRY_S_MAX: Final = 5.0
HEALTHY_AFTER_S: Final = 10.0
_log = get_logger(__name__)


class RouteSource(Protocol):
    """The store (`RouteFeed`)."""

    async def first_route(self, app: str) -> None:
        """Return when there may be one."""
        ...

    def pages(self, app: str) -> AsyncIterator[RoutesPage]:
        """All routes."""
        ...

    def news(self, app: str, at: RoutesAt) -> AsyncIterator[RouteNews]:
        """What changes after ``at``."""
        ...


class RouteKeeper(Protocol):
    """Keeps routes over restarts (the spool)."""

    async def add_routes(self, update: RouteUpdate) -> None:
        """Return when it is in the file."""
        ...


class _Lost(Exception):
    """The store cannot be followed now."""


class RouteFollower:
    """One app; `run` it in a task."""

    def __init__(
        self, app: str, saved: SavedRoutes, table: RouteTable, source: RouteSource, keeper: RouteKeeper, clock: Clock
    ) -> None:
        self.app = app
        self._at = saved.at
        self._table = table
        self._source = source
        self._keeper = keeper
        self._clock = clock
        for tenant, workspace in saved.routes.items():
            table.put(app, tenant, workspace)

    @property
    def at(self) -> RoutesAt | None:
        """Up to where the routes are known; None: they have to be listed."""
        return self._at

    async def run(self) -> None:
        """Until cancelled. Raises `StorageFailed` when the spool's disk fails."""
        while True:
            attempts = AsyncRetrying(
                wait=wait_random_exponential(multiplier=0.1, max=RETRY_S_MAX),
                retry=retry_if_exception_type(_Lost),
                before_sleep=self._tell,
                sleep=asyncio.sleep,
            )
            async for attempt in attempts:
                with attempt:
                    await self._live_once()

    async def _live_once(self) -> None:
        started_s = self._clock.monotonic()
        try:
            await self._follow()
        except StorageFailed:
            raise
        except (CursorExpired, WorkspaceNotFound, InvalidArgument) as error:
            # Too old, of another history, or from after a restored backup: whatever is known is compared anew.
            _log.info("the routes of an app are listed again", app=self.app, why=str(error))
            self._at = None
        except RelayfileError as error:
            if self._clock.monotonic() - started_s < HEALTHY_AFTER_S:
                raise _Lost(str(error)) from error

    async def _follow(self) -> None:
        while self._at is None:
            await self._list()
            if self._at is None:
                await self._source.first_route(self.app)
        async for puts, drops, at in self._source.news(self.app, self._at):
            if puts or drops:
                await self._take(puts, drops, at)
            self._at = at

    async def _list(self) -> None:
        """Make the table what the store lists. Only differences are written."""
        listed: dict[str, str] = {}
        at: RoutesAt | None = None
        async for page in self._source.pages(self.app):
            listed.update(page.routes)
            at = page.at
        different, drops = self._table.differences(self.app, listed)
        puts = list(different)
        for start in range(0, len(drops), CHUNK_ROUTES):
            await self._take((), drops[start : start + CHUNK_ROUTES], None)
        remaining = iter(puts)
        while chunk := list(islice(remaining, CHUNK_ROUTES)):
            await self._take(chunk, (), None)
        await self._take((), (), at)
        self._at = at

    async def _take(self, puts: Iterable[tuple[str, str]], drops: Iterable[str], at: RoutesAt | None) -> None:
        changed, gone = tuple(puts), tuple(drops)
        await self._keeper.add_routes(RouteUpdate(self.app, changed, gone, at))
        for tenant in gone:
            self._table.drop(self.app, tenant)
        unknown = self._table.unknown_count
        for tenant, workspace in changed:
            self._table.put(self.app, tenant, workspace)
        if not unknown and self._table.unknown_count:
            # Once: what follows is slower, and not wrong.
            _log.warning("more routes than RELAYFILE_ROUTES_MAX; deliveries of the rest take a detour", app=self.app)

    def _tell(self, state: RetryCallState) -> None:
        """Once for each time that the store is lost, not for each try."""
        if state.attempt_number == 1 and state.outcome is not None:
            _log.info("the routes of an app cannot be followed now", app=self.app, why=str(state.outcome.exception()))
