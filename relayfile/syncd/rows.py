"""What the journal knows of a file, as values. Pure.

Three hashes tell how a file stands: ``remote_hash`` (what the store had at the cursor; None: it was deleted there),
``disk_hash`` (what syncd wrote; None: nothing) and what the disk holds now, which only a look can tell.
"""

from dataclasses import dataclass
from enum import IntEnum

from relayfile.syncd.reconcile import ConflictKind


class FileState(IntEnum):
    """How a remote file stands on disk. The numbers are stored."""

    MATERIALISED = 1
    PENDING = 2
    CONFLICT = 3
    IGNORED = 4
    PROBLEM = 5
    OUTGOING = 6
    """The outbox has an entry of it: the disk is ahead of what the store has told. Also of files that only the disk
    has, which then have no remote hash."""


class TrashReason(IntEnum):
    """Why something is in the trash. The numbers are stored, and those of ``relayfile.v1.TrashReason``."""

    OVERWRITTEN = 1
    DELETED = 2
    ACCESS_LOST = 3
    PATH_DROPPED = 4
    CONFLICT_RESOLVED = 5
    READ_ONLY_EDIT = 6


class EditKind(IntEnum):
    """What is sent. The numbers are stored."""

    WRITE = 1
    DELETE = 2
    MOVE = 3
    """To the entry's path, from ``from_path``: only while it is on its way; before, it is a delete and a write."""
    MOVED_AWAY = 4
    """The other half of a move; not sent by itself."""


class EntryState(IntEnum):
    """How far an edit is. The numbers are stored."""

    QUEUED = 1
    SENT = 2
    """On its way, or it was when the process died: its answer is not known, and what was sent does not change."""
    ACKNOWLEDGED = 3
    """The store has it; the event that tells so has not come."""
    REFUSED = 4
    HELD = 5
    """A delete that waits for somebody's decision (I4)."""


@dataclass(frozen=True, slots=True)
class DiskStat:
    """What tells a file from another, and a written file from an edited one."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    def same_file(self, other: "DiskStat") -> bool:
        """As ``==``, but blind to the change time, which a rename moves."""
        return (self.device, self.inode, self.size, self.mtime_ns) == (
            other.device,
            other.inode,
            other.size,
            other.mtime_ns,
        )


@dataclass(frozen=True, slots=True)
class FileRow:
    """One remote file in the journal."""

    path: str
    """Absolute, in the workspace."""
    revision: int
    remote_hash: bytes | None
    size: int
    """Of the remote content."""
    state: FileState
    disk_path: str
    """Relative to the mirror's directory; differs from ``path`` where a name had to (I8). Empty for ignored files."""
    disk_hash: bytes | None = None
    disk_stat: DiskStat | None = None


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """What the store says of a path: an upsert, or (``content_hash`` None) that it is gone."""

    path: str
    revision: int
    content_hash: bytes | None
    size: int = 0
    moved_from: str = ""
    moved: bool = False
    """The other half of a move: its content lives on elsewhere."""
    event_time_us: int = 0
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where in which history the journal's remote hashes stand."""

    revision: int
    history_id: str


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a path is not on disk as the store has it.

    ``path`` is a remote path, or a place on disk (relative) of what only the disk has, or empty: trouble of the whole.
    """

    path: str
    reason: str
    """Upper-snake, for example ``LOCAL_EDIT_KEPT``."""
    message: str
    revision: int = 0
    create_time_us: int = 0
    attempt_count: int = 1
    attempt_time_us: int = 0


@dataclass(frozen=True, slots=True)
class Settled:
    """What is now on disk for a path: the content of ``disk_hash``, or (None) nothing."""

    path: str
    disk_hash: bytes | None
    disk_stat: DiskStat | None = None


@dataclass(frozen=True, slots=True)
class Edit:
    """What the disk has and the store must get: the content of ``content_hash``, or (None) that the file is gone."""

    path: str
    disk_path: str
    content_hash: bytes | None
    disk_stat: DiskStat | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """An edit in the outbox."""

    path: str
    disk_path: str
    sequence: int
    """Of its last change: later edits have greater ones."""
    kind: EditKind
    state: EntryState
    if_revision: int
    """The file's revision that it changes; 0: the store must not have the file."""
    known_revision: int
    """Events of the path up to here are behind the base, or tell of it."""
    content_hash: bytes | None
    disk_stat: DiskStat | None
    base_stat: DiskStat | None = None
    """Of the file that a delete took away."""
    base_hash: bytes | None = None
    request_id: str = ""
    from_path: str = ""
    attempt_count: int = 0


@dataclass(frozen=True, slots=True)
class Answered:
    """The store has an entry's edit."""

    entry: Entry
    revision: int
    """At which every event that the edit caused is told."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """A file of which both sides changed."""

    conflict_id: str
    kind: ConflictKind
    path: str
    disk_path: str
    kept_name: str
    """Below `.relayfile/conflicts/`; empty when the local version has the path, or was a deletion."""
    base_revision: int
    remote_revision: int
    remote_hash: bytes
    """Empty: it is deleted there."""
    remote_size: int
    local_hash: bytes
    """Empty: it was deleted here."""
    local_size: int
    create_time_us: int
