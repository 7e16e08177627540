"""What is to be done with one file: base, disk and store in, an action out. Pure; the whole truth is one table.

``base`` is what syncd wrote (None: nothing), ``local`` what a look at the disk found, ``remote`` what the store has
(None: it is gone there). Mirrors take nothing from the disk yet: an edit is kept and listed, never overwritten.
"""

from dataclasses import dataclass
from enum import Enum, auto


class LocalKind(Enum):
    """What has the file's name on disk."""

    ABSENT = auto()
    AS_WRITTEN = auto()
    """The file that syncd wrote, untouched."""
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
    """What to do on disk."""

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
    """The file is gone on both sides, or what is there was never ours."""
    LIST = auto()
    """Touch nothing; the file is a listed problem."""


@dataclass(frozen=True, slots=True)
class Action:
    """A step, and for ``LIST`` the reason."""

    step: Step
    reason: str = ""


NOTHING = Action(Step.NOTHING)
_IN_THE_WAY = {
    LocalKind.DIRECTORY: "FILE_IS_DIRECTORY",
    LocalKind.SPECIAL: "NOT_A_REGULAR_FILE",
}


def reconcile(base: bytes | None, local: Local, remote: bytes | None) -> Action:
    """The one action that loses no byte of a user and brings the disk closest to the store."""
    if remote is None:
        return _gone(base, local)
    match local.kind:
        case LocalKind.ABSENT:
            return Action(Step.WRITE)
        case LocalKind.AS_WRITTEN:
            return NOTHING if base == remote else Action(Step.REPLACE)
        case LocalKind.FILE if local.content_hash == remote:
            return Action(Step.ADOPT)
        case LocalKind.FILE:
            return Action(Step.LIST, "LOCAL_FILE_IN_THE_WAY" if base is None else "LOCAL_EDIT_KEPT")
        case _:
            return Action(Step.LIST, _IN_THE_WAY[local.kind])


def _gone(base: bytes | None, local: Local) -> Action:
    if base is None or local.kind is LocalKind.ABSENT:
        return Action(Step.FORGET)
    if local.kind is LocalKind.AS_WRITTEN:
        return Action(Step.REMOVE)
    # A modification beats a deletion, and so does whatever stands there instead.
    return Action(Step.LIST, "LOCAL_EDIT_KEPT")
