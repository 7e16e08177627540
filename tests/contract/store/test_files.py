"""FileService's reads over gRPC, on a real engine."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from relayfile import errors
from relayfile.status import from_rpc_error
from relayfile.store.plan.digest import file_term
from relayfile.store.servicers.file_service import ReadLimits
from relayfile.v1 import file_pb2
from tests.support.store_node import LIMITS, Client, TestNode, started_nodes

W = "acme"
LARGE = bytes(range(256)) * 12_000  # 3 MB: three chunks


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[TestNode]:
    async with started_nodes(tmp_path) as nodes:
        yield nodes[0]


@pytest.fixture
async def tree(node: TestNode) -> TestNode:
    await node.writer.create_workspace(W)
    await node.writer.put(W, {f"/github/issues/{n}.json": b"%d" % n * (n % 50 + 1) for n in range(300)})
    await node.writer.put(W, {"/github.txt": b"beside", "/github/large.bin": LARGE, "/empty": b"", "/ä/ö.json": b"{}"})
    return node


async def refused(call: "grpc.aio.UnaryUnaryCall[Any, Any] | AsyncIterable[Any]") -> errors.RelayfileError:
    async def finish() -> None:
        if isinstance(call, grpc.aio.UnaryUnaryCall):
            await call
        else:
            async for _ in call:
                pass

    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await finish()
    return from_rpc_error(raised.value)


async def listed(client: Client, **fields: object) -> list[file_pb2.ListTreeResponse]:
    request = file_pb2.ListTreeRequest(workspace_id=W, **fields)  # type: ignore[arg-type]
    return [page async for page in client.files.ListTree(request, metadata=client.metadata)]


def paths_of(pages: Iterable[file_pb2.ListTreeResponse]) -> list[str]:
    return [
        entry.file.path if entry.HasField("file") else entry.directory.path + "/"
        for page in pages
        for entry in page.entries
    ]


class TestListTree:
    async def test_every_file_below_a_directory_by_path(self, tree: TestNode) -> None:
        expected = tree.writer.trees[W]
        assert paths_of(await listed(tree.client)) == sorted(expected.files)
        assert paths_of(await listed(tree.client, path="/github")) == expected.below("/github")
        assert paths_of(await listed(tree.client, path="github/issues/")) == expected.below("/github/issues")

    async def test_pages_have_the_asked_size_and_tokens_that_continue(self, tree: TestNode) -> None:
        expected = sorted(tree.writer.trees[W].files)
        pages = await listed(tree.client, page_size=70)
        assert [len(page.entries) for page in pages] == [70, 70, 70, 70, 24]
        assert not pages[-1].page_token
        for index, page in enumerate(pages[:-1]):
            rest = await listed(tree.client, page_size=100, page_token=page.page_token)
            assert paths_of(rest) == expected[70 * (index + 1) :]
        assert {page.revision for page in pages} == {tree.writer.trees[W].revision}
        assert {page.history_id for page in pages} == {tree.writer.trees[W].workspace.history_id}

    async def test_a_depth_shows_directories_with_totals(self, tree: TestNode) -> None:
        pages = await listed(tree.client, depth=2)
        assert paths_of(pages) == [
            "/empty", "/github/", "/github.txt", "/github/issues/", "/github/large.bin", "/ä/", "/ä/ö.json",
        ]  # fmt: skip
        github = pages[0].entries[1].directory
        expected = tree.writer.trees[W]
        assert github.totals.file_count == 301
        assert github.totals.digest == expected.digest("/github").to_bytes(32, "big")
        assert github.entry_count == 2
        assert paths_of(await listed(tree.client, depth=2, page_size=3)) == paths_of(pages)

    async def test_a_file_lists_as_itself_and_nothing_as_nothing(self, tree: TestNode) -> None:
        assert paths_of(await listed(tree.client, path="/github.txt")) == ["/github.txt"]
        assert paths_of(await listed(tree.client, path="/nothing")) == []
        assert len(await listed(tree.client, path="/nothing")) == 1

    async def test_metadata_is_complete(self, tree: TestNode) -> None:
        file = (await listed(tree.client, path="/github/issues/7.json"))[0].entries[0].file
        held = tree.writer.trees[W].files["/github/issues/7.json"]
        assert (file.revision, file.content_sha256, file.size_bytes) == (held.revision, held.sha256, 8)
        assert (file.content_type, file.provider, file.provider_object_id) == ("application/json", "github", "issue/8")
        assert file.modify_time.seconds > 1_700_000_000
        assert file.origin == 1

    @pytest.mark.parametrize("tampered", ["x", "AAAA", None])
    async def test_a_token_of_other_arguments_is_refused(self, tree: TestNode, tampered: str | None) -> None:
        token = (await listed(tree.client, page_size=10))[0].page_token
        request = file_pb2.ListTreeRequest(
            workspace_id=W, path="/" if tampered else "/github", page_token=tampered or token
        )
        error = await refused(tree.client.files.ListTree(request, metadata=tree.client.metadata))
        assert isinstance(error, errors.PageTokenInvalid)

    async def test_all_that_is_wrong_is_named_at_once(self, tree: TestNode) -> None:
        request = file_pb2.ListTreeRequest(path="/a/../b", depth=-1, page_size=-1, min_revision=-1)
        error = await refused(tree.client.files.ListTree(request, metadata=tree.client.metadata))
        assert isinstance(error, errors.InvalidArgument)
        assert [violation.field for violation in error.violations] == [
            "workspace_id", "path", "depth", "page_size", "min_revision",
        ]  # fmt: skip

    async def test_a_commit_between_slices_ends_the_page_early_and_loses_nothing(self, node: TestNode) -> None:
        await node.writer.create_workspace(W)
        await node.writer.put(W, {f"/d/{n:05}": b"x" for n in range(6_000)})
        done = asyncio.Event()

        async def write() -> None:
            number = 0
            while not done.is_set():
                number += 1
                await node.writer.put(W, {f"/other/{number}": b"y"})

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(write())
            pages = await listed(node.client, path="/d")
            done.set()
        assert paths_of(pages) == [f"/d/{n:05}" for n in range(6_000)]
        revisions = [page.revision for page in pages]
        assert revisions == sorted(revisions)


class TestGetFile:
    async def test_one_file(self, tree: TestNode) -> None:
        request = file_pb2.GetFileRequest(workspace_id=W, path="ä/ö.json")
        answer = await tree.client.files.GetFile(request, metadata=tree.client.metadata)
        assert answer.file.path == "/ä/ö.json"
        assert answer.history_id == tree.writer.trees[W].workspace.history_id

    async def test_missing_files_and_workspaces(self, tree: TestNode) -> None:
        get = tree.client.files.GetFile
        error = await refused(get(file_pb2.GetFileRequest(workspace_id=W, path="/x"), metadata=tree.client.metadata))
        assert isinstance(error, errors.FileNotFound)
        for other in ("nowhere", "_app/x"):
            request = file_pb2.GetFileRequest(workspace_id=other, path="/x")
            error = await refused(get(request, metadata=tree.client.metadata))
            assert isinstance(error, errors.WorkspaceNotFound)

    async def test_min_revision_is_waited_for(self, tree: TestNode) -> None:
        revision = tree.writer.trees[W].revision
        request = file_pb2.GetFileRequest(workspace_id=W, path="/new", min_revision=revision + 1)
        waiting = asyncio.ensure_future(tree.client.files.GetFile(request, metadata=tree.client.metadata, timeout=5))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        await tree.writer.put(W, {"/new": b"!"})
        assert (await waiting).file.revision == revision + 1

    async def test_a_revision_that_does_not_come_ends_at_the_deadline(self, tree: TestNode) -> None:
        request = file_pb2.GetFileRequest(workspace_id=W, path="/empty", min_revision=10_000)
        error = await refused(tree.client.files.GetFile(request, metadata=tree.client.metadata, timeout=0.2))
        assert isinstance(error, errors.DeadlineExpired)

    async def test_another_workspaces_token_is_refused(self, tree: TestNode) -> None:
        stranger = tree.caller(["elsewhere"])
        request = file_pb2.GetFileRequest(workspace_id=W, path="/empty")
        error = await refused(stranger.files.GetFile(request, metadata=stranger.metadata))
        assert isinstance(error, errors.PermissionDenied)
        await stranger.channel.close()

    async def test_many_at_once(self, tree: TestNode) -> None:
        asked = ["/empty", "/none", "github.txt", "/github/issues/3.json"]
        request = file_pb2.BatchGetFilesRequest(workspace_id=W, paths=asked)
        answer = await tree.client.files.BatchGetFiles(request, metadata=tree.client.metadata)
        assert [file.path for file in answer.files] == ["/empty", "/github.txt", "/github/issues/3.json"]
        assert list(answer.missing_paths) == ["/none"]
        assert answer.revision == tree.writer.trees[W].revision
        request = file_pb2.BatchGetFilesRequest(workspace_id=W, paths=["/x"] * 10_001)
        error = await refused(tree.client.files.BatchGetFiles(request, metadata=tree.client.metadata))
        assert isinstance(error, errors.InvalidArgument)


class TestReadFile:
    async def read(self, client: Client, **fields: object) -> tuple[bytes, list[file_pb2.ReadFileResponse]]:
        request = file_pb2.ReadFileRequest(workspace_id=W, **fields)  # type: ignore[arg-type]
        messages = [message async for message in client.files.ReadFile(request, metadata=client.metadata)]
        return b"".join(message.data for message in messages), messages

    async def test_large_and_empty_files(self, tree: TestNode) -> None:
        data, messages = await self.read(tree.client, path="/github/large.bin")
        assert data == LARGE
        assert max(len(message.data) for message in messages) <= 1 << 20
        assert [message.HasField("file") for message in messages] == [True, False, False]
        data, messages = await self.read(tree.client, path="/empty")
        assert (data, len(messages), messages[0].file.path) == (b"", 1, "/empty")

    async def test_ranges(self, tree: TestNode) -> None:
        for offset, limit in (
            (0, 10),
            (5, 0),
            (1 << 20, 7),
            (len(LARGE) - 1, 100),
            (len(LARGE), 0),
            (len(LARGE) + 9, 5),
        ):
            data, _ = await self.read(tree.client, path="/github/large.bin", offset_bytes=offset, limit_bytes=limit)
            assert data == LARGE[offset : offset + limit if limit else None], (offset, limit)

    async def test_if_revision(self, tree: TestNode) -> None:
        revision = tree.writer.trees[W].files["/empty"].revision
        await self.read(tree.client, path="/empty", if_revision=revision)
        request = file_pb2.ReadFileRequest(workspace_id=W, path="/empty", if_revision=revision + 1)
        error = await refused(tree.client.files.ReadFile(request, metadata=tree.client.metadata))
        assert isinstance(error, errors.RevisionConflict)
        assert (error.expected, error.current) == (revision + 1, revision)

    async def test_all_chunks_are_of_one_revision(self, tree: TestNode) -> None:
        request = file_pb2.ReadFileRequest(workspace_id=W, path="/github/large.bin")
        call = tree.client.files.ReadFile(request, metadata=tree.client.metadata)
        data = b""
        async for message in call:
            if not data:
                await tree.writer.put(W, {"/github/large.bin": b"replaced" * 500_000})
            data += message.data
        assert data == LARGE


class TestReadFiles:
    async def test_files_come_packed_in_order_of_asking(self, tree: TestNode) -> None:
        asked = ["/github/issues/9.json", "/none", "/github/large.bin", "/empty", "/github/issues/1.json"]

        async def requests() -> AsyncIterator[file_pb2.ReadFilesRequest]:
            yield file_pb2.ReadFilesRequest(workspace_id=W, paths=asked[:2])
            yield file_pb2.ReadFilesRequest(paths=asked[2:])

        files, missing, answered = await collected(
            tree.client.files.ReadFiles(requests(), metadata=tree.client.metadata)
        )
        expected = tree.writer.trees[W].files
        assert files == {path: expected[path].content for path in asked if path != "/none"}
        assert list(files) == [path for path in asked if path != "/none"]
        assert missing == ["/none"]
        assert answered == [2, 2, 2, 2, 3, 5]

    async def test_another_workspace_in_a_later_message_is_refused(self, tree: TestNode) -> None:
        await tree.writer.create_workspace("other")

        async def requests() -> AsyncIterator[file_pb2.ReadFilesRequest]:
            yield file_pb2.ReadFilesRequest(workspace_id=W, paths=["/empty"])
            yield file_pb2.ReadFilesRequest(workspace_id="other", paths=["/empty"])

        error = await refused(tree.client.files.ReadFiles(requests(), metadata=tree.client.metadata))
        assert isinstance(error, errors.InvalidArgument)


async def collected(
    call: AsyncIterable[file_pb2.ReadFilesResponse],
) -> tuple[dict[str, bytes], list[str], list[int]]:
    files: dict[str, bytes] = {}
    missing: list[str] = []
    answered: list[int] = []
    last = ""
    async for message in call:
        assert message.ByteSize() < (1 << 20) + 600_000
        for file in message.files:
            last = file.file.path
            files[last] = file.content
        files[last] += message.chunk.data
        missing += message.missing_paths
        answered.append(message.answered_count)
    return files, missing, answered


class TestGetTreeDigest:
    async def test_the_root_and_a_directory(self, tree: TestNode) -> None:
        expected = tree.writer.trees[W]
        for path in ("/", "/github", "/github/issues", "/nothing"):
            request = file_pb2.GetTreeDigestRequest(workspace_id=W, path=path)
            answer = await tree.client.files.GetTreeDigest(request, metadata=tree.client.metadata)
            assert answer.directory.path == path
            assert answer.directory.totals.file_count == len(expected.below(path))
            assert answer.directory.totals.digest == expected.digest(path).to_bytes(32, "big")
            assert answer.revision == expected.revision

    async def test_children_and_one_bucket_of_them(self, tree: TestNode) -> None:
        get = tree.client.files.GetTreeDigest
        request = file_pb2.GetTreeDigestRequest(workspace_id=W, path="/github/issues", children=True)
        answer = await get(request, metadata=tree.client.metadata)
        everything = {entry.file.path for entry in answer.children}
        assert everything == set(tree.writer.trees[W].below("/github/issues"))
        found: set[str] = set()
        for bucket in range(256):
            request.bucket = bucket
            part = {entry.file.path for entry in (await get(request, metadata=tree.client.metadata)).children}
            assert not part & found
            found |= part
        assert found == everything

    async def test_children_are_of_one_revision_while_commits_keep_coming(self, node: TestNode) -> None:
        await node.writer.create_workspace(W)
        await node.writer.put(W, {f"/d/{n:04}": b"x" for n in range(3_500)})
        done = asyncio.Event()

        async def write() -> None:
            number = 0
            while not done.is_set():
                number += 1
                await node.writer.put(W, {f"/d/{number % 3_500:04}": b"%d" % number})

        request = file_pb2.GetTreeDigestRequest(workspace_id=W, path="/d", children=True)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(write())
            for _ in range(3):
                answer = await node.client.files.GetTreeDigest(request, metadata=node.client.metadata)
                assert len(answer.children) == 3_500
                terms = (file_term(entry.file.path, entry.file.content_sha256) for entry in answer.children)
                assert (sum(terms) % (1 << 256)).to_bytes(32, "big") == answer.directory.totals.digest
            done.set()


def exporting(client: Client, *requests: file_pb2.ExportTreeRequest) -> AsyncIterable[file_pb2.ExportTreeResponse]:
    async def send() -> AsyncIterator[file_pb2.ExportTreeRequest]:
        for request in requests:
            yield request

    return client.files.ExportTree(send(), metadata=client.metadata)


def start(**fields: object) -> file_pb2.ExportTreeRequest:
    begin = file_pb2.ExportStart(workspace_id=W, **fields)  # type: ignore[arg-type]
    return file_pb2.ExportTreeRequest(start=begin, have_complete=True)


class TestExportTree:
    async def exported(
        self, client: Client, *requests: file_pb2.ExportTreeRequest
    ) -> tuple[dict[str, bytes | None], list[file_pb2.ExportTreeResponse]]:
        """Path to content, None for a known one; and the messages."""
        files: dict[str, bytes | None] = {}
        messages: list[file_pb2.ExportTreeResponse] = []
        last = ""
        async for message in exporting(client, *requests):
            messages.append(message)
            for file in message.files:
                last = file.file.path
                files[last] = None if file.content_known else file.content
            if message.chunk.data:
                files[last] = (files[last] or b"") + message.chunk.data
        return files, messages

    async def test_everything_in_order_with_totals_first_and_the_end_last(self, tree: TestNode) -> None:
        files, messages = await self.exported(tree.client, start())
        expected = tree.writer.trees[W]
        assert files == {path: held.content for path, held in sorted(expected.files.items())}
        assert list(files) == sorted(expected.files)
        assert messages[0].totals.file_count == len(expected.files)
        assert messages[0].revision == expected.revision
        assert [message.HasField("end") for message in messages] == [False] * (len(messages) - 1) + [True]
        end = messages[-1].end
        assert (end.file_count, end.revision) == (len(expected.files), expected.revision)
        assert end.total_bytes == sum(len(held.content) for held in expected.files.values())
        assert end.totals.digest == expected.digest("/").to_bytes(32, "big")

    async def test_a_large_last_file_is_complete_before_the_end(self, tree: TestNode) -> None:
        await tree.writer.put(W, {"/zz/last.bin": LARGE})
        files, messages = await self.exported(tree.client, start(path="/zz"))
        assert files == {"/zz/last.bin": LARGE}
        assert messages[-1].HasField("end")
        assert not any(message.HasField("end") for message in messages[:-1])

    async def test_what_the_caller_has_is_not_sent(self, tree: TestNode) -> None:
        expected = tree.writer.trees[W].files
        have = ["/github/issues/3.json", "/github/large.bin", "/ä/ö.json"]
        requests = [
            file_pb2.ExportTreeRequest(
                start=file_pb2.ExportStart(workspace_id=W),
                have_sha256=b"".join(expected[path].sha256 for path in have[:2]),
            ),
            file_pb2.ExportTreeRequest(have_sha256=expected[have[2]].sha256),
            file_pb2.ExportTreeRequest(have_complete=True),
        ]
        files, _ = await self.exported(tree.client, *requests)
        assert files.keys() == expected.keys()
        assert {path for path, content in files.items() if content is None} == {
            path for path, held in expected.items() if held.sha256 in {expected[known].sha256 for known in have}
        }

    async def test_a_cut_export_is_continued_after_a_path(self, tree: TestNode) -> None:
        expected = sorted(tree.writer.trees[W].files)
        files, messages = await self.exported(tree.client, start(after_path=expected[100]))
        assert list(files) == expected[101:]
        assert messages[-1].end.file_count == len(expected) - 101

    async def test_an_empty_tree_and_a_single_file(self, tree: TestNode) -> None:
        files, messages = await self.exported(tree.client, start(path="/nothing"))
        assert (files, messages[-1].end.file_count) == ({}, 0)
        files, messages = await self.exported(tree.client, start(path="/github.txt"))
        assert (files, messages[-1].end.totals.file_count) == ({"/github.txt": b"beside"}, 1)

    @pytest.mark.parametrize(
        ("request_", "field"),
        [
            (file_pb2.ExportTreeRequest(have_complete=True), "start"),
            (start(after_path="/elsewhere", path="/github"), "start.after_path"),
            (start(path="/a//b"), "start.path"),
            (file_pb2.ExportTreeRequest(start=file_pb2.ExportStart(workspace_id=W)), "have_complete"),
            (
                file_pb2.ExportTreeRequest(
                    start=file_pb2.ExportStart(workspace_id=W), have_sha256=b"x", have_complete=True
                ),
                "have_sha256",
            ),
        ],
    )
    async def test_bad_questions(self, tree: TestNode, request_: file_pb2.ExportTreeRequest, field: str) -> None:
        error = await refused(exporting(tree.client, request_))
        assert isinstance(error, errors.InvalidArgument)
        assert error.violations[0].field == field

    async def test_trees_that_are_too_large_and_too_many_exports_are_refused(self, tmp_path: Path) -> None:
        limits = ReadLimits(
            page_entries_default=LIMITS.page_entries_default,
            page_entries_max=LIMITS.page_entries_max,
            message_bytes_target=64 << 10,
            export_files_max=100,
            exports_concurrent_max=1,
        )
        async with started_nodes(tmp_path, limits=limits) as [node]:
            await node.writer.create_workspace(W)
            await node.writer.put(W, {f"/a/{n}": b"x" * 400_000 for n in range(50)})
            running = aiter(exporting(node.client, start()))
            await anext(running)
            assert isinstance(await refused(exporting(node.client, start())), errors.ExportRefused)
            assert sum([len(message.files) async for message in running]) == 50
            await node.writer.put(W, {f"/b/{n}": b"x" for n in range(60)})
            assert isinstance(await refused(exporting(node.client, start())), errors.ExportRefused)
            files, _ = await self.exported(node.client, start(path="/b"))
            assert len(files) == 60


async def test_a_content_that_is_gone_aborts_its_reader(tree: TestNode) -> None:
    """After the minute for which replaced content stays readable."""
    size = 48 << 20  # more than fits on the way
    await tree.writer.put(W, {"/huge": bytes(size)})
    before = tree.writer.trees[W].revision
    request = file_pb2.ReadFileRequest(workspace_id=W, path="/huge")
    call = aiter(tree.client.files.ReadFile(request, metadata=tree.client.metadata))
    await anext(call)
    await tree.writer.put(W, {"/huge": b"new"})
    await tree.alter("DELETE FROM content WHERE length(data) = ?", size)
    error = await refused(call)
    assert isinstance(error, errors.RevisionConflict)
    assert (error.expected, error.current) == (before, tree.writer.trees[W].revision)
