"""Sums of what a caller may read in part: exactly of the revision that they name, whatever is committed meanwhile, with
no snapshot held while a turn is waited for, and never before events."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from relayfile.auth import EVERY_SCOPE, Principal, set_current_principal
from relayfile.clock import ManualClock, SystemClock
from relayfile.store.access import PartialTotals, ReadAccess
from relayfile.store.engine import WorkspaceKey
from relayfile.store.plan import digest
from relayfile.store.servicers.event_watch import EventWatch
from relayfile.store.servicers.export import ExportLimits, TreeExport
from relayfile.store.servicers.reading import Reading
from relayfile.store.servicers.tree_digest import TreeDigest
from relayfile.store.sqlite.view import SqliteView
from relayfile.store.turns import SHARED_ROWS_MAX, LoopTurns
from relayfile.v1 import event_pb2, file_pb2, types_pb2
from tests.support.store_node import LIMITS, NoDeadline, TestNode, started_nodes

W = "acme"
EVE = Principal(subject="eve", workspaces=frozenset({W}), scopes=(EVERY_SCOPE,), expires_at_us=1 << 60)
DIRECTORIES = ("/a", "/a/b", "/a/b/c", "/d", "/d/e", "/d/f")
FILES = 5 * SHARED_ROWS_MAX // 2
"""Of the largest directory: several pages."""


class SharedTurns(LoopTurns):
    """Of a node that others call all the time. While a turn is waited for, `meanwhile` happens."""

    def __init__(self) -> None:
        super().__init__(ManualClock(), self._rest)
        self.called()
        self.rest_count = 0
        self.meanwhile: Callable[[], Awaitable[None]] | None = None

    async def _rest(self, seconds: float) -> None:
        self.rest_count += 1
        await asyncio.sleep(0)
        if self.meanwhile is not None:
            await self.meanwhile()


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[TestNode]:
    """In every directory there is a file that Eve may not read."""
    async with started_nodes(tmp_path) as [started]:
        await started.writer.create_workspace(W)
        names = {f"/a/{number:05d}": b"%d" % number for number in range(FILES)}
        await started.writer.put(W, names | {f"{each}/seen": each.encode() for each in DIRECTORIES})
        request = file_pb2.WriteFilesRequest(workspace_id=W)
        semantics = types_pb2.Semantics(permissions=["agent:alice"])
        for each in DIRECTORIES:
            request.items.add(write=file_pb2.WriteItem(path=f"{each}/hidden", content=b"x", semantics=semantics))
        await started.client.files.WriteFiles(request, metadata=started.client.metadata)
        set_current_principal(EVE)
        yield started


def reading(node: TestNode, turns: LoopTurns, directories_max: int = 1_000) -> Reading:
    return Reading(node.engine, node.feed, node.ownership, 1.0, PartialTotals(directories_max), turns=turns)


async def put(node: TestNode, path: str, content: bytes) -> None:
    request = file_pb2.WriteFileRequest(workspace_id=W, path=path, content=content, force=True)
    await node.client.files.WriteFile(request, metadata=node.client.metadata)


class Oracle:
    """What Eve may read below `/` at each revision."""

    def __init__(self, node: TestNode) -> None:
        self.node = node
        self.files = {path: held.content for path, held in node.writer.trees[W].files.items()}
        self.at: dict[int, tuple[int, int, int]] = {}

    async def note(self) -> None:
        async with self.node.engine.view(self.node.ownership.local_key(W)) as view:
            workspace = await view.workspace()
        assert workspace is not None
        terms = (digest.file_term(path, sha256(content).digest()) for path, content in self.files.items())
        total = len(self.files), sum(map(len, self.files.values())), sum(terms) % 2**256
        self.at[workspace.revision] = total

    async def write(self, path: str, content: bytes) -> None:
        await put(self.node, path, content)
        self.files[path] = content
        await self.note()


@pytest.mark.parametrize("seed", range(12))
async def test_a_total_is_that_of_the_revision_that_it_names(node: TestNode, seed: int) -> None:
    draw = random.Random(seed)
    turns, oracle = SharedTurns(), Oracle(node)
    here = reading(node, turns, draw.choice([0, 2, 1_000]))
    await oracle.note()
    changes = iter(range(draw.choice([1, 6, 25])))

    async def change() -> None:
        if draw.random() < 0.5 and (number := next(changes, None)) is not None:
            where = draw.choice([*DIRECTORIES, "/a", "/new"])
            await oracle.write(f"{where}/{draw.choice(['seen', '00000', '00200', 'z'])}", b"%d %d" % (seed, number))

    turns.meanwhile = change
    for _ in range(4):
        async with here.described(node.ownership.local_key(W), ReadAccess.current(), ["/"]) as (snapshot, [tree]):
            revision = snapshot.workspace.revision
        assert tree.partial
        assert tree.row is not None
        assert (tree.row.file_count, tree.row.total_bytes, tree.row.digest) == oracle.at[revision]
        async with here.described(node.ownership.local_key(W), ReadAccess.current(), ["/d", "/a"]) as (snapshot, trees):
            sight = await ReadAccess.current().sight(snapshot.view)
            fresh = PartialTotals(0)
            turns.meanwhile = None
            assert trees == [await fresh.tree(sight, path, LoopTurns(ManualClock())) for path in ("/d", "/a")]
            turns.meanwhile = change
        await oracle.write("/d/e/more", b"%d" % revision)


class OpenViews:
    """Counts the snapshots that are open."""

    def __init__(self, node: TestNode, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        view = node.engine.view

        @asynccontextmanager
        async def counted(key: WorkspaceKey) -> AsyncIterator[SqliteView]:
            async with view(key) as made:
                self.count += 1
                try:
                    assert isinstance(made, SqliteView)
                    yield made
                finally:
                    self.count -= 1

        monkeypatch.setattr(node.engine, "view", counted)


async def test_no_snapshot_is_held_while_a_turn_is_waited_for(node: TestNode, monkeypatch: pytest.MonkeyPatch) -> None:
    views, turns = OpenViews(node, monkeypatch), SharedTurns()
    held: list[int] = []

    async def look() -> None:
        held.append(views.count)

    turns.meanwhile = look

    async def start() -> AsyncIterator[file_pb2.ExportTreeRequest]:
        yield file_pb2.ExportTreeRequest(start=file_pb2.ExportStart(workspace_id=W), have_complete=True)

    export = TreeExport(reading(node, turns), ExportLimits(1 << 30, 8, LIMITS.message_bytes_target))
    answers = [answer async for answer in export.messages(start(), NoDeadline())]
    assert answers[-1].end.totals == answers[0].totals
    assert answers[-1].end.file_count == answers[0].totals.file_count == FILES + len(DIRECTORIES)
    exported, turns.rest_count = turns.rest_count, 0
    request = file_pb2.GetTreeDigestRequest(workspace_id=W, partial=True)
    answer = await TreeDigest(reading(node, turns)).get(request, NoDeadline())
    assert answer.directory.totals == answers[0].totals
    assert min(exported, turns.rest_count) > len(DIRECTORIES)
    assert held
    assert not any(held)


async def test_events_do_not_wait_for_totals(node: TestNode) -> None:
    turns = SharedTurns()
    here = reading(node, turns)
    watch = EventWatch(here, SystemClock(), 10.0, node.node.holds)
    request = event_pb2.WatchEventsRequest(
        workspace_id=W, after_revision=-1, partial_digests=True, mark_paths=["/", "/d"]
    )
    request.filter.types.append(event_pb2.EVENT_TYPE_FILE_UPDATED)
    async with asyncio.timeout(60), aclosing(watch.messages(request)) as messages:
        async with turns.piece():  # of somebody else: no total is finished before it ends
            reader = asyncio.ensure_future(anext(messages))
            await asyncio.sleep(0)
            for number in range(3):
                await put(node, "/d/seen", b"%d" % number)
                message = await reader
                assert [event.path for event in message.events] == ["/d/seen"]
                assert not message.mark.roots
                reader = asyncio.ensure_future(anext(messages))
        while not (message := await reader).mark.roots:
            reader = asyncio.ensure_future(anext(messages))
        assert [root.partial for root in message.mark.roots] == [True, True]
        assert message.mark.roots[0].totals.file_count == FILES + len(DIRECTORIES)
        async with here.described(node.ownership.local_key(W), ReadAccess.current(), ["/"]) as (snapshot, [tree]):
            assert message.mark.revision == snapshot.workspace.revision
            assert tree.row is not None
            assert message.mark.roots[0].totals.digest == digest.to_bytes(tree.row.digest)


def names(tasks: set["asyncio.Task[Any]"]) -> set[str]:
    return {task.get_name() for task in tasks}


async def test_a_stream_that_ends_leaves_nothing_behind(node: TestNode) -> None:
    turns = SharedTurns()
    watch = EventWatch(reading(node, turns), SystemClock(), 10.0, node.node.holds)
    request = event_pb2.WatchEventsRequest(workspace_id=W, after_revision=-1, partial_digests=True)
    before = asyncio.all_tasks()
    async with turns.piece():
        reader = asyncio.ensure_future(anext(watch.messages(request)))
        for _ in range(10):
            await asyncio.sleep(0)
        assert "store-mark-totals" in names(asyncio.all_tasks() - before)
        reader.cancel()
        await asyncio.wait((reader,))
        assert "store-mark-totals" not in names(asyncio.all_tasks() - before)
