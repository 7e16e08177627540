"""Files of remote paths that a mirror no longer has: ours go to the trash, what somebody changed stays where it is."""

import os
from collections.abc import Sequence
from typing import Final

from relayfile.syncd import descriptors
from relayfile.syncd.apply import Trashed
from relayfile.syncd.descriptors import Directories, split
from relayfile.syncd.names import suffixed
from relayfile.syncd.open_mirror import OpenMirror
from relayfile.syncd.place import observe
from relayfile.syncd.reconcile import LocalKind
from relayfile.syncd.root import Root
from relayfile.syncd.rows import FileRow, TrashReason

_BATCH: Final = 1_000


async def leave(mirror: OpenMirror) -> int:
    """With the mirror's turn; how many files went. Called again after a kill it goes on."""
    mirror.root.check()
    count = 0
    while rows := mirror.journal.scopes.leaving(_BATCH):
        ids = [mirror.ids.new_id() for _ in rows]
        trashed = await mirror.writer.run(_leave, mirror.root, rows, ids)
        mirror.journal.trash.add(trashed, mirror.clock.now_us())
        mirror.journal.scopes.left(row.path for row in rows)
        count += len(trashed)
    return count


def _leave(root: Root, rows: Sequence[FileRow], ids: Sequence[str]) -> list[Trashed]:
    trashed: list[Trashed] = []
    with Directories(root.fd) as directories:
        for row, trash_id in zip(rows, ids, strict=True):
            parent, name = split(row.disk_path)
            try:
                gone = _to_trash(root, directories.get(parent), name, row, trash_id)
            except OSError:
                continue  # not there, or not ours to move: it is nobody's from now on
            if gone is not None:
                trashed.append(gone)
                _prune(directories, parent)
    os.fsync(root.trash_fd)
    return trashed


def _to_trash(root: Root, directory: int, name: str, row: FileRow, trash_id: str) -> Trashed | None:
    local, seen = observe(directory, name, row.disk_stat, row.disk_hash)
    if local.kind is not LocalKind.AS_WRITTEN or seen is None:
        return None
    kept = suffixed(name, trash_id)
    descriptors.move_if_absent(directory, name, root.trash_fd, kept)
    out = descriptors.look(root.trash_fd, kept)
    if out is None or not descriptors.stat_of(out).same_file(seen):
        descriptors.move_if_absent(root.trash_fd, kept, directory, name)
        return None
    reason = TrashReason.PATH_DROPPED
    return Trashed(trash_id, kept, row.path, row.disk_path, row.disk_hash or b"", seen.size, row.revision, reason)


def _prune(directories: Directories, directory: str) -> None:
    while directory:
        parent, name = split(directory)
        try:
            os.rmdir(name, dir_fd=directories.get(parent))
        except OSError:
            return  # something is in it
        directories.drop(directory)
        directory = parent
