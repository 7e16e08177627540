"""The Python client against a real node, also through a connection that is cut again and again."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relayfile.auth import ALL, EVERY_SCOPE
from relayfile.client import (
    START,
    Client,
    ClientLimits,
    Cursor,
    CursorExpired,
    Delete,
    Directory,
    EventFilter,
    EventType,
    File,
    FileNotFound,
    InvalidPath,
    Unauthenticated,
    Workspace,
    WorkspaceNotFound,
)
from tests.support.cutting_proxy import CuttingProxy, cutting_proxy
from tests.support.store_node import TestNode, started_nodes

W = "acme"
LIMITS = ClientLimits(call_timeout_s=20.0, retry_wait_first_s=0.01, retry_wait_max_s=0.05)
LARGE = bytes(range(256)) * 12_000  # 3 MB: three chunks
CONTENTS = {f"/notes/{n:04}.txt": b"%d" % n * 300 for n in range(800)} | {"/large.bin": LARGE, "/z/empty": b""}


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[TestNode]:
    async with started_nodes(tmp_path) as nodes:
        await nodes[0].writer.create_workspace(W)
        await nodes[0].writer.put(W, CONTENTS)
        yield nodes[0]


def token_of(node: TestNode) -> str:
    return node.signer.mint("test", workspaces=ALL, ttl_s=3600, scopes=(EVERY_SCOPE,))


@pytest.fixture
async def workspace(node: TestNode) -> AsyncIterator[Workspace]:
    async with Client(node.address, token_of(node), limits=LIMITS) as client:
        yield client.workspace(W)


@pytest.fixture
async def cut(node: TestNode) -> AsyncIterator[tuple[CuttingProxy, Workspace]]:
    """Every connection ends after 1.5 MB: more than the largest message, less than what is read."""
    async with (
        cutting_proxy(node.address, 1_500_000) as proxy,
        Client(proxy.address, token_of(node), limits=LIMITS) as client,
    ):
        yield proxy, client.workspace(W)


class TestReading:
    async def test_one_file_and_its_metadata(self, workspace: Workspace) -> None:
        content = await workspace.files.read("/notes/0007.txt")
        assert content.data == CONTENTS["/notes/0007.txt"]
        assert content.file == await workspace.files.get("notes/0007.txt")
        assert (await workspace.files.read("/large.bin")).data == LARGE
        assert (await workspace.files.read("/z/empty")).data == b""

    async def test_lists_trees_and_digests(self, workspace: Workspace, node: TestNode) -> None:
        assert [file.path async for file in workspace.files.list()] == sorted(CONTENTS)
        top = [entry async for entry in workspace.files.tree(depth=1)]
        assert [(type(entry), entry.path) for entry in top] == [
            (File, "/large.bin"),
            (Directory, "/notes"),
            (Directory, "/z"),
        ]
        digest = await workspace.files.digest("/notes")
        assert digest.directory.totals.file_count == 800
        assert int.from_bytes(digest.directory.totals.digest, "big") == node.writer.trees[W].digest("/notes")

    async def test_many_in_order_without_what_is_missing(self, workspace: Workspace) -> None:
        asked = ["/z/empty", "/not/there", "/large.bin", *sorted(CONTENTS)]
        found = [(each.file.path, each.data) async for each in workspace.files.read_many(asked)]
        assert found == [(path, CONTENTS[path]) for path in asked if path in CONTENTS]
        assert [each async for each in workspace.files.read_many([])] == []

    async def test_errors_are_typed(self, workspace: Workspace, node: TestNode) -> None:
        with pytest.raises(FileNotFound) as missing:
            await workspace.files.read("/not/there")
        assert missing.value.path == "/not/there"
        async with Client(node.address, token_of(node)) as client:
            with pytest.raises(WorkspaceNotFound):
                await client.workspaces.get("nobody")
        async with Client(node.address) as client:
            with pytest.raises(Unauthenticated):
                await client.workspaces.get(W)


class TestCutConnections:
    async def test_an_export_yields_every_file_once(self, cut: tuple[CuttingProxy, Workspace]) -> None:
        proxy, workspace = cut
        proxy.cut_after_bytes = 3_500_000
        found = [(each.file.path, each.data) async for each in workspace.files.export()]
        assert found == sorted(CONTENTS.items())
        proxy.cut_after_bytes = 700_000
        small = [each.file.path async for each in workspace.files.export("/notes")]
        assert small == sorted(path for path in CONTENTS if path.startswith("/notes/"))

    async def test_a_large_file_goes_on_where_it_was_cut(self, cut: tuple[CuttingProxy, Workspace]) -> None:
        proxy, workspace = cut
        assert (await workspace.files.read("/large.bin")).data == LARGE
        assert proxy.cuts >= 1

    async def test_many_files_come_once_each(self, cut: tuple[CuttingProxy, Workspace]) -> None:
        proxy, workspace = cut
        proxy.cut_after_bytes = 3_500_000
        asked = ["/large.bin", *sorted(CONTENTS), "/large.bin"]
        found = [(each.file.path, each.data) async for each in workspace.files.read_many(asked)]
        assert found == [(path, CONTENTS[path]) for path in asked]
        assert proxy.cuts >= 1

    async def test_a_listing_in_small_pages(self, cut: tuple[CuttingProxy, Workspace]) -> None:
        proxy, workspace = cut
        proxy.cut_after_bytes = 30_000
        assert [entry.path async for entry in workspace.files.tree(depth=0, page_size=50)] == sorted(CONTENTS)
        assert proxy.cuts >= 1


class TestWatching:
    async def test_every_event_once_over_cuts(self, cut: tuple[CuttingProxy, Workspace], node: TestNode) -> None:
        proxy, workspace = cut
        proxy.cut_after_bytes = 60_000
        seen: list[int] = []
        async with workspace.events.watch(START) as watch:
            async for event in watch:
                seen.append(event.revision)
                if len(seen) == len(CONTENTS):
                    await node.writer.put(W, {f"/more/{n}": b"x" for n in range(50)})
                if len(seen) == len(CONTENTS) + 50:
                    break
            cursor = watch.cursor
        assert seen == list(range(1, len(CONTENTS) + 51))
        assert proxy.cuts >= 1
        assert cursor == await workspace.events.present()

    async def test_from_now_on_and_on_another_day(self, workspace: Workspace, node: TestNode) -> None:
        async with workspace.events.watch() as watch:
            await node.writer.put(W, {"/new/a": b"1"})
            event = await anext(aiter(watch))
        assert (event.path, event.type) == ("/new/a", EventType.FILE_CREATED)
        await node.writer.put(W, {"/new/b": b"2"})
        assert [each.path async for each in workspace.events.list(watch.cursor)] == ["/new/b"]
        async with workspace.events.watch(watch.cursor) as later:
            assert (await anext(aiter(later))).path == "/new/b"

    async def test_another_history_has_expired(self, workspace: Workspace) -> None:
        with pytest.raises(CursorExpired):
            async with workspace.events.watch(Cursor(3, "of another life")) as watch:
                await anext(aiter(watch))
        with pytest.raises(CursorExpired):
            async for _ in workspace.events.list(Cursor(3, "of another life")):
                pass

    async def test_it_ends_when_it_is_cancelled(self, workspace: Workspace) -> None:
        async def forever() -> None:
            async with workspace.events.watch() as watch:
                async for _ in watch:
                    pass

        task = asyncio.create_task(forever())
        await asyncio.sleep(0.05)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait_for(task, 5)
        assert task.cancelled()

    async def test_the_filter_is_the_nodes(self, workspace: Workspace, node: TestNode) -> None:
        await node.writer.put(W, {"/new/a": b"1", "/other/b": b"2"})
        chosen = EventFilter(path_globs=("/new/**",))
        assert [each.path async for each in workspace.events.list(START, chosen)] == ["/new/a"]


async def test_a_path_that_utf8_cannot_write_is_refused_as_every_other(workspace: Workspace) -> None:
    files, wrong = workspace.files, "/notes/\ud800"
    with pytest.raises(InvalidPath, match="surrogate"):
        await files.get(wrong)
    with pytest.raises(InvalidPath, match="surrogate"):
        await files.write(wrong, b"")
    with pytest.raises(InvalidPath, match="surrogate"):
        await files.move("/large.bin", wrong, force=True)
    with pytest.raises(InvalidPath, match="surrogate"):
        await files.write_many([Delete(wrong)])
    with pytest.raises(InvalidPath, match="surrogate"):
        _ = [each async for each in files.read_many(["/large.bin", wrong])]
