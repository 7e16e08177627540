"""Directory descriptors and the system calls that take them: the only way in which syncd touches a tree (I2).

A name that came from outside is never resolved by the kernel as a path from the working directory: each call names one
entry of an open directory, and directories are opened below the root without following any link. Owns nothing else:
what may be done is decided by its callers.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import struct
import sys
from collections.abc import Iterator
from typing import Final, Self

from relayfile.syncd.rows import DiskStat

DIRECTORIES_OPEN_MAX: Final = 256

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

_SYS_OPENAT2 = 437  # the same on every architecture
_RESOLVE_STRICT = 0x02 | 0x04 | 0x08  # NO_MAGICLINKS, NO_SYMLINKS, BENEATH
_RENAME_NOREPLACE = 1
_RENAME_EXCHANGE = 2
_LONG_BYTES = struct.calcsize("l")  # in the numbers only: what is passed is an int
_GET_FLAGS = (2 << 30) | (_LONG_BYTES << 16) | (ord("f") << 8) | 1  # FS_IOC_GETFLAGS
_SET_FLAGS = (1 << 30) | (_LONG_BYTES << 16) | (ord("f") << 8) | 2  # FS_IOC_SETFLAGS
_TOP_DIRECTORY = 0x00020000  # FS_TOPDIR_FL
_UNSUPPORTED = {errno.ENOSYS, errno.EINVAL, errno.EPERM, errno.ENOTSUP}

_libc = ctypes.CDLL(None, use_errno=True)
_has_renameat2 = sys.platform == "linux" and hasattr(_libc, "renameat2")
_openat2_state = {"usable": sys.platform == "linux"}


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_root(path: str) -> int:
    """The directory ``path``, which a person named; its last segment must not be a link."""
    return os.open(path, _DIRECTORY)


def open_beneath(base: int, relative: str) -> int:
    """The directory ``relative`` below ``base`` (empty: ``base`` again). ELOOP or ENOTDIR where a link is met."""
    if not relative:
        return os.open(".", _DIRECTORY, dir_fd=base)
    if relative[0] == "/" or "\0" in relative or not {"", ".", ".."}.isdisjoint(relative.split("/")):
        raise OSError(errno.EXDEV, "leaves the root", relative)
    if _openat2_state["usable"]:
        how = _OpenHow(_DIRECTORY, 0, _RESOLVE_STRICT)
        raw = relative.encode()
        while True:
            fd = int(_libc.syscall(_SYS_OPENAT2, base, ctypes.c_char_p(raw), ctypes.byref(how), ctypes.sizeof(how)))
            if fd >= 0:
                return fd
            code = ctypes.get_errno()
            if code in (errno.EAGAIN, errno.EINTR):
                continue  # something below was renamed meanwhile; the kernel asks to look again
            if code not in _UNSUPPORTED and code != errno.ENAMETOOLONG:
                raise OSError(code, os.strerror(code), relative)
            _openat2_state["usable"] = code == errno.ENAMETOOLONG  # deeper than one call can name: walk
            break
    return _walk(base, relative)


def _walk(base: int, relative: str) -> int:
    here = os.open(".", _DIRECTORY, dir_fd=base)
    for segment in relative.split("/"):
        try:
            below = os.open(segment, _DIRECTORY, dir_fd=here)
        finally:
            os.close(here)
        here = below
    return here


class Directories:
    """Open directories below one root, kept for one batch of work: at most ``open_max``, all closed at its end.

    A descriptor that is returned is good until the next call. Not thread-safe.
    """

    def __init__(self, base: int, open_max: int = DIRECTORIES_OPEN_MAX) -> None:
        self._base = base
        self._open_max = open_max
        self._open: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get(self, relative: str) -> int:
        """The directory; ``OSError`` when it is not there or not reachable without a link."""
        fd = self._open.get(relative)
        return self._keep(relative, open_beneath(self._base, relative)) if fd is None else fd

    def make(self, relative: str) -> int:
        """The directory, made with those above it when it is missing."""
        fd = self._open.get(relative)
        if fd is not None:
            return fd
        try:
            return self._keep(relative, open_beneath(self._base, relative))
        except FileNotFoundError:
            return self._keep(relative, self._descend(relative))

    def drop(self, relative: str) -> None:
        """Forget a directory that was removed."""
        fd = self._open.pop(relative, None)
        if fd is not None:
            os.close(fd)

    def close(self) -> None:
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()

    def _descend(self, relative: str) -> int:
        here = os.open(".", _DIRECTORY, dir_fd=self._base)
        for segment in relative.split("/"):
            try:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(segment, 0o755, dir_fd=here)
                below = os.open(segment, _DIRECTORY, dir_fd=here)
            finally:
                os.close(here)
            here = below
        return here

    def _keep(self, relative: str, fd: int) -> int:
        if len(self._open) >= self._open_max:
            os.close(self._open.pop(next(iter(self._open))))
        self._open[relative] = fd
        return fd


def place_apart(directory: int) -> bool:
    """Ask that trees made in ``directory`` lie apart from it and from each other on the disk; False: not heard.

    ext4 knows it, as `chattr +T`. Otherwise it makes a tree beside its parent, and where much was deleted a moment ago
    a file there takes up to twenty times as long, because without a journal it looks at every inode deleted lately.
    """
    if sys.platform != "linux":
        return False
    try:
        (flags,) = struct.unpack("I", fcntl.ioctl(directory, _GET_FLAGS, bytes(4)))
        if not flags & _TOP_DIRECTORY:
            fcntl.ioctl(directory, _SET_FLAGS, struct.pack("I", flags | _TOP_DIRECTORY))
    except OSError:
        return False  # a wish about speed: every other file system does as it likes
    return True


def split(relative: str) -> tuple[str, str]:
    """(directory, name) of a path relative to a root."""
    directory, _, name = relative.rpartition("/")
    return directory, name


def stat_of(result: os.stat_result) -> DiskStat:
    """The part of a stat that the journal keeps."""
    return DiskStat(result.st_dev, result.st_ino, result.st_size, result.st_mtime_ns, result.st_ctime_ns)


def create(directory: int, name: str, content: bytes, *, sync: bool = False) -> os.stat_result:
    """A new file with ``content``. What has the name is unlinked, never opened: it may be linked elsewhere."""
    try:
        fd = os.open(name, _CREATE, 0o644, dir_fd=directory)
    except FileExistsError:
        os.unlink(name, dir_fd=directory)
        fd = os.open(name, _CREATE, 0o644, dir_fd=directory)
    try:
        written = os.write(fd, content)
        while written < len(content):
            written += os.write(fd, memoryview(content)[written:])
        if sync:
            os.fdatasync(fd)
        return os.fstat(fd)
    finally:
        os.close(fd)


def read(directory: int, name: str, bytes_max: int) -> bytes:
    """The content of a regular file; EFBIG when it is larger than ``bytes_max``."""
    fd = os.open(name, _READ, dir_fd=directory)
    with open(fd, "rb") as file:
        content = file.read(bytes_max + 1)
    if len(content) > bytes_max:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), name)
    return content


def chunks(directory: int, name: str, chunk_bytes: int = 1 << 20) -> Iterator[bytes]:
    """The content of a regular file, piece by piece."""
    fd = os.open(name, _READ, dir_fd=directory)
    with open(fd, "rb", buffering=0) as file:
        while piece := file.read(chunk_bytes):
            yield piece


def force(directory: int, name: str) -> None:
    """The content of a regular file is on disk when this returns."""
    fd = os.open(name, _READ, dir_fd=directory)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def unlink(directory: int, name: str) -> None:
    """Remove a file."""
    os.unlink(name, dir_fd=directory)


def look(directory: int, name: str) -> os.stat_result | None:
    """What the name is, links not followed; None when nothing has it."""
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def names_count(directory: int, name: str) -> int:
    """How many names the file has, anywhere; 0: it is not there."""
    found = look(directory, name)
    return 0 if found is None else found.st_nlink


def have_alone(directory: int, name: str, aside: str) -> bool:
    """Put a copy in the place of a file that has other names too; who writes through those does not write into it then.

    False: there was no need, or no room, and the file is as it was.
    """
    if names_count(directory, name) <= 1:
        return False
    try:
        fd = os.open(aside, _CREATE, 0o644, dir_fd=directory)
    except OSError:
        return False
    try:
        with open(fd, "wb") as file:
            file.writelines(chunks(directory, name))
            file.flush()
            os.fsync(file.fileno())
        os.rename(aside, name, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError:
        os.unlink(aside, dir_fd=directory)
        return False
    return True


def move_if_absent(from_directory: int, from_name: str, directory: int, name: str) -> None:
    """Rename; ``FileExistsError`` when the target has anything. Atomic where the kernel can (Linux)."""
    code = _renameat2(from_directory, from_name, directory, name, _RENAME_NOREPLACE)
    if code in _UNSUPPORTED:
        if look(directory, name) is not None:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)
        os.rename(from_name, name, src_dir_fd=from_directory, dst_dir_fd=directory)
    elif code:
        raise OSError(code, os.strerror(code), name)


def exchange(first_directory: int, first: str, second_directory: int, second: str) -> bool:
    """Swap two entries at once; False when the file system cannot."""
    code = _renameat2(first_directory, first, second_directory, second, _RENAME_EXCHANGE)
    if code in _UNSUPPORTED:
        return False
    if code:
        raise OSError(code, os.strerror(code), second)
    return True


def _renameat2(from_directory: int, from_name: str, directory: int, name: str, flags: int) -> int:
    if not _has_renameat2:
        return errno.ENOSYS
    failed = _libc.renameat2(from_directory, os.fsencode(from_name), directory, os.fsencode(name), flags)
    return ctypes.get_errno() if failed else 0


def barrier(directory: int) -> None:
    """Everything written to the file system of ``directory`` is on disk when this returns (``syncfs``)."""
    if sys.platform != "linux":
        os.sync()
        return
    if _libc.syncfs(directory):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def try_lock(fd: int) -> bool:
    """Take the whole-file lock, which ends with this process; False when another has it."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
