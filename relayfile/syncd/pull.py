"""The first pull: everything the store has, staged beside the mirror, made durable, renamed into place.

Network, verification and disk overlap: messages are read ahead of the writer thread by a few, never more. It resumes:
what is staged and journalled is not fetched again after a kill; what was staged since the last barrier is read back and
verified first, because a power cut may have taken it.
"""

import asyncio
import os
from collections.abc import Iterator, Sequence
from typing import Final

from relayfile import faults
from relayfile.errors import DataCorrupted, ExportRefused, MirrorRefused, StorageFailed
from relayfile.status import leading_error
from relayfile.syncd import descriptors
from relayfile.syncd.ignore import IGNORE_FILE
from relayfile.syncd.inventory import HASH_BYTES, Inventory
from relayfile.syncd.journal_pull import PullPhase
from relayfile.syncd.open_mirror import OpenMirror
from relayfile.syncd.place import Placed, place
from relayfile.syncd.progress import Phase, Progress, Via
from relayfile.syncd.rails import wants_room
from relayfile.syncd.rows import Problem, Settled
from relayfile.syncd.stage import STAGED_TREE, Stage
from relayfile.syncd.staging import AHEAD_MESSAGES_MAX, ASKED_BYTES_MAX, Staging, staged
from relayfile.v1.file_pb2 import FileWithContent
from relayfile.v1.types_pb2 import FileMeta

_VERIFY_ROWS: Final = 2_000
_READ_BYTES_MIN: Final = 64 << 10


async def first_pull(mirror: OpenMirror, progress: Progress, via: Via) -> bool:
    """Bring an empty mirror to the revision that the store had when the pull began; the journal holds from then on.

    False when the directory has to be looked at: others' files are there too, or rules that say what to leave alone.
    Called again after any end it goes on where it was. Errors of the store pass through; ``MirrorRefused`` when
    the disk takes nothing more.
    """
    journal = mirror.journal
    mark = journal.first_pull.mark()
    now = await mirror.feed.workspace()
    if mark.phase is PullPhase.NONE or mark.cursor.history_id != now.history_id:
        await mirror.writer.run(mirror.root.set_aside, STAGED_TREE)
        journal.first_pull.start(now)
    elif mark.phase is not PullPhase.PLACING:
        progress.resumed = True
        await _verify_staged(mirror)
    progress.start_revision = journal.first_pull.mark().cursor.revision
    if journal.first_pull.mark().phase is not PullPhase.PLACING:
        await _fetch_all(mirror, progress, via)
        progress.phase = Phase.SYNCING
        faults.point("syncd.stage.before_barrier")
        await mirror.writer.run(descriptors.barrier, mirror.root.staging_fd)
        journal.first_pull.staged_all()
        faults.point("syncd.stage.after_barrier_before_rename")
    progress.phase = Phase.APPLYING
    return await _place(mirror, progress)


async def _fetch_all(mirror: OpenMirror, progress: Progress, via: Via) -> None:
    inventory = Inventory(mirror, progress)
    await inventory.take()
    progress.phase = Phase.FETCHING
    try:
        for root in mirror.remote_paths:
            await _fetch(mirror, root, inventory, progress, via)
    except (MirrorRefused, StorageFailed) as error:
        if wants_room(error):
            await mirror.writer.run(mirror.root.forget_aside)
        raise


async def _fetch(mirror: OpenMirror, root: str, inventory: Inventory, progress: Progress, via: Via) -> None:
    unordered = mirror.journal.first_pull.mark().phase is PullPhase.STAGING_UNORDERED
    progress.via = Via.TREE if unordered or via is Via.TREE else Via.EXPORT
    if progress.via is Via.EXPORT:
        try:
            async with staged(mirror, root, progress) as staging:
                await _export(mirror, root, staging, inventory, progress)
            return
        except ExportRefused as error:
            if via is Via.EXPORT:
                raise
            progress.via, progress.fallback_reason = Via.TREE, str(error)
    mirror.journal.first_pull.stage_unordered()
    async with staged(mirror, root, progress) as staging:
        await _tree(mirror, root, staging, inventory, progress)


async def _export(mirror: OpenMirror, root: str, staging: Staging, inventory: Inventory, progress: Progress) -> None:
    after = mirror.journal.first_pull.staged_after(root)
    if after:
        held = mirror.journal.sums[root]
        progress.reused_count += held.file_count
        progress.advance(held.file_count, held.total_bytes, mirror.clock.monotonic())
    last = after
    progress.wire_bytes += inventory.count * HASH_BYTES
    async for part in mirror.feed.export(root, after, inventory.held.hashes() if inventory.count else ()):
        progress.wire_bytes += part.wire_bytes
        if part.totals is not None:
            progress.total = _more(progress.total, (part.totals.file_count, part.totals.total_bytes))
        if part.files:
            last = _in_order(part.files, last)
            async for files in inventory.filled(part.files):
                await staging.add(files)


async def _tree(mirror: OpenMirror, root: str, staging: Staging, inventory: Inventory, progress: Progress) -> None:
    """Pages of the listing feed parallel reads: the first read starts with the first page."""
    try:
        await _read_as_listed(mirror, root, staging, inventory, progress)
    except BaseExceptionGroup as group:
        error = leading_error(group)
        if error is None:
            raise
        raise error from error.__cause__ or group  # the cause says whether a journal is full


async def _read_as_listed(
    mirror: OpenMirror, root: str, staging: Staging, inventory: Inventory, progress: Progress
) -> None:
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
            held, others = inventory.split(_unknown(mirror, metas, progress))
            async for files in inventory.filled(held):
                await staging.add(files)
            for paths, size in _reads(mirror, others):
                await staging.room(size)
                await mirror.reads.acquire()
                tasks.create_task(_read(mirror, paths, size, staging, progress))


def _unknown(mirror: OpenMirror, metas: Sequence[FileMeta], progress: Progress) -> list[FileMeta]:
    """Files that are not staged yet."""
    known = mirror.journal.load([meta.path for meta in metas])
    for meta in metas:
        if meta.path in known:
            progress.reused_count += 1
            progress.advance(1, meta.size_bytes, mirror.clock.monotonic())
    return [meta for meta in metas if meta.path not in known]


def _reads(mirror: OpenMirror, metas: Sequence[FileMeta]) -> Iterator[tuple[list[str], int]]:
    """Paths, and their bytes, in batches of one read each.

    Not more than a message, and so few that all reads that may be under way find room.
    """
    settings = mirror.settings
    bytes_max = ASKED_BYTES_MAX // (settings.sync_read_concurrency + AHEAD_MESSAGES_MAX)
    bytes_max = min(settings.message_bytes_target, max(_READ_BYTES_MIN, bytes_max))
    batch: list[str] = []
    size = 0
    for meta in metas:
        batch.append(meta.path)
        size += meta.size_bytes
        if len(batch) >= settings.sync_batch_files_max or size >= bytes_max:
            yield batch, size
            batch, size = [], 0
    if batch:
        yield batch, size


async def _read(mirror: OpenMirror, paths: list[str], asked_bytes: int, staging: Staging, progress: Progress) -> None:
    try:
        async for files, wire_bytes in mirror.feed.read_files(paths):
            progress.wire_bytes += wire_bytes
            if files:
                came = min(asked_bytes, sum(each.file.size_bytes for each in files))
                asked_bytes -= came
                await staging.add(files, came)
    finally:
        staging.unasked(asked_bytes)
        mirror.reads.release()


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


async def _place(mirror: OpenMirror, progress: Progress) -> bool:
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
    adopted = [rows[path] for disk in placed.adopted if (path := remote.get(disk, "/" + disk)) in rows]
    progress.found_equal(len(adopted), sum(row.size for row in adopted))
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
    return placed.alone and not journal.first_pull.has_named(IGNORE_FILE)


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


def _more(total: tuple[int, int], added: tuple[int, int]) -> tuple[int, int]:
    return total[0] + added[0], total[1] + added[1]
