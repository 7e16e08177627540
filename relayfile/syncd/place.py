"""Moving a staged tree into the mirror: whole directories where nothing is in the way, else entry by entry.

Runs in the writer thread. Renames never replace: what stands in the way stays and is told. Can be run again after a
kill at any point: what is in place is no longer in the staging tree.
"""

import hashlib
import os
import stat
from dataclasses import dataclass, field
from typing import Final

from relayfile.syncd import descriptors
from relayfile.syncd.names import OWN_DIRECTORY
from relayfile.syncd.reconcile import Local, LocalKind, Mode, Step, reconcile
from relayfile.syncd.rows import DiskStat
from relayfile.syncd.stage import reason_of

_HASH_BYTES = 1 << 20


@dataclass(slots=True)
class Placed:
    """What is not simply in place with the stat that it was staged with. Keys are disk paths."""

    moved: dict[str, DiskStat] = field(default_factory=dict)
    """Files that were renamed one by one, or were there already with the same content."""
    adopted: set[str] = field(default_factory=set)
    """Of them, what was there already."""
    refused: dict[str, tuple[str, str]] = field(default_factory=dict)
    """(reason, message) of files whose place is taken."""
    whole: set[str] = field(default_factory=set)
    """What was moved to the top, as it was staged."""
    alone: bool = False
    """Nothing else is there, but for our own directory."""


def place(staged_fd: int, root_fd: int) -> Placed:
    """Move everything below ``staged_fd`` to below ``root_fd``."""
    placed = Placed()
    _merge(staged_fd, root_fd, "", placed)
    placed.alone = not placed.refused and placed.whole == set(os.listdir(root_fd)) - {OWN_DIRECTORY}
    return placed


def _merge(staged: int, target: int, prefix: str, placed: Placed) -> None:
    for name in sorted(os.listdir(staged)):
        kind = os.stat(name, dir_fd=staged, follow_symlinks=False).st_mode
        try:
            descriptors.move_if_absent(staged, name, target, name)
        except FileExistsError:
            if stat.S_ISDIR(kind):
                _descend(staged, target, name, prefix, placed)
            else:
                _meet(staged, target, name, prefix + name, placed)
        except OSError as error:
            _refuse(staged, name, prefix + name, reason_of(error), placed)
        else:
            if not prefix:
                placed.whole.add(name)
            if not stat.S_ISDIR(kind):
                placed.moved[prefix + name] = descriptors.stat_of(os.stat(name, dir_fd=target, follow_symlinks=False))


def _descend(staged: int, target: int, name: str, prefix: str, placed: Placed) -> None:
    below = descriptors.open_beneath(staged, name)
    try:
        into = descriptors.open_beneath(target, name)
    except OSError as error:
        _refuse(staged, name, prefix + name, reason_of(error), placed)
    else:
        try:
            _merge(below, into, f"{prefix}{name}/", placed)
        finally:
            os.close(into)
    finally:
        os.close(below)


def _meet(staged: int, target: int, name: str, path: str, placed: Placed) -> None:
    found, seen = observe(target, name, None, None)
    # A read-only mirror's answer: what both sides made becomes a conflict only when the first pull has ended.
    action = reconcile(None, found, _hash(staged, name), Mode.READ_ONLY)
    if action.step is Step.ADOPT and seen is not None:
        placed.moved[path] = seen
        placed.adopted.add(path)
    else:
        placed.refused[path] = (action.reason, "Something else has the name on disk; it was left alone.")
    os.unlink(name, dir_fd=staged)


def _refuse(staged: int, name: str, path: str, why: tuple[str, str], placed: Placed) -> None:
    found = descriptors.look(staged, name)
    if found is not None and stat.S_ISDIR(found.st_mode):
        below = descriptors.open_beneath(staged, name)
        try:
            for entry in os.listdir(below):
                _refuse(below, entry, f"{path}/{entry}", why, placed)
        finally:
            os.close(below)
        return
    placed.refused[path] = why


UNREAD: Final = b"unread"
"""In the place of the hash of a file that is too large to be read: it equals none."""


def observe(
    directory: int, name: str, written: DiskStat | None, written_hash: bytes | None, bytes_max: int | None = None
) -> tuple[Local, DiskStat | None]:
    """What has the name: our own untouched file (``written``), another file (then it is read), or something else.

    ``bytes_max``: a larger file is not read, and its hash is ``UNREAD``.
    """
    found = descriptors.look(directory, name)
    if found is None:
        return Local(LocalKind.ABSENT), None
    if stat.S_ISDIR(found.st_mode):
        return Local(LocalKind.DIRECTORY), None
    if not stat.S_ISREG(found.st_mode):
        return Local(LocalKind.SPECIAL), None
    now = descriptors.stat_of(found)
    if written is not None and now == written:
        return Local(LocalKind.AS_WRITTEN), now
    if bytes_max is not None and now.size > bytes_max:
        return Local(LocalKind.FILE, UNREAD), now
    content_hash = _hash(directory, name)
    if written is not None and content_hash == written_hash:
        return Local(LocalKind.AS_WRITTEN), now  # touched, or restored from a copy: the same bytes
    return Local(LocalKind.FILE, content_hash), now


def _hash(directory: int, name: str) -> bytes:
    digest = hashlib.sha256()
    for piece in descriptors.chunks(directory, name, _HASH_BYTES):
        digest.update(piece)
    return digest.digest()
