"""Keeping a user's bytes before something else takes their name: in `.relayfile/conflicts/`, or in the trash.

A version is linked (or, where the file system has no links, copied) to where it is kept and forced to disk *before* it
is replaced: a kill or a power cut at any point leaves it at one of the two places at least. Runs in the writer thread.
"""

import errno
import os
from typing import Final

from relayfile.syncd import descriptors
from relayfile.syncd.descriptors import Directories, split
from relayfile.syncd.names import NAME_BYTES_MAX, suffixed
from relayfile.syncd.rows import DiskStat

CONFLICTS: Final = "conflicts"
_NO_LINKS: Final = frozenset({errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.EXDEV, errno.ENOSYS})
_TAKEN: Final = frozenset({errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG})


class Changed(Exception):
    """The file is not the one that was seen any more; nothing was done."""


def keep(own: int, directory: int, name: str, seen: DiskStat, disk_path: str, revision: int, identity: str) -> str:
    """Keep a version of ``disk_path``; its name below `.relayfile/conflicts/`. ``Changed``, ``OSError``."""
    with Directories(own) as directories:
        for kept in (conflict_name(disk_path, revision), suffixed(split(disk_path)[1], identity)):
            parent, last = split(f"{CONFLICTS}/{kept}")
            try:
                into = directories.make(parent)
                hold(directory, name, seen, into, last)
            except OSError as error:
                if error.errno in _TAKEN:
                    continue
                raise
            _force_directories(directories, parent)
            return kept
    raise OSError(errno.EEXIST, "no free name for the kept version", disk_path)


def conflict_name(disk_path: str, revision: int) -> str:
    """`<path>@<revision>`, the last segment cut where it would be too long."""
    parent, name = split(disk_path)
    tail = f"@{revision}"
    if len((name + tail).encode()) > NAME_BYTES_MAX:
        name = suffixed(name, name).encode()[: NAME_BYTES_MAX - len(tail)].decode(errors="ignore")
    return f"{parent}/{name}{tail}" if parent else name + tail


def hold(directory: int, name: str, seen: DiskStat, into: int, kept: str) -> None:
    """Have the file ``name`` also as ``kept``, on disk. Once more is harmless; another file's name is refused.

    One with other names too is copied: who writes through those must not change what is kept.
    """
    if descriptors.names_count(directory, name) > 1 and not is_seen(into, kept, seen):
        _copy(directory, name, into, kept)
        if not is_seen(directory, name, seen):
            os.unlink(kept, dir_fd=into)
            raise Changed
        return
    try:
        os.link(name, kept, src_dir_fd=directory, dst_dir_fd=into, follow_symlinks=False)
    except FileExistsError:
        if not is_seen(into, kept, seen):
            raise
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        _copy(directory, name, into, kept)
        return
    if not is_seen(into, kept, seen):
        os.unlink(kept, dir_fd=into)
        raise Changed
    descriptors.force(into, kept)
    os.fsync(into)


def drop(own: int, kept: str) -> None:
    """A version need not be kept: it has its own name again."""
    parent, last = split(f"{CONFLICTS}/{kept}")
    with Directories(own) as directories:
        try:
            os.unlink(last, dir_fd=directories.get(parent))
        except FileNotFoundError:
            return
        prune(directories, parent)


def prune(directories: Directories, directory: str) -> None:
    """Remove directories of kept versions that are empty now, up to `conflicts` itself."""
    while directory not in ("", CONFLICTS):
        parent, name = split(directory)
        try:
            os.rmdir(name, dir_fd=directories.get(parent))
        except OSError:
            return  # another version is in it
        directories.drop(directory)
        directory = parent


def is_seen(directory: int, name: str, seen: DiskStat) -> bool:
    """Whether the name has the very file that was ``seen``, unchanged."""
    stat = descriptors.look(directory, name)
    return stat is not None and descriptors.stat_of(stat).same_file(seen)


def _copy(directory: int, name: str, into: int, kept: str) -> None:
    fd = os.open(kept, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644, dir_fd=into)
    with open(fd, "wb") as file:
        file.writelines(descriptors.chunks(directory, name))
        file.flush()
        os.fsync(file.fileno())
    os.fsync(into)


def _force_directories(directories: Directories, directory: str) -> None:
    while True:
        os.fsync(directories.get(directory))
        if not directory:
            return
        directory = split(directory)[0]
