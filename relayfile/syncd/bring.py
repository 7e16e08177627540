"""Bringing pending files to disk: deletes that are believed, then content in packed reads, applied as it comes.

The journal says what is pending and why; this does it and tells the journal what became of it. One file that cannot be
fetched or written blocks nothing. Refuses to decide what the store has.
"""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from relayfile.errors import RelayfileError
from relayfile.status import leading_error
from relayfile.syncd import descriptors, safety
from relayfile.syncd.apply import Application, Applied, Wanted
from relayfile.syncd.descriptors import Directories, split
from relayfile.syncd.open_mirror import OpenMirror
from relayfile.syncd.progress import Progress
from relayfile.syncd.root import Root
from relayfile.syncd.rows import FileRow, FileState, RemoteFile
from relayfile.syncd.trash import TrashEntry
from relayfile.v1.file_pb2 import FileWithContent

_PAGE_ROWS: Final = 5_000
_EVICT_MAX: Final = 10_000
REUSE_BYTES_MAX: Final = 1 << 20
"""Content of moved files up to this size is taken from the disk instead of the store."""


@dataclass(frozen=True, slots=True)
class DeletePlan:
    """Deletes that wait for somebody's decision (I4)."""

    rule: str
    delete_count: int
    delete_bytes: int
    tracked_count: int
    sample_paths: tuple[str, ...]
    plan_id: str = ""
    """The same for the same files."""
    create_time_us: int = 0
    from_directory: bool = False
    """Files would be deleted in the store; False: on disk."""


class MassDelete(Exception):
    """The plan deletes too much to be believed; nothing of it was done."""

    def __init__(self, plan: DeletePlan) -> None:
        where = " in the store" if plan.from_directory else ""
        super().__init__(f"{plan.rule}: {plan.delete_count} of {plan.tracked_count} files would be deleted{where}")
        self.plan = plan


async def bring_all(mirror: OpenMirror, progress: Progress, hints: Mapping[str, RemoteFile] | None = None) -> None:
    """Everything that is pending. ``hints`` are the events behind it, where they are known.

    ``MassDelete`` before anything is touched; errors of the store pass through, what was done until then is journalled.
    """
    mirror.root.check()
    reused = await _reuse(mirror, hints or {})
    await delete_all(mirror, hints or {}, progress)
    after = ""
    while rows := mirror.journal.rows(after, _PAGE_ROWS, state=FileState.PENDING):
        after = rows[-1].path
        wanted = await _missing(mirror, [row for row in rows if row.remote_hash is not None], progress)
        ready = [(row, reused[row.path]) for row in wanted if row.path in reused]
        if ready:
            await _apply(mirror, [_wanted(row, content) for row, content in ready], progress)
        await _fetch(mirror, [row for row in wanted if row.path not in reused], progress)
    await evict_trash(mirror)


async def evict_trash(mirror: OpenMirror) -> None:
    """Keep the trash within its bounds."""
    settings = mirror.settings
    oldest_us = mirror.clock.now_us() - round(settings.trash_retention_s * 1_000_000)
    evicted = mirror.journal.trash.evict(settings.trash_bytes_max, oldest_us, _EVICT_MAX)
    if evicted:
        changed = await mirror.writer.run(_unlink, mirror.root, evicted)
        mirror.journal.trash.keep(changed)


def delete_plan(mirror: OpenMirror, hints: Mapping[str, RemoteFile]) -> DeletePlan | None:
    """What is pending and more at once than is to be believed, unless somebody approved it; else None."""
    journal = mirror.journal
    doomed = journal.decisions.doomed({path for path, hint in hints.items() if hint.moved})
    tracked = sum(total.file_count for total in journal.sums.values()) + doomed.count
    asked = safety.crowded(doomed.files_below)
    emptied = [directory for directory in asked if not journal.has_remote_below(directory)]
    rule = safety.refusal(doomed.count, tracked, mirror.settings.delete_files_max, emptied)
    if rule is None:
        return None
    since_us = journal.decisions.wait_for(doomed.plan_id, rule, mirror.clock.now_us())
    return DeletePlan(rule, doomed.count, doomed.size, tracked, doomed.sample, doomed.plan_id, since_us)


async def delete_all(mirror: OpenMirror, hints: Mapping[str, RemoteFile], progress: Progress) -> None:
    """Every file that the store no longer has goes to the trash. ``MassDelete`` before anything is touched."""
    if mirror.rights.is_broken:
        return  # the store's word is not acted on while it fails (I6); they stay pending
    limit = mirror.settings.sync_batch_files_max
    rows = mirror.journal.pending_deletes(limit)
    if not rows:
        return
    plan = delete_plan(mirror, hints)
    if plan is not None:
        raise MassDelete(plan)
    while rows:
        application = _application(mirror, len(rows))
        applied = await mirror.writer.run(application.remove, [_wanted(row, b"") for row in rows])
        applied.trashed = mirror.journal.scopes.labelled(applied.trashed)
        _record(mirror, applied, progress)
        rows = mirror.journal.pending_deletes(limit, rows[-1].path)
    mirror.journal.decisions.done()


async def _missing(mirror: OpenMirror, rows: Sequence[FileRow], progress: Progress) -> list[FileRow]:
    """What is to be fetched: not a file that was given up and came back as it was, if it is still on disk."""
    back = [row for row in rows if row.disk_hash == row.remote_hash]
    if not back:
        return list(rows)
    application = _application(mirror, 0)
    found = await mirror.writer.run(application.find, [_wanted(row, b"") for row in back])
    _record(mirror, found, progress)
    there = {settled.path for settled in found.settled if settled.disk_hash is not None}
    absent = mirror.journal.load([settled.path for settled in found.settled if settled.disk_hash is None])
    return [absent.get(row.path, row) for row in rows if row.path not in there]


async def _fetch(mirror: OpenMirror, rows: Sequence[FileRow], progress: Progress) -> None:
    batches = list(_batches(rows, mirror.settings.sync_batch_files_max, mirror.settings.message_bytes_target))
    if len(batches) == 1:
        await _fetch_batch(mirror, batches[0], progress)
        return
    try:
        async with asyncio.TaskGroup() as tasks:
            for batch in batches:
                tasks.create_task(_fetch_batch(mirror, batch, progress))
    except BaseExceptionGroup as group:
        error: RelayfileError | None = leading_error(group)
        if error is None:
            raise
        raise error from error.__cause__ or group  # the cause says whether a journal is full


async def _fetch_batch(mirror: OpenMirror, batch: Sequence[FileRow], progress: Progress) -> None:
    rows = {row.path: row for row in batch}
    async with mirror.reads:
        async for files, wire_bytes in mirror.feed.read_files(list(rows)):
            progress.wire_bytes += wire_bytes
            wanted = [_fetched(rows[each.file.path], each) for each in files if each.file.path in rows]
            if wanted:
                await _apply(mirror, wanted, progress)


async def _apply(mirror: OpenMirror, wanted: Sequence[Wanted], progress: Progress) -> None:
    application = _application(mirror, len(wanted))
    applied = await mirror.writer.run(application.write, wanted)
    _record(mirror, applied, progress)
    progress.advance(len(wanted), sum(len(each.content) for each in wanted), mirror.clock.monotonic())


def _application(mirror: OpenMirror, files: int) -> Application:
    ids = [mirror.ids.new_id() for _ in range(files)]
    bytes_max = mirror.settings.content_bytes_max
    return Application(mirror.root, ids, mirror.clock.now_us(), mirror.rights.mode, bytes_max)


def _record(mirror: OpenMirror, applied: Applied, progress: Progress) -> None:
    journal = mirror.journal
    now_us = mirror.clock.now_us()
    with journal.together():
        journal.conflicts.found(applied.conflicts)
        journal.settle(applied.settled)
        if applied.problems:
            journal.list_problems(applied.problems)
        journal.problems.add(applied.notices)
        journal.outbox.queue(applied.edits, now_us)
        journal.trash.add(applied.trashed, now_us)
    if applied.edits:
        mirror.rights.edited.set()
    mirror.instruments.conflicts_total.inc(len(applied.conflicts))
    progress.wrote(applied.written_count, applied.written_bytes)
    progress.deleted_count += applied.deleted_count
    mirror.instruments.files_written_total.inc(applied.written_count)
    mirror.instruments.bytes_written_total.inc(applied.written_bytes)


async def _reuse(mirror: OpenMirror, hints: Mapping[str, RemoteFile]) -> dict[str, bytes]:
    """Content of moved files that is still on disk under their old names."""
    moves = {hint.path: hint for hint in hints.values() if hint.moved_from and hint.size <= REUSE_BYTES_MAX}
    if not moves:
        return {}
    old = mirror.journal.load([hint.moved_from for hint in moves.values()])
    found: dict[str, bytes] = {}
    for path, hint in moves.items():
        row = old.get(hint.moved_from)
        if row is not None and row.disk_hash == hint.content_hash:
            content = await mirror.writer.run(_read, mirror.root.fd, row)
            if hashlib.sha256(content).digest() == hint.content_hash:
                found[path] = content
    return found


def _read(root_fd: int, row: FileRow) -> bytes:
    parent, name = split(row.disk_path)
    try:
        with Directories(root_fd) as directories:
            return descriptors.read(directories.get(parent), name, REUSE_BYTES_MAX)
    except OSError:
        return b""  # not usable: it is fetched


def _unlink(root: Root, evicted: Sequence[TrashEntry]) -> list[TrashEntry]:
    """Those that stay: a program that had the file open has written into it since, and the store has no such bytes."""
    changed: list[TrashEntry] = []
    for entry in evicted:
        found = descriptors.look(root.trash_fd, entry.name)
        if found is None:
            continue
        written = found.st_size != entry.size or found.st_mtime_ns // 1000 > entry.create_time_us
        content_hash = root.trashed_hash(entry.name) if written else entry.content_hash
        if content_hash == entry.content_hash:
            descriptors.unlink(root.trash_fd, entry.name)
        else:
            changed.append(replace(entry, content_hash=content_hash, size=found.st_size, acknowledged=False))
    return changed


def _wanted(row: FileRow, content: bytes) -> Wanted:
    return Wanted(row.path, row.disk_path, row.disk_hash, row.disk_stat, row.remote_hash, row.revision, content)


def _fetched(row: FileRow, file: FileWithContent) -> Wanted:
    """The content may be newer than the journal knows; then the file stays pending until the event has come."""
    meta = file.file
    return Wanted(
        row.path, row.disk_path, row.disk_hash, row.disk_stat, meta.content_sha256, meta.revision, file.content
    )


def _batches(rows: Sequence[FileRow], files_max: int, bytes_max: int) -> list[list[FileRow]]:
    batches: list[list[FileRow]] = []
    size = bytes_max
    for row in rows:
        if size >= bytes_max or len(batches[-1]) >= files_max:
            batches.append([])
            size = 0
        batches[-1].append(row)
        size += row.size
    return batches
