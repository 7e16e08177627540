"""Copies of a running node, verified, recorded, and restored with new histories."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio
import pytest

from relayfile.clock import SystemClock
from relayfile.errors import (
    BackupExists,
    CursorExpired,
    DataCorrupted,
    InvalidArgument,
    RelayfileError,
    RequestIdReused,
    StartRefused,
)
from relayfile.ids import IdSource
from relayfile.status import from_rpc_error
from relayfile.store.integrity.copy import MANIFEST_NAME
from relayfile.store.sqlite import backup
from relayfile.store.sqlite.restore import read_manifest, restore
from relayfile.v1 import admin_pb2, event_pb2, file_pb2
from tests.support.store_node import TestNode, started_nodes

FILES = {f"/docs/{number % 7}/{number}.txt": b"text %d" % number for number in range(300)}
NEW_ID = IdSource(SystemClock()).new_id


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[TestNode]:
    async with asyncio.timeout(60), started_nodes(tmp_path / "live") as [node]:
        await node.writer.create_workspace("acme")
        await node.writer.put("acme", FILES)
        yield node


async def copied(node: TestNode, **fields: object) -> list[admin_pb2.BackupResponse]:
    request = admin_pb2.BackupRequest(**fields)  # type: ignore[arg-type]  # named by the tests
    return [each async for each in node.client.admin.Backup(request, metadata=node.client.metadata)]


async def on_node(node: TestNode, name: str, request_id: str = "") -> admin_pb2.BackupResult:
    target = admin_pb2.BACKUP_TARGET_NODE_DIRECTORY
    return (await copied(node, target=target, directory_name=name, request_id=request_id, reason="nightly"))[-1].result


async def refusal(node: TestNode, **fields: object) -> RelayfileError:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await copied(node, **fields)
    return from_rpc_error(raised.value)


async def test_a_copy_is_streamed_with_its_workspaces_and_its_hash(node: TestNode) -> None:
    messages = await copied(node, target=admin_pb2.BACKUP_TARGET_STREAM)
    [workspace] = [each.workspace for each in messages if each.HasField("workspace")]
    assert (workspace.workspace_id, workspace.revision, workspace.totals.file_count) == ("acme", 300, 300)
    assert int.from_bytes(workspace.totals.digest, "big") == node.writer.trees["acme"].digest("/")
    data = b"".join(each.chunk.data for each in messages if each.HasField("chunk"))
    result = messages[-1].result
    assert result.size_bytes == len(data)
    assert result.sha256 == hashlib.sha256(data).digest()
    assert not list((node.database.parent / "backups").iterdir())


async def test_a_node_is_restored_as_it_was_with_new_histories(node: TestNode, tmp_path: Path) -> None:
    result = await on_node(node, "first")
    await node.writer.put("acme", {"/docs/later.txt": b"too late"})
    assert read_manifest(Path(result.location)).workspace_count == 1

    restored = restore(Path(result.location), tmp_path / "again" / "store-0", NEW_ID)
    assert restored.workspace_count == 1
    before = node.writer.trees["acme"].workspace.history_id
    async with started_nodes(tmp_path / "again") as [again]:
        client = again.client
        page = file_pb2.ListTreeRequest(workspace_id="acme", depth=10)
        files = [
            entry.file.path
            async for response in client.files.ListTree(page, metadata=client.metadata)
            for entry in response.entries
            if entry.HasField("file")
        ]
        assert files == sorted(FILES)
        events = event_pb2.ListEventsRequest(workspace_id="acme", after_revision=300, history_id=before)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await client.events.ListEvents(events, metadata=client.metadata)
        assert isinstance(from_rpc_error(raised.value), CursorExpired)
        checks = [admin_pb2.AUDIT_CHECK_DIGESTS, admin_pb2.AUDIT_CHECK_REVISIONS, admin_pb2.AUDIT_CHECK_CONTENT]
        audit = admin_pb2.AuditRequest(checks=checks)
        [end] = [each async for each in client.admin.Audit(audit, metadata=client.metadata)]
        assert (end.result.clean, end.result.file_count) == (True, 300)


async def test_a_repeat_answers_with_the_first_copy_and_names_are_taken_once(node: TestNode) -> None:
    first = await on_node(node, "first", request_id="r1")
    assert await on_node(node, "first", request_id="r1") == first
    target = admin_pb2.BACKUP_TARGET_NODE_DIRECTORY
    assert isinstance(await refusal(node, target=target, directory_name="first"), BackupExists)
    reused = await refusal(node, target=target, directory_name="second", request_id="r1")
    assert isinstance(reused, RequestIdReused)
    listed = await node.client.admin.ListAdminActions(
        admin_pb2.ListAdminActionsRequest(method="relayfile.v1.AdminService/Backup"), metadata=node.client.metadata
    )
    [action] = listed.actions
    assert (action.actor, action.reason, action.workspace_id) == ("test", "nightly", "")
    assert action.result == admin_pb2.ADMIN_ACTION_RESULT_SUCCEEDED
    assert first.sha256.hex() in action.detail


async def test_a_copy_is_one_moment_while_others_write(node: TestNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup, "PAGES_PER_STEP", 4)
    ending = asyncio.Event()

    async def write() -> None:
        number = 0
        while not ending.is_set():
            number += 1
            await node.writer.put("acme", {f"/docs/{number % 7}/{number % 40}.txt": b"%d" % number * 100})

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(write())
        messages = await copied(node)
        ending.set()
    [workspace] = [each.workspace for each in messages if each.HasField("workspace")]
    assert workspace.revision < node.writer.trees["acme"].revision
    assert messages[-1].HasField("result")


async def test_what_does_not_agree_with_itself_is_no_copy(node: TestNode) -> None:
    await node.alter("UPDATE directory SET digest = zeroblob(32) WHERE path = '/docs/3'")
    target = admin_pb2.BACKUP_TARGET_NODE_DIRECTORY
    assert isinstance(await refusal(node, target=target, directory_name="bad"), DataCorrupted)
    assert not list((node.database.parent / "backups").iterdir())


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"target": 9}, "target"),
        ({"target": admin_pb2.BACKUP_TARGET_NODE_DIRECTORY}, "directory_name"),
        ({"target": admin_pb2.BACKUP_TARGET_NODE_DIRECTORY, "directory_name": "../up"}, "directory_name"),
        ({"directory_name": "x"}, "directory_name"),
        ({"request_id": "r1"}, "request_id"),
        ({"node_index": 4}, "node_index"),
        ({"reason": "x" * 1_001}, "reason"),
    ],
)
async def test_bad_requests_are_named(node: TestNode, fields: dict[str, object], field: str) -> None:
    error = await refusal(node, **fields)
    assert isinstance(error, InvalidArgument)
    assert [violation.field for violation in error.violations] == [field]


async def test_a_restore_refuses_what_is_there_and_what_is_broken(node: TestNode, tmp_path: Path) -> None:
    copy = Path((await on_node(node, "first")).location)
    full = tmp_path / "full"
    full.mkdir()
    (full / "something").touch()
    with pytest.raises(StartRefused, match="not empty"):
        restore(copy, full, NEW_ID)
    with pytest.raises(StartRefused, match="not a copy"):
        restore(full, tmp_path / "new", NEW_ID)
    whole = (copy / "store.db").read_bytes()
    (copy / "store.db").write_bytes(whole[:-1] + b"!")
    with pytest.raises(DataCorrupted):
        restore(copy, tmp_path / "new", NEW_ID)
    assert not list((tmp_path / "new").iterdir())
    (copy / MANIFEST_NAME).write_text((copy / MANIFEST_NAME).read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(StartRefused, match="release"):
        restore(copy, tmp_path / "new", NEW_ID)
