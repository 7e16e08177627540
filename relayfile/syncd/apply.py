"""Carrying out actions on files that are in use: write aside, look again, swap, and keep what was there (I3, I5).

Runs in the writer thread. Every step looks at the disk at the last moment and, where the kernel can swap two names at
once, checks after the swap what it really took away: a file that an editor saved in between is put back. What is
replaced or removed goes to the trash, what somebody changed here is kept first. Nothing is told as done before it is
durable.
"""

import errno
import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from relayfile import faults
from relayfile.syncd import descriptors, kept
from relayfile.syncd.descriptors import Directories, split
from relayfile.syncd.names import suffixed
from relayfile.syncd.place import UNREAD, observe
from relayfile.syncd.reconcile import Action, Local, LocalKind, Mode, Step, reconcile
from relayfile.syncd.root import Root
from relayfile.syncd.rows import Conflict, DiskStat, Edit, Problem, Settled, TrashReason
from relayfile.syncd.stage import reason_of
from relayfile.syncd.swap import swap

INCOMING: Final = "incoming"
_UNIQUE_BYTES: Final = 8
SYNC_EACH_MAX: Final = 64
"""So many files are forced to disk one by one; for more, one barrier of the file system is cheaper."""
_MESSAGES: Final = {
    "LOCAL_EDIT_KEPT": "The file is being changed here; the store's version was not written over it.",
    "LOCAL_FILE_IN_THE_WAY": "Another file has the name on disk; it was left alone.",
    "FILE_IS_DIRECTORY": "A directory stands where the file belongs; it was left alone.",
    "NOT_A_REGULAR_FILE": "Something that is no regular file has the name on disk; it was left alone.",
    "NOT_PUSHED": "The mirror is read-only: the file is in no other place than here.",
}
RESTORED: Final = (
    "READ_ONLY_EDIT",
    "The mirror is read-only: the store's version was restored, and the changed file is in .relayfile/trash/.",
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """One file: what was written, what the store has, and the bytes of that."""

    path: str
    disk_path: str
    base: bytes | None
    written: DiskStat | None
    remote: bytes | None
    revision: int
    content: bytes = b""


@dataclass(frozen=True, slots=True)
class Trashed:
    """A file that went to the trash."""

    trash_id: str
    name: str
    """Below `.relayfile/trash/`."""
    path: str
    disk_path: str
    content_hash: bytes
    size: int
    revision: int
    reason: TrashReason
    acknowledged: bool = True
    """The store has, or had, these bytes; others are never removed to make room."""


@dataclass(slots=True)
class Applied:
    """What a batch did, durable when it is returned."""

    settled: list[Settled] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    trashed: list[Trashed] = field(default_factory=list)
    conflicts: list[Conflict] = field(default_factory=list)
    edits: list[Edit] = field(default_factory=list)
    """What the disk has and the store must get."""
    notices: list[Problem] = field(default_factory=list)
    """What was put right, and somebody should know."""
    written_count: int = 0
    written_bytes: int = 0
    deleted_count: int = 0


class Application:
    """One batch being applied. Used by the writer thread only."""

    def __init__(
        self,
        root: Root,
        ids: Sequence[str],
        now_us: int,
        mode: Mode = Mode.TWO_WAY,
        content_bytes_max: int | None = None,
    ) -> None:
        """``ids``: one for each file, for what is kept of it. ``content_bytes_max``: what the store takes of one."""
        self._root = root
        self._ids = list(ids)
        self._mode = mode
        self._content_bytes_max = content_bytes_max
        self._now_us = now_us
        self._directories = Directories(root.fd)
        self._touched: set[str] = set()
        self.done = Applied()

    def remove(self, batch: Sequence[Wanted]) -> Applied:
        """Files that the store no longer has."""
        with self._directories:
            for wanted in batch:
                self._guarded(wanted, self._remove)
            self._force(len(batch))
        return self.done

    def find(self, batch: Sequence[Wanted]) -> Applied:
        """Settle those that are on disk already, and as absent those that are not; nothing is touched.

        What is not there went with the mirror's own removal, and is no delete of a user's to be sent to the store.
        """
        with self._directories:
            for wanted in batch:
                parent, target = split(wanted.disk_path)
                try:
                    local, seen = observe(self._directories.get(parent), target, wanted.written, wanted.base)
                except FileNotFoundError:
                    local, seen = Local(LocalKind.ABSENT), None
                except OSError:
                    continue  # in no state to be told of: it is fetched, and listed if it cannot be put
                if local.kind is LocalKind.ABSENT:
                    self.done.settled.append(Settled(wanted.path, None))
                elif reconcile(wanted.base, local, wanted.remote, self._mode).step in (Step.NOTHING, Step.ADOPT):
                    self.done.settled.append(Settled(wanted.path, wanted.remote, seen))
        return self.done

    def write(self, batch: Sequence[Wanted]) -> Applied:
        """Files whose content came from the store."""
        incoming = Directories(self._root.staging_fd)
        with self._directories, incoming:
            try:
                directory = incoming.make(INCOMING)
            except OSError as error:  # a full disk, most of all: it concerns all of them alike
                for wanted in batch:
                    self._list(wanted, *reason_of(error))
                return self.done
            staged = [
                (wanted, name)
                for number, wanted in enumerate(batch)
                if (name := self._stage(directory, number, wanted, sync=len(batch) <= SYNC_EACH_MAX)) is not None
            ]
            if len(batch) > SYNC_EACH_MAX:
                descriptors.barrier(directory)
            for wanted, name in staged:
                self._guarded(wanted, partial(self._put, directory, name))
            self._force(len(staged))
        return self.done

    def _guarded(self, wanted: Wanted, work: Callable[[Wanted], None]) -> None:
        try:
            work(wanted)
        except OSError as error:
            self._list(wanted, *reason_of(error))

    def _stage(self, directory: int, number: int, wanted: Wanted, *, sync: bool) -> str | None:
        if hashlib.sha256(wanted.content).digest() != wanted.remote:
            self._list(wanted, "HASH_MISMATCH", "The content that the store sent does not have its hash.")
            return None
        name = f"{number}"
        try:
            descriptors.create(directory, name, wanted.content, sync=sync)
        except OSError as error:
            self._list(wanted, *reason_of(error))
            return None
        return name

    def _put(self, incoming: int, name: str, wanted: Wanted) -> None:
        parent, target = split(wanted.disk_path)
        directory = self._directories.make(parent)
        local, seen, action = self._look(directory, target, wanted, wanted.remote)
        match action.step:
            case Step.WRITE:
                descriptors.move_if_absent(incoming, name, directory, target)
                self._wrote(wanted, directory, target, parent)
                if action.conflict is not None:
                    self._collided(action, wanted, local, None)
            case Step.REPLACE:
                assert seen is not None
                if self._swap(incoming, name, directory, target, seen, wanted):
                    self._wrote(wanted, directory, target, parent)
            case Step.KEEP | Step.RESTORE:
                assert seen is not None
                if self._keep_and_swap(action, incoming, name, directory, wanted, local, seen):
                    self._wrote(wanted, directory, target, parent)
            case _:
                os.unlink(name, dir_fd=incoming)
                self._without_writing(action, wanted, local, seen)

    def _look(
        self, directory: int, target: str, wanted: Wanted, remote: bytes | None
    ) -> tuple[Local, DiskStat | None, Action]:
        """What has the name and what follows. A file that is too large to be sent is read only where it is kept."""
        local, seen = observe(directory, target, wanted.written, wanted.base, self._content_bytes_max)
        action = reconcile(wanted.base, local, remote, self._mode)
        if local.content_hash == UNREAD and action.step is not Step.PUSH:
            local, seen = observe(directory, target, wanted.written, wanted.base)
            action = reconcile(wanted.base, local, remote, self._mode)
        return local, seen, action

    def _swap(self, incoming: int, name: str, directory: int, target: str, seen: DiskStat, wanted: Wanted) -> bool:
        """Put the new file in the place of ours; False when what came out was not what was seen."""
        swapped = swap(incoming, name, directory, target, seen)
        if swapped.out and not (
            swapped.as_seen and self._trash(incoming, swapped.out, wanted, seen, TrashReason.OVERWRITTEN)
        ):
            self._set_aside(incoming, swapped.out, wanted)
        if not swapped.placed:
            self._list(wanted, "LOCAL_EDIT_KEPT", _MESSAGES["LOCAL_EDIT_KEPT"])
        return swapped.placed

    def _keep_and_swap(
        self, action: Action, incoming: int, name: str, directory: int, wanted: Wanted, local: Local, seen: DiskStat
    ) -> bool:
        """Put the new file in the place of a user's, which is kept first; False when that one is being changed."""
        target = split(wanted.disk_path)[1]
        try:
            undo = self._keep(action, directory, target, wanted, local, seen)
        except kept.Changed:
            os.unlink(name, dir_fd=incoming)
            self._list(wanted, "LOCAL_EDIT_KEPT", _MESSAGES["LOCAL_EDIT_KEPT"])
            return False
        faults.point("syncd.conflict.after_keep_before_replace")
        try:
            swapped = swap(incoming, name, directory, target, seen)
        except OSError:
            if kept.is_seen(directory, target, seen):
                undo()  # else every further try would keep it once more
            raise
        if swapped.as_seen and swapped.placed:
            os.unlink(swapped.out, dir_fd=incoming)
        elif swapped.out:
            self._set_aside(incoming, swapped.out, wanted)
        if not swapped.placed:
            undo()
            self._list(wanted, "LOCAL_EDIT_KEPT", _MESSAGES["LOCAL_EDIT_KEPT"])
        return swapped.placed

    def _keep(
        self, action: Action, directory: int, target: str, wanted: Wanted, local: Local, seen: DiskStat
    ) -> Callable[[], None]:
        """Keep the user's version of a file, on disk; how to take that back."""
        identity = self._ids[-1]
        if action.step is Step.KEEP:
            name = kept.keep(self._root.own_fd, directory, target, seen, wanted.disk_path, wanted.revision, identity)
            conflict = self._collided(action, wanted, local, seen, name)

            def drop() -> None:
                kept.drop(self._root.own_fd, name)
                self.done.conflicts.remove(conflict)

            return drop
        name = suffixed(target, identity)
        kept.hold(directory, target, seen, self._root.trash_fd, name)
        trashed = self._trashed(wanted, name, seen, TrashReason.READ_ONLY_EDIT, local.content_hash)
        notice = Problem(wanted.path, *RESTORED, wanted.revision, self._now_us)
        self.done.notices.append(notice)

        def forget() -> None:
            os.unlink(name, dir_fd=self._root.trash_fd)
            self.done.trashed.remove(trashed)
            self.done.notices.remove(notice)

        return forget

    def _collided(
        self, action: Action, wanted: Wanted, local: Local, seen: DiskStat | None, kept_name: str = ""
    ) -> Conflict:
        assert action.conflict is not None, action
        conflict = Conflict(
            self._ids.pop(),
            action.conflict,
            wanted.path,
            wanted.disk_path,
            kept_name,
            0,  # the journal knows
            wanted.revision,
            wanted.remote or b"",
            len(wanted.content),
            local.content_hash or b"",
            0 if seen is None else seen.size,
            self._now_us,
        )
        self.done.conflicts.append(conflict)
        return conflict

    def _remove(self, wanted: Wanted) -> None:
        parent, target = split(wanted.disk_path)
        try:
            directory = self._directories.get(parent)
        except (FileNotFoundError, NotADirectoryError):
            self.done.settled.append(Settled(wanted.path, None))
            return
        local, seen, action = self._look(directory, target, wanted, None)
        if action.step is Step.RESTORE:
            assert seen is not None
            self._give_back(action, directory, target, wanted, local, seen)
            return
        if action.step is not Step.REMOVE:
            self._without_writing(action, wanted, local, seen)
            return
        assert seen is not None
        if self._trash(directory, target, wanted, seen, TrashReason.DELETED):
            self._touched.add(parent)
            self.done.settled.append(Settled(wanted.path, None))
            self.done.deleted_count += 1
            self._prune(parent)

    def _trash(self, directory: int, name: str, wanted: Wanted, seen: DiskStat, reason: TrashReason) -> bool:
        """Move a file to the trash and tell of it; False as in ``_take``."""
        trash_id = self._ids.pop()
        name_kept = suffixed(split(wanted.disk_path)[1], trash_id)
        if not self._take(directory, name, name_kept, wanted, seen):
            return False
        descriptors.have_alone(self._root.trash_fd, name_kept, f"alone-{trash_id}")
        self._trashed(wanted, name_kept, seen, reason, None, trash_id)
        return True

    def _take(self, directory: int, name: str, name_kept: str, wanted: Wanted, seen: DiskStat) -> bool:
        """Move a file to the trash; False when it was not the one that was seen, and is back in its place."""
        trash = self._root.trash_fd
        descriptors.move_if_absent(directory, name, trash, name_kept)
        if kept.is_seen(trash, name_kept, seen):
            return True
        try:
            descriptors.move_if_absent(trash, name_kept, directory, name)
        except FileExistsError:  # saved once more since
            self._set_aside(trash, name_kept, wanted)
        self._list(wanted, "LOCAL_EDIT_KEPT", _MESSAGES["LOCAL_EDIT_KEPT"])
        return False

    def _set_aside(self, directory: int, name: str, wanted: Wanted) -> None:
        """Keep in the trash what came out of the mirror unseen: it may be a user's only copy."""
        found = descriptors.look(directory, name)
        if found is None:
            return
        trash_id = f"{self._now_us:020}-{os.urandom(_UNIQUE_BYTES).hex()}"
        name_kept = suffixed(split(wanted.disk_path)[1], trash_id)
        descriptors.move_if_absent(directory, name, self._root.trash_fd, name_kept)
        content_hash = self._root.trashed_hash(name_kept)
        stat = descriptors.stat_of(found)
        self._trashed(wanted, name_kept, stat, TrashReason.OVERWRITTEN, content_hash, trash_id)

    def _give_back(
        self, action: Action, directory: int, target: str, wanted: Wanted, local: Local, seen: DiskStat
    ) -> None:
        """A file that was changed in a read-only mirror, and that the store no longer has."""
        try:
            undo = self._keep(action, directory, target, wanted, local, seen)
        except kept.Changed:
            self._list(wanted, "LOCAL_EDIT_KEPT", _MESSAGES["LOCAL_EDIT_KEPT"])
            return
        out = suffixed(target, os.urandom(_UNIQUE_BYTES).hex())
        if not self._take(directory, target, out, wanted, seen):
            undo()
            return
        os.unlink(out, dir_fd=self._root.trash_fd)  # it is there already
        self._touched.add(split(wanted.disk_path)[0])
        self.done.settled.append(Settled(wanted.path, None))
        self.done.deleted_count += 1

    def _trashed(
        self,
        wanted: Wanted,
        name: str,
        seen: DiskStat,
        reason: TrashReason,
        changed: bytes | None,
        trash_id: str = "",
    ) -> Trashed:
        """Tell of a file in the trash; ``changed``: the hash of bytes that the store may not have."""
        trashed = Trashed(
            trash_id or self._ids.pop(),
            name,
            wanted.path,
            wanted.disk_path,
            (wanted.base or b"") if changed is None else changed,
            seen.size,
            wanted.revision,
            reason,
            acknowledged=changed is None,
        )
        self.done.trashed.append(trashed)
        return trashed

    def _without_writing(self, action: Action, wanted: Wanted, local: Local, seen: DiskStat | None) -> None:
        if action.step is Step.LIST:
            self._list(wanted, action.reason, _MESSAGES[action.reason])
        elif action.step is Step.FORGET:
            self.done.settled.append(Settled(wanted.path, None))
        elif action.step is Step.PUSH and local.content_hash == UNREAD:
            self._list(wanted, "PUSH_REFUSED", f"TOO_LARGE: of at most {self._content_bytes_max} bytes.")
        elif action.step in (Step.PUSH, Step.PUSH_DELETE):
            content_hash = local.content_hash if action.step is Step.PUSH else None
            self.done.edits.append(Edit(wanted.path, wanted.disk_path, content_hash, seen))
            if action.conflict is not None:
                self._collided(action, wanted, local, seen)
        else:  # adopted, or as it must be
            self.done.settled.append(Settled(wanted.path, wanted.remote, seen))

    def _wrote(self, wanted: Wanted, directory: int, target: str, parent: str) -> None:
        now = os.stat(target, dir_fd=directory, follow_symlinks=False)
        self._touched.add(parent)
        self.done.settled.append(Settled(wanted.path, wanted.remote, descriptors.stat_of(now)))
        self.done.written_count += 1
        self.done.written_bytes += len(wanted.content)

    def _prune(self, directory: str) -> None:
        """Directories exist while files are below them: an empty one goes with its last file."""
        while directory:
            parent, name = split(directory)
            try:
                os.rmdir(name, dir_fd=self._directories.get(parent))
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
                    raise
                return
            self._directories.drop(directory)
            self._touched.discard(directory)
            directory = parent

    def _force(self, files: int) -> None:
        """The new names survive a power cut before the journal says so."""
        if files > SYNC_EACH_MAX or len(self._touched) > SYNC_EACH_MAX:
            descriptors.barrier(self._root.fd)
        else:
            for directory in sorted(self._touched):
                try:
                    os.fsync(self._directories.get(directory))
                except FileNotFoundError:
                    continue  # emptied and removed since
        faults.point("syncd.apply.after_rename_before_journal")

    def _list(self, wanted: Wanted, reason: str, message: str) -> None:
        self.done.problems.append(Problem(wanted.path, reason, message, wanted.revision, self._now_us))
