"""What goes out next: edits that are due, paired to moves, with their bytes read from the disk.

Bytes are sent only if the file is what it was when its edit was queued, before the reading and after it.
"""

import hashlib
import os
from bisect import bisect_left
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Final

from relayfile.paths import ancestors, prefix_range
from relayfile.syncd import descriptors
from relayfile.syncd.delivery import CONTENT_BYTES_MAX, ITEMS_MAX, Parcel
from relayfile.syncd.descriptors import Directories, split
from relayfile.syncd.open_mirror import OpenMirror
from relayfile.syncd.rows import DiskStat, EditKind, Entry, EntryState

_ORDER: Final = {EditKind.DELETE: 0, EditKind.MOVED_AWAY: 1, EditKind.MOVE: 2, EditKind.WRITE: 3}
"""What is deleted makes room: for a directory where a file was, and the other way round."""


async def pack(mirror: OpenMirror, alone: AbstractSet[str]) -> tuple[Parcel | None, list[Entry]]:
    """The next parcel, if anything is due, and entries whose files are not what the outbox says: look at them again.

    Paths in ``alone`` go by themselves: a request with one of them was refused as a whole.
    """
    outbox = mirror.journal.outbox
    due = outbox.due(mirror.clock.now_us(), mirror.journal.cursor.revision, ITEMS_MAX)
    is_new = any(each.kind is EditKind.WRITE and not each.if_revision for each in due)
    chosen = _chosen(due, outbox.movable() if is_new else (), alone)  # only what is new was moved, or needs room
    contents = await mirror.writer.run(read_all, mirror.root.fd, chosen)
    ready = [(entry, content) for entry, content in zip(chosen, contents, strict=True) if content is not None]
    stale = [entry for entry, content in zip(chosen, contents, strict=True) if content is None]
    halves = {entry.from_path for entry, _ in ready if entry.kind is EditKind.MOVE}
    ready = [each for each in ready if each[0].kind is not EditKind.MOVED_AWAY or each[0].path in halves]
    if not ready:
        return None, stale
    request_id = mirror.ids.new_id()
    entries = [replace(entry, request_id=request_id, state=EntryState.SENT) for entry, _ in ready]
    return Parcel(request_id, entries, [content for _, content in ready], mirror.journal.cursor.history_id), stale


async def repack(mirror: OpenMirror, entries: Sequence[Entry]) -> Parcel | None:
    """The parcel of a request whose answer is not known, byte for byte; None when the disk no longer has it."""
    contents = await mirror.writer.run(read_all, mirror.root.fd, entries)
    whole = [content for content in contents if content is not None]
    if len(whole) != len(entries):
        return None
    return Parcel(entries[0].request_id, entries, whole, mirror.journal.cursor.history_id)


def _chosen(due: Sequence[Entry], movable: Sequence[Entry], alone: AbstractSet[str]) -> list[Entry]:
    """As many as one request takes, the other halves of moves among them."""
    sources = {
        (each.base_stat.device, each.base_stat.inode, each.base_hash): each for each in movable if each.base_stat
    }
    room = _Room(movable)
    taken: dict[str, Entry] = {}
    size = 0
    for entry in due:
        if entry.path in taken:
            continue
        bytes_now = entry.disk_stat.size if entry.kind is EditKind.WRITE and entry.disk_stat is not None else 0
        source = _source(entry, sources)
        if source is not None and source.path not in taken and alone.isdisjoint((entry.path, source.path)):
            if len(taken) + 2 > ITEMS_MAX:
                break
            taken[source.path] = replace(source, kind=EditKind.MOVED_AWAY)
            taken[entry.path] = replace(entry, kind=EditKind.MOVE, from_path=source.path)
            continue
        if entry.path in alone or bytes_now > CONTENT_BYTES_MAX:
            if not taken:
                return [entry]
            continue
        if size + bytes_now > CONTENT_BYTES_MAX or len(taken) >= ITEMS_MAX:
            break
        size += bytes_now
        taken[entry.path] = entry
        if entry.kind is EditKind.WRITE and not entry.if_revision:
            for delete in room.needed(entry.path, ITEMS_MAX - len(taken)):
                taken.setdefault(delete.path, delete)
    return sorted(taken.values(), key=lambda each: (_ORDER[each.kind], each.sequence))


class _Room:
    """Deletes that wait, and that must come first: of a file that is a directory now, or the other way round."""

    def __init__(self, deletes: Sequence[Entry]) -> None:
        self._deletes = {each.path: each for each in deletes}
        self._paths = sorted(self._deletes)

    def needed(self, path: str, limit: int) -> list[Entry]:
        """Those that a new file at ``path`` needs, up to ``limit``."""
        needed = [self._deletes[above] for above in ancestors(path) if above in self._deletes]
        below, end = prefix_range(path)
        for each in self._paths[bisect_left(self._paths, below) :]:
            if each >= end:
                break
            needed.append(self._deletes[each])
        return needed[:limit]


def _source(entry: Entry, sources: dict[tuple[int, int, bytes | None], Entry]) -> Entry | None:
    """The deleted file that this new one was: the same inode with the same content."""
    if entry.kind is not EditKind.WRITE or entry.if_revision or entry.disk_stat is None:
        return None
    return sources.pop((entry.disk_stat.device, entry.disk_stat.inode, entry.content_hash), None)


def read_all(root_fd: int, entries: Sequence[Entry]) -> list[bytes | None]:
    """In the writer thread: contents; empty where none is sent, None where the file is not what the entry says."""
    with Directories(root_fd) as directories:
        return [_read(directories, each) if each.kind in (EditKind.WRITE, EditKind.MOVE) else b"" for each in entries]


def _read(directories: Directories, entry: Entry) -> bytes | None:
    parent, name = split(entry.disk_path)
    stat = entry.disk_stat
    assert stat is not None, entry
    try:
        directory = directories.get(parent)
        if entry.kind is EditKind.MOVE:
            return b"" if _stat(directory, name) == stat else None
        if _stat(directory, name) != stat:
            return None
        content = descriptors.read(directory, name, stat.size)
        return content if _stat(directory, name) == stat and _is(content, entry) else None
    except OSError:
        return None


def _stat(directory: int, name: str) -> DiskStat:
    return descriptors.stat_of(os.stat(name, dir_fd=directory, follow_symlinks=False))


def _is(content: bytes, entry: Entry) -> bool:
    return hashlib.sha256(content).digest() == entry.content_hash
