"""Carrying out actions on files that are in use: write aside, look again, swap, and keep what was there (I3, I5).

Runs in the writer thread. Every step looks at the disk at the last moment and, where the kernel can swap two names at
once, checks after the swap what it really took away: a file that an editor saved in between is put back. What is
replaced or removed goes to the trash. Nothing is told as done before it is durable.
"""

import errno
import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from relayfile import faults
from relayfile.syncd import descriptors
from relayfile.syncd.descriptors import Directories, split
from relayfile.syncd.names import suffixed
from relayfile.syncd.place import observe
from relayfile.syncd.reconcile import Action, Step, reconcile
from relayfile.syncd.root import Root
from relayfile.syncd.rows import DiskStat, Problem, Settled, TrashReason
from relayfile.syncd.stage import reason_of

INCOMING: Final = "incoming"
SYNC_EACH_MAX: Final = 64
"""So many files are forced to disk one by one; for more, one barrier of the file system is cheaper."""
_MESSAGES: Final = {
    "LOCAL_EDIT_KEPT": "The file was changed here; the store's version was not written over it.",
    "LOCAL_FILE_IN_THE_WAY": "Another file has the name on disk; it was left alone.",
    "FILE_IS_DIRECTORY": "A directory stands where the file belongs; it was left alone.",
    "NOT_A_REGULAR_FILE": "Something that is no regular file has the name on disk; it was left alone.",
}


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
    written_count: int = 0
    written_bytes: int = 0
    deleted_count: int = 0


class Application:
    """One batch being applied. Used by the writer thread only."""

    def __init__(self, root: Root, trash_ids: Sequence[str], now_us: int) -> None:
        self._root = root
        self._ids = list(trash_ids)
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
        local, seen = observe(directory, target, wanted.written, wanted.base)
        action = reconcile(wanted.base, local, wanted.remote)
        match action.step:
            case Step.WRITE:
                descriptors.move_if_absent(incoming, name, directory, target)
                self._wrote(wanted, directory, target, parent)
            case Step.REPLACE:
                assert seen is not None
                if self._swap(incoming, name, directory, target, seen, wanted):
                    self._wrote(wanted, directory, target, parent)
            case _:
                os.unlink(name, dir_fd=incoming)
                self._without_writing(action, wanted, seen)

    def _swap(self, incoming: int, name: str, directory: int, target: str, seen: DiskStat, wanted: Wanted) -> bool:
        """Put the new file in the place of ours; False when what came out was not what was seen."""
        if not descriptors.exchange(incoming, name, directory, target):
            self._trash(directory, target, wanted, seen, TrashReason.OVERWRITTEN)
            descriptors.move_if_absent(incoming, name, directory, target)
            return True
        out = descriptors.look(incoming, name)
        if out is not None and descriptors.stat_of(out).same_file(seen):
            self._trash(incoming, name, wanted, seen, TrashReason.OVERWRITTEN)
            return True
        descriptors.exchange(incoming, name, directory, target)
        os.unlink(name, dir_fd=incoming)
        self._without_writing(Action(Step.LIST, "LOCAL_EDIT_KEPT"), wanted, None)
        return False

    def _remove(self, wanted: Wanted) -> None:
        parent, target = split(wanted.disk_path)
        try:
            directory = self._directories.get(parent)
        except (FileNotFoundError, NotADirectoryError):
            self.done.settled.append(Settled(wanted.path, None))
            return
        local, seen = observe(directory, target, wanted.written, wanted.base)
        action = reconcile(wanted.base, local, None)
        if action.step is not Step.REMOVE:
            self._without_writing(action, wanted, seen)
            return
        assert seen is not None
        if self._trash(directory, target, wanted, seen, TrashReason.DELETED):
            self._touched.add(parent)
            self.done.settled.append(Settled(wanted.path, None))
            self.done.deleted_count += 1
            self._prune(parent)

    def _trash(self, directory: int, name: str, wanted: Wanted, seen: DiskStat, reason: TrashReason) -> bool:
        """Move a file to the trash; False when it was not the one that was seen, and is back in its place."""
        trash_id = self._ids.pop()
        kept = suffixed(split(wanted.disk_path)[1], trash_id)
        descriptors.move_if_absent(directory, name, self._root.trash_fd, kept)
        out = descriptors.look(self._root.trash_fd, kept)
        if out is None or not descriptors.stat_of(out).same_file(seen):
            descriptors.move_if_absent(self._root.trash_fd, kept, directory, name)
            self._list(wanted, "LOCAL_EDIT_KEPT", _MESSAGES["LOCAL_EDIT_KEPT"])
            return False
        content_hash = wanted.base or b""
        self.done.trashed.append(
            Trashed(trash_id, kept, wanted.path, wanted.disk_path, content_hash, seen.size, wanted.revision, reason)
        )
        return True

    def _without_writing(self, action: Action, wanted: Wanted, seen: DiskStat | None) -> None:
        if action.step is Step.LIST:
            self._list(wanted, action.reason, _MESSAGES[action.reason])
        elif action.step is Step.FORGET:
            self.done.settled.append(Settled(wanted.path, None))
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
