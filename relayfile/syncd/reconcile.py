"""What is to be done with one file: base, disk and store in, an action out. Pure; the whole truth is one table.

``base`` is what both sides last agreed on (None: that there is nothing), ``local`` what a look at the disk found,
``remote`` what the store has (None: it is gone there). A mirror of both ways sends what only the disk changed; where
both changed, the store's version wins the path, the local bytes are kept aside, and a modification beats a deletion. A
read-only mirror restores what somebody changed in it, and keeps the bytes in its trash.
"""

from dataclasses import dataclass
from enum import Enum, IntEnum, auto


class Mode(Enum):
    """Which way changes go."""

    TWO_WAY = auto()
    READ_ONLY = auto()


class LocalKind(Enum):
    """What has the file's name on disk."""

    ABSENT = auto()
    AS_WRITTEN = auto()
    """The base, untouched."""
    FILE = auto()
    """Another regular file, or an edited one."""
    DIRECTORY = auto()
    SPECIAL = auto()
    """A link, a device, a socket or a pipe."""


@dataclass(frozen=True, slots=True)
class Local:
    """What a look at the disk found. ``content_hash`` only with ``FILE``, when it was read."""

    kind: LocalKind
    content_hash: bytes | None = None


class Step(Enum):
    """What to do."""

    NOTHING = auto()
    """The disk is as it must be."""
    WRITE = auto()
    """Put the store's version where nothing is."""
    REPLACE = auto()
    """Put the store's version in the place of our own untouched file, which goes to the trash."""
    REMOVE = auto()
    """Our own untouched file goes to the trash."""
    ADOPT = auto()
    """The disk has the store's content already: take the file for ours."""
    FORGET = auto()
    """The file is gone on both sides, or what is there is none of the mirror's business."""
    PUSH = auto()
    """Send the local file to the store."""
    PUSH_DELETE = auto()
    """Tell the store that the file is gone."""
    KEEP = auto()
    """Keep the local file aside, as a conflict, and put the store's version in its place."""
    RESTORE = auto()
    """The local file goes to the trash; the store's version, if it has one, comes in its place."""
    LIST = auto()
    """Touch nothing; the file is a listed problem."""


class ConflictKind(IntEnum):
    """What collided. The numbers are stored, and those of ``relayfile.v1.ConflictKind``."""

    BOTH_MODIFIED = 1
    BOTH_CREATED = 2
    DELETED_REMOTELY = 3
    DELETED_LOCALLY = 4


@dataclass(frozen=True, slots=True)
class Action:
    """A step; for ``LIST`` the reason, and what collided where both sides changed."""

    step: Step
    reason: str = ""
    conflict: ConflictKind | None = None


NOTHING = Action(Step.NOTHING)
_IN_THE_WAY = {
    LocalKind.DIRECTORY: "FILE_IS_DIRECTORY",
    LocalKind.SPECIAL: "NOT_A_REGULAR_FILE",
}


def reconcile(base: bytes | None, local: Local, remote: bytes | None, mode: Mode = Mode.TWO_WAY) -> Action:
    """The one action that loses no byte of a user and brings disk and store closest to each other."""
    kind = local.kind
    if kind is LocalKind.FILE and base is not None and local.content_hash == base:
        kind = LocalKind.AS_WRITTEN
    match kind:
        case LocalKind.ABSENT:
            return _absent(base, remote, mode)
        case LocalKind.AS_WRITTEN if remote is None:
            return Action(Step.REMOVE)
        case LocalKind.AS_WRITTEN:
            return NOTHING if base == remote else Action(Step.REPLACE)
        case LocalKind.FILE if local.content_hash == remote:
            return Action(Step.ADOPT)
        case LocalKind.FILE:
            return _changed(base, remote, mode)
        case _:
            return _no_file(kind, base, remote, mode)


def _absent(base: bytes | None, remote: bytes | None, mode: Mode) -> Action:
    if remote is None:
        return Action(Step.FORGET)
    if base is None or mode is Mode.READ_ONLY:
        return Action(Step.WRITE)
    if base == remote:
        return Action(Step.PUSH_DELETE)
    return Action(Step.WRITE, conflict=ConflictKind.DELETED_LOCALLY)


def _changed(base: bytes | None, remote: bytes | None, mode: Mode) -> Action:
    """A regular file that neither side of the mirror knows."""
    if mode is Mode.READ_ONLY:
        if base is None:  # never the mirror's: it stays, and nothing is written over it
            return Action(Step.LIST, "NOT_PUSHED" if remote is None else "LOCAL_FILE_IN_THE_WAY")
        return Action(Step.RESTORE)
    if remote is None:
        return Action(Step.PUSH, conflict=None if base is None else ConflictKind.DELETED_REMOTELY)
    if base is None:
        return Action(Step.KEEP, conflict=ConflictKind.BOTH_CREATED)
    return Action(Step.PUSH) if base == remote else Action(Step.KEEP, conflict=ConflictKind.BOTH_MODIFIED)


def _no_file(kind: LocalKind, base: bytes | None, remote: bytes | None, mode: Mode) -> Action:
    if remote is None:
        return Action(Step.FORGET)
    if kind is LocalKind.DIRECTORY and base == remote and mode is Mode.TWO_WAY:
        return Action(Step.PUSH_DELETE)  # somebody made a directory of the file; what is in it is pushed as itself
    return Action(Step.LIST, _IN_THE_WAY[kind])
