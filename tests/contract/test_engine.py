"""What every engine promises, whatever is behind it. Plans are made by hand: their meaning is the planner's."""

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import apsw
import pytest

from relayfile.clock import ManualClock
from relayfile.data_directory import DataDirectory
from relayfile.errors import DataCorrupted, SettingError, StartRefused, StorageFailed, Unavailable
from relayfile.model import EventType, Failure, MemberKind, Origin, Outcome, RawDelivery, Semantics
from relayfile.store.engine import (
    AdminActionFilter,
    DeadLetterFilter,
    Fence,
    PlannedEntry,
    ShardRow,
    Sweep,
    WorkspaceKey,
)
from relayfile.store.plan.entry import Entry, Fold, Member
from relayfile.store.plan.result import FilePut, Plan
from relayfile.store.plan.rows import (
    NO_PATCH_MARKS,
    NO_WATERMARK,
    ActionResult,
    AdminActionRow,
    DeadLetterRow,
    DeliveryKey,
    DeliveryRow,
    DirectoryRow,
    EventRow,
    FileRow,
    ObjectKey,
    ObjectRow,
    RequestKey,
    RequestRow,
    Watermark,
    WorkspaceRow,
)
from relayfile.store.sqlite import orders
from relayfile.store.sqlite.engine import SqliteEngine, SqliteLimits, open_engine
from relayfile.store.sqlite.schema import NodeIdentity

KEY = WorkspaceKey(7, "acme")
OTHER = WorkspaceKey(8, "umbrella")
NOW_US = ManualClock().now_us()
WEEK_S = 7 * 86_400
IDENTITY = NodeIdentity(256, 0, 1)
ENGINES = {
    "sqlite": SqliteLimits(),
    "sqlite-tiny": SqliteLimits(cache_bytes=64 << 10, wal_bytes_max=256 << 10),
}
NO_SEMANTICS = Semantics()


@dataclass
class Opened:
    """An engine and what surrounds it."""

    engine: SqliteEngine
    directory: DataDirectory
    clock: ManualClock
    shards: dict[int, ShardRow]

    def fences(self) -> list[Fence]:
        return [Fence(row.shard_id, row.epoch) for row in self.shards.values()]

    async def commit(self, *plans: tuple[WorkspaceKey, Plan]) -> frozenset[int]:
        now_us = self.clock.now_us()
        return await self.engine.commit(self.fences(), [PlannedEntry(key, plan, now_us) for key, plan in plans])


@pytest.fixture(params=list(ENGINES.values()), ids=list(ENGINES))
def limits(request: pytest.FixtureRequest) -> SqliteLimits:
    chosen: SqliteLimits = request.param
    return chosen


@pytest.fixture
async def opened(tmp_path: Path, limits: SqliteLimits) -> AsyncIterator[Opened]:
    clock = ManualClock()
    with DataDirectory(tmp_path) as directory:
        engine = open_engine(directory, IDENTITY, clock, limits)
        rows = await engine.acquire_shards([7, 8], 0, "127.0.0.1:1")
        opened = Opened(engine, directory, clock, {row.shard_id: row for row in rows})
        yield opened
        await opened.engine.close()


def file_row(path: str, content: bytes, revision: int = 1, **changes: object) -> FileRow:
    row = FileRow(
        path=path,
        revision=revision,
        content_id=0,
        content_sha256=hashlib.sha256(content).digest(),
        size_bytes=len(content),
        content_type="application/json",
        provider="github",
        object_key="o:issue/1",
        modified_us=5,
        origin=Origin.PROVIDER,
        semantics=NO_SEMANTICS,
    )
    return row._replace(**changes)  # type: ignore[arg-type]  # named by the tests


def event_row(revision: int, path: str) -> EventRow:
    return EventRow(
        revision, EventType.FILE_CREATED, path, "", "", b"\1" * 32, 3, Origin.PROVIDER, "github", "c", "t", NOW_US
    )


def writing(*files: tuple[str, bytes], key: WorkspaceKey = KEY, first_revision: int = 1) -> Plan:
    """A plan that puts these files, with an event each."""
    last = first_revision + len(files) - 1
    plan = Plan(key.workspace_id, WorkspaceRow("history", last, 1), workspace_changed=True)
    for revision, (path, content) in enumerate(files, first_revision):
        plan.files_put[path] = FilePut(file_row(path, content, revision), content)
        plan.events.append(event_row(revision, path))
    return plan


def entry(*, path: str = "", delivery_id: str = "d", object_id: str = "issue/1", provider: str = "github") -> Entry:
    member = Member(MemberKind.UPSERT, "e", delivery_id, 0, path, object_id, 1, None, b"", "", NO_SEMANTICS, "", "", "")
    return Entry(KEY.workspace_id, (Fold(provider, f"o:{object_id}", (member,)),))


class TestCommit:
    async def test_what_is_committed_is_read_and_survives_a_restart(self, opened: Opened, limits: SqliteLimits) -> None:
        semantics = Semantics({"state": "open"}, ("/a",), ("public",), ("hello",))
        plan = writing(("/a/b.json", b"one"))
        row = file_row("/a/c.bin", b"two", 2, semantics=semantics, stale_since_us=8, origin=Origin.AGENT)
        plan.files_put["/a/c.bin"] = FilePut(row, b"two")
        directory = DirectoryRow("/a", 2, 6, 0, 2**255 + 1, 2, 2)
        plan.directories_put["/a"] = directory
        await opened.commit((KEY, plan))
        await opened.engine.close()
        opened.engine = open_engine(opened.directory, IDENTITY, opened.clock, limits)
        async with opened.engine.view(KEY) as view:
            first, second, missing = await view.files(["/a/b.json", "/a/c.bin", "/a/d"])
            assert first is not None
            assert second is not None
            assert missing is None
            assert second == row._replace(content_id=second.content_id)
            contents = await view.contents([first.content_id, second.content_id])
            assert contents == {first.content_id: b"one", second.content_id: b"two"}
            assert await view.directory("/a") == directory
            assert await view.workspace() == WorkspaceRow("history", 1, 1, modified_us=NOW_US)
            assert await view.events_after(0, 10) == [event_row(1, "/a/b.json")]

    async def test_a_fenced_shard_is_dropped_and_the_rest_goes_on(self, opened: Opened) -> None:
        await opened.engine.acquire_shards([KEY.shard_id], 1, "elsewhere")
        plans = (KEY, writing(("/a", b"1"))), (OTHER, writing(("/b", b"2"), key=OTHER))
        assert await opened.commit(*plans) == frozenset({KEY.shard_id})
        async with opened.engine.view(KEY) as view:
            assert await view.workspace() is None
        async with opened.engine.view(OTHER) as view:
            assert await view.file("/b") is not None

    async def test_a_shard_nobody_owns_is_fenced(self, opened: Opened) -> None:
        stranger = WorkspaceKey(9, "nobody")
        entries = [PlannedEntry(stranger, writing(("/a", b"1"), key=stranger), 1)]
        assert await opened.engine.commit([Fence(9, 1)], entries) == frozenset({9})

    async def test_a_group_that_fails_leaves_nothing(self, opened: Opened) -> None:
        await opened.commit((KEY, writing(("/a", b"1"))))
        same_revision = writing(("/b", b"2"))
        with pytest.raises(apsw.ConstraintError):
            await opened.commit((OTHER, writing(("/c", b"3"), key=OTHER)), (KEY, same_revision))
        async with opened.engine.view(OTHER) as view:
            assert await view.workspace() is None
        async with opened.engine.view(KEY) as view:
            assert [row.path for row in await view.list_files("/", "", 10)] == ["/a"]
        await opened.commit((OTHER, writing(("/c", b"3"), key=OTHER)))

    async def test_a_view_does_not_see_later_commits(self, opened: Opened) -> None:
        await opened.commit((KEY, writing(("/a", b"1"))))
        async with opened.engine.view(KEY) as view:
            assert len(await view.list_files("/", "", 10)) == 1
            await opened.commit((KEY, writing(("/b", b"2"), first_revision=2)))
            assert len(await view.list_files("/", "", 10)) == 1
        async with opened.engine.view(KEY) as view:
            assert len(await view.list_files("/", "", 10)) == 2

    async def test_the_log_stays_small_while_readers_come_and_go(self, opened: Opened, limits: SqliteLimits) -> None:
        log = opened.directory.path / "store.db-wal"
        for number in range(1, 40):
            plan = writing(*((f"/{number}/{n}", bytes(2_000)) for n in range(20)), first_revision=number * 20)
            await opened.commit((KEY, plan))
            async with opened.engine.view(KEY) as view:
                await view.list_files("/", "", 5)
        assert log.stat().st_size < limits.wal_bytes_max


class TestLists:
    PATHS = ("/a", "/a-b", "/d/e/f", "/d/e/g/h", "/d/x", "/d0", "/z/y")
    DIRECTORIES = ("/", "/d", "/d/e", "/d/e/g", "/z")

    @pytest.fixture
    async def tree(self, opened: Opened) -> Opened:
        plan = writing(*((path, path.encode()) for path in self.PATHS))
        for path in self.DIRECTORIES:
            plan.directories_put[path] = DirectoryRow(path, 1, 1, 0, 1, 1, 1)
        await opened.commit((KEY, plan))
        return opened

    @pytest.mark.parametrize(("directory", "after"), [("/", ""), ("/d", ""), ("/d", "/d/e/f"), ("/nothing", "")])
    async def test_files_below_a_directory_by_path_in_pages(self, tree: Opened, directory: str, after: str) -> None:
        prefix = directory.rstrip("/") + "/"
        expected = sorted(path for path in self.PATHS if path.startswith(prefix) and path > after)
        found: list[str] = []
        async with tree.engine.view(KEY) as view:
            while page := await view.list_files(directory, found[-1] if found else after, 2):
                found += [row.path for row in page]
        assert found == expected

    @pytest.mark.parametrize("depth", [1, 2, 3])
    @pytest.mark.parametrize("directory", ["/", "/d"])
    @pytest.mark.parametrize("page", [1, 3, 100])
    async def test_levels_show_what_is_not_deeper(self, tree: Opened, directory: str, depth: int, page: int) -> None:
        prefix = directory.rstrip("/") + "/"
        expected = sorted(
            path
            for path in (*self.PATHS, *self.DIRECTORIES)
            if path != directory and path.startswith(prefix) and path[len(prefix) :].count("/") < depth
        )
        found: list[str] = []
        async with tree.engine.view(KEY) as view:
            while rows := await view.list_level(directory, depth, found[-1] if found else "", page):
                found += [row.path for row in rows]
        assert found == expected


class TestContent:
    async def test_pieces_and_what_is_replaced_stays_for_a_minute(self, opened: Opened) -> None:
        content = b"0123456789" + bytes(70_000)
        await opened.commit((KEY, writing(("/a", content))))
        async with opened.engine.view(KEY) as view:
            row = await view.file("/a")
        assert row is not None
        assert await opened.engine.content_chunk(KEY, row.content_id, 3, 4) == b"3456"
        assert await opened.engine.content_chunk(KEY, row.content_id, len(content) - 2, 4) == bytes(2)
        replacing = writing(("/a", b"new"), first_revision=2)
        replacing.contents_released.append(row.content_id)
        await opened.commit((KEY, replacing))
        opened.clock.advance(50)
        assert await opened.engine.remove_expired(opened.clock.now_us(), 100) == Sweep(0, True)
        assert await opened.engine.content_chunk(KEY, row.content_id, 0, 2) == b"01"
        opened.clock.advance(11)
        assert await opened.engine.remove_expired(opened.clock.now_us(), 100) == Sweep(1, True)
        assert await opened.engine.content_chunk(KEY, row.content_id, 0, 2) is None
        assert await opened.engine.remove_expired(opened.clock.now_us(), 100) == Sweep(0, True)

    async def test_a_small_one_stays_for_seconds_and_goes_with_the_next_edit(self, opened: Opened) -> None:
        await opened.commit((KEY, writing(("/a", b"first"))))
        async with opened.engine.view(KEY) as view:
            first = await view.file("/a")
        assert first is not None
        replacing = writing(("/a", b"second"), first_revision=2)
        replacing.contents_released.append(first.content_id)
        await opened.commit((KEY, replacing))
        async with opened.engine.view(KEY) as view:
            second = await view.file("/a")
        assert second is not None
        opened.clock.advance(5)
        again = writing(("/a", b"third"), first_revision=3)
        again.contents_released.append(second.content_id)
        await opened.commit((KEY, again))
        assert await opened.engine.content_chunk(KEY, first.content_id, 0, 9) == b"first"
        opened.clock.advance(1)
        await opened.commit((KEY, writing(("/b", b"other"), first_revision=4)))
        assert await opened.engine.content_chunk(KEY, first.content_id, 0, 9) == b"first"
        releasing = writing(("/a", b"fourth"), first_revision=5)
        releasing.contents_released.append(0)
        await opened.commit((KEY, releasing))
        assert await opened.engine.content_chunk(KEY, first.content_id, 0, 9) is None
        assert await opened.engine.content_chunk(KEY, second.content_id, 0, 9) == b"second"

    async def test_metadata_keeps_its_content(self, opened: Opened) -> None:
        await opened.commit((KEY, writing(("/a", b"same"))))
        async with opened.engine.view(KEY) as view:
            row = await view.file("/a")
        assert row is not None
        plan = Plan(KEY.workspace_id, None)
        plan.files_put["/a"] = FilePut(row._replace(content_type="text/plain"), None)
        await opened.commit((KEY, plan))
        async with opened.engine.view(KEY) as view:
            assert await view.file("/a") == row._replace(content_type="text/plain")


class TestEvents:
    async def revisions(self, opened: Opened) -> list[int]:
        async with opened.engine.view(KEY) as view:
            return [event.revision for event in await view.events_after(0, 100)]

    @pytest.mark.parametrize(
        ("retention", "kept"),
        [({"event_retention_us": 60_000_000}, [5, 6]), ({"events_max": 3}, [4, 5, 6]), ({"events_max": 9}, [])],
    )
    async def test_old_events_go_in_batches(self, tmp_path: Path, retention: dict[str, int], kept: list[int]) -> None:
        clock = ManualClock()
        with DataDirectory(tmp_path) as directory:
            engine = open_engine(directory, IDENTITY, clock, replace(SqliteLimits(), **retention))
            rows = await engine.acquire_shards([7, 8], 0, "127.0.0.1:1")
            opened = Opened(engine, directory, clock, {row.shard_id: row for row in rows})
            for first in (1, 3, 5):
                plan = writing((f"/{first}", b"1"), (f"/{first + 1}", b"2"), first_revision=first)
                plan.events = [event._replace(committed_us=clock.now_us()) for event in plan.events]
                await opened.commit((KEY, plan), (OTHER, Plan(OTHER.workspace_id, None)))
                clock.advance(50 if first < 5 else 20)
            while not (await engine.remove_expired(clock.now_us(), 1)).is_complete:
                pass
            assert await self.revisions(opened) == (kept or [1, 2, 3, 4, 5, 6])
            async with engine.view(KEY) as view:
                assert await view.oldest_event_revision() == (kept or [1])[0]
            await engine.close()


class TestLoad:
    async def test_a_slice_holds_what_the_entry_names(self, opened: Opened) -> None:
        plan = writing(("/d/a", b"1"))
        marks = Watermark(5, 4, None, {"title": 3})
        known = ObjectRow(ObjectKey("github", "o:issue/1"), "/d/a", False, None, marks, NO_WATERMARK, "ingest-0")
        plan.objects_put.append(known)
        gone = ObjectRow(
            ObjectKey("github", "o:issue/2"), None, True, "/x", NO_WATERMARK, Watermark(1, 1, 1, NO_PATCH_MARKS), ""
        )
        plan.objects_put.append(gone)
        plan.directories_put["/d"] = DirectoryRow("/d", 1, 1, 0, 1, 1, 1)
        key = DeliveryKey("github", "d", "o:issue/1")
        plan.deliveries_put.append(DeliveryRow(key, "envelope", Outcome.STALE, 1))
        await opened.commit((KEY, plan))
        loaded = await opened.engine.load(KEY, entry(path="/d/a"))
        assert loaded.workspace is not None
        assert loaded.deliveries == {key: ("envelope", Outcome.STALE)}
        assert loaded.objects == {known.key: known}
        assert set(loaded.files) == {"/d/a"}
        assert set(loaded.directories) == {"/d"}
        loaded = await opened.engine.load(KEY, entry(path="/new", object_id="issue/2"))
        assert loaded.objects == {gone.key: gone}
        assert not (await opened.engine.load(OTHER, entry(path="/d/a"))).files

    @pytest.mark.parametrize("odd", ["nul\0inside", "nul\0", "'quoted\"", "\U0010ffff", "\n"])
    async def test_ids_from_outside_are_found_whatever_they_hold(self, opened: Opened, odd: str) -> None:
        keys = [DeliveryKey("github", delivery_id, f"o:{odd}") for delivery_id in (odd, "nul", "plain")]
        plan = Plan(KEY.workspace_id, None)
        plan.deliveries_put += [DeliveryRow(key, key.delivery_id, Outcome.APPLIED, 1) for key in keys]
        known = ObjectRow(ObjectKey("github", f"o:{odd}"), None, True, None, NO_WATERMARK, NO_WATERMARK, "")
        plan.objects_put.append(known)
        await opened.commit((KEY, plan))
        for key in keys:
            loaded = await opened.engine.load(KEY, entry(delivery_id=key.delivery_id, object_id=odd))
            assert loaded.deliveries == {key: (key.delivery_id, Outcome.APPLIED)}
            assert loaded.objects == {known.key: known}

    async def test_a_delivery_is_known_for_a_week_and_then_removed(self, opened: Opened) -> None:
        key = DeliveryKey("github", "d", "o:issue/1")

        async def known() -> bool:
            return key in (await opened.engine.load(KEY, entry())).deliveries

        plan = Plan(KEY.workspace_id, None)
        plan.deliveries_put.append(DeliveryRow(key, "envelope", Outcome.APPLIED, opened.clock.now_us()))
        await opened.commit((KEY, plan))
        for _ in range(7):
            assert await known()
            await opened.engine.remove_expired(opened.clock.now_us(), 1_000)
            opened.clock.advance(WEEK_S / 7)
        assert await known()
        removed = 0
        for _ in range(3):
            opened.clock.advance(WEEK_S)
            removed += (await opened.engine.remove_expired(opened.clock.now_us(), 1_000)).removed_count
        assert removed == 1
        assert not await known()

    async def test_the_newer_row_of_a_key_in_two_periods_counts(self, opened: Opened) -> None:
        key = DeliveryKey("github", "d", "o:issue/1")
        for outcome in (Outcome.DEAD_LETTERED, Outcome.APPLIED):
            plan = Plan(KEY.workspace_id, None)
            plan.deliveries_put.append(DeliveryRow(key, outcome.name, outcome, opened.clock.now_us()))
            await opened.commit((KEY, plan))
            opened.clock.advance(WEEK_S)
        loaded = await opened.engine.load(KEY, entry())
        assert loaded.deliveries == {key: ("APPLIED", Outcome.APPLIED)}


class TestOutcomes:
    def failed(self, number: int, provider: str = "github", reason: str = "NOT_JSON") -> DeadLetterRow:
        return DeadLetterRow(
            dead_letter_id=f"{number:026d}",
            stage="normalise",
            key=DeliveryKey(provider, f"d{number}", "n:0"),
            envelope_id="e",
            failure=Failure(reason, "It is not."),
            raw=RawDelivery(b"body", {"x-event": "issues"}),
            adapter_version="1",
            event_name="issues.opened",
            correlation_id="c",
            received_us=number,
            created_us=number,
        )

    async def test_counters_add_up_and_dead_letters_are_listed_newest_first(self, opened: Opened) -> None:
        plan = Plan(KEY.workspace_id, WorkspaceRow("h", 0, 1), workspace_changed=True)
        plan.dead_letters += [self.failed(1), self.failed(2, "linear"), self.failed(3, reason="TOO_LARGE")]
        plan.outcome_counts = {("github", Outcome.DEAD_LETTERED): 2, ("linear", Outcome.DEAD_LETTERED): 1}
        plan.last_received_us = {"github": 3, "linear": 2}
        await opened.commit((KEY, plan))
        again = Plan(KEY.workspace_id, None)
        again.dead_letters_resolved.add((self.failed(1).key, self.failed(1).envelope_id))
        again.outcome_counts = {("github", Outcome.DEAD_LETTERED): -1, ("github", Outcome.APPLIED): 1}
        again.last_received_us = {"github": 1}
        await opened.commit((KEY, again))
        async with opened.engine.view(KEY) as view:
            github, linear = await view.outcomes()
            assert github.counts == {Outcome.DEAD_LETTERED: 1, Outcome.APPLIED: 1}
            assert (github.failure_reasons, github.last_received_us) == ({"TOO_LARGE": 1}, 3)
            assert (linear.provider, linear.failure_reasons) == ("linear", {"NOT_JSON": 1})
            assert [each.letter_count for each in await view.letter_totals()] == [1, 1]
            kept = await view.dead_letters(DeadLetterFilter(), "", 10)
            assert [one.row.key.delivery_id for one in kept] == ["d3", "d2"]
            assert await view.dead_letters(DeadLetterFilter(), kept[0].row.dead_letter_id, 10) == kept[1:]
            assert await view.dead_letters(DeadLetterFilter(provider="linear"), "", 10) == kept[1:]
            assert await view.dead_letters(DeadLetterFilter(received_before_us=3), "", 10) == kept[1:]
            assert await view.dead_letter(kept[0].row.dead_letter_id) == kept[0]
            assert kept[0].row == self.failed(3, reason="TOO_LARGE")._replace(
                raw=RawDelivery(b"", {"x-event": "issues"})
            )
            assert await view.contents([kept[0].content_id]) == {kept[0].content_id: b"body"}
            assert kept[0].body_size_bytes == 4
        assert await opened.engine.node_outcomes() == [github, linear]

    async def test_a_node_sums_up_its_workspaces(self, opened: Opened) -> None:
        one, other = KEY, OTHER
        for key, applied, received_us in ((one, 3, 7), (other, 4, 5), (one, 1, 6)):
            plan = Plan(key.workspace_id, WorkspaceRow("h", 0, 1), workspace_changed=True)
            plan.dead_letters.append(self.failed(applied))
            plan.outcome_counts = {("github", Outcome.APPLIED): applied, ("github", Outcome.DEAD_LETTERED): 1}
            plan.last_received_us = {"github": received_us}
            await opened.commit((key, plan))
        [github] = await opened.engine.node_outcomes()
        assert github.counts == {Outcome.APPLIED: 8, Outcome.DEAD_LETTERED: 3}
        assert github.failure_reasons == {"NOT_JSON": 3}
        assert (github.last_received_us, github.last_applied_us) == (7, None)


class TestOrders:
    def asked(self, number: int, now_us: int) -> RequestRow:
        return RequestRow(RequestKey("relayfile.v1.A/B", f"r{number}"), bytes([number]) * 32, b"answer", now_us)

    def action(self, number: int, **changes: object) -> AdminActionRow:
        row = AdminActionRow(
            action_id=f"{number:026d}",
            action_us=NOW_US + number,
            actor="ann",
            method="relayfile.v1.IngestService/Pause",
            subject="github",
            reason="maintenance",
            result=ActionResult.SUCCEEDED,
            detail="3 held",
            request_id=f"r{number}",
            correlation_id=f"c{number}",
        )
        return row._replace(**changes)  # type: ignore[arg-type]  # named by the tests

    async def listed(self, opened: Opened, chosen: AdminActionFilter, before: str = "", limit: int = 100) -> list[str]:
        async with opened.engine.view(KEY) as view:
            return [row.request_id for row in await view.admin_actions(chosen, before, limit)]

    async def test_a_request_is_known_for_a_week_by_its_method_and_id_and_then_removed(self, opened: Opened) -> None:
        row = self.asked(1, opened.clock.now_us())
        others = [RequestKey("relayfile.v1.A/Other", "r1"), RequestKey(row.key.method, "r2")]

        async def known(key: WorkspaceKey = KEY) -> dict[RequestKey, RequestRow]:
            async with opened.engine.view(key) as view:
                return await view.requests([row.key, *others])

        plan = Plan(KEY.workspace_id, None)
        plan.requests_put.append(row)
        await opened.commit((KEY, plan))
        for _ in range(8):
            assert await known() == {row.key: row}
            assert await known(OTHER) == {}
            await opened.engine.remove_expired(opened.clock.now_us(), 1_000)
            opened.clock.advance(WEEK_S / 7)
        removed = 0
        for _ in range(3):
            opened.clock.advance(WEEK_S)
            removed += (await opened.engine.remove_expired(opened.clock.now_us(), 1_000)).removed_count
        assert removed == 1
        assert await known() == {}

    async def test_a_file_that_is_opened_again_still_empties_its_request_periods(
        self, opened: Opened, limits: SqliteLimits
    ) -> None:
        plan = Plan(KEY.workspace_id, None)
        plan.requests_put.append(self.asked(1, opened.clock.now_us()))
        await opened.commit((KEY, plan))
        await opened.engine.close()
        opened.engine = open_engine(opened.directory, IDENTITY, opened.clock, limits)
        removed = 0
        for _ in range(3):
            opened.clock.advance(WEEK_S)
            removed += (await opened.engine.remove_expired(opened.clock.now_us(), 1_000)).removed_count
        assert removed == 1

    async def test_actions_are_listed_newest_first_and_filtered(self, opened: Opened) -> None:
        plan = Plan(KEY.workspace_id, None)
        plan.admin_actions_put += [self.action(1), self.action(2, actor="bob"), self.action(3, method="Other")]
        await opened.commit((KEY, plan))
        async with opened.engine.view(KEY) as view:
            assert (await view.admin_actions(AdminActionFilter(), "", 10))[-1] == self.action(1)
        assert await self.listed(opened, AdminActionFilter()) == ["r3", "r2", "r1"]
        assert await self.listed(opened, AdminActionFilter(), limit=2) == ["r3", "r2"]
        assert await self.listed(opened, AdminActionFilter(), before=self.action(2).action_id) == ["r1"]
        assert await self.listed(opened, AdminActionFilter(actor="bob")) == ["r2"]
        assert await self.listed(opened, AdminActionFilter(method="Other")) == ["r3"]
        assert await self.listed(opened, AdminActionFilter(from_us=NOW_US + 2, before_us=NOW_US + 3)) == ["r2"]
        async with opened.engine.view(OTHER) as view:
            assert await view.admin_actions(AdminActionFilter(), "", 10) == []

    async def test_actions_go_by_age_and_beyond_their_number(
        self, opened: Opened, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(orders, "ACTIONS_PER_WORKSPACE_MAX", 3)
        for number in range(1, 6):
            plan = Plan(KEY.workspace_id, None)
            plan.admin_actions_put.append(self.action(number, action_us=opened.clock.now_us()))
            await opened.commit((KEY, plan))
            opened.clock.advance(86_400)
        assert await self.listed(opened, AdminActionFilter()) == ["r5", "r4", "r3"]
        opened.clock.advance(87.5 * 86_400)
        assert await opened.engine.remove_expired(opened.clock.now_us(), 1) == Sweep(1, False)
        assert await opened.engine.remove_expired(opened.clock.now_us(), 10) == Sweep(0, True)
        assert await self.listed(opened, AdminActionFilter()) == ["r5", "r4"]


class TestOpening:
    @pytest.mark.parametrize(
        ("identity", "variable", "values"),
        [
            (NodeIdentity(128, 0, 1), "RELAYFILE_SHARD_COUNT", ("128", "256")),
            (NodeIdentity(256, 1, 1), "RELAYFILE_NODE_INDEX", ("1", "0")),
            (NodeIdentity(256, 0, 2), "RELAYFILE_NODES", ("2", "1")),
        ],
    )
    async def test_a_file_of_another_node_is_refused_with_both_values(
        self, tmp_path: Path, identity: NodeIdentity, variable: str, values: tuple[str, str]
    ) -> None:
        with DataDirectory(tmp_path) as directory:
            await open_engine(directory, IDENTITY, ManualClock()).close()
            with pytest.raises(SettingError) as refused:
                open_engine(directory, identity, ManualClock())
        assert refused.value.variable == variable
        assert all(value in refused.value.problem for value in values)

    async def test_a_schema_of_a_newer_release_is_refused(self, tmp_path: Path) -> None:
        with DataDirectory(tmp_path) as directory:
            await open_engine(directory, IDENTITY, ManualClock()).close()
            connection = apsw.Connection(str(tmp_path / "store.db"))
            connection.execute("INSERT INTO schema_migrations VALUES ('9999')")
            connection.close()
            with pytest.raises(StartRefused, match="9999"):
                open_engine(directory, IDENTITY, ManualClock())

    async def test_epochs_grow_with_every_start(self, opened: Opened) -> None:
        again = await opened.engine.acquire_shards([7, 8], 0, "127.0.0.1:2")
        assert [row.epoch for row in again] == [2, 2]
        assert await opened.commit((KEY, writing(("/a", b"1")))) == frozenset({7, 8})


class TestFailingDisk:
    async def test_a_failed_fsync_ends_everything_and_the_next_start_verifies(
        self, opened: Opened, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fails() -> None:
            raise apsw.IOError("disk I/O error")

        await opened.commit((KEY, writing(("/a", b"1"))))
        with monkeypatch.context() as patch:
            patch.setattr(opened.engine, "_commit", fails)
            with pytest.raises(StorageFailed):
                await opened.commit((KEY, writing(("/b", b"2"), first_revision=2)))
        with pytest.raises(StorageFailed):
            await opened.commit((KEY, writing(("/c", b"3"), first_revision=2)))
        assert opened.directory.failure() is not None
        await opened.engine.close()
        opened.engine = open_engine(opened.directory, IDENTITY, opened.clock)
        assert opened.directory.failure() is None
        async with opened.engine.view(KEY) as view:
            assert [row.path for row in await view.list_files("/", "", 10)] == ["/a"]

    async def test_a_full_disk_refuses_for_now(self, opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
        def fails() -> None:
            raise apsw.FullError("database or disk is full")

        with monkeypatch.context() as patch:
            patch.setattr(opened.engine, "_commit", fails)
            with pytest.raises(Unavailable):
                await opened.commit((KEY, writing(("/a", b"1"))))
        await opened.commit((KEY, writing(("/a", b"1"))))

    async def test_damage_after_a_failed_fsync_refuses_the_start(self, tmp_path: Path) -> None:
        with DataDirectory(tmp_path) as directory:
            await open_engine(directory, IDENTITY, ManualClock()).close()
            directory.mark_failed("fsync")
            database = tmp_path / "store.db"
            content = bytearray(database.read_bytes())
            content[4096 * 3 : 4096 * 6] = b"\xff" * 4096 * 3
            database.write_bytes(content)
            with pytest.raises(DataCorrupted):
                open_engine(directory, IDENTITY, ManualClock())
            assert directory.failure() == "fsync"
