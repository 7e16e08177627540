"""FileService's writes over gRPC, on a real engine: preconditions, idempotency, limits, quotas, cut uploads."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from relayfile import errors
from relayfile.auth import ALL
from relayfile.status import from_rpc_error
from relayfile.v1 import event_pb2, file_pb2, types_pb2, workspace_pb2
from tests.support.store_node import Client, TestNode, started_nodes

W = "acme"
DOMAIN = "relayfile.dev"


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[TestNode]:
    async with started_nodes(tmp_path) as nodes:
        await made(nodes[0].client)
        async with calling(nodes[0], "relayfile:*:*") as client:
            yield replace(nodes[0], client=client)


@asynccontextmanager
async def calling(node: TestNode, *scopes: str, subject: str = "agent-1") -> AsyncIterator[Client]:
    """A caller with these scopes."""
    client = Client(node.address, node.signer.mint(subject, workspaces=ALL, ttl_s=3600, scopes=scopes))
    try:
        yield client
    finally:
        await client.channel.close()


async def made(client: Client, name: str = W, **quota: int) -> None:
    await client.workspaces.CreateWorkspace(
        workspace_pb2.CreateWorkspaceRequest(workspace_id=name, quota=workspace_pb2.WorkspaceQuota(**quota)),
        metadata=client.metadata,
    )


async def write(client: Client, path: str, content: bytes = b"{}", **fields: Any) -> file_pb2.WriteFileResponse:
    if "if_revision" not in fields:
        fields.setdefault("force", True)
    request = file_pb2.WriteFileRequest(workspace_id=fields.pop("w", W), path=path, content=content, **fields)
    return await client.files.WriteFile(request, metadata=client.metadata)


async def delete(client: Client, path: str, **fields: Any) -> file_pb2.DeleteFileResponse:
    request = file_pb2.DeleteFileRequest(workspace_id=W, path=path, **fields)
    return await client.files.DeleteFile(request, metadata=client.metadata)


async def move(client: Client, path: str, to_path: str, **fields: Any) -> file_pb2.MoveFileResponse:
    request = file_pb2.MoveFileRequest(workspace_id=W, path=path, to_path=to_path, **fields)
    return await client.files.MoveFile(request, metadata=client.metadata)


async def write_many(client: Client, *items: file_pb2.WriteFilesItem, **fields: Any) -> file_pb2.WriteFilesResponse:
    request = file_pb2.WriteFilesRequest(workspace_id=W, items=items, **fields)
    return await client.files.WriteFiles(request, metadata=client.metadata)


def uploading(
    path: str, chunks: Iterable[bytes], size: int | None = None, **fields: Any
) -> list[file_pb2.UploadFileRequest]:
    pieces = list(chunks)
    if "if_revision" not in fields:
        fields.setdefault("force", True)
    head = file_pb2.WriteFileRequest(workspace_id=W, path=path, **fields)
    total = sum(map(len, pieces)) if size is None else size
    return [
        file_pb2.UploadFileRequest(head=head, size_bytes=total),
        *(
            file_pb2.UploadFileRequest(chunk=types_pb2.ContentChunk(data=piece, last=place == len(pieces) - 1))
            for place, piece in enumerate(pieces)
        ),
    ]


async def upload(client: Client, *args: Any, **fields: Any) -> file_pb2.UploadFileResponse:
    async def messages() -> AsyncIterator[file_pb2.UploadFileRequest]:
        for message in uploading(*args, **fields):
            yield message

    return await client.files.UploadFile(messages(), metadata=client.metadata)


async def read(client: Client, path: str) -> bytes:
    request = file_pb2.ReadFileRequest(workspace_id=W, path=path)
    return b"".join([part.data async for part in client.files.ReadFile(request, metadata=client.metadata)])


async def events(client: Client) -> list[event_pb2.Event]:
    answer = await client.events.ListEvents(event_pb2.ListEventsRequest(workspace_id=W), metadata=client.metadata)
    return list(answer.events)


async def revision(client: Client) -> int:
    request = workspace_pb2.GetWorkspaceRequest(workspace_id=W)
    return (await client.workspaces.GetWorkspace(request, metadata=client.metadata)).workspace.revision


async def status_of(call: Any) -> tuple[errors.RelayfileError, grpc.aio.AioRpcError]:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return from_rpc_error(raised.value), raised.value


async def refused(call: Any, code: grpc.StatusCode) -> errors.RelayfileError:
    error, raised = await status_of(call)
    assert raised.code() is code, error
    return error


def fields_of(raised: grpc.aio.AioRpcError) -> list[str]:
    status = rpc_status.from_call(raised)  # type: ignore[arg-type]  # what it reads, it has
    request = error_details_pb2.BadRequest()
    assert any(detail.Unpack(request) for detail in status.details)
    return [each.field for each in request.field_violations]


INVALID, ABORTED = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.ABORTED
NOT_FOUND, FAILED = grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION
DENIED = grpc.StatusCode.PERMISSION_DENIED
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


class TestWriteFile:
    async def test_creates_replaces_and_leaves_alone_what_is_the_same(self, node: TestNode) -> None:
        client = node.client
        first = await write(client, "notes/a.md", b"# hi", if_revision=0)
        assert (first.changed, first.file.path, first.file.revision) == (True, "/notes/a.md", 1)
        assert (first.file.content_type, first.file.size_bytes) == ("text/markdown", 4)
        assert first.file.content_sha256 == sha256(b"# hi").digest()
        assert first.file.origin == types_pb2.ORIGIN_AGENT
        # The precondition is checked for a change only.
        same = await write(client, "/notes/a.md", b"# hi", if_revision=0)
        assert (same.changed, same.file.revision) == (False, 1)
        second = await write(client, "/notes/a.md", b"# ho", if_revision=1)
        assert (second.changed, second.file.revision) == (True, 2)
        assert await read(client, "/notes/a.md") == b"# ho"
        assert [(event.revision, event.type) for event in await events(client)] == [
            (1, event_pb2.EVENT_TYPE_FILE_CREATED),
            (2, event_pb2.EVENT_TYPE_FILE_UPDATED),
        ]

    async def test_a_conflict_says_both_revisions_and_shows_the_start_of_the_file(self, node: TestNode) -> None:
        await write(node.client, "/a", "é".encode() * 800)
        request = file_pb2.WriteFileRequest(workspace_id=W, path="/a", content=b"x", if_revision=7)
        error = await refused(node.client.files.WriteFile(request, metadata=node.client.metadata), ABORTED)
        assert isinstance(error, errors.RevisionConflict)
        assert (error.expected, error.current, error.preview) == (7, 1, "é" * 500)

    async def test_a_file_that_is_no_text_has_no_preview(self, node: TestNode) -> None:
        await write(node.client, "/a", b"\xff\xfe" * 10)
        error = await refused(delete(node.client, "/a", if_revision=9), ABORTED)
        assert isinstance(error, errors.RevisionConflict)
        assert error.preview == ""

    async def test_the_precondition_must_be_said(self, node: TestNode) -> None:
        request = file_pb2.WriteFileRequest(workspace_id=W, path="/a", content=b"x")
        error = await refused(node.client.files.WriteFile(request, metadata=node.client.metadata), FAILED)
        assert isinstance(error, errors.PreconditionRequired)
        assert await revision(node.client) == 0

    async def test_semantics_stay_unless_others_are_given(self, node: TestNode) -> None:
        given = types_pb2.Semantics(relations=[" b ", "a", "", "a"], properties={" k ": " v ", "none": " "})
        await write(node.client, "/a", b"1", semantics=given)
        kept = await write(node.client, "/a", b"2")
        assert list(kept.file.semantics.relations) == ["a", "b"]
        assert dict(kept.file.semantics.properties) == {"k": "v"}
        same = await write(node.client, "/a", b"2", semantics=given)
        assert not same.changed
        cleared = await write(node.client, "/a", b"2", semantics=types_pb2.Semantics())
        assert cleared.changed
        assert not cleared.file.semantics.relations

    async def test_a_file_where_a_directory_is_and_the_reverse(self, node: TestNode) -> None:
        await write(node.client, "/dir/file", b"1")
        for path in ("/dir", "/dir/file/below"):
            error, raised = await status_of(write(node.client, path))
            assert raised.code() is INVALID
            assert isinstance(error, errors.InvalidPath)
            assert fields_of(raised) == ["path"]
        error, raised = await status_of(move(node.client, "/dir/file", "/dir/file/x/../y", force=True))
        assert fields_of(raised) == ["to_path"]
        assert await revision(node.client) == 1

    async def test_content_beyond_a_mebibyte_goes_another_way(self, node: TestNode) -> None:
        error = await refused(write(node.client, "/a", bytes((1 << 20) + 1)), INVALID)
        assert isinstance(error, errors.TooLarge)
        assert (await write(node.client, "/a", bytes(1 << 20))).changed

    async def test_all_violations_are_named_together(self, node: TestNode) -> None:
        request = file_pb2.WriteFileRequest(
            workspace_id="_app/github", path="/a/../b", if_revision=-1, request_id="x" * 200, content_type="a\nb"
        )
        _, raised = await status_of(node.client.files.WriteFile(request, metadata=node.client.metadata))
        assert fields_of(raised) == ["workspace_id", "path", "if_revision", "request_id", "content_type"]

    async def test_an_unknown_workspace_is_not_found(self, node: TestNode) -> None:
        error = await refused(write(node.client, "/a", w="nobody"), NOT_FOUND)
        assert isinstance(error, errors.WorkspaceNotFound)

    async def test_correlation_ids_are_told_by_the_event(self, node: TestNode) -> None:
        request = file_pb2.WriteFileRequest(workspace_id=W, path="/a", content=b"x", force=True)
        metadata = (*node.client.metadata, ("x-correlation-id", "corr-1"))
        await node.client.files.WriteFile(request, metadata=metadata)
        [event] = await events(node.client)
        assert (event.correlation_id, event.origin, event.provider) == ("corr-1", types_pb2.ORIGIN_AGENT, "")

    async def test_callers_of_one_workspace_share_commits_and_each_has_its_revision(self, node: TestNode) -> None:
        answers = await asyncio.gather(*(write(node.client, f"/d/{n % 40}", b"%d" % n) for n in range(120)))
        assert sorted(answer.file.revision for answer in answers) == list(range(1, 121))
        assert len(await events(node.client)) == 120

    async def test_of_those_who_create_one_file_at_once_one_does(self, node: TestNode) -> None:
        calls = [write(node.client, "/a", b"%d" % n, if_revision=0) for n in range(20)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert sum(isinstance(answer, file_pb2.WriteFileResponse) for answer in answers) == 1
        conflicts = [from_rpc_error(each) for each in answers if isinstance(each, grpc.aio.AioRpcError)]
        assert {type(each) for each in conflicts} == {errors.RevisionConflict}
        assert len(conflicts) == 19


class TestDeleteAndMove:
    async def test_delete_says_the_revision_that_removed_it(self, node: TestNode) -> None:
        await write(node.client, "/a", b"1")
        assert (await delete(node.client, "/a", if_revision=1)).revision == 2
        error = await refused(delete(node.client, "/a", force=True), NOT_FOUND)
        assert isinstance(error, errors.FileNotFound)
        _, raised = await status_of(delete(node.client, "/a", if_revision=0))
        assert fields_of(raised) == ["if_revision"]

    async def test_a_move_is_a_delete_and_a_creation(self, node: TestNode) -> None:
        await write(node.client, "/a/1", b"one", semantics=types_pb2.Semantics(comments=["c"]))
        moved = await move(node.client, "/a/1", "/b/2", if_revision=1)
        assert (moved.file.path, moved.file.revision, list(moved.file.semantics.comments)) == ("/b/2", 3, ["c"])
        assert await read(node.client, "/b/2") == b"one"
        gone, came = (await events(node.client))[1:]
        assert (gone.revision, gone.type, gone.path, gone.moved_to) == (
            2, event_pb2.EVENT_TYPE_FILE_DELETED, "/a/1", "/b/2",
        )  # fmt: skip
        assert (came.revision, came.type, came.path, came.moved_from) == (
            3, event_pb2.EVENT_TYPE_FILE_CREATED, "/b/2", "/a/1",
        )  # fmt: skip

    async def test_nothing_is_moved_over_a_file(self, node: TestNode) -> None:
        await write(node.client, "/a", b"1")
        await write(node.client, "/b", b"2")
        error = await refused(move(node.client, "/a", "/b", force=True), ABORTED)
        assert isinstance(error, errors.RevisionConflict)
        assert (error.expected, error.current) == (0, 2)
        _, raised = await status_of(move(node.client, "/a", "/a", force=True))
        assert fields_of(raised) == ["to_path"]
        assert await revision(node.client) == 2

    async def test_a_file_may_move_below_its_own_name_and_back(self, node: TestNode) -> None:
        await write(node.client, "/a", b"1")
        await move(node.client, "/a", "/a/b/c", force=True)
        await move(node.client, "/a/b/c", "/a", force=True)
        assert await read(node.client, "/a") == b"1"


def put(path: str, content: bytes = b"{}", **fields: Any) -> file_pb2.WriteFilesItem:
    return file_pb2.WriteFilesItem(write=file_pb2.WriteItem(path=path, content=content), **fields)


class TestWriteFiles:
    async def test_items_are_independent_and_each_sees_the_one_before(self, node: TestNode) -> None:
        answer = await write_many(
            node.client,
            put("/a", b"1", if_revision=0),
            put("/a", b"2", if_revision=9),
            put("/a", b"3"),
            file_pb2.WriteFilesItem(move=file_pb2.MoveItem(path="/a", to_path="/b")),
            file_pb2.WriteFilesItem(delete=file_pb2.DeleteItem(path="/none")),
            put("/b/below", b"x"),
            put("/b", b"3"),
        )
        codes = [result.code for result in answer.results]
        assert codes == [0, ABORTED.value[0], 0, 0, NOT_FOUND.value[0], INVALID.value[0], 0]
        assert [result.reason for result in answer.results] == [
            "", "REVISION_CONFLICT", "", "", "FILE_NOT_FOUND", "INVALID_PATH", "",
        ]  # fmt: skip
        assert answer.results[1].current_revision == 1
        assert [result.changed for result in answer.results] == [True, False, True, True, False, False, False]
        assert answer.revision == 4
        assert await read(node.client, "/b") == b"3"

    async def test_an_invalid_item_refuses_all_of_them(self, node: TestNode) -> None:
        items = (put("/a"), put("/a//b"), file_pb2.WriteFilesItem(), put("/c", if_revision=-1))
        _, raised = await status_of(write_many(node.client, *items))
        assert fields_of(raised) == ["items[1].write.path", "items[2]", "items[3].if_revision"]
        assert await revision(node.client) == 0

    async def test_at_most_a_thousand_items_and_a_mebibyte(self, node: TestNode) -> None:
        _, raised = await status_of(write_many(node.client, *(put(f"/{n}") for n in range(1_001))))
        assert fields_of(raised) == ["items"]
        error = await refused(write_many(node.client, put("/a", bytes(1 << 20)), put("/b", b"x")), INVALID)
        assert isinstance(error, errors.TooLarge)
        answer = await write_many(node.client, *(put(f"/{n}") for n in range(1_000)))
        assert answer.revision == 1_000


class TestIdempotency:
    async def test_a_repeat_gets_the_first_answer_over_a_restart(self, tmp_path: Path) -> None:
        def calls(client: Client) -> list[Any]:
            return [
                write(client, "/a", b"1", if_revision=0, request_id="w"),
                write_many(client, put("/b", b"2"), put("/a", b"x", if_revision=7), request_id="m"),
                upload(client, "/c", [b"12", b"34"], if_revision=0, request_id="u"),
                move(client, "/b", "/d", if_revision=2, request_id="v"),
                delete(client, "/c", if_revision=3, request_id="d"),
            ]

        async with started_nodes(tmp_path) as [node]:
            await made(node.client)
            first = [await call for call in calls(node.client)]
            again = [await call for call in calls(node.client)]
            at = await revision(node.client)
        async with started_nodes(tmp_path) as [node]:
            restarted = [await call for call in calls(node.client)]
            assert await revision(node.client) == at == 6
        assert first == again == restarted

    async def test_another_request_under_the_id_is_refused(self, node: TestNode) -> None:
        await write(node.client, "/a", b"1", request_id="r")
        error = await refused(write(node.client, "/a", b"2", request_id="r"), grpc.StatusCode.ALREADY_EXISTS)
        assert isinstance(error, errors.RequestIdReused)
        await upload(node.client, "/u", [b"12"], request_id="r")
        error = await refused(upload(node.client, "/u", [b"13"], request_id="r"), grpc.StatusCode.ALREADY_EXISTS)
        assert isinstance(error, errors.RequestIdReused)

    async def test_a_refusal_is_not_remembered(self, node: TestNode) -> None:
        await refused(write(node.client, "/a", b"1", if_revision=1, request_id="r"), NOT_FOUND)
        await write(node.client, "/a", b"0", if_revision=0)
        assert (await write(node.client, "/a", b"1", if_revision=1, request_id="r")).changed


class TestQuotas:
    async def test_files_and_bytes_beyond_the_quota_are_refused(self, node: TestNode) -> None:
        client = node.client
        await made(client, "small", files_max=2, total_bytes_max=10)
        await write(client, "/a", b"12345", w="small")
        await write(client, "/b", b"1234", w="small")
        error = await refused(write(client, "/c", b"", w="small"), EXHAUSTED)
        assert isinstance(error, errors.QuotaExceeded)
        assert (error.what, error.limit) == ("files", 2)
        error = await refused(write(client, "/b", b"123456", w="small"), EXHAUSTED)
        assert isinstance(error, errors.QuotaExceeded)
        assert error.what == "bytes"
        assert (await write(client, "/b", b"12345", w="small")).changed
        assert (await write(client, "/a", b"", w="small")).changed


class TestAccess:
    async def test_scopes_hold_on_every_path_of_every_rpc(self, node: TestNode) -> None:
        for path in ("/in/a", "/out/a"):
            await write(node.client, path, b"1")
        async with calling(node, "relayfile:fs:write:/in/**") as narrow:
            assert (await write(narrow, "/in/b")).changed
            denied = (
                write(narrow, "/out/b"),
                upload(narrow, "/out/b", [b"x"]),
                delete(narrow, "/out/a", force=True),
                move(narrow, "/in/a", "/out/c", force=True),
                move(narrow, "/out/a", "/in/c", force=True),
            )
            for call in denied:
                assert isinstance(await refused(call, DENIED), errors.PermissionDenied)
            answer = await write_many(narrow, put("/in/c"), put("/out/c"), put("/in/d"))
            assert [result.code for result in answer.results] == [0, DENIED.value[0], 0]
            # No preview for who may not read.
            error = await refused(write(narrow, "/in/a", b"x", if_revision=9), ABORTED)
            assert isinstance(error, errors.RevisionConflict)
            assert (error.current, error.preview) == (1, "")

    async def test_rules_change_only_by_who_may_manage(self, node: TestNode) -> None:
        await write(node.client, "/d/a", b"1", semantics=types_pb2.Semantics(permissions=["agent:agent-1"]))
        async with calling(node, "relayfile:fs:write", "relayfile:fs:read") as writer:
            rules = types_pb2.Semantics(permissions=["public"])
            for call in (
                write(writer, "/d/b", b"2", semantics=rules),
                write(writer, "/d/a", b"2", semantics=types_pb2.Semantics()),
                write(writer, "/d/.relayfile.acl", b""),
                move(writer, "/d/a", "/e/.relayfile.acl", force=True),
            ):
                assert isinstance(await refused(call, DENIED), errors.PermissionDenied)
            assert (await write(writer, "/d/a", b"2")).changed
            assert (
                await write(writer, "/d/a", b"3", semantics=types_pb2.Semantics(permissions=["agent:agent-1"]))
            ).changed

    async def test_rules_of_files_hold_for_writes(self, node: TestNode) -> None:
        rules = types_pb2.Semantics(permissions=["deny:agent:x", "public"])
        await write(node.client, "/d/.relayfile.acl", b"", semantics=rules)
        await write(node.client, "/d/a", b"1")
        async with calling(node, "relayfile:fs:write", "relayfile:fs:read", subject="x") as denied:
            for call in (
                write(denied, "/d/a", b"2"),
                write(denied, "/d/new", b"2"),
                delete(denied, "/d/a", force=True),
                move(denied, "/d/a", "/e", force=True),
            ):
                assert isinstance(await refused(call, DENIED), errors.PermissionDenied)
            answer = await write_many(denied, put("/e", b"1"), put("/d/a", b"2"))
            assert [result.code for result in answer.results] == [0, DENIED.value[0]]
            assert isinstance(await refused(move(denied, "/e", "/d/e", force=True), DENIED), errors.PermissionDenied)


class TestUploadFile:
    async def test_large_files_come_in_chunks(self, node: TestNode) -> None:
        chunks = [bytes([n]) * (1 << 20) for n in range(16)]
        answer = await upload(node.client, "/large.bin", chunks)
        assert (answer.changed, answer.file.size_bytes) == (True, 16 << 20)
        assert answer.file.content_sha256 == sha256(b"".join(chunks)).digest()
        assert await read(node.client, "/large.bin") == b"".join(chunks)
        assert (await upload(node.client, "/empty", [], size=0)).file.size_bytes == 0

    async def test_too_much_is_refused_before_it_comes(self, node: TestNode) -> None:
        error = await refused(upload(node.client, "/a", [b"x"], size=(16 << 20) + 1), INVALID)
        assert isinstance(error, errors.TooLarge)

    @pytest.mark.parametrize(("chunks", "size"), [([b"12", b"3"], 4), ([b"12", b"34"], 3), ([], 1)])
    async def test_more_or_less_than_was_said_changes_nothing(
        self, node: TestNode, chunks: list[bytes], size: int
    ) -> None:
        _, raised = await status_of(upload(node.client, "/a", chunks, size=size))
        assert fields_of(raised) == ["size_bytes"]
        assert await revision(node.client) == 0

    async def test_a_stream_without_a_head_or_with_two(self, node: TestNode) -> None:
        async def messages(*sent: file_pb2.UploadFileRequest) -> AsyncIterator[file_pb2.UploadFileRequest]:
            for message in sent:
                yield message

        good = uploading("/a", [b"12"])
        for sent in (good[1:], [good[0], good[0]], []):
            _, raised = await status_of(node.client.files.UploadFile(messages(*sent), metadata=node.client.metadata))
            assert fields_of(raised) == ["head"]

    async def test_a_cut_upload_changes_nothing_and_frees_its_room(self, node: TestNode) -> None:
        for _ in range(8):  # each of 16 MiB: more than there is room for, if room were kept
            begun = asyncio.Event()

            async def messages(begun: asyncio.Event) -> AsyncIterator[file_pb2.UploadFileRequest]:
                for message in uploading("/a", [b"x" * 1000], size=16 << 20):
                    yield message
                begun.set()
                await asyncio.sleep(60)

            call = node.client.files.UploadFile(messages(begun), metadata=node.client.metadata)
            waiting = asyncio.ensure_future(call)
            await begun.wait()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        assert await revision(node.client) == 0
        await upload(node.client, "/a", [b"y" * (1 << 20)] * 16)

    async def test_uploads_beyond_the_room_for_them_are_refused(self, node: TestNode) -> None:
        stop = asyncio.Event()

        async def messages() -> AsyncIterator[file_pb2.UploadFileRequest]:
            for message in uploading("/a", [b"x"], size=16 << 20):
                yield message
            await stop.wait()

        held = [node.client.files.UploadFile(messages(), metadata=node.client.metadata) for _ in range(5)]
        endings = await asyncio.wait_for(first_error(held), 10)
        stop.set()
        await asyncio.gather(*held, return_exceptions=True)
        assert isinstance(endings, errors.Overloaded)


async def first_error(calls: list[Any]) -> errors.RelayfileError:
    waiting = [asyncio.ensure_future(each) for each in calls]
    done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    error = done.pop().exception()
    assert isinstance(error, grpc.aio.AioRpcError)
    return from_rpc_error(error)
