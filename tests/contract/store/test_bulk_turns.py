"""What reads much for one caller goes in pieces, one at a time of all that a node does: listings, and sums of what a
caller may read."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from relayfile.auth import EVERY_SCOPE, Principal, set_current_principal
from relayfile.clock import ManualClock
from relayfile.store.access import ReadAccess
from relayfile.store.servicers.export import ExportLimits, TreeExport
from relayfile.store.servicers.reading import Reading
from relayfile.store.servicers.tree_listing import SLICE_ENTRIES, TreeListing
from relayfile.store.turns import SHARED_ROWS_MAX, LoopTurns
from relayfile.v1 import file_pb2, types_pb2
from tests.support.store_node import LIMITS, NoDeadline, TestNode, started_nodes
from tests.support.tokens import EVERYBODY

W = "acme"
FILES = 2 * SLICE_ENTRIES
EVE = Principal(subject="eve", workspaces=frozenset({W}), scopes=(EVERY_SCOPE,), expires_at_us=1 << 60)


class NotedTurns(LoopTurns):
    """Counts pieces. Time stands still: whoever called last calls all the time."""

    def __init__(self) -> None:
        super().__init__(ManualClock(), self._rest)
        self.piece_count = 0

    async def _rest(self, seconds: float) -> None:
        await asyncio.sleep(0)

    @asynccontextmanager
    async def piece(self, own_s: float | None = None) -> AsyncIterator[None]:
        async with super().piece(own_s):
            self.piece_count += 1
            yield


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[TestNode]:
    """With a file that Eve may not read, so that nothing above it is hers whole."""
    async with started_nodes(tmp_path) as [started]:
        await started.writer.create_workspace(W)
        await started.writer.put(W, {f"/notes/{number:05d}.md": b"%d" % number for number in range(FILES)})
        hidden = types_pb2.Semantics(permissions=["agent:alice"])
        request = file_pb2.WriteFilesRequest(workspace_id=W)
        request.items.add(write=file_pb2.WriteItem(path="/notes/hidden.md", content=b"x", semantics=hidden))
        await started.client.files.WriteFiles(request, metadata=started.client.metadata)
        yield started


def reading(node: TestNode, turns: LoopTurns) -> Reading:
    return Reading(node.engine, node.feed, node.ownership, 1.0, turns=turns)


async def entry_counts(node: TestNode, turns: LoopTurns) -> list[int]:
    """The entries of each page, of a caller that asks for large ones."""
    set_current_principal(EVERYBODY)
    request = file_pb2.ListTreeRequest(workspace_id=W, page_size=FILES)
    listing = TreeListing(reading(node, turns), FILES, FILES)
    return [len(page.entries) async for page in listing.pages(request, NoDeadline())]


async def test_a_listing_does_not_rest_for_itself_but_for_others(node: TestNode) -> None:
    turns = NotedTurns()
    assert sum(await entry_counts(node, turns)) == FILES
    alone, turns.piece_count = turns.piece_count, 0
    assert alone == FILES // SLICE_ENTRIES, "all but the first rows"
    turns.called = lambda: -1.0  # type: ignore[method-assign]  # others called besides the listing
    assert sum(await entry_counts(node, turns)) == FILES
    assert turns.piece_count >= FILES // SHARED_ROWS_MAX


async def test_small_listings_wait_for_no_turn(node: TestNode) -> None:
    turns = NotedTurns()
    set_current_principal(EVERYBODY)
    listing = TreeListing(reading(node, turns), FILES, FILES)
    request = file_pb2.ListTreeRequest(workspace_id=W, path="/", depth=1)
    async with turns.piece(), asyncio.timeout(20):
        assert [len(page.entries) async for page in listing.pages(request, NoDeadline())] == [1]


async def test_a_sum_of_what_a_caller_may_read_leaves_turns_to_others(node: TestNode) -> None:
    """Also the one at the end of an export, whose own rows were a piece."""
    turns = NotedTurns()
    here = reading(node, turns)
    set_current_principal(EVE)
    turns.called()
    others = 0

    async def work() -> None:
        nonlocal others
        while True:
            async with turns.piece():
                others += 1

    async def start() -> AsyncIterator[file_pb2.ExportTreeRequest]:
        yield file_pb2.ExportTreeRequest(start=file_pb2.ExportStart(workspace_id=W), have_complete=True)

    working = asyncio.ensure_future(work())
    try:
        async with asyncio.timeout(60):
            async with here.snapshot(node.ownership.local_key(W)) as (view, _):
                tree = await here.totals.tree(await ReadAccess.current().sight(view), "/", turns)
            assert tree.row is not None
            assert (tree.row.file_count, tree.partial) == (FILES, True)
            assert others >= FILES // SHARED_ROWS_MAX - 1
            export = TreeExport(reading(node, turns), ExportLimits(1 << 30, 8, LIMITS.message_bytes_target))
            messages = [message async for message in export.messages(start(), NoDeadline())]
            assert messages[-1].end.totals.file_count == messages[-1].end.file_count == FILES
    finally:
        working.cancel()
        await asyncio.wait((working,))
