"""FileService: every RPC about files.

Owns the servicer's methods and the two lookups of metadata; listings, queries, contents, exports, digests and writes
have modules of their own.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from relayfile.errors import FileNotFound
from relayfile.store.access import ReadAccess
from relayfile.store.engine import WorkspaceKey
from relayfile.store.plan.rows import FileRow, WorkspaceRow
from relayfile.store.servicers.checks import Checks
from relayfile.store.servicers.content_reading import PATHS_MAX, ContentReading
from relayfile.store.servicers.export import ExportLimits, TreeExport
from relayfile.store.servicers.file_query import FileQuery
from relayfile.store.servicers.file_upload import FileUpload
from relayfile.store.servicers.file_writing import FileWriting
from relayfile.store.servicers.reading import Reading
from relayfile.store.servicers.tree_digest import TreeDigest
from relayfile.store.servicers.tree_listing import TreeListing
from relayfile.store.servicers.wire import fill_file
from relayfile.v1 import file_pb2, file_pb2_grpc

if TYPE_CHECKING:
    from relayfile.interception import Context

_SLICE_FILES = 2_000
_SLICED_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """How much one answer or message holds."""

    page_entries_default: int
    page_entries_max: int
    message_bytes_target: int
    export_files_max: int
    exports_concurrent_max: int


class FileService(file_pb2_grpc.FileServiceServicer):
    """Reads and writes of files."""

    def __init__(self, reading: Reading, limits: ReadLimits, writing: FileWriting, uploads: FileUpload) -> None:
        self._reading = reading
        self._writing = writing
        self._uploads = uploads
        self._listing = TreeListing(reading, limits.page_entries_default, limits.page_entries_max)
        self._contents = ContentReading(reading, limits.message_bytes_target)
        self._digest = TreeDigest(reading)
        self._query = FileQuery(reading)
        self._export = TreeExport(
            reading, ExportLimits(limits.export_files_max, limits.exports_concurrent_max, limits.message_bytes_target)
        )

    async def ListTree(
        self, request: file_pb2.ListTreeRequest, context: "Context"
    ) -> AsyncIterator[file_pb2.ListTreeResponse]:
        async with aclosing(self._listing.pages(request, context)) as pages:
            async for page in pages:
                yield page

    async def GetFile(self, request: file_pb2.GetFileRequest, context: "Context") -> file_pb2.GetFileResponse:
        checks = Checks()
        checks.workspace(request.workspace_id)
        path = checks.file_path(request.path)
        checks.not_negative(request.min_revision, "min_revision")
        checks.done()
        key = self._reading.key(request.workspace_id)
        await self._reading.reached(key, request.min_revision, context)
        async with self._reading.snapshot(key) as (view, workspace):
            sight = await ReadAccess.current().sight(view)
            row = await sight.file(await view.file(path))
        if row is None:
            raise FileNotFound(path=path)
        answer = file_pb2.GetFileResponse(history_id=workspace.history_id)
        fill_file(answer.file, row)
        return answer

    async def BatchGetFiles(
        self, request: file_pb2.BatchGetFilesRequest, context: "Context"
    ) -> file_pb2.BatchGetFilesResponse:
        checks = Checks()
        checks.workspace(request.workspace_id)
        checks.at_most(len(request.paths), PATHS_MAX, "paths", "paths")
        paths: list[str] = [checks.file_path(raw, f"paths[{index}]") for index, raw in enumerate(request.paths)]
        checks.not_negative(request.min_revision, "min_revision")
        checks.done()
        key = self._reading.key(request.workspace_id)
        await self._reading.reached(key, request.min_revision, context)
        workspace, rows = await self._rows(key, paths)
        answer = file_pb2.BatchGetFilesResponse(revision=workspace.revision, history_id=workspace.history_id)
        for index, (path, row) in enumerate(zip(paths, rows, strict=True)):
            if index % _SLICE_FILES == _SLICE_FILES - 1:
                await asyncio.sleep(0)
            if row is None:
                answer.missing_paths.append(path)
            else:
                fill_file(answer.files.add(), row)
        return answer

    async def ReadFile(
        self, request: file_pb2.ReadFileRequest, context: "Context"
    ) -> AsyncIterator[file_pb2.ReadFileResponse]:
        async with aclosing(self._contents.one(request, context)) as messages:
            async for message in messages:
                yield message

    async def ReadFiles(
        self, request_iterator: AsyncIterator[file_pb2.ReadFilesRequest], context: "Context"
    ) -> AsyncIterator[file_pb2.ReadFilesResponse]:
        async with aclosing(self._contents.many(request_iterator, context)) as messages:
            async for message in messages:
                yield message

    async def ExportTree(
        self, request_iterator: AsyncIterator[file_pb2.ExportTreeRequest], context: "Context"
    ) -> AsyncIterator[file_pb2.ExportTreeResponse]:
        async with aclosing(self._export.messages(request_iterator, context)) as messages:
            async for message in messages:
                yield message

    async def GetTreeDigest(
        self, request: file_pb2.GetTreeDigestRequest, context: "Context"
    ) -> file_pb2.GetTreeDigestResponse:
        return await self._digest.get(request, context)

    async def WriteFile(self, request: file_pb2.WriteFileRequest, context: "Context") -> file_pb2.WriteFileResponse:
        return await self._writing.write(request)

    async def WriteFiles(self, request: file_pb2.WriteFilesRequest, context: "Context") -> file_pb2.WriteFilesResponse:
        return await self._writing.write_many(request)

    async def UploadFile(
        self, request_iterator: AsyncIterator[file_pb2.UploadFileRequest], context: "Context"
    ) -> file_pb2.UploadFileResponse:
        return await self._uploads.upload(request_iterator)

    async def DeleteFile(self, request: file_pb2.DeleteFileRequest, context: "Context") -> file_pb2.DeleteFileResponse:
        return await self._writing.delete(request)

    async def MoveFile(self, request: file_pb2.MoveFileRequest, context: "Context") -> file_pb2.MoveFileResponse:
        return await self._writing.move(request)

    async def QueryFiles(self, request: file_pb2.QueryFilesRequest, context: "Context") -> file_pb2.QueryFilesResponse:
        return await self._query.page(request, context)

    async def _rows(self, key: WorkspaceKey, paths: list[str]) -> tuple[WorkspaceRow, list[FileRow | None]]:
        """All rows that the caller may read, at one revision: in slices, so that other calls are served in between, and
        when commits keep coming in between, at once."""
        access = ReadAccess.current()
        for attempt in range(_SLICED_ATTEMPTS):
            step = _SLICE_FILES if attempt < _SLICED_ATTEMPTS - 1 else PATHS_MAX
            first: WorkspaceRow | None = None
            rows: list[FileRow | None] = []
            for start in range(0, max(len(paths), 1), step):
                async with self._reading.snapshot(key) as (view, workspace):
                    first = first or workspace
                    if workspace.revision != first.revision:
                        break
                    sight = await access.sight(view)
                    rows += await sight.files(await view.files(paths[start : start + step]))
                await asyncio.sleep(0)
            if first is not None and len(rows) == len(paths):
                return first, rows
        raise AssertionError("the last attempt reads everything at once")
