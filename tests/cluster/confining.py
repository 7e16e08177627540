"""A container's own view of the file system: everything is read-only but its volumes, and names are the cluster's.

Needs root and mount namespaces. Runs as a program before the command of a container, in its place: `python confining.py
JSON ARGUMENTS...`, of a process that ends with its parent. What may be said is `Confinement`.
"""

import ctypes
import json
import os
import sys
from collections.abc import Sequence
from typing import NamedTuple

PR_SET_PDEATHSIG, SIGKILL = 1, 9
CLONE_NEWNS = 0x20000
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
SYS_MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE = 442, -100, 0x8000
MOUNT_ATTR_RDONLY = 1
RESOLVER_FILE = "/etc/resolv.conf"


class Confinement(NamedTuple):
    """What a container may write, and where it asks for names."""

    volumes: Sequence[str]
    resolver_file: str


def confine(to: Confinement) -> None:
    """From now on this process, and what it starts, sees no other file system. `OSError` where that cannot be."""
    libc = ctypes.CDLL(None, use_errno=True)

    def done(result: int) -> None:
        if result:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def set_read_only(path: str, *, read_only: bool) -> None:
        chosen, other = (MOUNT_ATTR_RDONLY, 0) if read_only else (0, MOUNT_ATTR_RDONLY)
        attributes = (ctypes.c_uint64 * 4)(chosen, other, 0, 0)
        flags = AT_RECURSIVE if read_only else 0
        done(libc.syscall(SYS_MOUNT_SETATTR, AT_FDCWD, path.encode(), flags, attributes, ctypes.sizeof(attributes)))

    def bind(what: str, to: str) -> None:
        done(libc.mount(what.encode(), to.encode(), None, MS_BIND, None))

    done(libc.unshare(CLONE_NEWNS))
    done(libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None))
    bind(to.resolver_file, RESOLVER_FILE)
    for volume in to.volumes:
        bind(volume, volume)
    set_read_only("/", read_only=True)
    for volume in to.volumes:
        set_read_only(volume, read_only=False)


def main(said: str, arguments: Sequence[str]) -> None:
    """Become `python ARGUMENTS`, confined unless nothing is said."""
    # The kernel ends the process when the test's process is gone, whatever becomes of that. It survives the exec.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, SIGKILL)
    if said:
        confine(Confinement(**json.loads(said)))
    os.execv(sys.executable, [sys.executable, *arguments])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
