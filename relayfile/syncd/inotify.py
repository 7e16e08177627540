"""The kernel's news of directories (inotify), by descriptor: what is watched is what was opened, never a name (I2).

Owns the system calls and the bytes that come of them. Refuses to know what a watched directory is called: a watch is a
number, and its owner keeps the names.
"""

import ctypes
import errno
import os
import struct
import sys
from typing import Final, NamedTuple

USABLE: Final = sys.platform == "linux"

_libc = ctypes.CDLL(None, use_errno=True)
_HEAD: Final = struct.Struct("iIII")  # watch, mask, cookie, length of the name behind it
_READ_BYTES: Final = 64 * 1024
_EXHAUSTED: Final = frozenset({errno.ENOSPC, errno.EMFILE, errno.ENFILE, errno.ENOMEM})


class Mask:
    """Bits of the kernel's. Plain numbers: an enumeration's operators cost more than all else that an event needs."""

    MODIFY: Final = 0x2
    CLOSE_WRITE: Final = 0x8
    MOVED_FROM: Final = 0x40
    MOVED_TO: Final = 0x80
    CREATE: Final = 0x100
    DELETE: Final = 0x200
    OVERFLOW: Final = 0x4000
    IGNORED: Final = 0x8000
    ONLY_DIRECTORY: Final = 0x01000000
    EXCEPT_UNLINKED: Final = 0x04000000
    DIRECTORY: Final = 0x40000000


_WATCHED: Final = (
    Mask.MODIFY
    | Mask.CLOSE_WRITE
    | Mask.MOVED_FROM
    | Mask.MOVED_TO
    | Mask.CREATE
    | Mask.DELETE
    | Mask.ONLY_DIRECTORY
    | Mask.EXCEPT_UNLINKED
)


class Notice(NamedTuple):
    """One event, as it was read."""

    watch: int
    mask: int
    cookie: int
    name: str
    """Of the entry; undecodable bytes as lone surrogates. Empty: the directory itself."""


class WatchesExhausted(Exception):
    """The kernel gives no more watches, or none at all."""


class Inotify:
    """An inotify instance. ``fd`` is readable when there is news. ``add`` and ``drop`` may run in any thread."""

    def __init__(self) -> None:
        if not USABLE:
            raise WatchesExhausted("this system has no inotify")
        self.fd = int(_libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))
        if self.fd < 0:
            raise _failure("inotify_init1")

    def close(self) -> None:
        os.close(self.fd)

    def add(self, directory: int) -> int:
        """Watch an open directory; the same number again when it is watched already. ``OSError`` when it is gone."""
        watch = int(_libc.inotify_add_watch(self.fd, b"/proc/self/fd/%d" % directory, _WATCHED))
        if watch < 0:
            raise _failure("inotify_add_watch")
        return watch

    def drop(self, watch: int) -> None:
        """End a watch; one that has ended already is no error."""
        _libc.inotify_rm_watch(self.fd, watch)

    def read(self) -> list[Notice]:
        """What has come, up to a bound; empty when nothing has."""
        try:
            raw = os.read(self.fd, _READ_BYTES)
        except BlockingIOError:
            return []
        notices: list[Notice] = []
        at = 0
        while at < len(raw):
            watch, mask, cookie, length = _HEAD.unpack_from(raw, at)
            at += _HEAD.size
            name = os.fsdecode(raw[at : at + length].rstrip(b"\0")) if length else ""
            at += length
            notices.append(Notice(watch, mask, cookie, name))
        return notices


def _failure(call: str) -> OSError | WatchesExhausted:
    code = ctypes.get_errno()
    if code in _EXHAUSTED:
        return WatchesExhausted(f"{call}: {os.strerror(code)}")
    return OSError(code, os.strerror(code), call)
