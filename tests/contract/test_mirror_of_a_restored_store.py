"""A mirror whose store was restored from a copy: a new history, fewer revisions, other files than it has."""

import os
import pathlib

from relayfile.clock import SystemClock
from relayfile.ids import IdSource
from relayfile.store.sqlite.restore import restore
from relayfile.syncd.audit import Verdict
from relayfile.syncd.progress import Via
from relayfile.syncd.shown import MirrorState
from relayfile.v1 import admin_pb2
from tests.fakes.mirror import tree_of
from tests.fakes.registry import add, serving, until
from tests.support.store_node import TestNode, started_nodes

FILES = {f"/notes/{index % 7}/{index:03}.txt": os.urandom(300) for index in range(200)}
LATER = {"/notes/0/000.txt": b"written after the copy", "/late/new.txt": b"made after the copy"}
GONE = "/notes/1/001.txt"
MANY = {f"/late/{index}.txt": f"made after the copy: {index}".encode() for index in range(300)}


async def copied(node: TestNode) -> pathlib.Path:
    """A copy of the node as it is now."""
    order = admin_pb2.BackupRequest(
        target=admin_pb2.BACKUP_TARGET_NODE_DIRECTORY, directory_name="first", reason="a test"
    )
    messages = [each async for each in node.client.admin.Backup(order, metadata=node.client.metadata)]
    return pathlib.Path(messages[-1].result.location)


def restored(copy: pathlib.Path, directory: pathlib.Path) -> None:
    """As `relayfile restore` makes a data directory of the copy."""
    restore(copy, directory / "store-0", IdSource(SystemClock()).new_id)


def trash_of(directory: pathlib.Path) -> set[bytes]:
    """The bytes of everything in the mirror's trash."""
    return {path.read_bytes() for path in (directory / "mirror" / ".relayfile" / "trash").rglob("*") if path.is_file()}


async def test_it_becomes_what_the_copy_has_and_what_it_had_more_is_kept_aside(tmp_path: pathlib.Path) -> None:
    async with started_nodes(tmp_path / "before", mark_interval_s=1.0) as [node]:
        await node.writer.create_workspace("acme")
        await node.writer.put("acme", FILES)
        async with serving(node.address, tmp_path, metadata=node.client.metadata) as registry:
            mirror = add(registry, tmp_path)
            await until(lambda: mirror.seen.state is MirrorState.FOLLOWING)
            copy = await copied(node)
            await node.writer.put("acme", LATER)
            await node.writer.delete("acme", [GONE])
            await until(lambda: tree_of(tmp_path).get("/late/new.txt") == LATER["/late/new.txt"])
            # It may end before its journal has heard of this removal, as after a kill: the file comes back.
            await until(lambda: GONE not in tree_of(tmp_path))
    restored(copy, tmp_path / "after")

    async with (
        started_nodes(tmp_path / "after", mark_interval_s=1.0) as [again],
        serving(again.address, tmp_path, metadata=again.client.metadata) as registry,
    ):
        [mirror] = registry
        await until(lambda: tree_of(tmp_path) == FILES, timeout_s=20)
        await until(lambda: mirror.seen.state is MirrorState.FOLLOWING, timeout_s=20)
        progress = await mirror.pull(full=False, via=Via.ANY)
        assert mirror.seen.audited is not None
        assert mirror.seen.audited.result.verdict is Verdict.EXACT, progress
        assert progress.written[0] == 0, "it was exact already"
    assert set(LATER.values()) <= trash_of(tmp_path), "what only the mirror had is in its trash"


async def test_it_halts_when_the_copy_lacks_most_of_what_it_has_and_goes_on_when_told_to(
    tmp_path: pathlib.Path,
) -> None:
    async with started_nodes(tmp_path / "before", mark_interval_s=1.0) as [node]:
        await node.writer.create_workspace("acme")
        await node.writer.put("acme", FILES)
        copy = await copied(node)
        await node.writer.put("acme", MANY)
        async with serving(node.address, tmp_path, metadata=node.client.metadata) as registry:
            mirror = add(registry, tmp_path)
            await until(lambda: mirror.seen.state is MirrorState.FOLLOWING)
    restored(copy, tmp_path / "after")

    async with (
        started_nodes(tmp_path / "after", mark_interval_s=1.0) as [again],
        serving(again.address, tmp_path, metadata=again.client.metadata) as registry,
    ):
        [mirror] = registry
        await until(lambda: mirror.seen.state is MirrorState.HALTED, timeout_s=20)
        assert tree_of(tmp_path) == FILES | MANY, "nothing goes before somebody has looked at it"
        halt = mirror.seen.halt
        assert halt is not None
        assert halt.plan is not None
        assert (halt.plan.rule, halt.plan.delete_count, halt.plan.tracked_count) == ("OVER_HALF", 300, 500)
        await mirror.approve_deletes(halt.plan.plan_id)
        await until(lambda: mirror.seen.state is MirrorState.FOLLOWING, timeout_s=20)
        assert tree_of(tmp_path) == FILES
    assert set(MANY.values()) <= trash_of(tmp_path)
