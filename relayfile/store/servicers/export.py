"""ExportTree: a subtree's metadata and content in one pass.

Owns admission (the tree's size, exports at once), what the caller already has, and the order of an export's messages:
totals, files by path, the end. Each message is one short snapshot continued by path, so that an export of any length
keeps no snapshot open and costs the memory of one message.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import AsyncExitStack, aclosing, contextmanager
from dataclasses import dataclass

from relayfile.errors import ExportRefused, InvalidArgument
from relayfile.paths import TreePath, contains
from relayfile.store.access import ReadAccess, Tree
from relayfile.store.engine import WorkspaceKey
from relayfile.store.plan.rows import FileRow
from relayfile.store.servicers.archive import Archive, archive_of
from relayfile.store.servicers.checks import Checks
from relayfile.store.servicers.have import HASH_BYTES, HASHES_MAX, HaveSet
from relayfile.store.servicers.packing import (
    CHUNK_BYTES_MAX,
    Known,
    Packed,
    RowsPerMessage,
    chunks,
    content_of,
    fill_packed,
    pack,
)
from relayfile.store.servicers.reading import Reading, Snapshot, TimeLeft
from relayfile.store.servicers.wire import fill_totals
from relayfile.v1 import file_pb2

NOTHING_KNOWN: Known = frozenset()
_ROWS_PER_TURN = 100
"""Heads of a tar that are made without a pause: 2 ms."""


@dataclass(frozen=True, slots=True)
class ExportLimits:
    """What is exported at all."""

    files_max: int
    concurrent_max: int
    message_bytes_target: int


@dataclass(slots=True)
class _Progress:
    """Where an export is."""

    key: WorkspaceKey
    path: TreePath
    after: str
    access: ReadAccess
    file_count: int = 0
    total_bytes: int = 0
    at_end: bool = False

    def count(self, row: FileRow) -> None:
        """A file is in a message."""
        self.file_count += 1
        self.total_bytes += row.size_bytes


class TreeExport:
    """Serves exports, a bounded number at once."""

    def __init__(self, reading: Reading, limits: ExportLimits) -> None:
        self._reading = reading
        self._limits = limits
        self._running = 0

    async def messages(
        self, requests: AsyncIterator[file_pb2.ExportTreeRequest], call: TimeLeft
    ) -> AsyncGenerator[file_pb2.ExportTreeResponse, None]:
        """The whole answer to one call."""
        with self._admitted():
            start, have = await _question(requests)
            progress, archive = self._checked(start, has_known=have is not NOTHING_KNOWN)
            await self._reading.reached(progress.key, start.min_revision, call)
            yield await self._opening(progress)
            if archive is not None:
                async with aclosing(self._archived(progress, archive)) as answers:
                    async for answer in answers:
                        yield answer
                return
            rows_per_message = RowsPerMessage()
            while not progress.at_end:
                message, large, end = await self._message(progress, have, rows_per_message)
                if not message.files and end is None:
                    continue  # nothing of these rows is for the caller
                if large is None:
                    if end is not None:
                        message.end.CopyFrom(end)
                    yield message
                    continue
                yield message
                async for chunk in chunks(self._reading.engine, progress.key, large):
                    yield file_pb2.ExportTreeResponse(chunk=chunk)
                if end is not None:
                    yield file_pb2.ExportTreeResponse(revision=end.revision, history_id=message.history_id, end=end)

    @contextmanager
    def _admitted(self) -> Iterator[None]:
        if self._running >= self._limits.concurrent_max:
            raise ExportRefused(why=f"{self._running} exports are running")
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1

    async def _archived(
        self, progress: _Progress, archive: Archive
    ) -> AsyncGenerator[file_pb2.ExportTreeResponse, None]:
        """Files as bytes of one stream. Each piece is sent before the next is read: memory is that of a message."""
        rows_per_message = RowsPerMessage()
        while not progress.at_end:
            message, packed, end = await self._next(progress, NOTHING_KNOWN, rows_per_message)
            buffer = bytearray()
            async with self._reading.turns.piece():
                for index, row in enumerate(packed.rows):
                    assert row is not None, "listed rows exist"
                    progress.count(row)
                    buffer += archive.head(row)
                    if row is packed.large:
                        break
                    buffer += archive.piece(content_of(row, packed)) + archive.tail(row)
                    if index % _ROWS_PER_TURN == _ROWS_PER_TURN - 1:
                        await asyncio.sleep(0)
            if packed.large is not None:
                for piece in _pieces(message, buffer):
                    yield piece
                async for chunk in chunks(self._reading.engine, progress.key, packed.large):
                    for piece in _pieces(message, archive.piece(chunk.data)):
                        yield piece
                buffer = bytearray(archive.tail(packed.large))
            if end is not None:
                buffer += archive.end()
            for piece in _pieces(message, buffer, ends=end is not None):
                yield piece
            if end is not None:
                end.file_count, end.total_bytes = progress.file_count, progress.total_bytes
                yield file_pb2.ExportTreeResponse(revision=end.revision, history_id=message.history_id, end=end)

    def _checked(self, start: file_pb2.ExportStart, *, has_known: bool) -> tuple[_Progress, Archive | None]:
        checks = Checks()
        archive = None
        try:
            archive = archive_of(start.format)
        except ValueError:
            checks.refuse("start.format", f"is {start.format}, which names no format")
        checks.require(archive is None or not has_known, "have_sha256", "is for messages of files, not for an archive")
        checks.workspace(start.workspace_id, "start.workspace_id")
        path = checks.directory_path(start.path, "start.path")
        checks.not_negative(start.min_revision, "start.min_revision")
        after = ""
        if start.after_path:
            after = checks.file_path(start.after_path, "start.after_path")
            checks.require(contains(path, after), "start.after_path", f"is not below {path!r}")
        checks.done()
        key = self._reading.ownership.local_key(start.workspace_id)  # no call that other bulk work makes way for
        return _Progress(key, path, after, ReadAccess.current()), archive

    async def _opening(self, progress: _Progress) -> file_pb2.ExportTreeResponse:
        async with self._reading.described(progress.key, progress.access, [progress.path]) as (snapshot, [found]):
            tree, workspace = found.row, snapshot.workspace
        if tree is not None and tree.file_count > self._limits.files_max:
            raise ExportRefused(why=f"the tree has {tree.file_count} files, at most {self._limits.files_max} are sent")
        message = file_pb2.ExportTreeResponse(revision=workspace.revision, history_id=workspace.history_id)
        fill_totals(message.totals, tree)
        return message

    async def _message(
        self, progress: _Progress, have: Known, per_message: RowsPerMessage
    ) -> tuple[file_pb2.ExportTreeResponse, FileRow | None, file_pb2.ExportEnd | None]:
        message, packed, end = await self._next(progress, have, per_message)
        add = message.files.add
        async with self._reading.turns.piece():  # rows and contents were half of a message's time, this is the rest
            for row in packed.rows:
                assert row is not None, "listed rows exist"
                fill_packed(add(), row, packed, have)
                progress.count(row)
        if end is not None:
            end.file_count, end.total_bytes = progress.file_count, progress.total_bytes
        return message, packed.large, end

    async def _next(
        self, progress: _Progress, have: Known, per_message: RowsPerMessage
    ) -> tuple[file_pb2.ExportTreeResponse, Packed, file_pb2.ExportEnd | None]:
        """(a message without files, the next files with their contents, the end if they are the last)."""
        tree: Tree | None = None
        turns = self._reading.turns
        async with AsyncExitStack() as stack:
            async with turns.piece():
                snapshot = await stack.enter_async_context(self._reading.snapshot(progress.key))
                rows, at_end = await _next_rows(snapshot, progress, turns.rows(per_message.limit))
                sight = await progress.access.sight(snapshot.view)
                seen = await sight.only(rows)
                packed = await pack(snapshot.view, seen, have, self._limits.message_bytes_target)
            whole = len(packed.rows) == len(seen)
            progress.at_end = at_end and whole
            if progress.at_end:
                tree = await self._reading.totals.remembered(sight, progress.path)
            revision, history_id = snapshot.workspace.revision, snapshot.workspace.history_id
        per_message.learn(len(rows) if whole else len(packed.rows))
        if whole and rows:
            progress.after = rows[-1].path
        elif packed.rows:
            progress.after = seen[len(packed.rows) - 1].path
        message = file_pb2.ExportTreeResponse(revision=revision, history_id=history_id)
        if not progress.at_end:
            return message, packed, None
        if tree is None:  # in snapshots of its own, the last of which is the export's
            async with self._reading.described(progress.key, progress.access, [progress.path]) as (last, [tree]):
                revision = last.workspace.revision
        end = file_pb2.ExportEnd(revision=revision)
        fill_totals(end.totals, tree.row)
        return message, packed, end


def _pieces(
    message: file_pb2.ExportTreeResponse, data: bytes | bytearray, *, ends: bool = False
) -> Iterator[file_pb2.ExportTreeResponse]:
    """Bytes of an archive, of the snapshot that `message` names."""
    for start in range(0, len(data), CHUNK_BYTES_MAX):
        piece = file_pb2.ExportTreeResponse(revision=message.revision, history_id=message.history_id)
        piece.chunk.data = bytes(data[start : start + CHUNK_BYTES_MAX])
        piece.chunk.last = ends and start + CHUNK_BYTES_MAX >= len(data)
        yield piece


async def _question(
    requests: AsyncIterator[file_pb2.ExportTreeRequest],
) -> tuple[file_pb2.ExportStart, Known]:
    """The start, and what the caller has."""
    start: file_pb2.ExportStart | None = None
    have: HaveSet | None = None
    async for request in requests:
        if start is None:
            if not request.HasField("start"):
                raise InvalidArgument.of("start", "is required in the first message")
            start = request.start
        elif request.HasField("start"):
            raise InvalidArgument.of("start", "is accepted only in the first message")
        if request.have_sha256:
            have = have or HaveSet()
            _take(have, request.have_sha256)
            await asyncio.sleep(0)
        if request.have_complete:
            break
    else:
        raise InvalidArgument.of("have_complete", "did not come before the end of the requests")
    return start, NOTHING_KNOWN if have is None else have


def _take(have: HaveSet, hashes: bytes) -> None:
    if len(hashes) % HASH_BYTES:
        raise InvalidArgument.of("have_sha256", f"has {len(hashes)} bytes, which is not a multiple of {HASH_BYTES}")
    if len(have) + len(hashes) // HASH_BYTES > HASHES_MAX:
        raise InvalidArgument.of("have_sha256", f"has more than {HASHES_MAX} hashes")
    have.add(hashes)


async def _next_rows(snapshot: Snapshot, progress: _Progress, limit: int) -> tuple[list[FileRow], bool]:
    """(the next rows, whether there are no more after them)."""
    rows = await snapshot.view.list_files(progress.path, progress.after, limit)
    if not rows and not progress.after:
        file = await snapshot.view.file(progress.path)
        return ([] if file is None else [file]), True
    return rows, len(rows) < limit
