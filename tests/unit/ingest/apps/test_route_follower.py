"""A follower against a store that is written by the test: what it learns, what it keeps, and how it starts again."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from relayfile.clock import ManualClock
from relayfile.errors import CursorExpired, RelayfileError, StorageFailed, Unavailable
from relayfile.ingest.apps import route_follower
from relayfile.ingest.apps.route_feed import RouteNews, RoutesPage
from relayfile.ingest.apps.route_follower import CHUNK_ROUTES, RouteFollower
from relayfile.ingest.apps.route_table import RouteTable
from relayfile.ingest.spool.spool_routes import RoutesAt, RouteUpdate, SavedRoutes

NOTHING = SavedRoutes({}, None)


@dataclass
class FakeStore:
    """Its list, and what it has to tell to each stream in turn: news, or how the stream ends."""

    routes: dict[str, str] = field(default_factory=dict)
    at: RoutesAt | None = None
    page_size: int = 2
    told: "asyncio.Queue[RouteNews | RelayfileError]" = field(default_factory=asyncio.Queue)
    calls: list[str] = field(default_factory=list)
    list_failures: list[RelayfileError] = field(default_factory=list)
    first: asyncio.Event = field(default_factory=asyncio.Event)

    async def first_route(self, app: str) -> None:
        self.calls.append("first_route")
        await self.first.wait()

    async def pages(self, app: str) -> AsyncIterator[RoutesPage]:
        self.calls.append("list")
        await asyncio.sleep(0)
        if self.list_failures:
            raise self.list_failures.pop(0)
        items = list(self.routes.items())
        for start in range(0, max(1, len(items)), self.page_size):
            yield RoutesPage(items[start : start + self.page_size], self.at)

    async def news(self, app: str, at: RoutesAt) -> AsyncIterator[RouteNews]:
        self.calls.append(f"news after {at.revision}")
        while True:
            each = await self.told.get()
            if isinstance(each, RelayfileError):
                raise each
            yield each


@dataclass
class FakeKeeper:
    """What a spool would keep."""

    saved: SavedRoutes = NOTHING
    updates: list[RouteUpdate] = field(default_factory=list)
    failures: list[RelayfileError] = field(default_factory=list)

    async def add_routes(self, update: RouteUpdate) -> None:
        await asyncio.sleep(0)
        if self.failures:
            raise self.failures.pop(0)
        self.updates.append(update)
        kept = {tenant: name for tenant, name in self.saved.routes.items() if tenant not in update.drops}
        self.saved = SavedRoutes({**kept, **dict(update.puts)}, update.at)


async def soon(condition: Callable[[], bool]) -> None:
    """Give the follower its turns until it holds."""
    for _ in range(5_000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it never came true")


@dataclass
class Rig:
    store: FakeStore
    keeper: FakeKeeper
    table: RouteTable
    follower: RouteFollower

    async def until(self, at: RoutesAt) -> None:
        await soon(lambda: self.follower.at == at)
        assert self.keeper.saved == SavedRoutes(dict(self.table.of("crm")), at)


@asynccontextmanager
async def running(store: FakeStore, keeper: FakeKeeper | None = None) -> AsyncIterator[Rig]:
    keeper = keeper or FakeKeeper()
    table = RouteTable(100_000)
    follower = RouteFollower("crm", keeper.saved, table, store, keeper, ManualClock(1))
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(follower.run())
        yield Rig(store, keeper, table, follower)
        running.cancel()


def at(revision: int) -> RoutesAt:
    return RoutesAt(revision, "h")


async def tell(store: FakeStore, *news: RouteNews | RelayfileError) -> None:
    for each in news:
        await store.told.put(each)


async def test_a_fresh_process_lists_and_then_follows() -> None:
    store = FakeStore({"1": "acme", "2": "bolt", "3": "acme"}, at(3))
    async with running(store) as rig:
        await rig.until(at(3))
        assert rig.table.of("crm") == store.routes
        await tell(store, RouteNews([("4", "bolt"), ("1", "bolt")], ["2"], at(6)), RouteNews([], [], at(6)))
        await rig.until(at(6))
        assert rig.table.of("crm") == {"1": "bolt", "3": "acme", "4": "bolt"}
    assert store.calls == ["list", "news after 3"]


async def test_what_was_kept_counts_at_once_and_only_the_rest_is_followed() -> None:
    store = FakeStore(at=at(9))
    keeper = FakeKeeper(SavedRoutes({"1": "acme"}, at(5)))
    async with running(store, keeper) as rig:
        assert rig.table.workspace_of("crm", "1") == "acme"
        await tell(store, RouteNews([("2", "bolt")], [], at(6)))
        await rig.until(at(6))
    assert store.calls == ["news after 5"]


async def test_an_app_without_routes_waits_for_its_first_one() -> None:
    store = FakeStore()
    async with running(store) as rig:
        await soon(lambda: "first_route" in store.calls)
        assert rig.follower.at is None
        store.routes, store.at = {"1": "acme"}, at(1)
        store.first.set()
        await rig.until(at(1))
        assert rig.table.workspace_of("crm", "1") == "acme"


@pytest.mark.parametrize("error", [CursorExpired(history_id="i", oldest=7)])
async def test_a_cursor_that_is_too_old_leads_to_a_list_of_which_only_differences_are_written(
    error: RelayfileError,
) -> None:
    store = FakeStore({"1": "acme", "3": "bolt"}, RoutesAt(9, "i"))
    keeper = FakeKeeper(SavedRoutes({"1": "acme", "2": "gone"}, at(5)))
    async with running(store, keeper) as rig:
        await tell(store, error)
        await rig.until(RoutesAt(9, "i"))
        assert rig.table.of("crm") == {"1": "acme", "3": "bolt"}
    assert [(list(update.puts), list(update.drops), update.at) for update in keeper.updates] == [
        ([], ["2"], None),
        ([("3", "bolt")], [], None),
        ([], [], RoutesAt(9, "i")),
    ]


async def test_a_lost_store_is_tried_again_from_where_it_was() -> None:
    store = FakeStore({"1": "acme"}, at(1), list_failures=[Unavailable(what="store")])
    async with running(store) as rig:
        await rig.until(at(1))
        await tell(store, RouteNews([("2", "bolt")], [], at(2)), Unavailable(what="store"))
        await tell(store, RouteNews([("3", "bolt")], [], at(3)))
        await rig.until(at(3))
    assert store.calls == ["list", "list", "news after 1", "news after 2"]


async def test_what_could_not_be_kept_is_asked_for_again() -> None:
    store = FakeStore({}, at(1))
    async with running(store) as rig:
        await rig.until(at(1))
        rig.keeper.failures.append(Unavailable(what="spool's disk"))
        for _ in range(2):
            await tell(store, RouteNews([("2", "bolt")], [], at(2)))
        await rig.until(at(2))
    assert store.calls == ["list", "news after 1", "news after 1"]


async def test_a_large_list_is_kept_in_chunks() -> None:
    routes = {str(number): "acme" for number in range(CHUNK_ROUTES + 1)}
    store = FakeStore(routes, at(1), page_size=4_000)
    async with running(store) as rig:
        await rig.until(at(1))
    sizes = [(len(update.puts), update.at) for update in rig.keeper.updates]
    assert sizes == [(CHUNK_ROUTES, None), (1, None), (0, at(1))]


async def test_a_failing_disk_ends_it() -> None:
    keeper = FakeKeeper(failures=[StorageFailed(what="spool")])
    follower = RouteFollower("crm", NOTHING, RouteTable(10), FakeStore({"1": "a"}, at(1)), keeper, ManualClock(1))
    with pytest.raises(StorageFailed):
        await follower.run()


@dataclass
class LivingStore:
    """Routes with a log that may be cut short, streams that break, and a history that may begin anew."""

    routes: dict[str, str] = field(default_factory=dict)
    log: list[tuple[str, bool]] = field(default_factory=list)
    """Tenant, and whether its route was removed; the first one is revision 1."""
    oldest: int = 1
    history: str = "h0"
    breaks: int = 0
    """Calls to come that fail."""
    moved: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def at(self) -> RoutesAt:
        return RoutesAt(len(self.log), self.history)

    def change(self, tenant: str, workspace: str | None) -> None:
        if workspace is None and self.routes.pop(tenant, None) is None:
            return
        if workspace is not None:
            self.routes[tenant] = workspace
        self.log.append((tenant, workspace is None))
        self.moved.set()

    def call(self) -> None:
        if self.breaks:
            self.breaks -= 1
            raise Unavailable(what="store")

    async def first_route(self, app: str) -> None:
        self.call()

    async def pages(self, app: str) -> AsyncIterator[RoutesPage]:
        """Each page is of its own moment, and says where the first one was."""
        at, after = self.at, ""
        while True:
            self.call()
            page = sorted(tenant for tenant in self.routes if tenant > after)[:2]
            yield RoutesPage([(tenant, self.routes[tenant]) for tenant in page], at)
            if len(page) < 2:
                return
            after = page[-1]
            await asyncio.sleep(0)

    async def news(self, app: str, at: RoutesAt) -> AsyncIterator[RouteNews]:
        cursor = at.revision
        while True:
            self.call()
            if at.history_id != self.history or cursor + 1 < self.oldest:
                raise CursorExpired(history_id=self.history, oldest=self.oldest)
            events = dict(self.log[cursor : cursor + 3])
            cursor = min(cursor + 3, len(self.log))
            await asyncio.sleep(0)  # what changed is read after it was told
            puts = [
                (tenant, self.routes[tenant]) for tenant, gone in events.items() if not gone and tenant in self.routes
            ]
            yield RouteNews(puts, [tenant for tenant, gone in events.items() if gone], RoutesAt(cursor, at.history_id))
            if cursor == len(self.log):
                self.moved.clear()
                await self.moved.wait()


@pytest.mark.parametrize("seed", range(12))
async def test_whatever_happens_the_table_becomes_what_the_store_has(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(route_follower, "RETRY_S_MAX", 0.002)
    draw = random.Random(seed)
    store, keeper = LivingStore(), FakeKeeper()
    for _ in range(6):  # lives of the process
        table = RouteTable(1_000)
        follower = RouteFollower("crm", keeper.saved, table, store, keeper, ManualClock(1))
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(follower.run())
            for _ in range(40):
                match draw.choice(("put", "put", "drop", "break", "lose", "shorten", "again", "turn", "turn")):
                    case "put":
                        store.change(draw.choice("abcdefg"), draw.choice(("acme", "bolt")))
                    case "drop":
                        store.change(draw.choice("abcdefg"), None)
                    case "break":
                        store.breaks += 1
                        store.moved.set()
                    case "lose":
                        keeper.failures.append(Unavailable(what="spool's disk"))
                    case "shorten" if draw.random() < 0.3:
                        store.oldest = len(store.log) + 1
                    case "again" if draw.random() < 0.1:
                        store.history += "x"
                        store.moved.set()
                    case _:
                        await asyncio.sleep(0.001 * draw.random())
            if draw.random() < 0.7:
                await soon(lambda: follower.at == store.at and table.of("crm") == store.routes)  # noqa: B023 - awaited
                assert keeper.saved.routes == store.routes
            running.cancel()
