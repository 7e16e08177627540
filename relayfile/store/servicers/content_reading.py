"""ReadFile and ReadFiles: contents of files by path.

Owns the ranges of one file and the packing of many. A file is what its path was in one snapshot; large contents follow
by key, so that all of their chunks are of that revision.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass

from relayfile.errors import DataCorrupted, FileNotFound, RevisionConflict
from relayfile.store.access import ReadAccess
from relayfile.store.engine import WorkspaceKey
from relayfile.store.plan.rows import FileRow
from relayfile.store.servicers.checks import Checks
from relayfile.store.servicers.packing import INLINE_BYTES_MAX, RowsPerMessage, chunks, fill_packed, pack
from relayfile.store.servicers.reading import Reading, TimeLeft
from relayfile.store.servicers.wire import fill_file
from relayfile.v1 import file_pb2

PATHS_MAX = 10_000
"""Paths in one request."""
_NOTHING_KNOWN: frozenset[bytes] = frozenset()


@dataclass(frozen=True, slots=True)
class ContentReading:
    """Serves contents."""

    reading: Reading
    message_bytes_target: int

    async def one(
        self, request: file_pb2.ReadFileRequest, call: TimeLeft
    ) -> AsyncGenerator[file_pb2.ReadFileResponse, None]:
        """One file's bytes in chunks; an empty range is one message without data."""
        path = _checked_path(request)
        key = self.reading.key(request.workspace_id)
        await self.reading.reached(key, request.min_revision, call)
        content: bytes | None = None
        async with self.reading.snapshot(key) as (view, _):
            sight = await ReadAccess.current().sight(view)
            row = await sight.file(await view.file(path))
            if row is not None and row.size_bytes <= INLINE_BYTES_MAX:
                content = (await view.contents([row.content_id])).get(row.content_id, b"")
        if row is None:
            raise FileNotFound(path=path)
        if request.if_revision and row.revision != request.if_revision:
            raise RevisionConflict(expected=request.if_revision, current=row.revision)
        start = request.offset_bytes
        end = start + request.limit_bytes if request.limit_bytes else row.size_bytes
        message = file_pb2.ReadFileResponse()
        fill_file(message.file, row)
        if content is not None:
            if len(content) != row.size_bytes:
                raise DataCorrupted(what=f"the content of {path!r}")
            message.data = content[start:end]
            yield message
            return
        sent = 0
        async for chunk in chunks(self.reading.engine, key, row, start, end):
            message.data = chunk.data
            yield message
            message = file_pb2.ReadFileResponse()
            sent += 1
        if not sent:
            yield message

    async def many(
        self, requests: AsyncIterator[file_pb2.ReadFilesRequest], call: TimeLeft
    ) -> AsyncGenerator[file_pb2.ReadFilesResponse, None]:
        """Answers each request's paths, in order, before the next request is read."""
        key: WorkspaceKey | None = None
        answered = 0
        async for request in requests:
            paths = _checked_paths(request, key)
            if key is None:
                key = self.reading.key(request.workspace_id)
                await self.reading.reached(key, request.min_revision, call)
            async for message in self._answer(key, paths, answered):
                yield message
            answered += len(paths)

    async def _answer(
        self, key: WorkspaceKey, paths: Sequence[str], answered: int
    ) -> AsyncGenerator[file_pb2.ReadFilesResponse, None]:
        rows_per_message = RowsPerMessage()
        access = ReadAccess.current()
        at = 0
        while at < len(paths):
            asked = paths[at : at + rows_per_message.limit]
            async with self.reading.snapshot(key) as (view, _):
                rows = await (await access.sight(view)).files(await view.files(asked))
                packed = await pack(view, rows, _NOTHING_KNOWN, self.message_bytes_target)
            rows_per_message.learn(len(packed.rows))
            at += len(packed.rows)
            message = file_pb2.ReadFilesResponse(answered_count=answered + at)
            add = message.files.add
            for path, row in zip(asked, packed.rows, strict=False):
                if row is None:
                    message.missing_paths.append(path)
                else:
                    fill_packed(add(), row, packed, _NOTHING_KNOWN)
            if packed.large is None:
                yield message
                continue
            async for part in self._with_large(key, message, packed.large):
                yield part

    async def _with_large(
        self, key: WorkspaceKey, message: file_pb2.ReadFilesResponse, large: FileRow
    ) -> AsyncGenerator[file_pb2.ReadFilesResponse, None]:
        """The message whose last file is `large`, then that file's chunks. Only the last of them counts it as answered,
        so that a stream that is cut in between is continued with it."""
        answered = message.answered_count
        message.answered_count = answered - 1
        yield message
        async for chunk in chunks(self.reading.engine, key, large):
            yield file_pb2.ReadFilesResponse(chunk=chunk, answered_count=answered - (not chunk.last))


def _checked_path(request: file_pb2.ReadFileRequest) -> str:
    checks = Checks()
    checks.workspace(request.workspace_id)
    path = checks.file_path(request.path)
    checks.not_negative(request.min_revision, "min_revision")
    checks.not_negative(request.offset_bytes, "offset_bytes")
    checks.not_negative(request.limit_bytes, "limit_bytes")
    checks.not_negative(request.if_revision, "if_revision")
    checks.done()
    return path


def _checked_paths(request: file_pb2.ReadFilesRequest, key: WorkspaceKey | None) -> list[str]:
    checks = Checks()
    if key is None:
        checks.workspace(request.workspace_id)
        checks.not_negative(request.min_revision, "min_revision")
    elif request.workspace_id not in ("", key.workspace_id):
        checks.refuse("workspace_id", "is another than in the first message")
    checks.at_most(len(request.paths), PATHS_MAX, "paths", "paths")
    paths: list[str] = [checks.file_path(raw, f"paths[{index}]") for index, raw in enumerate(request.paths)]
    checks.done()
    return paths
