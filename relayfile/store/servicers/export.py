"""ExportTree: a subtree's metadata and content in one pass.

Owns admission (the tree's size, exports at once), what the caller already has, and the order of an export's messages:
totals, files by path, the end. Each message is one short snapshot continued by path, so that an export of any length
keeps no snapshot open and costs the memory of one message.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from relayfile.errors import ExportRefused, InvalidArgument, ServedLater
from relayfile.paths import TreePath, contains
from relayfile.store.access import ReadAccess
from relayfile.store.engine import WorkspaceKey
from relayfile.store.plan.rows import DirectoryRow, FileRow
from relayfile.store.servicers.checks import Checks
from relayfile.store.servicers.have import HASH_BYTES, HASHES_MAX, HaveSet
from relayfile.store.servicers.packing import Known, Packed, RowsPerMessage, chunks, fill_packed, pack
from relayfile.store.servicers.reading import Reading, Snapshot, TimeLeft
from relayfile.store.servicers.wire import fill_totals
from relayfile.v1 import file_pb2


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
            progress = self._checked(start)
            await self._reading.reached(progress.key, start.min_revision, call)
            yield await self._opening(progress)
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

    def _checked(self, start: file_pb2.ExportStart) -> _Progress:
        if start.format:
            raise ServedLater(rpc="relayfile.v1.FileService/ExportTree as tar or JSON lines")
        checks = Checks()
        checks.workspace(start.workspace_id, "start.workspace_id")
        path = checks.directory_path(start.path, "start.path")
        checks.not_negative(start.min_revision, "start.min_revision")
        after = ""
        if start.after_path:
            after = checks.file_path(start.after_path, "start.after_path")
            checks.require(contains(path, after), "start.after_path", f"is not below {path!r}")
        checks.done()
        return _Progress(self._reading.key(start.workspace_id), path, after, ReadAccess.current())

    async def _opening(self, progress: _Progress) -> file_pb2.ExportTreeResponse:
        async with self._reading.snapshot(progress.key) as (view, workspace):
            sight = await progress.access.sight(view)
            tree = (await self._reading.totals.tree(sight, progress.path)).row
        if tree is not None and tree.file_count > self._limits.files_max:
            raise ExportRefused(why=f"the tree has {tree.file_count} files, at most {self._limits.files_max} are sent")
        message = file_pb2.ExportTreeResponse(revision=workspace.revision, history_id=workspace.history_id)
        fill_totals(message.totals, tree)
        return message

    async def _message(
        self, progress: _Progress, have: Known, per_message: RowsPerMessage
    ) -> tuple[file_pb2.ExportTreeResponse, FileRow | None, file_pb2.ExportEnd | None]:
        tree: DirectoryRow | None = None
        async with self._reading.snapshot(progress.key) as snapshot:
            rows, at_end = await _next_rows(snapshot, progress, per_message.limit)
            sight = await progress.access.sight(snapshot.view)
            seen = await sight.only(rows)
            packed = await pack(snapshot.view, seen, have, self._limits.message_bytes_target)
            whole = len(packed.rows) == len(seen)
            progress.at_end = at_end and whole
            if progress.at_end:
                tree = (await self._reading.totals.tree(sight, progress.path)).row
            revision, history_id = snapshot.workspace.revision, snapshot.workspace.history_id
        per_message.learn(len(rows) if whole else len(packed.rows))
        await asyncio.sleep(0)  # rows and contents are half of a message's time: others get a turn before the rest
        message = file_pb2.ExportTreeResponse(revision=revision, history_id=history_id)
        _fill(message, packed, have, progress)
        if whole and rows:
            progress.after = rows[-1].path
        if not progress.at_end:
            return message, packed.large, None
        end = file_pb2.ExportEnd(file_count=progress.file_count, total_bytes=progress.total_bytes, revision=revision)
        fill_totals(end.totals, tree)
        return message, packed.large, end


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
    return start, frozenset() if have is None else have


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


def _fill(message: file_pb2.ExportTreeResponse, packed: Packed, have: Known, progress: _Progress) -> None:
    add = message.files.add
    for row in packed.rows:
        assert row is not None, "listed rows exist"
        fill_packed(add(), row, packed, have)
        progress.file_count += 1
        progress.total_bytes += row.size_bytes
        progress.after = row.path
