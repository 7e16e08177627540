"""How remote paths are named on disk (I8), and which never come there (I9). Pure.

Almost every path is its own name. A segment over 255 bytes is cut and suffixed with a hash of the whole. On a file
system that folds case or Unicode forms, of two names that fold alike the first keeps its plain form and the other gets
a suffix. What is given is kept in the journal, so that both map back. Refuses to look at a disk.
"""

import hashlib
import unicodedata
from collections.abc import Callable
from typing import Final

from relayfile.paths import check_write_path

NAME_BYTES_MAX: Final = 255
OWN_DIRECTORY: Final = ".relayfile"
NEVER_MATERIALISED: Final = frozenset({OWN_DIRECTORY, ".git", ".hg", ".svn", ".bzr", ".jj"})
"""Folded names of directories (and files) that stay out of mirrors at any depth."""

_SUFFIX_HEX = 16
_EXTENSION_BYTES_MAX = 16


def is_ignored(path: str) -> bool:
    """Whether ``path`` lies in a directory that mirrors never touch. Folded: `.GIT` is `.git` on some disks."""
    if "/." not in path:
        return False
    return not NEVER_MATERIALISED.isdisjoint(fold(path).split("/"))


def refusal(path: str) -> str | None:
    """Why ``path``, which came from outside, names nothing that may be written; None when it may."""
    return check_write_path(path)


def fold(text: str) -> str:
    """The form in which names that any usual file system may confuse are equal."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold())


def shortened(path: str) -> str:
    """``path`` without its leading slash, every segment cut to what a directory can hold."""
    plain = path[1:]
    if len(plain.encode()) <= NAME_BYTES_MAX:
        return plain
    return "/".join([_cut(segment) for segment in plain.split("/")])


def _cut(segment: str) -> str:
    if len(segment.encode()) <= NAME_BYTES_MAX:
        return segment
    return suffixed(segment, segment)


def suffixed(segment: str, identity: str) -> str:
    """``segment`` with a suffix made of ``identity``, its extension kept, in at most 255 bytes."""
    stem, dot, extension = segment.rpartition(".")
    if not stem or len(extension.encode()) > _EXTENSION_BYTES_MAX:
        stem, dot, extension = segment, "", ""
    tail = "~" + hashlib.sha256(identity.encode()).hexdigest()[:_SUFFIX_HEX] + dot + extension
    room = NAME_BYTES_MAX - len(tail.encode())
    return stem.encode()[:room].decode(errors="ignore") + tail


def unfolded(path: str, owner_of: Callable[[str], str | None]) -> tuple[str, list[tuple[str, str]]]:
    """The disk path of ``path`` where names fold, and the (folded key, remote prefix) pairs that it takes.

    ``owner_of`` tells which remote prefix holds a folded disk prefix already; None when nobody does.
    """
    disk = ""
    remote = ""
    taken: list[tuple[str, str]] = []
    for segment in path[1:].split("/"):
        remote = f"{remote}/{segment}"
        prefix = disk + "/" if disk else ""
        name = _cut(segment)
        owner = owner_of(fold(prefix + name))
        if owner not in (None, remote):
            name = suffixed(segment, remote)
            owner = owner_of(fold(prefix + name))
        if owner is None:
            taken.append((fold(prefix + name), remote))
        disk = prefix + name
    return disk, taken
