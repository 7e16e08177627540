"""The files of one workspace: list, read, query, write.

Streams that are cut go on after the last entry that was yielded: each is yielded once. `min_revision` waits until the
workspace has that revision, up to the call's deadline.
"""

import hashlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence

from grpc.aio import Channel

from relayfile.client.calls import Calls, Metadata, Reading
from relayfile.client.chunks import CHUNK_BYTES, Joiner, pieces
from relayfile.client.values import (
    Content,
    Cursor,
    Delete,
    Deleted,
    Digest,
    Directory,
    File,
    ItemResult,
    Move,
    Write,
    Written,
)
from relayfile.client.wire import directory_of, entry_of, file_of, item_message, item_result, sendable
from relayfile.errors import DataCorrupted
from relayfile.model import Semantics
from relayfile.v1 import file_pb2
from relayfile.v1.file_pb2_grpc import FileServiceStub
from relayfile.wire import semantics_message

PATHS_PER_MESSAGE = 1_000
ITEMS_PER_CALL = 1_000
ITEM_BYTES_PER_CALL = 1 << 20
_ITEM_BYTES = 64
"""An item beside its path and content, generously."""


class Files:
    """Files of one workspace, as far as the caller's token grants them."""

    def __init__(self, calls: Calls, channel: Channel, workspace_id: str, new_id: Callable[[], str]) -> None:
        self._calls = calls
        self._stub = FileServiceStub(channel)
        self._workspace_id = workspace_id
        self._new_id = new_id

    async def get(self, path: str, *, min_revision: int = 0) -> File:
        """One file's metadata. `FileNotFound`."""
        request = file_pb2.GetFileRequest(
            workspace_id=self._workspace_id, path=sendable(path), min_revision=min_revision
        )
        return file_of((await self._calls.unary(self._stub.GetFile, request)).file)

    async def read(self, path: str, *, min_revision: int = 0) -> Content:
        """One file with its bytes, of one revision and checked against its hash. `FileNotFound`, `DataCorrupted`.

        `RevisionConflict` when a large file is replaced between a cut of its stream and the rest.
        """
        request = file_pb2.ReadFileRequest(
            workspace_id=self._workspace_id, path=sendable(path), min_revision=min_revision
        )
        file: File | None = None
        data = bytearray()

        def opened(metadata: Metadata) -> Reading[file_pb2.ReadFileResponse]:
            request.offset_bytes = len(data)
            return self._stub.ReadFile(request, metadata=metadata)

        def complete(_: file_pb2.ReadFileResponse) -> bool:
            return file is not None and len(data) >= file.size_bytes

        async for message in self._calls.messages(opened, ended=complete):
            if message.HasField("file"):
                file = file_of(message.file)
                request.if_revision = file.revision
            data += message.data
        if file is None or hashlib.sha256(data).digest() != file.content_sha256:
            raise DataCorrupted(what=f"the content of {path!r}, on its way")
        return Content(file, bytes(data))

    async def read_many(self, paths: Iterable[str], *, min_revision: int = 0) -> AsyncIterator[Content]:
        """Those of `paths` that exist, in order, packed into few messages; missing ones are left out."""
        wanted = [sendable(path, "paths") for path in paths]
        joiner = Joiner()
        answered = 0
        base = 0

        def opened(metadata: Metadata) -> Reading[file_pb2.ReadFilesResponse]:
            nonlocal joiner, base
            joiner, base = Joiner(), answered
            return self._stub.ReadFiles(self._asked(wanted[answered:], min_revision), metadata=metadata)

        def complete(_: file_pb2.ReadFilesResponse) -> bool:
            return answered >= len(wanted)

        if not wanted:
            return
        async for message in self._calls.messages(opened, ended=complete):
            for content in joiner.take(message.files, message.chunk if message.HasField("chunk") else None):
                yield content
            answered = base + message.answered_count

    async def list(self, path: str = "/", *, min_revision: int = 0) -> AsyncIterator[File]:
        """Every file below `path`, in order of path."""
        async for entry in self.tree(path, depth=0, min_revision=min_revision):
            assert isinstance(entry, File), "without a depth there are no directories"
            yield entry

    async def tree(
        self, path: str = "/", *, depth: int = 1, page_size: int = 0, min_revision: int = 0
    ) -> AsyncIterator[File | Directory]:
        """Files and directories down to `depth` levels, directories with their totals. 0: all files, no directories."""
        request = file_pb2.ListTreeRequest(
            workspace_id=self._workspace_id,
            path=sendable(path),
            depth=depth,
            page_size=page_size,
            min_revision=min_revision,
        )

        def opened(metadata: Metadata) -> Reading[file_pb2.ListTreeResponse]:
            return self._stub.ListTree(request, metadata=metadata)

        async for page in self._calls.messages(opened, ended=lambda page: not page.page_token):
            request.page_token = page.page_token
            for entry in page.entries:
                yield entry_of(entry)

    async def export(self, path: str = "/", *, min_revision: int = 0) -> AsyncIterator[Content]:
        """Every file below `path` with its bytes, in order of path, in one pass. `ExportRefused`: list and read."""
        start = file_pb2.ExportStart(workspace_id=self._workspace_id, path=sendable(path), min_revision=min_revision)
        joiner = Joiner()

        def opened(metadata: Metadata) -> Reading[file_pb2.ExportTreeResponse]:
            nonlocal joiner
            joiner = Joiner()
            request = file_pb2.ExportTreeRequest(start=start, have_complete=True)
            return self._stub.ExportTree(_only(request), metadata=metadata)

        async for message in self._calls.messages(opened, ended=lambda message: message.HasField("end")):
            for content in joiner.take(message.files, message.chunk if message.HasField("chunk") else None):
                start.after_path = content.file.path
                yield content

    async def query(
        self,
        *,
        path_prefix: str = "",
        provider: str = "",
        relation: str = "",
        permission: str = "",
        comment: str = "",
        properties: Mapping[str, str] | None = None,
        page_size: int = 0,
        min_revision: int = 0,
    ) -> AsyncIterator[File]:
        """Files for which every condition that is given holds, by path. Answered from indexes."""
        request = file_pb2.QueryFilesRequest(
            workspace_id=self._workspace_id,
            path_prefix=sendable(path_prefix, "path_prefix"),
            provider=provider,
            relation=relation,
            permission=permission,
            comment=comment,
            properties=dict(properties or {}),
            page_size=page_size,
            min_revision=min_revision,
        )
        while True:
            page = await self._calls.unary(self._stub.QueryFiles, request)
            for file in page.files:
                yield file_of(file)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def digest(self, path: str = "/", *, partial: bool = False, min_revision: int = 0) -> Digest:
        """What a directory holds, proven by one sum. `partial`: of what the caller may read, where that is not all."""
        request = file_pb2.GetTreeDigestRequest(
            workspace_id=self._workspace_id, path=sendable(path), partial=partial, min_revision=min_revision
        )
        answer = await self._calls.unary(self._stub.GetTreeDigest, request)
        return Digest(directory_of(answer.directory), answer.partial, Cursor(answer.revision, answer.history_id))

    async def write(
        self,
        path: str,
        content: bytes,
        *,
        if_revision: int | None = None,
        force: bool = False,
        content_type: str = "",
        semantics: Semantics | None = None,
        request_id: str = "",
    ) -> Written:
        """Create or replace a file. Say which revision is to be replaced, 0 for a new file, or `force`.

        `RevisionConflict`, `PreconditionRequired`, `FileNotFound`, `InvalidPath`, `TooLarge`, `QuotaExceeded`. Without
        a `request_id` one is made for the call, so that its own repeats write once.
        """
        head = file_pb2.WriteFileRequest(
            workspace_id=self._workspace_id,
            path=sendable(path),
            content_type=content_type,
            if_revision=if_revision,
            force=force,
            semantics=None if semantics is None else semantics_message(semantics),
            request_id=request_id or self._new_id(),
        )
        if len(content) <= CHUNK_BYTES:
            head.content = content
            answer = await self._calls.unary(self._stub.WriteFile, head)
            return Written(file_of(answer.file), answer.changed, answer.operation_id)
        limit_s = self._calls.limits.call_timeout_s

        async def attempt(metadata: Metadata) -> file_pb2.UploadFileResponse:
            messages = _upload(head, content)
            return await self._stub.UploadFile(messages, metadata=metadata, timeout=limit_s)

        uploaded = await self._calls.repeated(attempt, limit_s)
        return Written(file_of(uploaded.file), uploaded.changed, uploaded.operation_id)

    async def write_many(self, items: Sequence[Write | Delete | Move]) -> Sequence[ItemResult]:
        """Independent items with a result each, in order. As many calls as their sizes need, each one commit.

        An error of a call as a whole is raised; what earlier calls did stays done.
        """
        results: list[ItemResult] = []
        for batch in _batches(items):
            request = file_pb2.WriteFilesRequest(
                workspace_id=self._workspace_id,
                items=[item_message(item) for item in batch],
                request_id=self._new_id(),
            )
            answer = await self._calls.unary(self._stub.WriteFiles, request)
            results += [item_result(item, result) for item, result in zip(batch, answer.results, strict=True)]
        return results

    async def delete(
        self, path: str, *, if_revision: int | None = None, force: bool = False, request_id: str = ""
    ) -> Deleted:
        """Delete a file at this revision, or with `force` at any. `FileNotFound`, `RevisionConflict`."""
        request = file_pb2.DeleteFileRequest(
            workspace_id=self._workspace_id,
            path=sendable(path),
            if_revision=if_revision,
            force=force,
            request_id=request_id or self._new_id(),
        )
        answer = await self._calls.unary(self._stub.DeleteFile, request)
        return Deleted(answer.revision, answer.operation_id)

    async def move(
        self,
        path: str,
        to_path: str,
        *,
        if_revision: int | None = None,
        force: bool = False,
        request_id: str = "",
    ) -> Written:
        """Move a file to a path that does not exist. `FileNotFound`, `RevisionConflict`, `InvalidPath`."""
        request = file_pb2.MoveFileRequest(
            workspace_id=self._workspace_id,
            path=sendable(path),
            to_path=sendable(to_path, "to_path"),
            if_revision=if_revision,
            force=force,
            request_id=request_id or self._new_id(),
        )
        answer = await self._calls.unary(self._stub.MoveFile, request)
        return Written(file_of(answer.file), changed=True, operation_id=answer.operation_id)

    async def _asked(self, paths: Sequence[str], min_revision: int) -> AsyncIterator[file_pb2.ReadFilesRequest]:
        for start in range(0, len(paths), PATHS_PER_MESSAGE):
            yield file_pb2.ReadFilesRequest(
                workspace_id=self._workspace_id,
                paths=paths[start : start + PATHS_PER_MESSAGE],
                min_revision=0 if start else min_revision,
            )


async def _only(request: file_pb2.ExportTreeRequest) -> AsyncIterator[file_pb2.ExportTreeRequest]:
    yield request


async def _upload(head: file_pb2.WriteFileRequest, content: bytes) -> AsyncIterator[file_pb2.UploadFileRequest]:
    yield file_pb2.UploadFileRequest(head=head, size_bytes=len(content))
    for piece in pieces(content):
        yield file_pb2.UploadFileRequest(chunk=piece)


def _batches(items: Sequence[Write | Delete | Move]) -> list[Sequence[Write | Delete | Move]]:
    """Neighbours that fit into one call; an item that is too large by itself goes alone, and is refused by the node."""
    batches: list[Sequence[Write | Delete | Move]] = []
    start = size = 0
    for index, item in enumerate(items):
        item_bytes = _ITEM_BYTES + 4 * len(item.path) + (len(item.content) if isinstance(item, Write) else 0)
        if index > start and (index - start >= ITEMS_PER_CALL or size + item_bytes > ITEM_BYTES_PER_CALL):
            batches.append(items[start:index])
            start, size = index, 0
        size += item_bytes
    if start < len(items):
        batches.append(items[start:])
    return batches
