"""The first pull: everything the store has, staged beside the mirror, made durable, renamed into place.

Network, verification and disk overlap: messages are read ahead of the writer thread by a few, never more. It resumes:
what is staged and journalled is not fetched again after a kill; what was staged since the last barrier is read back and
verified first, because a power cut may have taken it.
"""

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Final

from relayfile import faults
from relayfile.errors import DataCorrupted, ExportRefused, MirrorRefused
from relayfile.status import leading_error
from relayfile.syncd import descriptors, names
from relayfile.syncd.journal_pull import PullPhase
from relayfile.syncd.open_mirror import OpenMirror
from relayfile.syncd.place import Placed, place
from relayfile.syncd.progress import Phase, Progress, Via
from relayfile.syncd.rows import Problem, Settled
from relayfile.syncd.stage import STAGED_TREE, Stage, StagedBatch, reason_of
from relayfile.syncd.write_back import WriteBack
from relayfile.syncd.writer import finished
from relayfile.v1.file_pb2 import FileWithContent, ListTreeResponse

AHEAD_MESSAGES_MAX: Final = 4
"""Messages that are read and not yet written (about 1 MiB each)."""
_VERIFY_ROWS: Final = 2_000


async def first_pull(mirror: OpenMirror, progress: Progress, via: Via) -> None:
    """Bring an empty mirror to the revision that the store had when the pull began; the journal holds from then on.

    Called again after any end it goes on where it was. Errors of the store pass through; ``MirrorRefused`` when
    the disk takes nothing more.
    """
    journal = mirror.journal
    mark = journal.first_pull.mark()
    now = await mirror.feed.workspace()
    if mark.phase is PullPhase.NONE or mark.cursor.history_id != now.history_id:
        await mirror.writer.run(mirror.root.empty_staging)
        journal.first_pull.start(now)
    elif mark.phase is not PullPhase.PLACING:
        progress.resumed = True
        await _verify_staged(mirror)
    progress.start_revision = journal.first_pull.mark().cursor.revision
    if journal.first_pull.mark().phase is not PullPhase.PLACING:
        progress.phase = Phase.FETCHING
        for root in mirror.remote_paths:
            await _fetch(mirror, root, progress, via)
        progress.phase = Phase.SYNCING
        faults.point("syncd.stage.before_barrier")
        await mirror.writer.run(descriptors.barrier, mirror.root.staging_fd)
        journal.first_pull.staged_all()
        faults.point("syncd.stage.after_barrier_before_rename")
    progress.phase = Phase.APPLYING
    await _place(mirror)


async def _fetch(mirror: OpenMirror, root: str, progress: Progress, via: Via) -> None:
    unordered = mirror.journal.first_pull.mark().phase is PullPhase.STAGING_UNORDERED
    progress.via = Via.TREE if unordered or via is Via.TREE else Via.EXPORT
    if progress.via is Via.EXPORT:
        try:
            async with _staging(mirror, root, progress) as staging:
                await _export(mirror, root, staging, progress)
            return
        except ExportRefused as error:
            if via is Via.EXPORT:
                raise
            progress.via, progress.fallback_reason = Via.TREE, str(error)
    mirror.journal.first_pull.stage_unordered()
    async with _staging(mirror, root, progress) as staging:
        await _tree(mirror, root, staging, progress)


async def _export(mirror: OpenMirror, root: str, staging: "_Staging", progress: Progress) -> None:
    after = mirror.journal.first_pull.staged_after(root)
    if after:
        held = mirror.journal.sums[root]
        progress.reused_count += held.file_count
        progress.advance(held.file_count, held.total_bytes, mirror.clock.monotonic())
    last = after
    async for part in mirror.feed.export(root, after):
        progress.wire_bytes += part.wire_bytes
        if part.totals is not None:
            progress.total = _more(progress.total, (part.totals.file_count, part.totals.total_bytes))
        if part.files:
            last = _in_order(part.files, last)
            await staging.add(part.files)


async def _tree(mirror: OpenMirror, root: str, staging: "_Staging", progress: Progress) -> None:
    """Pages of the listing feed parallel reads: the first read starts with the first page."""
    try:
        await _read_as_listed(mirror, root, staging, progress)
    except BaseExceptionGroup as group:
        error = leading_error(group)
        if error is None:
            raise
        raise error from group


async def _read_as_listed(mirror: OpenMirror, root: str, staging: "_Staging", progress: Progress) -> None:
    last = ""
    async with asyncio.TaskGroup() as tasks:
        async for page in mirror.feed.list_tree(root):
            progress.wire_bytes += page.ByteSize()
            metas = [entry.file for entry in page.entries]
            if not metas:
                continue
            if metas[0].path <= last:
                raise DataCorrupted(what=f"the store lists {metas[0].path!r} after {last!r}")
            last = metas[-1].path
            progress.total = _more(progress.total, (len(metas), sum(meta.size_bytes for meta in metas)))
            for paths in _unknown(mirror, page, progress):
                await mirror.reads.acquire()
                tasks.create_task(_read(mirror, paths, staging, progress))


def _unknown(mirror: OpenMirror, page: ListTreeResponse, progress: Progress) -> Iterable[list[str]]:
    """Paths of the page that are not staged yet, in batches that fill about one message each."""
    known = mirror.journal.load([entry.file.path for entry in page.entries])
    batch: list[str] = []
    size = 0
    for entry in page.entries:
        meta = entry.file
        if meta.path in known:
            progress.reused_count += 1
            progress.advance(1, meta.size_bytes, mirror.clock.monotonic())
            continue
        batch.append(meta.path)
        size += meta.size_bytes
        if len(batch) >= mirror.settings.sync_batch_files_max or size >= mirror.settings.message_bytes_target:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


async def _read(mirror: OpenMirror, paths: list[str], staging: "_Staging", progress: Progress) -> None:
    try:
        async for files, wire_bytes in mirror.feed.read_files(paths):
            progress.wire_bytes += wire_bytes
            if files:
                await staging.add(files)
    finally:
        mirror.reads.release()


class _Staging:
    """Batches on their way through the writer thread, journalled in the order in which they were handed over."""

    def __init__(self, mirror: OpenMirror, root: str, progress: Progress) -> None:
        self._mirror = mirror
        self._root = root
        self._progress = progress
        self._stage = Stage(mirror.root.staging_fd, root, mirror.journal.ignores)
        self._under_way: deque[asyncio.Future[StagedBatch | None]] = deque()
        self._turn = asyncio.Lock()
        settings = mirror.settings
        self._ahead_max = max(1, min(AHEAD_MESSAGES_MAX, settings.sync_read_bytes_max // settings.message_bytes_target))
        self._barrier = mirror.journal.first_pull.mark().barrier
        self._since_barrier_bytes = 0
        self._write_back = WriteBack(mirror.writer, mirror.root.staging_fd)

    async def add(self, files: Sequence[FileWithContent]) -> None:
        """Hand over a message's files; waits while too many are under way."""
        mirror = self._mirror
        async with self._turn:
            while len(self._under_way) >= self._ahead_max:
                await self._settle()
            disk_paths = [_disk_path(mirror, each.file.path) for each in files] if mirror.root.folds else None
            self._under_way.append(
                mirror.writer.submit(self._write, files, disk_paths, self._barrier, mirror.clock.now_us())
            )
            if self._since_barrier_bytes >= mirror.settings.sync_barrier_bytes:
                self._under_way.append(mirror.writer.submit(self._sync))
                self._barrier += 1
                self._since_barrier_bytes = 0

    async def drain(self) -> None:
        """Until everything that was handed over is written and journalled."""
        async with self._turn:
            while self._under_way:
                await self._settle()
            with self._disk_errors():
                await self._write_back.end()

    async def close(self) -> None:
        """Let the thread finish what it has; its rows are kept if they can be."""
        while self._under_way:
            try:
                await self._settle()
            except (DataCorrupted, MirrorRefused):
                continue  # the first failure is already on its way to the caller
        with contextlib.suppress(OSError):  # after an end without failure, ``drain`` has met it
            await self._write_back.end()
        self._stage.close()

    def _write(
        self, files: Sequence[FileWithContent], disk_paths: Sequence[str] | None, barrier: int, now_us: int
    ) -> StagedBatch | None:
        return self._stage.write(files, disk_paths, barrier, now_us)

    def _sync(self) -> StagedBatch | None:
        descriptors.barrier(self._mirror.root.staging_fd)
        return None

    async def _settle(self) -> None:
        future = self._under_way[0]
        try:
            with self._disk_errors():
                batch = await finished(future)
        finally:
            if future.done() and self._under_way and self._under_way[0] is future:
                del self._under_way[0]
        if batch is None:
            self._mirror.journal.first_pull.passed_barrier()
            return
        self._since_barrier_bytes += batch.added.total_bytes
        faults.point("syncd.stage.after_write_before_journal")
        self._mirror.journal.first_pull.stage(self._root, batch.rows, batch.added, batch.problems)
        faults.point("syncd.journal.after_commit")
        self._progress.advance(batch.added.file_count, batch.added.total_bytes, self._mirror.clock.monotonic())
        written = batch.added.file_count - len(batch.problems)
        self._progress.wrote(written, batch.added.total_bytes)
        self._mirror.instruments.files_written_total.inc(written)
        self._mirror.instruments.bytes_written_total.inc(batch.added.total_bytes)
        with self._disk_errors():
            await self._write_back.staged(batch.added.total_bytes)

    @contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason, message = reason_of(error)
            raise MirrorRefused(mirror=self._mirror.root.marker.mirror_id, why=f"{reason}: {message}") from error


@asynccontextmanager
async def _staging(mirror: OpenMirror, root: str, progress: Progress) -> AsyncIterator[_Staging]:
    staging = _Staging(mirror, root, progress)
    try:
        yield staging
        await staging.drain()
    finally:
        await staging.close()


async def _verify_staged(mirror: OpenMirror) -> None:
    """Read back what was staged since the last barrier; what is not intact, and all after it, is fetched again."""
    stage = Stage(mirror.root.staging_fd, "/")
    after = ""
    try:
        while rows := mirror.journal.first_pull.staged_since_barrier(_VERIFY_ROWS, after):
            intact = await mirror.writer.run(stage.intact, rows)
            if intact < len(rows):
                after = rows[intact - 1].path if intact else after
                while lost := mirror.journal.first_pull.staged_since_barrier(_VERIFY_ROWS, after):
                    mirror.journal.first_pull.unstage([row.path for row in lost])
                return
            after = rows[-1].path
    finally:
        stage.close()


async def _place(mirror: OpenMirror) -> None:
    mirror.root.check()
    placed = await mirror.writer.run(_place_all, mirror)
    faults.point("syncd.apply.after_rename_before_journal")
    journal = mirror.journal
    remote = journal.first_pull.renamed()
    rows = journal.load([remote.get(disk, "/" + disk) for disk in (*placed.moved, *placed.refused)])
    moved = [
        Settled(path, rows[path].disk_hash or rows[path].remote_hash, stat)
        for disk, stat in placed.moved.items()
        if (path := remote.get(disk, "/" + disk)) in rows
    ]
    refused = [
        Problem(path, *why, rows[path].revision, mirror.clock.now_us())
        for disk, why in placed.refused.items()
        if (path := remote.get(disk, "/" + disk)) in rows
    ]
    journal.settle(moved)
    journal.settle([Settled(each.path, None) for each in refused])
    journal.list_problems(refused)
    journal.first_pull.finish(now_us=mirror.clock.now_us())
    await mirror.writer.run(mirror.root.empty_staging)


def _place_all(mirror: OpenMirror) -> Placed:
    try:
        tree = descriptors.open_beneath(mirror.root.staging_fd, STAGED_TREE)
    except FileNotFoundError:
        return Placed()
    try:
        placed = place(tree, mirror.root.fd)
        # The bytes are behind a barrier already; what is left are names: of the root, or deeper where it was merged.
        if any("/" in disk for disk in placed.moved):
            descriptors.barrier(mirror.root.fd)
        else:
            os.fsync(mirror.root.fd)
        return placed
    finally:
        os.close(tree)


def _in_order(files: Sequence[FileWithContent], last: str) -> str:
    """The last path; an export that repeats itself or goes back would never end."""
    first = files[0].file.path
    if first <= last:
        raise DataCorrupted(what=f"the store exports {first!r} after {last!r}")
    return files[-1].file.path


def _disk_path(mirror: OpenMirror, path: str) -> str:
    return path[1:] if mirror.journal.ignores(path) or names.refusal(path) else mirror.journal.unfolded(path)


def _more(total: tuple[int, int], added: tuple[int, int]) -> tuple[int, int]:
    return total[0] + added[0], total[1] + added[1]
