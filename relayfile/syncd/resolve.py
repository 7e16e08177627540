"""Ending conflicts: the local version goes to its path and is pushed, or it goes to the trash and the store's stays.

Whatever loses is in the trash. A conflict of which a side changed since it was found is not ended but told as it is
now: nobody has chosen between these versions. Refuses to push: what is put in place is an edit as any other.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum

from relayfile.errors import MirrorRefused
from relayfile.syncd import descriptors, kept
from relayfile.syncd.apply import Trashed
from relayfile.syncd.descriptors import Directories, split
from relayfile.syncd.local import take_local
from relayfile.syncd.local_changes import LocalChanges
from relayfile.syncd.names import suffixed
from relayfile.syncd.open_mirror import OpenMirror
from relayfile.syncd.place import observe
from relayfile.syncd.reconcile import ConflictKind, Local, LocalKind, Mode
from relayfile.syncd.root import Root
from relayfile.syncd.rows import Conflict, DiskStat, FileRow, TrashReason
from relayfile.syncd.stage import reason_of


class Choice(IntEnum):
    """Which version stays. The numbers are those of ``relayfile.v1.ConflictChoice``."""

    MINE = 1
    THEIRS = 2


@dataclass(slots=True)
class Resolved:
    """What became of conflicts."""

    ended: list[Conflict] = field(default_factory=list)
    changed: list[Conflict] = field(default_factory=list)
    """A side changed since they were found: as they are now."""
    trashed: list[Trashed] = field(default_factory=list)
    failure: tuple[str, str] | None = None
    """Why the disk did not let the next one end; those after it were not tried."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A conflict to be ended, what the journal knows of the file, and an id for what goes to the trash."""

    conflict: Conflict
    row: FileRow | None
    trash_id: str


async def resolve(mirror: OpenMirror, conflicts: Sequence[Conflict], choice: Choice) -> tuple[Resolved, bool]:
    """With the mirror's turn; also whether `bring` has something to do now.

    ``MirrorRefused`` when the disk does not let it (what was ended before stays so), and for the local versions of a
    mirror that may not send them.
    """
    mirror.root.check()
    mirror_id = mirror.root.marker.mirror_id
    if choice is Choice.MINE and mirror.rights.mode is Mode.READ_ONLY:
        raise MirrorRefused(mirror=mirror_id, why="READ_ONLY: the local version could not be sent; choose theirs")
    journal = mirror.journal
    rows = journal.load([each.path for each in conflicts])
    wanted = [_Wanted(each, rows.get(each.path), mirror.ids.new_id()) for each in conflicts]
    resolved = await mirror.writer.run(_resolve_all, mirror.root, wanted, choice)
    with journal.together():
        journal.trash.add(resolved.trashed, mirror.clock.now_us())
        journal.conflicts.drop([each.conflict_id for each in resolved.ended])
        journal.conflicts.add(resolved.changed)
    pending = await take_local(mirror, LocalChanges(tuple(each.disk_path for each in resolved.ended)))
    if resolved.failure is not None:
        reason, message = resolved.failure
        raise MirrorRefused(mirror=mirror_id, why=f"{reason}: {message}")
    return resolved, pending


def _resolve_all(root: Root, wanted: Sequence[_Wanted], choice: Choice) -> Resolved:
    resolved = Resolved()
    with Directories(root.fd) as directories, Directories(root.own_fd) as own:
        for each in wanted:
            try:
                changed = _resolve(root, directories, own, each, choice, resolved)
            except OSError as error:
                resolved.failure = reason_of(error)
                break
            if changed is None:
                resolved.ended.append(each.conflict)
            else:
                resolved.changed.append(changed)
        os.fsync(root.trash_fd)
    return resolved


def _resolve(
    root: Root, directories: Directories, own: Directories, wanted: _Wanted, choice: Choice, resolved: Resolved
) -> Conflict | None:
    """None: it is ended."""
    conflict = wanted.conflict
    if conflict.kept_name:
        if choice is Choice.MINE:
            return _put_back(root, directories, own, wanted, resolved)
        return _discard_kept(root, own, wanted, resolved)
    stays = Choice.MINE if conflict.kind is ConflictKind.DELETED_REMOTELY else Choice.THEIRS
    return None if choice is stays else _discard(root, directories, wanted, resolved)


def _put_back(
    root: Root, directories: Directories, own: Directories, wanted: _Wanted, resolved: Resolved
) -> Conflict | None:
    """The kept version goes to its path, if that has the remote version of the conflict, or nothing."""
    conflict, row = wanted.conflict, wanted.row
    if row is not None and row.remote_hash is not None and row.remote_hash != conflict.remote_hash:
        return replace(conflict, remote_revision=row.revision, remote_hash=row.remote_hash, remote_size=row.size)
    above, last = split(f"{kept.CONFLICTS}/{conflict.kept_name}")
    versions = _directory(own, above)
    if versions is None or descriptors.look(versions, last) is None:
        return None  # somebody took it away: nothing is left to choose
    parent, name = split(conflict.disk_path)
    directory = directories.make(parent)
    local, seen = observe(directory, name, None, None)
    if local.kind is LocalKind.ABSENT:
        descriptors.move_if_absent(versions, last, directory, name)
    elif local.content_hash != conflict.remote_hash or seen is None:
        return conflict  # somebody changed it here: an edit, which is sent first
    elif descriptors.exchange(versions, last, directory, name):
        if not _trash(root, versions, last, wanted, local, seen, resolved, acknowledged=True):
            descriptors.exchange(versions, last, directory, name)
            return conflict
    else:
        if not _trash(root, directory, name, wanted, local, seen, resolved, acknowledged=True):
            return conflict
        descriptors.move_if_absent(versions, last, directory, name)
    os.fsync(directory)
    os.fsync(versions)
    kept.prune(own, above)
    return None


def _discard_kept(root: Root, own: Directories, wanted: _Wanted, resolved: Resolved) -> Conflict | None:
    conflict = wanted.conflict
    above, last = split(f"{kept.CONFLICTS}/{conflict.kept_name}")
    versions = _directory(own, above)
    if versions is None:
        return None
    local, seen = observe(versions, last, None, None)
    if local.kind is LocalKind.ABSENT:
        return None
    known = local.content_hash == conflict.remote_hash
    if seen is None or not _trash(root, versions, last, wanted, local, seen, resolved, acknowledged=known):
        return conflict
    os.fsync(versions)
    kept.prune(own, above)
    return None


def _discard(root: Root, directories: Directories, wanted: _Wanted, resolved: Resolved) -> Conflict | None:
    """The file at the path goes to the trash: the local version, or the one that the store changed."""
    conflict, row = wanted.conflict, wanted.row
    parent, name = split(conflict.disk_path)
    directory = _directory(directories, parent)
    if directory is None:
        return None
    local, seen = observe(directory, name, None, None)
    if local.kind is LocalKind.ABSENT:
        return None
    if seen is None or local.content_hash is None:
        return conflict
    is_known = row is not None and local.content_hash in (row.disk_hash, row.remote_hash)
    if local.content_hash != (conflict.local_hash or conflict.remote_hash):
        if conflict.local_hash:
            return replace(conflict, local_hash=local.content_hash, local_size=seen.size)
        if row is not None and row.remote_hash == local.content_hash:
            return replace(conflict, remote_revision=row.revision, remote_hash=row.remote_hash, remote_size=row.size)
        return conflict
    if not _trash(root, directory, name, wanted, local, seen, resolved, acknowledged=is_known):
        return conflict
    os.fsync(directory)
    return None


def _directory(directories: Directories, path: str) -> int | None:
    try:
        return directories.get(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _trash(
    root: Root,
    directory: int,
    name: str,
    wanted: _Wanted,
    local: Local,
    seen: DiskStat,
    resolved: Resolved,
    *,
    acknowledged: bool,
) -> bool:
    """Move a file to the trash; False when it was not the one that was seen, and is back in its place."""
    conflict = wanted.conflict
    trash_name = suffixed(split(conflict.disk_path)[1], wanted.trash_id)
    descriptors.move_if_absent(directory, name, root.trash_fd, trash_name)
    out = descriptors.look(root.trash_fd, trash_name)
    if out is None or not descriptors.stat_of(out).same_file(seen):
        descriptors.move_if_absent(root.trash_fd, trash_name, directory, name)
        return False
    resolved.trashed.append(
        Trashed(
            wanted.trash_id,
            trash_name,
            conflict.path,
            conflict.disk_path,
            local.content_hash or b"",
            seen.size,
            conflict.remote_revision,
            TrashReason.CONFLICT_RESOLVED,
            acknowledged=acknowledged,
        )
    )
    return True
