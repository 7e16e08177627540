"""What is wrong with a request to write: the exact code, reason and field of each, and nothing changes."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from relayfile.v1 import file_pb2, types_pb2, workspace_pb2
from tests.support.store_node import TestNode, started_nodes

W = "acme"
INVALID = grpc.StatusCode.INVALID_ARGUMENT
LONG_SEGMENT, LONG_PATH = "/" + "s" * 1025, "/" + "/".join(["p" * 99] * 41)
PATHS = {
    "empty": "",
    "root": "/",
    "nul": "/a\0b",
    "backslash": "/a\\b",
    "control": "/a\x1fb",
    "c1": "/a\x85b",
    "empty segment": "/a//b",
    "dot": "/a/./b",
    "dots": "/../a",
    "two slashes at the end": "/a//",
    "long segment": LONG_SEGMENT,
    "long path": LONG_PATH,
}


@dataclass(frozen=True)
class Case:
    """A request, and how it is refused."""

    rpc: str
    request: Message
    fields: tuple[str, ...] = ()
    code: grpc.StatusCode = INVALID
    reason: str = "INVALID_ARGUMENT"
    chunks: tuple[Message, ...] = field(default=())


def written(**fields: Any) -> file_pb2.WriteFileRequest:
    usual: dict[str, Any] = {"workspace_id": W, "path": "/a", "force": True}
    return file_pb2.WriteFileRequest(**(usual | fields))


def deleted(**fields: Any) -> file_pb2.DeleteFileRequest:
    usual: dict[str, Any] = {"workspace_id": W, "path": "/there", "force": True}
    return file_pb2.DeleteFileRequest(**(usual | fields))


def moved(**fields: Any) -> file_pb2.MoveFileRequest:
    usual: dict[str, Any] = {"workspace_id": W, "path": "/there", "to_path": "/to", "force": True}
    return file_pb2.MoveFileRequest(**(usual | fields))


def batch(*items: file_pb2.WriteFilesItem, **fields: Any) -> file_pb2.WriteFilesRequest:
    return file_pb2.WriteFilesRequest(**({"workspace_id": W, "items": items} | fields))


def item(**fields: Any) -> file_pb2.WriteFilesItem:
    return file_pb2.WriteFilesItem(**fields)


def upload(size: int = 0, **fields: Any) -> file_pb2.UploadFileRequest:
    return file_pb2.UploadFileRequest(head=written(**fields), size_bytes=size)


WORKSPACES = {"none": "", "system": "_app/github", "slash": "a/b", "dot": ".a", "long": "w" * 129}
MANY = types_pb2.Semantics(comments=[str(number) for number in range(1001)])
LARGE = types_pb2.Semantics(comments=["c" * (64 << 10)])
ORPHAN = file_pb2.UploadFileRequest(chunk=types_pb2.ContentChunk(data=b"x" * ((1 << 20) + 1)))

CASES = [
    *(Case("WriteFile", written(path=path), ("path",)) for path in PATHS.values()),
    *(Case("DeleteFile", deleted(path=path), ("path",)) for path in PATHS.values()),
    *(Case("MoveFile", moved(to_path=path), ("to_path",)) for path in PATHS.values()),
    *(Case("UploadFile", upload(path=path), ("head.path",)) for path in PATHS.values()),
    *(Case("WriteFile", written(workspace_id=name), ("workspace_id",)) for name in WORKSPACES.values()),
    *(Case("WriteFiles", batch(item(), workspace_id=name), ("workspace_id",)) for name in ("", "_x")),
    Case("MoveFile", moved(path="", to_path="/there/../x"), ("path", "to_path")),
    Case("MoveFile", moved(to_path="/there"), ("to_path",)),
    Case("WriteFile", written(if_revision=-1), ("if_revision",)),
    Case("DeleteFile", deleted(if_revision=0), ("if_revision",)),
    Case("DeleteFile", deleted(if_revision=-1, force=False), ("if_revision",)),
    Case("MoveFile", moved(if_revision=0), ("if_revision",)),
    Case("WriteFile", written(request_id="r" * 129), ("request_id",)),
    Case("WriteFile", written(content_type="t" * 257), ("content_type",)),
    Case("WriteFile", written(content_type="a\r\nb"), ("content_type",)),
    Case("WriteFile", written(semantics=MANY), ("semantics",)),
    Case("WriteFile", written(semantics=LARGE), ("semantics",)),
    Case("WriteFile", written(content=bytes((1 << 20) + 1)), reason="TOO_LARGE"),
    Case("WriteFiles", batch(), ("items",)),
    Case("WriteFiles", batch(*[item(delete={"path": "/x"})] * 10_000), ("items",)),
    Case("WriteFiles", batch(item()), ("items[0]",)),
    Case("WriteFiles", batch(item(if_revision=3)), ("items[0]",)),
    Case("WriteFiles", batch(item(move={"path": "/a", "to_path": "/a"})), ("items[0].move.to_path",)),
    Case("WriteFiles", batch(item(delete={"path": "/a"}, if_revision=0)), ("items[0].if_revision",)),
    Case("WriteFiles", batch(item(write={"path": "/a", "semantics": MANY})), ("items[0].write.semantics",)),
    Case("WriteFiles", batch(*[item(write={"path": "/"})] * 30), tuple(f"items[{n}].write.path" for n in range(20))),
    Case("WriteFiles", batch(*[item(write={"path": "/a", "content": bytes(600_000)})] * 2), reason="TOO_LARGE"),
    Case("UploadFile", upload(size=-1), ("size_bytes",)),
    Case("UploadFile", upload(size=(16 << 20) + 1), reason="TOO_LARGE"),
    Case("UploadFile", upload(content=b"x"), ("head.content",)),
    Case("UploadFile", upload(size=2 << 20), ("chunk.data",), chunks=(ORPHAN,)),
    Case("WriteFile", written(path="/dir"), ("path",), reason="INVALID_PATH"),
    Case("WriteFile", written(path="/there/below"), ("path",), reason="INVALID_PATH"),
    Case("MoveFile", moved(to_path="/dir"), ("to_path",), reason="INVALID_PATH"),
    Case("MoveFile", moved(to_path="/dir/file/x"), ("to_path",), reason="INVALID_PATH"),
    Case(
        "WriteFile",
        written(force=False),
        code=grpc.StatusCode.FAILED_PRECONDITION,
        reason="PRECONDITION_REQUIRED",
    ),
    Case("WriteFile", written(path="/dir/none", force=False, if_revision=1 << 62), code=grpc.StatusCode.NOT_FOUND,
         reason="FILE_NOT_FOUND"),
    Case("WriteFile", written(path="/there", force=False, if_revision=1 << 62), code=grpc.StatusCode.ABORTED,
         reason="REVISION_CONFLICT"),
    Case("MoveFile", moved(to_path="/dir/file"), code=grpc.StatusCode.ABORTED, reason="REVISION_CONFLICT"),
    Case("DeleteFile", deleted(path="/dir"), code=grpc.StatusCode.NOT_FOUND, reason="FILE_NOT_FOUND"),
    Case("WriteFile", written(workspace_id="nobody"), code=grpc.StatusCode.NOT_FOUND, reason="WORKSPACE_NOT_FOUND"),
]  # fmt: skip


async def refused(node: TestNode, case: Case) -> grpc.aio.AioRpcError:
    async def stream() -> AsyncIterator[Message]:
        yield case.request
        for chunk in case.chunks:
            yield chunk

    call = getattr(node.client.files, case.rpc)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call(stream() if case.rpc == "UploadFile" else case.request, metadata=node.client.metadata)
    return raised.value


async def test_every_invalid_request_says_exactly_why_and_changes_nothing(tmp_path: Path) -> None:
    async with started_nodes(tmp_path) as [node]:
        metadata = node.client.metadata
        created = workspace_pb2.CreateWorkspaceRequest(workspace_id=W)
        await node.client.workspaces.CreateWorkspace(created, metadata=metadata)
        for path in ("/there", "/dir/file"):
            await node.client.files.WriteFile(written(path=path, content=b"1"), metadata=metadata)
        for case in CASES:
            raised = await refused(node, case)
            status = rpc_status.from_call(raised)  # type: ignore[arg-type]  # what it reads, it has
            info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
            for detail in status.details:
                _ = detail.Unpack(info) or detail.Unpack(bad)
            shown = tuple(each.field for each in bad.field_violations)
            assert (raised.code(), info.reason, shown) == (case.code, case.reason, case.fields), case
        described = workspace_pb2.GetWorkspaceRequest(workspace_id=W)
        found = await node.client.workspaces.GetWorkspace(described, metadata=metadata)
        assert (found.workspace.revision, found.workspace.totals.file_count) == (2, 2)


async def test_paths_at_every_limit_are_written(tmp_path: Path) -> None:
    async with started_nodes(tmp_path) as [node]:
        metadata = node.client.metadata
        created = workspace_pb2.CreateWorkspaceRequest(workspace_id=W)
        await node.client.workspaces.CreateWorkspace(created, metadata=metadata)
        longest = "/" + "/".join(["p" * 99] * 40) + "/" + "q" * 95
        assert len(longest) == 4096
        for path in ("/" + "s" * 1024, "/" + "ü" * 512, longest, "/d" * 2048, "/ein Leerzeichen/ü.md", "/..a/b.."):
            answer = await node.client.files.WriteFile(written(path=path), metadata=metadata)
            assert answer.file.path == path


async def test_any_node_takes_a_write_and_passes_it_on(tmp_path: Path) -> None:
    async with started_nodes(tmp_path, 2) as nodes:
        metadata = nodes[0].client.metadata
        for name in ("one", "two", "three", "four"):
            owner = next(node for node in nodes if node.ownership.owner_of(name).__class__.__name__ == "Local")
            created = workspace_pb2.CreateWorkspaceRequest(workspace_id=name)
            await owner.client.workspaces.CreateWorkspace(created, metadata=metadata)
            for number, node in enumerate(nodes):
                path = f"/{number}"
                await node.client.files.WriteFile(
                    written(workspace_id=name, path=path, content=b"1"), metadata=metadata
                )
                head = upload(3, workspace_id=name, path=path)
                chunk = file_pb2.UploadFileRequest(chunk=types_pb2.ContentChunk(data=b"abc", last=True))
                answer = await node.client.files.UploadFile(iter([head, chunk]), metadata=metadata)
                assert (answer.file.size_bytes, answer.file.revision) == (3, 2 * number + 2)
