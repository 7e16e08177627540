"""What a deleted workspace leaves behind goes in small steps, all of it; its tombstone goes when its time is over."""

from dataclasses import replace
from pathlib import Path

import apsw
import pytest

from relayfile.clock import ManualClock
from relayfile.errors import HistoryMismatch, WorkspaceDeleted, WorkspaceNotFound
from relayfile.model import Outcome
from relayfile.placement import shard_of
from relayfile.store.deletion import Deleted, Deletion
from relayfile.store.engine import AdminActionFilter, WorkspaceKey
from relayfile.store.integrity.finding import ALL_CHECKS, AuditEnd, AuditOrder, Finding
from relayfile.store.once import Asked, RequestMark
from relayfile.store.order import Order
from relayfile.store.plan.rows import RequestKey
from relayfile.store.sqlite.audit.run import SqliteAudit
from relayfile.store.sqlite.engine import SqliteEngine
from relayfile.store.sqlite.removal import DELETE_METHOD, KEPT, tables_with
from relayfile.store.streams.pausing import PauseChange
from relayfile.v1 import shard_pb2, types_pb2
from tests.support.running_node import POLICY, SHARDS, RunningNode, Sender, fold, running_node, sub_batch, upsert

W = "acme"
KEY = WorkspaceKey(shard_of(W, SHARDS), W)
RARELY = replace(POLICY, creates_workspaces=True, expiry_interval_s=3_600.0)
ORDER = Order("ann", DELETE_METHOD, "they left", "", "c-1")
DAY_S = 86_400


def failed(number: int) -> shard_pb2.FoldMember:
    made = upsert(number)
    made.kind = shard_pb2.MEMBER_KIND_FAILED
    made.failure.CopyFrom(types_pb2.Failure(reason="MALFORMED_JSON", message="It ends too early."))
    made.raw.body = b"{"
    return made


async def fill(running: RunningNode, sender: Sender, first_sequence: int, workspace: str = W) -> None:
    changes = [fold(upsert(number, b"%d" % first_sequence)) for number in range(1, 30)]
    for offset, folds in enumerate((changes, [fold(failed(40)), fold(failed(41))], changes[:3])):
        await sender.send(batch := sub_batch(workspace, first_sequence + offset, folds, epoch=1))
        await sender.answered(batch)
    pause = Asked(PauseChange("github", True, ORDER), RequestMark(RequestKey("SetPause", "r1"), b"1"))
    key = WorkspaceKey(shard_of(workspace, SHARDS), workspace)
    await running.node.committer.submit(key, running.node.change_pauses, pause, change_count=1, byte_count=0)


def left(path: Path, workspace: str = W) -> dict[str, int]:
    """Rows of a workspace, by table."""
    connection = apsw.Connection(str(path / "store.db"), flags=apsw.SQLITE_OPEN_READONLY)
    counts = {
        table: connection.execute(f"SELECT count(*) FROM {table} WHERE workspace_id = ?", (workspace,)).get
        for table in tables_with(connection, "shard_id", "workspace_id")
    }
    connection.close()
    return {table: count for table, count in counts.items() if count}


async def swept(engine: SqliteEngine, clock: ManualClock, limit: int = 500) -> list[int]:
    """Steps until one finds nothing."""
    steps = []
    while (sweep := await engine.remove_expired(clock.now_us(), limit)).removed_count or not sweep.is_complete:
        steps.append(sweep.removed_count)
    return steps


async def is_clean(running: RunningNode) -> bool:
    auditor = SqliteAudit(running.engine.snapshot, running.node.clock, SHARDS)
    async for item in auditor.run(AuditOrder(checks=ALL_CHECKS, is_strict=True)):
        assert not isinstance(item, Finding), item
        if isinstance(item, AuditEnd):
            return item.is_clean
    return False


async def test_everything_goes_in_bounded_steps_and_nothing_of_others(tmp_path: Path) -> None:
    clock = ManualClock()
    async with running_node(tmp_path, RARELY, clock) as running, Sender(running.address) as sender:
        await fill(running, sender, 1)
        await fill(running, sender, 1, "other")
        of_other = left(tmp_path, "other")
        assert len(left(tmp_path)) >= 12

        deleted = await running.node.deletions.delete_workspace(W, Deletion("", ORDER), None)
        assert deleted == Deleted(29, clock.now_us() + 30 * DAY_S * 1_000_000)
        assert await is_clean(running)
        steps = await swept(running.engine, clock, limit=7)
        assert max(steps) <= 7 + 1
        assert left(tmp_path).keys() == {"workspace", "admin_action"}
        assert left(tmp_path, "other") == of_other
        assert await is_clean(running)
        clock.advance(61)
        await swept(running.engine, clock)
        assert await is_clean(running)
        async with running.engine.snapshot() as cursor:
            assert cursor.execute("SELECT count(*) FROM content").get == 29 + 2
            assert cursor.execute("SELECT count(*) FROM content_garbage").get == 0
        async with running.engine.view(KEY) as view:
            assert not await view.pauses()
            [deletion, _] = await view.admin_actions(AdminActionFilter(), "", 10)
        assert (deletion.actor, deletion.reason) == ("ann", "they left")
        assert deletion.detail == "29 files, 29 bytes, revision 29"


async def test_what_arrives_for_a_tombstone_is_ignored_and_its_name_comes_free(tmp_path: Path) -> None:
    clock = ManualClock()
    async with running_node(tmp_path, RARELY, clock) as running, Sender(running.address) as sender:
        await fill(running, sender, 1)
        await running.node.deletions.delete_workspace(W, Deletion("", ORDER), None)
        await swept(running.engine, clock)
        await sender.send(batch := sub_batch(W, 4, [fold(upsert(7)), fold(upsert(8))], epoch=1))
        await sender.answered(batch)
        async with running.engine.view(KEY) as view:
            [github] = await view.outcomes()
            assert github.counts == {Outcome.IGNORED: 2}
            assert not await view.list_files("/", "", 10)
        with pytest.raises(WorkspaceDeleted):
            await running.node.create_workspace(W)

        clock.advance(30 * DAY_S - 1)
        await swept(running.engine, clock)
        assert "workspace" in left(tmp_path)
        clock.advance(2)
        await swept(running.engine, clock)
        assert left(tmp_path).keys() <= {"admin_action"}
        row = await running.node.create_workspace(W)
        assert (row.revision, row.deleted_us) == (0, None)
        assert await is_clean(running)


async def test_deleting_again_and_by_mistake(tmp_path: Path) -> None:
    clock = ManualClock()
    async with running_node(tmp_path, RARELY, clock) as running, Sender(running.address) as sender:
        deletions = running.node.deletions
        with pytest.raises(WorkspaceNotFound):
            await deletions.delete_workspace(W, Deletion("", ORDER), None)
        await fill(running, sender, 1)
        async with running.engine.view(KEY) as view:
            workspace = await view.workspace()
        assert workspace is not None
        with pytest.raises(HistoryMismatch):
            await deletions.delete_workspace(W, Deletion("another", ORDER), None)
        assert "file" in left(tmp_path)
        mark = RequestMark(RequestKey(DELETE_METHOD, "r2"), b"2")
        first = await deletions.delete_workspace(W, Deletion(workspace.history_id, ORDER), mark)
        await swept(running.engine, clock)
        assert await deletions.delete_workspace(W, Deletion(workspace.history_id, ORDER), mark) == first
        clock.advance(60)
        assert await deletions.delete_workspace(W, Deletion("", ORDER), None) == Deleted(0, first.expires_us)


def test_no_table_of_workspaces_is_forgotten(tmp_path: Path) -> None:
    """Those that are kept are named; a table of a workspace that names it otherwise would be."""
    from relayfile.store.sqlite.schema import migrate

    connection = apsw.Connection(str(tmp_path / "store.db"))
    migrate(connection, tmp_path / "store.db")
    assert tables_with(connection, "shard_id", "workspace_id").keys() >= KEPT
    others = {"content", "content_garbage", "content_hold", "shard"}  # a hold ends with the last of its operations
    others |= {"outcome_total", "failure_total", "provider_seen_total"}
    known = {"meta", "schema_migrations", *others, *tables_with(connection, "shard_id", "workspace_id")}
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    connection.close()
    assert {table for table in tables if not table.startswith("sqlite_")} == known
