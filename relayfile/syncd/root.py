"""A mirror's directory: proof that it is ours (I1), the lock on it (I10), and our own files below `.relayfile/` (I9).

Owns the marker `.relayfile/mirror.json`, the lock, the staging and trash directories, and the open descriptor through
which everything else reaches the tree. Refuses to touch a directory that does not prove to be this mirror's, and to
create one's parent.
"""

import contextlib
import errno
import hashlib
import json
import os
import stat
from dataclasses import dataclass
from typing import Final

from relayfile.errors import MirrorRefused
from relayfile.syncd import descriptors
from relayfile.syncd.names import OWN_DIRECTORY

MARKER: Final = "mirror.json"
LOCK: Final = "lock"
STATUS: Final = "status.json"
PROBLEMS: Final = "problems"
STAGING: Final = "staging"
TRASH: Final = "trash"
_ASIDE: Final = "aside-"
_MARKER_BYTES_MAX = 64 * 1024
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Marker:
    """What says whose directory it is."""

    mirror_id: str
    workspace_id: str


class RootLost(Exception):
    """The directory is not, or no longer, this mirror's: touch nothing. ``reason`` is `ROOT_...`, upper-snake."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Root:
    """An opened and locked mirror directory."""

    def __init__(self, path: str, marker: Marker, fd: int, own_fd: int, lock_fd: int) -> None:
        self.path = path
        self.marker = marker
        self.fd = fd
        self.own_fd = own_fd
        self._lock_fd = lock_fd
        self._marked = _marked(own_fd)
        self.staging_fd = _make_directory(own_fd, STAGING)
        descriptors.place_apart(self.staging_fd)
        self.trash_fd = _make_directory(own_fd, TRASH)
        self.folds = _folds(own_fd)
        """The file system confuses names that differ only by case or Unicode form."""

    @classmethod
    def open(cls, path: str, marker: Marker) -> "Root":
        """Open a directory that carries ``marker``; ``RootLost`` if it does not, ``MirrorRefused`` if it is locked."""
        try:
            fd = descriptors.open_root(path)
        except OSError as error:
            raise RootLost(*_why_not_open(path, error)) from error
        own = -1
        try:
            own = _open_own(fd, path)
            _check_marker(own, path, marker)
            lock = _lock(own, path, marker)
        except BaseException:
            os.close(fd)
            if own >= 0:
                os.close(own)
            raise
        return cls(path, marker, fd, own, lock)

    def close(self) -> None:
        """Give the lock back and let go of the directory."""
        for fd in (self.trash_fd, self.staging_fd, self._lock_fd, self.own_fd, self.fd):
            os.close(fd)

    def unmark(self) -> None:
        """Give the directory up: it is nobody's mirror any more. What is kept in trash and conflicts stays."""
        self.empty_staging()
        remove_tree(self.own_fd, PROBLEMS)
        for name in (STATUS, LOCK, MARKER):  # the marker last: with it the directory is still ours
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self.own_fd)
        os.fsync(self.own_fd)

    def check(self) -> None:
        """That the path still leads to the directory that was opened, and that it is still marked (I1)."""
        try:
            now = os.stat(self.path, follow_symlinks=False)
        except OSError as error:
            raise RootLost(
                "ROOT_MISSING", f"{self.path} is gone ({error.strerror}); put it back, or make a new mirror"
            ) from error
        then = os.fstat(self.fd)
        if (now.st_dev, now.st_ino) != (then.st_dev, then.st_ino):
            raise RootLost("ROOT_REPLACED", f"{self.path} is another directory now; put the mirror's own back")
        try:
            own = os.stat(OWN_DIRECTORY, dir_fd=self.fd, follow_symlinks=False)
            opened = os.fstat(self.own_fd)
            marked = _marked(self.own_fd)
        except OSError as error:
            raise RootLost(
                "ROOT_MISSING", f"{self.path} lost its marker {OWN_DIRECTORY}/{MARKER}; put it back"
            ) from error
        if (own.st_dev, own.st_ino) != (opened.st_dev, opened.st_ino):
            raise RootLost(
                "ROOT_REPLACED", f"{self.path}/{OWN_DIRECTORY} is another directory now; put the own one back"
            )
        if marked != self._marked:
            _check_marker(self.own_fd, self.path, self.marker)
            self._marked = marked

    def write_own(self, name: str, content: bytes) -> None:
        """Replace a file of ours directly below `.relayfile/`, whole or not at all."""
        descriptors.create(self.own_fd, name + ".new", content)
        os.rename(name + ".new", name, src_dir_fd=self.own_fd, dst_dir_fd=self.own_fd)

    def trashed(self) -> dict[str, int]:
        """Name and size of everything in the trash directory."""
        found = {name: descriptors.look(self.trash_fd, name) for name in os.listdir(self.trash_fd)}
        return {name: stat.st_size for name, stat in found.items() if stat is not None}

    def trashed_hash(self, name: str) -> bytes:
        """SHA-256 of a file in the trash directory; empty when it cannot be read, or is no file."""
        digest = hashlib.sha256()
        try:
            for piece in descriptors.chunks(self.trash_fd, name):
                digest.update(piece)
        except OSError:
            return b""
        return digest.digest()

    def empty_staging(self, keep: frozenset[str] = frozenset()) -> None:
        """Remove what an earlier run left in the staging directory, except entries named in ``keep``."""
        for name in os.listdir(self.staging_fd):
            if name not in keep:
                remove_tree(self.staging_fd, name)

    def set_aside(self, name: str) -> None:
        """Keep a staged tree of an earlier run for the contents in it; what else lies in the staging directory goes."""
        kept = self.aside()
        if descriptors.look(self.staging_fd, name) is not None:
            kept.append(f"{_ASIDE}{max((int(each[len(_ASIDE) :]) for each in kept), default=0) + 1}")
            os.rename(name, kept[-1], src_dir_fd=self.staging_fd, dst_dir_fd=self.staging_fd)
        self.empty_staging(frozenset(kept))

    def aside(self) -> list[str]:
        """What was set aside, by its name in the staging directory."""
        found = os.listdir(self.staging_fd)
        return sorted(name for name in found if name.startswith(_ASIDE) and name[len(_ASIDE) :].isdecimal())

    def forget_aside(self) -> None:
        """Make room: what was set aside is fetched."""
        for name in self.aside():
            remove_tree(self.staging_fd, name)


def create_root(path: str, marker: Marker, *, adopt_existing: bool) -> None:
    """Make ``path`` (not its parent) a mirror's directory. ``MirrorRefused`` says what is wrong with it."""
    if not os.path.isabs(path):
        raise MirrorRefused(mirror=path, why="ROOT_NOT_ABSOLUTE: name the directory by its absolute path")
    above = _mirror_above(path)
    if above is not None:
        raise MirrorRefused(
            mirror=path, why=f"ROOT_IN_OTHER_MIRROR: it lies in the mirror {above}; choose another place"
        )
    try:
        os.mkdir(path, 0o755)
    except FileExistsError:
        pass  # judged below, like any other directory
    except OSError as error:
        raise MirrorRefused(
            mirror=path, why=f"ROOT_NOT_MADE: the directory cannot be made ({error.strerror})"
        ) from error
    try:
        fd = descriptors.open_root(path)
    except OSError as error:
        reason, message = _why_not_open(path, error)
        raise MirrorRefused(mirror=path, why=f"{reason}: {message}") from error
    try:
        _mark(fd, path, marker, adopt_existing=adopt_existing)
    finally:
        os.close(fd)


def remove_tree(directory: int, name: str) -> None:
    """Remove an entry and everything below it, no link followed."""
    found = descriptors.look(directory, name)
    if found is None:
        return
    if not stat.S_ISDIR(found.st_mode):
        os.unlink(name, dir_fd=directory)
        return
    fd = descriptors.open_beneath(directory, name)
    try:
        for below in os.listdir(fd):
            remove_tree(fd, below)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=directory)


def _mark(fd: int, path: str, marker: Marker, *, adopt_existing: bool) -> None:
    entries = os.listdir(fd)
    if OWN_DIRECTORY in entries:
        found = _read_marker(fd)
        if found is not None and found != marker:
            raise MirrorRefused(
                mirror=path, why=f"ROOT_OF_OTHER_MIRROR: it is mirror {found.mirror_id} of {found.workspace_id}"
            )
    elif entries and not adopt_existing:
        raise MirrorRefused(mirror=path, why=f"ROOT_NOT_EMPTY: it has {len(entries)} entries and is not a mirror's")
    try:
        own = _make_directory(fd, OWN_DIRECTORY)
    except OSError as error:
        raise MirrorRefused(
            mirror=path, why=f"ROOT_READ_ONLY: nothing can be written there ({error.strerror})"
        ) from error
    try:
        descriptors.create(own, MARKER + ".new", _encode(marker), sync=True)
        os.rename(MARKER + ".new", MARKER, src_dir_fd=own, dst_dir_fd=own)
        os.fsync(own)
        os.fsync(fd)
    except OSError as error:
        raise MirrorRefused(
            mirror=path, why=f"ROOT_READ_ONLY: nothing can be written there ({error.strerror})"
        ) from error
    finally:
        os.close(own)


def _mirror_above(path: str) -> str | None:
    """The mirror in which ``path`` would lie: its files would be edits there."""
    above = os.path.realpath(path)
    while above != os.path.dirname(above):
        above = os.path.dirname(above)
        if os.path.lexists(os.path.join(above, OWN_DIRECTORY, MARKER)):
            return above
    return None


def _encode(marker: Marker) -> bytes:
    fields = {"format": _FORMAT, "mirror_id": marker.mirror_id, "workspace_id": marker.workspace_id}
    return json.dumps(fields, indent=1).encode() + b"\n"


def _read_marker(fd: int) -> Marker | None:
    """The marker below ``fd``; None when there is none. ``MirrorRefused``-free: garbage reads as another's marker."""
    try:
        own = descriptors.open_beneath(fd, OWN_DIRECTORY)
    except OSError:
        return None
    try:
        fields = json.loads(descriptors.read(own, MARKER, _MARKER_BYTES_MAX))
        return Marker(str(fields["mirror_id"]), str(fields["workspace_id"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        return Marker("(unreadable)", "(unreadable)")
    finally:
        os.close(own)


def _open_own(fd: int, path: str) -> int:
    try:
        return descriptors.open_beneath(fd, OWN_DIRECTORY)
    except OSError as error:
        raise RootLost(
            "ROOT_MISSING", f"{path} carries no marker: it is not, or no longer, a mirror's directory"
        ) from error


def _check_marker(own: int, path: str, marker: Marker) -> None:
    try:
        fields = json.loads(descriptors.read(own, MARKER, _MARKER_BYTES_MAX))
        found = Marker(str(fields["mirror_id"]), str(fields["workspace_id"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RootLost("ROOT_MISSING", f"{path} carries no readable marker {OWN_DIRECTORY}/{MARKER}") from error
    if found.workspace_id != marker.workspace_id:
        raise RootLost("ROOT_OF_OTHER_WORKSPACE", f"{path} belongs to workspace {found.workspace_id}")
    if found.mirror_id != marker.mirror_id:
        raise RootLost("ROOT_REPLACED", f"{path} belongs to mirror {found.mirror_id}")


def _marked(own: int) -> tuple[int, int, int, int]:
    """What changes when somebody writes the marker."""
    found = os.stat(MARKER, dir_fd=own, follow_symlinks=False)
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _lock(own: int, path: str, marker: Marker) -> int:
    fd = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644, dir_fd=own)
    if not descriptors.try_lock(fd):
        holder = os.pread(fd, 64, 0).decode(errors="replace").strip()
        os.close(fd)
        raise MirrorRefused(mirror=marker.mirror_id, why=f"ROOT_LOCKED: {path} is in use by process {holder or '?'}")
    # The number is for people; the lock itself is the kernel's and ends with the process, so a stale one cannot be.
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


def _make_directory(base: int, name: str) -> int:
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o755, dir_fd=base)
    return descriptors.open_beneath(base, name)


def _folds(own: int) -> bool:
    """Ask the file system itself: does a name answer to its other case, or to its other Unicode form?"""
    probes = ((".probe-a", ".probe-A"), (".probe-\u00e9", ".probe-e\u0301"))
    for name, other in probes:
        descriptors.create(own, name, b"")
        try:
            if descriptors.look(own, other) is not None:
                return True
        finally:
            os.unlink(name, dir_fd=own)
    return False


def _why_not_open(path: str, error: OSError) -> tuple[str, str]:
    if error.errno in (errno.ELOOP, errno.ENOTDIR) and os.path.islink(path):
        return "ROOT_IS_SYMLINK", f"{path} is a symbolic link; name the directory itself"
    if error.errno == errno.ENOTDIR:
        return "ROOT_NOT_DIRECTORY", f"{path} is not a directory"
    if error.errno == errno.ENOENT:
        return "ROOT_MISSING", f"{path} is not there; put it back, or make a new mirror"
    return "ROOT_NOT_READABLE", f"{path} cannot be opened ({error.strerror})"
